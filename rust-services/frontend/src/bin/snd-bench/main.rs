// SPDX-License-Identifier: Apache-2.0
//! Measures a sound service beside its peer, both through the same driver in one run, and prints
//! the rows of the performance criteria as a table with ratios.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "a measuring tool: it trusts its own numbers, and a panic here is a failed measurement"
)]

mod callgrind;
mod distribution;
mod floor;
mod footprint;
mod life;
mod load;
mod paced;
mod pinning;
mod round_trip;
mod subject;
mod syscalls;
mod table;
mod watchdog;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use frontend::Result;

use load::Load;
use pinning::{Driver, Pinning};
use subject::{QUIETER, Subject, UNITY};
use table::{Aim, Row, Table};
use workload::Workload;

/// Bytes of the playback buffers: 10 ms of stereo, 16 bits, 48 kHz.
const PERIOD: u32 = 1920;
/// Frames of those.
const FRAMES: u64 = 480;
/// How long a paced stretch of playback is listened to, unless more is asked for.
const LISTEN: Duration = Duration::from_secs(20);
/// How often the service is killed.
const KILLS: usize = 51;

/// Measure a sound service beside its peer.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
struct Options {
    /// Our service's program
    #[arg(long, value_name = "PROGRAM", required = true)]
    ours: Option<PathBuf>,

    /// An argument of our service after `--socket PATH`, again for each; in place of a
    /// configuration with the unpaced null back end
    #[arg(long = "ours-arg", value_name = "ARG", allow_hyphen_values = true)]
    ours_args: Vec<String>,

    /// The peer's program (vhost-device-sound); without it there are no ratios
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,

    /// The keeper's program: measures the memory of a service below it as well
    #[arg(long, value_name = "PROGRAM")]
    keeper: Option<PathBuf>,

    /// Round-trip runs of which the median is taken, an odd number
    #[arg(long, default_value_t = 7)]
    runs: usize,

    /// Round trips in each run
    #[arg(long, default_value_t = 20_000)]
    trips: u64,

    /// The CPU that both sides of a round trip are pinned to
    #[arg(long, default_value_t = 1)]
    cpu: usize,

    /// Play for so many seconds under load and measure nothing else
    #[arg(long, value_name = "SECONDS")]
    endurance: Option<u64>,

    /// Write the table here too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Write the figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(subcommand)]
    pong: Option<Internal>,
}

