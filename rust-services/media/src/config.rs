// SPDX-License-Identifier: Apache-2.0

//! What a guest's file says about a camera, a decoder or an encoder.

use std::path::PathBuf;

use agl_virtio_service::config::{Problems, Validate};
use serde::Deserialize;

use crate::camera::modes::{Modes, Offered, PixelFormat, Size};
use crate::payload::MAX_PLANE_BYTES;
use crate::rate::{Rate, Rates};

/// Most pixels of a row or of a column.
const MOST: u32 = 7680;
/// The smallest side of a codec's picture.
const LEAST_SIDE: u32 = 16;
/// The largest.
const MOST_SIDE: u32 = 8192;
/// What a buffer holds in four bytes each.
const MOST_PIXELS: u64 = (MAX_PLANE_BYTES / 4) as u64;
/// Pictures in a second of a camera whose file says nothing of them, and that does not say either.
const RATES: [Rate; 6] = [
    Rate::per_second(30),
    Rate::per_second(60),
    Rate::per_second(25),
    Rate::per_second(15),
    Rate::per_second(10),
    Rate::per_second(5),
];

/// What the device is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FunctionKind {
    /// Gives pictures.
    #[default]
    Camera,
    /// Makes pictures of coded streams.
    Decoder,
    /// Makes coded streams of pictures.
    Encoder,
}

impl FunctionKind {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Decoder => "decoder",
            Self::Encoder => "encoder",
        }
    }
}

/// Where pictures come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// The built-in moving test picture.
    #[default]
    TestPicture,
    /// A GStreamer pipeline.
    Gstreamer,
}

/// The device's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the device is.
    pub function: FunctionKind,
    /// Its name, as the guest sees it; without it, a name of ours.
    pub card: Option<String>,
    /// Where a camera's pictures come from.
    pub source: SourceKind,
    /// The pipeline's beginning, up to raw video: `v4l2src device=/dev/video0`.
    pub pipeline: String,
    /// What the pipeline or the codecs' elements need of the file system, such as `/dev/video0`.
    pub paths: Vec<PathBuf>,
    /// Formats, the first one at first.
    pub formats: Vec<PixelFormat>,
    /// Sizes as `WIDTHxHEIGHT`, the first one at first.
    pub sizes: Vec<String>,
    /// Pictures in a second, as `30` or `"30000/1001"`, the first one at first; without it, what the
    /// camera itself says, as far as that is to be had.
    pub rates: Option<Vec<Rate>>,
    /// Sessions that the guest may have at a time.
    pub max_sessions: usize,
    /// Pixels in a second, at most: of a camera over all that the guest may choose, of codecs over
    /// all streams together.
    pub max_pixel_rate: u64,
    /// Offer these codecs only; without it, all whose elements are there.
    #[cfg(feature = "gstreamer")]
    pub codecs: Option<Vec<agl_virtio_codec::Codec>>,
    /// Elements of GStreamer behind the codecs.
    #[cfg(feature = "gstreamer")]
    pub elements: agl_virtio_codec::Elements,
    /// Streams of codecs at work at a time (1 to 64); sessions that do nothing do not count.
    pub max_streams: usize,
    /// Pixels in a row of a codec's pictures (16 to 8192).
    pub max_width: u32,
    /// Their rows (16 to 8192).
    pub max_height: u32,
    /// A codec that does nothing for so long ends its session, in seconds (1 to 3600).
    pub watchdog: u32,
    /// Where the codecs run.
    #[cfg(feature = "gstreamer")]
    pub isolation: agl_virtio_codec::isolation::Isolation,
    /// MiB that the codec of a stream may have in a process of its own (64 to 65536).
    pub session_memory: u32,
    /// MiB of coded bytes and of pictures to encode that the codecs of all streams may hold (1 to
    /// 65536).
    pub input_memory: u32,
    /// MiB of memory that the service has for MMAP buffers of all sessions, and that the guest's shared
    /// memory region for them holds (0 to 4096, a power of two); 0: there are no such buffers.
    pub mmap_memory: u32,
    /// Which camera goes first when there is not time for all: 0 for none, or the real-time
    /// priority of its thread (1 to 99). The rear view camera should have the highest.
    pub priority: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            function: FunctionKind::default(),
            card: None,
            source: SourceKind::TestPicture,
            pipeline: String::new(),
            paths: Vec::new(),
            formats: PixelFormat::ALL.to_vec(),
            sizes: ["640x480", "320x240", "1280x720", "1920x1080"]
                .map(str::to_owned)
                .into(),
            rates: None,
            max_sessions: 128,
            max_pixel_rate: 1920 * 1080 * 60,
            #[cfg(feature = "gstreamer")]
            codecs: None,
            #[cfg(feature = "gstreamer")]
            elements: agl_virtio_codec::Elements::default(),
            max_streams: 8,
            max_width: 4096,
            max_height: 4096,
            watchdog: 20,
            #[cfg(feature = "gstreamer")]
            isolation: agl_virtio_codec::isolation::Isolation::default(),
            // Of 3840x2160 with sixteen reference pictures libav has 500.
            session_memory: 2048,
            // Eight streams of 3840x2160 to be encoded have 400.
            input_memory: 512,
            // Two queues of 32 pictures of 1920x1080 in NV12 have 200.
            mmap_memory: 256,
            priority: 0,
        }
    }
}

