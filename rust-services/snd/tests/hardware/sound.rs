// SPDX-License-Identifier: Apache-2.0

//! A sound in which no frame is like another, and finding it again.

use frontend::clients::snd::wire::Params;

/// A sample format: its number in VIRTIO, its name in ALSA, and its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
}

const fn format(number: u8, name: &'static str, bytes: usize) -> Format {
    Format {
        number,
        name,
        bytes,
    }
}

pub(crate) const S16: Format = format(5, "S16_LE", 2);
pub(crate) const S24_3: Format = format(11, "S24_3LE", 3);
pub(crate) const S24: Format = format(15, "S24_LE", 4);
pub(crate) const S32: Format = format(17, "S32_LE", 4);
pub(crate) const FLOAT: Format = format(19, "FLOAT_LE", 4);

/// Format, frames per second, and channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) format: Format,
    pub(crate) hertz: u32,
    pub(crate) channels: u8,
}

/// Most sounds: S16, stereo, 48 kHz.
pub(crate) const USUAL: Shape = Shape {
    format: S16,
    hertz: 48_000,
    channels: 2,
};

/// How many periods a driver has in flight.
pub(crate) const PERIODS: u32 = 16;

impl Shape {
    /// Bytes of a frame.
    pub(crate) fn frame(&self) -> usize {
        self.format.bytes * usize::from(self.channels)
    }

    /// Bytes of a time.
    pub(crate) fn bytes(&self, milliseconds: u32) -> usize {
        (u64::from(self.hertz) * u64::from(milliseconds) / 1000) as usize * self.frame()
    }

    /// What the driver asks for: periods of 20 ms.
    pub(crate) fn params(&self) -> Params {
        let period_bytes = self.bytes(20) as u32;
        let rate = match self.hertz {
            8_000 => 1,
            44_100 => 6,
            48_000 => 7,
            96_000 => 10,
            192_000 => 12,
            other => panic!("{other} Hz"),
        };
        Params {
            period_bytes,
            buffer_bytes: period_bytes * PERIODS,
            features: 0,
            channels: self.channels,
            format: self.format.number,
            rate,
        }
    }
}

/// Bytes `from..from + count` of the sound: of any eight of them it is known where they belong.
pub(crate) fn bytes(from: usize, count: usize) -> Vec<u8> {
    let word = |at: usize| {
        let mut word = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31).to_le_bytes()
    };
    (from..from + count)
        .map(|at| word(at / 8)[at % 8])
        .collect()
}

/// By how many bytes of the sound a place of a recording is known.
const MARK: usize = 64;
/// As much of the sound as any test plays.
const ALL: usize = 4 << 20;

/// How many frames of a recording go on as the sound does from its very beginning.
pub(crate) fn from_the_first(recording: &[u8], shape: &Shape) -> usize {
    let mark = bytes(0, MARK);
    let frames = recording.windows(MARK).step_by(shape.frame());
    match frames.into_iter().position(|window| window == mark) {
        Some(first) => alike(&recording[first * shape.frame()..], 0) / shape.frame(),
        None => 0,
    }
}

/// How many frames of a recording go on as the sound does somewhere, at the most.
pub(crate) fn longest(recording: &[u8], shape: &Shape) -> usize {
    let sound = bytes(0, ALL);
    let (mut at, mut longest) = (0, 0);
    let step = shape.bytes(50);
    while let Some(mark) = recording.get(at..at + MARK) {
        let mut here = 0;
        // Silence is nowhere in it.
        if mark.iter().any(|byte| *byte != 0) {
            let windows = sound.windows(MARK).step_by(shape.frame());
            if let Some(found) = windows.into_iter().position(|window| window == mark) {
                here = alike(&recording[at..], found * shape.frame());
            }
        }
        longest = longest.max(here);
        at += here.next_multiple_of(shape.frame()).max(step);
    }
    longest / shape.frame()
}

/// How many bytes are those of the sound from `from` on.
fn alike(recording: &[u8], from: usize) -> usize {
    let sound = bytes(from, recording.len());
    let same = recording
        .iter()
        .zip(&sound)
        .take_while(|(one, two)| one == two);
    same.count()
}
