// SPDX-License-Identifier: Apache-2.0

//! The device in TOML.
//!
//! ```toml
//! [devices.decoder]
//! type = "video"
//! function = "decoder"
//! max_sessions = 8
//!
//! [devices.decoder.elements.decoders]     # without this: codecs in software
//! h264 = "h264parse ! omxh264dec"
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agl_virtio_codec::isolation::Isolation;
use agl_virtio_codec::process::Setup;
use agl_virtio_codec::{Codec, Elements, Size};
use agl_virtio_service::config::{Problems, Validate};
use serde::Deserialize;

use crate::model::{Function, Limits};
use crate::statistics::Quota;
use crate::wire::{Dialect, V3, V5};

/// The smallest side of a picture.
const LEAST_SIDE: u32 = 16;

/// Which draft of virtio-video the guest speaks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DialectChoice {
    /// Draft v5, as AGL's guests of 2021.
    #[default]
    V5,
    /// Draft v3, as ChromeOS' guests.
    V3,
}

impl DialectChoice {
    /// The dialect.
    #[must_use]
    pub fn dialect(self) -> Arc<dyn Dialect> {
        match self {
            Self::V5 => Arc::new(V5),
            Self::V3 => Arc::new(V3),
        }
    }
}

/// The device's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which way it codes.
    pub function: Function,
    /// Which draft the guest speaks.
    pub dialect: DialectChoice,
    /// Offer these codecs only; without it, all whose elements are there.
    pub codecs: Option<Vec<Codec>>,
    /// Elements of GStreamer behind the codecs.
    pub elements: Elements,
    /// Streams at once (1 to 64).
    pub max_sessions: u32,
    /// Pixels per second of all streams together.
    pub max_pixel_rate: u64,
    /// Pixels in a row (16 to 16384).
    pub max_width: u32,
    /// Rows (16 to 16384).
    pub max_height: u32,
    /// A codec that does nothing for so long ends its stream, in seconds (1 to 3600).
    pub watchdog: u32,
    /// Where the codecs run.
    pub isolation: Isolation,
    /// MiB that the codec of a stream may have in a process of its own (64 to 65536).
    pub session_memory: u32,
    /// Files and folders that the elements need beyond what the sandbox leaves, such as
    /// `/dev/rgnmm`.
    pub paths: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            function: Function::default(),
            dialect: DialectChoice::default(),
            codecs: None,
            elements: Elements::default(),
            max_sessions: 8,
            // Two pictures of 3840x2160 at 60 Hz.
            max_pixel_rate: 1_000_000_000,
            max_width: 4096,
            max_height: 4096,
            watchdog: 20,
            isolation: Isolation::default(),
            // Of 3840x2160 with sixteen reference pictures libav has 500.
            session_memory: 2048,
            paths: Vec::new(),
        }
    }
}

impl Config {
    /// Whether a running guest finds its codecs in those of `other`: what its driver was told once.
    /// The elements behind them may change, and how much there may be at once.
    pub(crate) fn is_same_device(&self, other: &Self) -> bool {
        let told = |of: &Self| {
            (
                of.function,
                of.dialect,
                of.codecs.clone(),
                of.max_width,
                of.max_height,
            )
        };
        told(self) == told(other)
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.range("max_sessions", &self.max_sessions, 1..=64);
        problems.range("max_width", &self.max_width, LEAST_SIDE..=16_384);
        problems.range("max_height", &self.max_height, LEAST_SIDE..=16_384);
        problems.range("watchdog", &self.watchdog, 1..=3600);
        problems.range("session_memory", &self.session_memory, 64..=65_536);
        problems.require(
            self.max_pixel_rate > 0,
            "max_pixel_rate",
            "allows no picture at all",
            "pixels per second, such as 124416000 for 1920x1080 at 60 Hz",
        );
        problems.require(
            self.codecs.as_ref().is_none_or(|codecs| !codecs.is_empty()),
            "codecs",
            "offers nothing",
            "codecs such as [\"h264\"], or leave it out for all",
        );
    }
}

impl Config {
    /// Sizes that are offered.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            least: Size::new(LEAST_SIDE, LEAST_SIDE),
            most: Size::new(self.max_width, self.max_height),
        }
    }

    /// What the guest may have.
    #[must_use]
    pub fn quota(&self) -> Quota {
        Quota {
            sessions: self.max_sessions,
            pixel_rate: self.max_pixel_rate,
        }
    }

    /// After how long a codec that does nothing is given up.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.watchdog.into())
    }

    /// What the processes of codecs are for. `log` is how much they say.
    #[must_use]
    pub fn setup(&self, sandbox: bool, log: log::LevelFilter) -> Setup {
        Setup {
            elements: self.wanted(),
            paths: self.paths.clone(),
            patience: self.patience(),
            memory: u64::from(self.session_memory) << 20,
            pixels: self.limits().most.even().pixels(),
            sessions: self.max_sessions,
            sandbox,
            log: log.to_string(),
        }
    }

    /// The elements of the function that is wanted, and of the codecs that are.
    #[must_use]
    pub fn wanted(&self) -> Elements {
        let mut elements = self.elements.clone();
        match self.function {
            Function::Decoder => elements.encoders.clear(),
            Function::Encoder => elements.decoders.clear(),
        }
        if let Some(codecs) = &self.codecs {
            elements.decoders.retain(|codec, _| codecs.contains(codec));
            elements.encoders.retain(|codec, _| codecs.contains(codec));
        }
        elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &Config) -> Vec<String> {
        let mut problems = Problems::new();
        config.validate(&mut problems);
        let list = problems.into_list();
        list.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_default_needs_no_file() {
        assert_eq!(problems(&Config::default()), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let config = Config {
            codecs: Some(Vec::new()),
            max_sessions: 0,
            max_pixel_rate: 0,
            max_width: 15,
            max_height: 16_385,
            watchdog: 0,
            session_memory: 63,
            ..Config::default()
        };
        let mut named = problems(&config);
        named.sort();
        assert_eq!(
            named,
            [
                "codecs",
                "max_height",
                "max_pixel_rate",
                "max_sessions",
                "max_width",
                "session_memory",
                "watchdog"
            ]
        );
    }

    #[test]
    fn only_the_wanted_elements_are_looked_for() {
        let config = Config {
            function: Function::Encoder,
            codecs: Some(vec![Codec::Vp8]),
            ..Config::default()
        };
        let wanted = config.wanted();
        assert!(wanted.decoders.is_empty());
        assert_eq!(wanted.encoders.keys().collect::<Vec<_>>(), [&Codec::Vp8]);
    }

    #[test]
    fn a_running_guest_may_have_other_elements_but_not_other_codecs() {
        let config = Config::default();
        assert!(config.is_same_device(&Config {
            max_sessions: 1,
            ..Config::default()
        }));
        let codecs = Some(vec![Codec::H264]);
        assert!(!config.is_same_device(&Config {
            codecs,
            ..Config::default()
        }));
        assert!(!config.is_same_device(&Config {
            max_width: 640,
            ..Config::default()
        }));
    }
}
