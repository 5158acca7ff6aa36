// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, its server.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agl_virtio_service::bus::{DeviceInfo, DeviceState, QueueStatistics};
use agl_virtio_service::cli::Program;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service, realtime};
use virtio_device::stats::DeviceStats;
use virtio_device::{Options as ServerOptions, Record, Server, ServerError};

use crate::camera::Camera;
use crate::camera::source::{Source, SourceError, TestPicture};
use crate::config::{Config, SourceKind};
use crate::control;
use crate::device::MediaDevice;
use crate::statistics::Statistics;

/// The service's own options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show what this GStreamer pipeline gives, such as "v4l2src device=/dev/video0"
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,

    /// A file that the pipeline needs, such as /dev/video0; may be given again
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,

    /// The camera's name in the guest
    #[arg(long, value_name = "NAME")]
    card: Option<String>,
}

/// Why the service ends.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The camera's source cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A server cannot be made or fails.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The host refused something.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread has panicked.
    #[error("the session thread has panicked; the log says where")]
    Panicked,
}

impl ExitReason for MediaError {
    fn exit(&self) -> Exit {
        match self {
            Self::Source(_) => Exit::Config,
            Self::Server(_) | Self::Host { .. } => Exit::Os,
            Self::Panicked => Exit::Software,
        }
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> MediaError {
    move |source| MediaError::Host { what, source }
}

/// The daemon.
pub struct Media;

impl Daemon for Media {
    const TYPE: &'static str = "media";
    const PROGRAM: Program = Program {
        name: "agl-virtio-media",
        version: env!("CARGO_PKG_VERSION"),
        about: "A camera for a virtual machine (virtio-media over vhost-user)",
        examples: "  A moving test picture:\n\
                   \x20   agl-virtio-media --socket /run/camera.sock\n\
                   \x20 A camera of this host:\n\
                   \x20   agl-virtio-media --socket /run/camera.sock --pipeline \"v4l2src device=/dev/video0\" --path /dev/video0\n\
                   \x20 What a guest's file describes, checked and not started:\n\
                   \x20   agl-virtio-media --config /etc/agl-virtio/ivi.toml --device rear --check",
    };
    type Options = Options;
    type Config = Config;
    type Error = MediaError;

    fn configure(options: &Options, config: &mut Config) {
        if let Some(pipeline) = &options.pipeline {
            config.pipeline.clone_from(pipeline);
            config.source = SourceKind::Gstreamer;
        }
        config.paths.extend(options.path.iter().cloned());
        if let Some(card) = &options.card {
            config.card.clone_from(card);
        }
    }

    fn is_same_device(old: &Config, new: &Config) -> bool {
        old.is_same_device(new)
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        if config.source == SourceKind::TestPicture {
            return;
        }
        policy.backend_threads();
        policy
            .read_only("/proc")
            .read_only("/sys")
            .read_only("/usr/share")
            .read_write("/dev/shm");
        for (variable, folder) in [("HOME", ".cache/gstreamer-1.0"), ("XDG_RUNTIME_DIR", "")] {
            if let Some(home) = std::env::var_os(variable) {
                policy.read_write(PathBuf::from(home).join(folder));
            }
        }
        for path in &config.paths {
            policy.read_write(path);
        }
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), MediaError> {
        let statistics = Arc::new(Statistics::default());
        let source = source(&service, &config)?;
        let camera = Camera::new(
            config.card.clone(),
            config.modes(),
            source,
            Arc::clone(&statistics),
        );
        let device = MediaDevice::new(
            &config.card,
            Box::new(camera),
            config.max_sessions,
            Arc::clone(&statistics),
            service.health.worker("media"),
        );
        let server = Arc::new(server(&service, &config, device)?);
        if let Err(error) = control::show(&service.bus, &config, &statistics) {
            log::error!("the camera stays off the bus: {error}");
        }
        if let Some(change) = service.show(Arc::new(Info::of(&server))) {
            server.observe(move || change.changed());
        }
        let session = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || session(&service, &server))
            .map_err(host("start the session's thread"))?;
        session.join().map_err(|_| MediaError::Panicked)?
    }
}

#[cfg(feature = "gstreamer")]
fn pipeline(service: &Service<Config>, config: &Config) -> Result<Box<dyn Source>, MediaError> {
    use crate::camera::gstreamer::PipelineSource;

    let sandbox = service.sandbox.clone();
    let prepare = move || sandbox.enter(Role::Backend);
    Ok(Box::new(PipelineSource::new(&config.pipeline, prepare)?))
}

#[cfg(not(feature = "gstreamer"))]
fn pipeline(_service: &Service<Config>, _config: &Config) -> Result<Box<dyn Source>, MediaError> {
    let reason = "this service was built without GStreamer".to_owned();
    Err(SourceError(reason).into())
}

fn source(service: &Service<Config>, config: &Config) -> Result<Box<dyn Source>, MediaError> {
    match config.source {
        SourceKind::TestPicture => Ok(Box::<TestPicture>::default()),
        SourceKind::Gstreamer => pipeline(service, config),
    }
}

fn server(
    service: &Service<Config>,
    config: &Config,
    device: MediaDevice,
) -> Result<Server, MediaError> {
    let record = service.record.as_ref().map(|fd| fd.try_clone());
    let record = record.transpose().map_err(host("take the record"))?;
    let record = record.map(|fd| Record::open(fd.into()));
    let (sandbox, priority) = (service.sandbox.clone(), config.priority);
    let options = ServerOptions {
        record: record.transpose().map_err(ServerError::from)?,
        prepare_thread: Arc::new(move |name| {
            if priority > 0 {
                log::info!("thread {name}: {}", realtime::enter(priority));
            }
            sandbox.enter(Role::Queue);
        }),
    };
    Ok(Server::new(Arc::new(device), options)?)
}

/// Speaks vhost-user until the service is asked to end.
fn session(service: &Service<Config>, server: &Arc<Server>) -> Result<(), MediaError> {
    let (asked, stop) = (service.stop.clone(), server.stop_handle());
    let waiter = std::thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            let _ = asked.wait(None);
            stop.stop();
        });
    waiter.map_err(host("start a thread"))?;
    service.sandbox.enter(Role::Session);
    service.ready();
    Ok(server.serve(&service.listener)?)
}
/// What the device tells about itself.
struct Info {
    stats: DeviceStats,
    offered: u64,
    acked: Arc<AtomicU64>,
    connected: Arc<AtomicBool>,
    restarts: u32,
}

impl Info {
    fn of(server: &Server) -> Self {
        Self {
            stats: server.stats(),
            offered: server.offered_features(),
            acked: server.acked_features(),
            connected: server.connected(),
            restarts: server.restarts(),
        }
    }
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
