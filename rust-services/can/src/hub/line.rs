// SPDX-License-Identifier: Apache-2.0

//! The frames of a CAN interface of the host (SocketCAN), both ways.
//!
//! The kernel gives our own frames back when the bus has acknowledged them; that, not the end of a
//! write, is when a guest's frame is done. Whoever holds the network moves frames: who watches the
//! interface, when it has something, and the thread of a guest that has just sent: on a virtual
//! interface its frame is back before the write has ended, and nobody else need wake for it.
//!
//! The hub watches an interface for all that listen to it. One that a single guest listens to is
//! handed over to that guest's thread: then no other one stands between the interface and the guest.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};
use socketcan::{CanFdSocket, CanFilter, Socket, SocketOptions};
use virtio_device::now;

use crate::identifiers::IdSet;
use crate::network::{BusId, ControllerId, Link, Network};
use crate::raw::{BUS_OFF, FD_SIZE, Heard, RESTARTED, bytes, parse};

/// Filters that the kernel takes for one socket (`CAN_RAW_FILTER_MAX`).
const MOST_FILTERS: usize = 512;
/// What the kernel marks our own frames with (`MSG_CONFIRM`).
const CONFIRM: u32 = 0x800;
/// Marks a filter, and an identifier, of the extended format (`CAN_EFF_FLAG`).
const EXTENDED: u32 = 0x8000_0000;
/// Frames that are taken at once: others want the network too.
const MOST_AT_ONCE: u32 = 256;

/// The socket of an interface.
pub struct Line {
    name: String,
    bus: BusId,
    socket: CanFdSocket,
    /// What the kernel lets pass, our own frames included.
    passes: IdSet,
    full: bool,
    unread: bool,
    suspicious: bool,
    listener: Option<ControllerId>,
    handed_over: bool,
}

impl Line {
    /// A socket on an interface, of which the kernel keeps back what nobody on `bus` wants.
    ///
    /// # Errors
    /// With what was tried, when there is no interface of this name or the host does not let us.
    pub(super) fn open(
        name: &str,
        bus: BusId,
        wanted: &IdSet,
    ) -> Result<Self, (&'static str, io::Error)> {
        let socket = CanFdSocket::open(name).map_err(|error| ("open", error))?;
        let prepare = || -> io::Result<()> {
            socket.set_nonblocking(true)?;
            socket.set_recv_own_msgs(true)?;
            socket.set_error_filter_accept_all()?;
            set_filters(&socket, wanted)
        };
        prepare().map_err(|error| ("prepare", error))?;
        Ok(Self {
            name: name.to_owned(),
            bus,
            socket,
            passes: wanted.clone(),
            full: false,
            unread: false,
            suspicious: false,
            listener: None,
            handed_over: false,
        })
    }

