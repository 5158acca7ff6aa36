// SPDX-License-Identifier: Apache-2.0
//! eventfds: kicks, calls and error notices.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// Whether a read of an empty eventfd waits. QEMU makes its eventfds non-blocking, crosvm and
/// Cloud Hypervisor blocking ones: a service must do with both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocking {
    /// A read waits. The mode is one of the open file, so both sides see it.
    Yes,
    /// A read of an empty one fails with EAGAIN.
    #[default]
    No,
}

/// An eventfd.
#[derive(Debug)]
pub struct Event {
    fd: OwnedFd,
    blocking: Blocking,
}

impl Event {
    /// A new one with count 0.
    ///
    /// # Errors
    /// Where the system has none left.
    pub fn new(blocking: Blocking) -> Result<Self> {
        let mode = match blocking {
            Blocking::Yes => EventfdFlags::empty(),
            Blocking::No => EventfdFlags::NONBLOCK,
        };
        let fd = eventfd(0, EventfdFlags::CLOEXEC | mode)
            .map_err(|source| Error::io("create an eventfd", source))?;
        Ok(Self { fd, blocking })
    }

    /// Add 1 to the count.
    ///
    /// # Errors
    /// Where the write fails.
    pub fn signal(&self) -> Result<()> {
        write(&self.fd, &1u64.to_ne_bytes())
            .map(drop)
            .map_err(|source| Error::io("signal an eventfd", source))
    }

    /// Take the count if there is one. On a blocking eventfd this looks first, so it never waits.
    ///
    /// # Errors
    /// Where the read fails.
    pub fn take(&self) -> Result<u64> {
        if self.blocking == Blocking::Yes
            && !Deadline::after(std::time::Duration::ZERO).readable(self.as_fd())?
        {
            return Ok(0);
        }
        let mut count = [0u8; 8];
        match read(&self.fd, &mut count) {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(Errno::AGAIN) => Ok(0),
            Err(source) => Err(Error::io("read an eventfd", source)),
        }
    }

    /// Wait for a count and take it; `None` once the deadline has passed.
    ///
    /// # Errors
    /// Where waiting or reading fails.
    pub fn wait(&self, deadline: Deadline) -> Result<Option<u64>> {
        loop {
            if !deadline.readable(self.as_fd())? {
                return Ok(None);
            }
            match self.take()? {
                0 => {}
                count => return Ok(Some(count)),
            }
        }
    }

    /// Wait in read(2) itself, one system call instead of two: for round-trip measurements, with a
    /// watchdog beside it that signals the event when the patience ends. Only for blocking ones.
    ///
    /// # Errors
    /// Where the read fails.
    pub fn wait_in_read(&self) -> Result<u64> {
        let mut count = [0u8; 8];
        loop {
            match read(&self.fd, &mut count) {
                Ok(_) => return Ok(u64::from_ne_bytes(count)),
                Err(Errno::INTR) => {}
                Err(source) => return Err(Error::io("read an eventfd", source)),
            }
        }
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
