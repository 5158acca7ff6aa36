// SPDX-License-Identifier: Apache-2.0
//! Points in time after which waiting is given up: nothing here waits without one.
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A point in time after which waiting is given up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// How long the tests wait for what should come at once: long enough that a loaded machine
    /// fails no test.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// `patience` from now.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    /// [`Self::PATIENCE`] from now.
    #[must_use]
    pub fn patient() -> Self {
        Self::after(Self::PATIENCE)
    }

    /// What is left, zero once it has passed.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }

    /// Wait until `fd` can be read (or its other side is gone): whether it came before the
    /// deadline.
    ///
    /// # Errors
    /// Where poll(2) itself fails.
    pub fn readable(&self, fd: BorrowedFd<'_>) -> Result<bool> {
        loop {
            let left = self.left();
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) if self.passed() => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(source) => return Err(Error::io("poll for input", source)),
            }
        }
    }
}
