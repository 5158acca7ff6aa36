// SPDX-License-Identifier: Apache-2.0

//! Sample formats, frame rates and the parameters of a stream (VIRTIO 1.4, 5.14.6.6.2).

use serde::Deserialize;

/// A sample format, with the number it has on the wire (`VIRTIO_SND_PCM_FMT_*`). All are little
/// endian and interleaved; those of 18, 20 and 24 bits lie in the low bits of their container.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[allow(
    missing_docs,
    reason = "the specification's own names, which say it all"
)]
pub enum Format {
    ImaAdpcm = 0,
    MuLaw = 1,
    ALaw = 2,
    S8 = 3,
    U8 = 4,
    S16 = 5,
    U16 = 6,
    #[serde(rename = "s18_3")]
    S18Packed = 7,
    #[serde(rename = "u18_3")]
    U18Packed = 8,
    #[serde(rename = "s20_3")]
    S20Packed = 9,
    #[serde(rename = "u20_3")]
    U20Packed = 10,
    #[serde(rename = "s24_3")]
    S24Packed = 11,
    #[serde(rename = "u24_3")]
    U24Packed = 12,
    S20 = 13,
    U20 = 14,
    S24 = 15,
    U24 = 16,
    S32 = 17,
    U32 = 18,
    Float = 19,
    Float64 = 20,
    DsdU8 = 21,
    DsdU16 = 22,
    DsdU32 = 23,
    #[serde(rename = "iec958_subframe")]
    Iec958Subframe = 24,
}

impl Format {
    /// Every format of the specification, by number.
    pub const ALL: [Self; 25] = [
        Self::ImaAdpcm,
        Self::MuLaw,
        Self::ALaw,
        Self::S8,
        Self::U8,
        Self::S16,
        Self::U16,
        Self::S18Packed,
        Self::U18Packed,
        Self::S20Packed,
        Self::U20Packed,
        Self::S24Packed,
        Self::U24Packed,
        Self::S20,
        Self::U20,
        Self::S24,
        Self::U24,
        Self::S32,
        Self::U32,
        Self::Float,
        Self::Float64,
        Self::DsdU8,
        Self::DsdU16,
        Self::DsdU32,
        Self::Iec958Subframe,
    ];

    /// The format of this number on the wire.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its bit in a `formats` bit map.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Bits that one sample takes in memory.
    #[must_use]
    pub const fn container_bits(self) -> u32 {
        match self {
            Self::ImaAdpcm => 4,
            Self::MuLaw | Self::ALaw | Self::S8 | Self::U8 | Self::DsdU8 => 8,
            Self::S16 | Self::U16 | Self::DsdU16 => 16,
            Self::S18Packed
            | Self::U18Packed
            | Self::S20Packed
            | Self::U20Packed
            | Self::S24Packed
            | Self::U24Packed => 24,
            Self::Float64 => 64,
            Self::S20
            | Self::U20
            | Self::S24
            | Self::U24
            | Self::S32
            | Self::U32
            | Self::Float
            | Self::DsdU32
            | Self::Iec958Subframe => 32,
        }
    }

    /// Bits of the container that mean something.
    #[must_use]
    pub const fn valid_bits(self) -> u32 {
        match self {
            Self::S18Packed | Self::U18Packed => 18,
            Self::S20Packed | Self::U20Packed | Self::S20 | Self::U20 => 20,
            Self::S24 | Self::U24 => 24,
            other => other.container_bits(),
        }
    }

    /// Whether silence is the middle of an unsigned range instead of zero.
    #[must_use]
    pub const fn is_unsigned(self) -> bool {
        matches!(
            self,
            Self::U8
                | Self::U16
                | Self::U18Packed
                | Self::U20Packed
                | Self::U24Packed
                | Self::U20
                | Self::U24
                | Self::U32
        )
    }

    /// Whether a gain can be applied to its samples. To the others (ADPCM, DSD, IEC 958) a gain
    /// means either all or silence.
    #[must_use]
    pub const fn has_arithmetic(self) -> bool {
        !matches!(
            self,
            Self::ImaAdpcm | Self::DsdU8 | Self::DsdU16 | Self::DsdU32 | Self::Iec958Subframe
        )
    }

