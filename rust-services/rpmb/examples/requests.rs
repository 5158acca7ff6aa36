// SPDX-License-Identifier: Apache-2.0

//! Sends a service the same signed request many times: what is measured while it runs is the service.
//!
//! ```text
//! cargo run --example requests -- SOCKET counter|read|write BLOCKS COUNT
//! cargo run --example requests -- FILE disk BYTES COUNT
//! cargo run --example requests -- - hash FRAMES COUNT
//! ```
//!
//! A device without a key gets one. `disk` is the floor of a durable write: bytes into a file, and the
//! wait for them. `hash` is that of a signature: the MAC of so many frames. Prints the median and the
//! 99th percentile in nanoseconds, and how many there were a second.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a measuring tool: it trusts its own numbers"
)]

use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agl_virtio_rpmb::key::Key;
use agl_virtio_rpmb::wire::{Frame, RequestType};
use frontend::clients::rpmb::RpmbClient;
use zerocopy::{FromBytes, IntoBytes};

type Failure = Box<dyn Error>;

const KEY: [u8; 32] = [0x42; 32];
/// Result: no error.
const OK: u16 = 0;
/// Result: no key yet.
const NO_KEY: u16 = 7;

struct Driver {
    client: RpmbClient,
    key: Key,
    counter: u32,
}

impl Driver {
    fn connect(socket: &str) -> Result<Self, Failure> {
        let options = RpmbClient::options();
        let client = RpmbClient::start(UnixStream::connect(socket)?, &options)?;
        let mut driver = Self {
            client,
            key: Key::new(KEY),
            counter: 0,
        };
        let mut asked = driver.send(&[one(RequestType::GetWriteCounter)], 1)?;
        if asked[0].result.get() == NO_KEY {
            let mut frame = one(RequestType::ProgramKey);
            frame.key_mac = KEY;
            driver.send(&[frame, one(RequestType::ResultRead)], 1)?;
            asked = driver.send(&[one(RequestType::GetWriteCounter)], 1)?;
        }
        driver.believe(&asked)?;
        driver.counter = asked[0].write_counter.get();
        Ok(driver)
    }

    fn send(&mut self, frames: &[Frame], answers: usize) -> Result<Vec<Frame>, Failure> {
        let frames: Result<Vec<_>, _> = frames.iter().map(|of| of.as_bytes().try_into()).collect();
        let answer = self.client.exchange(&frames?, answers)?;
        if answer.len() != answers {
            return Err(format!("{} frames are answered, not {answers}", answer.len()).into());
        }
        let read = |frame| Frame::read_from_bytes(frame).map_err(|_| "no frame".into());
        answer.iter().map(|frame| read(frame.as_slice())).collect()
    }

    /// Signed, and well.
    fn believe(&self, answer: &[Frame]) -> Result<(), Failure> {
        match answer.iter().find(|frame| frame.result.get() != OK) {
            Some(frame) => Err(format!("refused: {:#06x}", frame.result.get()).into()),
            None if self.key.verifies(answer) => Ok(()),
            None => Err("an answer is not signed with the key".into()),
        }
    }

    /// One request. How long it took, without what the driver signs and verifies.
    fn request(&mut self, kind: RequestType, blocks: u16) -> Result<Duration, Failure> {
        let mut frame = one(kind);
        frame.block_count.set(blocks);
        let (frames, answers) = match kind {
            RequestType::DataWrite => {
                frame.write_counter.set(self.counter);
                let mut frames = vec![frame; blocks.into()];
                let mac = self.key.sign(&frames);
                if let Some(last) = frames.last_mut() {
                    last.key_mac = mac;
                }
                frames.push(one(RequestType::ResultRead));
                self.counter += 1;
                (frames, 1)
            }
            RequestType::DataRead => (vec![frame], blocks.into()),
            _ => (vec![one(kind)], 1),
        };
        let began = Instant::now();
        let answer = self.send(&frames, answers)?;
        let took = began.elapsed();
        self.believe(&answer)?;
        Ok(took)
    }
}

fn one(kind: RequestType) -> Frame {
    let mut frame = Frame::of(kind.code());
    frame.block_count.set(1);
    frame
}

fn run(words: &[String]) -> Result<Vec<Duration>, Failure> {
    let [place, what, amount, count] = words else {
        return Err(
            "usage: requests SOCKET|FILE|- counter|read|write|disk|hash AMOUNT COUNT".into(),
        );
    };
    let count = 0..count.parse::<usize>()?;
    let kind = match what.as_str() {
        "counter" => RequestType::GetWriteCounter,
        "read" => RequestType::DataRead,
        "write" => RequestType::DataWrite,
        "disk" => {
            let mut options = OpenOptions::new();
            let file = options
                .write(true)
                .create(true)
                .truncate(false)
                .open(place)?;
            let bytes = vec![0x5a; amount.parse()?];
            return count
                .map(|_| {
                    let began = Instant::now();
                    file.write_all_at(&bytes, 0)?;
                    file.sync_data()?;
                    Ok(began.elapsed())
                })
                .collect();
        }
        "hash" => {
            let (key, frames) = (Key::new(KEY), vec![Frame::default(); amount.parse()?]);
            let timed = count.map(|_| {
                let began = Instant::now();
                std::hint::black_box(key.sign(std::hint::black_box(&frames)));
                Ok(began.elapsed())
            });
            return timed.collect();
        }
        other => return Err(format!("{other} is no request").into()),
    };
    let mut driver = Driver::connect(place)?;
    let blocks = amount.parse()?;
    count.map(|_| driver.request(kind, blocks)).collect()
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut times = run(&words)?;
    times.sort();
    let rate = times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
    let at = |share: usize| times[times.len() * share / 100].as_nanos();
    println!("{} {} {rate:.0}", at(50), at(99));
    Ok(())
}
