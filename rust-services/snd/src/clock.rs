// SPDX-License-Identifier: Apache-2.0

//! The clock of a stream: when is which frame due.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC`. Frames are counted from an anchor, in whole seconds
//! and a rest, so that no rounding adds up however long a stream runs.

use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// How far a clock is steered away from the host's, at most, in parts per million.
const MOST_PPM: i64 = 1000;
/// A deviation from the target delay is corrected within about this many seconds.
const STEERING_SECONDS: i64 = 10;

/// Nanoseconds of `at`.
#[must_use]
pub fn nanoseconds(at: Duration) -> u64 {
    at.as_secs()
        .saturating_mul(SECOND)
        .saturating_add(at.subsec_nanos().into())
}

/// A running clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clock {
    /// When frame 0 is due.
    anchor: u64,
    /// Frames from the anchor to the next event.
    frames: u64,
    /// Frames per second.
    rate: u64,
    /// Nanoseconds in which `rate` frames pass: a second, or nearly one when steered.
    second: u64,
}

impl Clock {
    /// A clock whose frame 0 is due at `now`.
    #[must_use]
    pub fn start(now: u64, hertz: u32) -> Self {
        Self {
            anchor: now,
            frames: 0,
            rate: u64::from(hertz).max(1),
            second: SECOND,
        }
    }

    /// When the frame that was counted last is over.
    #[must_use]
    pub fn due(&self) -> u64 {
        let seconds = self.frames.checked_div(self.rate).unwrap_or(0);
        let rest = self.frames.checked_rem(self.rate).unwrap_or(0);
        let part = rest
            .saturating_mul(self.second)
            .checked_div(self.rate)
            .unwrap_or(0);
        self.anchor
            .saturating_add(seconds.saturating_mul(self.second))
            .saturating_add(part)
    }

    /// Nanoseconds that `frames` take, rounded down.
    #[must_use]
    pub fn span(frames: u64, hertz: u32) -> u64 {
        frames
            .saturating_mul(SECOND)
            .checked_div(u64::from(hertz))
            .unwrap_or(0)
    }

    /// Counts further frames.
    pub fn advance(&mut self, frames: u64) {
        self.frames = self.frames.saturating_add(frames);
    }

    /// Shifts all that is to come: the clock stood still for so many nanoseconds.
    pub fn shift(&mut self, nanoseconds: u64) {
        self.anchor = self.anchor.saturating_add(nanoseconds);
    }

    /// Steers towards the back end's clock: `excess` is by how many frames its stock is larger than
    /// it should be (negative when it is smaller).
    pub fn steer(&mut self, excess: i64) {
        let rate = i64::try_from(self.rate).unwrap_or(1).max(1);
        let ppm = excess
            .saturating_mul(1_000_000)
            .checked_div(rate.saturating_mul(STEERING_SECONDS))
            .unwrap_or(0)
            .clamp(-MOST_PPM, MOST_PPM);
        let second = SECOND.saturating_add_signed(ppm.saturating_mul(1000));
        if second != self.second {
            *self = Self {
                anchor: self.due(),
                frames: 0,
                second,
                ..*self
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drifts_in_a_day_of_odd_periods() {
        let mut clock = Clock::start(17, 44_100);
        let mut frames: u128 = 0;
        // A day of periods of 441 frames, with a frame more now and then.
        for period in 0..8_640_000_u64 {
            let count = 441 + period % 2;
            clock.advance(count);
            frames += u128::from(count);
        }
        let exact = 17 + frames * 1_000_000_000 / 44_100;
        assert_eq!(u128::from(clock.due()), exact);
    }

    #[test]
    fn a_pause_shifts_what_is_to_come() {
        let mut clock = Clock::start(1000, 48_000);
        clock.advance(480);
        assert_eq!(clock.due(), 10_001_000);
        clock.shift(5);
        assert_eq!(clock.due(), 10_001_005);
    }

    #[test]
    fn a_stock_that_grows_slows_the_clock_within_a_thousandth() {
        let mut clock = Clock::start(0, 48_000);
        clock.steer(480);
        clock.advance(48_000);
        // 10 ms too much, corrected in 10 s: 1000 ppm.
        assert_eq!(clock.due(), 1_001_000_000);
        clock.steer(-1_000_000);
        clock.advance(48_000);
        assert_eq!(clock.due(), 2_000_000_000);
        clock.steer(0);
        clock.advance(48_000);
        assert_eq!(clock.due(), 3_000_000_000);
    }
}
