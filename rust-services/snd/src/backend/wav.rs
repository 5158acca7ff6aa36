// SPDX-License-Identifier: Apache-2.0

//! WAV: which formats it has, the header, and how the others are laid into it without losing a bit.

use crate::format::{Format, Params, Rate};

/// Bytes of the header that [`header`] makes: RIFF, `fmt ` in its extensible form, `fact`, `data`.
pub const HEADER_BYTES: usize = 80;
/// Most bytes of samples in a file: sizes are 32 bits.
pub const MOST_DATA: u64 = 0xffff_0000;

const TAG_PCM: u16 = 1;
const TAG_FLOAT: u16 = 3;
const TAG_A_LAW: u16 = 6;
const TAG_MU_LAW: u16 = 7;
const TAG_EXTENSIBLE: u16 = 0xfffe;
/// What follows the tag in a sub-format's name.
const SUBFORMAT: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// How samples of a format lie in a file. WAV has 8 bits unsigned and everything else signed, and
/// has the valid bits at the top of their container where ALSA and virtio have them at the bottom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    tag: u16,
    /// Bytes of a sample.
    width: usize,
    valid_bits: u16,
    /// By how many bits a sample moves up.
    shift: u32,
    /// Whether the top bit is turned over.
    flip: bool,
}

impl Layout {
    /// The layout for a format; `None` for those that are written as they are, without a header.
    #[must_use]
    pub fn of(format: Format) -> Option<Self> {
        let bits = format.container_bits();
        let tag = match format {
            Format::ImaAdpcm
            | Format::DsdU8
            | Format::DsdU16
            | Format::DsdU32
            | Format::Iec958Subframe => return None,
            Format::Float | Format::Float64 => TAG_FLOAT,
            Format::ALaw => TAG_A_LAW,
            Format::MuLaw => TAG_MU_LAW,
            _ => TAG_PCM,
        };
        let unsigned_in_file = bits == 8;
        Some(Self {
            tag,
            width: usize::try_from(bits / 8).ok()?,
            valid_bits: u16::try_from(format.valid_bits()).ok()?,
            shift: bits.saturating_sub(format.valid_bits()),
            flip: tag == TAG_PCM && format.is_unsigned() != unsigned_in_file,
        })
    }

    /// Whether samples lie in the file as they lie in memory.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self.shift == 0 && !self.flip
    }

    /// Turns samples as virtio has them into samples as the file has them.
    pub fn to_file(self, bytes: &mut [u8]) {
        let flip = if self.flip { self.top_bit() } else { 0 };
        self.change(bytes, |word| word.wrapping_shl(self.shift) ^ flip);
    }

    /// Turns samples as the file has them into samples as virtio has them.
    pub fn from_file(self, bytes: &mut [u8]) {
        let flip = if self.flip { self.top_bit() } else { 0 };
        let unused =
            64_u32.saturating_sub(u32::try_from(self.width).unwrap_or(8).saturating_mul(8));
        let unsigned = self.flip || self.width == 1;
        self.change(bytes, |word| {
            let word = word ^ flip;
            if unsigned {
                return word.wrapping_shr(self.shift);
            }
            // The sign fills the container, as it does in what ALSA gives.
            let top = i64::from_le_bytes(word.wrapping_shl(unused).to_le_bytes());
            let low = top.wrapping_shr(unused.saturating_add(self.shift));
            u64::from_le_bytes(low.to_le_bytes())
        });
    }

    fn top_bit(self) -> u64 {
        let bits = u32::try_from(self.width).unwrap_or(1).saturating_mul(8);
        1_u64.wrapping_shl(bits.saturating_sub(1))
    }

    fn change(self, bytes: &mut [u8], change: impl Fn(u64) -> u64) {
        if self.is_plain() {
            return;
        }
        for sample in bytes.chunks_exact_mut(self.width) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(sample.iter()) {
                *to = *from;
            }
            let changed = change(u64::from_le_bytes(word)).to_le_bytes();
            for (to, from) in sample.iter_mut().zip(changed) {
                *to = from;
            }
        }
    }
}

