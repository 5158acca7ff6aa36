// SPDX-License-Identifier: Apache-2.0

//! The network as an interface of the host sees it: frames to write, frames that were heard, news.

use std::time::Duration;

use super::bus::Wire;
use super::controller::count;
use super::interface::Interface;
use super::outbox::Waiting;
use super::{Bus, BusId, ControllerId, Link, Network, Station, bit};
use crate::frame::Frame;
use crate::identifiers::IdSet;
use crate::timing::frame_time;
use crate::wire::Outcome;

impl Network {
    fn interface(&mut self, bus: BusId) -> Option<&mut Interface> {
        match &mut self.buses.get_mut(bus.0)?.wire {
            Wire::Interface(interface) => Some(interface),
            Wire::Virtual(_) => None,
        }
    }

    /// The next frame to write to an interface. It counts as sent once the bus has it.
    pub fn write(&mut self, bus: BusId) -> Option<Frame> {
        let written = self.interface(bus)?.write()?;
        self.note(written.station, written.waiting.mark, true);
        Some(written.waiting.frame)
    }

    /// Whether frames are to be written.
    #[must_use]
    pub fn has_outgoing(&self, bus: BusId) -> bool {
        match self.buses.get(bus.0).map(|bus| &bus.wire) {
            Some(Wire::Interface(interface)) => interface.has_outgoing(),
            _ => false,
        }
    }

    /// Whether frames were written that the bus has not acknowledged.
    #[must_use]
    pub fn awaits(&self, bus: BusId) -> bool {
        match self.buses.get(bus.0).map(|bus| &bus.wire) {
            Some(Wire::Interface(interface)) => interface.awaits(),
            _ => false,
        }
    }

    /// The controller that alone cares for what a bus has to say: no other one is on it, and no
    /// gateway leads away from it.
    #[must_use]
    pub fn only_listener(&self, bus: BusId) -> Option<ControllerId> {
        let mut here = (0..).zip(&self.controllers).filter(|(_, of)| of.bus == bus);
        let (place, _) = here.next()?;
        let shared = here.next().is_some() || self.gateways.iter().any(|of| of.from == bus);
        (!shared).then_some(ControllerId(place))
    }

    /// The frame that [`Network::write`] gave last could not be written; it will be given again.
    pub fn unwrite(&mut self, bus: BusId) {
        if let Some(written) = self.interface(bus).and_then(Interface::unwrite) {
            self.note(written.station, written.waiting.mark, false);
        }
    }

    /// An interface does not take the frame that [`Network::write`] gave last, now or later.
    pub fn refused(&mut self, bus: BusId) {
        let Some(refused) = self.interface(bus).and_then(Interface::refused) else {
            return;
        };
        match refused.station {
            Station::Controller(place) => {
                if let Some(controller) = self.controllers.get_mut(place) {
                    controller.finish(refused.waiting.mark, Outcome::NotOk);
                    self.news.controllers |= bit(place);
                }
            }
            Station::Gateway(_) => self.lost(refused.station, 1),
            Station::Host(_) | Station::Injector => {}
        }
    }

    /// Frames of a station were not sent after all.
    fn lost(&mut self, station: Station, frames: usize) {
        let Station::Gateway(place) = station else {
            return;
        };
        if let Some(gateway) = self.gateways.get_mut(place) {
            let frames = u64::try_from(frames).unwrap_or(u64::MAX);
            gateway.forwarded = gateway.forwarded.saturating_sub(frames);
            gateway.lost = gateway.lost.wrapping_add(frames);
        }
    }

    fn note(&self, station: Station, mark: u16, passes: bool) {
        if let Station::Controller(place) = station {
            let controller = self.controllers.get(place);
            if let Some(journal) = controller.and_then(|of| of.journal.as_ref()) {
                journal.passing(mark, passes);
            }
        }
    }

    /// An interface says that one of our frames was on the bus.
    pub fn acknowledged(&mut self, bus: BusId, frame: &Frame, now: Duration) {
        self.add_load(bus, frame, now);
        let known = self.interface(bus).and_then(|of| of.acknowledged(frame));
        match known {
            Some(of) if of.withdrawn => self.hear(bus, Some(of.station), &of.waiting, now),
            Some(of) => self.passed(bus, of.station, of.waiting, now),
            None => {}
        }
    }

    /// An interface has heard a frame.
    pub fn heard(&mut self, bus: BusId, frame: Frame, now: Duration) {
        self.add_load(bus, &frame, now);
        let waiting = Waiting {
            frame,
            mark: 0,
            forwarded: false,
            since: now,
        };
        self.hear(bus, None, &waiting, now);
    }

    fn add_load(&mut self, bus: BusId, frame: &Frame, now: Duration) {
        if let Some(bus) = self.buses.get_mut(bus.0) {
            let time = frame_time(frame, bus.rates());
            bus.load.add(now, time);
        }
    }

    /// An interface has seen errors.
    pub fn saw_errors(&mut self, bus: BusId) {
        if let Some(bus) = self.buses.get_mut(bus.0) {
            count(&mut bus.errors);
        }
    }

    /// An interface has changed. Controllers on a bus that it has left have left it too, and what
    /// others had sent there is lost.
    pub fn set_link(&mut self, bus: BusId, link: Link, now: Duration) {
        let Some(interface) = self.interface(bus) else {
            return;
        };
        let before = std::mem::replace(&mut interface.link, link);
        if link == Link::Up || before == link {
            return;
        }
        let lost = interface.lose();
        for place in 0..self.controllers.len() {
            let here = self.controllers.get(place).is_some_and(|of| of.bus == bus);
            if here {
                self.leave_bus(ControllerId(place), now);
            }
        }
        for (station, frames) in lost {
            self.lost(station, frames);
        }
    }

    /// How the interface of a bus is.
    #[must_use]
    pub fn link(&self, bus: BusId) -> Option<Link> {
        self.buses.get(bus.0).map(Bus::link)
    }

    /// Whether a driver wanted to start while an interface was off its bus.
    pub fn take_restart(&mut self, bus: BusId) -> bool {
        self.interface(bus)
            .is_some_and(|interface| std::mem::take(&mut interface.wants_restart))
    }

    /// The identifiers that anybody on a bus sends or hears: for the kernel's filters.
    #[must_use]
    pub fn wanted(&self, bus: BusId) -> IdSet {
        let mut wanted = IdSet::default();
        for controller in self.controllers.iter().filter(|of| of.bus == bus) {
            wanted.extend(&controller.policy.send);
            wanted.extend(&controller.policy.receive);
        }
        for gateway in &self.gateways {
            if gateway.from == bus || gateway.to == bus {
                wanted.extend(&gateway.ids);
            }
        }
        wanted
    }
}
