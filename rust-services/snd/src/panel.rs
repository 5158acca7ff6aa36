// SPDX-License-Identifier: Apache-2.0

//! The front panel: every knob and every display of the device, as atomics.
//!
//! Two sides turn the knobs: the guest, through control elements, on the queue thread; and the host,
//! through D-Bus, on the bus thread. Each stores the value and tells the other. No lock, no queue
//! that could fill up: the newest value wins, and a knob that was turned while no guest was there
//! has its place when one comes.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use virtio_device::Waker;

use crate::backend::Role;
use crate::policy::{StepBack, VOLUME_MAX, Voice};

/// Something on the panel that has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// Volume of a stream.
    Volume(usize),
    /// Mute of a stream.
    Mute(usize),
    /// Source of an input stream.
    Source(usize),
    /// Role of a stream.
    Role(usize),
    /// Priority of a stream.
    Priority(usize),
    /// Duck level of a stream.
    DuckLevel(usize),
    /// State of a stream.
    State(usize),
    /// Under-runs or over-runs of a stream.
    Xruns(usize),
    /// State of a stream's back end.
    Server(usize),
    /// Whether something is plugged into a jack.
    Jack(usize),
    /// Whether a driver uses the device, or how often the service took over.
    Device,
}

/// A stream's part of the panel.
#[derive(Debug)]
pub struct StreamPanel {
    volume: AtomicU32,
    mute: AtomicBool,
    source: AtomicU32,
    role: AtomicU8,
    priority: AtomicU32,
    step_back: AtomicU8,
    duck_level: AtomicI32,
    duck: AtomicI32,
    state: AtomicU8,
    server: AtomicU8,
    xruns: AtomicU64,
    latency_us: AtomicU32,
    frames: AtomicU64,
    discarded: AtomicU64,
}

/// What a stream's part begins with.
#[derive(Clone, Copy, Debug)]
pub struct StreamKnobs {
    /// 0 to [`VOLUME_MAX`].
    pub volume: u32,
    /// Not heard at all.
    pub mute: bool,
    /// Purpose.
    pub role: Role,
    /// Higher ones are heard over lower ones.
    pub priority: u32,
    /// What it does for those above it.
    pub step_back: StepBack,
    /// By how many hundredths of a decibel it goes down then.
    pub duck_level: i32,
}

/// The whole panel.
pub struct Panel {
    streams: Vec<StreamPanel>,
    jacks: Vec<AtomicBool>,
    restarts: AtomicU32,
    driver: AtomicBool,
    /// Wakes the queue thread. A lock for those who turn knobs; the queue thread takes it once.
    waker: Mutex<Option<Waker>>,
    observer: OnceLock<Box<dyn Fn(Change) + Send + Sync>>,
    /// To be done once the knobs stand as a former process left them.
    restored: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Panel {
    /// A panel with these knobs.
    #[must_use]
    pub fn new(streams: &[StreamKnobs], jacks: &[bool]) -> Self {
        Self {
            streams: streams.iter().map(StreamPanel::new).collect(),
            jacks: jacks.iter().copied().map(AtomicBool::new).collect(),
            restarts: AtomicU32::new(0),
            driver: AtomicBool::new(false),
            waker: Mutex::new(None),
            observer: OnceLock::new(),
            restored: Mutex::new(None),
        }
    }

    /// Calls `then` when the first driver comes and the knobs stand as a former process left them.
    pub fn when_restored(&self, then: impl FnOnce() + Send + 'static) {
        *self.restored.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(then));
    }

    /// The knobs stand as a former process left them.
    pub fn restored(&self) {
        let then = self
            .restored
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(then) = then {
            then();
        }
    }

    /// The streams, as the driver counts them.
    #[must_use]
    pub fn streams(&self) -> &[StreamPanel] {
        &self.streams
    }

    /// One stream.
    #[must_use]
    pub fn stream(&self, index: usize) -> Option<&StreamPanel> {
        self.streams.get(index)
    }

    /// How many jacks there are.
    #[must_use]
    pub fn jacks(&self) -> usize {
        self.jacks.len()
    }

    /// Whether something is plugged into a jack.
    #[must_use]
    pub fn jack(&self, index: usize) -> bool {
        self.jacks
            .get(index)
            .is_some_and(|jack| jack.load(Ordering::Relaxed))
    }

    /// Plugs or pulls. Call [`Panel::host_turned`] after it.
    pub fn set_jack(&self, index: usize, connected: bool) {
        if let Some(jack) = self.jacks.get(index) {
            jack.store(connected, Ordering::Relaxed);
        }
    }

