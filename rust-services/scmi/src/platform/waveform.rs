// SPDX-License-Identifier: Apache-2.0

//! How a simulated sensor's value moves: whole numbers of time only, so that the same instant
//! always has the same value.

use std::time::Duration;

use serde::Deserialize;

/// The form of a wave.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Stays at the mean.
    #[default]
    Constant,
    /// A sine, correct to 0.2 % of the amplitude.
    Sine,
    /// Up and down in straight lines.
    Triangle,
    /// Low for half a period, then high.
    Square,
    /// Rises, and falls back at once.
    Ramp,
}

/// A wave in the sensor's own unit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Waveform {
    /// Its form.
    pub shape: Shape,
    /// Its middle.
    pub mean: i64,
    /// How far it goes from the middle.
    pub amplitude: i64,
    /// How long one turn takes, in milliseconds.
    pub period_ms: u64,
    /// How far into its period it begins, in degrees.
    pub phase_degrees: u64,
}

/// Parts of one turn that are told apart.
const TURN: u64 = 360_000;
const QUARTER: i64 = 90_000;
const HALF: i64 = 180_000;

impl Waveform {
    /// The value at an instant.
    #[must_use]
    pub fn at(&self, now: Duration) -> i64 {
        let period = u128::from(self.period_ms).saturating_mul(1_000_000);
        let Some(in_period) = now.as_nanos().checked_rem(period) else {
            return self.mean;
        };
        let turned = in_period
            .saturating_mul(TURN.into())
            .checked_div(period)
            .unwrap_or(0);
        let start = u128::from(self.phase_degrees).saturating_mul(1000);
        let angle = turned
            .saturating_add(start)
            .checked_rem(TURN.into())
            .unwrap_or(0);
        let angle = i64::try_from(angle).unwrap_or(0);
        // The wave in parts of QUARTER, -QUARTER to QUARTER.
        let wave = match self.shape {
            Shape::Constant => 0,
            Shape::Sine => sine(angle),
            Shape::Triangle if angle < QUARTER => angle,
            Shape::Triangle if angle < 3 * QUARTER => HALF.saturating_sub(angle),
            Shape::Triangle => angle.saturating_sub(4 * QUARTER),
            Shape::Square if angle < HALF => -QUARTER,
            Shape::Square => QUARTER,
            Shape::Ramp => (angle / 2).saturating_sub(QUARTER),
        };
        let moved = i128::from(self.amplitude).saturating_mul(wave.into());
        let moved = moved.checked_div(QUARTER.into()).unwrap_or(0);
        self.mean.saturating_add(i64::try_from(moved).unwrap_or(0))
    }
}

/// Bhaskara's approximation, in parts of [`QUARTER`], of an angle in thousandths of a degree.
fn sine(angle: i64) -> i64 {
    let (angle, sign) = if angle < HALF {
        (angle, 1)
    } else {
        (angle.saturating_sub(HALF), -1)
    };
    let product = i128::from(angle).saturating_mul(HALF.saturating_sub(angle).into());
    let below = 40_500_000_000_i128.saturating_sub(product);
    let value = product
        .saturating_mul(4)
        .saturating_mul(QUARTER.into())
        .checked_div(below)
        .unwrap_or(0);
    i64::try_from(value).unwrap_or(0).saturating_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(shape: Shape) -> Waveform {
        Waveform {
            shape,
            mean: 1000,
            amplitude: 100,
            period_ms: 1000,
            phase_degrees: 0,
        }
    }

    #[test]
    fn waves_are_where_they_should_be_at_each_eighth_of_a_period() {
        let table = [
            (Shape::Constant, [1000; 8]),
            (Shape::Sine, [1000, 1070, 1100, 1070, 1000, 930, 900, 930]),
            (
                Shape::Triangle,
                [1000, 1050, 1100, 1050, 1000, 950, 900, 950],
            ),
            (Shape::Square, [900, 900, 900, 900, 1100, 1100, 1100, 1100]),
            (Shape::Ramp, [900, 925, 950, 975, 1000, 1025, 1050, 1075]),
        ];
        for (shape, expected) in table {
            for (eighth, value) in (0_u64..).zip(expected) {
                let at = Duration::from_millis(7000 + 125 * eighth);
                let found = wave(shape).at(at);
                assert!(
                    found.abs_diff(value) <= 1,
                    "{shape:?} at {at:?}: {found}, not {value}"
                );
            }
        }
    }

    #[test]
    fn a_wave_without_period_or_with_huge_numbers_does_no_harm() {
        let mut wave = wave(Shape::Sine);
        wave.period_ms = 0;
        assert_eq!(wave.at(Duration::MAX), 1000);
        let huge = Waveform {
            shape: Shape::Ramp,
            mean: i64::MAX,
            amplitude: i64::MIN,
            period_ms: u64::MAX,
            phase_degrees: u64::MAX,
        };
        let _ = huge.at(Duration::MAX);
    }
}
