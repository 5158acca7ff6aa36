// SPDX-License-Identifier: Apache-2.0

//! The thread that holds the clock of the buses, and speaks with the host: programs that join a bus
//! over a socket, and CAN interfaces.
//!
//! It sleeps until a frame ends or somebody says something; with nothing on any bus it sleeps for
//! ever.

mod interface;
mod line;
mod program;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use agl_virtio_service::{Brake, Heartbeat, limited};
use rustix::event::epoll;
use virtio_device::{Timer, now};

pub use interface::{Interface, InterfaceError};
pub use line::Line;
pub use program::listen;

use crate::network::BusId;
use crate::shared::Shared;
use program::Program;

/// Programs of the host at most on all buses.
const MOST_PROGRAMS: usize = 64;
/// How soon to try again what an interface had no room for, and to hear what it has more to say.
const RETRY: Duration = Duration::from_millis(1);

const WAKE: u64 = 0;
const TIMER: u64 = 1;
const STOP: u64 = 2;
const LISTENERS: u64 = 1 << 32;
const INTERFACES: u64 = 2 << 32;
const NEWS: u64 = 3 << 32;
const PROGRAMS: u64 = 4 << 32;

/// The hub, ready to run.
pub struct Hub {
    shared: Arc<Shared>,
    beat: Arc<Heartbeat>,
    epoll: OwnedFd,
    timer: Timer,
    listeners: Vec<(BusId, UnixListener)>,
    interfaces: Vec<Interface>,
    programs: Vec<Program>,
    next_key: u64,
}

impl Hub {
    /// A hub for programs that connect to `listeners` and for `interfaces`, in the order of the
    /// lines that are in `shared`. It ends when `stop` becomes readable.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(
        shared: Arc<Shared>,
        beat: Arc<Heartbeat>,
        stop: impl AsFd,
        listeners: Vec<(BusId, UnixListener)>,
        interfaces: Vec<Interface>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let hub = Self {
            shared,
            beat,
            epoll,
            timer: Timer::new()?,
            listeners,
            interfaces,
            programs: Vec::new(),
            next_key: PROGRAMS,
        };
        hub.watch(hub.shared.hub(), WAKE)?;
        hub.watch(&hub.timer, TIMER)?;
        hub.watch(stop, STOP)?;
        for (place, (_, listener)) in (LISTENERS..).zip(&hub.listeners) {
            listener.set_nonblocking(true)?;
            hub.watch(listener, place)?;
        }
        for (place, line) in (INTERFACES..).zip(hub.shared.lines().iter()) {
            // Not for when there is room: that would be after each frame, whoever has written it.
            hub.watch(line, place)?;
        }
        for (place, interface) in (NEWS..).zip(&hub.interfaces) {
            hub.watch(interface.news(), place)?;
        }
        Ok(hub)
    }

    fn watch(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.watch_for(epoll::EventFlags::IN, fd, token)
    }

    /// For what is written to as well: also hears when there is room again.
    fn watch_both(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.watch_for(epoll::EventFlags::IN | epoll::EventFlags::OUT, fd, token)
    }

    fn watch_for(&self, flags: epoll::EventFlags, fd: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(
            &self.epoll,
            fd,
            data,
            flags | epoll::EventFlags::ET,
        )?)
    }

    /// Serves until the service is stopped.
    ///
    /// # Errors
    /// When the thread cannot wait any more.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        let mut brake = Brake::default();
        loop {
            brake.look();
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if events.iter().any(|event| event.data.u64() == STOP) {
                return Ok(());
            }
            let beat = Arc::clone(&self.beat);
            let _turn = beat.turn();
            let mut news = false;
            for event in &events {
                match event.data.u64() {
                    TIMER => self.timer.passed(),
                    token if (LISTENERS..INTERFACES).contains(&token) => self.accept(),
                    token => news |= (NEWS..PROGRAMS).contains(&token),
                }
            }
            self.turn(news);
        }
    }

    fn accept(&mut self) {
        let mut joined = Vec::new();
        for (bus, listener) in &self.listeners {
            while let Ok((stream, _)) = listener.accept() {
                joined.push((*bus, OwnedFd::from(stream)));
            }
        }
        for (bus, socket) in joined {
            if self.programs.len() >= MOST_PROGRAMS {
                limited!(
                    log::Level::Warn,
                    "a program may not join: {MOST_PROGRAMS} are on the buses already"
                );
                continue;
            }
            let key = self.next_key;
            self.next_key = self.next_key.wrapping_add(1);
            match Program::new(key, bus, socket) {
                Ok(program) => match self.watch_both(&program, key) {
                    Ok(()) => {
                        self.shared
                            .change(|network| network.add_host(key, bus, now()));
                        program.greet();
                        self.programs.push(program);
                    }
                    Err(error) => log::error!("a program may not join: {error}"),
                },
                Err(error) => log::error!("a program may not join: {error}"),
            }
        }
    }

    /// Lets time pass and moves what there is to move, however the thread came to wake. With `news`
    /// an interface has changed.
    fn turn(&mut self, news: bool) {
        let shared = Arc::clone(&self.shared);
        let mut network = shared.network();
        let until = now();
        while network.step(until) {
            // At once: what was noted to have passed is lost if we die before it has.
            for program in &self.programs {
                program.tell(&mut network);
            }
        }
        let mut retry = false;
        network.take_outgoing();
        for (interface, line) in self.interfaces.iter_mut().zip(shared.lines().iter_mut()) {
            if line.take_hand_over() {
                if let Err(error) = epoll::delete(&self.epoll, &*line) {
                    log::debug!("an interface is watched twice: {error}");
                }
            }
            if interface.exchange(line, &mut network, news) {
                shared.state_changed();
            }
            retry |= line.is_full() || line.is_unread();
        }
        self.programs.retain_mut(|program| {
            let stays = program.exchange(&mut network);
            if !stays {
                network.remove_host(program.key(), now());
            }
            stays
        });
        let next = network.hub_looks();
        let retry = retry.then(|| now().saturating_add(RETRY));
        // What the turn has caused for the hub itself is seen in `next` already, but for frames
        // that a program sent to another: then it wakes itself once more.
        shared.settle(network, None);
        self.timer.set([next, retry].into_iter().flatten().min());
    }
}
