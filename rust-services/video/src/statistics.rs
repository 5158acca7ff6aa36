// SPDX-License-Identifier: Apache-2.0

//! What is known of streams from outside, and what outside may ask of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use agl_virtio_codec::{Codec, CodecError, Counters, Size};

/// What a guest may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// Streams at once.
    pub sessions: u32,
    /// Pixels per second, of all streams together.
    pub pixel_rate: u64,
}

/// Hears that sessions came or went.
type Observer = Box<dyn Fn() + Send + Sync>;

/// Of all streams of a device.
pub struct Statistics {
    quota: Quota,
    sessions: Mutex<BTreeMap<u32, Arc<Session>>>,
    /// Sums of the streams that are gone.
    past: Mutex<Totals>,
    opened: AtomicU64,
    refused: AtomicU64,
    died: AtomicU64,
    hung: AtomicU64,
    observer: OnceLock<Observer>,
    wake: Mutex<Option<Box<dyn Fn() + Send>>>,
}

/// Sums over streams.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Outputs given to the driver.
    pub frames: u64,
    /// Units of which nothing came out.
    pub dropped: u64,
    /// Inputs taken.
    pub inputs: u64,
    /// Bytes copied out of the guest's memory.
    pub bytes_in: u64,
    /// Copies of outputs: as many as there are outputs, where each was copied once.
    pub copies: u64,
    /// Streams that have failed.
    pub failed: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Statistics {
    /// Of a device without streams.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            sessions: Mutex::default(),
            past: Mutex::default(),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            died: AtomicU64::new(0),
            hung: AtomicU64::new(0),
            observer: OnceLock::new(),
            wake: Mutex::new(None),
        }
    }

    /// Who hears that sessions came or went. The first one stays.
    pub fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// How to have the device look at what is asked for here.
    pub fn wake_with(&self, wake: impl Fn() + Send + 'static) {
        *lock(&self.wake) = Some(Box::new(wake));
    }

    fn changed(&self) {
        if let Some(observer) = self.observer.get() {
            observer();
        }
    }

    /// The quota.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Streams that a guest may have at once.
    #[must_use]
    pub fn max_sessions(&self) -> usize {
        self.quota.sessions as usize
    }

    /// Whether all streams together have no more pixels than are allowed.
    #[must_use]
    pub fn is_within_pixel_rate(&self) -> bool {
        let sessions = lock(&self.sessions);
        let sum = sessions
            .values()
            .filter(|session| !session.has_failed())
            .fold(0_u64, |sum, session| {
                sum.saturating_add(session.pixel_rate.load(Ordering::Relaxed))
            });
        sum <= self.quota.pixel_rate
    }

    /// A stream was refused.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A codec has ended its stream.
    pub fn codec_failed(&self, error: &CodecError) {
        match error {
            CodecError::Died { .. } => self.died.fetch_add(1, Ordering::Relaxed),
            CodecError::Hangs { .. } => self.hung.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// A stream begins.
    pub fn open(self: &Arc<Self>, id: u32, codec: Codec, owner: &str) -> Arc<Session> {
        let session = Arc::new(Session::new(id, codec, owner, Arc::clone(self)));
        lock(&self.sessions).insert(id, Arc::clone(&session));
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.changed();
        session
    }

    /// The streams there are.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).values().cloned().collect()
    }

    /// The streams whose end somebody has asked for.
    #[must_use]
    pub fn to_terminate(&self) -> Vec<u32> {
        let sessions = lock(&self.sessions);
        sessions
            .values()
            .filter(|session| session.terminate.swap(false, Ordering::Relaxed))
            .map(|session| session.id)
            .collect()
    }

    /// Sums over all streams, those that are gone included.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let past = *lock(&self.past);
        self.sessions()
            .iter()
            .fold(past, |sum, session| sum.plus(&session.totals()))
    }

    /// All counters by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        let totals = self.totals();
        [
            ("sessions-opened", self.opened.load(Ordering::Relaxed)),
            ("sessions-refused", self.refused.load(Ordering::Relaxed)),
            ("sessions-failed", totals.failed),
            ("codecs-died", self.died.load(Ordering::Relaxed)),
            ("codecs-hung", self.hung.load(Ordering::Relaxed)),
            ("inputs", totals.inputs),
            ("bytes-in", totals.bytes_in),
            ("frames", totals.frames),
            ("frames-dropped", totals.dropped),
            ("frame-copies", totals.copies),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .to_vec()
    }
}

