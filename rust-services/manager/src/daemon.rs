// SPDX-License-Identifier: Apache-2.0
//! From the command line to a running manager and back.

use crate::bus::Stage;
use crate::guest::Surroundings;
use crate::registry::{Observer, Registry, autostart};
use crate::supervision::Supervision;
use agl_virtio_service::bus::{Bus, Place};
use agl_virtio_service::cli::BusChoice;
use agl_virtio_service::notify::{Notifier, State};
use agl_virtio_service::sandbox::Sandbox;
use agl_virtio_service::{Exit, ExitReason, explain, logging};
use clap::{Parser, ValueEnum};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  agl-virtiod
  agl-virtiod --guests ./guests.d --runtime /tmp/agl-virtio --bus session

Guests and their devices are processes of their own: they go on when the manager ends, and the next
one finds them again. SIGHUP reads the guests' files again.";

/// Defines, starts and supervises guests
#[derive(Debug, Parser)]
#[command(name = "agl-virtiod", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The folder of the guests' files
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "/etc/agl-virtio/guests.d"
    )]
    guests: PathBuf,

    /// The folder for sockets, logs and notes of what runs
    #[arg(long, value_name = "FOLDER", default_value = "/run/agl-virtio")]
    runtime: PathBuf,

    /// Where the keeper and the services are (default: beside this program)
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,

    /// Which bus: system, session, none, or an address
    #[arg(long, value_name = "BUS", default_value = "system")]
    bus: BusChoice,

    /// Who starts guests and devices: systemd, the manager itself, or systemd where it has started
    /// the manager
    #[arg(long, value_name = "WHO", default_value = "auto")]
    supervisor: Supervisor,

    /// Without systemd: make a control group for each guest in this one (default: its own)
    #[arg(long, value_name = "FOLDER")]
    cgroup: Option<PathBuf>,

    /// Read the guests' files, say what is wrong with them, and stop
    #[arg(long)]
    check: bool,

    /// Say this much: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    log: log::LevelFilter,
}

/// Who starts guests and devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Supervisor {
    Auto,
    Systemd,
    Own,
}

/// Why the manager ends.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error("{what}: {source}")]
    Os { what: String, source: io::Error },
    #[error("another manager works in {0}: stop that one, or choose another --runtime")]
    Busy(PathBuf),
    #[error("{0}")]
    Files(String),
    #[error("an object's path: {0}")]
    Path(#[from] zbus::zvariant::Error),
}

impl ExitReason for DaemonError {
    fn exit(&self) -> Exit {
        match self {
            Self::Os { source, .. } => source.exit(),
            Self::Busy(_) => Exit::Unavailable,
            Self::Files(_) => Exit::Config,
            Self::Path(_) => Exit::Software,
        }
    }
}

fn os(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> DaemonError {
    let what = what.to_string();
    move |source| DaemonError::Os { what, source }
}

/// Runs the manager with the process's command line.
#[must_use]
pub fn run() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return agl_virtio_service::cli::exit_of(&error).into();
        }
    };
    logging::start("agl-virtiod", options.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(os("no runtime"))
        .and_then(|runtime| runtime.block_on(serve(&options)));
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            eprintln!("{}", explain(&error));
            error.exit().into()
        }
    }
}

fn surroundings(options: &Options) -> Result<Surroundings, DaemonError> {
    let programs = match &options.programs {
        Some(programs) => programs.clone(),
        None => {
            let own = std::env::current_exe().map_err(os("where this program is"))?;
            own.parent().unwrap_or(Path::new("/usr/bin")).to_owned()
        }
    };
    let absolute = |path: &Path| std::path::absolute(path).map_err(os(path.display()));
    Ok(Surroundings {
        runtime: absolute(&options.runtime)?,
        programs: absolute(&programs)?,
        bus: options.bus.to_string(),
        supervision: match options.supervisor {
            Supervisor::Auto if crate::systemd::runs_us() => Supervision::systemd(),
            Supervisor::Auto | Supervisor::Own => Supervision::own(options.cgroup.as_deref()),
            Supervisor::Systemd => Supervision::systemd(),
        },
    })
}

async fn serve(options: &Options) -> Result<(), DaemonError> {
    let surroundings = surroundings(options)?;
    let guests = std::path::absolute(&options.guests).map_err(os("--guests"))?;
    if options.check {
        return check(guests, surroundings).await;
    }
    let _lock = lock(&surroundings.runtime)?;
    let notifier = Notifier::from_environment().map_err(os("NOTIFY_SOCKET"))?;
    let bus =
        Bus::start_held(&options.bus, Place::manager(), Sandbox::off()).map_err(os("--bus"))?;
    let cell = Arc::new(OnceLock::new());
    let stage = Arc::new(Stage::new(bus.clone(), Arc::clone(&cell))?);
    let shown = Arc::clone(&stage);
    let observer: Observer = Arc::new(move |name, old, new| shown.show(name, old, new));
    let registry = Arc::new(Registry::new(guests, surroundings, observer));
    // It is the only one.
    let _ = cell.set(Arc::clone(&registry));
    // A manager with wrong files still looks after what runs.
    reload(&registry, &stage).await;
    // Who sees the name finds the guests.
    bus.release();
    crate::mixing::start(&options.bus, &registry);
    notifier.send(&State::Ready);
    let starting = Arc::clone(&registry);
    tokio::spawn(async move { autostart(&starting).await });
    supervise(&registry, &stage, &notifier).await
}

async fn check(guests: PathBuf, surroundings: Surroundings) -> Result<(), DaemonError> {
    let faults = crate::registry::check(guests, surroundings).await;
    if faults.is_empty() {
        println!("the guests' files are in order");
        return Ok(());
    }
    Err(DaemonError::Files(faults.join("\n\n")))
}

async fn reload(registry: &Registry, stage: &Stage) {
    if let Err(error) = registry.reload().await {
        log::error!("{error}");
    }
    stage.manager_changed();
}

async fn supervise(
    registry: &Registry,
    stage: &Stage,
    notifier: &Notifier,
) -> Result<(), DaemonError> {
    let mut end = signal(SignalKind::terminate()).map_err(os("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(os("SIGINT"))?;
    let mut again = signal(SignalKind::hangup()).map_err(os("SIGHUP"))?;
    let interval = notifier.keep_alive_interval();
    loop {
        let next = Instant::now()
            .checked_add(interval.unwrap_or(Duration::from_secs(3600)))
            .unwrap_or_else(Instant::now);
        tokio::select! {
            _ = end.recv() => break,
            _ = interrupt.recv() => break,
            _ = again.recv() => {
                notifier.send(&State::Reloading);
                reload(registry, stage).await;
                notifier.send(&State::Ready);
            }
            () = tokio::time::sleep_until(next.into()) => notifier.send(&State::Watchdog),
        }
    }
    notifier.send(&State::Stopping);
    log::info!("ends in order; guests and devices go on");
    Ok(())
}

/// One manager for each runtime folder.
fn lock(runtime: &Path) -> Result<File, DaemonError> {
    std::fs::create_dir_all(runtime).map_err(os(runtime.display()))?;
    let path = runtime.join("manager.lock");
    let file = File::create(&path).map_err(os(path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Busy(runtime.to_owned())),
        Err(error) => Err(os(path.display())(error.into())),
    }
}
