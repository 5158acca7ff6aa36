// SPDX-License-Identifier: Apache-2.0

//! What a guest notices of its neighbours: it asks at an even pace what a running Linux asks, and
//! listens to a sensor, while another guest of the same platform sends without end and threads keep
//! the processors busy.
//!
//! `cargo run --example neighbours -- SOCKET SECONDS PACE THREADS [NEIGHBOUR COMMAND [then
//! COMMAND]…]`: a message each PACE µs for SECONDS, beside THREADS that copy memory, and a guest at
//! NEIGHBOUR that keeps 1,024 messages in flight, the commands by turns; each is `PROTOCOL MESSAGE
//! [WORD…]` in hexadecimal. The platform needs a level of performance 1 and 2, a clock 0, and a first
//! sensor that reports each 20 ms. Prints in words of one line what [`Seen`] has.

use std::error::Error;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::scmi::{COMMANDS, MESSAGE_SIZE, Prepared, ScmiClient, header};
use frontend::ring::{Indirect, RingOptions};

/// How often the sensor reports.
const REPORT: Duration = Duration::from_millis(20);
/// What Linux asks all the time: cpufreq, the clock framework, hwmon.
const WORK: [&[u32]; 6] = [
    &[0x13, 7, 0, 1],
    &[0x14, 7, 0, 1, 0],
    &[0x15, 6, 0, 0],
    &[0x13, 7, 0, 2],
    &[0x13, 8, 0],
    &[0x14, 7, 0, 0, 0],
];
/// Messages that the neighbour has in flight: what Linux has at most.
const FLOOD: u16 = 1024;
/// Larger than any cache.
const MEMORY: usize = 64 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What was seen, in nanoseconds and numbers.
struct Seen {
    /// From kick to answer: the middle, 99 and 99.9 of a hundred, and the longest.
    answered: [u64; 4],
    messages: usize,
    /// Messages that were not answered with success.
    refused: usize,
    /// How much longer than [`REPORT`] it took from one report of the sensor to the next.
    reported: [u64; 4],
    reports: usize,
    /// Reports that were not made, or dropped.
    lost: usize,
    /// What the neighbour got answered in a second, and how much of it was refused.
    neighbour: usize,
    neighbour_refused: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for time in self.answered {
            write!(f, "{time} ")?;
        }
        write!(f, "{} {} ", self.messages, self.refused)?;
        for time in self.reported {
            write!(f, "{time} ")?;
        }
        write!(f, "{} {} ", self.reports, self.lost)?;
        write!(f, "{} {}", self.neighbour, self.neighbour_refused)
    }
}

fn percentiles(mut times: Vec<u64>) -> [u64; 4] {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    [500, 990, 999, 1000].map(|permille| {
        let place = last.saturating_mul(permille) / 1000;
        times.get(place).copied().unwrap_or(0)
    })
}

fn bytes(words: &[u32]) -> Result<Vec<u8>> {
    let [protocol, message, parameters @ ..] = words else {
        return Err("a command is PROTOCOL MESSAGE [WORD…]".into());
    };
    let head = header(u8::try_from(*protocol)?, u8::try_from(*message)?, 1);
    let words = std::iter::once(&head).chain(parameters);
    Ok(words.flat_map(|word| word.to_le_bytes()).collect())
}

/// The guest that is looked at.
struct Measured {
    client: ScmiClient,
    answered: Vec<u64>,
    refused: usize,
    stamps: Vec<u64>,
}

impl Measured {
    fn start(socket: &str) -> Result<Self> {
        let mut client = ScmiClient::start(UnixStream::connect(socket)?, &ScmiClient::options())?;
        for (protocol, message, words) in [
            // It hears of what its neighbour does with the clock and the levels, too.
            (0x13, 0xa, &[0, 1][..]),
            (0x14, 9, &[0, 1]),
            (0x15, 0xb, &[0, 1]),
        ] {
            let reply = client.command(protocol, message, words)?;
            if reply.status != 0 {
                return Err(format!("{protocol:#x} {message:#x}: {}", reply.status).into());
            }
        }
        Ok(Self {
            client,
            answered: Vec::new(),
            refused: 0,
            stamps: Vec::new(),
        })
    }

