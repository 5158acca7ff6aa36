// SPDX-License-Identifier: Apache-2.0

//! Wakes a queue thread from any other thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A handle that makes [`Handler::woken`](crate::Handler::woken) run soon. Wake-ups that come
/// before the thread ran are one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Wakes the thread. Never blocks; costs one system call.
    pub fn wake(&self) {
        // The only failure is a full counter, and then the thread is awake anyway. It is watched
        // edge triggered, so each write wakes although nobody reads.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
