// SPDX-License-Identifier: Apache-2.0

//! Gain: how loud a stream is now, and how it gets louder or softer without a click.
//!
//! A stream at unity gain is not touched at all: its bytes are copied. Formats without arithmetic
//! (ADPCM, DSD, IEC 958) are passed on unchanged or, at a gain of zero, become silence.

use crate::format::Params;
use crate::sample::{Codec, WithCodec, with_codec};

/// How long a change of gain takes, in milliseconds: too slow to click, too fast to be waited for.
pub const RAMP_MS: u32 = 10;

/// A gain that moves in a straight line from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fader {
    now: f64,
    target: f64,
    /// Per frame.
    step: f64,
    /// Frames until the target is reached.
    left: u64,
}

impl Fader {
    /// Stands at `gain`.
    #[must_use]
    pub fn at(gain: f64) -> Self {
        Self {
            now: gain,
            target: gain,
            step: 0.0,
            left: 0,
        }
    }

    /// Moves to `gain` within `frames`.
    pub fn move_to(&mut self, gain: f64, frames: u64) {
        if (gain - self.target).abs() <= f64::EPSILON {
            return;
        }
        let frames = frames.max(1);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a ramp has some thousand frames"
        )]
        let steps = frames as f64;
        *self = Self {
            now: self.now,
            target: gain,
            step: (gain - self.now) / steps,
            left: frames,
        };
    }

    /// Whether frames pass unchanged, all of them.
    #[must_use]
    pub fn is_unity(&self) -> bool {
        self.left == 0 && (self.now - 1.0).abs() <= f64::EPSILON
    }

    /// Frames until the gain stands still.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether nothing is heard, and nothing will be.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.left == 0 && self.now.abs() <= f64::EPSILON
    }

    fn next(&mut self) -> f64 {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            // The end is exact, whatever rounding the steps had.
            self.now = if left == 0 {
                self.target
            } else {
                self.now + self.step
            };
        }
        self.now
    }

    /// Applies the gain to whole frames.
    pub fn apply(&mut self, bytes: &mut [u8], params: &Params) {
        if self.is_unity() {
            return;
        }
        if self.is_silent() {
            params.fill_silence(bytes);
            return;
        }
        let scale = Scale {
            fader: self,
            bytes,
            channels: usize::from(params.channels).max(1),
        };
        if with_codec(params.format, scale).is_none() {
            // No arithmetic: heard in full until the gain is zero.
            self.now = self.target;
            self.left = 0;
            if self.is_silent() {
                params.fill_silence(bytes);
            }
        }
    }
}

struct Scale<'a> {
    fader: &'a mut Fader,
    bytes: &'a mut [u8],
    channels: usize,
}

impl WithCodec for Scale<'_> {
    type Result = ();

    fn run<C: Codec>(self) {
        let mut rest = self.bytes;
        let frame = C::WIDTH.saturating_mul(self.channels);
        while self.fader.left > 0 && rest.len() >= frame {
            let (this, later) = std::mem::take(&mut rest).split_at_mut(frame);
            let gain = self.fader.next();
            for sample in this.chunks_exact_mut(C::WIDTH) {
                C::encode(C::decode(sample) * gain, sample);
            }
            rest = later;
        }
        let gain = self.fader.now;
        if (gain - 1.0).abs() > f64::EPSILON {
            for sample in rest.chunks_exact_mut(C::WIDTH) {
                C::encode(C::decode(sample) * gain, sample);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, Rate};

    fn params(format: Format, channels: u8) -> Params {
        let rate = Rate::from_hertz(48_000).unwrap();
        Params {
            format,
            rate,
            channels,
            buffer_bytes: 0,
            period_bytes: 0,
            features: 0,
        }
    }

    #[test]
    fn unity_changes_no_bit_of_any_format() {
        for format in Format::ALL {
            let mut bytes: Vec<u8> = (0..240).collect();
            Fader::at(1.0).apply(&mut bytes, &params(format, 2));
            assert_eq!(bytes, (0..240).collect::<Vec<u8>>(), "{format:?}");
        }
    }

    #[test]
    fn a_ramp_has_no_step_larger_than_its_slope_and_ends_exactly() {
        let params = params(Format::S16, 2);
        let mut fader = Fader::at(1.0);
        fader.move_to(0.1, 480);
        let mut bytes: Vec<u8> = std::iter::repeat_n(20_000_i16.to_le_bytes(), 1200)
            .flatten()
            .collect();
        for piece in bytes.chunks_mut(400) {
            fader.apply(piece, &params);
        }
        let samples: Vec<i16> = bytes
            .chunks(2)
            .map(|two| i16::from_le_bytes([two[0], two[1]]))
            .collect();
        // 18000 in 480 frames are 37.5 a frame; rounding adds one.
        assert!(samples.chunks(2).all(|frame| frame[0] == frame[1]));
        assert!(
            samples
                .windows(3)
                .all(|w| (0..=39).contains(&(w[0] - w[2])))
        );
        assert_eq!(samples[479 * 2], 2000);
        assert_eq!(samples[1199], 2000);
    }

    #[test]
    fn back_at_unity_the_bits_are_left_alone_again() {
        let params = params(Format::Float, 1);
        let mut fader = Fader::at(0.5);
        fader.move_to(1.0, 4);
        let odd = 0.123_456_79_f32.to_le_bytes();
        let mut bytes: Vec<u8> = std::iter::repeat_n(odd, 8).flatten().collect();
        fader.apply(&mut bytes, &params);
        assert!(fader.is_unity());
        assert_eq!(bytes[12..16], odd);
        assert_eq!(bytes[28..], odd);
    }

    #[test]
    fn without_arithmetic_it_is_all_or_silence() {
        let params = params(Format::DsdU8, 1);
        let mut fader = Fader::at(1.0);
        fader.move_to(0.3, 4);
        let mut bytes = vec![0xa5; 8];
        fader.apply(&mut bytes, &params);
        assert_eq!(bytes, [0xa5; 8]);
        fader.move_to(0.0, 4);
        fader.apply(&mut bytes, &params);
        assert_eq!(bytes, [0x69; 8]);
    }

    #[test]
    fn silence_is_the_formats_own() {
        let mut bytes = vec![3; 4];
        Fader::at(0.0).apply(&mut bytes, &params(Format::U16, 2));
        assert_eq!(bytes, [0, 0x80, 0, 0x80]);
    }
}
