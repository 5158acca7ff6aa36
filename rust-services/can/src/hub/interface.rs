// SPDX-License-Identifier: Apache-2.0

//! A CAN interface of the host (SocketCAN): how it is, which the kernel says over netlink. Its
//! frames are a [`Line`]'s.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use agl_virtio_service::limited;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use socketcan::CanInterface;
use socketcan::nl::CanState;
use virtio_device::now;

use super::line::Line;
use crate::identifiers::IdSet;
use crate::network::{BusId, Link, Network};

/// How soon a driver makes us ask the kernel again.
const PATIENCE: Duration = Duration::from_millis(100);
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
    /// When a driver last made us ask the kernel how it is.
    asked: Option<Duration>,
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
        let interface = Self {
            name,
            handle,
            news,
            asked: None,
        };
        Ok((interface, line))
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
    pub(super) fn exchange(&mut self, line: &mut Line, network: &mut Network, news: bool) -> bool {
        let bus = line.bus();
        let before = network.link(bus);
        let heard = news && self.hear_news();
        let wanted = network.take_restart(bus) && self.may_ask();
        if heard || wanted {
            network.set_link(bus, self.link(), now());
        }
        line.exchange(network, now());
        if line.take_suspicion() {
            network.set_link(bus, self.link(), now());
        }
        before != network.link(bus)
    }

    /// A driver has started its controller while the interface was off the bus: it may do so as often
    /// as it likes.
    fn may_ask(&mut self) -> bool {
        let (at, name) = (now(), &self.name);
        let asked = self.asked.map(|asked| at.saturating_sub(asked));
        if asked.is_some_and(|since| since < PATIENCE) {
            return false;
        }
        self.asked = Some(at);
        limited!(
            log::Level::Warn,
            "a guest wants to be on the bus of {name}, which is off it: the host brings it back, by a \
             restart-ms or by `ip link set {name} type can restart`"
        );
        true
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