impl Totals {
    fn plus(self, other: &Self) -> Self {
        Self {
            frames: self.frames.saturating_add(other.frames),
            dropped: self.dropped.saturating_add(other.dropped),
            inputs: self.inputs.saturating_add(other.inputs),
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            copies: self.copies.saturating_add(other.copies),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// One stream, as it is seen from outside.
pub struct Session {
    id: u32,
    codec: Codec,
    owner: String,
    width: AtomicU32,
    height: AtomicU32,
    frame_rate: AtomicU32,
    pixel_rate: AtomicU64,
    inputs: AtomicU64,
    bytes_in: AtomicU64,
    frames: AtomicU64,
    copies: AtomicU64,
    dropped: AtomicU64,
    latency_sum: AtomicU64,
    latency_max: AtomicU64,
    coded: AtomicU64,
    process: AtomicU32,
    failed: AtomicBool,
    terminate: AtomicBool,
    statistics: Arc<Statistics>,
}

impl Session {
    fn new(id: u32, codec: Codec, owner: &str, statistics: Arc<Statistics>) -> Self {
        Self {
            id,
            codec,
            owner: owner.to_owned(),
            width: AtomicU32::new(0),
            height: AtomicU32::new(0),
            frame_rate: AtomicU32::new(0),
            pixel_rate: AtomicU64::new(0),
            inputs: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            latency_sum: AtomicU64::new(0),
            latency_max: AtomicU64::new(0),
            coded: AtomicU64::new(0),
            process: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            terminate: AtomicBool::new(false),
            statistics,
        }
    }

    /// The stream's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its codec.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Who has it, in the guest's words.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// What is seen of its pictures.
    #[must_use]
    pub fn size(&self) -> Size {
        Size::new(
            self.width.load(Ordering::Relaxed),
            self.height.load(Ordering::Relaxed),
        )
    }

    /// Pictures per second, as the driver says; 0 where it does not.
    #[must_use]
    pub fn frame_rate(&self) -> u32 {
        self.frame_rate.load(Ordering::Relaxed)
    }

    /// Mean and longest time of a picture in the codec, in microseconds.
    #[must_use]
    pub fn latency(&self) -> (u64, u64) {
        let sum = self.latency_sum.load(Ordering::Relaxed);
        let mean = sum.checked_div(self.coded.load(Ordering::Relaxed));
        (
            mean.unwrap_or(0) / 1000,
            self.latency_max.load(Ordering::Relaxed) / 1000,
        )
    }

    /// The number of its codec's process; 0 where that is this one, or there is none yet.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process.load(Ordering::Relaxed)
    }

    /// Whether it has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Its counters.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            frames: load(&self.frames),
            dropped: load(&self.dropped),
            inputs: load(&self.inputs),
            bytes_in: load(&self.bytes_in),
            copies: load(&self.copies),
            failed: u64::from(self.has_failed()),
        }
    }

    /// Asks for its end.
    pub fn terminate(&self) {
        self.terminate.store(true, Ordering::Relaxed);
        if let Some(wake) = &*lock(&self.statistics.wake) {
            wake();
        }
    }

    /// Its pictures are like this.
    pub(crate) fn describe(&self, size: Size, frame_rate: u32, pixel_rate: u64) {
        self.width.store(size.width, Ordering::Relaxed);
        self.height.store(size.height, Ordering::Relaxed);
        self.frame_rate.store(frame_rate, Ordering::Relaxed);
        self.pixel_rate.store(pixel_rate, Ordering::Relaxed);
    }

    /// An input was copied.
    pub(crate) fn copied_in(&self, bytes: usize) {
        self.inputs.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// An output was copied so often.
    pub(crate) fn delivered(&self, copies: u32) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.copies.fetch_add(copies.into(), Ordering::Relaxed);
    }

    /// What the codec counts.
    pub(crate) fn count(&self, counters: &Counters) {
        self.dropped.store(counters.dropped, Ordering::Relaxed);
        self.coded.store(counters.outputs, Ordering::Relaxed);
        self.latency_sum
            .store(counters.latency_sum, Ordering::Relaxed);
        self.latency_max
            .store(counters.latency_max, Ordering::Relaxed);
    }

    /// Its codec runs in this process.
    pub(crate) fn runs_in(&self, process: u32) {
        self.process.store(process, Ordering::Relaxed);
    }

    /// It has failed.
    pub(crate) fn failed(&self, _reason: &str) {
        self.failed.store(true, Ordering::Relaxed);
        self.statistics.changed();
    }

    /// It is gone.
    pub(crate) fn close(&self) {
        let gone = {
            let mut sessions = lock(&self.statistics.sessions);
            let own = sessions
                .get(&self.id)
                .is_some_and(|session| std::ptr::eq(Arc::as_ptr(session), self));
            if own { sessions.remove(&self.id) } else { None }
        };
        {
            let mut past = lock(&self.statistics.past);
            *past = past.plus(&self.totals());
        }
        drop(gone);
        self.statistics.changed();
    }
}