    /// How often the service took over from one that died.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn set_restarts(&self, restarts: u32) {
        self.restarts.store(restarts, Ordering::Relaxed);
        self.tell(Change::Device);
    }

    /// Whether a guest's driver uses the device.
    #[must_use]
    pub fn has_driver(&self) -> bool {
        self.driver.load(Ordering::Relaxed)
    }

    pub(crate) fn set_driver(&self, running: bool) {
        if self.driver.swap(running, Ordering::Relaxed) != running {
            self.tell(Change::Device);
        }
    }

    /// The host has turned a knob: the queue thread looks at all of them soon.
    pub fn host_turned(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }

    pub(crate) fn set_waker(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// Who is told of changes, once: must not wait.
    pub fn observe(&self, observer: impl Fn(Change) + Send + Sync + 'static) {
        if self.observer.set(Box::new(observer)).is_err() {
            log::error!("the sound panel has an observer already");
        }
    }

    /// Tells the observer.
    pub fn tell(&self, change: Change) {
        if let Some(observer) = self.observer.get() {
            observer(change);
        }
    }
}

/// Getters and setters of a knob or display: relaxed, because each value stands for itself.
macro_rules! knob {
    ($(#[$doc:meta])* $name:ident, $set:ident, $type:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $type {
            self.$name.load(Ordering::Relaxed)
        }

        /// Sets it. Who sets tells the other side.
        pub fn $set(&self, value: $type) {
            self.$name.store(value, Ordering::Relaxed);
        }
    };
}

impl StreamPanel {
    fn new(knobs: &StreamKnobs) -> Self {
        Self {
            volume: AtomicU32::new(knobs.volume.min(VOLUME_MAX)),
            mute: AtomicBool::new(knobs.mute),
            source: AtomicU32::new(0),
            role: AtomicU8::new(knobs.role as u8),
            priority: AtomicU32::new(knobs.priority),
            step_back: AtomicU8::new(knobs.step_back as u8),
            duck_level: AtomicI32::new(knobs.duck_level),
            duck: AtomicI32::new(0),
            state: AtomicU8::new(0),
            server: AtomicU8::new(0),
            xruns: AtomicU64::new(0),
            latency_us: AtomicU32::new(0),
            frames: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
        }
    }

    knob!(
        /// Volume, 0 to [`VOLUME_MAX`].
        volume, set_volume, u32);
    knob!(
        /// Whether nothing is heard.
        mute, set_mute, bool);
    knob!(
        /// Selected source of an input stream.
        source, set_source, u32);
    knob!(
        /// Priority.
        priority, set_priority, u32);
    knob!(
        /// Hundredths of a decibel by which it goes down under higher priorities.
        duck_level, set_duck_level, i32);
    knob!(
        /// Hundredths of a decibel by which the manager has it go down for other guests.
        duck, set_duck, i32);
    knob!(
        /// Number of [`PcmState`](crate::model::PcmState).
        state, set_state, u8);
    knob!(
        /// Number of [`ServerState`](crate::backend::pipe::ServerState).
        server, set_server, u8);
    knob!(
        /// Under-runs or over-runs since the service started for this guest.
        xruns, set_xruns, u64);
    knob!(
        /// Latency of the last buffer, in microseconds.
        latency_us, set_latency_us, u32);
    knob!(
        /// Frames played or recorded since the stream was prepared.
        frames, set_frames, u64);
    knob!(
        /// Frames thrown away because the server was gone or too slow.
        discarded, set_discarded, u64);

    /// Purpose.
    #[must_use]
    pub fn role(&self) -> Role {
        let number = usize::from(self.role.load(Ordering::Relaxed));
        Role::ALL.get(number).copied().unwrap_or_default()
    }

    /// Sets the purpose.
    pub fn set_role(&self, role: Role) {
        self.role.store(role as u8, Ordering::Relaxed);
    }

    /// Sets what it does for streams of higher priority.
    pub fn set_step_back(&self, step_back: StepBack) {
        self.step_back.store(step_back as u8, Ordering::Relaxed);
    }

    /// What the policy needs to know.
    #[must_use]
    pub fn voice(&self, playing: bool) -> Voice {
        Voice {
            playing,
            priority: self.priority(),
            step_back: match self.step_back.load(Ordering::Relaxed) {
                1 => StepBack::Silence,
                2 => StepBack::Never,
                3 => StepBack::Pause,
                _ => StepBack::Duck,
            },
            duck_level: self.duck_level(),
            duck: self.duck(),
            volume: self.volume(),
            mute: self.mute(),
        }
    }
}
