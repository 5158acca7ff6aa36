// SPDX-License-Identifier: Apache-2.0
//! From the command line to a running manager and back.

use crate::bus::Stage;
use crate::guest::Surroundings;
use crate::registry::{Observer, Registry, RegistryError, autostart};
use crate::supervision::Supervision;
use agl_virtio_service::bus::{Bus, Place};
use agl_virtio_service::cli::BusChoice;
use agl_virtio_service::notify::{Notifier, State};
use agl_virtio_service::sandbox::Sandbox;
use agl_virtio_service::{Exit, ExitReason, explain, logging};
use clap::{Parser, ValueEnum};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
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
    #[error(
        "{0} is not the manager's alone, and says what is started: see who made it, then remove it, or chown it to the manager's user and chmod go-w it"
    )]
    Foreign(PathBuf),
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
            Self::Foreign(_) => Exit::NoPermission,
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
    notes(&surroundings.runtime, &surroundings.guests())?;
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
    said(registry.begin().await);
    stage.manager_changed();
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

fn said(result: Result<(), RegistryError>) {
    if let Err(error) = result {
        log::error!("{error}");
    }
}

async fn supervise(
    registry: &Arc<Registry>,
    stage: &Arc<Stage>,
    notifier: &Notifier,
) -> Result<(), DaemonError> {
    let mut end = signal(SignalKind::terminate()).map_err(os("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(os("SIGINT"))?;
    let mut again = signal(SignalKind::hangup()).map_err(os("SIGHUP"))?;
    let interval = notifier.keep_alive_interval();
    // Services judge the files, and each may take longer than systemd waits for a sign of life.
    let (done, mut reloaded) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        let next = Instant::now()
            .checked_add(interval.unwrap_or(Duration::from_secs(3600)))
            .unwrap_or_else(Instant::now);
        tokio::select! {
            _ = end.recv() => break,
            _ = interrupt.recv() => break,
            _ = again.recv() => {
                notifier.send(&State::Reloading);
                let (registry, stage) = (Arc::clone(registry), Arc::clone(stage));
                let done = done.clone();
                tokio::spawn(async move {
                    said(registry.reload().await);
                    stage.manager_changed();
                    let _ = done.send(()).await;
                });
            }
            _ = reloaded.recv() => notifier.send(&State::Ready),
            () = tokio::time::sleep_until(next.into()) => notifier.send(&State::Watchdog),
        }
    }
    notifier.send(&State::Stopping);
    log::info!("ends in order; guests and devices go on");
    Ok(())
}

/// One manager for each runtime folder, which nobody else prepares for it.
fn lock(runtime: &Path) -> Result<File, DaemonError> {
    std::fs::create_dir_all(runtime).map_err(os(runtime.display()))?;
    let path = runtime.join("manager.lock");
    // Device services may write to the folder: a link of theirs leads nowhere.
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = open(&path, flags, Mode::RUSR | Mode::WUSR);
    let file = opened.map_err(|error| os(path.display())(error.into()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Busy(runtime.to_owned())),
        Err(error) => Err(os(path.display())(error.into())),
    }
}

/// Makes the folder of what is noted, and of what services and monitors are started with: what is
/// in it is believed, so that nobody else may have made it, write to it or take it away.
fn notes(runtime: &Path, folder: &Path) -> Result<(), DaemonError> {
    match DirBuilder::new().mode(0o755).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(os(folder.display()))?,
    }
    let found = std::fs::symlink_metadata(folder).map_err(os(folder.display()))?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || ![0, own].contains(&found.uid()) || found.mode() & 0o022 != 0 {
        return Err(DaemonError::Foreign(folder.to_owned()));
    }
    let above = std::fs::metadata(runtime).map_err(os(runtime.display()))?;
    if above.mode() & 0o022 != 0 && above.mode() & 0o1000 == 0 {
        log::error!(
            "{}: whoever may write here may take {} away, and so say what is started: chmod +t \
             {0}, as systemd-tmpfiles --create agl-virtio.conf does",
            runtime.display(),
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_lock_that_somebody_made_a_link_of_is_refused_and_what_it_leads_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "precious").unwrap();
        let runtime = folder.path().join("run");
        fs::create_dir(&runtime).unwrap();
        symlink(&other, runtime.join("manager.lock")).unwrap();
        assert!(lock(&runtime).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        fs::remove_file(runtime.join("manager.lock")).unwrap();
        let first = lock(&runtime).unwrap();
        assert!(matches!(lock(&runtime), Err(DaemonError::Busy(_))));
        drop(first);
        lock(&runtime).unwrap();
    }

    #[test]
    fn a_folder_of_notes_that_others_made_or_may_write_to_is_not_believed() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = runtime.path().join("guests");
        let judged = || notes(runtime.path(), &folder);
        judged().unwrap();
        judged().unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o775)).unwrap();
        let text = judged().unwrap_err().to_string();
        assert!(text.contains("chmod go-w"), "{text}");
        fs::remove_dir(&folder).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), &folder).unwrap();
        assert!(matches!(judged(), Err(DaemonError::Foreign(_))));
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes a folder somebody else's: run it as root"
        );
        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
        assert!(matches!(judged(), Err(DaemonError::Foreign(_))));
    }
}
