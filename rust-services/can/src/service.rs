// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, the hub, one server per controller.

use std::fs::File;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agl_virtio_service::bus::{DeviceInfo, DeviceState, QueueStatistics};
use agl_virtio_service::cli::Program;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service, realtime};
use virtio_device::stats::DeviceStats;
use virtio_device::{Options as ServerOptions, Record, Server, ServerError};

use crate::config::{Backend, Config, ControllerConfig};
use crate::control;
use crate::device::CanDevice;
use crate::hub::{self, Hub, Interface, InterfaceError};
use crate::network::{BusId, ControllerId, Medium, Network};
use crate::shared::{Shared, now};

/// Where allowed, frames go before other work of the host.
const PRIORITY: u8 = 40;

/// The service's own options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Serve one more guest on the first bus, named NAME, whose monitor connects to PATH (may be
    /// repeated)
    #[arg(long = "controller", value_name = "NAME=PATH", value_parser = named_path)]
    controllers: Vec<(String, PathBuf)>,

    /// Make the first bus this CAN interface of the host
    #[arg(long, value_name = "NAME", conflicts_with_all = ["bitrate", "data_bitrate"])]
    interface: Option<String>,

    /// Bit rate of the first bus, in bit/s
    #[arg(long, value_name = "RATE")]
    bitrate: Option<u32>,

    /// Bit rate of the data of FD frames on the first bus, in bit/s
    #[arg(long, value_name = "RATE")]
    data_bitrate: Option<u32>,

    /// Let programs of the host join the first bus at this socket
    #[arg(long, value_name = "PATH")]
    programs: Option<PathBuf>,
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("write NAME=PATH, such as cluster=/run/agl-virtio/cluster-can.sock".into()),
    }
}