    fn run(&mut self, duration: Duration, pace: Duration) -> Result<()> {
        let prepared: Result<Vec<Prepared>> = WORK
            .iter()
            .map(|words| Ok(self.client.prepare(&bytes(words)?, MESSAGE_SIZE)?))
            .collect();
        let prepared = prepared?;
        let begin = Instant::now();
        let mut due = begin;
        for message in prepared.iter().cycle() {
            let asked = Instant::now();
            if asked.saturating_duration_since(begin) >= duration {
                return Ok(());
            }
            self.client.repeat(message)?;
            self.answered
                .push(u64::try_from(asked.elapsed().as_nanos())?);
            if self.client.status(message)? != 0 {
                self.refused = self.refused.saturating_add(1);
            }
            self.hear()?;
            due = due.checked_add(pace).ok_or("too long")?;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Takes the events that are there. Of the sensor's, the time is kept.
    fn hear(&mut self) -> Result<()> {
        while let Ok(event) = self.client.event(Deadline::after(Duration::ZERO)) {
            if event.header & 0x3fcff == 0x15 << 10 | 1 {
                let nanos = u64::from(event.word(4)) | u64::from(event.word(5)) << 32;
                self.stamps.push(nanos);
            }
        }
        Ok(())
    }

    fn seen(self, neighbour: (usize, usize)) -> Result<Seen> {
        let step = u64::try_from(REPORT.as_nanos())?;
        let times = self.stamps.iter().zip(self.stamps.iter().skip(1));
        let between: Vec<u64> = times.map(|(one, next)| next.saturating_sub(*one)).collect();
        let missed = |time: &u64| {
            let whole = time.saturating_add(step / 2).checked_div(step);
            whole.unwrap_or(0).saturating_sub(1)
        };
        let lost: u64 = between.iter().map(missed).sum();
        let late = between.iter().map(|time| time.saturating_sub(step));
        Ok(Seen {
            messages: self.answered.len(),
            answered: percentiles(self.answered),
            refused: self.refused,
            reported: percentiles(late.collect()),
            reports: self.stamps.len(),
            lost: usize::try_from(lost)?,
            neighbour: neighbour.0,
            neighbour_refused: neighbour.1,
        })
    }
}

/// Sends the commands by turns until it is to stop: messages, and how many of them were refused.
fn flood(socket: &str, commands: &[Vec<u8>], stop: &AtomicBool) -> Result<(usize, usize)> {
    let mut options = ScmiClient::options();
    options.queues = vec![
        RingOptions {
            size: FLOOD,
            indirect: Indirect::Always,
            ..RingOptions::default()
        };
        2
    ];
    let mut client = ScmiClient::start(UnixStream::connect(socket)?, &options)?;
    let mut messages = std::collections::HashMap::new();
    for command in commands.iter().cycle().take(FLOOD.into()) {
        let message = client.prepare(command, MESSAGE_SIZE)?;
        messages.insert(client.post(&message)?, message);
    }
    let (mut answered, mut refused) = (0_usize, 0_usize);
    client.guest_mut().ring_mut(COMMANDS).kick()?;
    while !stop.load(Ordering::Relaxed) {
        let done = client
            .guest_mut()
            .ring_mut(COMMANDS)
            .wait(Deadline::patient())?;
        let mut done = Some(done);
        while let Some(one) = done {
            let message = messages.remove(&one.chain).ok_or("an unknown chain")?;
            answered = answered.saturating_add(1);
            if client.status(&message)? != 0 {
                refused = refused.saturating_add(1);
            }
            messages.insert(client.post(&message)?, message);
            done = client.guest_mut().ring_mut(COMMANDS).pop()?;
        }
        client.guest_mut().ring_mut(COMMANDS).kick()?;
        while client.event(Deadline::after(Duration::ZERO)).is_ok() {}
    }
    Ok((answered, refused))
}

/// Below everything else, as what may wait is in a car. Others of the machine go on, too.
fn copy_memory(stop: &AtomicBool) {
    if rustix::process::setpriority_process(None, 19).is_err() {
        eprintln!("the threads that copy memory are as urgent as the guests");
    }
    let mut memory = vec![1_u8; MEMORY];
    while !stop.load(Ordering::Relaxed) {
        let (one, other) = memory.split_at_mut(MEMORY / 2);
        other.copy_from_slice(one);
        std::hint::black_box(&mut *other);
    }
}

fn main() -> Result<()> {
    let usage = "usage: neighbours SOCKET SECONDS PACE THREADS [NEIGHBOUR COMMAND [then COMMAND]…]";
    let mut words = std::env::args().skip(1);
    let socket = words.next().ok_or(usage)?;
    let seconds: u64 = words.next().ok_or(usage)?.parse()?;
    let pace = Duration::from_micros(words.next().ok_or(usage)?.parse()?);
    let threads: usize = words.next().ok_or(usage)?.parse()?;
    let neighbour = words.next();
    let words: Vec<String> = words.collect();
    let commands: Result<Vec<Vec<u8>>> = words
        .split(|word| word == "then")
        .map(|words| {
            let words = words.iter().map(|word| u32::from_str_radix(word, 16));
            bytes(&words.collect::<std::result::Result<Vec<_>, _>>()?)
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let mut measured = Measured::start(&socket)?;
    let busy: Vec<JoinHandle<()>> = (0..threads)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || copy_memory(&stop))
        })
        .collect();
    let flooding = neighbour
        .map(|neighbour| -> Result<_> {
            let (commands, stop) = (commands?, Arc::clone(&stop));
            Ok(std::thread::spawn(move || {
                flood(&neighbour, &commands, &stop)
            }))
        })
        .transpose()?;
    let duration = Duration::from_secs(seconds);
    let result = measured.run(duration, pace);
    stop.store(true, Ordering::Relaxed);
    for thread in busy {
        let _ = thread.join();
    }
    let (sent, refused) = match flooding.map(JoinHandle::join) {
        Some(Ok(sent)) => sent?,
        Some(Err(_)) => return Err("the neighbour has panicked".into()),
        None => (0, 0),
    };
    result?;
    let each = sent.checked_div(usize::try_from(seconds)?).unwrap_or(0);
    println!("{}", measured.seen((each, refused))?);
    Ok(())
}