/// A size as it is written.
fn size(text: &str) -> Option<Size> {
    let (width, height) = text.split_once('x')?;
    let number = |text: &str, least: u32, step: u32| {
        let number: u32 = text.parse().ok()?;
        (number >= least && number <= MOST && number.checked_rem(step) == Some(0)).then_some(number)
    };
    Some(Size {
        width: number(width, 64, 8)?,
        height: number(height, 16, 2)?,
    })
}

impl Config {
    /// Its name, as the guest sees it.
    #[must_use]
    pub fn card(&self) -> &str {
        self.card.as_deref().unwrap_or(match self.function {
            FunctionKind::Camera => "AGL virtual camera",
            FunctionKind::Decoder => "AGL virtual decoder",
            FunctionKind::Encoder => "AGL virtual encoder",
        })
    }

    /// What the guest may choose from.
    #[must_use]
    pub fn modes(&self) -> Modes {
        let offered = |size| Offered {
            size,
            rates: Rates::List(self.rates().to_vec()),
        };
        Modes {
            formats: self.formats.clone(),
            sizes: self
                .sizes
                .iter()
                .filter_map(|text| size(text))
                .map(offered)
                .collect(),
        }
    }

    /// Pictures in a second, as far as the file says.
    fn rates(&self) -> &[Rate] {
        self.rates.as_deref().unwrap_or(&RATES)
    }
}

impl Config {
    /// Whether a running guest finds its device in that of `other`: what its programs were told once.
    /// Where the pictures come from and which elements are behind the codecs may change.
    pub(crate) fn is_same_device(&self, other: &Self) -> bool {
        #[cfg(feature = "gstreamer")]
        if self.codecs != other.codecs {
            return false;
        }
        let told = |of: &Self| {
            (
                (of.function, of.card().to_owned()),
                (of.formats.clone(), of.sizes.clone(), of.rates.clone()),
                (of.max_width, of.max_height, of.mmap_memory),
            )
        };
        told(self) == told(other)
    }
}

impl Config {
    /// Where its codecs run; nothing of a camera.
    #[must_use]
    pub fn isolation_name(&self) -> &'static str {
        #[cfg(feature = "gstreamer")]
        if self.function != FunctionKind::Camera {
            return self.isolation.name();
        }
        ""
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.range("max_sessions", &self.max_sessions, 1..=1024);
        problems.range("priority", &self.priority, 0..=99);
        // It becomes a PCI BAR of the guest's.
        problems.require(
            self.mmap_memory <= 4096
                && (self.mmap_memory == 0 || self.mmap_memory.is_power_of_two()),
            "mmap_memory",
            format!("is {}", self.mmap_memory),
            "a power of two up to 4096, or 0 for no such memory",
        );
        problems.require(
            !self.card().is_empty() && self.card().len() < 32,
            "card",
            "is no name",
            "1 to 31 bytes",
        );
        match self.function {
            FunctionKind::Camera => self.validate_camera(problems),
            FunctionKind::Decoder | FunctionKind::Encoder => self.validate_codec(problems),
        }
    }
}

