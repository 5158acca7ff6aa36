// SPDX-License-Identifier: Apache-2.0

//! A tone to play, and the measure of one that was recorded. Samples are 16 bit, mono.

use std::f64::consts::TAU;

/// Frames of sound in a second.
pub(crate) const RATE: u32 = 48_000;

/// A second of a tone at half of full scale, as little-endian bytes.
pub(crate) fn second(hertz: u32) -> Vec<u8> {
    let sample = |frame: u32| {
        let turns = f64::from(frame) * f64::from(hertz) / f64::from(RATE);
        quantised((turns * TAU).sin() * 0.5)
    };
    (0..RATE)
        .flat_map(|frame| sample(frame).to_le_bytes())
        .collect()
}

#[allow(clippy::cast_possible_truncation)] // the value is limited to what the type holds
fn quantised(value: f64) -> i16 {
    (value * f64::from(i16::MAX)).clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

/// What a recording is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measure {
    pub(crate) frames: usize,
    /// Root mean square, in parts of full scale.
    pub(crate) level: f64,
    /// From how often the signal crosses zero; 0 for silence.
    pub(crate) hertz: f64,
}

/// Measures a recording of little-endian bytes.
pub(crate) fn measure(bytes: &[u8]) -> Measure {
    let samples = bytes
        .chunks_exact(2)
        .filter_map(|pair| <[u8; 2]>::try_from(pair).ok());
    let (mut frames, mut power, mut crossings) = (0_usize, 0.0, 0_u32);
    let mut above = None;
    for sample in samples.map(|pair| f64::from(i16::from_le_bytes(pair)) / f64::from(i16::MAX)) {
        frames = frames.saturating_add(1);
        power += sample * sample;
        // A sample near zero is on neither side: noise would cross it many times.
        let side = (sample.abs() > 0.005).then_some(sample > 0.0);
        if side.is_some() && side != above {
            crossings = crossings.saturating_add(u32::from(above.is_some()));
            above = side;
        }
    }
    #[allow(clippy::cast_precision_loss)] // a recording of some seconds
    let count = frames.max(1) as f64;
    Measure {
        frames,
        level: (power / count).sqrt(),
        hertz: f64::from(crossings) / 2.0 * f64::from(RATE) / count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_played_measures_as_what_it_is() {
        for hertz in [100, 440, 1000, 5000] {
            let measured = measure(&second(hertz));
            assert_eq!(measured.frames, 48_000);
            assert!(
                (measured.hertz - f64::from(hertz)).abs() < 2.0,
                "{measured:?}"
            );
            assert!(
                (measured.level - 0.5 / 2_f64.sqrt()).abs() < 0.01,
                "{measured:?}"
            );
        }
    }

    #[test]
    fn silence_and_nothing_have_no_frequency() {
        assert_eq!(measure(&[0; 9600]).hertz, 0.0);
        assert_eq!(measure(&[]).frames, 0);
    }
}
