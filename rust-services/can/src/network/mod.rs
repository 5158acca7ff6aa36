// SPDX-License-Identifier: Apache-2.0

//! Buses, the stations on them, and gateways between them, under a clock that the caller holds.
//!
//! Nothing in here does I/O or waits: each call says what time it is, and may leave news for
//! controllers, for programs of the host, and for interfaces.

mod bus;
pub mod controller;
mod interface;
mod outbox;
mod outside;
pub mod policy;
mod programs;
mod traffic;
mod virtual_bus;

use std::time::Duration;

pub use bus::{Bus, Medium};
pub use controller::{BusOffFlag, Controller, Counters, Journal, Saved, State};
pub use interface::Link;
pub use virtual_bus::Acknowledge;

use crate::frame::Frame;
use crate::identifiers::IdSet;
use crate::wire::Outcome;
use bus::Wire;
use policy::Refusal;
use programs::HostStation;

/// Controllers at most in one process.
pub const MOST_CONTROLLERS: usize = 64;
/// Frames that wait for a bus at most, of a gateway, a program of the host, or D-Bus.
pub const MOST_WAITING: usize = 256;

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

/// For whom there is news.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// Controllers, one bit each.
    pub controllers: u64,
    /// Programs of the host, an interface, or the time of the next event.
    pub hub: bool,
    /// Frames wait to be written to an interface.
    pub outgoing: bool,
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
        // It hears the one, and so acknowledges there, and sends on the other.
        let station = Station::Gateway(self.gateways.len());
        self.attach(from, station);
        self.attach(to, station);
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

    /// A controller; none of another number is ever asked for.
    fn controller(&mut self, id: ControllerId) -> Option<&mut Controller> {
        self.controllers.get_mut(id.0)
    }

    /// When [`Network::advance`] has something to do.
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        self.buses.iter().filter_map(Bus::next_event).min()
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

    /// The next frame that a controller has for its guest.
    pub fn take_frame(&mut self, id: ControllerId) -> Option<Frame> {
        self.controller(id)?.take_frame()
    }

    /// Puts one back, for a guest that is still on the bus.
    pub fn return_frame(&mut self, id: ControllerId, frame: Frame) {
        if let Some(controller) = self.controller(id) {
            controller.return_frame(frame);
        }
    }

    /// How many frames a controller has for its guest.
    #[must_use]
    pub fn frames(&self, id: ControllerId) -> usize {
        self.controllers.get(id.0).map_or(0, Controller::frames)
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

    /// Something of an interface is the hub's to do.
    pub fn wake_hub(&mut self) {
        self.news.hub = true;
    }

    /// Whether frames for interfaces have come since the last question: whoever asks writes them.
    pub fn take_outgoing(&mut self) -> bool {
        std::mem::take(&mut self.news.outgoing)
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
mod lost_tests;
#[cfg(test)]
mod tests;