#[derive(Debug, Subcommand)]
enum Internal {
    /// The other side of the eventfd ping-pong (started by the benchmark itself)
    #[command(hide = true)]
    Pong { socket: PathBuf },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match (&options.pong, &options.ours) {
        (Some(Internal::Pong { socket }), _) => floor::pong(socket),
        (None, Some(ours)) => measure(&options, ours),
        (None, None) => return ExitCode::from(64),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snd-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options, program: &Path) -> Result<()> {
    if let Some(seconds) = options.endurance {
        return endure(options, program, Duration::from_secs(seconds));
    }
    let ours = Subject::ours(program, &options.ours_args, UNITY)?;
    let peer = options.peer.as_deref().map(Subject::peer).transpose()?;
    let both: Vec<&Subject> = std::iter::once(&ours).chain(&peer).collect();
    let mut table = Table::default();
    // First what is measured unpinned: services inherit how this thread runs.
    footprints(options, &both, &mut table)?;
    if options.ours_args.is_empty() {
        lives(options, program, &mut table)?;
        listen(program, &ours, &mut table)?;
    }
    counts(options, &both, &mut table)?;
    if options.ours_args.is_empty() {
        gain(options, program, &ours, &mut table)?;
    }
    round_trips(options, &both, &mut table)?;
    table.write(options.markdown.as_deref(), options.json.as_deref())
}

/// What a service costs before it does anything.
fn footprints(options: &Options, both: &[&Subject], table: &mut Table) -> Result<()> {
    eprintln!("memory and start …");
    let memory = Aim::at_most(8192.0, 4096.0);
    let mut row = Row::new("private resident memory, idle", "KiB", memory);
    let mut written = Row::new(
        "written of it: what one more service of this kind takes",
        "KiB",
        Aim::None,
    );
    for subject in both {
        let idle = footprint::idle(subject, None)?;
        row.set(subject.name(), idle.private);
        written.set(subject.name(), idle.written);
    }
    table.push(row);
    table.push(written);
    if let (Some(keeper), Some(ours)) = (&options.keeper, both.first()) {
        let mut row = Row::new("the same, service and keeper together", "KiB", memory);
        row.set(ours.name(), footprint::idle(ours, Some(keeper))?.private);
        table.push(row);
    }
    let start = Aim::at_most(300.0, 50.0);
    let mut row = Row::new("service exec → first period accepted", "ms", start);
    for (name, figure) in footprint::first_period_ms(both, options.runs)? {
        row.set(name, figure);
    }
    table.push(row);
    Ok(())
}

/// How soon the service is back after its death, and others are ducked.
fn lives(options: &Options, program: &Path, table: &mut Table) -> Result<()> {
    if let Some(keeper) = &options.keeper {
        eprintln!("kills …");
        let times = life::back_after_kills_ms(&Subject::paced(program)?, keeper, KILLS)?;
        for (name, at) in [("median", KILLS / 2), ("worst", KILLS - 1)] {
            let name = format!("service killed → serving again, {name} of {KILLS}");
            let mut row = Row::new(name, "ms", Aim::at_most(500.0, 100.0));
            row.set("ours", times[at]);
            table.push(row);
        }
    }
    eprintln!("ducking …");
    let mut times = (0..options.runs)
        .map(|_| life::ducked_after_ms(&Subject::paced(program)?))
        .collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    let name = "emergency stream starts → others ducked, ramp included";
    let mut row = Row::new(name, "ms", Aim::at_most(50.0, 10.0));
    row.set("ours", times[times.len() / 2]);
    table.push(row);
    Ok(())
}

/// How late buffers come back in playback at the sound's own pace, alone and beside a busy guest.
fn listen(program: &Path, busy: &Subject, table: &mut Table) -> Result<()> {
    for (name, loaded) in [
        ("playback, buffer late", false),
        ("the same beside a second guest under load", true),
    ] {
        eprintln!("{name} …");
        let load = loaded.then(|| Load::start(busy)).transpose()?;
        let subject = Subject::paced(program)?;
        let heard = paced::play(&subject.launch().start()?, LISTEN)
            .map_err(|error| subject.blame(&error))?;
        drop(load);
        push_heard(name, &heard, table);
    }
    table.note(format!(
        "Lateness is how much later than the sound's own pace a buffer of 10 ms comes back, with 16 in \
         flight, over {} s; driver and service in real time, not pinned. The load is a \
         second guest that sends its own service playback buffers as fast as it can, and a thread per \
         CPU that copies memory.",
        LISTEN.as_secs()
    ));
    Ok(())
}

fn push_heard(name: &str, heard: &paced::Heard, table: &mut Table) {
    table.push_lateness(name, &heard.lateness);
    let name = format!("{name}: under-runs in {} buffers", heard.periods);
    let mut row = Row::new(name, "", Aim::at_most(0.0, 0.0));
    row.set("ours", heard.under_runs as f64);
    table.push(row);
}

/// Plays for long under load.
fn endure(options: &Options, program: &Path, duration: Duration) -> Result<()> {
    let busy = Subject::ours(program, &[], UNITY)?;
    let subject = Subject::paced(program)?;
    let load = Load::start(&busy)?;
    let heard =
        paced::play(&subject.launch().start()?, duration).map_err(|error| subject.blame(&error))?;
    drop(load);
    let mut table = Table::default();
    let name = format!("{} s of playback under load", duration.as_secs());
    push_heard(&name, &heard, &mut table);
    table.write(options.markdown.as_deref(), options.json.as_deref())
}

/// What one message costs, in instructions and system calls.
fn counts(options: &Options, both: &[&Subject], table: &mut Table) -> Result<()> {
    let pinning = Pinning::take(options.cpu, Driver::Yields)?;
    if !pinning.is_real_time() {
        table.note(
            "SCHED_FIFO is not allowed here: instructions and system calls vary between runs."
                .into(),
        );
    }
    let (info, one) = (Workload::PcmInfo, Workload::Playback { in_flight: 1 });
    let eight = Workload::Playback { in_flight: 8 };
    for (name, workload) in [
        ("PCM_INFO, instructions", info),
        ("1,920-byte playback buffer, instructions", one),
        ("the same with 8 in flight, instructions", eight),
    ] {
        let mut row = Row::new(name, "", Aim::HALF_OF_PEER);
        for subject in both {
            eprintln!("{}: {name} (callgrind) …", subject.name());
            let figure = callgrind::per_message(subject, workload, &pinning)?;
            row.set(subject.name(), figure);
        }
        table.push(row);
    }
    for (name, workload) in [
        ("PCM_INFO, system calls, one in flight", info),
        ("playback buffer, system calls, one in flight", one),
    ] {
        let mut row = Row::new(name, "", Aim::at_most(3.0, 2.0));
        for subject in both {
            eprintln!("{}: {name} (strace) …", subject.name());
            let figure = syscalls::per_message(subject, workload, &pinning)?;
            row.set(subject.name(), figure);
        }
        table.push(row);
    }
    table.note(
        "Instructions by callgrind and system calls by strace are differences of two runs of \
         different length, all threads and processes of a service together; every message wakes \
         the service."
            .into(),
    );
    Ok(())
}

/// What a volume other than unity costs: a row of its own, for the peer has none.
fn gain(options: &Options, program: &Path, unity: &Subject, table: &mut Table) -> Result<()> {
    let pinning = Pinning::take(options.cpu, Driver::Yields)?;
    let quieter = Subject::ours(program, &[], QUIETER)?;
    let workload = Workload::Playback { in_flight: 1 };
    eprintln!("ours: volume (callgrind) …");
    let more = callgrind::per_message(&quieter, workload, &pinning)?
        - callgrind::per_message(unity, workload, &pinning)?;
    let mut row = Row::new(
        "volume below unity, instructions per sample more",
        "",
        Aim::None,
    );
    row.set(unity.name(), more / f64::from(PERIOD / 2));
    table.push(row);
    Ok(())
}

/// How long a message takes there and back, beside the floor: ours and the peer by turns, so that
/// whatever else the machine does meets both.
fn round_trips(options: &Options, both: &[&Subject], table: &mut Table) -> Result<()> {
    let pinning = Pinning::take(options.cpu, Driver::TakesTurns)?;
    eprintln!("round trips {pinning} …");
    let (runs, trips) = (options.runs, options.trips);
    let floor = floor::measure(&pinning, runs, trips)?;
    table.push_distribution("eventfd ping-pong (the floor)", &[("floor", floor)], None);
    for (name, workload) in [
        ("PCM_INFO round trip", Workload::PcmInfo),
        (
            "1,920-byte playback buffer round trip",
            Workload::Playback { in_flight: 1 },
        ),
    ] {
        let measured = round_trip::measure(both, workload, &pinning, runs, trips)?;
        table.push_distribution(name, &measured, Some(floor.p50));
    }
    table.note(format!(
        "Round trips {pinning}; medians of {runs} runs of {trips} trips, the runs of both sides \
         by turns."
    ));
    Ok(())
}
