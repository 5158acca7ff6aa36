// SPDX-License-Identifier: Apache-2.0

//! A guest's controller: whether it takes part in its bus, what waits for its guest, what it counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::policy::Policy;
use super::{BusId, Refused};
use crate::frame::Frame;
use crate::wire::{Outcome, needed};

/// Transmit errors from which on a controller only whispers (ISO 11898-1, 12.1.4.4).
const PASSIVE: u16 = 128;
/// Transmit errors at which a controller leaves the bus.
const BUS_OFF: u16 = 256;

/// Where progress is noted that outlives the service.
pub trait Journal: Send {
    /// The frame of this mark is about to be on the bus, or (`false`) is not after all.
    fn passing(&self, mark: u16, passes: bool);
}

/// How a controller stands to its bus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Its driver has not started it.
    Stopped,
    /// It takes part.
    Active,
    /// It takes part, and has met so many errors that it does not disturb others any more.
    Passive,
    /// It has met so many errors that it left the bus; its driver may start it again.
    BusOff,
}

impl State {
    /// The word on D-Bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Active => "active",
            Self::Passive => "passive",
            Self::BusOff => "bus-off",
        }
    }
}

/// What a controller has counted since the service started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Frames that were on the bus for its guest.
    pub sent: u64,
    /// Frames that its guest was given.
    pub received: u64,
    /// Frames given back unsent: stopped, or off the bus.
    pub unsent: u64,
    /// Frames that its guest may not send.
    pub denied: u64,
    /// Frames above a limit of their rate.
    pub limited: u64,
    /// Messages that were no frames, or of kinds that were not negotiated.
    pub malformed: u64,
    /// Frames that its guest may not hear, or whose kind it has not negotiated.
    pub filtered: u64,
    /// Frames lost because its guest was slow.
    pub lost: u64,
    /// Frames of urgent identifiers among them.
    pub lost_urgent: u64,
    /// Times that a frame of its met an error.
    pub errors: u64,
    /// Times that it left the bus because of errors.
    pub bus_offs: u64,
}

impl Counters {
    /// Each with its name.
    #[must_use]
    pub const fn table(&self) -> [(&'static str, u64); 11] {
        [
            ("sent", self.sent),
            ("received", self.received),
            ("unsent", self.unsent),
            ("denied", self.denied),
            ("limited", self.limited),
            ("malformed", self.malformed),
            ("filtered", self.filtered),
            ("lost", self.lost),
            ("lost_urgent", self.lost_urgent),
            ("errors", self.errors),
            ("bus_offs", self.bus_offs),
        ]
    }
}

/// Counts one more.
pub(super) fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}

/// What outlives a death of the service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Saved {
    /// The driver has started it.
    pub started: bool,
    /// It has left the bus because of errors.
    pub bus_off: bool,
    /// Its transmit error counter.
    pub errors: u16,
}

/// The bit of the configuration that says bus-off; read by the session's thread.
pub type BusOffFlag = Arc<AtomicBool>;

/// A controller.
pub struct Controller {
    /// Its guest's name.
    pub name: String,
    /// The bus it is on.
    pub bus: BusId,
    /// What its guest may do.
    pub policy: Policy,
    /// What it has counted.
    pub counters: Counters,
    pub(super) journal: Option<Box<dyn Journal>>,
    features: u64,
    started: bool,
    errors: u16,
    bus_off: BusOffFlag,
    status_changed: bool,
    /// Marks of frames on their way to the bus, in the order they were sent in.
    pending: VecDeque<u16>,
    /// Frames that are done with, and whose driver waits for them.
    done: VecDeque<(u16, Outcome)>,
    urgent: VecDeque<Frame>,
    ordinary: VecDeque<Frame>,
    backlog: usize,
}

impl Controller {
    /// A stopped controller that keeps at most `backlog` frames for its guest.
    #[must_use]
    pub fn new(name: String, bus: BusId, policy: Policy, backlog: usize) -> Self {
        Self {
            name,
            bus,
            policy,
            counters: Counters::default(),
            journal: None,
            features: 0,
            started: false,
            errors: 0,
            bus_off: BusOffFlag::default(),
            status_changed: false,
            pending: VecDeque::new(),
            done: VecDeque::new(),
            urgent: VecDeque::new(),
            ordinary: VecDeque::new(),
            backlog,
        }
    }

