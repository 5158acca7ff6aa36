// SPDX-License-Identifier: Apache-2.0

//! Uses a service as a guest's program would: what is measured while it runs is the service.
//!
//! - `cargo run --example media -- decode SOCKET UNITS IN_FLIGHT COUNT`: UNITS is a file of access units
//!   of H.264, each behind its length (4 bytes, big endian), in the order of display and beginning with
//!   a key picture; they are repeated.
//! - `… encode SOCKET WIDTH HEIGHT PICTURES IN_FLIGHT COUNT`: PICTURES is a file of pictures in NV12
//!   without padding (so WIDTH is a multiple of 16), each of which lies in a buffer of its own; they are
//!   repeated.
//! - `… camera SOCKET WIDTH HEIGHT RATE IN_FLIGHT COUNT`: pictures in NV12.
//!
//! Prints the nanoseconds per picture, from the second one to the last; of a codec with one in flight
//! also the median and the 99th percentile of their times from the input's queueing on, of our test
//! picture those of the times from when one was due until the program has it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement of our own service, of a clip of our own"
)]

#[path = "../tests/driver/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod driver;
#[path = "../tests/program/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod program;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use driver::Driver;
use frontend::clients::media::MediaClient;
use program::{CAMERA, CAPTURE, Heard, Memory, OUTPUT, Program};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of a buffer for a coded picture.
const CODED: u32 = 512 * 1024;
/// Buffers that the device fills.
const FILLED: u32 = 6;
/// Pictures in a second that are announced to an encoder.
const RATE: u32 = 30;

/// A codec at work.
struct Codec<'a> {
    program: Program<'a>,
    /// What goes in, again and again.
    units: Vec<Vec<u8>>,
    inputs: Vec<Memory>,
    /// Whether a buffer has its unit already: each has always the same.
    written: bool,
    free: Vec<u32>,
    outputs: Vec<Memory>,
    pushed: usize,
    came: usize,
}

impl<'a> Codec<'a> {
    fn decoder(driver: &'a mut Driver, units: Vec<Vec<u8>>, in_flight: u32) -> Self {
        let mut program = Program::open(driver);
        program.set_format(OUTPUT, b"H264", (640, 480), CODED);
        let inputs = program.buffers(OUTPUT, in_flight, CODED);
        program.stream_on(OUTPUT);
        let mut codec = Self {
            program,
            units,
            free: (0..in_flight).collect(),
            inputs,
            written: false,
            outputs: Vec::new(),
            pushed: 0,
            came: 0,
        };
        codec.push();
        loop {
            match codec.program.heard() {
                Heard::SourceChange => break,
                heard => codec.note(&heard),
            }
        }
        let bytes = codec.program.format(CAPTURE).bytes;
        codec.give_outputs(bytes);
        codec
    }

    fn encoder(driver: &'a mut Driver, pictures: Vec<Vec<u8>>, size: (u32, u32)) -> Self {
        let mut program = Program::open(driver);
        program.set_format(CAPTURE, b"H264", size, CODED);
        let raw = program.set_format(OUTPUT, b"NV12", size, 0);
        assert_eq!(
            raw.bytes as usize,
            pictures[0].len(),
            "rows without padding"
        );
        program.set_rate(OUTPUT, RATE);
        let count = pictures.len() as u32;
        let inputs = program.buffers(OUTPUT, count, raw.bytes);
        for (memory, picture) in inputs.iter().zip(&pictures) {
            program.write(memory, picture);
        }
        program.stream_on(OUTPUT);
        let mut codec = Self {
            program,
            units: pictures,
            free: (0..count).rev().collect(),
            inputs,
            written: true,
            outputs: Vec::new(),
            pushed: 0,
            came: 0,
        };
        // What a coded picture may have follows from the size.
        let bytes = codec.program.format(CAPTURE).bytes;
        codec.give_outputs(bytes);
        codec.push();
        codec
    }

    fn give_outputs(&mut self, bytes: u32) {
        self.outputs = self.program.buffers(CAPTURE, FILLED, bytes);
        for (index, memory) in (0..).zip(&self.outputs) {
            self.program.queue(CAPTURE, index, memory, 0, 0);
        }
        self.program.stream_on(CAPTURE);
    }

    fn push(&mut self) {
        let index = self.free.pop().unwrap();
        let memory = &self.inputs[index as usize];
        let unit = &self.units[self.pushed % self.units.len()];
        if !self.written {
            self.program.write(memory, unit);
        }
        let (used, time) = (unit.len() as u32, self.pushed as i64);
        self.program.queue(OUTPUT, index, memory, used, time);
        self.pushed += 1;
    }

