// SPDX-License-Identifier: Apache-2.0

//! The `alsa` back end: any PCM that alsa-lib can open, be it a card (`hw:0`, `plughw:CARD=PCH`),
//! something from `asound.conf`, or a sound server behind a plugin (`pipewire`, `pulse`).
//!
//! ## Roles in PipeWire
//! PipeWire's plugin takes properties of one stream only as arguments of the PCM's name; the
//! environment variables that it also reads hold for the whole process. So a PCM named `pipewire`
//! is given `ROLE=` of the stream, which PipeWire shows as `media.role`. Any other name may say
//! `{role}` where it wants the role.
//!
//! ## Formats a PCM does not know
//! A PCM that refuses a format, rate or number of channels is opened once more behind alsa-lib's
//! converting plugin `plug`. Names that begin with `hw:` mean the bare card and are never converted.

use super::channels::Maps;
use super::{Backend, BackendError, Input, Output, Pacing, StreamIdentity};
use crate::format::Format;

mod capture;
mod known;
mod name;
mod negotiate;
mod playback;

pub(crate) use known::unknown;

/// Stock that is kept in a card or server when the configuration does not say, in milliseconds.
pub const DEFAULT_TARGET_MS: u32 = 20;
/// Longest piece that a stream hands over at once, in milliseconds. The stock is steered by how
/// large it is just after a piece, and must not be used up just before the next.
const PIECE_MS: u32 = 20;
/// What is kept beyond the stock for a sound server, in milliseconds: it takes bites, where a card
/// sips. Those of PipeWire are 21 ms inside a virtual machine.
const BITE_MS: u32 = 20;

/// A PCM for one stream.
#[derive(Clone, Debug)]
pub struct Alsa {
    /// One PCM; for an input stream, one for each source.
    pcms: Vec<String>,
    target_ms: u32,
    maps: Maps,
}

impl Alsa {
    /// A stream that plays to or records from the PCM of this name, which may hold `{guest}`,
    /// `{device}`, `{stream}` and `{role}`. An input stream with several sources has a name for each
    /// of them. `target_ms` is the stock to keep (1 to 1000 ms), `maps` the channel maps of the
    /// stream.
    ///
    /// # Errors
    /// When a name can be none. Whether there is such a PCM is only seen when it is opened: a server
    /// may come later than this service.
    pub fn new(pcms: Vec<String>, target_ms: u32, maps: Maps) -> Result<Self, BackendError> {
        let refuse = |name: &str, reason: &str| BackendError::Device {
            device: format!("ALSA PCM \"{name}\""),
            reason: reason.to_owned(),
        };
        if pcms.is_empty() {
            return Err(refuse(
                "",
                "a name is needed: write for example \"default\"",
            ));
        }
        for pcm in &pcms {
            name::check(pcm).map_err(|reason| refuse(pcm, reason))?;
        }
        Ok(Self {
            pcms,
            target_ms: target_ms.clamp(1, 1000),
            maps,
        })
    }

    /// The stock that is kept, in milliseconds.
    fn stock_ms(&self) -> u32 {
        if self.pcms.iter().all(|pcm| name::is_card(pcm)) {
            self.target_ms
        } else {
            self.target_ms.saturating_add(BITE_MS)
        }
    }

    fn names(&self, stream: &StreamIdentity) -> Vec<String> {
        self.pcms
            .iter()
            .map(|pcm| name::of_stream(pcm, stream))
            .collect()
    }
}

impl Backend for Alsa {
    fn name(&self) -> &'static str {
        "alsa"
    }

    fn formats(&self) -> u64 {
        // `plug` converts whatever has arithmetic; the rest must get through to the card unchanged.
        let bare = self.pcms.iter().all(|pcm| name::is_bare(pcm));
        Format::ALL
            .into_iter()
            .filter(|format| format.has_arithmetic() || (bare && *format != Format::ImaAdpcm))
            .fold(0, |bits, format| bits | format.bit())
    }

    fn pacing(&self) -> Pacing {
        Pacing::Device {
            target_ms: self.stock_ms().saturating_add(PIECE_MS),
        }
    }

    fn passes_role(&self) -> bool {
        self.pcms.iter().any(|pcm| name::has_role(pcm))
    }

    fn output(&self, stream: &StreamIdentity) -> Box<dyn Output> {
        let name = self.names(stream).into_iter().next().unwrap_or_default();
        Box::new(playback::Playback::new(
            name,
            self.stock_ms(),
            self.maps.clone(),
        ))
    }

    fn input(&self, stream: &StreamIdentity) -> Box<dyn Input> {
        Box::new(capture::Capture::new(
            self.names(stream),
            self.target_ms,
            self.maps.clone(),
        ))
    }
}

#[cfg(test)]
mod tests;
