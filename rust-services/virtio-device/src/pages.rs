// SPDX-License-Identifier: Apache-2.0

//! Guest memory that a driver names inside a request instead of by descriptors: the pages of a
//! buffer which the device fills or reads later. Or memory of the device that the guest has too.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::chain::{ChainError, Segment, visit_range};
use crate::memory::Memory;
use crate::shared::SharedMemory;

/// A list of guest-physical runs that make up one buffer, addressed by offset from its beginning.
///
/// Only numbers: every access looks them up in the memory it is given, so a list that outlives a
/// memory table is refused and never touches what is not the guest's. A buffer in memory of the device
/// ([`Pages::shared`]) is there as long as the list is.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    segments: Vec<Segment>,
    shared: Option<Arc<SharedMemory>>,
    len: usize,
}

impl PartialEq for Pages {
    fn eq(&self, other: &Self) -> bool {
        let shared = |pages: &Self| pages.shared.as_ref().map(Arc::as_ptr);
        (&self.segments, shared(self), self.len) == (&other.segments, shared(other), other.len)
    }
}

impl Eq for Pages {}

impl Pages {
    /// The buffer that is the first `len` bytes of this memory, or all of it where that is less.
    #[must_use]
    pub fn shared(memory: Arc<SharedMemory>, len: usize) -> Self {
        Self {
            segments: Vec::new(),
            len: len.min(memory.len()),
            shared: Some(memory),
        }
    }

    /// The buffer made of these runs (address, bytes), all of which must be in guest memory now.
    ///
    /// # Errors
    /// [`ChainError::OutOfMemory`] with the first address that is not there.
    pub fn new(
        memory: &Memory,
        runs: impl IntoIterator<Item = (u64, u32)>,
    ) -> Result<Self, ChainError> {
        let mut pages = Self::default();
        for (address, len) in runs {
            memory.visit(address, len.into(), &mut |_| {})?;
            pages.segments.push(Segment { address, len });
            pages.len = pages
                .len
                .checked_add(len as usize)
                .ok_or(ChainError::OutOfMemory { address })?;
        }
        Ok(pages)
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Runs that it is made of.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is not one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `visit` with the pieces of guest memory that hold `len` bytes from `offset`, in order.
    ///
    /// # Errors
    /// [`ChainError::NoRoom`] (nothing was visited) or [`ChainError::OutOfMemory`].
    pub fn slices(
        &self,
        memory: &Memory,
        offset: usize,
        len: usize,
        mut visit: impl FnMut(VolatileSlice<'_>),
    ) -> Result<(), ChainError> {
        let missing = offset.saturating_add(len).saturating_sub(self.len);
        if missing > 0 {
            return Err(ChainError::NoRoom { missing });
        }
        if let Some(shared) = &self.shared {
            visit(
                shared
                    .slice(offset, len)
                    .ok_or(ChainError::NoRoom { missing: len })?,
            );
            return Ok(());
        }
        visit_range(&self.segments, memory, offset, len, visit)
    }

    /// Copies `bytes` into the buffer at `offset`.
    ///
    /// # Errors
    /// As [`Pages::slices`].
    pub fn write(&self, memory: &Memory, offset: usize, bytes: &[u8]) -> Result<(), ChainError> {
        let mut rest = bytes;
        self.slices(memory, offset, bytes.len(), |slice| {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        })
    }

    /// Copies `buffer.len()` bytes at `offset` into `buffer`.
    ///
    /// # Errors
    /// As [`Pages::slices`]; `buffer` is then unspecified.
    pub fn read(
        &self,
        memory: &Memory,
        offset: usize,
        buffer: &mut [u8],
    ) -> Result<(), ChainError> {
        let mut rest = buffer;
        let len = rest.len();
        self.slices(memory, offset, len, |slice| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    fn memory() -> Memory {
        let ranges = [(GuestAddress(0), 0x2000), (GuestAddress(0x10000), 0x1000)];
        Memory::new(Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()))
    }

    #[test]
    fn what_is_written_over_scattered_pages_is_read_back() {
        let memory = memory();
        let pages = Pages::new(&memory, [(0x1000, 0x1000), (0x10010, 7), (0x20, 3)]).unwrap();
        assert_eq!(pages.len(), 0x100a);
        pages.write(&memory, 0xffe, b"over pages").unwrap();
        let mut back = [0; 10];
        pages.read(&memory, 0xffe, &mut back).unwrap();
        assert_eq!(&back, b"over pages");
        let mut end = [0; 1];
        Pages::new(&memory, [(0x20, 1)])
            .unwrap()
            .read(&memory, 0, &mut end)
            .unwrap();
        assert_eq!(&end, b"s");
    }

    #[test]
    fn pages_that_are_not_the_guests_are_refused() {
        let memory = memory();
        let refused = Pages::new(&memory, [(0, 16), (0x1ff0, 0x20)]);
        assert_eq!(refused, Err(ChainError::OutOfMemory { address: 0x2000 }));
        let wraps = Pages::new(&memory, [(u64::MAX, 16)]);
        assert_eq!(wraps, Err(ChainError::OutOfMemory { address: u64::MAX }));
    }

    #[test]
    fn a_list_that_outlives_its_memory_touches_nothing() {
        let pages = Pages::new(&memory(), [(0x10000, 16)]).unwrap();
        let gone = pages.write(&Memory::empty(), 0, b"late");
        assert_eq!(gone, Err(ChainError::OutOfMemory { address: 0x10000 }));
    }

    #[test]
    fn a_buffer_of_the_device_needs_no_guest_memory() {
        let shared = Arc::new(SharedMemory::new(8192).unwrap());
        let pages = Pages::shared(Arc::clone(&shared), 5000);
        let none = Memory::empty();
        pages.write(&none, 4990, b"0123456789").unwrap();
        let mut back = [0; 10];
        rustix::io::pread(&*shared.file(), &mut back[..], 4990).unwrap();
        assert_eq!(&back, b"0123456789");
        assert_eq!(
            pages.write(&none, 4990, b"0123456789a"),
            Err(ChainError::NoRoom { missing: 1 })
        );
    }

    #[test]
    fn nothing_is_touched_beyond_the_end() {
        let memory = memory();
        let pages = Pages::new(&memory, [(0x1000, 8)]).unwrap();
        assert_eq!(
            pages.write(&memory, 4, b"12345"),
            Err(ChainError::NoRoom { missing: 1 })
        );
        assert_eq!(
            pages.write(&memory, usize::MAX, b"1"),
            Err(ChainError::NoRoom {
                missing: usize::MAX - 8
            })
        );
    }
}
