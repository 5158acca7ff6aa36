// SPDX-License-Identifier: Apache-2.0

//! Memory of the device for MMAP buffers (VIRTIO 1.4, 5.22.6.1.7), and how much of it a guest may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::io::Errno;
use virtio_device::{Pages, SharedMemory};

/// Memory comes, and is mapped, in pieces of this size: the largest page that a guest may have, for a
/// guest shows whole pages of its own to its programs.
pub const PIECE: u64 = 64 << 10;
/// Buffers that a guest may have, or have mapped, at a time: each is two descriptors of this process, the
/// one that a VMM is given and that of its mapping here.
const MAX_BUFFERS: usize = 512;
/// Descriptors that a process with such buffers may have open: a guest with all of its buffers is not to
/// take those with which it is served.
pub const OPEN_FILES: u64 = 1024 + 2 * MAX_BUFFERS as u64;

/// Bytes in whole pieces.
#[must_use]
pub const fn pieces(len: u64) -> u64 {
    len.div_ceil(PIECE)
}

/// What all sessions of a guest may have together. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Spent>);

#[derive(Debug)]
struct Spent {
    most: u64,
    bytes: AtomicU64,
    buffers: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self(Arc::new(Spent {
            most,
            bytes: AtomicU64::new(0),
            buffers: AtomicUsize::new(0),
        }))
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Takes a part of it, until that is dropped.
    ///
    /// # Errors
    /// ENOMEM where there is not so much left.
    pub fn take(&self, bytes: u64) -> Result<Part, Errno> {
        // Before it is known whether there is as much: dropping it takes both back.
        let part = Part {
            of: self.clone(),
            bytes,
        };
        let taken = self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        let buffers = self.0.buffers.fetch_add(1, Ordering::Relaxed);
        let fits = taken
            .checked_add(bytes)
            .is_some_and(|taken| taken <= self.0.most);
        if fits && buffers < MAX_BUFFERS {
            Ok(part)
        } else {
            Err(Errno::NOMEM)
        }
    }

    /// Memory for a plane of `len` bytes, all zero.
    ///
    /// # Errors
    /// ENOMEM where the guest may not have it, or the host has not got it; EINVAL for nothing at all.
    pub fn allocate(&self, len: u32) -> Result<Arc<PlaneMemory>, Errno> {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        let bytes = pieces(len.into()).saturating_mul(PIECE);
        let part = self.take(bytes)?;
        let size = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
        let memory = SharedMemory::new(size).map_err(|_| Errno::NOMEM)?;
        Ok(Arc::new(PlaneMemory {
            memory: Arc::new(memory),
            len,
            mapped: AtomicUsize::new(0),
            _part: part,
        }))
    }
}

/// A part of a budget.
#[derive(Debug)]
pub struct Part {
    of: Budget,
    bytes: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.of.0.buffers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The memory of one plane of a buffer: the buffer's, and each mapping's, which may outlive it.
#[derive(Debug)]
pub struct PlaneMemory {
    memory: Arc<SharedMemory>,
    len: u32,
    mapped: AtomicUsize,
    _part: Part,
}

impl PlaneMemory {
    /// Bytes of the plane; the memory has whole pieces.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Never: there is no plane without a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the VMM maps.
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The plane, to be filled or read.
    #[must_use]
    pub fn pages(&self) -> Pages {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        Pages::shared(Arc::clone(&self.memory), len)
    }

    /// Whether the guest has it mapped.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.mapped.load(Ordering::Relaxed) > 0
    }

    /// It is mapped once more.
    pub(crate) fn note_mapped(&self) {
        self.mapped.fetch_add(1, Ordering::Relaxed);
    }

    /// And once less.
    pub(crate) fn note_unmapped(&self) {
        self.mapped.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_while_the_guest_may_have_more_and_again_when_it_has_less() {
        let budget = Budget::new(3 * PIECE);
        let small = budget.allocate(1).unwrap();
        assert_eq!((small.len(), small.memory().len() as u64), (1, PIECE));
        let large = budget.allocate(u32::try_from(PIECE).unwrap() + 1).unwrap();
        assert_eq!(budget.taken(), 3 * PIECE);
        assert!(matches!(budget.allocate(1), Err(Errno::NOMEM)));
        assert_eq!(budget.taken(), 3 * PIECE);
        drop(large);
        assert!(budget.allocate(1).is_ok());
        assert!(matches!(budget.allocate(0), Err(Errno::INVAL)));
        assert!(matches!(budget.allocate(u32::MAX), Err(Errno::NOMEM)));
    }

    #[test]
    fn a_guest_with_all_of_its_buffers_leaves_descriptors_for_what_serves_it() {
        let open = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            let name = |fd: std::fs::DirEntry| std::fs::read_link(fd.path()).ok();
            let ours = |path: &std::path::PathBuf| path.to_string_lossy().contains("virtio-shared");
            all.flatten().filter_map(name).filter(ours).count() as u64
        };
        let budget = Budget::new(u64::MAX);
        let all: Vec<_> = (0..100).map(|_| budget.allocate(1).unwrap()).collect();
        // Other tests have a few of their own meanwhile.
        let each = open() / all.len() as u64;
        assert!((1..=2).contains(&each), "{each} descriptors for a buffer");
        assert!(each * MAX_BUFFERS as u64 + 1024 <= OPEN_FILES);
    }

    #[test]
    fn a_guest_has_so_many_buffers_and_no_more() {
        let budget = Budget::new(u64::MAX);
        let all: Vec<_> = (0..MAX_BUFFERS)
            .map(|_| budget.take(PIECE).unwrap())
            .collect();
        assert!(budget.take(PIECE).is_err());
        drop(all);
        assert!(budget.take(PIECE).is_ok());
    }
}