    /// One sample of silence, in the low bytes, little endian.
    #[must_use]
    pub const fn silence(self) -> [u8; 8] {
        match self {
            Self::MuLaw => [0xff, 0, 0, 0, 0, 0, 0, 0],
            Self::ALaw => [0xd5, 0, 0, 0, 0, 0, 0, 0],
            Self::U8 => [0x80, 0, 0, 0, 0, 0, 0, 0],
            Self::U16 => [0, 0x80, 0, 0, 0, 0, 0, 0],
            Self::U18Packed => [0, 0, 2, 0, 0, 0, 0, 0],
            Self::U20Packed | Self::U20 => [0, 0, 8, 0, 0, 0, 0, 0],
            Self::U24Packed | Self::U24 => [0, 0, 0x80, 0, 0, 0, 0, 0],
            Self::U32 => [0, 0, 0, 0x80, 0, 0, 0, 0],
            // The alternating pattern that DSD converters take for no signal.
            Self::DsdU8 | Self::DsdU16 | Self::DsdU32 => [0x69, 0x69, 0x69, 0x69, 0, 0, 0, 0],
            _ => [0; 8],
        }
    }
}

/// A frame rate, with the number it has on the wire (`VIRTIO_SND_PCM_RATE_*`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rate {
    number: u8,
    hertz: u32,
}

/// The rates by their number on the wire. The last two are new in VIRTIO 1.4, and Linux 7.3 does
/// not know them.
const RATES: [u32; 16] = [
    5512, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 64000, 88200, 96000, 176_400, 192_000,
    384_000, 12000, 24000,
];

impl Rate {
    /// Every rate of the specification, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..)
            .zip(RATES)
            .map(|(number, hertz)| Self { number, hertz })
    }

    /// The rate of this number on the wire.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        RATES
            .get(usize::from(number))
            .map(|&hertz| Self { number, hertz })
    }

    /// The rate of this many frames per second.
    #[must_use]
    pub fn from_hertz(hertz: u32) -> Option<Self> {
        Self::all().find(|rate| rate.hertz == hertz)
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.number
    }

    /// Frames per second.
    #[must_use]
    pub const fn hertz(self) -> u32 {
        self.hertz
    }

    /// Its bit in a `rates` bit map.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self.number
    }

    /// Whether Linux before a driver for VIRTIO 1.4 knows it.
    #[must_use]
    pub const fn known_before_1_4(self) -> bool {
        self.number < 14
    }
}

/// What a driver has set for a stream: checked against what the stream offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Params {
    /// Sample format.
    pub format: Format,
    /// Frame rate.
    pub rate: Rate,
    /// Samples per frame, 1 to 18.
    pub channels: u8,
    /// Bytes of the driver's whole buffer.
    pub buffer_bytes: u32,
    /// Bytes of one period; divides `buffer_bytes`.
    pub period_bytes: u32,
    /// Selected features (`1 << VIRTIO_SND_PCM_F_*`).
    pub features: u32,
}

impl Params {
    /// Bytes of one frame: a sample of every channel. At least 1.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        let bits = self
            .format
            .container_bits()
            .saturating_mul(u32::from(self.channels));
        usize::try_from(bits.div_ceil(8))
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// Frames that `bytes` hold, the last one whole.
    #[must_use]
    pub fn frames(&self, bytes: usize) -> u64 {
        bytes.checked_div(self.frame_bytes()).unwrap_or(0) as u64
    }

    /// Bytes that `frames` take.
    #[must_use]
    pub fn bytes(&self, frames: u64) -> usize {
        usize::try_from(frames)
            .unwrap_or(usize::MAX)
            .saturating_mul(self.frame_bytes())
    }

    /// Frames in `milliseconds`, at least one.
    #[must_use]
    pub fn frames_in(&self, milliseconds: u32) -> u64 {
        (u64::from(self.rate.hertz()).saturating_mul(u64::from(milliseconds)) / 1000).max(1)
    }

    /// Fills `bytes`, which begin at a frame, with silence.
    pub fn fill_silence(&self, bytes: &mut [u8]) {
        let sample = self.format.silence();
        let width = usize::try_from(self.format.container_bits().div_ceil(8))
            .unwrap_or(1)
            .max(1);
        let pattern = sample.get(..width).unwrap_or(&sample);
        if pattern.iter().all(|byte| Some(byte) == pattern.first()) {
            bytes.fill(pattern.first().copied().unwrap_or(0));
            return;
        }
        for chunk in bytes.chunks_mut(width) {
            let len = chunk.len();
            chunk.copy_from_slice(pattern.get(..len).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests;
