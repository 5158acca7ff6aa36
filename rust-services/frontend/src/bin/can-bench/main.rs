// SPDX-License-Identifier: Apache-2.0
//! The CAN service beside the peer, on one CAN interface: latency, frames a second, what
//! a frame costs, idle CPU.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a measuring tool: it trusts its own numbers"
)]

mod counting;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use frontend::clients::can::{CanClient, OK, frame};
use frontend::{Deadline, Error};

use counting::{Tool, per_frame};
use subject::{Plan, io};

/// Measure a CAN service, and another one beside it, on the same interface
#[derive(Debug, Parser)]
struct Options {
    /// Our service
    #[arg(long, value_name = "PROGRAM")]
    ours: PathBuf,
    /// The peer, vhost-device-can
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// The CAN interface
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Frames that are sent one by one, and ten times as many with several on their way
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    frames: u32,
    /// How long an idle service is watched, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    idle: u64,
    /// Count the instructions and system calls of a frame too, by valgrind and strace
    #[arg(long)]
    count: bool,
}

/// Frames on their way at most.
const IN_FLIGHT: usize = 32;

/// What was measured.
struct Figures {
    median: Duration,
    slow: Duration,
    per_second: f64,
    idle: f64,
    instructions: Option<f64>,
    calls: Option<f64>,
}

fn wrong(answer: u8) -> Error {
    Error::Memory(format!("a frame was answered by {answer}"))
}

fn message() -> Vec<u8> {
    frame(0, 0x123, &[0x55; 8])
}

/// Sends frames, each when the last one has been answered; how long each took, sorted.
fn one_by_one(client: &mut CanClient, frames: u32) -> Result<Vec<Duration>, Error> {
    let message = message();
    let mut times = Vec::new();
    for _ in 0..frames {
        let begin = Instant::now();
        match client.send(&message)? {
            OK => times.push(begin.elapsed()),
            answer => return Err(wrong(answer)),
        }
    }
    times.sort();
    Ok(times)
}

/// Sends frames with several on their way; how many a second.
fn many_at_once(client: &mut CanClient, total: usize) -> Result<f64, Error> {
    let message = message();
    let (mut posted, mut done) = (0, 0);
    let begin = Instant::now();
    while done < total {
        while posted < total && posted - done < IN_FLIGHT {
            client.post(&message)?;
            posted += 1;
        }
        client.kick()?;
        match client.answered(Deadline::patient())?.1 {
            OK => done += 1,
            answer => return Err(wrong(answer)),
        }
    }
    Ok(total as f64 / begin.elapsed().as_secs_f64())
}

fn measure(plan: &Plan, options: &Options) -> Result<Figures, Error> {
    let subject = plan.start()?;
    let mut client = plan.connect()?;
    let times = one_by_one(&mut client, options.frames)?;
    let per_second = many_at_once(&mut client, options.frames as usize * 10)?;
    let before = subject.cpu()?;
    let watched = Duration::from_secs(options.idle);
    std::thread::sleep(watched);
    let used = subject.cpu()?.saturating_sub(before);
    drop((client, subject));
    let count = |tool| options.count.then(|| per_frame(plan, tool)).transpose();
    Ok(Figures {
        median: times[times.len() / 2],
        slow: times[times.len() * 99 / 100],
        per_second,
        idle: used.as_secs_f64() / watched.as_secs_f64() * 100.0,
        instructions: count(Tool::Callgrind)?,
        calls: count(Tool::Strace)?,
    })
}

fn plans(options: &Options, folder: &Path) -> Vec<Plan> {
    let word = |path: &Path| path.display().to_string();
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let (ours, interface) = (folder.join("ours"), options.interface.as_str());
    let mut plans = vec![Plan {
        name: "ours",
        program: options.ours.clone(),
        words: text(&[
            "--bus",
            "none",
            "--log",
            "error",
            "--interface",
            interface,
            "--socket",
            &word(&ours),
        ]),
        opened: &["--no-sandbox"],
        socket: ours,
    }];
    plans.extend(options.peer.clone().map(|program| Plan {
        name: "peer",
        program,
        words: text(&[
            "--socket-path",
            &word(&folder.join("peer")),
            "--can-devices",
            interface,
        ]),
        opened: &[],
        // It numbers its sockets.
        socket: folder.join("peer0"),
    }));
    plans
}

fn run(options: &Options) -> Result<(), Error> {
    let folder = tempfile::tempdir().map_err(io("make a folder"))?;
    let mut rows = Vec::new();
    for plan in plans(options, folder.path()) {
        rows.push((plan.name, measure(&plan, options)?));
    }
    println!(
        "| | one frame, median | 99 % | frames/s, {IN_FLIGHT} on their way | instructions, system calls of a frame | idle CPU |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let counted = |figure: Option<f64>| figure.map_or("–".to_owned(), |of| format!("{of:.1}"));
    for (name, figures) in rows {
        println!(
            "| {name} | {:.0} µs | {:.0} µs | {:.0} | {}, {} | {:.1} % |",
            figures.median.as_secs_f64() * 1e6,
            figures.slow.as_secs_f64() * 1e6,
            figures.per_second,
            counted(figures.instructions),
            counted(figures.calls),
            figures.idle,
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("can-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
