// SPDX-License-Identifier: Apache-2.0

//! Nothing is lost on a bus that is never idle: two guests and a program of the host send as fast
//! as the bus takes it, each hears all the others, and every frame is numbered and looked at.
//!
//! A bus is no fair place: who has the highest identifier waits for ever while others send. So a
//! station waits for those whose frames it has not heard when it is too far ahead of them. That
//! leaves the bus no gap, for the slowest always sends, and no frame is lost for want of a reader,
//! however slow the machine is.
//!
//! `AGL_CAN_SECONDS` asks for a bus that is busy for so long, and `--nocapture` for a row about it;
//! `make bench` has a minute of it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod support;

use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use agl_virtio_can::frame::{Frame, Id, Kind};
use agl_virtio_can::timing::{Rates, frame_time};
use frontend::Deadline;
use frontend::clients::can::{CanClient, FD, OK, frame};
use frontend::message_bus::{MessageBus, Policy};
use support::{Program, call, client, launch_on, raw, write_config};

const RATES: Rates = Rates {
    nominal: 1_000_000,
    data: 8_000_000,
};
/// Guest, second guest, program of the host.
const STATIONS: usize = 3;
/// Frames that a guest has on their way.
const IN_FLIGHT: u32 = 100;
/// A station has sent so many frames more than it has heard of any other one at most. So of each of
/// the two others twice as many wait for a reader at most, and 4,096 are kept.
const AHEAD: u32 = 1000;
/// How long the bus is busy in CI.
const SHORT: Duration = Duration::from_millis(300);

/// What is sent.
#[derive(Clone, Copy)]
struct Traffic {
    flags: u32,
    size: usize,
}

impl Traffic {
    /// A station's frame of this number: its identifier, whose lowest bits are the station's and
    /// whose others are anything; and its data.
    fn numbered(self, station: usize, number: u32) -> (u32, Vec<u8>) {
        let mixed = |word: u32| (number ^ word << 24).wrapping_mul(0x9e37_79b9);
        let words = (0..16).flat_map(|word| mixed(word).to_le_bytes());
        let mut data: Vec<u8> = number.to_le_bytes().into_iter().chain(words).collect();
        data.truncate(self.size);
        (mixed(0) >> 23 << 2 | station as u32, data)
    }

    fn time(self, station: usize, number: u32) -> Duration {
        let (id, data) = self.numbered(station, number);
        let fd = self.flags & FD != 0;
        let kind = if fd { Kind::Fd } else { Kind::Data };
        let frame = Frame::new(Id::new(id, false).unwrap(), kind, &data).unwrap();
        frame_time(&frame, RATES)
    }

    /// How many frames each station sends, and how long all of them are on the bus.
    fn amount(self, least: Duration) -> (u32, Duration) {
        let (mut each, mut time) = (0, Duration::ZERO);
        while time < least {
            time += (0..STATIONS)
                .map(|station| self.time(station, each))
                .sum::<Duration>();
            each += 1;
        }
        (each, time)
    }
}

/// What a station has heard of the others: everything, in each one's order.
struct Ear {
    traffic: Traffic,
    station: usize,
    next: [u32; STATIONS],
    each: u32,
    missing: u32,
}

impl Ear {
    fn new(traffic: Traffic, station: usize, each: u32) -> Self {
        Self {
            traffic,
            station,
            next: [0; STATIONS],
            each,
            missing: each * (STATIONS as u32 - 1),
        }
    }

    /// How many frames its station may have sent by now.
    fn allows(&self) -> u32 {
        let others = (0..STATIONS).filter(|of| *of != self.station);
        let slowest = others.map(|of| self.next[of]).min().unwrap();
        slowest.saturating_add(AHEAD).min(self.each)
    }

    fn hears(&mut self, id: u32, data: &[u8]) {
        let from = (id & 0b11) as usize;
        let expected = self.traffic.numbered(from, self.next[from]);
        assert_eq!((id, data), (expected.0, expected.1.as_slice()));
        self.next[from] += 1;
        self.missing -= 1;
        assert!(self.next[from] <= self.each);
    }
}

