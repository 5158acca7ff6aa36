// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, one server per agent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agl_virtio_service::cli::Program;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Seat, Service, ServingError};
use virtio_device::{Options as ServerOptions, Record, Server, now};

use crate::backend::{Bindings, Linux, Worker};
use crate::config::{AgentConfig, BackendKind, Config};
use crate::control;
use crate::device::ScmiDevice;
use crate::platform::AgentId;
use crate::shared::Shared;

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
    /// A guest cannot be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
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
        match self {
            Self::Serving(error) => error.exit(),
            _ => Exit::Os,
        }
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

    fn is_same_device(old: &Config, new: &Config) -> bool {
        old.is_same_to_guests(new)
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), ScmiError> {
        let platform = config.build();
        let bindings = Bindings::of(&platform);
        // Twice: for the queues, and for what agents want.
        let own = service.kept_record()?;
        let shared = Shared::new(platform, service.kept_record()?, now());
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
        let seats = seats(&service, &config.agents(), &shared, own)?;
        control::show(&service.bus, &shared)?;
        if let Some(first) = seats.first() {
            service.show_seat(first);
        }
        let (mut running, shared_too) = (config, Arc::clone(&shared));
        service.on_reload(move |new| {
            match shared_too.change(|platform| running.reload(new, platform)) {
                Ok(()) => log::info!("agents may do what the new configuration says"),
                Err(error) => log::error!("the old configuration stays: {error}"),
            }
        });
        service.ready();
        Ok(service.serve(seats)?)
    }
}

/// A server for each agent. The first has the service's own socket and record.
fn seats(
    service: &Service<Config>,
    agents: &[AgentConfig],
    shared: &Arc<Shared>,
    mut record: Option<Record>,
) -> Result<Vec<Seat>, ServingError> {
    let mut seats = Vec::new();
    for (place, agent) in agents.iter().enumerate() {
        let sandbox = service.sandbox.clone();
        let options = ServerOptions {
            record: record.take(),
            prepare_thread: Arc::new(move |_| sandbox.enter(Role::Queue)),
        };
        let beat = service.health.worker(&agent.name);
        let device = ScmiDevice::new(Arc::clone(shared), AgentId::new(place), beat);
        let server = Arc::new(Server::new(Arc::new(device), options)?);
        match (&agent.socket, place) {
            (_, 0) => seats.push(service.first_seat(server)?),
            (Some(path), _) => seats.push(Seat::at(path, &agent.name, server)?),
            // Validation asks for a socket.
            (None, _) => {}
        }
    }
    Ok(seats)
}
