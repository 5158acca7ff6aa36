// SPDX-License-Identifier: Apache-2.0
//! From the command line to a running device and back: what `main` of every service calls.

use crate::arenas;
use crate::bus::{Bus, DeviceChange, DeviceInfo, Place};
use crate::cli::{self, CommandLine, CommonArgs, Program};
use crate::config::{ConfigError, Problems, Validate};
use crate::inherited_fd::{self, InheritedFdError};
use crate::listener::{self, ListenError, SocketFile};
use crate::logging::{self, Origin};
use crate::notify::{Notifier, State};
use crate::sandbox::{Policy, Sandbox};
use crate::settings::{Settings, read_file, settings};
use crate::shutdown::{Signals, Stop};
use crate::supervisor::{ReloadSlot, Supervisor};
use crate::{Exit, ExitReason, Health, explain};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use virtio_device::Record;

/// A device service. Its `main` is `agl_virtio_service::run::<Snd>()`.
pub trait Daemon: 'static {
    /// The device type, as in `type = "snd"` and `agl-virtio-snd`.
    const TYPE: &'static str;
    /// What the command line shows.
    const PROGRAM: Program;
    /// The device's own options.
    type Options: clap::Args + Send + 'static;
    /// The device's own keys; `Default` is the built-in backend that needs no file.
    type Config: DeserializeOwned + Default + Validate + Send + 'static;
    /// What may end the service.
    type Error: ExitReason + 'static;

    /// Lets options replace what the file says. The result is validated after it.
    fn configure(options: &Self::Options, config: &mut Self::Config);

    /// The device's name where neither the command line nor a file says one. Services of one type that
    /// serve one guest side by side are told apart by it.
    fn usual_name(_config: &Self::Config) -> &'static str {
        Self::TYPE
    }

    /// Starts helper processes, which must be born before this one gives up the right to. The process
    /// has one thread yet.
    ///
    /// # Errors
    /// A helper does not start, and nothing works without it.
    fn before_sandbox(_config: &Self::Config, _common: &CommonArgs) -> std::io::Result<()> {
        Ok(())
    }

    /// Names what this configuration needs of the system.
    fn sandbox(config: &Self::Config, policy: &mut Policy);

    /// Notes what the host has not of what this configuration asks for, such as a folder. `--check`
    /// and the first start end with it; a service that takes over a guest only warns of it.
    fn host(_config: &Self::Config, _place: &Place, _problems: &mut Problems) {}

    /// Whether a guest's driver finds the device of `old` unchanged in that of `new`: what it asked
    /// for once when it came. Only then may a service of `new` take the place of one of `old`
    /// under a running guest.
    fn is_same_device(_old: &Self::Config, _new: &Self::Config) -> bool {
        true
    }

    /// Serves until [`Service::stop`] is asked and all is drained. Calls [`Service::ready`] when
    /// connections are taken.
    ///
    /// # Errors
    /// Why the service cannot go on.
    fn serve(service: Service<Self::Config>, config: Self::Config) -> Result<(), Self::Error>;
}

/// What a running service has.
#[derive(Debug)]
pub struct Service<C> {
    /// Where the virtual machine monitor or the keeper connects.
    pub listener: UnixListener,
    /// The memory that outlives the service, from the keeper.
    pub record: Option<OwnedFd>,
    /// What the service was started with that served this guest until now: its knobs stand as the
    /// guest and the host have turned them since, and what differs in the new configuration is an
    /// edit that nobody has taken over yet.
    pub former: Option<C>,
    /// Asked when the service is to drain and end.
    pub stop: Stop,
    /// The D-Bus side.
    pub bus: Bus,
    /// Threads enter their roles through it.
    pub sandbox: Sandbox,
    /// Workers put their heartbeats here.
    pub health: Health,
    notifier: Arc<Notifier>,
    reload: ReloadSlot<C>,
    device_type: &'static str,
    version: &'static str,
}