    fn take(&mut self) {
        let heard = self.program.heard();
        self.note(&heard);
    }

    fn note(&mut self, heard: &Heard) {
        match heard {
            // The one that was longest away is the next one.
            Heard::Done(OUTPUT, index, ..) => self.free.insert(0, *index),
            Heard::Done(_, index, used, _) => {
                assert!(*used > 0, "an empty picture");
                self.came += 1;
                let memory = &self.outputs[*index as usize];
                self.program.queue(CAPTURE, *index, memory, 0, 0);
            }
            other => panic!("{other:?}"),
        }
    }

    /// So many pictures, with so many on their way.
    fn run(&mut self, in_flight: usize, count: usize) {
        while self.came == 0 {
            self.take();
        }
        let (mut times, begin) = (Vec::new(), Instant::now());
        while self.came < count {
            let (queued, came) = (Instant::now(), self.came);
            while self.pushed < count && self.pushed - self.came < in_flight {
                while self.free.is_empty() {
                    self.take();
                }
                self.push();
            }
            while self.came == came {
                self.take();
            }
            times.push(queued.elapsed());
        }
        say(begin.elapsed(), count, &mut times);
    }
}

/// The number that is drawn into a test picture.
fn number(luma: &[u8], (width, height): (u32, u32)) -> u32 {
    let row = &luma[(width * (height - 1)) as usize..];
    let bit = width / 64;
    (0..32).fold(0, |number, place| {
        let white = row[(2 * bit * place + bit) as usize] > 128;
        number << 1 | u32::from(white)
    })
}

fn camera(driver: &mut Driver, size: (u32, u32), rate: u32, in_flight: u32, count: usize) {
    let mut program = Program::open(driver);
    let shape = program.set_format(CAMERA, b"NV12", size, 0);
    assert_eq!((shape.width, shape.height), size);
    program.set_rate(CAMERA, rate);
    let buffers = program.buffers(CAMERA, in_flight, shape.bytes);
    for (index, memory) in (0..).zip(&buffers) {
        program.queue(CAMERA, index, memory, 0, 0);
    }
    program.stream_on(CAMERA);
    let (mut late, mut begin) = (Vec::new(), Instant::now());
    for came in 0..count {
        let Heard::Done(_, index, used, _) = program.heard() else {
            panic!("no picture")
        };
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        assert_eq!(used, shape.bytes);
        let memory = &buffers[index as usize];
        let due = Duration::from_secs(1) * number(&program.read(memory), size) / rate;
        if came == 0 {
            begin = Instant::now();
        }
        late.push(now.saturating_sub(due));
        program.queue(CAMERA, index, memory, 0, 0);
    }
    say(begin.elapsed(), count, &mut late);
}

fn say(elapsed: Duration, count: usize, times: &mut [Duration]) {
    let each = elapsed.as_nanos() / (count - 1) as u128;
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_nanos();
    println!("{each} {} {}", at(50), at(99));
}

fn units(path: &str) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let (mut rest, mut units) = (file.as_slice(), Vec::new());
    while let Some((length, bytes)) = rest.split_at_checked(4) {
        let length = u32::from_be_bytes(length.try_into().unwrap());
        let (unit, later) = bytes.split_at(length as usize);
        units.push(unit.to_vec());
        rest = later;
    }
    units
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u32>().unwrap();
    let socket = UnixStream::connect(words[1]).unwrap();
    let mut driver = Driver(MediaClient::start(socket, &MediaClient::options(), 32).unwrap());
    match words[..] {
        ["decode", _, path, in_flight, count] => {
            let in_flight = number(in_flight);
            let mut codec = Codec::decoder(&mut driver, units(path), in_flight);
            codec.run(in_flight as usize, number(count) as usize);
        }
        ["encode", _, width, height, path, in_flight, count] => {
            let size = (number(width), number(height));
            let file = std::fs::read(path).unwrap();
            let bytes = (size.0 * size.1 * 3 / 2) as usize;
            let pictures = file.chunks_exact(bytes).map(<[u8]>::to_vec).collect();
            let mut codec = Codec::encoder(&mut driver, pictures, size);
            codec.run(number(in_flight) as usize, number(count) as usize);
        }
        ["camera", _, width, height, rate, in_flight, count] => {
            let size = (number(width), number(height));
            let count = number(count) as usize;
            camera(&mut driver, size, number(rate), number(in_flight), count);
        }
        _ => panic!("usage: media decode|encode|camera SOCKET …, as its source says"),
    }
}
