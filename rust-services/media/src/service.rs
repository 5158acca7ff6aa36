// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, its server.

use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "gstreamer")]
use agl_virtio_service::cli::CommonArgs;
use agl_virtio_service::cli::Program;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service, ServingError, realtime};
use virtio_device::{Options as ServerOptions, Server};

use crate::camera::Camera;
use crate::camera::source::{Source, SourceError, TestPicture};
use crate::config::{Config, FunctionKind, SourceKind};
use crate::control;
use crate::device::MediaDevice;
use crate::function::Function;
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

    /// Be a camera, a decoder or an encoder
    #[arg(long, value_name = "FUNCTION")]
    function: Option<FunctionKind>,

    /// The device's name in the guest
    #[arg(long, value_name = "NAME")]
    card: Option<String>,
}

/// Why the service ends.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The camera's source cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no codec.
    #[cfg(feature = "gstreamer")]
    #[error(transparent)]
    Codec(#[from] agl_virtio_codec::CodecError),
    /// The guest can no longer be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
}

impl ExitReason for MediaError {
    fn exit(&self) -> Exit {
        match self {
            Self::Source(_) => Exit::Config,
            #[cfg(feature = "gstreamer")]
            Self::Codec(_) => Exit::Config,
            Self::Serving(reason) => reason.exit(),
        }
    }
}

/// The daemon.
pub struct Media;

impl Daemon for Media {
    const TYPE: &'static str = "media";
    const PROGRAM: Program = Program {
        name: "agl-virtio-media",
        version: env!("CARGO_PKG_VERSION"),
        about: "A camera or a codec for a virtual machine (virtio-media over vhost-user)",
        examples: "  A moving test picture:\n\
                   \x20   agl-virtio-media --socket /run/camera.sock\n\
                   \x20 A camera of this host:\n\
                   \x20   agl-virtio-media --socket /run/camera.sock --pipeline \"v4l2src device=/dev/video0\" --path /dev/video0\n\
                   \x20 A decoder with every codec that GStreamer has:\n\
                   \x20   agl-virtio-media --socket /run/decoder.sock --function decoder\n\
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
            config.card = Some(card.clone());
        }
        if let Some(function) = options.function {
            config.function = function;
        }
    }

    fn is_same_device(old: &Config, new: &Config) -> bool {
        old.is_same_device(new)
    }

    #[cfg(feature = "gstreamer")]
    fn before_sandbox(config: &Config, common: &CommonArgs) -> std::io::Result<()> {
        if config.function == FunctionKind::Camera {
            return Ok(());
        }
        let setup = || config.setup(!common.no_sandbox, common.log);
        agl_virtio_codec::isolation::prepare(config.isolation, setup)
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        let is_camera = config.function == FunctionKind::Camera;
        if config.mmap_memory > 0 {
            policy.open_files(crate::memory::OPEN_FILES);
        }
        if is_camera && config.mmap_memory > 0 {
            // Memory for MMAP buffers, which comes with REQBUFS.
            policy.memory_files(Role::Queue);
        }
        if is_camera && config.source == SourceKind::TestPicture {
            return;
        }
        #[cfg(feature = "gstreamer")]
        agl_virtio_codec::isolation::allow(policy, &config.paths);
        if is_camera {
            policy.read_only("/sys").read_write("/dev/shm");
            if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR") {
                policy.read_write(PathBuf::from(folder));
            }
        }
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), MediaError> {
        let statistics = Arc::new(Statistics::default());
        let (function, codecs) = function(&service, &config, &statistics)?;
        let device = MediaDevice::new(
            config.card(),
            function,
            config.max_sessions,
            Arc::clone(&statistics),
            service.health.worker("media"),
        )
        .with_buffer_memory(u64::from(config.mmap_memory) << 20);
        let seat = service.first_seat(server(&service, &config, device)?)?;
        if let Err(error) = control::show(&service.bus, &config, &codecs, &statistics) {
            log::error!("the device stays off the bus: {error}");
        }
        service.show_seat(&seat);
        service.ready();
        Ok(service.serve(vec![seat])?)
    }
}

/// What the device does, and the codecs that it has.
type Functions = (Box<dyn Function>, Vec<&'static str>);

fn function(
    service: &Service<Config>,
    config: &Config,
    statistics: &Arc<Statistics>,
) -> Result<Functions, MediaError> {
    if config.function != FunctionKind::Camera {
        return codec(service, config, statistics);
    }
    let (mut source, mut modes) = (source(service, config)?, config.modes());
    if config.rates.is_none() {
        modes = modes.at_rates_of(&mut *source, config.max_pixel_rate);
    }
    let name = config.card().to_owned();
    let camera = Camera::new(name, modes, source, Arc::clone(statistics));
    Ok((Box::new(camera), Vec::new()))
}

#[cfg(feature = "gstreamer")]
fn codec(
    service: &Service<Config>,
    config: &Config,
    statistics: &Arc<Statistics>,
) -> Result<Functions, MediaError> {
    use agl_virtio_codec::isolation::Supply;
    use agl_virtio_codec::{Bell, CodecError, Host};

    use crate::codec::{CodecDevice, MOST_RUNS, Offer, Way};

    let bell = Arc::new(Bell::default());
    let (ring, sandbox) = (Arc::clone(&bell), service.sandbox.clone());
    let host = Host {
        notify: Arc::new(move || ring.ring()),
        // Mostly the queue thread starts them, and they may do what it may.
        prepare: Arc::new(move || sandbox.enter(Role::Backend)),
        patience: config.patience(),
    };
    let supply = Supply::open(&config.wanted(), host)?;
    let (way, offered) = if config.function == FunctionKind::Encoder {
        (Way::Encode, supply.encoders)
    } else {
        (Way::Decode, supply.decoders)
    };
    if offered.is_empty() {
        return Err(CodecError::NoCodec.into());
    }
    let names: Vec<_> = offered.iter().map(|codec| codec.name()).collect();
    log::info!("{}: {}", config.function.name(), names.join(", "));
    let offer = Offer {
        way,
        codecs: offered,
        limits: config.limits(),
        max_streams: config.max_streams,
        max_pixel_rate: config.max_pixel_rate,
        max_input_bytes: u64::from(config.input_memory) << 20,
        max_runs: MOST_RUNS,
    };
    let device = CodecDevice::new(offer, supply.codecs, bell, Arc::clone(statistics));
    Ok((Box::new(device), names))
}

#[cfg(not(feature = "gstreamer"))]
fn codec(
    _service: &Service<Config>,
    _config: &Config,
    _statistics: &Arc<Statistics>,
) -> Result<Functions, MediaError> {
    let reason = "this service was built without GStreamer, which has the codecs".to_owned();
    Err(SourceError(reason).into())
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
) -> Result<Arc<Server>, ServingError> {
    let (sandbox, priority) = (service.sandbox.clone(), config.priority);
    // A codec's thread starts elements and gives their memory back: a driver of hardware makes
    // system calls then.
    let role = match config.function {
        FunctionKind::Camera => Role::Queue,
        FunctionKind::Decoder | FunctionKind::Encoder => Role::Backend,
    };
    let options = ServerOptions {
        record: service.kept_record()?,
        prepare_thread: Arc::new(move |name| {
            if priority > 0 {
                log::info!("thread {name}: {}", realtime::enter(priority));
            }
            sandbox.enter(role);
        }),
    };
    Ok(Arc::new(Server::new(Arc::new(device), options)?))
}
