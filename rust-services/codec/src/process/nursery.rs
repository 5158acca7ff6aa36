// SPDX-License-Identifier: Apache-2.0

//! The process that starts workers: a service in its sandbox may not execute a program.
//!
//! It is born before the sandbox, knows what workers are for from then, and takes nothing from the
//! service afterwards but ends of connections, one for each worker. It sees how they end, says so, and
//! ends those whose service has hung up and who stay. It ends with the service, and they with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::message::{Report, Wait, receive, send};
use super::setup::{Setup, WORKER};

/// How long a worker may take to end by itself once its session is closed.
const GRACE: Duration = Duration::from_secs(2);
/// Workers at once; beyond, a session fails.
const MOST_WORKERS: usize = 160;

struct Worker {
    child: Child,
    /// Readable when it has ended.
    ended: OwnedFd,
    /// Its end of the connection, to tell how it went.
    socket: OwnedFd,
    /// When it is ended, once its session is closed.
    deadline: Option<Instant>,
}

impl Worker {
    /// Starts one. Its session hears why there is none.
    fn start(setup: &str, socket: OwnedFd) -> Option<Self> {
        let started = spawn(setup, &socket);
        let report = match &started {
            Ok((child, _)) => Report::Process { id: child.id() },
            Err(error) => Report::Ended {
                how: format!("was not started: {error}"),
            },
        };
        // A session that is closed already needs no answer.
        let _ = send(&socket, &report, &[], Wait::No);
        let (child, ended) = started.ok()?;
        Some(Self {
            child,
            ended,
            socket,
            deadline: None,
        })
    }

    /// Whether it is still there.
    fn look(&mut self, closed: bool) -> bool {
        if let Ok(Some(status)) = self.child.try_wait() {
            let how = how(status);
            if self.deadline.is_none() && !closed {
                log::warn!("the codec process {} {how}", self.child.id());
            }
            let _ = send(&self.socket, &Report::Ended { how }, &[], Wait::No);
            return false;
        }
        if closed {
            let deadline = self.deadline.get_or_insert_with(|| {
                let now = Instant::now();
                now.checked_add(GRACE).unwrap_or(now)
            });
            if Instant::now() >= *deadline {
                // It is seen in the next turn.
                let _ = self.child.kill();
            }
        }
        true
    }
}

/// A worker's process, and what becomes readable when it ends.
fn spawn(setup: &str, socket: &OwnedFd) -> io::Result<(Child, OwnedFd)> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("agl-virtio-codec")
        .args([WORKER, setup])
        .stdin(Stdio::from(socket.try_clone()?))
        .spawn()?;
    watched(
        pidfd_open(Pid::from_child(&child), PidfdFlags::empty()),
        &mut child,
    )
    .map(|ended| (child, ended))
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

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("has ended with code {code}"),
        (None, None) => "has ended".to_owned(),
    }
}

/// Serves until the service is gone.
pub(super) fn run(setup: &Setup, text: &str, control: &OwnedFd) -> io::Result<()> {
    setup.confine_nursery();
    let mut workers: Vec<Worker> = Vec::new();
    loop {
        let (asked, closed) = wait(control, &workers)?;
        if asked {
            match receive::<()>(control, Wait::No) {
                Ok(Some(((), fds))) => {
                    // Beyond the limit it is closed, which is an answer.
                    for socket in fds {
                        if workers.len() < MOST_WORKERS {
                            workers.extend(Worker::start(text, socket));
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(None) | Err(_) => break,
            }
        }
        let mut closed = closed.into_iter();
        workers.retain_mut(|worker| worker.look(closed.next().unwrap_or(false)));
    }
    for worker in &mut workers {
        let _ = worker.child.kill();
        let _ = worker.child.wait();
    }
    Ok(())
}

/// Waits until something happens: whether the service has said something, and which workers' sessions
/// are closed.
fn wait(control: &OwnedFd, workers: &[Worker]) -> io::Result<(bool, Vec<bool>)> {
    let mut list = vec![PollFd::new(control, PollFlags::IN)];
    for worker in workers {
        list.push(PollFd::new(&worker.ended, PollFlags::IN));
    }
    // Those that are closed already would be told again and again.
    for worker in workers.iter().filter(|worker| worker.deadline.is_none()) {
        list.push(PollFd::new(&worker.socket, PollFlags::empty()));
    }
    let next = workers.iter().filter_map(|worker| worker.deadline).min();
    let timeout = next.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.saturating_add(Duration::from_millis(10));
        Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        })
    });
    match poll(&mut list, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut told = list.iter().map(|one| !one.revents().is_empty());
    let asked = told.next().unwrap_or(false);
    let mut told = told.skip(workers.len());
    let closed = workers
        .iter()
        .map(|worker| worker.deadline.is_some() || told.next().unwrap_or(false))
        .collect();
    Ok((asked, closed))
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
        let (control, its) = super::message::pair()?;
        Command::new("/proc/self/exe")
            .arg0("agl-virtio-codecs")
            .args([super::setup::NURSERY, &serde_json::to_string(&setup)?])
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
        let (control, its) = super::message::pair()?;
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

fn hire(control: &OwnedFd) -> io::Result<OwnedFd> {
    let (ours, its) = super::message::pair()?;
    send(control, &(), &[its.as_fd()], Wait::No)?;
    Ok(ours)
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
