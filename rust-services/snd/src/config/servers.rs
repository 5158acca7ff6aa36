// SPDX-License-Identifier: Apache-2.0

//! Options of the back ends that lead to cards and sound servers.

use agl_virtio_service::config::Problems;

/// The `alsa` back end's options.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AlsaConfig {
    /// Name of a PCM, as `aplay -L` lists them, in which `{guest}`, `{device}`, `{stream}` and
    /// `{role}` are replaced. `pipewire` is told the role of the stream.
    pub pcm: String,
    /// For an input with several sources: the PCM of each of them, instead of `pcm`.
    pub pcms: Vec<String>,
    /// Milliseconds of sound that are kept in the card, 1 to 1000: how late this service may be
    /// before there is a gap.
    pub target_ms: u32,
}

/// The `gstreamer` back end's options.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GstreamerConfig {
    /// Where the sound goes to or comes from, as gst-launch-1.0 takes it, in which `{guest}`,
    /// `{device}`, `{stream}` and `{role}` are replaced.
    pub pipeline: String,
    /// For an input with several sources: the pipeline of each of them, instead of `pipeline`.
    pub pipelines: Vec<String>,
    /// How many milliseconds a frame may be late and still be played in its place, 1 to 1000.
    pub latency_ms: u32,
    /// Folders and files that the pipeline reads and writes, beyond sound devices and servers.
    pub paths: Vec<String>,
}

impl Default for AlsaConfig {
    fn default() -> Self {
        Self {
            pcm: "default".to_owned(),
            pcms: Vec::new(),
            target_ms: 20,
        }
    }
}

impl Default for GstreamerConfig {
    fn default() -> Self {
        Self {
            pipeline: String::new(),
            pipelines: Vec::new(),
            latency_ms: 20,
            paths: Vec::new(),
        }
    }
}

impl AlsaConfig {
    /// The PCM of each source; one for an output.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        if self.pcms.is_empty() {
            vec![self.pcm.clone()]
        } else {
            self.pcms.clone()
        }
    }

    pub(super) fn validate(&self, sources: usize, problems: &mut Problems) {
        problems.range("backend.target_ms", &self.target_ms, 1..=1000);
        check_count(problems, "pcm", self.pcms.len(), sources);
    }
}

impl GstreamerConfig {
    /// The pipeline of each source; one for an output.
    #[must_use]
    pub fn descriptions(&self) -> Vec<String> {
        if self.pipelines.is_empty() {
            vec![self.pipeline.clone()]
        } else {
            self.pipelines.clone()
        }
    }

    pub(super) fn validate(&self, sources: usize, problems: &mut Problems) {
        problems.range("backend.latency_ms", &self.latency_ms, 1..=1000);
        check_count(problems, "pipeline", self.pipelines.len(), sources);
    }
}

/// Each source has a PCM or pipeline of its own: with one for all, choosing would change nothing.
fn check_count(problems: &mut Problems, key: &str, there: usize, sources: usize) {
    if there == 0 {
        problems.require(
            sources < 2,
            format!("backend.{key}"),
            format!("there is one {key} for {sources} sources"),
            format!("{key}s = [\"…\", \"…\"] with one for each source, in their order"),
        );
        return;
    }
    problems.require(
        there == sources,
        format!("backend.{key}s"),
        format!("there are {there} for {sources} sources"),
        "as many as the stream has sources, in their order; none for an output",
    );
}
