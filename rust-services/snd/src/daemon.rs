// SPDX-License-Identifier: Apache-2.0

//! `agl-virtio-snd`: from the command line to a guest's card.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agl_virtio_service::bus::{DeviceInfo, DeviceState, Place, QueueStatistics};
use agl_virtio_service::cli::Program;
use agl_virtio_service::config::Problems;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service, realtime};
use virtio_device::stats::DeviceStats;
use virtio_device::{Options as ServerOptions, Record, Server, ServerError};

use crate::config::{self, BackendConfig, Said, SndConfig};
use crate::control;
use crate::device::{DeviceError, SoundDevice};
use crate::greeting;
use crate::panel::Panel;
use crate::reload::Running;
use crate::topology;
use crate::wire::Direction;

/// The service.
pub struct Snd;

/// Options of the sound service.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SndOptions {
    /// Write what the guest plays into WAV files in this folder, which replaces the folder of the
    /// configuration's paths
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Let the guest record this WAV file, over and over
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// Offer the guest not to kick (VIRTIO_SND_PCM_F_MSG_POLLING)
    #[arg(long)]
    pub polling: bool,

    /// Send all streams nowhere: `paced` keeps time, `fast` is for measurements
    #[arg(long, value_name = "PACE", conflicts_with_all = ["output", "input"])]
    pub null: Option<NullPace>,
}

/// How the null back end keeps time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum NullPace {
    /// By the clock.
    Paced,
    /// Not at all.
    Fast,
}

/// What ends the service.
#[derive(Debug, thiserror::Error)]
pub enum SndError {
    /// The device cannot be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It cannot be served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The host refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// A thread has panicked.
    #[error("the session thread has panicked; the log says where")]
    Panicked,
}

impl ExitReason for SndError {
    fn exit(&self) -> Exit {
        match self {
            Self::Device(DeviceError::Formats { .. } | DeviceError::Backend { .. }) => Exit::Config,
            Self::Device(_) | Self::Thread(_) => Exit::Os,
            Self::Server(ServerError::Record(_) | ServerError::OtherDevice { .. }) => Exit::Usage,
            Self::Server(_) => Exit::Os,
            Self::Panicked => Exit::Software,
        }
    }
}

impl Daemon for Snd {
    const TYPE: &'static str = "snd";
    const PROGRAM: Program = Program {
        name: "agl-virtio-snd",
        version: env!("CARGO_PKG_VERSION"),
        about: "A sound card for a virtual machine (virtio-snd over vhost-user)",
        examples:
            "  A card that plays into WAV files in ./agl-virtio-snd and records silence or a tone:
    agl-virtio-snd --socket /run/snd.sock
  The same, with a place for the files and something to record:
    agl-virtio-snd --socket /run/snd.sock --output /tmp/played --input speech.wav
  What a guest's file describes, checked and not started:
    agl-virtio-snd --config /etc/agl-virtio/ivi.toml --device cabin --check
  QEMU's side of it:
    -chardev socket,id=snd,path=/run/snd.sock -device vhost-user-snd-pci,chardev=snd,controls=on",
    };
    type Options = SndOptions;
    type Config = SndConfig;
    type Error = SndError;

    fn configure(options: &SndOptions, config: &mut SndConfig) {
        config.polling |= options.polling;
        config.said = Said {
            output: options.output.is_some(),
            input: options.input.is_some(),
        };
        for stream in &mut config.streams {
            if let Some(pace) = options.null {
                let pace = pace == NullPace::Paced;
                stream.backend = BackendConfig::Null(crate::config::NullConfig { pace });
            }
            let BackendConfig::File(file) = &mut stream.backend else {
                continue;
            };
            let output = options.output.as_ref();
            if let Some(folder) = output.filter(|_| stream.direction == Direction::Output) {
                let name = file.path.rsplit('/').next().unwrap_or("{stream}-{n}.wav");
                file.path = format!("{}/{name}", folder.display());
            }
            let free = stream.direction == Direction::Input && stream.sources.is_empty();
            if options.input.is_some() && free {
                file.input.clone_from(&options.input);
            }
        }
        config.offer_what_files_have();
    }

    fn sandbox(config: &SndConfig, policy: &mut Policy) {
        policy.backend_threads();
        for stream in &config.streams {
            crate::sandbox::allow(stream, policy);
        }
    }

