// SPDX-License-Identifier: Apache-2.0

//! Holds a VMM's connection to a service that another keeper starts: one guest of several.
//!
//! The service is found at its socket and gets the record with `SET_INFLIGHT_FD`. When it is gone,
//! the next one is looked for until the grace time is over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agl_virtio_relay::{End, Record, Relay};
use agl_virtio_service::notify::{Notifier, State};
use agl_virtio_service::{Exit, limited};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{KeeperError, system};
use crate::keeper::after;
use crate::session::Session;
use crate::signals::Signals;

/// How soon to look for the next service again. It listens some ten milliseconds after the death
/// of the last one, and nobody says when.
const RETRY: Duration = Duration::from_millis(10);
/// The same where one was there and has not served.
const RETRY_UNSUITABLE: Duration = Duration::from_millis(100);

pub(crate) struct Attached<'a> {
    service: &'a Path,
    grace: Duration,
    listener: UnixListener,
    notifier: Notifier,
    signals: Signals,
    record: Arc<Record>,
    keep_alive: Instant,
}

impl<'a> Attached<'a> {
    pub(crate) fn new(
        service: &'a Path,
        grace: Duration,
        listener: UnixListener,
        notifier: Notifier,
    ) -> Result<Self, KeeperError> {
        listener
            .set_nonblocking(true)
            .map_err(system("the listening socket"))?;
        Ok(Self {
            service,
            grace,
            listener,
            notifier,
            signals: Signals::install().map_err(system("signals"))?,
            record: Arc::new(Record::create()?),
            keep_alive: Instant::now(),
        })
    }

    /// Serves VMMs until SIGTERM.
    pub(crate) fn run(mut self) -> Result<ExitCode, KeeperError> {
        self.notifier.send(&State::Ready);
        while let Some(vmm) = self.accept()? {
            limited!(log::Level::Info, "a VMM has connected");
            self.notifier.send(&State::Status("serving a VMM"));
            let relay = Relay::new(vmm, Some(Arc::clone(&self.record)))?;
            if self.serve(Session::new(relay.bringing_record()))? {
                break;
            }
            self.notifier.send(&State::Status("waiting for a VMM"));
        }
        self.notifier.send(&State::Stopping);
        Ok(Exit::Ok.into())
    }

    /// Relays until the VMM is gone, or given up; `true` when SIGTERM came.
    fn serve(&mut self, mut session: Session) -> Result<bool, KeeperError> {
        let mut retry = Some(Instant::now());
        let mut told = false;
        loop {
            if self.is_asked_to_stop() {
                return Ok(true);
            }
            let now = Instant::now();
            session.settle();
            if session
                .outage
                .is_some_and(|since| now >= after(since, self.grace))
            {
                limited!(
                    log::Level::Error,
                    "no service at {} for {:?}: hanging up on the VMM",
                    self.service.display(),
                    self.grace
                );
                return Ok(false);
            }
            if retry.is_some_and(|at| now >= at) {
                retry = match UnixStream::connect(self.service) {
                    Ok(stream) => {
                        told = false;
                        session.attach(Ok(stream));
                        None
                    }
                    Err(error) => {
                        if !told {
                            told = true;
                            limited!(
                                log::Level::Warn,
                                "no service at {} ({error}): looking for one for {:?}",
                                self.service.display(),
                                self.grace
                            );
                        }
                        Some(after(now, RETRY))
                    }
                };
            }
            let grace = session.outage.map(|since| after(since, self.grace));
            let until = [retry, grace, self.next_keep_alive()].into_iter().flatten();
            match session.relay.run(&self.watched(), until.min())? {
                End::VmmGone(fault) => {
                    limited!(log::Level::Info, "the VMM's session is over: {fault}");
                    return Ok(false);
                }
                End::ServiceGone(fault) => {
                    limited!(log::Level::Warn, "{fault}: looking for the next one");
                    let now = Instant::now();
                    let served = session.note_outage(now);
                    let wait = if served { RETRY } else { RETRY_UNSUITABLE };
                    retry = Some(after(now, wait));
                }
                End::BroughtRecord(record) => {
                    self.record = Arc::new(record);
                    session.relay.use_record(Arc::clone(&self.record));
                    let now = Instant::now();
                    session.note_outage(now);
                    retry = Some(now);
                }
                End::Watched | End::Deadline | End::ShutDown => {}
            }
        }
    }

    /// The next VMM; none after SIGTERM.
    fn accept(&mut self) -> Result<Option<UnixStream>, KeeperError> {
        loop {
            if self.is_asked_to_stop() {
                return Ok(None);
            }
            match self.listener.accept() {
                Ok((vmm, _)) => return Ok(Some(vmm)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A VMM that left again, or no descriptors: the next one may have more luck.
                Err(error) => limited!(log::Level::Warn, "cannot accept a VMM: {error}"),
            }
            let mut fds: Vec<PollFd<'_>> = self
                .watched()
                .into_iter()
                .chain([self.listener.as_fd()])
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let timeout = self
                .next_keep_alive()
                .map(|until| until.saturating_duration_since(Instant::now()))
                .and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(system("waiting")(error.into())),
            }
        }
    }

    /// Looks at the signals, and tells systemd that this process lives.
    fn is_asked_to_stop(&mut self) -> bool {
        let now = Instant::now();
        if let Some(interval) = self.notifier.keep_alive_interval() {
            if now >= self.keep_alive {
                self.notifier.send(&State::Watchdog);
                self.keep_alive = after(now, interval);
            }
        }
        if self.signals.take_update() {
            log::info!("nothing to update: the service is another keeper's");
        }
        self.signals.take_stop()
    }

    fn next_keep_alive(&self) -> Option<Instant> {
        self.notifier.keep_alive_interval().map(|_| self.keep_alive)
    }

    fn watched(&self) -> [BorrowedFd<'_>; 2] {
        self.signals.fds()
    }
}
