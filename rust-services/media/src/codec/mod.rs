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
use crate::outbox::Session;
use crate::payload::{Answer, Input};
use crate::statistics::Statistics;
use crate::v4l2::Ioctl;

use session::CodecSession;

/// VIDEO_M2M_MPLANE, EXT_PIX_FORMAT, STREAMING.
const CAPABILITIES: u32 = 0x0000_4000 | 0x0020_0000 | 0x0400_0000;

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
        let may_start = self.streams_beside(session) < self.offer.max_streams;
        match self.sessions.get_mut(&session) {
            Some(one) => one.run(&self.offer, may_start, ioctl, input, context),
            None => Errno::NODEV.into(),
        }
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Vec<(Session, Errno)> {
        self.bell.answer();
        let mut lost = Vec::new();
        let mut spent = self.sessions.values().fold(0_u64, |sum, one| {
            sum.saturating_add(one.stream.pixel_rate())
        });
        for (id, one) in &mut self.sessions {
            let before = one.stream.pixel_rate();
            let others = spent.saturating_sub(before);
            let mut shop = stream::Workshop {
                codecs: &mut *self.codecs,
                offer: &self.offer,
                statistics: &self.statistics,
                pixel_rate: self.offer.max_pixel_rate.saturating_sub(others),
            };
            if let Err(reason) = one.turn(&mut shop, context) {
                limited!(log::Level::Warn, "session {id} is lost: {reason}");
                lost.push((*id, Errno::IO));
                // Its pixels are free for those behind it.
                spent = others;
                continue;
            }
            spent = others.saturating_add(one.stream.pixel_rate());
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
