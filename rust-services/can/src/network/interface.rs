// SPDX-License-Identifier: Apache-2.0

//! A bus of the host, behind a network interface: its arbitration and its time are real.
//!
//! The kernel takes a few frames and sends them in their order. What it does not take yet waits here,
//! and goes on as on a bus: of the stations' first frames the lowest identifier.

use std::collections::VecDeque;

use super::outbox::{Outbox, Waiting, arbitration};
use super::{MOST_WAITING, Station};
use crate::frame::Frame;

/// What the host says of its interface.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Link {
    /// It is not up.
    #[default]
    Down,
    /// It takes part in its bus.
    Up,
    /// It has left its bus because of errors.
    BusOff,
}

impl Link {
    /// The word on D-Bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::BusOff => "bus-off",
        }
    }
}

/// A frame that the kernel has, and the bus has not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) station: Station,
    pub(super) waiting: Waiting,
    /// Its station does not wait for it any more. It will be on the bus all the same, where all
    /// others hear it.
    pub(super) withdrawn: bool,
}

/// Frames on their way to an interface and back.
#[derive(Debug, Default)]
pub(super) struct Interface {
    pub(super) link: Link,
    /// Somebody wants it to take part again.
    pub(super) wants_restart: bool,
    /// Of stations that have any.
    outgoing: Vec<Outbox>,
    awaited: VecDeque<Written>,
}

impl Interface {
    fn at_outbox(&mut self, station: Station, work: impl FnOnce(&mut Outbox)) {
        if let Some(outbox) = self.outgoing.iter_mut().find(|of| of.station == station) {
            work(outbox);
        } else {
            let mut outbox = Outbox::new(station);
            work(&mut outbox);
            self.outgoing.push(outbox);
        }
    }

    pub(super) fn submit(&mut self, station: Station, waiting: Waiting) {
        self.at_outbox(station, |outbox| outbox.push(waiting, false));
    }

    /// A station whose frames are too many gives up one that would go after this one.
    pub(super) fn make_way(&mut self, station: Station, frame: &Frame) -> bool {
        let outbox = self.outgoing.iter_mut().find(|of| of.station == station);
        outbox.is_some_and(|outbox| outbox.make_way(frame))
    }

    pub(super) fn has_outgoing(&self) -> bool {
        self.link == Link::Up && !self.outgoing.is_empty()
    }

    pub(super) fn awaits(&self) -> bool {
        !self.awaited.is_empty()
    }

    pub(super) fn waiting(&self, station: Station) -> usize {
        let outbox = self.outgoing.iter().find(|of| of.station == station);
        let written = self.awaited.iter();
        let written = written.filter(|of| of.station == station && !of.withdrawn);
        outbox
            .map_or(0, Outbox::len)
            .saturating_add(written.count())
    }

    /// The next frame to be written; it is awaited from now on. An interface that is off its bus
    /// would take it and throw it away.
    pub(super) fn write(&mut self) -> Option<Written> {
        if self.link != Link::Up {
            return None;
        }
        let rank = |outbox: &Outbox| {
            let head = outbox.front();
            head.map(|head| (arbitration(&head.frame), head.since))
        };
        let outbox = self.outgoing.iter_mut().min_by_key(|outbox| rank(outbox))?;
        let next = Written {
            station: outbox.station,
            waiting: outbox.pop()?,
            withdrawn: false,
        };
        self.outgoing.retain(|outbox| !outbox.is_empty());
        self.awaited.push_back(next);
        Some(next)
    }

    /// The frame that was to be written last was not.
    pub(super) fn unwrite(&mut self) -> Option<Written> {
        let last = self.awaited.pop_back()?;
        self.at_outbox(last.station, |outbox| outbox.put_back(last.waiting));
        Some(last)
    }

    /// The frame that was to be written last never will be.
    pub(super) fn refused(&mut self) -> Option<Written> {
        self.awaited.pop_back()
    }

    /// The bus has acknowledged a frame.
    pub(super) fn acknowledged(&mut self, frame: &Frame) -> Option<Written> {
        let mut awaited = self.awaited.iter();
        let place = awaited.position(|of| of.waiting.frame == *frame)?;
        self.awaited.remove(place)
    }

    /// Takes back what a station waits for. What was written already will be on the bus.
    pub(super) fn withdraw(&mut self, station: Station) -> usize {
        let before = self.waiting(station);
        self.outgoing.retain(|outbox| outbox.station != station);
        for of in self.awaited.iter_mut().filter(|of| of.station == station) {
            of.withdrawn = true;
        }
        // A station may come and go as often as it likes, and an interface lose its frames.
        let withdrawn = self.awaited.iter().filter(|of| of.withdrawn).count();
        let mut most = withdrawn.saturating_sub(MOST_WAITING);
        self.awaited.retain(|of| {
            let drop = of.withdrawn && most > 0;
            most = most.saturating_sub(usize::from(drop));
            !drop
        });
        before
    }

    /// The interface has left its bus, and all that it was to send is lost: how many frames of which
    /// stations. What would be sent when it comes back is news of another time.
    pub(super) fn lose(&mut self) -> Vec<(Station, usize)> {
        let waited = std::mem::take(&mut self.outgoing);
        let waited = waited.iter().map(|outbox| (outbox.station, outbox.len()));
        let written = std::mem::take(&mut self.awaited);
        let written = written.iter().map(|of| (of.station, 1));
        waited.chain(written).collect()
    }
}
