// SPDX-License-Identifier: Apache-2.0

//! What the host must have for a configuration: folders that can be written, files that can be
//! recorded, PCMs that alsa-lib knows.

use std::collections::HashSet;
use std::path::Path;

use agl_virtio_service::Exit;
use agl_virtio_service::bus::Place;
use agl_virtio_service::config::Problems;

use super::{AlsaConfig, BackendConfig, FileConfig, SndConfig, StreamConfig};
use crate::backend::StreamIdentity;
use crate::backend::file::{Obstacle, filled, folder_obstacle, look_at_input, target_obstacle};
use crate::backend::wav::Layout;
use crate::wire::Direction;

impl SndConfig {
    /// Notes what the host has not.
    pub fn look_at_host(&self, place: &Place, problems: &mut Problems) {
        let mut told = HashSet::new();
        for (index, stream) in self.streams.iter().enumerate() {
            let identity = StreamIdentity {
                guest: place.guest().to_owned(),
                device: place.device().to_owned(),
                stream: stream.name.clone(),
                index: u32::try_from(index).unwrap_or(u32::MAX),
                role: stream.role,
            };
            let key = format!("streams.{index}");
            let found = match (&stream.backend, stream.direction) {
                (BackendConfig::File(file), Direction::Output) => {
                    self.look_at_output(&key, stream, file, &identity)
                }
                (BackendConfig::File(_), Direction::Input) => self.look_at_inputs(&key, stream),
                (BackendConfig::Alsa(alsa), _) => look_at_pcms(&key, alsa, &identity),
                (BackendConfig::Gstreamer(pipes), _) => look_at_paths(&key, &pipes.paths),
                (BackendConfig::Null(_), _) => Vec::new(),
            };
            for (key, obstacle) in found {
                // One option may be the option of all streams.
                if told.insert((key.clone(), obstacle.message.clone())) {
                    problems.lacking(obstacle.exit, key, obstacle.message, obstacle.remedy);
                }
            }
        }
    }

    fn look_at_output(
        &self,
        key: &str,
        stream: &StreamConfig,
        file: &FileConfig,
        identity: &StreamIdentity,
    ) -> Vec<(String, Obstacle)> {
        let by_default = file.path == FileConfig::default().path;
        let key = match (self.said.output, by_default) {
            (true, _) => "--output".to_owned(),
            (false, true) => "the default of --output".to_owned(),
            (false, false) => format!("{key}.backend.path"),
        };
        let pattern = filled(&file.path, identity);
        let has_header = stream
            .formats
            .iter()
            .all(|format| Layout::of(*format).is_some());
        folder_obstacle(&pattern)
            .or_else(|| target_obstacle(&pattern, has_header))
            .map(|obstacle| (key, obstacle))
            .into_iter()
            .collect()
    }

    fn look_at_inputs(&self, key: &str, stream: &StreamConfig) -> Vec<(String, Obstacle)> {
        let look = |index: usize, path: &Path| {
            let key = match (stream.sources.is_empty(), self.said.input) {
                (true, true) => "--input".to_owned(),
                (true, false) => format!("{key}.backend.input"),
                (false, _) => format!("{key}.sources.{index}.input"),
            };
            look_at_input(path, stream)
                .err()
                .map(|obstacle| (key, obstacle))
        };
        let sources = stream.source_list();
        let inputs = sources.iter().enumerate();
        inputs
            .filter_map(|(index, source)| look(index, source.input.as_deref()?))
            .collect()
    }
}

fn look_at_paths(key: &str, paths: &[String]) -> Vec<(String, Obstacle)> {
    let missing = paths.iter().enumerate().filter_map(|(index, path)| {
        let error = std::fs::metadata(path).err()?;
        let obstacle = Obstacle {
            exit: Exit::NoInput,
            message: format!("{path}: {error}; the sandbox allows only what is there"),
            remedy: "a folder or file that exists".to_owned(),
        };
        Some((format!("{key}.backend.paths.{index}"), obstacle))
    });
    missing.collect()
}

#[cfg(feature = "alsa")]
fn look_at_pcms(
    key: &str,
    alsa: &AlsaConfig,
    identity: &StreamIdentity,
) -> Vec<(String, Obstacle)> {
    let names = alsa.names();
    let unknown = names.iter().enumerate().filter_map(|(index, name)| {
        let reason = crate::backend::alsa::unknown(name, identity)?;
        let key = if alsa.pcms.is_empty() {
            format!("{key}.backend.pcm")
        } else {
            format!("{key}.backend.pcms.{index}")
        };
        let obstacle = Obstacle {
            exit: Exit::Config,
            message: reason,
            remedy: "a name that aplay -L lists".to_owned(),
        };
        Some((key, obstacle))
    });
    unknown.collect()
}

/// The back end itself is refused then.
#[cfg(not(feature = "alsa"))]
fn look_at_pcms(_: &str, _: &AlsaConfig, _: &StreamIdentity) -> Vec<(String, Obstacle)> {
    Vec::new()
}

#[cfg(test)]
mod tests;