impl Config {
    fn validate_camera(&self, problems: &mut Problems) {
        let some = |problems: &mut Problems, is_empty: bool, key: &str| {
            problems.require(!is_empty, key, "is empty", "one at least");
        };
        some(problems, self.formats.is_empty(), "formats");
        some(problems, self.sizes.is_empty(), "sizes");
        some(problems, self.rates().is_empty(), "rates");
        for text in &self.sizes {
            problems.require(
                size(text).is_some(),
                "sizes",
                format!("{text} is no size"),
                format!("WIDTHxHEIGHT, such as 640x480: the width a multiple of 8 from 64, the height even, both up to {MOST}"),
            );
        }
        for rate in self.rates() {
            problems.range("rates", rate, Rate::LEAST..=Rate::MOST);
        }
        let modes = self.modes();
        let largest = modes.sizes.iter().map(Offered::pixel_rate);
        let largest = largest.max().unwrap_or(0);
        problems.require(
            largest <= self.max_pixel_rate,
            "max_pixel_rate",
            format!("is less than the {largest} pixels per second that sizes and rates allow"),
            "a larger one, or smaller sizes or rates",
        );
        problems.require(
            (self.source == SourceKind::Gstreamer) != self.pipeline.trim().is_empty(),
            "pipeline",
            "belongs to source = \"gstreamer\", and that needs one",
            "the pipeline's beginning, such as \"v4l2src device=/dev/video0\"",
        );
    }

    fn validate_codec(&self, problems: &mut Problems) {
        let sides = LEAST_SIDE..=MOST_SIDE;
        problems.range("max_streams", &self.max_streams, 1..=64);
        problems.range("max_width", &self.max_width, sides.clone());
        problems.range("max_height", &self.max_height, sides);
        problems.range("watchdog", &self.watchdog, 1..=3600);
        problems.range("session_memory", &self.session_memory, 64..=65_536);
        problems.range("input_memory", &self.input_memory, 1..=65_536);
        let pixels = u64::from(self.max_width).saturating_mul(self.max_height.into());
        problems.require(
            pixels <= MOST_PIXELS,
            "max_width",
            format!("times max_height is {pixels} pixels"),
            format!("{MOST_PIXELS} at most, such as 4096 times 4096: a buffer holds no more"),
        );
        problems.require(
            self.max_pixel_rate > 0,
            "max_pixel_rate",
            "allows no picture at all",
            "pixels per second, such as 124416000 for 1920x1080 at 60 Hz",
        );
        problems.require(
            self.source == SourceKind::TestPicture && self.pipeline.is_empty(),
            "pipeline",
            "belongs to a camera",
            "elements.decoders or elements.encoders for codecs",
        );
        #[cfg(feature = "gstreamer")]
        problems.require(
            self.codecs.as_ref().is_none_or(|codecs| !codecs.is_empty()),
            "codecs",
            "offers nothing",
            "codecs such as [\"h264\"], or leave it out for all",
        );
    }
}

#[cfg(feature = "gstreamer")]
impl Config {
    /// Sizes of a codec's pictures.
    #[must_use]
    pub fn limits(&self) -> agl_virtio_codec::Limits {
        use agl_virtio_codec::Size;

        agl_virtio_codec::Limits {
            least: Size::new(LEAST_SIDE, LEAST_SIDE),
            most: Size::new(self.max_width, self.max_height),
        }
    }

