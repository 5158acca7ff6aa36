// SPDX-License-Identifier: Apache-2.0

//! Notices a service that lives and does nothing any more.
//!
//! systemd's watchdog looks at the keeper. The keeper looks at its service in the same language: it
//! gives it a NOTIFY_SOCKET and WATCHDOG_USEC of its own, and ends it when it has said nothing for so
//! long. A program that never says anything is left alone.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, bind, recvmsg, sockopt,
};

/// Messages that are heard in a turn.
const AT_ONCE: usize = 64;

/// The ear of the keeper.
#[derive(Debug)]
pub(crate) struct Watchdog {
    socket: UnixDatagram,
    limit: Duration,
    /// When the present service has last been heard of.
    heard: Option<Instant>,
}

impl Watchdog {
    pub(crate) fn new(limit: Duration) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Anybody may send to an abstract name; the kernel says who did.
        sockopt::set_socket_passcred(&socket, true)?;
        // Without a name the kernel finds one that nobody has.
        bind(&socket, &SocketAddrUnix::new_unnamed())?;
        Ok(Self {
            socket,
            limit,
            heard: None,
        })
    }

    /// What a service is told by its environment.
    pub(crate) fn environment(&self) -> io::Result<[(&'static str, OsString); 2]> {
        let address = self.socket.local_addr()?;
        let mut name = vec![b'@'];
        name.extend(address.as_abstract_name().unwrap_or_default());
        let limit = self.limit.as_micros().to_string();
        Ok([
            ("NOTIFY_SOCKET", OsString::from_vec(name)),
            ("WATCHDOG_USEC", limit.into()),
        ])
    }

    /// Another service begins: nothing was heard of it yet.
    pub(crate) fn begin(&mut self) {
        self.heard = None;
    }

    /// Listens to the service of this process number.
    pub(crate) fn hear(&mut self, service: Option<u32>, now: Instant) {
        // Whoever sends without end keeps nobody here: the rest is heard in the next turn.
        for _ in 0..AT_ONCE {
            let Ok(Some(sender)) = self.next_sender() else {
                return;
            };
            if Some(sender) == service {
                self.heard = Some(now);
            }
        }
    }

    /// When its silence has lasted too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.heard?.checked_add(self.limit)
    }

    /// The process number of who sent the next message; what it says is no matter.
    fn next_sender(&self) -> io::Result<Option<u32>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 64];
        let mut into = [IoSliceMut::new(&mut text)];
        recvmsg(
            &self.socket,
            &mut into,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut sender = 0;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmCredentials(credentials) = message {
                sender = credentials.pid.as_raw_nonzero().get().unsigned_abs();
            }
        }
        Ok(Some(sender))
    }
}

impl AsFd for Watchdog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_service_itself_is_heard() {
        let mut watchdog = Watchdog::new(Duration::from_secs(10)).unwrap();
        let [(_, name), (_, limit)] = watchdog.environment().unwrap();
        assert_eq!(limit, "10000000");
        let name = name.into_vec();
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let service = UnixDatagram::unbound().unwrap();
        service.send_to_addr(b"WATCHDOG=1", &address).unwrap();
        let (me, now) = (std::process::id(), Instant::now());
        watchdog.hear(Some(me + 1), now);
        assert_eq!(watchdog.due(), None, "somebody else said it");
        service.send_to_addr(b"WATCHDOG=1", &address).unwrap();
        watchdog.hear(Some(me), now);
        assert_eq!(watchdog.due(), now.checked_add(Duration::from_secs(10)));
        watchdog.begin();
        assert_eq!(watchdog.due(), None);
    }

    #[test]
    fn whoever_sends_without_end_is_heard_in_turns() {
        let mut watchdog = Watchdog::new(Duration::from_secs(10)).unwrap();
        let [(_, name), _] = watchdog.environment().unwrap();
        let name = name.into_vec();
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        // As many as this host lets wait.
        let waiting = (0..1000).take_while(|_| sender.send_to_addr(b"x", &address).is_ok());
        let waiting = waiting.count();
        watchdog.hear(Some(std::process::id()), Instant::now());
        assert!(watchdog.due().is_some());
        let left = std::iter::from_fn(|| watchdog.next_sender().ok()).count();
        assert_eq!(left, waiting.saturating_sub(AT_ONCE));
    }
}
