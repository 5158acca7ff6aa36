// SPDX-License-Identifier: Apache-2.0

//! Where sound goes to and comes from.
//!
//! A back end is written as plain blocking code. Each stream has one thread of its own (see
//! `runner`) that calls the stream's [`Output`] or [`Input`]; between it and the queue thread lies
//! a lock-free ring of bytes (`pipe`), so that nothing a back end does can hold up a guest:
//!
//! ```text
//!  queue thread ── whole frames, at the pace of the stream's clock ──▶ pipe ──▶ runner ──▶ Output
//!  queue thread ◀─ whole frames ────────────────────────────────────── pipe ◀── runner ◀── Input
//! ```
//!
//! What a stream of a guest sees never depends on the back end: a buffer is completed when the
//! stream's clock has passed its last frame. Where a back end has a clock of its own (a sound card),
//! it says so with [`Pacing::Device`] and reports [`Output::delay`]; the stream's clock is then
//! steered by up to ±0.1 % so that the delay stays at the given target.
//!
//! ## Losing the server
//! Any error of `write` or `read` means that the sound server or card is gone. The runner closes,
//! and calls `open` again, at first after 100 ms and later every 2 s, until it succeeds. Meanwhile
//! the stream goes on against its clock: playback is discarded, capture is silence. After the return
//! at most one target delay of old data is played, so that latency does not grow.
//!
//! ## To add a back end
//! Implement [`Backend`] and one or both of [`Output`] and [`Input`]; add its table to
//! `config::BackendConfig` and its construction to `build`.

#[cfg(feature = "alsa")]
pub mod alsa;
pub mod channels;
pub mod file;
pub mod follows_role;
#[cfg(feature = "gstreamer")]
pub mod gstreamer;
pub mod pipe;
pub mod placeholder;
pub mod runner;
pub mod wav;

use crate::format::Params;

/// How the stream's clock and the back end's belong together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pacing {
    /// The back end takes and gives whatever the host's monotonic clock asks for.
    Clock,
    /// The back end has its own clock: it plays from a stock that should hold `target_ms`
    /// milliseconds (1 to 1000), put there as silence by `open` or `start`.
    Device {
        /// The stock to keep, in milliseconds.
        target_ms: u32,
    },
    /// Buffers are consumed as soon as they are there. A guest then plays faster than time: for
    /// measurements only.
    AtOnce,
}

/// The purpose of a stream, from least to most important. It decides who is ducked (see
/// `policy`), and a back end passes it on where the server has such a property.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    /// Music, video, games.
    #[default]
    Multimedia = 0,
    /// Announcements of the navigation.
    Navigation = 1,
    /// Telephone and speech assistants.
    Communication = 2,
    /// Warnings, chimes of the vehicle, emergency calls.
    Emergency = 3,
}

impl Role {
    /// Every role, from least to most important.
    pub const ALL: [Self; 4] = [
        Self::Multimedia,
        Self::Navigation,
        Self::Communication,
        Self::Emergency,
    ];

    /// The name on D-Bus and towards sound servers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multimedia => "Multimedia",
            Self::Navigation => "Navigation",
            Self::Communication => "Communication",
            Self::Emergency => "Emergency",
        }
    }

    /// The priority that goes with it unless something else is said.
    #[must_use]
    pub const fn priority(self) -> u32 {
        match self {
            Self::Multimedia => 10,
            Self::Navigation => 20,
            Self::Communication => 30,
            Self::Emergency => 40,
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.name().eq_ignore_ascii_case(name))
    }
}

/// What a back end is told about the stream it serves: does not change while the service runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamIdentity {
    /// Name of the guest.
    pub guest: String,
    /// Name of the sound device in the guest's configuration.
    pub device: String,
    /// Name of the stream.
    pub stream: String,
    /// Index of the stream, as the driver counts.
    pub index: u32,
    /// Purpose.
    pub role: Role,
}

/// Why a stream is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opening {
    /// The driver prepared it.
    Prepared,
    /// A former process of this service died while the stream was prepared or running: go on where
    /// that one was, if there is such a place (append to the file).
    Recovered,
    /// The server was lost, and may be back.
    Again,
}

