// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, one server per agent.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agl_virtio_service::bus::{DeviceInfo, DeviceState, QueueStatistics};
use agl_virtio_service::cli::Program;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service};
use virtio_device::stats::DeviceStats;
use virtio_device::{Options as ServerOptions, Record, Server, ServerError};

use crate::backend::{Bindings, Linux, Worker};
use crate::config::{AgentConfig, BackendKind, Config};
use crate::control;
use crate::device::{ScmiDevice, Shared, now};
use crate::platform::AgentId;

/// The service's own options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Serve one more guest, named NAME, whose monitor connects to PATH (may be repeated; the
    /// guest may do what the first one may where the configuration does not name it)
    #[arg(long = "agent", value_name = "NAME=PATH", value_parser = named_path)]
    agents: Vec<(String, PathBuf)>,

    /// Look for the host's resources below this folder
    #[arg(long, value_name = "PATH")]
    sysfs: Option<PathBuf>,
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("write NAME=PATH, such as cluster=/run/agl-virtio/cluster-scmi.sock".into()),
    }
}

/// Why the service ends.
#[derive(Debug, thiserror::Error)]
pub enum ScmiError {
    /// A server cannot be made or fails.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The record cannot be used.
    #[error(transparent)]
    Record(#[from] agl_virtio_relay::record::RecordError),
    /// The socket of an agent cannot be had.
    #[error("cannot listen on {path} for {agent}: {source}; does the folder exist?")]
    Listen {
        /// Whose.
        agent: String,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host refused something.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object cannot be shown on D-Bus.
    #[error("D-Bus: {0}")]
    Bus(#[from] zbus::zvariant::Error),
}

impl ExitReason for ScmiError {
    fn exit(&self) -> Exit {
        Exit::Os
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> ScmiError {
    move |source| ScmiError::Host { what, source }
}

/// The daemon.
pub struct Scmi;

impl Daemon for Scmi {
    const TYPE: &'static str = "scmi";
    const PROGRAM: Program = Program {
        name: "agl-virtio-scmi",
        version: env!("CARGO_PKG_VERSION"),
        about: "Clocks, power, performance, sensors and resets for guests, by policy (virtio-scmi)",
        examples: "  agl-virtio-scmi --socket /tmp/scmi.sock --bus none\n\
                   \x20 agl-virtio-scmi --config /etc/agl-virtio/ivi.toml --device soc\n\
                   \x20 agl-virtio-scmi --socket /tmp/a.sock --agent cluster=/tmp/b.sock\n\
                   \x20 agl-virtio-scmi dtb-fragment --config /etc/agl-virtio/ivi.toml",
    };
    type Options = Options;
    type Config = Config;
    type Error = ScmiError;

    fn configure(options: &Options, config: &mut Config) {
        if let Some(sysfs) = &options.sysfs {
            config.sysfs.clone_from(sysfs);
            config.backend = BackendKind::Linux;
        }
        if !options.agents.is_empty() {
            config.agents = config.agents();
        }
        for (name, path) in &options.agents {
            let known = config.agents.iter_mut().find(|agent| agent.name == *name);
            if let Some(agent) = known {
                agent.socket = Some(path.clone());
            } else {
                let mut agent = config.agents.first().cloned().unwrap_or_default();
                agent.name.clone_from(name);
                agent.socket = Some(path.clone());
                config.agents.push(agent);
            }
        }
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        // Also for the servers' private directories, which are made after the sandbox.
        policy.backend_threads();
        if config.backend == BackendKind::Linux {
            policy.read_write(&config.sysfs);
        }
        for agent in config.agents.iter().skip(1) {
            if let Some(folder) = agent.socket.as_deref().and_then(Path::parent) {
                policy.read_write(folder);
            }
        }
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), ScmiError> {
        let platform = config.build();
        let bindings = Bindings::of(&platform);
        let (own, kept) = records(service.record.as_ref())?;
        let shared = Shared::new(platform, kept, now());
        shared.use_bus(service.bus.clone());
        if config.backend == BackendKind::Linux && !bindings.is_empty() {
            let (sandbox, shared_too) = (service.sandbox.clone(), Arc::clone(&shared));
            let backend = Linux::new(config.sysfs.clone(), bindings);
            let worker = Worker::spawn(
                Box::new(backend),
                move || sandbox.enter(Role::Backend),
                move |result| shared_too.job_done(result),
            );
            shared.use_worker(worker.map_err(host("start the back end's thread"))?);
            // What guests wanted before a death of the service, the host is told again.
            shared.change(|_| ());
        }
        let servers = serve_agents(&service, &config.agents(), &shared, own)?;
        control::show(&service.bus, &shared)?;
        if let Some((first, _)) = servers.first() {
            let change = service.show(Arc::new(Info {
                stats: first.stats(),
                offered: first.offered_features(),
                acked: first.acked_features(),
                connected: first.connected(),
                restarts: first.restarts(),
            }));
            if let Some(change) = change {
                first.observe(move || change.changed());
            }
        }
        let (mut running, shared_too) = (config, Arc::clone(&shared));
        service.on_reload(move |new| {
            match shared_too.change(|platform| running.reload(new, platform)) {
                Ok(()) => log::info!("agents may do what the new configuration says"),
                Err(error) => log::error!("the old configuration stays: {error}"),
            }
        });
        service.ready();
        run(&service, servers)
    }
}

/// The keeper's record twice: for the queues, and for what agents want.
fn records(record: Option<&OwnedFd>) -> Result<(Option<Record>, Option<Record>), ScmiError> {
    let Some(fd) = record else {
        return Ok((None, None));
    };
    let open = || {
        let file = File::from(fd.try_clone().map_err(host("take the record"))?);
        Ok::<_, ScmiError>(Record::open(file)?)
    };
    Ok((Some(open()?), Some(open()?)))
}

type Served = (Arc<Server>, UnixListener);

/// A server for each agent. The first has the service's own socket and record.
fn serve_agents(
    service: &Service<Config>,
    agents: &[AgentConfig],
    shared: &Arc<Shared>,
    mut record: Option<Record>,
) -> Result<Vec<Served>, ScmiError> {
    let mut servers = Vec::new();
    for (place, agent) in agents.iter().enumerate() {
        let listener = match (&agent.socket, place) {
            (_, 0) => service
                .listener
                .try_clone()
                .map_err(host("take the socket"))?,
            (Some(path), _) => listen(&agent.name, path)?,
            // Validation asks for a socket.
            (None, _) => continue,
        };
        let sandbox = service.sandbox.clone();
        let options = ServerOptions {
            record: record.take(),
            prepare_thread: Arc::new(move |_| sandbox.enter(Role::Queue)),
        };
        let beat = service.health.worker(&agent.name);
        let device = ScmiDevice::new(Arc::clone(shared), AgentId::new(place), beat);
        let server = Arc::new(Server::new(Arc::new(device), options)?);
        servers.push((server, listener));
    }
    Ok(servers)
}

/// Listens for the monitor of another guest. A socket that nobody serves any more is replaced.
fn listen(agent: &str, path: &Path) -> Result<UnixListener, ScmiError> {
    let failed = |source| ScmiError::Listen {
        agent: agent.to_owned(),
        path: path.to_owned(),
        source,
    };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other.map_err(failed),
    }
    let is_socket = std::fs::symlink_metadata(path)
        .map(|metadata| std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()))
        .map_err(failed)?;
    if !is_socket || std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(io::Error::from(io::ErrorKind::AddrInUse)));
    }
    std::fs::remove_file(path).map_err(failed)?;
    UnixListener::bind(path).map_err(failed)
}

/// Serves until the service is stopped, each agent on a thread of its own.
fn run(service: &Service<Config>, servers: Vec<Served>) -> Result<(), ScmiError> {
    let mut threads = Vec::new();
    // The last handle on a server goes with this thread: a session may not remove files.
    let mut kept = Vec::new();
    for (server, listener) in servers {
        kept.push(Arc::clone(&server));
        let handle = server.stop_handle();
        let stop = service.stop.clone();
        let sandbox = service.sandbox.clone();
        let thread = std::thread::Builder::new()
            .name("session".into())
            .spawn(move || {
                sandbox.enter(Role::Session);
                let result = server.serve(&listener);
                if let Err(error) = &result {
                    log::error!("an agent is not served any more: {error}");
                    stop.ask();
                }
                result
            })
            .map_err(host("start a session's thread"))?;
        threads.push((thread, handle));
    }
    while !service.stop.wait(None) {}
    let mut result = Ok(());
    for (_, handle) in &threads {
        handle.stop();
    }
    for (thread, _) in threads {
        if let Ok(Err(error)) = thread.join() {
            result = Err(error.into());
        }
    }
    result
}

/// What the device tells about itself.
struct Info {
    stats: DeviceStats,
    offered: u64,
    acked: Arc<AtomicU64>,
    connected: Arc<AtomicBool>,
    restarts: u32,
}

impl DeviceInfo for Info {
    fn state(&self) -> DeviceState {
        match (
            self.connected.load(Ordering::Relaxed),
            self.features_acknowledged(),
        ) {
            (false, _) => DeviceState::Waiting,
            (true, 0) => DeviceState::Connected,
            (true, _) => DeviceState::Running,
        }
    }

    fn features_offered(&self) -> u64 {
        self.offered
    }

    fn features_acknowledged(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    fn restarts(&self) -> u32 {
        self.restarts
    }

    fn statistics(&self) -> Vec<QueueStatistics> {
        self.stats
            .queues()
            .map(|(_, queue)| QueueStatistics::from(queue.counters()))
            .collect()
    }
}
