// SPDX-License-Identifier: Apache-2.0

//! A CAN interface of the host (SocketCAN).
//!
//! The kernel gives our own frames back when the bus has acknowledged them; that, not the end of a
//! write, is when a guest's frame is done. Errors come as frames, the state of the interface over
//! netlink.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, IoSliceMut};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SocketFlags, SocketType, bind, recv, recvmsg,
    socket_with,
};
use socketcan::nl::CanState;
use socketcan::{CanFdSocket, CanFilter, CanInterface, Socket, SocketOptions};
use virtio_device::now;

use crate::identifiers::IdSet;
use crate::network::{BusId, Link, Network};
use crate::raw::{BUS_OFF, FD_SIZE, Heard, RESTARTED, bytes, parse};

/// Filters that the kernel takes for one socket (`CAN_RAW_FILTER_MAX`).
const MOST_FILTERS: usize = 512;
/// What the kernel marks our own frames with (`MSG_CONFIRM`).
const CONFIRM: u32 = 0x800;
/// Marks a filter, and an identifier, of the extended format (`CAN_EFF_FLAG`).
const EXTENDED: u32 = 0x8000_0000;
/// The group of netlink that hears of interfaces (`RTMGRP_LINK`).
const LINK_GROUP: u32 = 1;

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the CAN interface {name}: {source}; does `ip link` show it?")]
pub struct InterfaceError {
    name: String,
    what: &'static str,
    source: io::Error,
}

/// An interface.
pub struct Interface {
    name: String,
    bus: BusId,
    socket: CanFdSocket,
    handle: CanInterface,
    news: OwnedFd,
    full: bool,
}

impl Interface {
    /// Opens an interface, and lets the kernel keep back what nobody on `bus` wants.
    ///
    /// # Errors
    /// When there is none of this name, or the host does not let us.
    pub fn open(name: &str, bus: BusId, wanted: &IdSet) -> Result<Self, InterfaceError> {
        let failed = |what| {
            let name = name.to_owned();
            move |source| InterfaceError { name, what, source }
        };
        let socket = CanFdSocket::open(name).map_err(failed("open"))?;
        let prepare = || -> io::Result<()> {
            socket.set_nonblocking(true)?;
            socket.set_recv_own_msgs(true)?;
            socket.set_error_filter_accept_all()?;
            let filters = wanted.patterns().iter().map(|pattern| {
                let format = if pattern.extended { EXTENDED } else { 0 };
                // The mask holds the format's bit: an identifier of the other one does not pass.
                CanFilter::new(pattern.id | format, pattern.mask | EXTENDED)
            });
            let filters: Vec<_> = filters.collect();
            if filters.len() <= MOST_FILTERS {
                socket.set_filters(&filters)?;
            }
            Ok(())
        };
        prepare().map_err(failed("prepare"))?;
        let handle = CanInterface::open(name)
            .map_err(io::Error::other)
            .map_err(failed("find"))?;
        let news = link_news().map_err(failed("watch"))?;
        Ok(Self {
            name: name.to_owned(),
            bus,
            socket,
            handle,
            news,
            full: false,
        })
    }

    /// What becomes readable with frames.
    pub(super) fn frames(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What becomes readable when interfaces change.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Whether the interface had no room for a frame, and does not say when it has.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// How the interface is now.
    #[must_use]
    pub fn link(&self) -> Link {
        let Ok(details) = self.handle.details() else {
            return Link::Down;
        };
        match details.can.state {
            Some(CanState::BusOff) => Link::BusOff,
            _ if details.is_up => Link::Up,
            _ => Link::Down,
        }
    }

    /// Moves frames both ways as far as there is room. Whether the state of the bus has changed.
    pub(super) fn exchange(&mut self, network: &mut Network) -> bool {
        let before = network.buses.get(self.bus.0).map(|bus| bus.link());
        let mut changed = self.hear_news();
        changed |= self.hear(network);
        if network.take_restart(self.bus) {
            self.restart();
            changed = true;
        }
        if changed {
            network.set_link(self.bus, self.link(), now());
        }
        self.write(network);
        // What was written to a virtual interface is back already.
        if self.hear(network) {
            network.set_link(self.bus, self.link(), now());
        }
        before != network.buses.get(self.bus.0).map(|bus| bus.link())
    }

    /// A guest has started its controller while the interface was off the bus.
    fn restart(&self) {
        if self.link() == Link::BusOff {
            if let Err(error) = self.handle.restart() {
                log::warn!(
                    "{} is off its bus and cannot be restarted by us: {error}; set restart-ms, or \
                     restart it by `ip link set {} type can restart`",
                    self.name,
                    self.name
                );
            }
        }
    }

    /// Empties the netlink socket. Whether there was anything: what, the interface is asked.
    fn hear_news(&self) -> bool {
        let mut heard = false;
        let mut message = [0; 512];
        loop {
            match recv(&self.news, message.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::NOBUFS) => heard = true,
                Err(Errno::INTR) => {}
                Err(_) => return heard,
            }
        }
    }

    /// Takes what the interface has heard. Whether its state may have changed.
    fn hear(&mut self, network: &mut Network) -> bool {
        let mut changed = false;
        loop {
            let mut raw = [0; FD_SIZE];
            let mut parts = [IoSliceMut::new(&mut raw)];
            let mut ancillary = RecvAncillaryBuffer::default();
            let flags = RecvFlags::DONTWAIT;
            let (size, own) = match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Ok(message) => (message.bytes, message.flags.bits() & CONFIRM != 0),
                Err(Errno::AGAIN) => return changed,
                Err(Errno::INTR) => continue,
                // The interface went down, or away: it says so once.
                Err(_) => {
                    changed = true;
                    continue;
                }
            };
            match raw.get(..size).and_then(parse) {
                Some(Heard::Frame(frame)) if own => {
                    self.full = false;
                    network.acknowledged(self.bus, &frame, now());
                }
                Some(Heard::Frame(frame)) => network.heard(self.bus, frame, now()),
                Some(Heard::Error(classes)) => {
                    network.saw_errors(self.bus);
                    if classes & BUS_OFF != 0 {
                        // Said before netlink does; a virtual interface knows no other way.
                        network.set_link(self.bus, Link::BusOff, now());
                    }
                    changed |= classes & RESTARTED != 0;
                }
                None => {}
            }
        }
    }

    fn write(&mut self, network: &mut Network) {
        self.full = false;
        while let Some(frame) = network.write(self.bus) {
            let (raw, size) = bytes(&frame);
            let raw = raw.get(..size).unwrap_or(&raw);
            match rustix::io::write(&self.socket, raw) {
                Ok(_) => {}
                Err(Errno::INTR) => network.unwrite(self.bus),
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    // The queue of the interface is full, and nobody says when it is not.
                    network.unwrite(self.bus);
                    self.full = true;
                    return;
                }
                Err(Errno::NETDOWN | Errno::NODEV | Errno::NXIO) => {
                    network.unwrite(self.bus);
                    network.set_link(self.bus, Link::Down, now());
                    return;
                }
                Err(error) => {
                    // An interface without FD does not take FD frames.
                    log::debug!("{} refuses {frame:?}: {error}", self.name);
                    network.refused(self.bus);
                }
            }
        }
    }
}

/// Hears of changes of interfaces.
fn link_news() -> io::Result<OwnedFd> {
    let news = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        // Protocol 0 of netlink is that of links and routes.
        None,
    )?;
    bind(&news, &SocketAddrNetlink::new(0, LINK_GROUP))?;
    Ok(news)
}
