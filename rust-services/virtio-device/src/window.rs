// SPDX-License-Identifier: Apache-2.0

//! A run of guest memory that is looked up once and then touched many times: a ring.
//!
//! A ring is read and written several times for every request. Going through the memory table each
//! time costs more than all the rest, so a window keeps the host address, and the mapping alive.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use vm_memory::{MmapRegion, VolatileMemory};

use crate::memory::Memory;

/// A mapped, aligned run of guest memory.
pub(crate) struct Window {
    start: *mut u8,
    len: usize,
    /// Keeps `start..start + len` mapped.
    _mapping: Arc<MmapRegion>,
}

// SAFETY: the mapping is shared memory that lives as long as the window; all access to it is by
// atomic or volatile operations, from whichever thread owns the window.
unsafe impl Send for Window {}

impl Window {
    /// The window of `len` bytes at guest-physical `address`, which must be a multiple of `align`
    /// (a power of two, at least 2) and lie in one region.
    pub(crate) fn new(memory: &Memory, address: u64, len: usize, align: u64) -> Option<Self> {
        let mask = align.wrapping_sub(1);
        if align < 2 || address & mask != 0 {
            return None;
        }
        let (mapping, offset) = memory.mapping(address, len)?;
        let start = mapping
            .get_slice(offset, len)
            .ok()?
            .ptr_guard_mut()
            .as_ptr();
        if (start as u64) & mask != 0 {
            return None;
        }
        Some(Self {
            start,
            len,
            _mapping: mapping,
        })
    }

    /// Loads a little-endian word at `offset`; 0 where that is outside or odd.
    #[inline]
    pub(crate) fn load(&self, offset: usize, order: Ordering) -> u16 {
        self.word(offset)
            .map_or(0, |word| u16::from_le(word.load(order)))
    }

    /// Stores a little-endian word at `offset`; ignored where that is outside or odd.
    #[inline]
    pub(crate) fn store(&self, offset: usize, value: u16, order: Ordering) {
        if let Some(word) = self.word(offset) {
            word.store(value.to_le(), order);
        }
    }

    /// Reads `N` bytes at `offset`, once; zeroes where that is outside.
    #[inline]
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        if !self.holds(offset, N) {
            return [0; N];
        }
        // SAFETY: `offset + N` is within the mapping, and any bytes are a valid array. The guest may
        // write at the same time; a volatile read yields some bytes then, which are judged after.
        unsafe { self.start.add(offset).cast::<[u8; N]>().read_volatile() }
    }

    /// Writes `N` bytes at `offset`; ignored where that is outside.
    #[inline]
    pub(crate) fn write<const N: usize>(&self, offset: usize, bytes: [u8; N]) {
        if self.holds(offset, N) {
            // SAFETY: `offset + N` is within the mapping, which is writable shared memory.
            unsafe {
                self.start
                    .add(offset)
                    .cast::<[u8; N]>()
                    .write_volatile(bytes)
            }
        }
    }

    #[inline]
    fn holds(&self, offset: usize, size: usize) -> bool {
        offset.checked_add(size).is_some_and(|end| end <= self.len)
    }

    #[inline]
    fn word(&self, offset: usize) -> Option<&AtomicU16> {
        if !self.holds(offset, 2) || offset % 2 != 0 {
            return None;
        }
        // SAFETY: within the mapping, which outlives `self`; aligned, since `start` is a multiple of
        // at least 2 and `offset` is even; shared memory is only touched atomically at this size.
        Some(unsafe { AtomicU16::from_ptr(self.start.add(offset).cast()) })
    }
}

/// Another descriptor for the same eventfd, which its owner holds open during this call.
pub(crate) fn duplicate(fd: std::os::fd::RawFd) -> Option<std::os::fd::OwnedFd> {
    if fd < 0 {
        return None;
    }
    // SAFETY: not -1, and the caller's owner keeps it open until this function returns.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fd.try_clone_to_owned().ok()
}
