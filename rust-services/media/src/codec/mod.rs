// SPDX-License-Identifier: Apache-2.0

//! Decoders and encoders: memory-to-memory devices as V4L2 describes stateful ones. Each session is
//! a stream of its own.
//!
//! ```text
//!  ioctls ─▶ session ─▶ stream: OUTPUT queue ─▶ codec ─▶ CAPTURE queue ─▶ outbox
//!               └ formats, selection, controls
//! ```

pub mod controls;
pub mod formats;
mod input;
mod output;
mod selection;
mod session;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agl_virtio_codec::coder::Codecs;
use agl_virtio_codec::{Bell, Codec, Limits};
use agl_virtio_service::limited;
use rustix::io::Errno;
use virtio_device::Waker;

use crate::function::{Context, Function};
use crate::memory::PlaneMemory;
use crate::outbox::Session;
use crate::payload::{Answer, Input};
use crate::statistics::Statistics;
use crate::v4l2::Ioctl;

use session::CodecSession;

/// VIDEO_M2M_MPLANE, EXT_PIX_FORMAT, STREAMING.
const CAPABILITIES: u32 = 0x0000_4000 | 0x0020_0000 | 0x0400_0000;

/// Runs of pages that are noted of the buffers of all sessions, as usual: 64 MiB of numbers, or 16 GiB
/// of buffers in single pages.
pub const MOST_RUNS: usize = 4 << 20;

/// Between two looks at codecs that say nothing.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// Which way a device codes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Pictures out of coded streams.
    Decode,
    /// Coded streams out of pictures.
    Encode,
}

/// What a device offers to its guest.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Which way it codes.
    pub way: Way,
    /// The coded formats, one at least; the first one is the one at first.
    pub codecs: Vec<Codec>,
    /// Sizes of pictures.
    pub limits: Limits,
    /// Streams at work at a time.
    pub max_streams: usize,
    /// Pixels per second of all streams together.
    pub max_pixel_rate: u64,
    /// Bytes of input that the codecs of all streams may hold.
    pub max_input_bytes: u64,
    /// Runs of pages that are noted of the buffers of all sessions.
    pub max_runs: usize,
}

impl Offer {
    /// What all streams together may have.
    fn most(&self) -> Share {
        Share {
            pixels: self.max_pixel_rate,
            bytes: self.max_input_bytes,
        }
    }
}

/// What a guest may not have without end, and streams have a part of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Share {
    /// Pixels per second.
    pixels: u64,
    /// Bytes of input that a codec may hold.
    bytes: u64,
}

impl Share {
    fn plus(self, other: Self) -> Self {
        Self {
            pixels: self.pixels.saturating_add(other.pixels),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            pixels: self.pixels.saturating_sub(other.pixels),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What is left to a session.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// It may be a stream.
    stream: bool,
    /// Runs of pages.
    runs: usize,
}

/// A decoder or an encoder.
pub struct CodecDevice {
    offer: Offer,
    codecs: Box<dyn Codecs>,
    bell: Arc<Bell>,
    statistics: Arc<Statistics>,
    sessions: BTreeMap<Session, CodecSession>,
}

impl CodecDevice {
    /// A device whose codecs ring this bell when something has happened.
    #[must_use]
    pub fn new(
        offer: Offer,
        codecs: Box<dyn Codecs>,
        bell: Arc<Bell>,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self {
            offer,
            codecs,
            bell,
            statistics,
            sessions: BTreeMap::new(),
        }
    }

    /// Streams that are at work, but for one.
    fn streams_beside(&self, session: Session) -> usize {
        let others = self.sessions.iter().filter(|(id, _)| **id != session);
        others.filter(|(_, one)| one.is_at_work()).count()
    }

    /// Runs of pages that may still be noted.
    fn runs_left(&self) -> usize {
        let runs = self.sessions.values().map(|one| one.stream.runs());
        self.offer.max_runs.saturating_sub(runs.sum())
    }
}

impl Function for CodecDevice {
    fn capabilities(&self) -> u32 {
        CAPABILITIES
    }

    fn attach(&mut self, waker: Waker) {
        self.bell.attach(move || waker.wake());
    }

    fn open(&mut self, session: Session) -> Result<(), Errno> {
        let one = CodecSession::new(session, &self.offer);
        self.sessions.insert(session, one);
        Ok(())
    }

    fn close(&mut self, session: Session, _context: &mut Context<'_>) {
        self.sessions.remove(&session);
    }

    fn ioctl(
        &mut self,
        session: Session,
        ioctl: Ioctl,
        input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Answer {
        let room = Room {
            stream: self.streams_beside(session) < self.offer.max_streams,
            runs: self.runs_left(),
        };
        let answer = match self.sessions.get_mut(&session) {
            Some(one) => one.run(&self.offer, room, ioctl, input, context),
            None => Errno::NODEV.into(),
        };
        if ioctl == Ioctl::QBuf && answer.error == Some(Errno::NOMEM) {
            self.statistics.over_budget();
        }
        answer
    }

    fn memory_at(&self, session: Session, offset: u32) -> Option<Arc<PlaneMemory>> {
        let stream = &self.sessions.get(&session)?.stream;
        let queues = [&stream.output, &stream.capture];
        let mut found = queues
            .into_iter()
            .filter_map(|queue| queue.memory_at(session, offset));
        found.next()
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Vec<(Session, Errno)> {
        self.bell.answer();
        let mut lost = Vec::new();
        let all = self.sessions.values().map(|one| one.stream.share());
        let mut spent = all.fold(Share::default(), Share::plus);
        for (id, one) in &mut self.sessions {
            let others = spent.minus(one.stream.share());
            let mut shop = stream::Workshop {
                codecs: &mut *self.codecs,
                offer: &self.offer,
                statistics: &self.statistics,
                left: self.offer.most().minus(others),
            };
            if let Err(reason) = one.turn(&mut shop, context) {
                limited!(log::Level::Warn, "session {id} is lost: {reason}");
                lost.push((*id, Errno::IO));
                // What it had is free for those behind it.
                spent = others;
                continue;
            }
            spent = others.plus(one.stream.share());
        }
        lost
    }

    fn due(&self, now: Duration) -> Option<Duration> {
        let soonest = self
            .sessions
            .values()
            .filter_map(|one| one.stream.look_after());
        // A verdict may come late; a thread that turns without end may not be.
        let after = soonest.min()?.max(LEAST_WAIT);
        Some(now.saturating_add(after))
    }

    /// A stream cannot be gone on with by another process.
    fn saved(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _saved: &[u8]) {}

    fn reset(&mut self) {
        self.sessions.clear();
    }
}
