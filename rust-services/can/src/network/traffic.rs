// SPDX-License-Identifier: Apache-2.0

//! Frames on their way: from a station to its bus, past all that listen, and through gateways.

use std::time::Duration;

use super::bus::Wire;
use super::controller::{Controller, count};
use super::outbox::Waiting;
use super::policy::Refusal;
use super::virtual_bus::Event;
use super::{BusId, ControllerId, Link, Network, Refused, Station, bit};
use crate::frame::Frame;
use crate::timing::{broken_frame_time, frame_time};
use crate::wire::Outcome;

impl Network {
    /// Lets time pass: frames end, and others begin.
    pub fn advance(&mut self, now: Duration) {
        while self.step(now) {}
    }

    /// The next thing that happens until `now`; nothing, and `false`, if there is none. Other calls
    /// let no time pass: what a frame causes outside of here can be done before the next one ends.
    pub fn step(&mut self, now: Duration) -> bool {
        let due = self
            .buses
            .iter()
            .enumerate()
            .filter_map(|(place, bus)| Some((bus.next_event()?, place)))
            .min();
        let Some((at, place)) = due.filter(|(at, _)| *at <= now) else {
            return false;
        };
        let Some(bus) = self.buses.get_mut(place) else {
            return false;
        };
        let Wire::Virtual(wire) = &mut bus.wire else {
            return false;
        };
        let rates = wire.rates;
        match wire.advance(at) {
            Some(Event::Passed(station, waiting)) => {
                bus.load.add(at, frame_time(&waiting.frame, rates));
                self.passed(BusId(place), station, waiting, at);
            }
            Some(Event::Broken(station, frame)) => {
                bus.load.add(at, broken_frame_time(&frame, rates));
                self.broken(BusId(place), station, at);
            }
            None => return false,
        }
        true
    }

    /// A frame has been on a bus: its sender hears of it, all others hear it.
    pub(super) fn passed(&mut self, bus: BusId, from: Station, waiting: Waiting, at: Duration) {
        if let Station::Controller(place) = from {
            if let Some(controller) = self.controllers.get_mut(place) {
                if let Some(journal) = &controller.journal {
                    journal.passing(waiting.mark, true);
                }
                controller.succeeded();
                controller.finish(waiting.mark, Outcome::Ok);
                self.news.controllers |= bit(place);
            }
        }
        self.hear(bus, Some(from), &waiting, at);
    }

    pub(super) fn hear(
        &mut self,
        bus: BusId,
        from: Option<Station>,
        waiting: &Waiting,
        at: Duration,
    ) {
        if let Some(bus) = self.buses.get_mut(bus.0) {
            count(&mut bus.frames);
        }
        let frame = &waiting.frame;
        for (place, controller) in self.controllers.iter_mut().enumerate() {
            let here = controller.bus == bus && from != Some(Station::Controller(place));
            if here && controller.hear(frame) {
                self.news.controllers |= bit(place);
            }
        }
        self.tell_programs(bus, from, frame);
        if waiting.forwarded {
            return;
        }
        for place in 0..self.gateways.len() {
            self.forward(place, bus, frame, at);
        }
    }

    fn forward(&mut self, place: usize, bus: BusId, frame: &Frame, at: Duration) {
        let Some(gateway) = self.gateways.get_mut(place) else {
            return;
        };
        if gateway.from != bus || !gateway.ids.contains(frame.id()) {
            return;
        }
        let station = Station::Gateway(place);
        let Some(to) = self.buses.get_mut(gateway.to.0) else {
            return;
        };
        if !to.has_room(station) {
            // One of the two is lost: of many senders the one that matters less.
            count(&mut gateway.lost);
            if to.link() != Link::Up || !to.make_way(station, frame) {
                return;
            }
            gateway.forwarded = gateway.forwarded.saturating_sub(1);
        }
        count(&mut gateway.forwarded);
        let waiting = Waiting {
            frame: *frame,
            mark: 0,
            forwarded: true,
            since: at,
        };
        to.submit(station, waiting, at);
        // The other bus may be an interface, and may be due sooner.
        self.news.hub = true;
    }

    fn broken(&mut self, bus: BusId, station: Station, at: Duration) {
        if let Some(bus) = self.buses.get_mut(bus.0) {
            count(&mut bus.errors);
        }
        if let Station::Controller(place) = station {
            let controller = self.controllers.get_mut(place);
            if controller.is_some_and(Controller::failed) {
                self.leave_bus(ControllerId(place), at);
            }
        }
    }

    /// A guest sends a frame. `mark` tells it apart from others of the guest that are not done.
    ///
    /// # Errors
    /// When it is not sent, and why.
    pub fn transmit(
        &mut self,
        id: ControllerId,
        frame: Frame,
        mark: u16,
        now: Duration,
    ) -> Result<(), Refused> {
        let Some(controller) = self.controllers.get_mut(id.0) else {
            return Err(Refused::Stopped);
        };
        if let Err(refused) = controller.may_send() {
            count(&mut controller.counters.unsent);
            return Err(refused);
        }
        controller
            .policy
            .admit(frame.id(), now)
            .map_err(|refusal| {
                match refusal {
                    Refusal::Denied => count(&mut controller.counters.denied),
                    Refusal::Limited => count(&mut controller.counters.limited),
                }
                Refused::Policy(refusal)
            })?;
        controller.await_mark(mark);
        let bus = controller.bus;
        self.submit(bus, Station::Controller(id.0), frame, mark, now);
        Ok(())
    }

    /// A guest's message was no frame.
    pub fn malformed(&mut self, id: ControllerId) {
        if let Some(controller) = self.controller(id) {
            count(&mut controller.counters.malformed);
        }
    }

    /// Sends a frame that already was on the bus for its sender: nothing is sent, it is done.
    pub fn already_sent(&mut self, id: ControllerId, mark: u16) {
        if let Some(controller) = self.controller(id) {
            controller.finish(mark, Outcome::Ok);
            self.news.controllers |= bit(id.0);
        }
    }

    fn submit(&mut self, bus: BusId, station: Station, frame: Frame, mark: u16, now: Duration) {
        let waiting = Waiting {
            frame,
            mark,
            forwarded: false,
            since: now,
        };
        if let Some(bus) = self.buses.get_mut(bus.0) {
            bus.submit(station, waiting, now);
            self.news.outgoing |= matches!(bus.wire, Wire::Interface(_));
        }
        self.look_sooner();
    }

    /// A program of the host, or D-Bus, sends a frame. Whether there is room for it.
    pub fn send(&mut self, bus: BusId, station: Station, frame: Frame, now: Duration) -> bool {
        if !self.has_room(bus, station) {
            return false;
        }
        self.submit(bus, station, frame, 0, now);
        true
    }

    /// Whether a station may send one more frame.
    #[must_use]
    pub fn has_room(&self, bus: BusId, station: Station) -> bool {
        let bus = self.buses.get(bus.0);
        bus.is_some_and(|bus| bus.has_room(station))
    }

    /// The next frames of a controller meet errors. Only a virtual bus can do that.
    pub fn inject_errors(&mut self, id: ControllerId, count: u32) -> bool {
        let Some(controller) = self.controllers.get(id.0) else {
            return false;
        };
        match self
            .buses
            .get_mut(controller.bus.0)
            .map(|bus| &mut bus.wire)
        {
            Some(Wire::Virtual(bus)) => {
                bus.inject_errors(Station::Controller(id.0), count);
                true
            }
            _ => false,
        }
    }
}
