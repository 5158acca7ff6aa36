// SPDX-License-Identifier: Apache-2.0

//! What lies between the queue thread and a stream's own thread: a lock-free ring of bytes and a few
//! atomics. Neither end ever waits for the other.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::format::Params;

/// How a back end stands, as the queue thread and D-Bus see it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum ServerState {
    /// No stream is open.
    #[default]
    Closed = 0,
    /// It is being opened.
    Opening = 1,
    /// Sound comes through.
    Live = 2,
    /// The server is gone; it is tried again.
    Lost = 3,
}

impl ServerState {
    /// The state of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Opening,
            2 => Self::Live,
            3 => Self::Lost,
            _ => Self::Closed,
        }
    }

    /// The word on D-Bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Opening => "opening",
            Self::Live => "live",
            Self::Lost => "lost",
        }
    }
}

/// What a stream's thread tells without being asked.
#[derive(Debug, Default)]
pub struct Report {
    state: AtomicU8,
    /// Frames of delay in the high half, microseconds of the monotonic clock (wrapping) in the low.
    delay: AtomicU64,
    /// Frames of the delay that the back end keeps beyond its target.
    reserve: AtomicU64,
    /// Frames that were thrown away because the server was gone or too slow.
    discarded: AtomicU64,
}

impl Report {
    /// How the back end stands.
    #[must_use]
    pub fn state(&self) -> ServerState {
        ServerState::from_number(self.state.load(Ordering::Relaxed))
    }

    pub(crate) fn set_state(&self, state: ServerState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Frames that the back end has taken and not played at `now` (nanoseconds), as far as one can
    /// tell: what it said last, less what has passed since.
    #[must_use]
    pub fn delay(&self, now: u64, params: &Params) -> u64 {
        if self.state() != ServerState::Live {
            return 0;
        }
        let packed = self.delay.load(Ordering::Relaxed);
        let (frames, then) = (packed >> 32, packed & 0xffff_ffff);
        let passed = (now / 1000).wrapping_sub(then) & 0xffff_ffff;
        let played = passed.saturating_mul(u64::from(params.rate.hertz())) / 1_000_000;
        frames.saturating_sub(played)
    }

    pub(crate) fn set_delay(&self, frames: u64, now: u64) {
        let packed = frames.min(0xffff_ffff) << 32 | (now / 1000) & 0xffff_ffff;
        self.delay.store(packed, Ordering::Relaxed);
    }

    /// Frames of the delay that the back end keeps beyond its target.
    #[must_use]
    pub fn reserve(&self) -> u64 {
        self.reserve.load(Ordering::Relaxed)
    }

    pub(crate) fn set_reserve(&self, frames: u64) {
        self.reserve.store(frames, Ordering::Relaxed);
    }

    /// Frames that were thrown away because the server was gone or too slow.
    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.discarded.load(Ordering::Relaxed)
    }

    pub(crate) fn add_discarded(&self, frames: u64) {
        self.discarded.fetch_add(frames, Ordering::Relaxed);
    }
}

/// Bytes that a pipe for `params` holds: never less than the driver's buffer (5.14.6.6.3), and
/// enough to sit out a host that does not schedule the stream's thread for two seconds.
#[must_use]
pub fn capacity(params: &Params) -> usize {
    let two_seconds = params.bytes(params.frames_in(2000)).min(16 << 20);
    let driver = usize::try_from(params.buffer_bytes).unwrap_or(usize::MAX);
    let least = params.frame_bytes().saturating_mul(64);
    two_seconds.max(driver).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, Rate};

    #[test]
    fn a_delay_runs_down_with_the_clock() {
        let params = Params {
            format: Format::S16,
            rate: Rate::from_hertz(48_000).unwrap(),
            channels: 2,
            buffer_bytes: 7680,
            period_bytes: 1920,
            features: 0,
        };
        let report = Report::default();
        report.set_delay(960, 5_000_000);
        assert_eq!(report.delay(5_000_000, &params), 0, "nothing is open");
        report.set_state(ServerState::Live);
        assert_eq!(report.delay(5_000_000, &params), 960);
        assert_eq!(report.delay(15_000_000, &params), 480);
        assert_eq!(report.delay(95_000_000, &params), 0);
        assert!(capacity(&params) >= 7680);
    }
}
