// SPDX-License-Identifier: Apache-2.0
//! Orderly ends and reloads: what SIGTERM, SIGINT and SIGHUP mean.
//!
//! The first SIGTERM or SIGINT asks every loop to drain; a second one ends the process at once.
//! SIGHUP asks for the configuration to be read again.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The exit code of a process that a second signal ended: 128 + SIGTERM, as a shell says it.
const SECOND_SIGNAL: i32 = 143;

/// Asks loops to end. Clones are the same request.
///
/// Its descriptor becomes readable when the end was asked for and stays so: put it into your
/// poll set and never read it.
#[derive(Debug, Clone)]
pub struct Stop {
    event: Arc<OwnedFd>,
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// A request that nobody made yet.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event: Arc::new(event),
            asked: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Asks for the end. From any thread, any number of times.
    pub fn ask(&self) {
        if !self.asked.swap(true, Ordering::AcqRel) {
            // Cannot fail: the counter is 0 and the descriptor lives as long as we do.
            let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Waits until the end is asked for, at most for `limit`. Says whether it was.
    #[must_use]
    pub fn wait(&self, limit: Option<Duration>) -> bool {
        wait_readable(&[self.as_fd()], limit).is_some() || self.is_asked()
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals of this process, as something that can be waited for.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: UnixStream,
    reload: UnixStream,
}

impl Signals {
    /// Installs the handlers, once per process.
    pub(crate) fn install() -> io::Result<Self> {
        let second = Arc::new(AtomicBool::new(false));
        let (stop, stop_writer) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the flag is set by the first signal only after it was looked at.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                SECOND_SIGNAL,
                Arc::clone(&second),
            )?;
            signal_hook::flag::register(signal, Arc::clone(&second))?;
            signal_hook::low_level::pipe::register(signal, stop_writer.try_clone()?)?;
        }
        let (reload, reload_writer) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGHUP, reload_writer)?;
        stop.set_nonblocking(true)?;
        reload.set_nonblocking(true)?;
        Ok(Self { stop, reload })
    }

    /// Waits for a signal or for `end`, at most for `limit`.
    pub(crate) fn wait(&self, end: &Stop, limit: Option<Duration>) -> Option<Request> {
        match wait_readable(
            &[self.stop.as_fd(), self.reload.as_fd(), end.as_fd()],
            limit,
        )? {
            1 => {
                drain(&self.reload);
                Some(Request::Reload)
            }
            _ => Some(Request::Stop),
        }
    }
}

fn drain(mut stream: &UnixStream) {
    use std::io::Read;
    let mut buffer = [0; 64];
    // Several signals in one go are one request.
    while matches!(stream.read(&mut buffer), Ok(size) if size > 0) {}
}

/// The index of the first readable descriptor, or nothing when the time is up.
fn wait_readable(descriptors: &[BorrowedFd<'_>], limit: Option<Duration>) -> Option<usize> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let mut set: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
            .collect();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut set, timeout.as_ref()) {
            Ok(0) => return None,
            Ok(_) => return set.iter().position(|entry| !entry.revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                log::warn!("cannot wait for signals: {error}");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_seen_by_every_clone_and_stays_asked() {
        let stop = Stop::new().unwrap();
        let other = stop.clone();
        assert!(!other.wait(Some(Duration::ZERO)));
        let waiter = std::thread::spawn(move || other.wait(Some(Duration::from_secs(30))));
        stop.ask();
        stop.ask();
        assert!(waiter.join().unwrap());
        assert!(stop.is_asked());
        assert!(stop.wait(Some(Duration::ZERO)));
    }
}
