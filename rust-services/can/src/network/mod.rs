// SPDX-License-Identifier: Apache-2.0

//! Buses, the stations on them, and gateways between them, under a clock that the caller holds.
//!
//! Nothing in here does I/O or waits: each call says what time it is, and may leave news for
//! controllers, for programs of the host, and for interfaces.

mod bus;
pub mod controller;
mod interface;
mod outside;
pub mod policy;
mod virtual_bus;

use std::collections::VecDeque;
use std::time::Duration;

pub use bus::{Bus, Medium};
pub use controller::{BusOffFlag, Controller, Counters, Journal, Saved, State};
pub use interface::Link;
pub use virtual_bus::Acknowledge;

use crate::frame::Frame;
use crate::identifiers::IdSet;
use crate::timing::{broken_frame_time, frame_time};
use crate::wire::Outcome;
use bus::Wire;
use controller::count;
use policy::Refusal;
use virtual_bus::{Event, Waiting};

/// Controllers at most in one process.
pub const MOST_CONTROLLERS: usize = 64;
/// Frames that wait for a bus at most, of a gateway, a program of the host, or D-Bus.
pub const MOST_WAITING: usize = 256;
/// Frames that wait for a program of the host at most.
const MOST_UNREAD: usize = 4096;

/// The place of a bus among all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BusId(pub usize);

/// The place of a controller among all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ControllerId(pub usize);

/// Something that sends frames on a bus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Station {
    /// A guest's controller.
    Controller(usize),
    /// A program of the host.
    Host(u64),
    /// A gateway that leads here.
    Gateway(usize),
    /// Whoever sends over D-Bus.
    Injector,
}

/// Why a controller does not send a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// It is stopped, or off the bus.
    Stopped,
    /// Its guest may not.
    Policy(Refusal),
}

/// Frames from one bus that are sent on another.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Where they come from.
    pub from: BusId,
    /// Where they go.
    pub to: BusId,
    /// Which.
    pub ids: IdSet,
    /// How many were sent on.
    pub forwarded: u64,
    /// How many were not, because the other bus was too slow.
    pub lost: u64,
}

/// A program of the host on a bus.
#[derive(Debug)]
struct HostStation {
    key: u64,
    bus: BusId,
    unread: VecDeque<Frame>,
}

/// For whom there is news.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// Controllers, one bit each.
    pub controllers: u64,
    /// Programs of the host, an interface, or the time of the next event.
    pub hub: bool,
}

/// All buses of the process.
#[derive(Default)]
pub struct Network {
    /// The buses.
    pub buses: Vec<Bus>,
    /// The controllers of guests.
    pub controllers: Vec<Controller>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// Frames that programs of the host did not read in time.
    pub host_lost: u64,
    hosts: Vec<HostStation>,
    news: News,
    /// When the hub will look by itself.
    hub_looks_at: Option<Duration>,
}

impl Network {
    /// Adds a bus.
    pub fn add_bus(&mut self, name: String, medium: Medium) -> BusId {
        let id = BusId(self.buses.len());
        self.buses.push(Bus::new(name, medium));
        id
    }

    /// Adds a controller.
    pub fn add_controller(&mut self, controller: Controller) -> ControllerId {
        let id = ControllerId(self.controllers.len());
        self.attach(controller.bus, Station::Controller(id.0));
        self.controllers.push(controller);
        id
    }

    /// Adds a gateway.
    pub fn add_gateway(&mut self, from: BusId, to: BusId, ids: IdSet) {
        self.attach(to, Station::Gateway(self.gateways.len()));
        self.gateways.push(Gateway {
            from,
            to,
            ids,
            forwarded: 0,
            lost: 0,
        });
    }

    fn attach(&mut self, bus: BusId, station: Station) {
        if let Some(Bus {
            wire: Wire::Virtual(bus),
            ..
        }) = self.buses.get_mut(bus.0)
        {
            bus.attach(station);
        }
    }

    /// Adds a program of the host, known by `key`.
    pub fn add_host(&mut self, key: u64, bus: BusId, now: Duration) {
        self.attach(bus, Station::Host(key));
        self.hosts.push(HostStation {
            key,
            bus,
            unread: VecDeque::new(),
        });
        if let Some(bus) = self.buses.get_mut(bus.0) {
            bus.set_live(Station::Host(key), true, now);
        }
        self.look_sooner();
    }

    /// A program of the host has gone.
    pub fn remove_host(&mut self, key: u64, now: Duration) {
        for bus in &mut self.buses {
            match &mut bus.wire {
                Wire::Virtual(bus) => bus.detach(Station::Host(key), now),
                Wire::Interface(interface) => {
                    interface.withdraw(Station::Host(key));
                }
            }
        }
        self.hosts.retain(|host| host.key != key);
        self.look_sooner();
    }

    /// A controller; none of another number is ever asked for.
    fn controller(&mut self, id: ControllerId) -> Option<&mut Controller> {
        self.controllers.get_mut(id.0)
    }

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

