// SPDX-License-Identifier: Apache-2.0

//! Known sounds, and finding them again in a recording.

use std::f64::consts::TAU;

pub(crate) const HERTZ: u32 = 48_000;

/// A tone, left 440 Hz and right 880 Hz, at a quarter of full scale: frame `n`.
pub(crate) fn tone(n: u64) -> [i16; 2] {
    [440.0, 880.0].map(|pitch| {
        let phase = (n as f64 * pitch / f64::from(HERTZ)).fract();
        (8192.0 * (phase * TAU).sin()).round() as i16
    })
}

/// Another tone, 3 kHz on both sides: frame `n`.
pub(crate) fn alarm(n: u64) -> [i16; 2] {
    let phase = (n as f64 * 3000.0 / f64::from(HERTZ)).fract();
    [(8192.0 * (phase * TAU).sin()).round() as i16; 2]
}

/// Frames `from..from + count` of a sound, as a guest sends them.
pub(crate) fn bytes(from: u64, count: u64, sound: impl Fn(u64) -> [i16; 2]) -> Vec<u8> {
    (from..from + count)
        .flat_map(|n| sound(n).into_iter().flat_map(i16::to_le_bytes))
        .collect()
}

/// A frame of a recording as 16-bit numbers.
pub(crate) fn whole(frame: [f32; 2]) -> [i16; 2] {
    frame.map(|sample| (sample * 32768.0).round() as i16)
}

/// How the tone lies in a recording.
#[derive(Debug)]
pub(crate) struct Found {
    /// The first frame of the recording that is not silent.
    pub(crate) first: usize,
    /// Frames from there that go on as the tone does, bit for bit.
    pub(crate) exact: usize,
}

/// Finds the tone from its beginning, and counts how far it goes on unbroken and unchanged.
pub(crate) fn find(recording: &[[f32; 2]]) -> Found {
    // Frame 0 of the tone is silence.
    let first = recording
        .iter()
        .position(|frame| whole(*frame) != [0, 0])
        .expect("nothing but silence was recorded");
    let exact = (1..)
        .zip(&recording[first..])
        .take_while(|(n, frame)| whole(**frame) == tone(*n))
        .count();
    Found { first, exact }
}

/// Frames after which the tone repeats.
const CYCLE: u64 = 1200;
/// So many frames tell where in its cycle the tone is.
const MARK: usize = 32;

/// The longest stretch of frames in which the tone goes on bit for bit.
pub(crate) fn longest_tone(frames: &[[i16; 2]]) -> usize {
    let cycle: Vec<[i16; 2]> = (0..CYCLE + MARK as u64).map(tone).collect();
    let (mut longest, mut at) = (0, 0);
    while at + MARK < frames.len() {
        let mark = &frames[at..at + MARK];
        let place = cycle.windows(MARK).position(|window| window == mark);
        let Some(place) = place else {
            at += 1;
            continue;
        };
        let exact = (place as u64..)
            .zip(&frames[at..])
            .take_while(|(n, frame)| tone(n % CYCLE) == **frame)
            .count();
        longest = longest.max(exact);
        at += exact;
    }
    longest
}

/// Amplitude of `pitch` hertz in one channel, 1.0 for full scale; `frames` are whole cycles.
pub(crate) fn level(frames: &[[f32; 2]], channel: usize, pitch: f64) -> f64 {
    let (mut real, mut imaginary) = (0.0, 0.0);
    for (n, frame) in frames.iter().enumerate() {
        let angle = n as f64 * pitch / f64::from(HERTZ) * TAU;
        real += f64::from(frame[channel]) * angle.cos();
        imaginary += f64::from(frame[channel]) * angle.sin();
    }
    2.0 * real.hypot(imaginary) / frames.len() as f64
}
