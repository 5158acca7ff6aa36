// SPDX-License-Identifier: Apache-2.0

//! The clock that devices go by, and a timer on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// `CLOCK_MONOTONIC`, since the host's start.
#[must_use]
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Becomes readable at an instant on the clock of [`now`]. To be watched edge triggered: nobody
/// reads it.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    at: Option<Duration>,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            fd: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            at: None,
        })
    }

    /// Sets it: an instant that has passed counts as now, `None` takes the wish back. Costs a system
    /// call when it differs from the last wish.
    pub fn set(&mut self, at: Option<Duration>) {
        if at == self.at {
            return;
        }
        self.at = at;
        // A zero disarms, so an instant of zero is one nanosecond late.
        let at = at.map_or(Duration::ZERO, |at| at.max(Duration::from_nanos(1)));
        let value = Timespec {
            tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(at.subsec_nanos()),
        };
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timer = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        if let Err(error) = timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &timer) {
            log::error!("cannot set a timer: {error}");
        }
    }

    /// Says that it was readable: it is not set any more.
    pub fn passed(&mut self) {
        self.at = None;
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
