// SPDX-License-Identifier: Apache-2.0

//! Frames of one station that wait for their bus.
//!
//! A guest or a program decides itself what it sends next, so its frames keep their order. A gateway
//! has frames of many senders, and none of them shall hold up another's that matters more: they stand
//! in the order in which a bus would take them, those of one identifier in the order they came in.

use std::collections::VecDeque;
use std::time::Duration;

use super::Station;
use crate::frame::{Frame, Kind};

/// A frame that waits for the bus, with what its sender knows it by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) frame: Frame,
    pub(super) mark: u16,
    /// It came over a gateway, and takes no other one.
    pub(super) forwarded: bool,
    /// Since when it waits.
    pub(super) since: Duration,
}

/// What a station sends, the next frame first.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) station: Station,
    waiting: VecDeque<Waiting>,
}

impl Outbox {
    pub(super) fn new(station: Station) -> Self {
        Self {
            station,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    /// Puts back what [`Outbox::pop`] gave.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.waiting.push_front(waiting);
    }

    /// Adds a frame. Where the first one is `on_the_bus`, it stays the first.
    pub(super) fn push(&mut self, waiting: Waiting, on_the_bus: bool) {
        let place = match self.station {
            Station::Gateway(_) => self.place_of(&waiting.frame),
            _ => self.waiting.len(),
        };
        let place = place.max(usize::from(on_the_bus)).min(self.waiting.len());
        self.waiting.insert(place, waiting);
    }

    /// Behind the last frame that goes before this one.
    fn place_of(&self, frame: &Frame) -> usize {
        let rank = arbitration(frame);
        let before = self
            .waiting
            .iter()
            .rposition(|of| arbitration(&of.frame) <= rank);
        before.map_or(0, |place| place.saturating_add(1))
    }

    /// Gives up the last frame, if this one would go before it.
    pub(super) fn make_way(&mut self, frame: &Frame) -> bool {
        let last = self.waiting.back();
        let gives_way = last.is_some_and(|last| arbitration(&last.frame) > arbitration(frame));
        if gives_way {
            self.waiting.pop_back();
        }
        gives_way
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// The bits of the arbitration field in their order, as a number: the lowest wins.
pub(super) fn arbitration(frame: &Frame) -> u32 {
    let number = frame.id().number();
    let remote = u32::from(frame.kind() == Kind::Remote);
    if frame.id().is_extended() {
        // Base identifier, substitute remote request, identifier extension, the rest, remote request.
        (number >> 18) << 21 | 0b11 << 19 | (number & 0x3_ffff) << 1 | remote
    } else {
        number << 21 | remote << 20
    }
}
