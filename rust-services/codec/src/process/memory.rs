// SPDX-License-Identifier: Apache-2.0

//! Memory that a session and its worker share: a file in memory, in places of one size.
//!
//! What is to be understood is read and written by calls, so that no byte changes while it is looked at.
//! Pictures of a decoder are only carried on: both sides map their places ([`crate::frames`],
//! [`super::picture`]). The file is sealed, so nobody can cut it short under the other. What was never
//! written of a place takes no memory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use vm_memory::{FileOffset, MmapRegion};

use crate::frames::Frames;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Places of a session's memory, each way, that are read and written by calls. So many outputs the service
/// has at once, at most.
pub(super) const PLACES: usize = 3;

/// The memory of one way.
#[derive(Debug)]
pub(super) struct Places {
    file: File,
    /// Bytes of each.
    size: u64,
    count: usize,
}

impl Places {
    /// New memory.
    pub(super) fn new(name: &str, size: u64, count: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create(name, flags)?);
        file.set_len(size.saturating_mul(count as u64))?;
        // Its length bounds what a worker can fill.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { file, size, count })
    }

    /// The other side's.
    pub(super) fn of(file: OwnedFd, size: u64, count: usize) -> Self {
        Self {
            file: file.into(),
            size,
            count,
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
        (place < self.count).then(|| self.size.saturating_mul(place as u64))
    }

    /// Writes to the beginning of a place.
    pub(super) fn write(&self, place: usize, bytes: &[u8]) -> io::Result<()> {
        let begin = self.begin(place).filter(|_| self.holds(bytes.len()));
        let begin = begin.ok_or(io::ErrorKind::StorageFull)?;
        self.file.write_all_at(bytes, begin)
    }

    /// Reads from the beginning of a place.
    pub(super) fn read(&self, place: usize, bytes: usize) -> io::Result<Vec<u8>> {
        let begin = self.begin(place).filter(|_| self.holds(bytes));
        let begin = begin.ok_or(io::ErrorKind::InvalidData)?;
        let mut read = vec![0; bytes];
        self.file.read_exact_at(&mut read, begin)?;
        Ok(read)
    }

    /// What lies behind the usual places, for a decoder to draw in; nothing where there is nothing.
    pub(super) fn frames(&self) -> io::Result<Option<Frames>> {
        let size = usize::try_from(self.size).map_err(io::Error::other)?;
        if self.count <= PLACES {
            return Ok(None);
        }
        let file = self.file.try_clone()?;
        Ok(Some(Frames::of(file, size, PLACES..self.count)))
    }

    /// All of it, to be looked at where it is.
    pub(super) fn map(&self) -> io::Result<MmapRegion> {
        let size = self.size.saturating_mul(self.count as u64);
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let file = FileOffset::new(self.file.try_clone()?, 0);
        MmapRegion::from_file(file, size).map_err(io::Error::other)
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
        let places = Places::new("test", 100, PLACES).unwrap();
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
        let places = Places::new("test", 100, PLACES).unwrap();
        let other = Places::of(places.file.try_clone().unwrap().into(), 100, PLACES);
        assert!(other.file.set_len(0).is_err());
        assert!(other.file.set_len(1 << 30).is_err());
        other.write(2, b"abc").unwrap();
        assert_eq!(places.read(2, 3).unwrap(), b"abc");
    }
    #[test]
    fn the_other_side_cannot_have_writes_go_to_its_end() {
        use rustix::fs::{OFlags, fcntl_setfl};

        let places = Places::new("test", 100, PLACES).unwrap();
        places.write(1, b"abc").unwrap();
        let other = places.file.try_clone().unwrap();
        fcntl_setfl(&other, OFlags::RDWR | OFlags::APPEND).unwrap();
        // Behind the end there is nothing, so its own session fails.
        assert!(places.write(0, b"def").is_err());
        assert_eq!(places.read(1, 3).unwrap(), b"abc");
        assert_eq!(places.read(0, 3).unwrap(), [0; 3]);
        let long = places.file.metadata().unwrap().len();
        assert_eq!(long, 100 * PLACES as u64);
    }
}
