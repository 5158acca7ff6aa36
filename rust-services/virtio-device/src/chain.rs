// SPDX-License-Identifier: Apache-2.0

//! One request: a descriptor chain, however its driver has cut it.
//!
//! A chain is two byte strings, what the device may read and what it may write, addressed by offset
//! from their own beginnings. Where one descriptor ends and the next begins is nobody's business.

use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::memory::Memory;

/// Most buffers in one chain, those of an indirect table included: what Linux and QEMU allow.
pub const MAX_SEGMENTS: usize = 1024;

/// Why a chain could not be read or written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChainError {
    /// The readable part ends before what the device needs.
    #[error("the request is {missing} bytes too short")]
    TooShort {
        /// How many bytes are missing.
        missing: usize,
    },
    /// The writable part cannot hold the answer.
    #[error("the answer needs {missing} more writable bytes")]
    NoRoom {
        /// How many bytes are missing.
        missing: usize,
    },
    /// A buffer lies outside of guest memory.
    #[error("a buffer at {address:#x} is not in guest memory")]
    OutOfMemory {
        /// Guest-physical address of the first byte that is not there.
        address: u64,
    },
}

/// A run of guest-physical bytes, as one descriptor names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) len: u32,
}

/// A descriptor chain taken from a queue. It must be given back with
/// [`Io::complete`](crate::Io::complete); dropped, its buffers stay with the device until a reset.
#[derive(Debug)]
#[must_use = "a chain that is not completed is lost to the driver"]
pub struct Chain {
    pub(crate) queue: usize,
    pub(crate) head: u16,
    pub(crate) generation: u32,
    pub(crate) deaths: u8,
    pub(crate) blame: u8,
    /// When the wake-up came that found it, on the clock of [`crate::clock::now`].
    pub(crate) found: std::time::Duration,
    /// Readable segments first, then the writable ones.
    pub(crate) segments: Vec<Segment>,
    pub(crate) readable_segments: usize,
    pub(crate) readable: usize,
    pub(crate) writable: usize,
}

impl Chain {
    /// The queue it came from.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// Index of its first descriptor: unique among the chains that a queue has in flight.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes the device may read.
    #[must_use]
    pub fn readable(&self) -> usize {
        self.readable
    }

    /// Bytes the device may write.
    #[must_use]
    pub fn writable(&self) -> usize {
        self.writable
    }

    /// At how many deaths of the service this chain was in flight.
    #[must_use]
    pub fn deaths(&self) -> u8 {
        self.deaths
    }

    /// Whether the service died twice while it was working on this chain: it is to be answered with
    /// an error instead of being tried again. A chain is worked on from [`Io::pop`](crate::Io::pop)
    /// or [`Io::work_on`](crate::Io::work_on) to the next one of its queue, to
    /// [`Io::rest`](crate::Io::rest), or to the end of the handler's turn.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.blame > 1
    }

    /// Copies `buffer.len()` readable bytes at `offset` into `buffer`.
    ///
    /// # Errors
    /// [`ChainError::TooShort`] or [`ChainError::OutOfMemory`]; `buffer` is then unspecified.
    pub fn read(
        &self,
        memory: &Memory,
        offset: usize,
        buffer: &mut [u8],
    ) -> Result<(), ChainError> {
        let mut rest = buffer;
        self.readable_slices(memory, offset, rest.len(), |slice| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        })
    }

    /// Reads a plain value at `offset`.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn read_value<T: FromBytes + IntoBytes>(
        &self,
        memory: &Memory,
        offset: usize,
    ) -> Result<T, ChainError> {
        let mut value = T::new_zeroed();
        self.read(memory, offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies `bytes` into the writable part at `offset`.
    ///
    /// # Errors
    /// [`ChainError::NoRoom`] (nothing was written) or [`ChainError::OutOfMemory`].
    pub fn write(&self, memory: &Memory, offset: usize, bytes: &[u8]) -> Result<(), ChainError> {
        let mut rest = bytes;
        self.writable_slices(memory, offset, rest.len(), |slice| {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        })
    }

    /// Writes a plain value at `offset`.
    ///
    /// # Errors
    /// As [`Chain::write`].
    pub fn write_value<T: IntoBytes + Immutable>(
        &self,
        memory: &Memory,
        offset: usize,
        value: &T,
    ) -> Result<(), ChainError> {
        self.write(memory, offset, value.as_bytes())
    }

    /// Calls `visit` with the pieces of guest memory that hold `len` readable bytes from `offset`,
    /// in order: for data that is moved once, straight into a back end.
    ///
    /// # Errors
    /// As [`Chain::read`]; pieces before the missing one have been visited.
    pub fn readable_slices(
        &self,
        memory: &Memory,
        offset: usize,
        len: usize,
        visit: impl FnMut(VolatileSlice<'_>),
    ) -> Result<(), ChainError> {
        let missing = offset.saturating_add(len).saturating_sub(self.readable);
        if missing > 0 {
            return Err(ChainError::TooShort { missing });
        }
        let segments = self
            .segments
            .get(..self.readable_segments)
            .unwrap_or_default();
        visit_range(segments, memory, offset, len, visit)
    }

    /// As [`Chain::readable_slices`], for the writable part.
    ///
    /// # Errors
    /// As [`Chain::write`].
    pub fn writable_slices(
        &self,
        memory: &Memory,
        offset: usize,
        len: usize,
        visit: impl FnMut(VolatileSlice<'_>),
    ) -> Result<(), ChainError> {
        let missing = offset.saturating_add(len).saturating_sub(self.writable);
        if missing > 0 {
            return Err(ChainError::NoRoom { missing });
        }
        let segments = self
            .segments
            .get(self.readable_segments..)
            .unwrap_or_default();
        visit_range(segments, memory, offset, len, visit)
    }
}

pub(crate) fn visit_range(
    segments: &[Segment],
    memory: &Memory,
    offset: usize,
    len: usize,
    mut visit: impl FnMut(VolatileSlice<'_>),
) -> Result<(), ChainError> {
    let mut skip = offset as u64;
    let mut left = len as u64;
    for segment in segments {
        if left == 0 {
            break;
        }
        let size = u64::from(segment.len);
        if skip >= size {
            skip = skip.saturating_sub(size);
            continue;
        }
        let now = size.saturating_sub(skip).min(left);
        memory.visit(segment.address.wrapping_add(skip), now, &mut visit)?;
        skip = 0;
        left = left.saturating_sub(now);
    }
    Ok(())
}