    /// When [`Network::advance`] has something to do.
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        self.buses.iter().filter_map(Bus::next_event).min()
    }

    /// A frame has been on a bus: its sender hears of it, all others hear it.
    fn passed(&mut self, bus: BusId, from: Station, waiting: Waiting, at: Duration) {
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

    fn hear(&mut self, bus: BusId, from: Option<Station>, waiting: &Waiting, at: Duration) {
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
        for host in &mut self.hosts {
            if host.bus == bus && from != Some(Station::Host(host.key)) {
                self.news.hub = true;
                if host.unread.len() < MOST_UNREAD {
                    host.unread.push_back(*frame);
                } else {
                    count(&mut self.host_lost);
                }
            }
        }
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
        if to.waiting(station) >= MOST_WAITING {
            count(&mut gateway.lost);
            return;
        }
        count(&mut gateway.forwarded);
        let waiting = Waiting {
            frame: *frame,
            mark: 0,
            forwarded: true,
            since: at,
        };
        to.submit(station, waiting, at);
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

    /// Takes a controller off its bus as errors do. Its driver is told.
    pub fn leave_bus(&mut self, id: ControllerId, now: Duration) {
        if self
            .controllers
            .get(id.0)
            .is_some_and(Controller::is_started)
        {
            self.give_back(id, now);
            if let Some(controller) = self.controller(id) {
                controller.leave_bus();
            }
            self.news.controllers |= bit(id.0);
        }
    }

    /// The driver starts its controller. Refused while the host's interface is off its bus.
    pub fn start(&mut self, id: ControllerId, now: Duration) -> Outcome {
        let Some(controller) = self.controllers.get_mut(id.0) else {
            return Outcome::NotOk;
        };
        let Some(bus) = self.buses.get_mut(controller.bus.0) else {
            return Outcome::NotOk;
        };
        if let Wire::Interface(interface) = &mut bus.wire {
            if interface.link != Link::Up {
                interface.wants_restart = true;
                self.news.hub = true;
                return Outcome::NotOk;
            }
        }
        controller.start();
        bus.set_live(Station::Controller(id.0), true, now);
        self.look_sooner();
        Outcome::Ok
    }

    /// The driver stops its controller: what it has not sent comes back.
    pub fn stop(&mut self, id: ControllerId, now: Duration) {
        self.give_back(id, now);
        if let Some(controller) = self.controller(id) {
            controller.stop();
        }
    }

    /// The driver has gone, and all it wanted with it.
    pub fn reset(&mut self, id: ControllerId, now: Duration) {
        self.stop(id, now);
        if let Some(controller) = self.controller(id) {
            controller.reset();
        }
    }

    /// Frames that a controller has not sent come back as not sent.
    fn give_back(&mut self, id: ControllerId, now: Duration) {
        let Some(controller) = self.controllers.get_mut(id.0) else {
            return;
        };
        let station = Station::Controller(id.0);
        if let Some(bus) = self.buses.get_mut(controller.bus.0) {
            bus.set_live(station, false, now);
            bus.withdraw(station, now);
        }
        controller.fail_pending();
        self.news.controllers |= bit(id.0);
        self.look_sooner();
    }

    /// A driver has its features, and its progress is noted in `journal`.
    pub fn attend(&mut self, id: ControllerId, features: u64, journal: Option<Box<dyn Journal>>) {
        if let Some(controller) = self.controller(id) {
            controller.set_features(features);
            controller.journal = journal;
        }
    }

    /// What of a controller outlives the service.
    #[must_use]
    pub fn saved(&self, id: ControllerId) -> Saved {
        self.controllers
            .get(id.0)
            .map(Controller::saved)
            .unwrap_or_default()
    }

    /// Takes over what another process of the service has saved.
    pub fn restore(&mut self, id: ControllerId, saved: Saved, now: Duration) {
        let Some(controller) = self.controllers.get_mut(id.0) else {
            return;
        };
        controller.restore(saved);
        if let Some(bus) = self.buses.get_mut(controller.bus.0) {
            bus.set_live(Station::Controller(id.0), saved.started, now);
        }
        self.look_sooner();
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
            if matches!(bus.wire, Wire::Interface(_)) {
                self.news.hub = true;
            }
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
        bus.is_some_and(|bus| bus.waiting(station) < MOST_WAITING)
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

    /// The next frame that a controller has for its guest.
    pub fn take_frame(&mut self, id: ControllerId) -> Option<Frame> {
        self.controller(id)?.take_frame()
    }

    /// Puts one back.
    pub fn return_frame(&mut self, id: ControllerId, frame: Frame) {
        if let Some(controller) = self.controller(id) {
            controller.return_frame(frame);
        }
    }

    /// Whether a controller has frames for its guest.
    #[must_use]
    pub fn has_frames(&self, id: ControllerId) -> bool {
        self.controllers
            .get(id.0)
            .is_some_and(Controller::has_frames)
    }

    /// The next frame of a guest that is done with.
    pub fn take_done(&mut self, id: ControllerId) -> Option<(u16, Outcome)> {
        self.controller(id)?.take_done()
    }

    /// Whether the configuration of a controller has changed since the last question.
    pub fn take_status_change(&mut self, id: ControllerId) -> bool {
        self.controller(id)
            .is_some_and(Controller::take_status_change)
    }

    /// The next frame that a program of the host has not read.
    pub fn take_unread(&mut self, key: u64) -> Option<Frame> {
        let host = self.hosts.iter_mut().find(|host| host.key == key)?;
        host.unread.pop_front()
    }

    /// Puts one back.
    pub fn return_unread(&mut self, key: u64, frame: Frame) {
        if let Some(host) = self.hosts.iter_mut().find(|host| host.key == key) {
            host.unread.push_front(frame);
        }
    }

    /// The hub looks at the clock at [`Network::next_event`] from now on.
    pub fn hub_looks(&mut self) -> Option<Duration> {
        self.hub_looks_at = self.next_event();
        self.hub_looks_at
    }

    /// The hub has to look sooner than it would by itself.
    fn look_sooner(&mut self) {
        if let Some(next) = self.next_event() {
            if self.hub_looks_at.is_none_or(|at| next < at) {
                self.news.hub = true;
            }
        }
    }

    /// For whom there is news since the last question.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }
}

fn bit(place: usize) -> u64 {
    u32::try_from(place)
        .ok()
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
