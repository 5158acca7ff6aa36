// SPDX-License-Identifier: Apache-2.0

//! What a guest notices of a neighbour on its bus that sends without end what the service has most
//! work with: chains of a thousand buffers, in which there is no frame.
//!
//! `cargo run --example neighbours -- SERVICE COUNT`: COUNT frames of 8 bytes at 1 Mbit/s, a
//! millisecond apart, alone and beside the neighbour. Prints for each, in microseconds: the median of
//! the answers, the 99th percentile, the longest.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a measuring tool: it trusts its own numbers"
)]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use frontend::clients::can::{CanClient, OK, TX, frame};
use frontend::ring::{Descriptor, RingOptions, descriptor_flag};
use frontend::service_under_test::Launch;
use frontend::{Deadline, Error};

/// Buffers of one chain, and chains that are out at once: as many as the service takes.
const MOST: u16 = 1024;
const PACE: Duration = Duration::from_millis(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: neighbours SERVICE COUNT";
    let mut words = std::env::args().skip(1);
    let service = words.next().ok_or(usage)?;
    let count: usize = words.next().ok_or(usage)?.parse()?;
    let folder = tempfile::tempdir()?;
    let second = folder.path().join("second");
    let service = Launch::new(service, folder.path().join("socket"))
        .args(["--log", "error", "--bus", "none", "--bitrate", "1000000"])
        .args([
            "--controller".to_owned(),
            format!("second={}", second.display()),
        ])
        .start()?;
    let stream = service.connect(Deadline::patient())?;
    let mut client = CanClient::start(stream, &CanClient::options())?;
    println!("alone {}", measure(&mut client, count)?);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| flood(&second, &enough));
        let beside = measure(&mut client, count);
        enough.store(true, Ordering::Relaxed);
        let chains = neighbour
            .join()
            .map_err(|_| "the neighbour has panicked")??;
        println!("beside {}, {chains} chains", beside?);
        Ok(())
    })
}

/// Sends frames, each when the last one was answered.
fn measure(client: &mut CanClient, count: usize) -> Result<String, Error> {
    let message = frame(0, 0x123, &[0x55; 8]);
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        std::thread::sleep(PACE);
        let began = Instant::now();
        if client.send(&message)? != OK {
            return Err(Error::Memory("a frame was refused".into()));
        }
        times.push(began.elapsed());
    }
    times.sort();
    let at = |share: usize| {
        let place = times.len().saturating_sub(1).saturating_mul(share) / 100;
        times.get(place).map_or(0, Duration::as_micros)
    };
    Ok(format!("{} {} {}", at(50), at(99), at(100)))
}

/// Keeps the queue full. How many chains came back.
fn flood(path: &Path, enough: &AtomicBool) -> Result<u64, Error> {
    let mut options = CanClient::options();
    let ring = RingOptions {
        size: MOST,
        ..RingOptions::default()
    };
    options.queues = vec![ring; 3];
    let stream = UnixStream::connect(path).map_err(|error| Error::Memory(error.to_string()))?;
    let mut client = CanClient::start(stream, &options)?;
    let memory = client.guest_mut().memory().clone();
    let table = memory.alloc(u32::from(MOST) * Descriptor::SIZE, 16)?;
    let byte = memory.alloc(1, 1)?;
    for number in 0..MOST {
        let last = number == MOST - 1;
        let descriptor = Descriptor {
            addr: byte.addr,
            len: 1,
            flags: if last {
                descriptor_flag::WRITE
            } else {
                descriptor_flag::NEXT
            },
            next: number + 1,
        };
        let at = u64::from(number) * u64::from(Descriptor::SIZE);
        memory.write(table.addr + at, &descriptor.to_bytes())?;
    }
    let mut back = 0;
    while !enough.load(Ordering::Relaxed) {
        let ring = client.guest_mut().ring_mut(TX);
        while ring.free_descriptors() > 0 {
            let head = ring.reserve(1)?[0];
            let descriptor = Descriptor {
                addr: table.addr,
                len: table.len,
                flags: descriptor_flag::INDIRECT,
                next: 0,
            };
            ring.write_descriptor(head, descriptor)?;
            ring.publish(head, 1, 1)?;
        }
        ring.kick()?;
        back += ring.pop_all()?.len() as u64;
    }
    Ok(back)
}
