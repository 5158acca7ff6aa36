// SPDX-License-Identifier: Apache-2.0

//! Memory of the device that its guest may have too, by a shared memory region.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// A file in memory, mapped here: [`Request::Map`](crate::Request::Map) shows it to the guest. It is
/// sealed, so that nobody can cut it short under the other; what was never touched takes no memory.
pub struct SharedMemory {
    file: Arc<OwnedFd>,
    region: MmapRegion,
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory")
            .field("len", &self.region.size())
            .finish_non_exhaustive()
    }
}

impl SharedMemory {
    /// `len` bytes of zeroes: a multiple of the page size, or a VMM would not map it.
    ///
    /// # Errors
    /// When the kernel has no memory files, no descriptors or no memory.
    pub fn new(len: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("agl-virtio-shared", flags)?);
        file.set_len(len as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let region = MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), len)
            .map_err(io::Error::other)?;
        Ok(Self {
            file: Arc::new(file.into()),
            region,
        })
    }

    /// What the VMM maps.
    #[must_use]
    pub fn file(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.file)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.size()
    }

    /// Whether there is not one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `len` bytes at `offset`; `None` beyond the end.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        self.region.get_slice(offset, len).ok()
    }
}
