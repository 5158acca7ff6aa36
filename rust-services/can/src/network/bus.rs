// SPDX-License-Identifier: Apache-2.0

//! A bus, whatever it is made of: its stations' frames, its state, how busy it is.

use std::time::Duration;

use super::interface::Interface;
use super::outbox::Waiting;
use super::virtual_bus::VirtualBus;
use super::{Acknowledge, Link, MOST_WAITING, Station};
use crate::frame::Frame;
use crate::timing::Rates;

/// Over how long the load of a bus is taken.
const WINDOW: Duration = Duration::from_secs(1);

/// What a bus is made of.
#[derive(Clone, Debug)]
pub enum Medium {
    /// It is in this process.
    Virtual {
        /// Its bit rates.
        rates: Rates,
        /// Who acknowledges its frames.
        acknowledge: Acknowledge,
    },
    /// It is behind an interface of the host; the rates serve to tell its load.
    Interface(String, Rates),
}

#[derive(Debug)]
pub(super) enum Wire {
    Virtual(VirtualBus),
    Interface(Interface),
}

/// A bus.
#[derive(Debug)]
pub struct Bus {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub medium: Medium,
    /// Frames that have passed.
    pub frames: u64,
    /// Errors that were seen.
    pub errors: u64,
    pub(super) wire: Wire,
    pub(super) load: Load,
}

impl Bus {
    pub(super) fn new(name: String, medium: Medium) -> Self {
        let wire = match &medium {
            Medium::Virtual { rates, acknowledge } => {
                let mut bus = VirtualBus::new(*rates, *acknowledge);
                bus.attach(Station::Injector);
                Wire::Virtual(bus)
            }
            Medium::Interface(..) => Wire::Interface(Interface::default()),
        };
        Self {
            name,
            medium,
            frames: 0,
            errors: 0,
            wire,
            load: Load::default(),
        }
    }

    /// How it is: `up`, `down` or `bus-off`.
    #[must_use]
    pub const fn link(&self) -> Link {
        match &self.wire {
            Wire::Virtual(_) => Link::Up,
            Wire::Interface(interface) => interface.link,
        }
    }

    /// How busy it was in the last whole second, in tenths of a per cent.
    #[must_use]
    pub fn load(&self, now: Duration) -> u32 {
        self.load.permille(now)
    }

    pub(super) const fn rates(&self) -> Rates {
        match &self.medium {
            Medium::Virtual { rates, .. } | Medium::Interface(_, rates) => *rates,
        }
    }

    pub(super) fn withdraw(&mut self, station: Station, now: Duration) -> usize {
        match &mut self.wire {
            Wire::Virtual(bus) => bus.withdraw(station, now),
            Wire::Interface(interface) => interface.withdraw(station),
        }
    }

    pub(super) fn set_live(&mut self, station: Station, live: bool, now: Duration) {
        if let Wire::Virtual(bus) = &mut self.wire {
            bus.set_live(station, live, now);
        }
    }

    pub(super) fn submit(&mut self, station: Station, waiting: Waiting, now: Duration) {
        match &mut self.wire {
            Wire::Virtual(bus) => bus.submit(station, waiting, now),
            Wire::Interface(interface) => interface.submit(station, waiting),
        }
    }

    /// Whether a station of the host may send one more frame: it has none that wait for a bus which
    /// is not there.
    pub(super) fn has_room(&self, station: Station) -> bool {
        let waiting = match &self.wire {
            Wire::Virtual(bus) => bus.waiting(station),
            Wire::Interface(interface) => interface.waiting(station),
        };
        self.link() == Link::Up && waiting < MOST_WAITING
    }

    /// A station that has no room gives up a frame that would go after this one.
    pub(super) fn make_way(&mut self, station: Station, frame: &Frame) -> bool {
        match &mut self.wire {
            Wire::Virtual(bus) => bus.make_way(station, frame),
            Wire::Interface(interface) => interface.make_way(station, frame),
        }
    }

    pub(super) fn next_event(&self) -> Option<Duration> {
        match &self.wire {
            Wire::Virtual(bus) => bus.next_event(),
            Wire::Interface(_) => None,
        }
    }
}

/// How busy a bus was in the window before this one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    begin: Duration,
    busy: Duration,
    last: u32,
}

impl Load {
    pub(super) fn add(&mut self, at: Duration, time: Duration) {
        self.last = self.permille(at);
        if at.saturating_sub(self.begin) >= WINDOW {
            let whole = at.saturating_sub(self.begin).as_secs();
            self.begin = self.begin.saturating_add(Duration::from_secs(whole));
            self.busy = Duration::ZERO;
        }
        self.busy = self.busy.saturating_add(time);
    }

    fn permille(&self, now: Duration) -> u32 {
        match now.saturating_sub(self.begin).as_secs() {
            0 => self.last,
            1 => {
                let micros = self.busy.as_micros().min(1_000_000);
                u32::try_from(micros).unwrap_or(u32::MAX) / 1000
            }
            _ => 0,
        }
    }
}