    /// The elements of the function that is wanted, and of the codecs that are.
    #[must_use]
    pub fn wanted(&self) -> agl_virtio_codec::Elements {
        let codecs = self.codecs.as_deref();
        match self.function {
            FunctionKind::Encoder => self.elements.of_encoder(codecs),
            FunctionKind::Camera | FunctionKind::Decoder => self.elements.of_decoder(codecs),
        }
    }

    /// After how long a codec that does nothing is given up.
    #[must_use]
    pub fn patience(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.watchdog.into())
    }

    /// What the processes of codecs are for. `log` is how much they say.
    #[must_use]
    pub fn setup(&self, sandbox: bool, log: log::LevelFilter) -> agl_virtio_codec::process::Setup {
        agl_virtio_codec::process::Setup {
            elements: self.wanted(),
            paths: self.paths.clone(),
            patience: self.patience(),
            memory: u64::from(self.session_memory) << 20,
            pixels: self.limits().most.even().pixels(),
            sessions: u32::try_from(self.max_streams).unwrap_or(u32::MAX),
            sandbox,
            log: log.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl Fn(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        let mut problems = Problems::new();
        config.validate(&mut problems);
        let list = problems.into_list();
        list.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_default_needs_no_file() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(Config::default().modes().sizes.len(), 4);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for wrong in ["640", "63x48", "640x481", "100000x100", "x", "-8x-8"] {
            assert_eq!(
                problems(|config| config.sizes = vec![wrong.into()]),
                ["sizes"],
                "{wrong}"
            );
        }
        for wrong in ["241", "999/1000", "240001/1000"] {
            let rates = vec![wrong.parse().unwrap()];
            let named = problems(|config| config.rates = Some(rates.clone()));
            assert!(named.contains(&"rates".to_owned()), "{wrong}");
        }
        assert_eq!(
            problems(|config| config.rates = Some(Vec::new())),
            ["rates"]
        );
        assert_eq!(problems(|config| config.formats.clear()), ["formats"]);
        assert_eq!(
            problems(|config| config.max_pixel_rate = 1),
            ["max_pixel_rate"]
        );
        assert_eq!(
            problems(|config| config.source = SourceKind::Gstreamer),
            ["pipeline"]
        );
        assert_eq!(
            problems(|config| config.pipeline = "v4l2src".into()),
            ["pipeline"]
        );
        assert_eq!(
            problems(|config| config.card = Some(String::new())),
            ["card"]
        );
        assert_eq!(problems(|config| config.priority = 100), ["priority"]);
    }

    #[test]
    fn what_a_codec_cannot_be_is_named() {
        let codec = |change: fn(&mut Config)| {
            problems(|config| {
                config.function = FunctionKind::Decoder;
                change(config);
            })
        };
        assert_eq!(codec(|_| {}), Vec::<String>::new());
        assert_eq!(codec(|config| config.max_streams = 0), ["max_streams"]);
        assert_eq!(codec(|config| config.max_height = 8192), ["max_width"]);
        assert_eq!(codec(|config| config.max_height = 9), ["max_height"]);
        assert_eq!(codec(|config| config.watchdog = 0), ["watchdog"]);
        assert_eq!(
            codec(|config| config.session_memory = 63),
            ["session_memory"]
        );
        assert_eq!(codec(|config| config.input_memory = 0), ["input_memory"]);
        assert_eq!(
            codec(|config| config.max_pixel_rate = 0),
            ["max_pixel_rate"]
        );
        assert_eq!(
            codec(|config| config.pipeline = "v4l2src".into()),
            ["pipeline"]
        );
        // What a camera's file would be wrong with does not matter here.
        assert_eq!(codec(|config| config.sizes.clear()), Vec::<String>::new());
    }

    #[test]
    fn a_running_guest_may_have_another_source_but_not_another_camera() {
        let config = Config::default();
        let pipeline = "videotestsrc".to_owned();
        assert!(config.is_same_device(&Config {
            pipeline,
            ..Config::default()
        }));
        let sizes = vec!["320x240".to_owned()];
        assert!(!config.is_same_device(&Config {
            sizes,
            ..Config::default()
        }));
    }
}
