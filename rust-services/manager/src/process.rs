// SPDX-License-Identifier: Apache-2.0
//! Processes that outlive the manager: started, watched, and found again by the next one.
//!
//! A process is known by its number *and* the moment it started, for numbers are used again. All
//! that is done to it goes through a pidfd, which never means another process.

use crate::foreign::sentence;
use rustix::fd::OwnedFd;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What tells a process from all others, until the next boot and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc(5), `stat` field 22).
    started: u64,
    /// Which boot that was.
    boot: String,
}

impl Identity {
    fn of(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            started: start_ticks(pid)?,
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
        })
    }
}

fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before it may hold anything, parentheses too.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    fields
        .split(' ')
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By systemd, to which it gave no sign of life.
    Watchdog,
    /// By the kernel, for the memory that it or its guest used.
    OutOfMemory,
    /// It was no child of this manager's, so nobody told.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Watchdog => write!(f, "was ended by the watchdog"),
            Self::OutOfMemory => write!(f, "was ended by its memory's limit"),
            Self::Unknown => write!(f, "ended; how is not known: an earlier manager started it"),
        }
    }
}

/// A running process.
#[derive(Debug, Clone)]
pub struct Process {
    identity: Identity,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// Starts a program in a process group of its own, its output in `log`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn start(
        command: &[String],
        environment: &[(&str, &Path)],
        folder: &Path,
        log: &Path,
    ) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        // What systemd says to the manager is not meant for others.
        for name in [
            "LISTEN_FDS",
            "LISTEN_PID",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
        ] {
            command.env_remove(name);
        }
        for (name, value) in environment {
            command.env(name, value);
        }
        let mut child = command.spawn()?;
        // It is not waited for before its pidfd says so: until then the number is its own.
        let opened = Self::open(child.id());
        if opened.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        opened
    }

    /// A process that runs, by its number alone: only for a number that was just told by who
    /// watches over it.
    ///
    /// # Errors
    /// There is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty())?;
        Ok(Self {
            identity: Identity::of(pid)?,
            pidfd: Arc::new(pidfd),
        })
    }

    /// The process that an earlier manager started, if it still runs.
    #[must_use]
    pub fn find(identity: &Identity) -> Option<Self> {
        // Opened first, compared then: what the descriptor means cannot change any more.
        let found = Self::open(identity.pid).ok()?;
        (found.identity == *identity).then_some(found)
    }

    /// What tells it from all others.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.identity.pid
    }

    /// Sends a signal. That it has ended already is no error.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal) {
            log::debug!("process {}: {signal:?}: {error}", self.id());
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; the descriptor outlives its registration in the Arc"
    )]
    pub async fn ended(&self) -> io::Result<Ending> {
        let watched = AsyncFd::with_interest(Arc::clone(&self.pidfd), Interest::READABLE)?;
        let _ready = watched.readable().await?;
        let status = waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        Ok(match status {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ending::Code(code),
                (None, Some(signal)) => Ending::Signal(signal),
                (None, None) => Ending::Unknown,
            },
            // ECHILD: an earlier manager's.
            Ok(None) | Err(_) => Ending::Unknown,
        })
    }
}

/// Empties a log that has grown beyond this many bytes; its writer appends, so it goes on at the
/// start.
pub fn trim_log(log: &Path, most: u64) {
    let long = fs::metadata(log).is_ok_and(|metadata| metadata.len() > most);
    if long {
        let emptied = OpenOptions::new()
            .write(true)
            .open(log)
            .and_then(|file| file.set_len(0));
        if let Err(error) = emptied {
            log::debug!("{}: {error}", log.display());
        }
    }
}

/// So many bytes of a log's end are looked at, and so many characters of them told.
const LAST_WORDS: u64 = 2000;
const TOLD: usize = 500;

/// The last lines of a log, for the reason that a person is told.
#[must_use]
pub fn last_words(log: &Path) -> String {
    // A log may be as long as there is room: no more of it is read than is of use.
    let end = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
        let mut end = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut end)?;
        Ok(end)
    };
    last_lines(&String::from_utf8_lossy(&end().unwrap_or_default()))
}

/// The last lines of what a process wrote, which may be anything.
#[must_use]
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let start = lines.len().saturating_sub(3);
    let last = lines.get(start..).unwrap_or_default().join("; ");
    sentence(&last, TOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(folder: &Path, script: &str) -> Process {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        Process::start(&command, &[], folder, &folder.join("log")).unwrap()
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_seen_with_its_code_or_signal() {
        let folder = tempfile::tempdir().unwrap();
        let process = start(folder.path(), "echo last words >&2; exit 7");
        assert_eq!(process.ended().await.unwrap(), Ending::Code(7));
        assert_eq!(last_words(&folder.path().join("log")), "last words");
        let process = start(folder.path(), "sleep 1000");
        process.signal(Signal::KILL);
        assert_eq!(process.ended().await.unwrap(), Ending::Signal(9));
        // Whoever comes too late learns that it is over, too.
        assert_eq!(process.ended().await.unwrap(), Ending::Unknown);
    }

    #[tokio::test]
    async fn a_process_is_found_again_and_never_taken_for_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let process = start(folder.path(), "sleep 1000");
        let identity = process.identity().clone();
        assert_eq!(Process::find(&identity).unwrap().id(), process.id());
        let other = Identity {
            started: identity.started.wrapping_add(1),
            ..identity.clone()
        };
        assert!(Process::find(&other).is_none(), "the number was used again");
        let other_boot = Identity {
            boot: "another".to_owned(),
            ..identity.clone()
        };
        assert!(Process::find(&other_boot).is_none());
        process.signal(Signal::KILL);
        process.ended().await.unwrap();
        assert!(Process::find(&identity).is_none());
    }

    #[test]
    fn a_log_that_is_too_long_is_emptied_and_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, [b'x'; 100]).unwrap();
        trim_log(&log, 100);
        assert_eq!(fs::metadata(&log).unwrap().len(), 100);
        trim_log(&log, 99);
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        assert_eq!(last_words(&log), "");
    }

    #[test]
    fn of_a_long_log_the_last_lines_are_told_and_nothing_that_a_terminal_obeys() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "x\n".repeat(100_000) + "one\n\ntwo\0\x1b[2J\nthree\n").unwrap();
        assert_eq!(last_words(&log), "one; two[2J; three");
        fs::write(&log, "y".repeat(100_000)).unwrap();
        assert_eq!(last_words(&log).len(), TOLD);
        assert_eq!(last_words(&folder.path().join("none")), "");
    }
}
