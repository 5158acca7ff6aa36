// SPDX-License-Identifier: Apache-2.0

//! The table `backend` as it is written, before its type says which keys belong to it.
//!
//! serde's own tagged enums forget where each key stands; this way a mistake is shown at its line.

use std::path::PathBuf;

use serde::Deserialize;

use super::{AlsaConfig, BackendConfig, FileConfig, GstreamerConfig, NullConfig};

/// The keys of all back ends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { type = \"alsa\" }")]
pub(super) struct Written {
    #[serde(rename = "type")]
    kind: Kind,
    path: Option<String>,
    input: Option<PathBuf>,
    repeat: Option<bool>,
    pace: Option<bool>,
    pcm: Option<String>,
    pcms: Option<Vec<String>>,
    target_ms: Option<u32>,
    pipeline: Option<String>,
    pipelines: Option<Vec<String>>,
    latency_ms: Option<u32>,
    paths: Option<Vec<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    File,
    Null,
    Alsa,
    Gstreamer,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Null => "null",
            Self::Alsa => "alsa",
            Self::Gstreamer => "gstreamer",
        }
    }

    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::File => &["path", "input", "repeat"],
            Self::Null => &["pace"],
            Self::Alsa => &["pcm", "pcms", "target_ms"],
            Self::Gstreamer => &["pipeline", "pipelines", "latency_ms", "paths"],
        }
    }
}

impl Written {
    /// The keys that are there.
    fn present(&self) -> impl Iterator<Item = &'static str> {
        [
            ("path", self.path.is_some()),
            ("input", self.input.is_some()),
            ("repeat", self.repeat.is_some()),
            ("pace", self.pace.is_some()),
            ("pcm", self.pcm.is_some()),
            ("pcms", self.pcms.is_some()),
            ("target_ms", self.target_ms.is_some()),
            ("pipeline", self.pipeline.is_some()),
            ("pipelines", self.pipelines.is_some()),
            ("latency_ms", self.latency_ms.is_some()),
            ("paths", self.paths.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, there)| there.then_some(key))
    }

    /// The first key that would do nothing, as serde would say it.
    fn idle_key(&self) -> Result<(), String> {
        let keys = self.kind.keys();
        let foreign = self.present().find(|key| !keys.contains(key));
        let beside = |one: bool, many: bool, key| (one && many).then_some(key);
        let doubled = beside(self.pcm.is_some(), self.pcms.is_some(), "pcm").or_else(|| {
            beside(
                self.pipeline.is_some(),
                self.pipelines.is_some(),
                "pipeline",
            )
        });
        let (key, reason) = match (foreign, doubled) {
            (Some(key), _) => (key, format!("of the {} back end", self.kind.name())),
            (None, Some(key)) => (key, format!("beside {key}s")),
            (None, None) => return Ok(()),
        };
        let known: Vec<String> = keys
            .iter()
            .filter(|known| **known != key)
            .map(|known| format!("`{known}`"))
            .collect();
        let known = known.join(", ");
        Err(format!("unknown field `{key}` {reason}, expected {known}"))
    }
}

impl TryFrom<Written> for BackendConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        written.idle_key()?;
        Ok(match written.kind {
            Kind::File => {
                let otherwise = FileConfig::default();
                Self::File(FileConfig {
                    path: written.path.unwrap_or(otherwise.path),
                    input: written.input,
                    repeat: written.repeat,
                })
            }
            Kind::Null => Self::Null(NullConfig {
                pace: written.pace.unwrap_or(NullConfig::default().pace),
            }),
            Kind::Alsa => {
                let otherwise = AlsaConfig::default();
                Self::Alsa(AlsaConfig {
                    pcm: written.pcm.unwrap_or(otherwise.pcm),
                    pcms: written.pcms.unwrap_or(otherwise.pcms),
                    target_ms: written.target_ms.unwrap_or(otherwise.target_ms),
                })
            }
            Kind::Gstreamer => {
                let otherwise = GstreamerConfig::default();
                Self::Gstreamer(GstreamerConfig {
                    pipeline: written.pipeline.unwrap_or(otherwise.pipeline),
                    pipelines: written.pipelines.unwrap_or(otherwise.pipelines),
                    latency_ms: written.latency_ms.unwrap_or(otherwise.latency_ms),
                    paths: written.paths.unwrap_or(otherwise.paths),
                })
            }
        })
    }
}
