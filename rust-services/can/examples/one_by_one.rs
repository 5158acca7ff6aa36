// SPDX-License-Identifier: Apache-2.0

//! Sends frames on the service's own bus, each when the last one has been answered, and says how much
//! later than its last bit the driver hears of it.
//!
//! `cargo run --example one_by_one -- SERVICE COUNT`: the bus has 1 Mbit/s, a frame 8 bytes. Prints, in
//! nanoseconds: the frame's time on the bus, then the median and the 99th percentile of the answers'.

use std::time::Instant;

use agl_virtio_can::frame::{Frame, Id, Kind};
use agl_virtio_can::timing::{Rates, frame_time};
use frontend::Deadline;
use frontend::clients::can::{CanClient, OK, frame};
use frontend::service_under_test::Launch;

const RATES: Rates = Rates {
    nominal: 1_000_000,
    data: 1_000_000,
};
const ID: u32 = 0x123;
const DATA: [u8; 8] = [0x55; 8];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: one_by_one SERVICE COUNT";
    let mut words = std::env::args().skip(1);
    let service = words.next().ok_or(usage)?;
    let count: usize = words.next().ok_or(usage)?.parse()?;
    let bits = Id::new(ID, false)
        .and_then(|id| Frame::new(id, Kind::Data, &DATA))
        .map(|frame| frame_time(&frame, RATES))
        .ok_or("no frame")?;
    let folder = tempfile::tempdir()?;
    let service = Launch::new(service, folder.path().join("socket"))
        .args(["--log", "error", "--bus", "none", "--bitrate", "1000000"])
        .start()?;
    let stream = service.connect(Deadline::patient())?;
    let mut client = CanClient::start(stream, &CanClient::options())?;
    let message = frame(0, ID, &DATA);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        match client.send(&message)? {
            OK => times.push(began.elapsed()),
            answer => return Err(format!("a frame was answered by {answer}").into()),
        }
    }
    times.sort();
    let at = |share: usize| {
        let place = times.len().saturating_mul(share) / 100;
        times.get(place).map_or(0, std::time::Duration::as_nanos)
    };
    println!("{} {} {}", bits.as_nanos(), at(50), at(99));
    Ok(())
}
