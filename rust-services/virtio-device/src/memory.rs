// SPDX-License-Identifier: Apache-2.0

//! Guest memory, as one snapshot that does not change while a request is served.

use std::sync::Arc;

use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress, MmapRegion, VolatileSlice,
};

use crate::chain::ChainError;

/// The guest's memory table. A worker holds one snapshot and swaps it at a barrier, so that no
/// region is unmapped under a request.
#[derive(Clone)]
pub struct Memory(Arc<GuestMemoryMmap>);

impl Memory {
    /// The memory that this table maps: a server's, or one of a test that has no server.
    #[must_use]
    pub fn new(table: Arc<GuestMemoryMmap>) -> Self {
        Self(table)
    }

    /// A memory without any region: what a device has before its driver said more.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::new(GuestMemoryMmap::new()))
    }

    /// The mapping that holds `len` bytes from `address`, and the offset there.
    pub(crate) fn mapping(&self, address: u64, len: usize) -> Option<(Arc<MmapRegion>, usize)> {
        let region = self.0.find_region(GuestAddress(address))?;
        let offset = address.checked_sub(region.start_addr().raw_value())?;
        let end = offset.checked_add(len as u64)?;
        (end <= region.len()).then_some((region.get_mmap(), usize::try_from(offset).ok()?))
    }

    /// Calls `visit` with the host's view of `len` bytes from guest-physical `address`: one piece
    /// where a region holds them all, several where they run over from one region into the next.
    ///
    /// # Errors
    /// [`ChainError::OutOfMemory`] with the first address that no region holds.
    pub(crate) fn visit(
        &self,
        address: u64,
        len: u64,
        visit: &mut impl FnMut(VolatileSlice<'_>),
    ) -> Result<(), ChainError> {
        let mut address = address;
        let mut left = len;
        while left > 0 {
            let missing = ChainError::OutOfMemory { address };
            let region = self.0.find_region(GuestAddress(address)).ok_or(missing)?;
            let offset = address.saturating_sub(region.start_addr().raw_value());
            let now = region.len().saturating_sub(offset).min(left);
            let count = usize::try_from(now).map_err(|_| missing)?;
            visit(
                region
                    .get_slice(MemoryRegionAddress(offset), count)
                    .map_err(|_| missing)?,
            );
            left = left.saturating_sub(now);
            if left > 0 {
                address = address.checked_add(now).ok_or(missing)?;
            }
        }
        Ok(())
    }
}