    fn host(config: &SndConfig, place: &Place, problems: &mut Problems) {
        config.look_at_host(place, problems);
    }

    fn is_same_device(old: &SndConfig, new: &SndConfig) -> bool {
        topology::told(old) == topology::told(new)
    }

    fn serve(service: Service<SndConfig>, config: SndConfig) -> Result<(), SndError> {
        config::seal();
        let (sandbox, priority) = (service.sandbox.clone(), config.realtime_priority);
        // Below the queue thread. Threads that a sound library starts inherit it: PipeWire plays
        // from one of them.
        let prepare_stream = Arc::new(move |name: &str| {
            if priority > 1 {
                let report = realtime::enter(priority.saturating_sub(1));
                log::debug!("thread {name}: {report}");
            }
            sandbox.enter(Role::Backend);
        });
        let device = SoundDevice::new(
            service.guest(),
            service.device(),
            &config,
            &(prepare_stream as Arc<dyn Fn(&str) + Send + Sync>),
        )?;
        let device = Arc::new(device.watched(service.health.worker("snd")));
        let panel = Arc::clone(device.panel());
        if let Err(error) = control::show(&service.bus, &config, &panel) {
            log::error!("the streams stay off the bus: {error}");
        }
        let server = Arc::new(server(&service, &config, device)?);
        log::info!("{}", greeting::of(&config, &service.listener));
        let former = service.former.clone();
        let running = Running::new(former.unwrap_or_else(|| config.clone()), Arc::clone(&panel));
        let running = Arc::new(Mutex::new(running));
        let reload = move |new: &SndConfig| {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            running.reload(new).log();
        };
        let edited = reload.clone();
        panel.when_restored(move || edited(&config));
        service.on_reload(move |new| reload(&new));
        if let Some(change) = service.show(Arc::new(Info::new(&server, panel))) {
            server.observe(move || change.changed());
        }
        let session = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || session(&service, &server))
            .map_err(SndError::Thread)?;
        session.join().map_err(|_| SndError::Panicked)?
    }
}

fn server(
    service: &Service<SndConfig>,
    config: &SndConfig,
    device: Arc<SoundDevice>,
) -> Result<Server, SndError> {
    let record = service.record.as_ref().map(|fd| fd.try_clone());
    let record = record.transpose().map_err(SndError::Thread)?;
    let record = record.map(|fd| Record::open(fd.into()));
    let (sandbox, priority) = (service.sandbox.clone(), config.realtime_priority);
    let options = ServerOptions {
        record: record.transpose().map_err(ServerError::from)?,
        prepare_thread: Arc::new(move |name| {
            if priority > 0 {
                log::info!("thread {name}: {}", realtime::enter(priority));
            }
            sandbox.enter(Role::Queue);
        }),
    };
    Ok(Server::new(device, options)?)
}

/// Speaks vhost-user until the service is asked to end.
fn session(service: &Service<SndConfig>, server: &Arc<Server>) -> Result<(), SndError> {
    let (asked, stop) = (service.stop.clone(), server.stop_handle());
    let waiter = std::thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            let _ = asked.wait(None);
            stop.stop();
        });
    waiter.map_err(SndError::Thread)?;
    service.sandbox.enter(Role::Session);
    service.ready();
    Ok(server.serve(&service.listener)?)
}

/// What the device tells about itself on the bus.
struct Info {
    stats: DeviceStats,
    offered: u64,
    acked: Arc<AtomicU64>,
    connected: Arc<AtomicBool>,
    panel: Arc<Panel>,
}

impl Info {
    fn new(server: &Server, panel: Arc<Panel>) -> Self {
        Self {
            stats: server.stats(),
            offered: server.offered_features(),
            acked: server.acked_features(),
            connected: server.connected(),
            panel,
        }
    }
}

impl DeviceInfo for Info {
    fn state(&self) -> DeviceState {
        if self.panel.has_driver() {
            DeviceState::Running
        } else if self.connected.load(Ordering::Relaxed) {
            DeviceState::Connected
        } else {
            DeviceState::Waiting
        }
    }

    fn features_offered(&self) -> u64 {
        self.offered
    }

    fn features_acknowledged(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    fn restarts(&self) -> u32 {
        self.panel.restarts()
    }

    fn statistics(&self) -> Vec<QueueStatistics> {
        let queues = self.stats.queues();
        queues
            .map(|(_, queue)| BTreeMap::from(queue.counters()))
            .collect()
    }
}
