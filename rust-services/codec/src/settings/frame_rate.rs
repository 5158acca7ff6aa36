// SPDX-License-Identifier: Apache-2.0

//! How many pictures a second has.

use gstreamer as gst;
use serde::{Deserialize, Serialize};

/// Pictures in a second, as a fraction: 30000/1001 is none that is whole.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FrameRate {
    pictures: u32,
    seconds: u32,
}

impl FrameRate {
    /// So many in one second, one at least.
    #[must_use]
    pub const fn per_second(pictures: u32) -> Self {
        Self::new(pictures, 1)
    }

    /// So many in so many seconds, one of either at least.
    #[must_use]
    pub const fn new(pictures: u32, seconds: u32) -> Self {
        // What caps and elements can say.
        const MOST: u32 = i32::MAX.unsigned_abs();
        const fn term(number: u32) -> u32 {
            match number {
                0 => 1,
                number if number > MOST => MOST,
                number => number,
            }
        }
        Self {
            pictures: term(pictures),
            seconds: term(seconds),
        }
    }

    /// When a picture begins, in nanoseconds after the first one, whose number is 0.
    pub(crate) fn begin_of(self, number: u64) -> u64 {
        let nanoseconds = u128::from(number)
            .saturating_mul(self.seconds.into())
            .saturating_mul(1_000_000_000)
            .checked_div(self.pictures.into());
        u64::try_from(nanoseconds.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// Pictures that a second has at most.
    pub(crate) fn ceil(self) -> u32 {
        self.pictures.div_ceil(self.seconds.max(1))
    }

    pub(crate) fn fraction(self) -> gst::Fraction {
        let term = |number: u32| i32::try_from(number).unwrap_or(i32::MAX).max(1);
        gst::Fraction::new(term(self.pictures), term(self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_broken_rate_do_not_drift() {
        let rate = FrameRate::new(30_000, 1001);
        assert_eq!(rate.begin_of(0), 0);
        assert_eq!(rate.begin_of(1), 33_366_666);
        assert_eq!(rate.begin_of(30_000), 1_001_000_000_000);
        assert_eq!(FrameRate::new(0, 0).begin_of(1), 1_000_000_000);
        let extreme = FrameRate::new(1, u32::MAX);
        assert_eq!(extreme.begin_of(u64::MAX), u64::MAX);
    }
}