impl<C> Service<C> {
    /// The guest's name.
    #[must_use]
    pub fn guest(&self) -> &str {
        self.bus.place().guest()
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> &str {
        self.bus.place().device()
    }

    /// Tells the service manager that connections are taken.
    pub fn ready(&self) {
        self.notifier.send(&State::Ready);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.notifier.send(&State::Status(line));
    }

    /// Calls `apply` with a new, validated configuration after each SIGHUP; one that is wrong is
    /// reported and the old one stays. Without this SIGHUP does nothing.
    pub fn on_reload(&self, apply: impl FnMut(C) + Send + 'static) {
        self.reload.set(Box::new(apply));
    }

    /// Shows the device on D-Bus, after all objects below it: the service takes its bus name with
    /// this. Call what it returns whenever the device's state may have changed.
    pub fn show(&self, info: Arc<dyn DeviceInfo>) -> Option<DeviceChange> {
        let place = self.bus.place().clone();
        let sandbox = self.sandbox.clone();
        let (device_type, version) = (self.device_type, self.version);
        let added = self.bus.add("", move || crate::bus::DeviceObject {
            place: place.clone(),
            device_type,
            version,
            sandbox: sandbox.clone(),
            info: Arc::clone(&info),
        });
        self.bus.release();
        match added.and_then(|()| DeviceChange::of(&self.bus)) {
            Ok(change) => Some(change),
            Err(error) => {
                log::error!("the device stays off the bus: {error}");
                None
            }
        }
    }
}

/// What keeps a service from starting.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("--record-fd: {0}")]
    Record(#[from] InheritedFdError),
    #[error("{what}: {source}")]
    Os {
        what: &'static str,
        source: std::io::Error,
    },
}

impl ExitReason for StartError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Listen(error) => error.exit(),
            Self::Record(_) => Exit::Usage,
            Self::Os { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput => {
                Exit::Usage
            }
            Self::Os { .. } => Exit::Os,
        }
    }
}

/// Runs a service with the process's command line and returns how it ended.
#[must_use]
pub fn run<D: Daemon>() -> ExitCode {
    let line = match cli::parse::<D::Options>(&D::PROGRAM, std::env::args_os()) {
        Ok(line) => line,
        Err(error) => {
            // Fails where standard output is closed, and then nobody reads it anyway.
            let _ = error.print();
            return cli::exit_of(&error).into();
        }
    };
    logging::start(D::PROGRAM.name, line.common.log);
    arenas::limit();
    let settings = match settings::<D>(&line) {
        Ok(settings) => settings,
        Err(error) => return show(&error).into(),
    };
    let place = settings.place.clone();
    if line.common.check {
        if let Some(Err(error)) = line.common.record_fd.map(inherited_fd::take) {
            let error = StartError::from(error);
            log::error!("{}", explain(&error));
            return error.exit().into();
        }
        if let Err(error) = settings.host::<D>() {
            return show(&error).into();
        }
        println!(
            "{}/{}: the configuration is in order",
            place.guest(),
            place.device()
        );
        return Exit::Ok.into();
    }
    logging::set_origin(Origin {
        guest: place.guest().to_owned(),
        device: place.device().to_owned(),
    });
    match start::<D>(line, &settings) {
        // The file of the socket is removed at the end.
        Ok((mut service, _socket)) => {
            service.former = settings.former;
            finish(D::serve(service, settings.config))
        }
        Err(StartError::Config(error)) => show(&error).into(),
        Err(error) => {
            log::error!("{}", explain(&error));
            error.exit().into()
        }
    }
}

/// Shown as it is, also in the journal: its lines belong under one another.
fn show(error: &ConfigError) -> Exit {
    eprintln!("{error}");
    error.exit()
}

fn finish<E: ExitReason + 'static>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => {
            log::info!("ends in order");
            Exit::Ok.into()
        }
        Err(error) => {
            log::error!("{}", explain(&error));
            error.exit().into()
        }
    }
}

/// Whether a service before this one had a guest, which must go on whatever the host lacks.
fn takes_over(record: Option<&OwnedFd>) -> bool {
    let record = record.and_then(|fd| fd.try_clone().ok());
    let record = record.and_then(|fd| Record::open(File::from(fd)).ok());
    record.is_some_and(|record| record.device() != 0)
}

