// SPDX-License-Identifier: Apache-2.0

//! The process that starts workers: a service in its sandbox may not execute a program.
//!
//! It is born before the sandbox, knows what workers are for from then, and takes nothing from the
//! service afterwards but ends of connections, one for each worker. It sees how they end, says so, and
//! ends those whose service has hung up and who stay. It ends with the service, and they with it.

mod ward;
mod words;
mod worker;

use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(super) use words::READY;

use super::message::{Wait, pair, receive, send};
use super::setup::{NURSERY, Setup, WORKER};
use ward::Ward;

/// Serves until the service is gone.
pub(super) fn run(setup: &Setup, text: &str, control: &OwnedFd) -> io::Result<()> {
    setup.confine_nursery();
    // What this host's codecs lack is said once, by the first worker.
    let later = setup.said_once()?;
    let is_first = Cell::new(true);
    let program = || {
        let text = if is_first.replace(false) {
            text
        } else {
            &later
        };
        let mut command = Command::new("/proc/self/exe");
        command.arg0("agl-virtio-codec").args([WORKER, text]);
        command
    };
    // A developer sees all that a codec says.
    let mut ward = Ward::new(&program, !setup.sandbox, setup.sessions, Instant::now());
    loop {
        ward.wait(control)?;
        match receive::<()>(control, Wait::No) {
            Ok(Some(((), fds))) => fds.into_iter().for_each(|socket| ward.ask(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => return Ok(()),
        }
        ward.tend(Instant::now());
    }
}

/// The nursery as the service sees it.
#[derive(Debug)]
pub struct Nursery {
    control: OwnedFd,
    /// The connection of the first worker, which loads its codecs meanwhile.
    pub(super) first: Option<OwnedFd>,
    pub(super) setup: Setup,
}

impl Nursery {
    /// Starts it, and the first worker. To be called before the sandbox, by the only thread.
    ///
    /// # Errors
    /// The host has no room for another process.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let (control, its) = pair()?;
        let mut command = Command::new("/proc/self/exe");
        for name in std::env::vars_os().map(|(name, _)| name) {
            if is_of_service(&name) {
                command.env_remove(name);
            }
        }
        command
            .arg0("agl-virtio-codecs")
            .args([NURSERY, &serde_json::to_string(&setup)?])
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            // What a terminal sends to end the service ends the service only.
            .process_group(0)
            .spawn()?;
        let first = Some(hire(&control)?);
        Ok(Self {
            control,
            first,
            setup,
        })
    }

    /// One that a test plays, at the other end.
    #[cfg(test)]
    pub(super) fn scripted(setup: Setup) -> io::Result<(Self, OwnedFd)> {
        let (control, its) = pair()?;
        let first = None;
        let ours = Self {
            control,
            first,
            setup,
        };
        Ok((ours, its))
    }

    /// Asks for a worker.
    pub(super) fn hire(&self) -> io::Result<OwnedFd> {
        hire(&self.control)
    }
}

/// Whether a variable says where the service's keeper, service manager or buses are: nothing that whoever
/// takes over a codec should know.
fn is_of_service(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    let prefixes: [&[u8]; 4] = [b"DBUS_", b"LISTEN_", b"NOTIFY_SOCKET", b"WATCHDOG_"];
    prefixes.iter().any(|prefix| bytes.starts_with(prefix))
}

fn hire(control: &OwnedFd) -> io::Result<OwnedFd> {
    let (ours, its) = pair()?;
    send(control, &(), &[its.as_fd()], Wait::No)?;
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_not_told_where_their_service_reports() {
        for name in [
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "DBUS_SYSTEM_BUS_ADDRESS",
            "DBUS_SESSION_BUS_ADDRESS",
            "LISTEN_FDS",
        ] {
            assert!(is_of_service(OsStr::new(name)), "{name}");
        }
        for name in ["XDG_CACHE_HOME", "JOURNAL_STREAM", "GST_PLUGIN_PATH"] {
            assert!(!is_of_service(OsStr::new(name)), "{name}");
        }
    }
}
