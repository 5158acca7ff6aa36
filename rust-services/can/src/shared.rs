// SPDX-License-Identifier: Apache-2.0

//! What the threads have in common: the network under one lock, and how each is woken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use agl_virtio_service::bus::PropertyChange;
use agl_virtio_service::fair::{Fair, FairGuard};
use rustix::event::{EventfdFlags, eventfd};
use virtio_device::Waker;

use crate::hub::Line;
use crate::identifiers::IdSet;
use crate::network::{BusId, BusOffFlag, ControllerId, Network};

/// Tells a driver that its configuration has changed.
pub type Notifier = Box<dyn Fn() + Send + Sync>;

/// What all threads have in common.
pub struct Shared {
    network: Fair<Network>,
    /// Taken by who has the network.
    lines: Mutex<Vec<Line>>,
    guests: Vec<Guest>,
    hub: OwnedFd,
    states: OnceLock<PropertyChange>,
}

struct Guest {
    bus_off: BusOffFlag,
    waker: OnceLock<Waker>,
    notifier: OnceLock<Notifier>,
}

impl Shared {
    /// Shares a network whose controllers are complete, and the lines to its interfaces.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(network: Network, lines: Vec<Line>) -> io::Result<Self> {
        let guests = network.controllers.iter().map(|controller| Guest {
            bus_off: controller.bus_off_flag(),
            waker: OnceLock::new(),
            notifier: OnceLock::new(),
        });
        Ok(Self {
            guests: guests.collect(),
            network: Fair::new(network),
            lines: Mutex::new(lines),
            hub: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            states: OnceLock::new(),
        })
    }

    /// The network. Held for a few messages of a queue, one turn of the hub, or one request from
    /// D-Bus, and goes to who has waited longest. A thread that panicked has lost frames at most; the
    /// others go on.
    pub fn network(&self) -> FairGuard<'_, Network> {
        self.network.lock()
    }

    /// The lines to interfaces of the host. To be asked for with the network in hand, or before
    /// there are threads.
    pub(crate) fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends on interfaces what waits for them, from the thread that has caused it: one change of
    /// threads less. What this thread cannot do is left for the hub, which is woken for it.
    pub fn send(&self, network: &mut Network, now: Duration) {
        if network.take_outgoing() {
            let outgoing = |network: &Network, line: &Line| network.has_outgoing(line.bus());
            self.for_lines(network, outgoing, |line, network| line.send(network, now));
        }
    }

    /// Hears what the interface has to say that a controller's thread watches.
    pub fn hear(&self, network: &mut Network, id: ControllerId, now: Duration) {
        let own = |_: &Network, line: &Line| line.listener() == Some(id);
        self.for_lines(network, own, |line, network| line.exchange(network, now));
    }

    fn for_lines(
        &self,
        network: &mut Network,
        chosen: impl Fn(&Network, &Line) -> bool,
        work: impl Fn(&mut Line, &mut Network),
    ) {
        let mut lines = self.lines();
        for line in lines.iter_mut() {
            if !chosen(network, line) {
                continue;
            }
            let bus = line.bus();
            let before = network.link(bus);
            work(line, network);
            if line.needs_hub() {
                network.wake_hub();
            }
            if before != network.link(bus) {
                self.state_changed();
            }
        }
    }

    /// Lets the kernel pass more frames of an interface, ours included. To be done before they are
    /// sent.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn let_pass(&self, bus: BusId, wanted: &IdSet) -> io::Result<()> {
        let mut lines = self.lines();
        let mut of_bus = lines.iter_mut().filter(|line| line.bus() == bus);
        of_bus.try_for_each(|line| line.let_pass(wanted))
    }

    /// Lets the thread of a controller `watch` the interface that it alone listens to, in place of
    /// the hub.
    pub fn hand_over(
        &self,
        network: &mut Network,
        id: ControllerId,
        watch: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    ) {
        let mut lines = self.lines();
        let Some(line) = lines.iter_mut().find(|line| line.listener() == Some(id)) else {
            return;
        };
        match watch(line.as_fd()) {
            Ok(()) => {
                line.hand_over();
                network.wake_hub();
            }
            Err(error) => log::warn!("frames take the way over the hub: {error}"),
        }
    }

    /// What a controller's configuration says of bus-off.
    #[must_use]
    pub fn bus_off(&self, id: ControllerId) -> BusOffFlag {
        self.guests
            .get(id.0)
            .map(|guest| guest.bus_off.clone())
            .unwrap_or_default()
    }

    /// How the thread of a controller is woken.
    pub fn waker(&self, id: ControllerId) -> Option<&OnceLock<Waker>> {
        self.guests.get(id.0).map(|guest| &guest.waker)
    }

    /// How the driver of a controller is told that its configuration has changed.
    pub fn set_notifier(&self, id: ControllerId, notifier: Notifier) {
        if let Some(guest) = self.guests.get(id.0) {
            // Set once, before the first session.
            let _ = guest.notifier.set(notifier);
        }
    }

    /// Tells the driver of a controller that its configuration has changed.
    pub fn notify(&self, id: ControllerId) {
        if let Some(notifier) = self.guests.get(id.0).and_then(|of| of.notifier.get()) {
            notifier();
        }
        self.state_changed();
    }

    /// How D-Bus is told that controllers have changed.
    pub fn set_state_change(&self, change: PropertyChange) {
        let _ = self.states.set(change);
    }

    /// Tells D-Bus that a controller or a bus is in another state.
    pub fn state_changed(&self) {
        if let Some(change) = self.states.get() {
            change.changed();
        }
    }

    /// What wakes the hub. Watched edge triggered, so nobody reads it.
    #[must_use]
    pub fn hub(&self) -> BorrowedFd<'_> {
        self.hub.as_fd()
    }

    /// Changes the network from a thread that has no queues.
    pub fn change<T>(&self, change: impl FnOnce(&mut Network) -> T) -> T {
        let mut network = self.network();
        let result = change(&mut network);
        self.settle(network, None);
        result
    }

    /// Gives the lock back and wakes those that have news, but for the one that asks.
    pub fn settle(&self, mut network: FairGuard<'_, Network>, but: Option<ControllerId>) {
        let news = network.take_news();
        drop(network);
        let mut waiting = news.controllers;
        if let Some(bit) = but
            .and_then(|id| u32::try_from(id.0).ok())
            .and_then(|place| 1_u64.checked_shl(place))
        {
            waiting &= !bit;
        }
        for guest in &self.guests {
            if waiting == 0 {
                break;
            }
            if waiting & 1 != 0 {
                if let Some(waker) = guest.waker.get() {
                    waker.wake();
                }
            }
            waiting >>= 1;
        }
        if news.hub || news.outgoing {
            // A full counter means that it is awake anyway.
            let _ = rustix::io::write(&self.hub, &1_u64.to_ne_bytes());
        }
    }
}