/// The header of a file with `data` bytes of samples.
#[must_use]
pub fn header(layout: Layout, params: &Params, data: u64) -> [u8; HEADER_BYTES] {
    let clamp = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let frame = u16::try_from(params.frame_bytes()).unwrap_or(u16::MAX);
    let bits = u16::try_from(layout.width.saturating_mul(8)).unwrap_or(u16::MAX);
    let frames = data.checked_div(u64::from(frame)).unwrap_or(0);
    let riff = data
        .saturating_add(data & 1)
        .saturating_add(HEADER_BYTES as u64)
        .saturating_sub(8);
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&clamp(riff).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&40_u32.to_le_bytes());
    out.extend_from_slice(&TAG_EXTENSIBLE.to_le_bytes());
    out.extend_from_slice(&u16::from(params.channels).to_le_bytes());
    out.extend_from_slice(&params.rate.hertz().to_le_bytes());
    out.extend_from_slice(
        &params
            .rate
            .hertz()
            .saturating_mul(frame.into())
            .to_le_bytes(),
    );
    out.extend_from_slice(&frame.to_le_bytes());
    out.extend_from_slice(&bits.to_le_bytes());
    out.extend_from_slice(&22_u16.to_le_bytes());
    out.extend_from_slice(&layout.valid_bits.to_le_bytes());
    out.extend_from_slice(&speakers(params.channels).to_le_bytes());
    out.extend_from_slice(&layout.tag.to_le_bytes());
    out.extend_from_slice(&SUBFORMAT);
    out.extend_from_slice(b"fact");
    out.extend_from_slice(&4_u32.to_le_bytes());
    out.extend_from_slice(&clamp(frames).to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&clamp(data).to_le_bytes());
    let mut bytes = [0; HEADER_BYTES];
    for (to, from) in bytes.iter_mut().zip(out) {
        *to = from;
    }
    bytes
}

/// Whether a file begins as [`header`] makes it: another program's chunks lie elsewhere.
#[must_use]
pub fn is_ours(head: &[u8]) -> bool {
    head.get(8..20) == Some(b"WAVEfmt \x28\0\0\0".as_slice())
        && head.get(60..64) == Some(b"fact".as_slice())
        && head.get(72..76) == Some(b"data".as_slice())
}

/// The speakers of the usual maps; WAV wants channels in the order of these bits, and that of ALSA
/// differs from it beyond four, so that then none are named.
fn speakers(channels: u8) -> u32 {
    match channels {
        1 => 0x4,
        2 => 0x3,
        4 => 0x33,
        _ => 0,
    }
}

/// What a file says about its samples.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Contents {
    tag: u16,
    /// Samples per frame.
    pub channels: u16,
    /// Frames per second.
    pub hertz: u32,
    bits: u16,
    /// Where the samples begin.
    pub data_at: u64,
    /// Bytes of samples, as far as the file has them.
    pub data_bytes: u64,
}

impl Contents {
    /// Reads the chunks at the beginning of a file of `file_bytes`. The error says what is wrong.
    ///
    /// # Errors
    /// When it is not a WAV file of plain samples.
    pub fn parse(head: &[u8], file_bytes: u64) -> Result<Self, &'static str> {
        if head.get(..4) != Some(b"RIFF") || head.get(8..12) != Some(b"WAVE") {
            return Err("this is not a WAV file");
        }
        let mut at = 12_usize;
        let mut format = None;
        loop {
            let name = head
                .get(at..at.saturating_add(4))
                .ok_or("there are no samples in it")?;
            let size = u32_at(head, at.saturating_add(4)).ok_or("a chunk is cut off")?;
            let body = at.saturating_add(8);
            if name == b"fmt " {
                format = Some(body);
            } else if name == b"data" {
                let fmt = format.ok_or("the format comes after the samples")?;
                let data_at = body as u64;
                let rest = file_bytes.saturating_sub(data_at);
                return Self::from_format(head, fmt, data_at, rest.min(size.into()));
            }
            let padded = usize::try_from(size)
                .unwrap_or(usize::MAX)
                .saturating_add(1)
                & !1;
            at = body.saturating_add(padded);
        }
    }

    fn from_format(
        head: &[u8],
        fmt: usize,
        data_at: u64,
        data_bytes: u64,
    ) -> Result<Self, &'static str> {
        let cut = "its format is cut off";
        let at = |offset: usize| fmt.saturating_add(offset);
        let mut tag = u16_at(head, fmt).ok_or(cut)?;
        if tag == TAG_EXTENSIBLE {
            tag = u16_at(head, at(24)).ok_or(cut)?;
        }
        if ![TAG_PCM, TAG_FLOAT, TAG_A_LAW, TAG_MU_LAW].contains(&tag) {
            return Err("its samples are compressed; convert it to PCM");
        }
        Ok(Self {
            tag,
            channels: u16_at(head, at(2)).ok_or(cut)?,
            hertz: u32_at(head, at(4)).ok_or(cut)?,
            bits: u16_at(head, at(14)).ok_or(cut)?,
            data_at,
            data_bytes,
        })
    }

    /// Whether its samples lie as this layout has them.
    #[must_use]
    pub fn has(&self, layout: Layout) -> bool {
        self.tag == layout.tag && usize::from(self.bits) == layout.width.saturating_mul(8)
    }

    /// Bits of a sample in the file.
    #[must_use]
    pub const fn bits(&self) -> u16 {
        self.bits
    }

    /// Whether its samples are those of `params` in this layout.
    #[must_use]
    pub fn fits(&self, layout: Layout, params: &Params) -> bool {
        self.has(layout)
            && self.channels == u16::from(params.channels)
            && Rate::from_hertz(self.hertz) == Some(params.rate)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(two.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests;