/// What went wrong in a back end. Shown to a person, so it says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A file could not be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what was expected.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The sound server or card refused or went away.
    #[error("{device}: {reason}")]
    Device {
        /// Name of the card, server or pipeline.
        device: String,
        /// What it said.
        reason: String,
    },
    /// Not compiled into this service.
    #[error("this service was built without the {0} back end")]
    NotBuilt(&'static str),
}

/// The playing side of a stream. Every method runs on the stream's own thread and may block.
///
/// The order of calls is `open`, then any number of `start`, `write`, `delay` and `stop`, then
/// `close`; after an error, `close` and `open` again.
pub trait Output: Send {
    /// Gets ready to play frames of these parameters.
    ///
    /// # Errors
    /// When the server is not there (yet); it is tried again later.
    fn open(&mut self, params: &Params, opening: Opening) -> Result<(), BackendError>;

    /// The driver has started the stream: bytes follow at its pace. Not called for a pause's end
    /// alone if the stream was never stopped.
    ///
    /// # Errors
    /// As [`Output::write`].
    fn start(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Plays the beginning of `bytes` (whole frames, never empty) and returns how many bytes were
    /// taken: whole frames, or 0 when none can be taken now, and then it is called again soon. It
    /// should not block for more than 100 ms.
    ///
    /// # Errors
    /// The server is lost.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError>;

    /// Frames that were taken and have not been heard yet; asked after each `write`.
    fn delay(&mut self) -> u64 {
        0
    }

    /// Frames of the delay that it keeps beyond [`Pacing::Device`]'s target, because it found that
    /// less does not do; asked after each `write`.
    fn reserve(&self) -> u64 {
        0
    }

    /// The driver has stopped the stream, for a pause or at its end: play what was taken, expect
    /// nothing for a while.
    ///
    /// # Errors
    /// As [`Output::write`].
    fn stop(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Gives everything back. Called after `stop`, and after any error.
    fn close(&mut self);
}

/// The recording side of a stream. Every method runs on the stream's own thread and may block.
pub trait Input: Send {
    /// Gets ready to record frames of these parameters.
    ///
    /// # Errors
    /// When the server is not there (yet); it is tried again later.
    fn open(&mut self, params: &Params, opening: Opening) -> Result<(), BackendError>;

    /// The driver has started the stream.
    ///
    /// # Errors
    /// As [`Input::read`].
    fn start(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Fills the beginning of `bytes` (room for whole frames, never empty) and returns how many
    /// bytes are valid: whole frames, or 0 when there are none yet, and then it is called again
    /// soon. It should not block for more than 100 ms.
    ///
    /// # Errors
    /// The server is lost.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BackendError>;

    /// Frames that are recorded and were not read yet; asked after each `read`.
    fn delay(&mut self) -> u64 {
        0
    }

    /// Whether what is not read in time is gone. A file waits; a microphone does not.
    fn is_live(&self) -> bool {
        true
    }

    /// The driver has stopped the stream.
    ///
    /// # Errors
    /// As [`Input::read`].
    fn stop(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    /// The driver selected another source (index into the stream's configured `sources`), before
    /// `open` or at any time after it.
    fn select(&mut self, source: u32) {
        let _ = source;
    }

    /// Gives everything back. Called after `stop`, and after any error.
    fn close(&mut self);
}

/// One kind of place for sound, configured for one stream.
pub trait Backend: Send {
    /// The word for it in the configuration.
    fn name(&self) -> &'static str;

    /// Formats it can do, as a bit map of [`Format::bit`](crate::format::Format::bit): what the
    /// configuration asks beyond it is refused when the service starts.
    fn formats(&self) -> u64;

    /// How its clock and the stream's belong together.
    fn pacing(&self) -> Pacing;

    /// Whether it passes the stream's role on. Its streams are then made anew for another role.
    fn passes_role(&self) -> bool {
        false
    }

    /// The playing side. Called once for an output stream, and again for each role that it gets.
    fn output(&self, stream: &StreamIdentity) -> Box<dyn Output>;

    /// The recording side. Called as [`Backend::output`].
    fn input(&self, stream: &StreamIdentity) -> Box<dyn Input>;
}
