// SPDX-License-Identifier: Apache-2.0

//! A bus of the host, behind a network interface: its arbitration and its time are real.

use std::collections::VecDeque;

use super::Station;
use super::virtual_bus::Waiting;
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

/// Frames on their way to an interface and back.
#[derive(Debug, Default)]
pub(super) struct Interface {
    pub(super) link: Link,
    /// Somebody wants it to take part again.
    pub(super) wants_restart: bool,
    outgoing: VecDeque<(Station, Waiting)>,
    /// Written, and not yet acknowledged by the bus.
    awaited: VecDeque<(Station, Waiting)>,
}

impl Interface {
    pub(super) fn submit(&mut self, station: Station, waiting: Waiting) {
        self.outgoing.push_back((station, waiting));
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(super) fn awaits(&self) -> bool {
        !self.awaited.is_empty()
    }

    pub(super) fn waiting(&self, station: Station) -> usize {
        let both = self.outgoing.iter().chain(&self.awaited);
        both.filter(|(of, _)| *of == station).count()
    }

    /// The next frame to be written; it is awaited from now on.
    pub(super) fn write(&mut self) -> Option<(Station, Waiting)> {
        let next = self.outgoing.pop_front()?;
        self.awaited.push_back(next);
        Some(next)
    }

    /// The frame that was to be written last was not.
    pub(super) fn unwrite(&mut self) -> Option<(Station, Waiting)> {
        let last = self.awaited.pop_back()?;
        self.outgoing.push_front(last);
        Some(last)
    }

    /// The frame that was to be written last never will be.
    pub(super) fn refused(&mut self) -> Option<(Station, Waiting)> {
        self.awaited.pop_back()
    }

    /// The bus has acknowledged a frame.
    pub(super) fn acknowledged(&mut self, frame: &Frame) -> Option<(Station, Waiting)> {
        let place = self
            .awaited
            .iter()
            .position(|(_, waiting)| waiting.frame == *frame)?;
        self.awaited.remove(place)
    }

    /// Takes back what a station waits for. What was written already will be on the bus.
    pub(super) fn withdraw(&mut self, station: Station) -> usize {
        let before = self.outgoing.len().saturating_add(self.awaited.len());
        self.outgoing.retain(|(of, _)| *of != station);
        self.awaited.retain(|(of, _)| *of != station);
        before.saturating_sub(self.outgoing.len().saturating_add(self.awaited.len()))
    }
}
