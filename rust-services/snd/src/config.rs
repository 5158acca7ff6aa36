// SPDX-License-Identifier: Apache-2.0

//! The configuration of a sound device: what the guest's card has, and where its sound goes.
//!
//! ```toml
//! [devices.cabin]
//! type = "snd"
//!
//! [[devices.cabin.streams]]
//! name = "Music"
//! backend = { type = "file", path = "/var/lib/sound/{guest}-{stream}-{n}.wav" }
//!
//! [[devices.cabin.streams]]
//! name = "Chime"
//! device = 1
//! role = "emergency"
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use crate::backend::Role;
use crate::backend::file::{FileConfig, SourceConfig};
use crate::format::{Format, Rate};
use crate::policy::StepBack;
use crate::wire::Direction;

mod check;
mod defaults;
mod host;
mod offer;
mod servers;
mod written;

pub use servers::{AlsaConfig, GstreamerConfig};

/// Most streams of a device: each has a thread of its own.
pub const MOST_STREAMS: usize = 64;
/// Most jacks of a device.
pub const MOST_JACKS: usize = 32;
/// Most channel maps of a device.
pub const MOST_CHMAPS: usize = 256;

/// A sound device.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SndConfig {
    /// Streams, in the order in which the driver numbers them. Without any: two outputs (Multimedia
    /// on PCM device 0, Emergency on 1) and an input (Microphone on 0), all to and from files.
    pub streams: Vec<StreamConfig>,
    /// Jacks. Without any: headphone and microphone on PCM device 0.
    pub jacks: Vec<JackConfig>,
    /// Channel maps. Without any: the usual ones of 1, 2, 4, 6 and 8 channels for each PCM device.
    pub chmaps: Vec<ChmapConfig>,
    /// Offers `VIRTIO_SND_PCM_F_MSG_POLLING`: a Linux guest then never kicks, and the service looks
    /// by itself four times a period. More work for the host, less for the guest.
    pub polling: bool,
    /// Priority of the queue thread under SCHED_FIFO, 1 to 99; 0 leaves it an ordinary thread.
    pub realtime_priority: u8,
    /// What the command line said instead of the file: mistakes are told by its words.
    #[serde(skip)]
    pub said: Said,
}

/// Which paths came from the command line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// `--output`.
    pub output: bool,
    /// `--input`.
    pub input: bool,
}

/// A stream of a sound device.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Its name in mixers, on D-Bus and in file names: 1 to 24 letters, digits, spaces, `-` or `_`.
    pub name: String,
    /// Playback or capture.
    pub direction: Direction,
    /// Number of the PCM device in a Linux guest. Streams that share it are its substreams.
    pub device: u32,
    /// Fewest channels.
    pub channels_min: u8,
    /// Most channels.
    pub channels_max: u8,
    /// Frame rates in hertz; without this key, the usual ones up to 96 kHz.
    pub rates: Vec<u32>,
    /// Sample formats; without this key, all that have arithmetic and that the back end can do.
    pub formats: Vec<Format>,
    /// Purpose.
    pub role: Role,
    /// Which streams it is heard over, 1 to 1000; by default 10, 20, 30, 40 by role.
    pub priority: Option<u32>,
    /// What it does while an output stream of higher priority plays.
    pub step_back: StepBack,
    /// By how many decibels it goes down then, −60 to 0.
    pub duck_level: f64,
    /// Volume at the start of the service, 0 (silence) to 100 (unity) in half decibels.
    pub volume: u32,
    /// Whether the guest has elements for its volume, mute and source.
    pub controls: bool,
    /// What an input can choose from. Without any: `Microphone`, which is the back end's `input`,
    /// and `Tone`, a sine of 1 kHz.
    pub sources: Vec<SourceConfig>,
    /// Where its sound goes to or comes from.
    pub backend: BackendConfig,
}

/// Where sound goes to or comes from.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "written::Written")]
pub enum BackendConfig {
    /// WAV files.
    File(FileConfig),
    /// Nowhere: what is played is read and forgotten, what is recorded is silence.
    Null(NullConfig),
    /// A card or a sound server, through alsa-lib.
    Alsa(AlsaConfig),
    /// Any GStreamer pipeline.
    Gstreamer(GstreamerConfig),
}

/// The `null` back end's options.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NullConfig {
    /// Whether it keeps time. Without it a guest plays as fast as it can: for measurements.
    pub pace: bool,
}

/// What a jack is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words say it")]
pub enum JackKind {
    Headphone,
    Lineout,
    Speaker,
    Spdif,
    Microphone,
    Linein,
}

/// A jack of a sound device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct JackConfig {
    /// Its name on D-Bus.
    pub name: String,
    /// What it is; a Linux guest names it by this.
    pub kind: JackKind,
    /// Number of the PCM device it belongs to.
    #[serde(default)]
    pub device: u32,
    /// Whether something is plugged in when the service starts.
    #[serde(default)]
    pub connected: bool,
}

/// A channel map.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ChmapConfig {
    /// Number of the PCM device it belongs to.
    #[serde(default)]
    pub device: u32,
    /// Playback or capture.
    #[serde(default)]
    pub direction: Direction,
    /// Position of each channel, by the specification's names: `FL`, `FR`, `LFE` …
    pub positions: Vec<String>,
}

/// Whether back ends cannot be tried any more.
static SEALED: AtomicBool = AtomicBool::new(false);

/// From now on nothing may be loaded into this process, so the back ends of a new configuration are
/// not tried: the next start of the service uses and tries them.
pub fn seal() {
    SEALED.store(true, Ordering::Relaxed);
}

impl StreamConfig {
    fn rate_set(&self) -> impl Iterator<Item = Rate> {
        self.rates
            .iter()
            .filter_map(|hertz| Rate::from_hertz(*hertz))
    }

    /// Rate bits that are offered.
    #[must_use]
    pub fn rate_bits(&self) -> u64 {
        self.rate_set().fold(0, |bits, rate| bits | rate.bit())
    }

    /// Format bits that are offered, of those that the back end can do.
    #[must_use]
    pub fn format_bits(&self, possible: u64) -> u64 {
        let wanted = self
            .formats
            .iter()
            .fold(0, |bits, format| bits | format.bit());
        wanted & possible
    }

    /// Priority, its own or that of its role.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.priority.unwrap_or(self.role.priority())
    }

    /// Duck level in hundredths of a decibel.
    #[must_use]
    pub fn duck_centibels(&self) -> i32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "−60 to 0 by validation; a cast saturates"
        )]
        let centibels = (self.duck_level * 100.0).round() as i32;
        centibels
    }

    /// What an input can choose from.
    #[must_use]
    pub fn source_list(&self) -> Vec<SourceConfig> {
        if self.direction == Direction::Output || !self.sources.is_empty() {
            return self.sources.clone();
        }
        let BackendConfig::File(file) = &self.backend else {
            return Vec::new();
        };
        let microphone = SourceConfig {
            name: "Microphone".into(),
            input: file.input.clone(),
            tone: None,
        };
        vec![
            microphone,
            SourceConfig {
                name: "Tone".into(),
                input: None,
                tone: Some(1000.0),
            },
        ]
    }
}

#[cfg(test)]
mod tests;
