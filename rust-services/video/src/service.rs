// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, its server.

use std::sync::Arc;

use agl_virtio_codec::isolation::{self, Supply};
use agl_virtio_codec::{Bell, CodecError, Host};
use agl_virtio_service::cli::{CommonArgs, Program};
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service, ServingError};
use virtio_device::{Options as ServerOptions, Server};

use crate::config::{Config, DialectChoice};
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
        let setup = || config.setup(!common.no_sandbox, common.log);
        isolation::prepare(config.isolation, setup)
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        isolation::allow(policy, &config.paths);
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), VideoError> {
        let bell = Arc::new(Bell::default());
        let supply = supply(&config, &service, &bell)?;
        let offered = match config.function {
            Function::Decoder => supply.decoders,
            Function::Encoder => supply.encoders,
        };
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
        let device = VideoDevice::new(shared, supply.codecs, bell, beat);
        let seat = service.first_seat(server(&service, device)?)?;
        if let Err(error) = control::show(&service.bus, identity, &statistics) {
            log::error!("the codecs stay off the bus: {error}");
        }
        service.show_seat(&seat);
        service.ready();
        Ok(service.serve(vec![seat])?)
    }
}

/// The codecs of this host.
fn supply(
    config: &Config,
    service: &Service<Config>,
    bell: &Arc<Bell>,
) -> Result<Supply, CodecError> {
    let (ring, sandbox) = (Arc::clone(bell), service.sandbox.clone());
    let host = Host {
        notify: Arc::new(move || ring.ring()),
        // Mostly the queue thread starts them, and they may do what it may.
        prepare: Arc::new(move || sandbox.enter(Role::Backend)),
        patience: config.patience(),
    };
    Supply::open(&config.wanted(), host)
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
