// SPDX-License-Identifier: Apache-2.0

//! A CAN interface of the host (SocketCAN): how it is, which the kernel says over netlink. Its
//! frames are a [`Line`]'s.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use socketcan::CanInterface;
use socketcan::nl::CanState;
use virtio_device::now;

use super::line::Line;
use crate::identifiers::IdSet;
use crate::network::{BusId, Link, Network};

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
    handle: CanInterface,
    news: OwnedFd,
}

impl Interface {
    /// Opens an interface and its line, on which the kernel keeps back what nobody on `bus` wants.
    ///
    /// # Errors
    /// When there is none of this name, or the host does not let us.
    pub fn open(name: &str, bus: BusId, wanted: &IdSet) -> Result<(Self, Line), InterfaceError> {
        let failed = |what| {
            let name = name.to_owned();
            move |source| InterfaceError { name, what, source }
        };
        let line = Line::open(name, bus, wanted).map_err(|(what, error)| failed(what)(error))?;
        let handle = CanInterface::open(name)
            .map_err(io::Error::other)
            .map_err(failed("find"))?;
        let news = link_news().map_err(failed("watch"))?;
        let name = name.to_owned();
        Ok((Self { name, handle, news }, line))
    }

    /// What becomes readable when interfaces change.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
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

    /// Moves frames both ways as far as there is room, and looks how the interface is where that
    /// may have changed: with `news`, netlink has something to say. Whether the bus is in another
    /// state.
    pub(super) fn exchange(&self, line: &mut Line, network: &mut Network, news: bool) -> bool {
        let bus = line.bus();
        let before = network.link(bus);
        let mut changed = news && self.hear_news();
        if network.take_restart(bus) {
            self.restart();
            changed = true;
        }
        if changed {
            network.set_link(bus, self.link(), now());
        }
        line.exchange(network, now());
        if line.take_suspicion() {
            network.set_link(bus, self.link(), now());
        }
        before != network.link(bus)
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