/// Why the service ends.
#[derive(Debug, thiserror::Error)]
pub enum CanError {
    /// A server cannot be made or fails.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The record cannot be used.
    #[error(transparent)]
    Record(#[from] agl_virtio_relay::record::RecordError),
    /// A CAN interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A socket cannot be had.
    #[error("cannot listen on {path} for {whom}: {source}; does the folder exist?")]
    Listen {
        /// Whose.
        whom: String,
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

impl ExitReason for CanError {
    fn exit(&self) -> Exit {
        Exit::Os
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> CanError {
    move |source| CanError::Host { what, source }
}

fn listen_error<'a>(whom: &'a str, path: &'a Path) -> impl Fn(io::Error) -> CanError + 'a {
    move |source| CanError::Listen {
        whom: whom.to_owned(),
        path: path.to_owned(),
        source,
    }
}

/// The daemon.
pub struct Can;

impl Daemon for Can {
    const TYPE: &'static str = "can";
    const PROGRAM: Program = Program {
        name: "agl-virtio-can",
        version: env!("CARGO_PKG_VERSION"),
        about: "CAN controllers for guests, on virtual and real buses, by policy (virtio-can)",
        examples: "  agl-virtio-can --socket /tmp/can.sock --bus none\n\
                   \x20 agl-virtio-can --socket /tmp/can.sock --interface vcan0\n\
                   \x20 agl-virtio-can --socket /tmp/a.sock --controller cluster=/tmp/b.sock --bitrate 1000000\n\
                   \x20 agl-virtio-can --config /etc/agl-virtio/ivi.toml --device powertrain",
    };
    type Options = Options;
    type Config = Config;
    type Error = CanError;

    fn configure(options: &Options, config: &mut Config) {
        if let Some(bus) = config.buses.first_mut() {
            if let Some(interface) = &options.interface {
                bus.backend = Backend::Socketcan;
                bus.interface = Some(interface.clone());
            }
            if let Some(bitrate) = options.bitrate {
                bus.bitrate = bitrate;
                bus.data_bitrate = bus.data_bitrate.max(bitrate);
            }
            bus.data_bitrate = options.data_bitrate.unwrap_or(bus.data_bitrate);
            if options.programs.is_some() {
                bus.programs.clone_from(&options.programs);
            }
        }
        for (name, path) in &options.controllers {
            let known = config.controllers.iter_mut().find(|of| of.name == *name);
            if let Some(controller) = known {
                controller.socket = Some(path.clone());
            } else {
                config.controllers.push(ControllerConfig {
                    name: name.clone(),
                    socket: Some(path.clone()),
                    ..ControllerConfig::default()
                });
            }
        }
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        policy.backend_threads();
        let programs = config.buses.iter().map(|bus| &bus.programs);
        let guests = config.controllers.iter().skip(1).map(|of| &of.socket);
        for path in programs.chain(guests).flatten() {
            if let Some(folder) = path.parent() {
                let here = folder.as_os_str().is_empty();
                policy.read_write(if here { Path::new(".") } else { folder });
            }
        }
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), CanError> {
        let network = config.build();
        let interfaces = interfaces(&network)?;
        let shared = Arc::new(Shared::new(network).map_err(host("make a descriptor"))?);
        for (bus, interface) in &interfaces {
            let link = interface.link();
            shared.change(|network| network.set_link(*bus, link, now()));
        }
        let interfaces = interfaces.into_iter().map(|(_, of)| of).collect();
        let programs = programs(&config)?;
        let servers = serve_controllers(&service, &config.controllers, &shared)?;
        let hub = Hub::new(
            Arc::clone(&shared),
            service.health.worker("hub"),
            &service.stop,
            programs,
            interfaces,
        )
        .map_err(host("make a descriptor"))?;
        let hub = start_hub(&service, hub)?;
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
        service.ready();
        let result = run(&service, servers);
        if hub.join().is_err() {
            log::error!("the hub has panicked");
        }
        result
    }
}

type Interfaces = Vec<(BusId, Interface)>;

fn interfaces(network: &Network) -> Result<Interfaces, CanError> {
    let mut interfaces = Vec::new();
    for (place, bus) in network.buses.iter().enumerate() {
        if let Medium::Interface(name, _) = &bus.medium {
            let id = BusId(place);
            interfaces.push((id, Interface::open(name, id, &network.wanted(id))?));
        }
    }
    Ok(interfaces)
}

fn programs(config: &Config) -> Result<Vec<(BusId, UnixListener)>, CanError> {
    let mut programs = Vec::new();
    for (place, bus) in config.buses.iter().enumerate() {
        if let Some(path) = &bus.programs {
            let listener = hub::listen(path).map_err(listen_error(&bus.name, path))?;
            programs.push((BusId(place), listener));
        }
    }
    Ok(programs)
}

fn start_hub(service: &Service<Config>, hub: Hub) -> Result<std::thread::JoinHandle<()>, CanError> {
    let sandbox = service.sandbox.clone();
    let stop = service.stop.clone();
    std::thread::Builder::new()
        .name("hub".into())
        .spawn(move || {
            log::debug!("hub: {}", realtime::enter(PRIORITY));
            sandbox.enter(Role::Backend);
            if let Err(error) = hub.run() {
                log::error!("the buses stand still: {error}");
                stop.ask();
            }
        })
        .map_err(host("start the hub's thread"))
}

type Served = (Arc<Server>, UnixListener);

/// A server for each controller. The first has the service's own socket and record.
fn serve_controllers(
    service: &Service<Config>,
    controllers: &[ControllerConfig],
    shared: &Arc<Shared>,
) -> Result<Vec<Served>, CanError> {
    let mut record = match &service.record {
        Some(fd) => {
            let file = File::from(fd.try_clone().map_err(host("take the record"))?);
            Some(Record::open(file)?)
        }
        None => None,
    };
    let mut servers = Vec::new();
    for (place, controller) in controllers.iter().enumerate() {
        let listener = match (&controller.socket, place) {
            (_, 0) => service
                .listener
                .try_clone()
                .map_err(host("take the socket"))?,
            (Some(path), _) => listen(path).map_err(listen_error(&controller.name, path))?,
            // Validation asks for a socket.
            (None, _) => continue,
        };
        let sandbox = service.sandbox.clone();
        let options = ServerOptions {
            record: record.take(),
            prepare_thread: Arc::new(move |name| {
                log::debug!("{name}: {}", realtime::enter(PRIORITY));
                sandbox.enter(Role::Queue);
            }),
        };
        let beat = service.health.worker(&controller.name);
        let id = ControllerId(place);
        let device = CanDevice::new(Arc::clone(shared), id, beat);
        let server = Arc::new(Server::new(Arc::new(device), options)?);
        // Weak: the network outlives the servers, which must be able to end.
        let told = Arc::downgrade(&server);
        let notifier = move || {
            if let Some(server) = told.upgrade() {
                server.config_changed();
            }
        };
        shared.set_notifier(id, Box::new(notifier));
        servers.push((server, listener));
    }
    Ok(servers)
}

/// Listens for the monitor of another guest. A socket that nobody serves any more is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other,
    }
    let kind = std::fs::symlink_metadata(path)?.file_type();
    let is_socket = std::os::unix::fs::FileTypeExt::is_socket(&kind);
    if !is_socket || UnixStream::connect(path).is_ok() {
        return Err(io::Error::from(io::ErrorKind::AddrInUse));
    }
    std::fs::remove_file(path)?;
    UnixListener::bind(path)
}

/// Serves until the service is stopped, each controller on a thread of its own.
fn run(service: &Service<Config>, servers: Vec<Served>) -> Result<(), CanError> {
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
                    log::error!("a controller is not served any more: {error}");
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
