// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, its server.

use std::sync::{Arc, Mutex, PoisonError};

use agl_virtio_codec::process::{Nursery, Workers, registry};
use agl_virtio_codec::{Bell, Codec, CodecError, Host, Library};
use agl_virtio_service::cli::{CommonArgs, Program};
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service, ServingError};
use virtio_device::{Options as ServerOptions, Server};

use crate::coder::{Codecs, HostCodecs};
use crate::config::{Config, DialectChoice, Isolation};
use crate::control::{self, Identity};
use crate::device::VideoDevice;
use crate::model::{Formats, Function, Shared};
use crate::statistics::Statistics;

/// Which way the device codes, on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum FunctionChoice {
    /// Pictures out of coded streams.
    Decoder,
    /// Coded streams out of pictures.
    Encoder,
}

/// The service's own options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What the device is
    #[arg(long, value_name = "FUNCTION")]
    function: Option<FunctionChoice>,

    /// The draft of virtio-video that the guest speaks
    #[arg(long, value_name = "DRAFT")]
    dialect: Option<DialectChoice>,
}

/// Why the service ends.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    /// There is no codec.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The guest cannot be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
}

impl ExitReason for VideoError {
    fn exit(&self) -> Exit {
        match self {
            Self::Codec(_) => Exit::Config,
            Self::Serving(error) => error.exit(),
        }
    }
}

/// The daemon.
pub struct Video;

/// Born before the sandbox, wanted after it.
static NURSERY: Mutex<Option<Nursery>> = Mutex::new(None);

impl Daemon for Video {
    const TYPE: &'static str = "video";
    const PROGRAM: Program = Program {
        name: "agl-virtio-video",
        version: env!("CARGO_PKG_VERSION"),
        about: "Hardware codecs for a virtual machine (virtio-video over vhost-user)",
        examples: "  A decoder with every codec that GStreamer has:\n\
                   \x20   agl-virtio-video --socket /run/decoder.sock\n\
                   \x20 An encoder for a guest of ChromeOS:\n\
                   \x20   agl-virtio-video --socket /run/encoder.sock --function encoder --dialect v3\n\
                   \x20 What a guest's file describes, checked and not started:\n\
                   \x20   agl-virtio-video --config /etc/agl-virtio/ivi.toml --device decoder --check",
    };
    type Options = Options;
    type Config = Config;
    type Error = VideoError;

    fn configure(options: &Options, config: &mut Config) {
        match options.function {
            Some(FunctionChoice::Decoder) => config.function = Function::Decoder,
            Some(FunctionChoice::Encoder) => config.function = Function::Encoder,
            None => {}
        }
        if let Some(dialect) = options.dialect {
            config.dialect = dialect;
        }
    }

    fn is_same_device(old: &Config, new: &Config) -> bool {
        old.is_same_device(new)
    }

    fn usual_name(config: &Config) -> &'static str {
        match config.function {
            Function::Decoder => "decoder",
            Function::Encoder => "encoder",
        }
    }

    fn before_sandbox(config: &Config, common: &CommonArgs) -> std::io::Result<()> {
        if let Some(folder) = registry() {
            // Only what is there can be left open. Without it each start looks at all plugins.
            let _ = std::fs::create_dir_all(folder);
        }
        if config.isolation == Isolation::Process {
            let nursery = Nursery::start(config.setup(!common.no_sandbox, common.log))?;
            *NURSERY.lock().unwrap_or_else(PoisonError::into_inner) = Some(nursery);
        }
        Ok(())
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        policy.backend_threads();
        // Codecs of libav and of x264 and x265 count processors and look at what they can do.
        policy
            .read_only("/proc")
            .read_only("/sys/devices/system")
            .read_only("/usr/share");
        if let Some(folder) = registry() {
            policy.read_write(folder);
        }
        for path in &config.paths {
            policy.read_write(path);
        }
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), VideoError> {
        let bell = Arc::new(Bell::default());
        let (host_codecs, offered) = codecs(&config, &service, &bell)?;
        let dialect = config.dialect.dialect();
        let formats = Formats::new(offered.into_iter(), config.limits(), &*dialect);
        if formats.codecs().is_empty() {
            return Err(CodecError::NoCodec.into());
        }
        let codecs: Vec<&'static str> = formats.codecs().iter().map(|codec| codec.name()).collect();
        log::info!(
            "{:?} of draft {}: {}",
            config.function,
            dialect.name(),
            codecs.join(", ")
        );
        let statistics = Arc::new(Statistics::new(config.quota()));
        let identity = Identity {
            function: config.function,
            dialect: dialect.name(),
            isolation: config.isolation.name(),
            codecs,
        };
        let shared = Shared {
            function: config.function,
            dialect,
            formats,
            statistics: Arc::clone(&statistics),
        };
        let beat = service.health.worker("video");
        let device = VideoDevice::new(shared, host_codecs, bell, beat);
        let seat = service.first_seat(server(&service, device)?)?;
        if let Err(error) = control::show(&service.bus, identity, &statistics) {
            log::error!("the codecs stay off the bus: {error}");
        }
        service.show_seat(&seat);
        service.ready();
        Ok(service.serve(vec![seat])?)
    }
}

/// The codecs, and which there are of the device's function.
fn codecs(
    config: &Config,
    service: &Service<Config>,
    bell: &Arc<Bell>,
) -> Result<(Box<dyn Codecs>, Vec<Codec>), CodecError> {
    let (ring, sandbox) = (Arc::clone(bell), service.sandbox.clone());
    let host = Host {
        notify: Arc::new(move || ring.ring()),
        // Mostly the queue thread starts them, and they may do what it may.
        prepare: Arc::new(move || sandbox.enter(Role::Backend)),
        patience: config.patience(),
    };
    let is_decoder = config.function == Function::Decoder;
    let nursery = NURSERY
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(nursery) = nursery {
        let workers = Workers::new(nursery, host)?;
        let offered = if is_decoder {
            workers.decoders().to_vec()
        } else {
            workers.encoders().to_vec()
        };
        return Ok((Box::new(workers), offered));
    }
    let library = Library::load(&config.wanted())?;
    let offered = if is_decoder {
        library.decoders().collect()
    } else {
        library.encoders().collect()
    };
    Ok((Box::new(HostCodecs { library, host }), offered))
}

fn server(service: &Service<Config>, device: VideoDevice) -> Result<Arc<Server>, ServingError> {
    let sandbox = service.sandbox.clone();
    let options = ServerOptions {
        record: service.kept_record()?,
        // It starts codecs and gives their memory back: a driver of hardware makes system calls then.
        prepare_thread: Arc::new(move |_| sandbox.enter(Role::Backend)),
    };
    Ok(Arc::new(Server::new(Arc::new(device), options)?))
}
