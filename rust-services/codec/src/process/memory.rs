// SPDX-License-Identifier: Apache-2.0

//! Memory that a session and its worker share: a file in memory, in places of one size.
//!
//! Neither side maps it. Both read and write it by calls, so that neither sees a byte change while it
//! looks at it, and a file that the other side cuts short is an error and no signal. What was never
//! written of a place takes no memory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Places of a session's memory, each way.
pub(super) const PLACES: usize = 3;

/// The memory of one way.
#[derive(Debug)]
pub(super) struct Places {
    file: File,
    /// Bytes of each.
    size: u64,
}

impl Places {
    /// New memory.
    pub(super) fn new(name: &str, size: u64) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create(name, flags)?);
        file.set_len(size.saturating_mul(PLACES as u64))?;
        // Its length bounds what a worker can fill.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { file, size })
    }

    /// The other side's.
    pub(super) fn of(file: OwnedFd, size: u64) -> Self {
        Self {
            file: file.into(),
            size,
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of a place.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Where a place begins; nothing where it is none.
    pub(super) fn begin(&self, place: usize) -> Option<u64> {
        (place < PLACES).then(|| self.size.saturating_mul(place as u64))
    }

    /// Writes to the beginning of a place.
    pub(super) fn write(&self, place: usize, bytes: &[u8]) -> io::Result<()> {
        let begin = self.begin(place).filter(|_| self.holds(bytes.len()));
        let begin = begin.ok_or(io::ErrorKind::StorageFull)?;
        self.file.write_all_at(bytes, begin)
    }

    /// Reads from the beginning of a place.
    pub(super) fn read(&self, place: usize, bytes: usize) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        self.read_into(place, bytes, &mut read)?;
        Ok(read)
    }

    /// The same into memory that is there.
    pub(super) fn read_into(
        &self,
        place: usize,
        bytes: usize,
        into: &mut Vec<u8>,
    ) -> io::Result<()> {
        let begin = self.begin(place).filter(|_| self.holds(bytes));
        let begin = begin.ok_or(io::ErrorKind::InvalidData)?;
        into.resize(bytes, 0);
        self.file.read_exact_at(into, begin)
    }

    fn holds(&self, bytes: usize) -> bool {
        bytes as u64 <= self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_a_place_is_read_there_and_nowhere_else() {
        let places = Places::new("test", 100).unwrap();
        places.write(1, &[7; 100]).unwrap();
        assert_eq!(places.read(1, 100).unwrap(), [7; 100]);
        assert_eq!(places.read(0, 100).unwrap(), [0; 100]);
        assert!(places.write(1, &[7; 101]).is_err(), "too long");
        assert!(places.write(PLACES, &[7]).is_err(), "no such place");
        assert!(places.read(usize::MAX, 1).is_err());
        assert!(places.read(0, 101).is_err());
    }

    #[test]
    fn the_other_side_cannot_change_its_length() {
        let places = Places::new("test", 100).unwrap();
        let other = Places::of(places.file.try_clone().unwrap().into(), 100);
        assert!(other.file.set_len(0).is_err());
        assert!(other.file.set_len(1 << 30).is_err());
        other.write(2, b"abc").unwrap();
        assert_eq!(places.read(2, 3).unwrap(), b"abc");
    }
}
