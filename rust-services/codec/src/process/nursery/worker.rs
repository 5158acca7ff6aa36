// SPDX-License-Identifier: Apache-2.0

//! A worker as the nursery sees it: a process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::words::Words;
use crate::process::message::{Report, Wait, send};

/// How long a worker may take to end by itself once its session is closed.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often is looked for last words of who has ended.
const LAST_WORDS: usize = 16;

/// A worker.
pub(super) struct Worker {
    child: Child,
    /// Readable when it has ended.
    ended: OwnedFd,
    /// Its end of the connection, to tell how it went.
    socket: OwnedFd,
    words: Words,
    /// When it is ended, once its session is closed.
    deadline: Option<Instant>,
}

impl Worker {
    /// Starts one. Its session hears why there is none.
    pub(super) fn start(command: Command, is_loud: bool, socket: OwnedFd) -> Option<Self> {
        let started = spawn(command, is_loud, &socket);
        let report = match &started {
            Ok((child, ..)) => Report::Process { id: child.id() },
            Err(error) => Report::Ended {
                how: format!("was not started: {error}"),
            },
        };
        // A session that is closed already needs no answer.
        let _ = send(&socket, &report, &[], Wait::No);
        let (child, ended, words) = started.ok()?;
        Some(Self {
            child,
            ended,
            socket,
            words,
            deadline: None,
        })
    }

    /// Adds what to wait for.
    pub(super) fn wait_for<'a>(&'a self, list: &mut Vec<PollFd<'a>>) {
        list.push(PollFd::new(&self.ended, PollFlags::IN));
        if let Some(words) = self.words.fd() {
            list.push(PollFd::from_borrowed_fd(words, PollFlags::IN));
        }
        if self.deadline.is_none() {
            // Else it would be told again and again.
            list.push(PollFd::new(&self.socket, PollFlags::empty()));
        }
    }

    /// When to look at it though nothing has happened.
    pub(super) fn next_look(&self) -> Option<Instant> {
        [self.deadline, self.words.paused()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it has loaded its codecs.
    #[cfg(test)]
    pub(super) fn is_ready(&self) -> bool {
        self.words.is_ready()
    }

    /// Whether it is still there.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let lines = self.words.read(now);
        self.pass_on(lines);
        if let Ok(Some(status)) = self.child.try_wait() {
            for _ in 0..LAST_WORDS {
                let lines = self.words.read_on(now);
                self.pass_on(lines);
            }
            let how = how(status);
            log::debug!("the codec process {} {how}", self.child.id());
            let _ = send(&self.socket, &Report::Ended { how }, &[], Wait::No);
            return false;
        }
        if self.deadline.is_none() && has_hung_up(&self.socket) {
            // Whoever has no codec yet has nothing to bring to an end.
            let grace = if self.words.is_ready() {
                GRACE
            } else {
                Duration::ZERO
            };
            self.deadline = Some(now.checked_add(grace).unwrap_or(now));
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            // It is seen in the next turn.
            let _ = self.child.kill();
        }
        true
    }

    fn pass_on(&self, lines: Vec<String>) {
        for text in lines {
            let _ = send(&self.socket, &Report::Said { text }, &[], Wait::No);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A worker's process, what becomes readable when it ends, and its words.
fn spawn(
    mut command: Command,
    is_loud: bool,
    socket: &OwnedFd,
) -> io::Result<(Child, OwnedFd, Words)> {
    let (words, its) = Words::new(Instant::now())?;
    command.stdin(Stdio::from(socket.try_clone()?));
    if !is_loud {
        command.stderr(Stdio::from(its.try_clone()?));
    }
    let mut child = command.stdout(Stdio::from(its)).spawn()?;
    // Else this process has the ends that the worker writes to.
    drop(command);
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let ended = watched(pidfd, &mut child)?;
    Ok((child, ended, words))
}

/// A process that cannot be watched does not stay.
fn watched(pidfd: rustix::io::Result<OwnedFd>, child: &mut Child) -> io::Result<OwnedFd> {
    pidfd.map_err(|error| {
        let _ = child.kill();
        let _ = child.wait();
        let advice = "free descriptors, or Linux 5.3 for pidfd_open, are missing";
        io::Error::other(format!("it cannot be watched ({error}): {advice}"))
    })
}

/// Whether the other end of a connection is closed.
pub(super) fn has_hung_up(socket: &OwnedFd) -> bool {
    let mut list = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut list, Some(&now)), Ok(told) if told > 0)
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("has ended with code {code}"),
        (None, None) => "has ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_cannot_be_watched_is_ended_and_the_reason_told() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let error = watched(Err(rustix::io::Errno::MFILE), &mut child).unwrap_err();
        assert!(error.to_string().contains("descriptors"), "{error}");
        let status = child.try_wait().unwrap().unwrap();
        assert_eq!(status.signal(), Some(9));
    }
}
