// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, the hub, one server per controller.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agl_virtio_service::cli::Program;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Seat, Service, ServingError, realtime};
use virtio_device::{Options as ServerOptions, Server, ServerError, now};

use crate::config::{Backend, Config, ControllerConfig};
use crate::control;
use crate::device::CanDevice;
use crate::hub::{self, Hub, Interface, InterfaceError, Line};
use crate::identifiers::IdSet;
use crate::network::{BusId, ControllerId, Medium, Network};
use crate::shared::Shared;

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
    /// A guest cannot be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// A CAN interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The socket for programs of the host cannot be had.
    #[error("cannot listen on {path} for {bus}: {source}; does the folder exist?")]
    Programs {
        /// Which bus they join.
        bus: String,
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
        match self {
            Self::Serving(error) => error.exit(),
            _ => Exit::Os,
        }
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> CanError {
    move |source| CanError::Host { what, source }
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

    fn is_same_device(old: &Config, new: &Config) -> bool {
        old.is_same_device(new)
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        policy.backend_threads();
        // A guest's thread hears what its own frame has become.
        policy.system_calls(Role::Queue, &[libc::SYS_recvmsg]);
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
        let (interfaces, lines): (Vec<_>, Vec<_>) =
            interfaces(&network, &config)?.into_iter().unzip();
        let buses: Vec<_> = lines.iter().map(Line::bus).collect();
        let shared = Shared::new(network, lines).map_err(host("make a descriptor"))?;
        let shared = Arc::new(shared);
        for (bus, interface) in buses.into_iter().zip(&interfaces) {
            let link = interface.link();
            shared.change(|network| network.set_link(bus, link, now()));
        }
        let programs = programs(&config)?;
        let seats = seats(&service, &config.controllers, &shared)?;
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
        if let Some(first) = seats.first() {
            service.show_seat(first);
        }
        service.ready();
        let result = service.serve(seats);
        if hub.join().is_err() {
            log::error!("the hub has panicked");
        }
        Ok(result?)
    }
}

type Interfaces = Vec<(Interface, Line)>;

fn interfaces(network: &Network, config: &Config) -> Result<Interfaces, CanError> {
    let mut interfaces = Vec::new();
    for (place, (bus, told)) in network.buses.iter().zip(&config.buses).enumerate() {
        if let Medium::Interface(name, _) = &bus.medium {
            let id = BusId(place);
            // A program of the host sends and hears everything.
            let wanted = match told.programs {
                Some(_) => IdSet::any(),
                None => network.wanted(id),
            };
            let (interface, mut line) = Interface::open(name, id, &wanted)?;
            // Programs of the host are the hub's.
            if told.programs.is_none() {
                line.set_listener(network.only_listener(id));
            }
            interfaces.push((interface, line));
        }
    }
    Ok(interfaces)
}

fn programs(config: &Config) -> Result<Vec<(BusId, UnixListener)>, CanError> {
    let mut programs = Vec::new();
    for (place, bus) in config.buses.iter().enumerate() {
        if let Some(path) = &bus.programs {
            let listener = hub::listen(path).map_err(|source| CanError::Programs {
                bus: bus.name.clone(),
                path: path.clone(),
                source,
            })?;
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
            // A guest's thread that has the network is not to be held up by who wants it next.
            let priority = PRIORITY.saturating_sub(1);
            log::debug!("hub: {}", realtime::enter(priority));
            sandbox.enter(Role::Backend);
            if let Err(error) = hub.run() {
                log::error!("the buses stand still: {error}");
                stop.ask();
            }
        })
        .map_err(host("start the hub's thread"))
}

/// A server for each controller. The first has the service's own socket and record.
fn seats(
    service: &Service<Config>,
    controllers: &[ControllerConfig],
    shared: &Arc<Shared>,
) -> Result<Vec<Seat>, ServingError> {
    let mut record = service.kept_record()?;
    let mut seats = Vec::new();
    for (place, controller) in controllers.iter().enumerate() {
        let sandbox = service.sandbox.clone();
        let options = ServerOptions {
            record: record.take(),
            prepare_thread: Arc::new(move |name| {
                log::debug!("{name}: {}", realtime::enter(PRIORITY));
                sandbox.enter(Role::Queue);
            }),
        };
        let id = ControllerId(place);
        let server = server(service, &controller.name, id, shared, options)?;
        match (&controller.socket, place) {
            (_, 0) => seats.push(service.first_seat(server)?),
            (Some(path), _) => seats.push(Seat::at(path, &controller.name, server)?),
            // Validation asks for a socket.
            (None, _) => {}
        }
    }
    Ok(seats)
}

fn server(
    service: &Service<Config>,
    name: &str,
    id: ControllerId,
    shared: &Arc<Shared>,
    options: ServerOptions,
) -> Result<Arc<Server>, ServerError> {
    let device = CanDevice::new(Arc::clone(shared), id, service.health.worker(name));
    let server = Arc::new(Server::new(Arc::new(device), options)?);
    // Weak: the network outlives the servers, which must be able to end.
    let told = Arc::downgrade(&server);
    let notifier = move || {
        if let Some(server) = told.upgrade() {
            server.config_changed();
        }
    };
    shared.set_notifier(id, Box::new(notifier));
    Ok(server)
}
