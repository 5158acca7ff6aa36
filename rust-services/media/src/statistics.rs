// SPDX-License-Identifier: Apache-2.0

//! What is known about a media device from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use virtio_device::Waker;

use crate::outbox::Session;
use crate::v4l2::FourCc;

/// Shared by who serves and who tells about it.
#[derive(Debug, Default)]
pub struct Statistics {
    sessions_opened: AtomicU64,
    sessions_refused: AtomicU64,
    sessions_lost: AtomicU64,
    ioctls: AtomicU64,
    refused: AtomicU64,
    inputs: AtomicU64,
    bytes_in: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    damaged: AtomicU64,
    over_budget: AtomicU64,
    codecs_died: AtomicU64,
    codecs_hung: AtomicU64,
    state: Mutex<State>,
    waker: OnceLock<Waker>,
}

/// What a session streams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// The format of pictures, or of what is coded.
    pub what: FourCc,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Pictures in a second, as far as that is known; else 0.
    pub rate: f64,
    /// The process in which its codec runs; 0 where that is the service's.
    pub process: u32,
}

/// What changes seldom.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Sessions, and what those that stream do.
    pub sessions: BTreeMap<Session, Option<Work>>,
    /// Sessions that somebody on the bus wants to end.
    pub condemned: Vec<Session>,
}

impl Statistics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to wake when the bus wants something. The first one stays.
    pub fn attach(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    /// A session has begun.
    pub fn opened(&self, session: Session) {
        self.sessions_opened.fetch_add(1, Ordering::Relaxed);
        self.state().sessions.insert(session, None);
    }

    /// A session could not begin.
    pub fn refused_session(&self) {
        self.sessions_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A session has ended.
    pub fn closed(&self, session: Session) {
        self.state().sessions.remove(&session);
    }

    /// A session was lost: its driver was told.
    pub fn lost(&self, session: Session) {
        self.sessions_lost.fetch_add(1, Ordering::Relaxed);
        self.closed(session);
    }

    /// All sessions have ended.
    pub fn cleared(&self) {
        *self.state() = State::default();
    }

    /// An ioctl was answered.
    pub fn answered(&self, done: bool) {
        self.ioctls.fetch_add(1, Ordering::Relaxed);
        if !done {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A session begins to stream, goes on otherwise, or ends it.
    pub fn works(&self, session: Session, work: Option<Work>) {
        if let Some(place) = self.state().sessions.get_mut(&session) {
            *place = work;
        }
    }

    /// Coded or raw input of so many bytes was taken from the driver.
    pub fn taken(&self, bytes: usize) {
        self.inputs.fetch_add(1, Ordering::Relaxed);
        self.bytes_in
            .fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// A picture of so many bytes was given to the driver.
    pub fn shown(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes
            .fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// There was no buffer for a picture.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A picture was given to the driver that is none.
    pub fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// A buffer was refused, for the device would have had to hold too much.
    pub fn over_budget(&self) {
        self.over_budget.fetch_add(1, Ordering::Relaxed);
    }

    /// A codec has ended its session.
    #[cfg(feature = "gstreamer")]
    pub fn codec_failed(&self, error: &agl_virtio_codec::CodecError) {
        use agl_virtio_codec::CodecError;

        match error {
            CodecError::Died { .. } => self.codecs_died.fetch_add(1, Ordering::Relaxed),
            CodecError::Hangs { .. } => self.codecs_hung.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// Somebody on the bus wants a session to end. False where there is none.
    pub fn condemn(&self, session: Session) -> bool {
        let mut state = self.state();
        let known = state.sessions.contains_key(&session);
        if known {
            state.condemned.push(session);
        }
        drop(state);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
        known
    }

    /// The sessions that are to end, taken once.
    pub fn take_condemned(&self) -> Vec<Session> {
        std::mem::take(&mut self.state().condemned)
    }

    /// Sessions and what they do.
    #[must_use]
    pub fn snapshot(&self) -> State {
        self.state().clone()
    }

    /// All counters by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            ("sessions-opened", load(&self.sessions_opened)),
            ("sessions-refused", load(&self.sessions_refused)),
            ("sessions-lost", load(&self.sessions_lost)),
            ("ioctls", load(&self.ioctls)),
            ("ioctls-refused", load(&self.refused)),
            ("inputs", load(&self.inputs)),
            ("input-bytes", load(&self.bytes_in)),
            ("frames", load(&self.frames)),
            ("frame-bytes", load(&self.bytes)),
            ("frames-dropped", load(&self.dropped)),
            ("frames-damaged", load(&self.damaged)),
            ("buffers-over-budget", load(&self.over_budget)),
            ("codecs-died", load(&self.codecs_died)),
            ("codecs-hung", load(&self.codecs_hung)),
        ]
    }
}