/// A guest sends all of its frames as fast as the bus takes them, and hears all of the others'.
fn guest(client: &mut CanClient, station: usize, traffic: Traffic, each: u32) {
    let mut ear = Ear::new(traffic, station, each);
    let (mut posted, mut passed) = (0, 0);
    while passed < each || ear.missing > 0 {
        while posted < ear.allows() && posted - passed < IN_FLIGHT {
            let (id, data) = traffic.numbered(station, posted);
            client.post(&frame(traffic.flags, id, &data)).unwrap();
            posted += 1;
        }
        client.kick().unwrap();
        let mut heard = None;
        if passed < posted {
            // The others end before it does: it passes.
            let mut answer = Some(client.answered(Deadline::patient()).unwrap());
            while let Some((_, said)) = answer {
                assert_eq!(said, OK);
                passed += 1;
                answer = client.answered_already().unwrap();
            }
        } else {
            heard = Some(client.hear(Deadline::patient()).unwrap());
        }
        while let Some(frame) = heard.take().or_else(|| client.heard_already().unwrap()) {
            assert_eq!(frame.flags, traffic.flags);
            ear.hears(frame.id, &frame.data);
        }
    }
}

/// A program of the host does the same; it has a thread for what it sends.
fn host(program: &Program, station: usize, traffic: Traffic, each: u32) {
    let (allowed, changed) = (Mutex::new(AHEAD.min(each)), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..each {
                let guard = allowed.lock().unwrap();
                drop(changed.wait_while(guard, |most| *most <= number).unwrap());
                let (id, data) = traffic.numbered(station, number);
                let size = if traffic.flags & FD != 0 { 72 } else { 16 };
                program.send(&raw(id, &data, size));
            }
        });
        let mut ear = Ear::new(traffic, station, each);
        while ear.missing > 0 {
            let raw = program.hear();
            let id = u32::from_ne_bytes(raw[..4].try_into().unwrap());
            ear.hears(id, &raw[8..8 + traffic.size]);
            *allowed.lock().unwrap() = ear.allows();
            changed.notify_one();
        }
    });
}

fn nothing_is_lost(what: &str, traffic: Traffic) {
    let asked = std::env::var("AGL_CAN_SECONDS").ok();
    let least = asked.map_or(SHORT, |text| Duration::from_secs(text.parse().unwrap()));
    let (each, busy) = traffic.amount(least);
    let folder = tempfile::tempdir().unwrap();
    let message_bus = MessageBus::start(folder.path(), &Policy::Open).unwrap();
    let address = message_bus.address();
    let directory = tempfile::tempdir().unwrap();
    let second = directory.path().join("second");
    let controllers = format!(
        "name = \"guest\"\n[[devices.can.controllers]]\nname = \"second\"\nsocket = \"{}\"",
        second.display()
    );
    let rates = format!("data_bitrate = {}", RATES.data);
    let config = write_config(directory.path(), &rates, &controllers);
    let service = launch_on(directory.path(), &address)
        .args(["--config".into(), config])
        .start()
        .unwrap();
    let mut first = client(&service);
    let stream = UnixStream::connect(second).unwrap();
    let mut second = CanClient::start(stream, &CanClient::options()).unwrap();
    let program = Program::join(directory.path());

    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| guest(&mut first, 0, traffic, each));
        scope.spawn(|| guest(&mut second, 1, traffic, each));
        host(&program, 2, traffic, each);
    });
    let took = began.elapsed();

    for name in ["guest", "second"] {
        let counted = call(&address, "Statistics", &["s", name]).replace('\n', " ");
        let expected = [
            ("sent", each),
            ("received", each * 2),
            ("unsent", 0),
            ("lost", 0),
        ];
        for (counter, value) in expected {
            let entry = format!("\"{counter}\" {value} ");
            assert!(counted.contains(&entry), "{entry}: {counted}");
        }
    }
    // No bus is faster than its bits.
    assert!(took >= busy, "{took:?} for {busy:?} of bits");
    println!(
        "| {what} | {:.1} s | {} | {:.0} | {:.2} % | 0 |",
        took.as_secs_f64(),
        each * STATIONS as u32,
        f64::from(each * STATIONS as u32) / took.as_secs_f64(),
        busy.as_secs_f64() / took.as_secs_f64() * 100.0
    );
}

#[test]
fn no_frame_is_lost_at_the_full_rate_of_a_classic_bus() {
    let traffic = Traffic { flags: 0, size: 8 };
    nothing_is_lost("classic, 8 bytes, 1 Mbit/s", traffic);
}

#[test]
fn no_frame_is_lost_at_the_full_rate_of_an_fd_bus() {
    let traffic = Traffic {
        flags: FD,
        size: 64,
    };
    nothing_is_lost("FD, 64 bytes, 1 and 8 Mbit/s", traffic);
}
