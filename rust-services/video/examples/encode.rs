// SPDX-License-Identifier: Apache-2.0

//! Has a service encode H.264 as a guest would: what is measured while it runs is the service.
//!
//! `cargo run --example encode -- SOCKET WIDTH HEIGHT PICTURES IN_FLIGHT COUNT`: PICTURES is a file of
//! pictures in NV12 without padding (so WIDTH is a multiple of 16), each of which lies in a buffer of
//! its own; they are repeated. Prints the nanoseconds per picture, from the second one to the last; with
//! one in flight also the median and the 99th percentile of their times from the queueing on.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a measurement of our own service, of a clip of our own"
)]

mod pages;

use std::os::unix::net::UnixStream;
use std::time::Instant;

use frontend::clients::video::{DONE, INPUT, OUTPUT, Params, VideoClient, done};
use frontend::{ChainId, Deadline};
use pages::{Outcome, fill, ok, pages};

const STREAM: u32 = 1;
const H264: u32 = 0x1002;
const NV12: u32 = 4;
/// Pictures in a second.
const RATE: u32 = 30;
/// Bytes of a buffer for a coded picture.
const CODED: u32 = 512 * 1024;
/// Buffers for coded pictures.
const OUTPUTS: u32 = 4;

struct Stream {
    client: VideoClient,
    bytes: u32,
    pictures: u32,
    /// Requests on their way: of which queue and resource.
    queued: Vec<(ChainId, u32, u32)>,
    pushed: u32,
    came: u32,
}

impl Stream {
    fn open(socket: &str, size: (u32, u32), clip: &[u8]) -> Outcome<Self> {
        let socket = UnixStream::connect(socket)?;
        let mut client = VideoClient::start(socket, &VideoClient::options())?;
        ok(client.create(STREAM, H264)?)?;
        let mut params = Params::new(INPUT, NV12, size.0, size.1);
        params.0[10] = RATE;
        ok(client.set_params(STREAM, &params)?)?;
        let mut params = Params::new(OUTPUT, H264, size.0, size.1);
        params.0[10] = RATE;
        params.0[12] = CODED;
        ok(client.set_params(STREAM, &params)?)?;
        let bytes = client.params(STREAM, INPUT)?.plane(0).0;
        let mut stream = Self {
            client,
            bytes,
            pictures: 0,
            queued: Vec::new(),
            pushed: 0,
            came: 0,
        };
        for picture in clip.chunks_exact(bytes as usize) {
            stream.pictures += 1;
            let runs = pages(&mut stream.client, bytes)?;
            fill(&mut stream.client, &runs, picture)?;
            let attached = stream
                .client
                .attach(STREAM, INPUT, stream.pictures, &[&runs]);
            ok(attached?)?;
        }
        for id in 1..=OUTPUTS {
            let runs = pages(&mut stream.client, CODED)?;
            ok(stream.client.attach(STREAM, OUTPUT, id, &[&runs])?)?;
            stream.queue(OUTPUT, id, 0)?;
        }
        Ok(stream)
    }

    fn queue(&mut self, queue: u32, id: u32, bytes: u32) -> Outcome<()> {
        let time = u64::from(self.pushed);
        let chain = self.client.queue(STREAM, queue, id, time, bytes)?;
        self.queued.push((chain, queue, id));
        Ok(())
    }

    fn push(&mut self) -> Outcome<()> {
        let id = 1 + self.pushed % self.pictures;
        self.queue(INPUT, id, self.bytes)?;
        self.pushed += 1;
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
            return Ok(());
        }
        self.came += 1;
        self.queue(OUTPUT, id, 0)
    }
}

fn main() -> Outcome<()> {
    let usage = "usage: encode SOCKET WIDTH HEIGHT PICTURES IN_FLIGHT COUNT";
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or(usage);
    let socket = word()?;
    let size = (word()?.parse()?, word()?.parse()?);
    let clip = std::fs::read(word()?)?;
    let in_flight: u32 = word()?.parse()?;
    let count: u32 = word()?.parse()?;
    let mut stream = Stream::open(&socket, size, &clip)?;
    if in_flight > stream.pictures {
        return Err("each picture in flight needs a buffer of its own".into());
    }
    stream.push()?;
    while stream.came == 0 {
        stream.take()?;
    }
    let mut times = Vec::new();
    let begin = Instant::now();
    while stream.came < count {
        let (queued, came) = (Instant::now(), stream.came);
        while stream.pushed < count && stream.pushed - stream.came < in_flight {
            stream.push()?;
        }
        while stream.came == came {
            stream.take()?;
        }
        times.push(queued.elapsed().as_nanos());
    }
    let each = begin.elapsed().as_nanos() / u128::from(count - 1);
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).unwrap_or(&0);
    println!("{each} {} {}", at(50), at(99));
    ok(stream.client.destroy(STREAM)?)
}
