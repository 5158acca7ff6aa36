// SPDX-License-Identifier: Apache-2.0

//! What a sound device is when nothing is said.

use super::{
    BackendConfig, ChmapConfig, FileConfig, JackConfig, JackKind, NullConfig, Said, SndConfig,
    StreamConfig,
};
use crate::backend::Role;
use crate::format::{Format, Rate};
use crate::policy::{StepBack, VOLUME_MAX};
use crate::wire::Direction;

/// Fast enough for every loudspeaker; more would make Linux reserve megabytes per stream.
const FASTEST_DEFAULT: u32 = 96_000;

impl Default for SndConfig {
    fn default() -> Self {
        let named = |name: &str| StreamConfig {
            name: name.to_owned(),
            ..StreamConfig::default()
        };
        let jack = |name: &str, kind, connected| JackConfig {
            name: name.to_owned(),
            kind,
            device: 0,
            connected,
        };
        Self {
            streams: vec![
                named("Multimedia"),
                StreamConfig {
                    device: 1,
                    role: Role::Emergency,
                    ..named("Emergency")
                },
                StreamConfig {
                    direction: Direction::Input,
                    ..named("Microphone")
                },
            ],
            jacks: vec![
                jack("Headphone", JackKind::Headphone, false),
                jack("Microphone", JackKind::Microphone, true),
            ],
            chmaps: Vec::<ChmapConfig>::new(),
            polling: false,
            realtime_priority: 20,
            said: Said::default(),
        }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        let rates = Rate::all()
            .filter(|rate| rate.known_before_1_4() && rate.hertz() <= FASTEST_DEFAULT)
            .map(Rate::hertz);
        Self {
            name: String::new(),
            direction: Direction::Output,
            device: 0,
            channels_min: 1,
            channels_max: 8,
            rates: rates.collect(),
            formats: Format::ALL
                .into_iter()
                .filter(|format| format.has_arithmetic())
                .collect(),
            role: Role::Multimedia,
            priority: None,
            step_back: StepBack::Duck,
            duck_level: -20.0,
            volume: VOLUME_MAX,
            controls: true,
            sources: Vec::new(),
            backend: BackendConfig::default(),
        }
    }
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self::File(FileConfig::default())
    }
}

impl Default for NullConfig {
    fn default() -> Self {
        Self { pace: true }
    }
}
