// SPDX-License-Identifier: Apache-2.0

//! The service as a process.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Instant;

use agl_virtio_relay::Record;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::private_socket::PrivateSocket;

/// What systemd says to the keeper is not meant for the service.
const OURS: [&str; 6] = [
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A running process that can be waited for beside sockets.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: Arc<OwnedFd>,
    pub(crate) started: Instant,
}

impl Process {
    /// Starts a program which inherits `fds`, and of the variables in [`OURS`] those given.
    fn start(
        mut command: Command,
        fds: &[BorrowedFd<'_>],
        environment: &[(&str, OsString)],
    ) -> io::Result<Self> {
        for name in OURS {
            command.env_remove(name);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // Signals of a terminal reach the keeper, which tells the service.
        command.process_group(0);
        // Descriptors are inherited by not being close-on-exec. This process has one thread, so no
        // other program is started meanwhile.
        for fd in fds {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let spawned = command.spawn();
        for fd in fds {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        let mut child = spawned?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self {
                child,
                pidfd: Arc::new(pidfd),
                started: Instant::now(),
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal) {
            log::debug!("process {}: {signal:?}: {error}", self.id());
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    #[cfg(feature = "crash-points")]
    pub(crate) fn pidfd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.pidfd)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    /// Whoever forgets a process means its end; nothing stays behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A service with its private socket.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) process: Process,
    socket: PrivateSocket,
}

impl Service {
    /// Starts `PROGRAM ARGUMENTS --socket-fd N --record-fd M --used-config-fd K` with these
    /// environment variables.
    pub(crate) fn start(
        line: &[OsString],
        record: &Record,
        used_config: &File,
        environment: [(&str, OsString); 2],
    ) -> io::Result<Self> {
        let socket = PrivateSocket::new()?;
        let mut command = program(line)?;
        command.arg("--socket-fd").arg(number(&socket.listener));
        command.arg("--record-fd").arg(number(record.file()));
        command.arg("--used-config-fd").arg(number(used_config));
        let fds = [
            socket.listener.as_fd(),
            record.file().as_fd(),
            used_config.as_fd(),
        ];
        let process = Process::start(command, &fds, &environment)?;
        Ok(Self { process, socket })
    }

    /// A connection to it; it need not have come up yet.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        self.socket.connect()
    }
}

/// Starts `PROGRAM ARGUMENTS --record-fd M --check`.
pub(crate) fn start_check(line: &[OsString], record: &Record) -> io::Result<Process> {
    let mut command = program(line)?;
    command.arg("--record-fd").arg(number(record.file()));
    command.arg("--check");
    Process::start(command, &[record.file().as_fd()], &[])
}

fn program(line: &[OsString]) -> io::Result<Command> {
    let Some((program, arguments)) = line.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn number(fd: &impl AsRawFd) -> String {
    fd.as_raw_fd().to_string()
}
