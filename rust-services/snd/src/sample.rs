// SPDX-License-Identifier: Apache-2.0

//! Samples as numbers: every format that has arithmetic, to and from −1 to 1.

use crate::format::Format;

/// How one format keeps a sample in `WIDTH` bytes.
pub trait Codec {
    /// Bytes of a sample.
    const WIDTH: usize;

    /// The sample as a number from −1 to 1. `bytes` has [`Codec::WIDTH`] bytes.
    fn decode(bytes: &[u8]) -> f64;

    /// Writes the nearest sample; what is beyond the range becomes its end.
    fn encode(value: f64, bytes: &mut [u8]);
}

/// An integer in the low `BITS` of `BYTES` bytes.
pub struct Integer<const BYTES: usize, const BITS: u32, const UNSIGNED: bool>;
/// An IEEE 754 number of 32 bits.
pub struct Single;
/// An IEEE 754 number of 64 bits.
pub struct Double;
/// G.711, the American and Japanese law.
pub struct MuLaw;
/// G.711, the law of everybody else.
pub struct ALaw;

/// The nearest integer, within a format's range. Half is added and the rest cut off, because the
/// rounding of the standard library is a function call on processors without SSE 4.1.
#[inline]
fn round_to(value: f64, least: f64, most: f64) -> i64 {
    let half = if value < 0.0 { -0.5 } else { 0.5 };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "clamped to the format's range just before, and a cast saturates"
    )]
    let rounded = (value.clamp(least, most) + half) as i64;
    rounded
}

/// The first `BYTES` of `bytes`, little endian.
#[inline]
fn word<const BYTES: usize>(bytes: &[u8]) -> i64 {
    // Whole words where there are some: a loop over bytes costs several times as much.
    match BYTES {
        2 => bytes
            .first_chunk()
            .map_or(0, |two| u16::from_le_bytes(*two).into()),
        4 => bytes
            .first_chunk()
            .map_or(0, |four| u32::from_le_bytes(*four).into()),
        _ => {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(bytes.iter().take(BYTES)) {
                *to = *from;
            }
            i64::from_le_bytes(word)
        }
    }
}

/// Writes the low `BYTES` of `word`, little endian.
#[inline]
fn put_word<const BYTES: usize>(word: i64, bytes: &mut [u8]) {
    let [a, b, c, d, ..] = word.to_le_bytes();
    match (BYTES, bytes) {
        (2, [low, high, ..]) => (*low, *high) = (a, b),
        (4, [w, x, y, z, ..]) => (*w, *x, *y, *z) = (a, b, c, d),
        (_, bytes) => {
            for (to, from) in bytes.iter_mut().zip([a, b, c, d]).take(BYTES) {
                *to = from;
            }
        }
    }
}

impl<const BYTES: usize, const BITS: u32, const UNSIGNED: bool> Integer<BYTES, BITS, UNSIGNED> {
    const HALF: i64 = 1_i64 << BITS.saturating_sub(1);
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    const SCALE: f64 = Self::HALF as f64;
}

impl<const BYTES: usize, const BITS: u32, const UNSIGNED: bool> Codec
    for Integer<BYTES, BITS, UNSIGNED>
{
    const WIDTH: usize = BYTES;

    #[inline]
    fn decode(bytes: &[u8]) -> f64 {
        let raw = word::<BYTES>(bytes);
        let value = if UNSIGNED {
            (raw & Self::HALF.saturating_mul(2).saturating_sub(1)).saturating_sub(Self::HALF)
        } else {
            // Bits above the valid ones are no part of the sample.
            let unused = 64_u32.saturating_sub(BITS);
            raw.wrapping_shl(unused).wrapping_shr(unused)
        };
        #[expect(clippy::cast_precision_loss, reason = "at most 32 bits")]
        let value = value as f64;
        value / Self::SCALE
    }

    #[inline]
    fn encode(value: f64, bytes: &mut [u8]) {
        let value = round_to(value * Self::SCALE, -Self::SCALE, Self::SCALE - 1.0);
        let raw = if UNSIGNED {
            value.saturating_add(Self::HALF)
        } else {
            value
        };
        put_word::<BYTES>(raw, bytes);
    }
}

impl Codec for Single {
    const WIDTH: usize = 4;

    #[inline]
    fn decode(bytes: &[u8]) -> f64 {
        f64::from(f32::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    #[inline]
    fn encode(value: f64, bytes: &mut [u8]) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the format's own precision"
        )]
        let single = value as f32;
        for (to, from) in bytes.iter_mut().zip(single.to_le_bytes()) {
            *to = from;
        }
    }
}

impl Codec for Double {
    const WIDTH: usize = 8;

    #[inline]
    fn decode(bytes: &[u8]) -> f64 {
        f64::from_le_bytes(bytes.try_into().unwrap_or_default())
    }

    #[inline]
    fn encode(value: f64, bytes: &mut [u8]) {
        for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }
}

