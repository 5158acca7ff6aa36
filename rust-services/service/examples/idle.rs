// SPDX-License-Identifier: Apache-2.0
//! The smallest service: it accepts connections and has one volume on D-Bus. Its memory is
//! what every service costs before it does anything; the tests run it as a real process.

use agl_virtio_service::bus::{
    self, Bus, DeviceInfo, DeviceState, PropertyChange, QueueStatistics,
};
use agl_virtio_service::cli::Program;
use agl_virtio_service::config::{Problems, Validate};
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Service, log, realtime};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use zbus::message::Header;

fn main() -> ExitCode {
    agl_virtio_service::run::<Idle>()
}

struct Idle;

#[derive(Debug, clap::Args)]
struct Options {
    /// Begin with this volume, in per cent
    #[arg(long, value_name = "PERCENT")]
    volume: Option<u32>,

    /// Do in a queue thread what the sandbox forbids, to see it ended
    #[arg(long)]
    misbehave: bool,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    volume: u32,
    #[serde(skip)]
    misbehave: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            volume: 50,
            misbehave: false,
        }
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.range("volume", &self.volume, 0..=100);
    }
}

impl Daemon for Idle {
    const TYPE: &'static str = "idle";
    const PROGRAM: Program = Program {
        name: "agl-virtio-idle",
        version: env!("CARGO_PKG_VERSION"),
        about: "Accepts connections and does nothing",
        examples: "  agl-virtio-idle --socket /tmp/idle.sock --bus none",
    };
    type Options = Options;
    type Config = Config;
    type Error = io::Error;

    fn configure(options: &Options, config: &mut Config) {
        if let Some(volume) = options.volume {
            config.volume = volume;
        }
        config.misbehave = options.misbehave;
    }

    fn sandbox(_config: &Config, _policy: &mut Policy) {}

    fn serve(service: Service<Config>, config: Config) -> io::Result<()> {
        let shared = Arc::new(Shared {
            volume: AtomicU32::new(config.volume),
            turns: AtomicU64::new(0),
        });
        let change = show(&service, &shared).map_err(io::Error::other)?;
        let reloaded = Arc::clone(&shared);
        service.on_reload(move |config: Config| {
            reloaded.volume.store(config.volume, Ordering::Relaxed);
            change.changed();
        });
        std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || session(&service, &shared, config.misbehave))?
            .join()
            .map_err(|_| io::Error::other("the session thread panicked"))?
    }
}

struct Shared {
    volume: AtomicU32,
    turns: AtomicU64,
}

fn show(
    service: &Service<Config>,
    shared: &Arc<Shared>,
) -> Result<PropertyChange, bus::zbus::Error> {
    service.show(Arc::clone(shared) as Arc<dyn DeviceInfo>);
    let change = service.bus.property("knob", KNOB, "Volume")?;
    let (shared, handle) = (Arc::clone(shared), service.bus.clone());
    service.bus.add("knob", move || Knob {
        shared: Arc::clone(&shared),
        bus: handle.clone(),
    })?;
    Ok(change)
}

/// A thread like those that speak vhost-user: narrowed, and it starts queue threads.
fn session(service: &Service<Config>, shared: &Arc<Shared>, misbehave: bool) -> io::Result<()> {
    service.sandbox.enter(Role::Session);
    let queue = start_queue(service, shared, misbehave)?;
    service.ready();
    accept_until_stopped(service)?;
    queue
        .join()
        .map_err(|_| io::Error::other("the queue thread panicked"))
}

/// A thread like those that serve virtqueues: real-time, narrowed, with a heartbeat.
fn start_queue(
    service: &Service<Config>,
    shared: &Arc<Shared>,
    misbehave: bool,
) -> io::Result<std::thread::JoinHandle<()>> {
    let sandbox = service.sandbox.clone();
    let stop = service.stop.clone();
    let beat = service.health.worker("queue");
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("queue".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            log::info!("queue thread: {}", realtime::enter(10));
            sandbox.enter(Role::Queue);
            let turn = beat.turn();
            shared.turns.fetch_add(1, Ordering::Relaxed);
            if misbehave {
                let opened = std::fs::File::open("/etc/passwd");
                log::error!("a file is opened: {opened:?}");
                let socket = std::os::unix::net::UnixDatagram::unbound();
                log::error!("the sandbox let us have a socket: {socket:?}");
            }
            drop(turn);
            let _ = stop.wait(None);
        })
}

fn accept_until_stopped(service: &Service<Config>) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut set = [
            PollFd::from_borrowed_fd(service.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(service.stop.as_fd(), PollFlags::IN),
        ];
        match poll(&mut set, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if service.stop.is_asked() {
            return Ok(());
        }
        let (mut stream, _) = service.listener.accept()?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
    }
}

impl DeviceInfo for Shared {
    fn state(&self) -> DeviceState {
        DeviceState::Waiting
    }
    fn features_offered(&self) -> u64 {
        1 << 32
    }
    fn features_acknowledged(&self) -> u64 {
        0
    }
    fn restarts(&self) -> u32 {
        0
    }
    fn statistics(&self) -> Vec<QueueStatistics> {
        vec![BTreeMap::from([(
            "turns",
            self.turns.load(Ordering::Relaxed),
        )])]
    }
}

const KNOB: &str = "org.automotivelinux.Virtio1.Knob";

struct Knob {
    shared: Arc<Shared>,
    bus: Bus,
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Knob")]
impl Knob {
    #[zbus(property)]
    fn volume(&self) -> u32 {
        self.shared.volume.load(Ordering::Relaxed)
    }

    #[zbus(property)]
    async fn set_volume(
        &self,
        volume: u32,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        bus::may_change(connection, header.as_ref()).await?;
        if volume > 100 {
            let reason = "the volume is from 0 to 100".to_owned();
            return Err(zbus::fdo::Error::InvalidArgs(reason).into());
        }
        self.shared.volume.store(volume, Ordering::Relaxed);
        Ok(())
    }

    /// Sends the signal `Rung` with a number.
    async fn ring(&self, number: u32) -> zbus::fdo::Result<()> {
        self.bus
            .signal("knob", KNOB, "Rung", &number)
            .map_err(zbus::fdo::Error::from)
    }
}