    /// How it stands to its bus.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.is_bus_off(), self.started) {
            (true, _) => State::BusOff,
            (false, false) => State::Stopped,
            (false, true) if self.errors >= PASSIVE => State::Passive,
            (false, true) => State::Active,
        }
    }

    /// Its transmit error counter.
    #[must_use]
    pub const fn errors(&self) -> u16 {
        self.errors
    }

    /// What its configuration says of bus-off.
    #[must_use]
    pub fn bus_off_flag(&self) -> BusOffFlag {
        Arc::clone(&self.bus_off)
    }

    fn is_bus_off(&self) -> bool {
        self.bus_off.load(Ordering::Acquire)
    }

    pub(super) const fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    pub(super) fn start(&mut self) {
        self.started = true;
        self.errors = 0;
        self.bus_off.store(false, Ordering::Release);
    }

    /// Leaves the bus; frames that its guest has not been given are void.
    pub(super) fn stop(&mut self) {
        self.started = false;
        self.urgent.clear();
        self.ordinary.clear();
    }

    pub(super) fn reset(&mut self) {
        self.stop();
        self.errors = 0;
        self.features = 0;
        self.bus_off.store(false, Ordering::Release);
        self.status_changed = false;
        self.pending.clear();
        self.done.clear();
        self.journal = None;
    }

    pub(super) fn leave_bus(&mut self) {
        self.stop();
        count(&mut self.counters.bus_offs);
        self.bus_off.store(true, Ordering::Release);
        self.status_changed = true;
    }

    /// Whether its configuration has changed since the last question.
    pub(super) fn take_status_change(&mut self) -> bool {
        std::mem::take(&mut self.status_changed)
    }

    pub(super) fn saved(&self) -> Saved {
        Saved {
            started: self.started,
            bus_off: self.is_bus_off(),
            errors: self.errors,
        }
    }

    pub(super) fn restore(&mut self, saved: Saved) {
        self.started = saved.started;
        self.errors = saved.errors;
        self.bus_off.store(saved.bus_off, Ordering::Release);
        // Nobody knows whether the driver was told before the death.
        self.status_changed = saved.bus_off;
    }

    /// Whether a frame may be sent now.
    pub(super) fn may_send(&self) -> Result<(), Refused> {
        if self.started && !self.is_bus_off() {
            Ok(())
        } else {
            Err(Refused::Stopped)
        }
    }

    pub(super) fn await_mark(&mut self, mark: u16) {
        self.pending.push_back(mark);
    }

    /// What is on its way to the bus comes back.
    pub(super) fn fail_pending(&mut self) {
        while let Some(mark) = self.pending.front().copied() {
            self.finish(mark, Outcome::NotOk);
        }
    }

    pub(super) fn finish(&mut self, mark: u16, outcome: Outcome) {
        // Nearly always the first: a bus keeps the order of a station.
        if let Some(place) = self.pending.iter().position(|of| *of == mark) {
            self.pending.remove(place);
        }
        match outcome {
            Outcome::Ok => count(&mut self.counters.sent),
            Outcome::NotOk => count(&mut self.counters.unsent),
        }
        self.done.push_back((mark, outcome));
    }

    /// A frame of its was on the bus.
    pub(super) fn succeeded(&mut self) {
        self.errors = self.errors.saturating_sub(1);
    }

    /// A frame of its met an error. Whether it leaves the bus.
    pub(super) fn failed(&mut self) -> bool {
        count(&mut self.counters.errors);
        self.errors = self.errors.saturating_add(8);
        self.errors >= BUS_OFF
    }

    pub(super) fn take_done(&mut self) -> Option<(u16, Outcome)> {
        self.done.pop_front()
    }

    /// How many frames wait for its guest.
    pub(super) fn frames(&self) -> usize {
        self.urgent.len().saturating_add(self.ordinary.len())
    }

    /// Keeps a frame for its guest, if it may have it. Whether it is kept.
    pub(super) fn hear(&mut self, frame: &Frame) -> bool {
        if !self.started {
            return false;
        }
        let wanted = needed(frame.kind());
        if self.features & wanted != wanted || !self.policy.receive.contains(frame.id()) {
            count(&mut self.counters.filtered);
            return false;
        }
        let urgent = self.policy.urgent.contains(frame.id());
        let full = self.frames() >= self.backlog;
        if full {
            // The newest of the ordinary ones gives way: what a guest has heard stays in order.
            let replaced = urgent && self.ordinary.pop_back().is_some();
            count(&mut self.counters.lost);
            if urgent && !replaced {
                count(&mut self.counters.lost_urgent);
            }
            if !replaced {
                return false;
            }
        }
        if urgent {
            self.urgent.push_back(*frame);
        } else {
            self.ordinary.push_back(*frame);
        }
        true
    }

    /// The next frame for its guest: urgent ones first.
    pub(super) fn take_frame(&mut self) -> Option<Frame> {
        let frame = self
            .urgent
            .pop_front()
            .or_else(|| self.ordinary.pop_front());
        if frame.is_some() {
            count(&mut self.counters.received);
        }
        frame
    }

    /// Puts back a frame that did not fit the guest's buffer. It was lost where it has left its bus
    /// meanwhile.
    pub(super) fn return_frame(&mut self, frame: Frame) {
        self.counters.received = self.counters.received.wrapping_sub(1);
        if !self.started {
            return;
        }
        if self.policy.urgent.contains(frame.id()) {
            self.urgent.push_front(frame);
        } else {
            self.ordinary.push_front(frame);
        }
    }
}
