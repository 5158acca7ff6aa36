// SPDX-License-Identifier: Apache-2.0
//! Tells systemd how the service is: sd_notify(3) without libsystemd.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// One message to the service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State<'a> {
    /// The socket accepts.
    Ready,
    /// The configuration is being read again, or was (then send `Ready`).
    Reloading,
    /// The service drains and will end.
    Stopping,
    /// One line for `systemctl status`.
    Status(&'a str),
    /// The service is alive and well.
    Watchdog,
}

impl State<'_> {
    fn line(&self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_microseconds()),
            Self::Stopping => "STOPPING=1".to_owned(),
            // A line break would begin another assignment.
            Self::Status(text) => format!("STATUS={}", text.replace(['\n', '\r'], " ")),
            Self::Watchdog => "WATCHDOG=1".to_owned(),
        }
    }
}

fn monotonic_microseconds() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(now.tv_nsec.wrapping_div(1_000))
}

/// The line to the service manager; does nothing where there is none.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Finds the service manager through NOTIFY_SOCKET and WATCHDOG_USEC.
    ///
    /// # Errors
    /// NOTIFY_SOCKET is there but is not an address that can be sent to.
    pub fn from_environment() -> io::Result<Self> {
        Self::new(
            std::env::var_os("NOTIFY_SOCKET").as_deref(),
            std::env::var("WATCHDOG_PID").ok().as_deref(),
            std::env::var("WATCHDOG_USEC").ok().as_deref(),
        )
    }

    /// Does nothing.
    #[must_use]
    pub const fn silent() -> Self {
        Self {
            socket: None,
            watchdog: None,
        }
    }

    fn new(
        address: Option<&std::ffi::OsStr>,
        watchdog_pid: Option<&str>,
        watchdog_usec: Option<&str>,
    ) -> io::Result<Self> {
        let socket = match address {
            None => None,
            Some(address) => Some((UnixDatagram::unbound()?, socket_address(address)?)),
        };
        if let Some((socket, _)) = &socket {
            // A stuck service manager must not stop the drain.
            socket.set_nonblocking(true)?;
        }
        let own_pid = std::process::id();
        let meant_for_us = watchdog_pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
        let watchdog = watchdog_usec
            .filter(|_| meant_for_us)
            .and_then(|usec| usec.parse().ok())
            .filter(|usec| *usec > 0)
            .map(Duration::from_micros);
        Ok(Self { socket, watchdog })
    }

    /// Sends a message. Where there is no service manager this does nothing.
    pub fn send(&self, state: &State<'_>) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send_to_addr(state.line().as_bytes(), address) {
            log::debug!("the service manager did not take {state:?}: {error}");
        }
    }

    /// How often to send `State::Watchdog`: half of what systemd waits for.
    #[must_use]
    pub fn keep_alive_interval(&self) -> Option<Duration> {
        self.watchdog
            .filter(|_| self.socket.is_some())
            .and_then(|limit| limit.checked_div(2))
    }
}

fn socket_address(address: &std::ffi::OsStr) -> io::Result<SocketAddr> {
    use std::os::unix::ffi::OsStrExt;
    match address.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        Some((b'/', _)) => SocketAddr::from_pathname(address),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "NOTIFY_SOCKET is {}: only /path and @name can be used",
                address.to_string_lossy()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn receive(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut buffer = [0; 256];
        let size = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }

    #[test]
    fn every_state_arrives_as_systemd_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str()), None, None).unwrap();
        for (state, text) in [
            (State::Ready, "READY=1"),
            (State::Stopping, "STOPPING=1"),
            (State::Watchdog, "WATCHDOG=1"),
            (State::Status("one\nline"), "STATUS=one line"),
        ] {
            notifier.send(&state);
            assert_eq!(receive(&manager), text);
        }
        notifier.send(&State::Reloading);
        assert!(receive(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    }

    #[test]
    fn an_abstract_socket_is_reached_too() {
        let name = format!("agl-virtio-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let text = format!("@{name}");
        let notifier = Notifier::new(Some(OsStr::new(&text)), None, None).unwrap();
        notifier.send(&State::Ready);
        assert_eq!(receive(&manager), "READY=1");
    }

    #[test]
    fn the_keep_alive_is_half_of_the_limit_and_only_for_us() {
        let socket = Some(OsStr::new("@nobody"));
        let own = std::process::id().to_string();
        let interval = |pid, usec| {
            Notifier::new(socket, pid, usec)
                .unwrap()
                .keep_alive_interval()
        };
        let half = Some(Duration::from_secs(1));
        assert_eq!(interval(None, Some("2000000")), half);
        assert_eq!(interval(Some(&own), Some("2000000")), half);
        assert_eq!(interval(Some("1"), Some("2000000")), None);
        assert_eq!(interval(None, Some("0")), None);
        assert_eq!(interval(None, None), None);
    }

    #[test]
    fn a_manager_that_is_gone_does_no_harm() {
        let notifier = Notifier::new(Some(OsStr::new("/nowhere/notify")), None, None).unwrap();
        notifier.send(&State::Ready);
        assert!(Notifier::new(Some(OsStr::new("vsock:2:1")), None, None).is_err());
    }
}
