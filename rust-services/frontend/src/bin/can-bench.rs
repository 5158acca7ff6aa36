// SPDX-License-Identifier: Apache-2.0
//! The CAN service beside the peer, on one CAN interface: frames a second, latency, idle CPU.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a measuring tool: it trusts its own numbers"
)]

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use frontend::clients::can::{CanClient, OK, frame};
use frontend::{Deadline, Error};

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
}

/// Frames on their way at most.
const IN_FLIGHT: usize = 32;
/// The most that the peer takes.
const QUEUE_SIZE: u16 = 64;

/// What was measured.
struct Figures {
    median: Duration,
    slow: Duration,
    per_second: f64,
    idle: f64,
}

/// A service that ends with this.
struct Subject(Child);

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Service(format!("cannot {what}: {source}"))
}

fn start(mut command: Command) -> Result<Subject, Error> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Subject(command.spawn().map_err(io("start a service"))?))
}

fn connect(path: &Path) -> Result<CanClient, Error> {
    let deadline = Deadline::patient();
    let mut options = CanClient::options();
    for queue in &mut options.queues {
        queue.size = QUEUE_SIZE;
    }
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return CanClient::start(stream, &options),
            Err(error) if deadline.passed() => return Err(io("connect")(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// CPU time that a process has used.
fn cpu(pid: u32) -> Result<Duration, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(io("read stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // utime and stime, in hundredths of a second, are the 12th and 13th after the name.
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn measure(subject: &Subject, path: &Path, options: &Options) -> Result<Figures, Error> {
    let mut client = connect(path)?;
    let wrong = |answer| Error::Memory(format!("a frame was answered by {answer}"));
    let message = frame(0, 0x123, &[0x55; 8]);
    let mut times = Vec::new();
    for _ in 0..options.frames {
        let begin = Instant::now();
        match client.send(&message)? {
            OK => times.push(begin.elapsed()),
            answer => return Err(wrong(answer)),
        }
    }
    times.sort();
    let total = options.frames as usize * 10;
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
    let per_second = total as f64 / begin.elapsed().as_secs_f64();
    let before = cpu(subject.0.id())?;
    let watched = Duration::from_secs(options.idle);
    std::thread::sleep(watched);
    let used = cpu(subject.0.id())?.saturating_sub(before);
    Ok(Figures {
        median: times[times.len() / 2],
        slow: times[times.len() * 99 / 100],
        per_second,
        idle: used.as_secs_f64() / watched.as_secs_f64() * 100.0,
    })
}

fn run(options: &Options) -> Result<(), Error> {
    let folder = tempfile::tempdir().map_err(io("make a folder"))?;
    let mut rows = Vec::new();
    let path = folder.path().join("ours");
    let mut command = Command::new(&options.ours);
    command.args(["--bus", "none", "--log", "error", "--interface"]);
    command.arg(&options.interface).arg("--socket").arg(&path);
    rows.push(("ours", measure(&start(command)?, &path, options)?));
    if let Some(peer) = &options.peer {
        let path = folder.path().join("peer");
        let mut command = Command::new(peer);
        command.arg("--socket-path").arg(&path);
        command.arg("--can-devices").arg(&options.interface);
        // It numbers its sockets.
        let numbered = folder.path().join("peer0");
        rows.push(("peer", measure(&start(command)?, &numbered, options)?));
    }
    println!("| | one frame, median | 99 % | frames/s, {IN_FLIGHT} on their way | idle CPU |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, figures) in rows {
        println!(
            "| {name} | {:.0} µs | {:.0} µs | {:.0} | {:.1} % |",
            figures.median.as_secs_f64() * 1e6,
            figures.slow.as_secs_f64() * 1e6,
            figures.per_second,
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