const LAW_SCALE: f64 = 32768.0;

/// Number of the highest bit that is set, counted from bit 7; 0 below it.
fn segment(magnitude: u16) -> u16 {
    let highest = 15_u32.saturating_sub(magnitude.leading_zeros());
    u16::try_from(highest.saturating_sub(7)).unwrap_or(0)
}

fn low_byte(value: u16) -> u8 {
    value.to_le_bytes()[0]
}

impl Codec for MuLaw {
    const WIDTH: usize = 1;

    #[inline]
    fn decode(bytes: &[u8]) -> f64 {
        let code = !bytes.first().copied().unwrap_or(0xff);
        let biased = (i32::from(code & 0x0f) << 3 | 0x84) << (code >> 4 & 7);
        let magnitude = f64::from(biased.saturating_sub(0x84));
        (if code & 0x80 == 0 {
            magnitude
        } else {
            -magnitude
        }) / LAW_SCALE
    }

    #[inline]
    fn encode(value: f64, bytes: &mut [u8]) {
        let linear = round_to(value * LAW_SCALE, -32635.0, 32635.0);
        let sign = if linear < 0 { 0x80 } else { 0 };
        let magnitude = u16::try_from(linear.unsigned_abs())
            .unwrap_or(32635)
            .saturating_add(0x84);
        let segment = segment(magnitude);
        let step = magnitude.wrapping_shr(u32::from(segment).saturating_add(3)) & 0x0f;
        if let Some(byte) = bytes.first_mut() {
            *byte = !(sign | low_byte(segment << 4 | step));
        }
    }
}

impl Codec for ALaw {
    const WIDTH: usize = 1;

    #[inline]
    fn decode(bytes: &[u8]) -> f64 {
        let code = bytes.first().copied().unwrap_or(0xd5) ^ 0x55;
        let step = i32::from(code & 0x0f) << 4 | 8;
        let magnitude = match code >> 4 & 7 {
            0 => step,
            segment => (step | 0x100) << (segment.saturating_sub(1)),
        };
        let magnitude = f64::from(magnitude);
        (if code & 0x80 == 0 {
            -magnitude
        } else {
            magnitude
        }) / LAW_SCALE
    }

    #[inline]
    fn encode(value: f64, bytes: &mut [u8]) {
        let linear = round_to(value * LAW_SCALE, -32767.0, 32767.0);
        let sign = if linear < 0 { 0 } else { 0x80 };
        let magnitude = u16::try_from(linear.unsigned_abs()).unwrap_or(32767);
        let segment = segment(magnitude);
        let step = match segment {
            0 => magnitude >> 4,
            segment => magnitude.wrapping_shr(u32::from(segment).saturating_add(3)) & 0x0f,
        };
        if let Some(byte) = bytes.first_mut() {
            *byte = (sign | low_byte(segment << 4 | step)) ^ 0x55;
        }
    }
}

/// Work that is to be done in a format's own arithmetic.
pub trait WithCodec {
    /// What comes of it.
    type Result;

    /// Does it.
    fn run<C: Codec>(self) -> Self::Result;
}

/// Does `work` with the codec of `format`; `None` for formats without arithmetic.
pub fn with_codec<W: WithCodec>(format: Format, work: W) -> Option<W::Result> {
    Some(match format {
        Format::MuLaw => work.run::<MuLaw>(),
        Format::ALaw => work.run::<ALaw>(),
        Format::S8 => work.run::<Integer<1, 8, false>>(),
        Format::U8 => work.run::<Integer<1, 8, true>>(),
        Format::S16 => work.run::<Integer<2, 16, false>>(),
        Format::U16 => work.run::<Integer<2, 16, true>>(),
        Format::S18Packed => work.run::<Integer<3, 18, false>>(),
        Format::U18Packed => work.run::<Integer<3, 18, true>>(),
        Format::S20Packed => work.run::<Integer<3, 20, false>>(),
        Format::U20Packed => work.run::<Integer<3, 20, true>>(),
        Format::S24Packed => work.run::<Integer<3, 24, false>>(),
        Format::U24Packed => work.run::<Integer<3, 24, true>>(),
        Format::S20 => work.run::<Integer<4, 20, false>>(),
        Format::U20 => work.run::<Integer<4, 20, true>>(),
        Format::S24 => work.run::<Integer<4, 24, false>>(),
        Format::U24 => work.run::<Integer<4, 24, true>>(),
        Format::S32 => work.run::<Integer<4, 32, false>>(),
        Format::U32 => work.run::<Integer<4, 32, true>>(),
        Format::Float => work.run::<Single>(),
        Format::Float64 => work.run::<Double>(),
        Format::ImaAdpcm
        | Format::DsdU8
        | Format::DsdU16
        | Format::DsdU32
        | Format::Iec958Subframe => return None,
    })
}

#[cfg(test)]
mod tests;
