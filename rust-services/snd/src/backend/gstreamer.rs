// SPDX-License-Identifier: Apache-2.0

//! The `gstreamer` back end: the sound goes into, or comes from, any pipeline that can be written
//! down.
//!
//! The configuration names what is behind the guest's sound: `pulsesink`,
//! `pipewiresink stream-properties="props,media.role={role}"`,
//! `wavenc ! filesink location=/var/lib/{guest}-{stream}.wav`, or for an input `pulsesrc`. In front of
//! it lie an `appsrc` (behind a source: an `appsink`) and converters, which pass on unchanged what
//! needs no conversion.
//!
//! The pipeline runs on the host's monotonic clock, as the guest's streams do, and sinks that have a
//! clock of their own follow it. So the pacing is [`Pacing::Clock`].

use gstreamer as gst;

use super::channels::Maps;
use super::{Backend, BackendError, Input, Output, Pacing, Role, StreamIdentity, placeholder};
use crate::format::Format;
use crate::wire::Direction;

mod caps;
mod capture;
mod description;
mod pipeline;
mod playback;

/// How late a frame may come and still be played in its place, when the configuration does not say,
/// in milliseconds.
pub const DEFAULT_LATENCY_MS: u32 = 20;

/// Pipelines for one stream.
#[derive(Clone, Debug)]
pub struct Gstreamer {
    /// One description; for an input stream, one for each source.
    descriptions: Vec<String>,
    latency_ms: u32,
    maps: Maps,
}

impl Gstreamer {
    /// A stream that plays into or records from this pipeline, which may hold `{guest}`, `{device}`,
    /// `{stream}` and `{role}`. An input stream with several sources has a pipeline for each of
    /// them. `latency_ms` is how late a frame may come and still be played in its place (1 to
    /// 1000 ms), `maps` the channel maps of the stream.
    ///
    /// Builds the pipelines once, without running them. It also loads their plug-ins, so it belongs
    /// before the sandbox.
    ///
    /// # Errors
    /// What is wrong with the text, in GStreamer's words, or which elements are not installed.
    pub fn new(
        descriptions: Vec<String>,
        direction: Direction,
        latency_ms: u32,
        maps: Maps,
    ) -> Result<Self, BackendError> {
        gst::init().map_err(|error| BackendError::Device {
            device: "GStreamer".to_owned(),
            reason: error.to_string(),
        })?;
        if descriptions.is_empty() {
            return Err(BackendError::Device {
                device: "GStreamer".to_owned(),
                reason: "a pipeline is needed: write for example \"autoaudiosink\"".to_owned(),
            });
        }
        // Names of the same form as the real ones.
        let anyone = StreamIdentity {
            guest: "guest".to_owned(),
            device: "device".to_owned(),
            stream: "stream".to_owned(),
            index: 0,
            role: Role::default(),
        };
        for template in &descriptions {
            description::check(&placeholder::fill(template, &anyone), direction)?;
        }
        Ok(Self {
            descriptions,
            latency_ms: latency_ms.clamp(1, 1000),
            maps,
        })
    }

    fn of_stream(&self, stream: &StreamIdentity) -> Vec<String> {
        self.descriptions
            .iter()
            .map(|template| placeholder::fill(template, stream))
            .collect()
    }
}

impl Backend for Gstreamer {
    fn name(&self) -> &'static str {
        "gstreamer"
    }

    fn formats(&self) -> u64 {
        Format::ALL
            .into_iter()
            .filter(|format| caps::is_known(*format))
            .fold(0, |bits, format| bits | format.bit())
    }

    fn pacing(&self) -> Pacing {
        Pacing::Clock
    }

    fn passes_role(&self) -> bool {
        self.descriptions.iter().any(|text| text.contains("{role}"))
    }

    fn output(&self, stream: &StreamIdentity) -> Box<dyn Output> {
        let description = self
            .of_stream(stream)
            .into_iter()
            .next()
            .unwrap_or_default();
        Box::new(playback::Playback::new(
            description,
            self.latency_ms,
            self.maps.clone(),
        ))
    }

    fn input(&self, stream: &StreamIdentity) -> Box<dyn Input> {
        Box::new(capture::Capture::new(
            self.of_stream(stream),
            self.maps.clone(),
        ))
    }
}

#[cfg(test)]
mod tests;
