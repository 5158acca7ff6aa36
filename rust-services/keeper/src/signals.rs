// SPDX-License-Identifier: Apache-2.0

//! SIGTERM, SIGINT and SIGHUP as something to wait for beside sockets.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals of this process.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: UnixStream,
    update: UnixStream,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        let (stop, stop_writer) = UnixStream::pair()?;
        let (update, update_writer) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        update.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, stop_writer.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGHUP, update_writer)?;
        Ok(Self { stop, update })
    }

    /// Whether SIGTERM or SIGINT came since the last call.
    pub(crate) fn take_stop(&self) -> bool {
        drain(&self.stop)
    }

    /// Whether SIGHUP came since the last call; several are one.
    pub(crate) fn take_update(&self) -> bool {
        drain(&self.update)
    }

    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.stop.as_fd(), self.update.as_fd()]
    }
}

fn drain(mut stream: &UnixStream) -> bool {
    let mut any = false;
    let mut bytes = [0; 64];
    while matches!(stream.read(&mut bytes), Ok(1..)) {
        any = true;
    }
    any
}