    /// Lets the kernel pass more, for whom the policy has changed: of a frame of ours that it keeps
    /// back nobody would hear that the bus has had it.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn let_pass(&mut self, wanted: &IdSet) -> io::Result<()> {
        let mut passes = self.passes.clone();
        passes.extend(wanted);
        if passes != self.passes {
            set_filters(&self.socket, &passes)?;
            self.passes = passes;
        }
        Ok(())
    }

    /// Which bus the interface is.
    pub(crate) const fn bus(&self) -> BusId {
        self.bus
    }

    /// Whether the interface had no room for a frame, and does not say when it has.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// Whether the interface has more to say than was taken at once.
    pub(super) const fn is_unread(&self) -> bool {
        self.unread
    }

    /// Whether the hub has to come for what this thread did not do.
    pub(crate) const fn needs_hub(&self) -> bool {
        self.full || self.unread || self.suspicious
    }

    /// Whether the interface may be in another state since the last question.
    pub(super) fn take_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.suspicious)
    }

    /// Says that only this controller listens to it.
    pub(crate) fn set_listener(&mut self, listener: Option<ControllerId>) {
        self.listener = listener;
    }

    /// The controller that alone listens to it.
    pub(crate) const fn listener(&self) -> Option<ControllerId> {
        self.listener
    }

    /// Says that somebody else watches it from now on.
    pub(crate) fn hand_over(&mut self) {
        self.handed_over = true;
    }

    /// Whether it was handed over since the last question.
    pub(super) fn take_hand_over(&mut self) -> bool {
        std::mem::take(&mut self.handed_over)
    }

    /// Moves frames both ways as far as there is room, and not for ever: for who watches it.
    pub(crate) fn exchange(&mut self, network: &mut Network, at: Duration) {
        self.unread = !self.hear(network, at, |_| false);
        self.send(network, at);
    }

    /// Writes what is to go out, and takes what is there until the bus has acknowledged all of it,
    /// which a virtual interface does within the write. For the rest its watcher is woken anyway.
    pub(crate) fn send(&mut self, network: &mut Network, at: Duration) {
        if self.write(network) && !self.unread {
            let bus = self.bus;
            self.unread = !self.hear(network, at, |network| !network.awaits(bus));
        }
    }

    /// Takes what the interface has heard until it has no more to say, or this is `enough`. Whether
    /// it was, and not only as much as is taken at once.
    fn hear(
        &mut self,
        network: &mut Network,
        at: Duration,
        enough: impl Fn(&Network) -> bool,
    ) -> bool {
        for _ in 0..MOST_AT_ONCE {
            if enough(network) {
                return true;
            }
            let mut raw = [0; FD_SIZE];
            let mut parts = [IoSliceMut::new(&mut raw)];
            let mut ancillary = RecvAncillaryBuffer::default();
            let flags = RecvFlags::DONTWAIT;
            let (size, own) = match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Ok(message) => (message.bytes, message.flags.bits() & CONFIRM != 0),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => continue,
                // The interface went down, or away: it says so once, and may be back already. What
                // it was to send is lost.
                Err(_) => {
                    network.set_link(self.bus, Link::Down, at);
                    self.suspicious = true;
                    continue;
                }
            };
            match raw.get(..size).and_then(parse) {
                Some(Heard::Frame(frame)) if own => {
                    self.full = false;
                    network.acknowledged(self.bus, &frame, at);
                }
                Some(Heard::Frame(frame)) => network.heard(self.bus, frame, at),
                Some(Heard::Error(classes)) => {
                    network.saw_errors(self.bus);
                    if classes & BUS_OFF != 0 {
                        // Said before netlink does; a virtual interface knows no other way, and is
                        // back at once.
                        network.set_link(self.bus, Link::BusOff, at);
                    }
                    self.suspicious |= classes & (BUS_OFF | RESTARTED) != 0;
                }
                None => {}
            }
        }
        false
    }

    /// Writes what is to go out. Whether there was anything.
    fn write(&mut self, network: &mut Network) -> bool {
        self.full = false;
        let mut written = false;
        while let Some(frame) = network.write(self.bus) {
            let (raw, size) = bytes(&frame);
            let raw = raw.get(..size).unwrap_or(&raw);
            match rustix::io::write(&self.socket, raw) {
                Ok(_) => written = true,
                Err(Errno::INTR) => network.unwrite(self.bus),
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    // The queue of the interface is full, and nobody says when it is not.
                    network.unwrite(self.bus);
                    self.full = true;
                    break;
                }
                Err(Errno::NETDOWN | Errno::NODEV | Errno::NXIO) => {
                    network.unwrite(self.bus);
                    network.set_link(self.bus, Link::Down, now());
                    break;
                }
                Err(error) => {
                    // An interface without FD does not take FD frames.
                    log::debug!("{} refuses {frame:?}: {error}", self.name);
                    network.refused(self.bus);
                }
            }
        }
        written
    }
}

/// Says what the kernel lets pass: everything, where it takes no list that is as long.
fn set_filters(socket: &CanFdSocket, passes: &IdSet) -> io::Result<()> {
    if passes.patterns().len() > MOST_FILTERS {
        return socket.set_filter_accept_all();
    }
    let filters = passes.patterns().iter().map(|pattern| {
        let format = if pattern.extended { EXTENDED } else { 0 };
        // The mask holds the format's bit: an identifier of the other one does not pass.
        CanFilter::new(pattern.id | format, pattern.mask | EXTENDED)
    });
    socket.set_filters(&filters.collect::<Vec<_>>())
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
