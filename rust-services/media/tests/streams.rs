// SPDX-License-Identifier: Apache-2.0

//! Streams of everything that the codecs can do, through the service: picture by picture what the
//! host's own decoder makes of them, and each with the time of the unit in which it came.

#![cfg(feature = "gstreamer")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[path = "../../codec/tests/bench/mod.rs"]
#[allow(dead_code, reason = "the codec's own tests use the rest")]
mod bench;
mod driver;
#[allow(dead_code, reason = "the examples use the rest")]
mod program;

use agl_virtio_codec::Codec;
use bench::{Fnv, streams};
use driver::Driver;
use frontend::service_under_test::Launch;
use program::{CAPTURE, Heard, Memory, OUTPUT, Program, Shape};

/// Bytes of a buffer for coded bytes.
const CODED: u32 = 64 << 10;
/// Buffers of each queue, or more where the decoder wants them.
const BUFFERS: u32 = 3;
/// Times of the guest, in seconds: whatever they are, they come back.
const FROM: i64 = -70_000;

/// Decodes one stream.
struct Player<'a> {
    program: Program<'a>,
    inputs: Vec<Memory>,
    free: Vec<u32>,
    pictures: Vec<Memory>,
    shape: Shape,
    seen: (u32, u32),
    sizes: Vec<(u32, u32)>,
    sums: Vec<u64>,
    units: Vec<u64>,
}

impl<'a> Player<'a> {
    fn new(driver: &'a mut Driver, coded: &[u8; 4]) -> Self {
        let mut program = Program::open(driver);
        let shape = program.set_format(OUTPUT, coded, (64, 64), CODED);
        assert_eq!(shape.bytes, CODED);
        let inputs = program.buffers(OUTPUT, BUFFERS, CODED);
        program.stream_on(OUTPUT);
        Self {
            free: (0..inputs.len() as u32).collect(),
            inputs,
            program,
            pictures: Vec::new(),
            shape,
            seen: (0, 0),
            sizes: Vec::new(),
            sums: Vec::new(),
            units: Vec::new(),
        }
    }

    /// Decodes all of it, and ends when the drain has.
    fn play(&mut self, units: &[Vec<u8>]) {
        let (mut next, mut changes) = (0, false);
        loop {
            while next < units.len() {
                let Some(index) = self.free.pop() else { break };
                let (unit, memory) = (&units[next], &self.inputs[index as usize]);
                self.program.write(memory, unit);
                let (used, time) = (unit.len() as u32, FROM + next as i64);
                self.program.queue(OUTPUT, index, memory, used, time);
                next += 1;
                if next == units.len() {
                    self.program.stop();
                }
            }
            match self.program.heard() {
                Heard::Done(OUTPUT, index, ..) => self.free.push(index),
                Heard::Done(_, index, used, time) => self.keep(index, used, time),
                // The first one comes before there is anything to end.
                Heard::SourceChange if self.pictures.is_empty() => self.look(),
                Heard::SourceChange => changes = true,
                Heard::Last if changes => {
                    changes = false;
                    self.program.stream_off(CAPTURE);
                    let pictures = std::mem::take(&mut self.pictures);
                    self.program.buffers(CAPTURE, 0, 0);
                    self.program.free(pictures);
                    self.look();
                }
                Heard::End => {}
                Heard::Last => return,
            }
        }
    }

    /// Takes the size as it is.
    fn look(&mut self) {
        self.shape = self.program.format(CAPTURE);
        self.seen = self.program.seen();
        self.sizes.push(self.seen);
        self.pictures = self.program.buffers(CAPTURE, BUFFERS, self.shape.bytes);
        for (index, memory) in (0..).zip(&self.pictures) {
            self.program.queue(CAPTURE, index, memory, 0, 0);
        }
        self.program.stream_on(CAPTURE);
    }

    /// Notes the sum of what is seen of a picture in NV12, and its unit.
    fn keep(&mut self, index: u32, used: u32, time: i64) {
        let memory = &self.pictures[index as usize];
        let bytes = self.program.read(memory);
        let (width, height) = (self.seen.0 as usize, self.seen.1 as usize);
        let (stride, rows) = (self.shape.stride as usize, self.shape.height as usize);
        assert!(
            used as usize >= stride * rows,
            "{used} bytes of {:?}",
            self.shape
        );
        let mut sum = Fnv::new();
        let chroma = width.div_ceil(2) * 2;
        for (offset, bytes_in_row, rows) in [
            (0, width, height),
            (stride * rows, chroma, height.div_ceil(2)),
        ] {
            for row in 0..rows {
                sum.add(&bytes[offset + row * stride..][..bytes_in_row]);
            }
        }
        self.sums.push(sum.value());
        self.units.push((time - FROM) as u64);
        self.program.queue(CAPTURE, index, memory, 0, 0);
    }

    fn close(mut self) {
        let buffers = self.inputs.into_iter().chain(self.pictures);
        self.program.free(buffers.collect());
        self.program.close();
    }
}

fn same_as_on_the_host(codec: Codec, coded: &[u8; 4]) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.toml");
    let text = "[devices.media]\ntype = \"media\"\nfunction = \"decoder\"\n";
    std::fs::write(&file, text).unwrap();
    let service = Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-media"),
        directory.path().join("socket"),
    )
    .args(["--log", "error", "--bus", "none", "--config"])
    .args([file])
    .start()
    .unwrap();
    let mut driver = Driver::new(&service);
    let mut wrong = Vec::new();
    for stream in streams::of(codec) {
        let mut player = Player::new(&mut driver, coded);
        player.play(&stream.clip.units);
        let (name, units) = (&stream.name, stream.clip.units.len());
        println!(
            "{name}: {units} units, {} pictures, {:?}",
            player.sums.len(),
            player.sizes
        );
        wrong.extend(stream.differences(&player.sums, &player.units));
        player.close();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn streams_of_h264_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::H264, b"H264");
}

#[test]
fn streams_of_hevc_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Hevc, b"HEVC");
}

#[test]
fn streams_of_vp8_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Vp8, b"VP80");
}

#[test]
fn streams_of_vp9_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Vp9, b"VP90");
}

#[test]
fn streams_of_av1_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Av1, b"AV01");
}

#[test]
fn streams_of_mpeg2_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Mpeg2, b"MPG2");
}

#[test]
fn streams_of_mpeg4_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Mpeg4, b"MPG4");
}