/// Brings up everything around the device. The order matters: descriptors and the socket before
/// the sandbox, the sandbox before the first thread.
fn start<D: Daemon>(
    line: CommandLine<D::Options>,
    settings: &Settings<D::Config>,
) -> Result<(Service<D::Config>, Option<SocketFile>), StartError> {
    let place = settings.place.clone();
    let os = |what| move |source| StartError::Os { what, source };
    let common = &line.common;
    let record = common.record_fd.map(inherited_fd::take).transpose()?;
    if record.is_some() {
        // Without its keeper a service has no guest any more, and a new keeper starts its own.
        let signal = rustix::process::Signal::TERM;
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(signal)) {
            log::warn!("the service will not end with its keeper: {error}");
        }
    }
    match settings.host::<D>() {
        Err(error) if takes_over(record.as_ref()) => log::warn!("the guest goes on, but {error}"),
        other => other?,
    }
    let configured = settings.socket.as_deref();
    let listener = listener::listen(common, configured)?;
    let socket_file =
        listener::path_to_bind(common, configured).and_then(|path| SocketFile::of(path).ok());
    let notifier = Arc::new(Notifier::from_environment().map_err(os("NOTIFY_SOCKET"))?);
    let stop = Stop::new().map_err(os("no descriptor for the end"))?;
    let signals = Signals::install().map_err(os("cannot handle signals"))?;
    // rustix asks the kernel where its clock is, once, by a prctl that no thread may use later.
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let folder = socket_file.as_ref().and_then(SocketFile::folder);
    D::before_sandbox(&settings.config, common).map_err(os("a helper does not start"))?;
    let config_folders = common.config.as_deref().map_or_else(Vec::new, folders_of);
    let sandbox = sandbox::<D>(common, &settings.config, folder, &config_folders);
    let device = place.device().to_owned();
    let bus = Bus::start_held(&common.bus, place, sandbox.clone()).map_err(os("--bus"))?;
    let health = Health::default();
    let reload = ReloadSlot::default();
    let supervisor = Supervisor {
        signals,
        stop: stop.clone(),
        notifier: Arc::clone(&notifier),
        health: health.clone(),
    };
    let mut line = line;
    // Where the file had one such device, it may have another one later: that is not this one.
    line.common.device = Some(device);
    let reread = rereader::<D>(line, reload.clone(), config_folders);
    supervisor
        .start(sandbox.clone(), reread)
        .map_err(os("cannot start the supervisor thread"))?;
    let service = Service {
        listener,
        record,
        former: None,
        stop,
        bus,
        sandbox,
        health,
        notifier,
        reload,
        device_type: D::TYPE,
        version: D::PROGRAM.version,
    };
    Ok((service, socket_file))
}

fn sandbox<D: Daemon>(
    common: &CommonArgs,
    config: &D::Config,
    socket_folder: Option<&Path>,
    config_folders: &[PathBuf],
) -> Sandbox {
    if common.no_sandbox {
        log::warn!("runs without a sandbox, as --no-sandbox says");
        return Sandbox::off();
    }
    let mut policy = Policy::new();
    D::sandbox(config, &mut policy);
    if let Some(folder) = socket_folder {
        policy.remove_files(folder);
    }
    for folder in config_folders {
        policy.read_only(folder);
    }
    let sandbox = Sandbox::lock_down(&policy);
    let report = sandbox.report();
    if report.is_complete() {
        log::info!("sandbox: {report}");
    } else {
        log::warn!("sandbox: {report}");
    }
    sandbox
}

/// Where a configuration is read again: in its folder, because editors replace a file by another
/// one; and where the file is a link, in the folder in which it lies.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let real = std::fs::canonicalize(file).ok();
    let files = [Some(file), real.as_deref()].into_iter().flatten();
    let folder = |file: &Path| {
        let folder = file.parent().unwrap_or(Path::new(""));
        let here = folder.as_os_str().is_empty();
        if here { ".".into() } else { folder.to_owned() }
    };
    files.map(folder).collect()
}

/// What to add where the file cannot be read because it has become a link to where the sandbox, which
/// nobody can widen, does not let us.
fn out_of_reach(error: &ConfigError, folders: &[PathBuf]) -> String {
    let ConfigError::Unreadable { file, source } = error else {
        return String::new();
    };
    let is_link = std::fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink());
    if !is_link || source.kind() != std::io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let folders: Vec<String> = folders.iter().map(|at| at.display().to_string()).collect();
    format!(
        "\n{} is a link, and since its start this service reaches no configuration outside of {}: \
         put the file there, or start the service again",
        file.display(),
        folders.join(" and ")
    )
}

/// Reads the file again and hands it to the device, if the device takes it.
fn rereader<D: Daemon>(
    line: CommandLine<D::Options>,
    reload: ReloadSlot<D::Config>,
    folders: Vec<PathBuf>,
) -> impl FnMut() {
    move || {
        let Some(file) = &line.common.config else {
            log::info!("there is no configuration file to read again");
            return;
        };
        match read_file::<D>(file, &line.common, &line.device) {
            Ok((_, config)) => {
                if reload.apply(config) {
                    log::info!("the configuration was read again");
                } else {
                    log::warn!("this device takes a new configuration only by a restart");
                }
            }
            Err(error) => {
                let why = out_of_reach(&error, &folders);
                log::error!("the old configuration stays:\n{error}{why}");
            }
        }
    }
}
