// SPDX-License-Identifier: Apache-2.0

//! Has a service decode H.264 as a guest would: what is measured while it runs is the service.
//!
//! `cargo run --example decode -- SOCKET UNITS IN_FLIGHT COUNT`: UNITS is a file of access units, each
//! behind its length (4 bytes, big endian), in the order of display and beginning with a key picture;
//! they are repeated. Prints the nanoseconds per picture, from the second one to the last; with one in
//! flight also the median and the 99th percentile of their times from the unit's queueing on.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a measurement of our own service, of a clip of our own"
)]

mod pages;

use std::os::unix::net::UnixStream;
use std::time::Instant;

use frontend::clients::video::{
    DONE, INPUT, OUTPUT, Params, RESOLUTION_CHANGED, VideoClient, done,
};
use frontend::{Buffer, ChainId, Deadline};
use pages::{Outcome, fill, ok, pages};

const STREAM: u32 = 1;
const H264: u32 = 0x1002;
const NV12: u32 = 4;
/// Bytes of a buffer for coded bytes.
const CODED: u32 = 256 * 1024;
/// Buffers for pictures.
const PICTURES: u32 = 6;

fn units(path: &str) -> Outcome<Vec<Vec<u8>>> {
    let file = std::fs::read(path)?;
    let (mut rest, mut units) = (file.as_slice(), Vec::new());
    while let Some((length, bytes)) = rest.split_at_checked(4) {
        let length = u32::from_be_bytes(length.try_into()?) as usize;
        let (unit, later) = bytes.split_at_checked(length).ok_or("a unit is cut off")?;
        units.push(unit.to_vec());
        rest = later;
    }
    Ok(units)
}

struct Stream {
    client: VideoClient,
    inputs: Vec<Vec<Buffer>>,
    free: Vec<u32>,
    /// Requests on their way: of which queue and resource.
    queued: Vec<(ChainId, u32, u32)>,
    units: Vec<Vec<u8>>,
    next: usize,
    came: usize,
}

impl Stream {
    fn open(socket: &str, units: Vec<Vec<u8>>, in_flight: u32) -> Outcome<Self> {
        let socket = UnixStream::connect(socket)?;
        let mut client = VideoClient::start(socket, &VideoClient::options())?;
        ok(client.create(STREAM, H264)?)?;
        let mut params = Params::new(INPUT, H264, 640, 480);
        params.0[12] = CODED;
        ok(client.set_params(STREAM, &params)?)?;
        ok(client.set_params(STREAM, &Params::new(OUTPUT, NV12, 640, 480))?)?;
        let mut stream = Self {
            client,
            inputs: Vec::new(),
            free: (1..=in_flight).rev().collect(),
            queued: Vec::new(),
            units,
            next: 0,
            came: 0,
        };
        for id in 1..=in_flight {
            let runs = pages(&mut stream.client, CODED)?;
            ok(stream.client.attach(STREAM, INPUT, id, &[&runs])?)?;
            stream.inputs.push(runs);
        }
        stream.push()?;
        let event = stream.client.event(Deadline::patient())?;
        if event != (RESOLUTION_CHANGED, STREAM) {
            return Err(format!("the event is {event:x?}").into());
        }
        let (bytes, _) = stream.client.params(STREAM, OUTPUT)?.plane(0);
        for id in 1..=PICTURES {
            let runs = pages(&mut stream.client, bytes)?;
            ok(stream.client.attach(STREAM, OUTPUT, id, &[&runs])?)?;
            stream.queue(OUTPUT, id, 0)?;
        }
        while stream.came == 0 {
            stream.take()?;
        }
        Ok(stream)
    }

    fn queue(&mut self, queue: u32, id: u32, bytes: u32) -> Outcome<()> {
        let time = self.next as u64;
        let chain = self.client.queue(STREAM, queue, id, time, bytes)?;
        self.queued.push((chain, queue, id));
        Ok(())
    }

    fn push(&mut self) -> Outcome<()> {
        let id = self.free.pop().ok_or("no buffer is free")?;
        let unit = self.units[self.next % self.units.len()].clone();
        fill(&mut self.client, &self.inputs[id as usize - 1], &unit)?;
        self.queue(INPUT, id, u32::try_from(unit.len())?)?;
        self.next += 1;
        Ok(())
    }

    fn take(&mut self) -> Outcome<()> {
        let (chain, bytes) = self.client.next(Deadline::patient())?;
        let at = self.queued.iter().position(|one| one.0 == chain);
        let (_, queue, id) = self.queued.swap_remove(at.ok_or("nobody asked")?);
        let answer = done(&bytes);
        if answer.kind != DONE {
            return Err(format!("a buffer came back with {:#x}", answer.kind).into());
        }
        if queue == INPUT {
            self.free.push(id);
            return Ok(());
        }
        self.came += 1;
        self.queue(OUTPUT, id, 0)
    }
}

fn main() -> Outcome<()> {
    let usage = "usage: decode SOCKET UNITS IN_FLIGHT COUNT";
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or(usage);
    let (socket, path) = (word()?, word()?);
    let in_flight: u32 = word()?.parse()?;
    let count: usize = word()?.parse()?;
    let mut stream = Stream::open(&socket, units(&path)?, in_flight)?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while stream.came < count {
        if in_flight > 1 {
            while stream.next < count && !stream.free.is_empty() {
                stream.push()?;
            }
            stream.take()?;
            continue;
        }
        while stream.free.is_empty() {
            stream.take()?;
        }
        let (queued, came) = (Instant::now(), stream.came);
        stream.push()?;
        while stream.came == came {
            stream.take()?;
        }
        times.push(queued.elapsed().as_nanos());
    }
    let each = begin.elapsed().as_nanos() / (count - 1) as u128;
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).unwrap_or(&0);
    println!("{each} {} {}", at(50), at(99));
    ok(stream.client.destroy(STREAM)?)
}
