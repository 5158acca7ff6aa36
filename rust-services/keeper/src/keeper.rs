// SPDX-License-Identifier: Apache-2.0

//! The keeper: one thread that supervises a service and relays a VMM's session to it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agl_virtio_relay::{End, Record, Relay};
use agl_virtio_service::notify::{Notifier, State};
use agl_virtio_service::{Exit, limited};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;

use crate::child::{Process, Service, start_check};
use crate::error::{KeeperError, in_words, system};
use crate::options::Options;
use crate::restart::{Death, RestartPolicy, Verdict};
use crate::session::Session;
use crate::signals::Signals;
use crate::watchdog::Watchdog;

/// A service that was asked to end is killed after this time: at the end of the keeper ...
const DRAIN: Duration = Duration::from_secs(10);
/// ... and when a guest waits for its successor.
const HANDOVER: Duration = Duration::from_secs(2);
/// The start check of an update takes no longer.
const CHECK: Duration = Duration::from_secs(10);
/// A service without a VMM has come up when it has lived so long.
const CAME_UP: Duration = Duration::from_secs(1);
/// A service that hangs up so often without dying, and without serving in between, is killed.
const HANG_UPS: u32 = 3;

/// The service, or the wait for the next one.
#[derive(Debug)]
enum Slot {
    Running(Service),
    /// It was asked to end, to make room for a successor; killed at this time.
    Leaving(Service, Instant),
    /// To be started at this time.
    Empty(Instant),
}

/// An update that was asked for: the start check of the new program.
struct Check {
    process: Process,
    until: Instant,
}

pub(crate) struct Keeper<'a> {
    line: &'a [OsString],
    grace: Duration,
    listener: UnixListener,
    notifier: Notifier,
    signals: Signals,
    watchdog: Watchdog,
    record: Arc<Record>,
    /// The configuration that the service was started with, in its own words.
    used_config: File,
    slot: Slot,
    policy: RestartPolicy,
    session: Option<Session>,
    check: Option<Check>,
    /// SIGTERM came: the service is killed at this time.
    stopping: Option<Instant>,
    keep_alive: Instant,
    #[cfg(feature = "crash-points")]
    crash_points: crate::crash_points::CrashPoints,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(
        options: &'a Options,
        listener: UnixListener,
        notifier: Notifier,
    ) -> Result<Self, KeeperError> {
        listener
            .set_nonblocking(true)
            .map_err(system("the listening socket"))?;
        let now = Instant::now();
        Ok(Self {
            line: &options.service,
            grace: options.grace,
            listener,
            notifier,
            signals: Signals::install().map_err(system("signals"))?,
            watchdog: Watchdog::new(options.watchdog).map_err(system("the watchdog"))?,
            record: Arc::new(Record::create()?),
            used_config: memfd_create("agl-virtio-config", MemfdFlags::CLOEXEC)
                .map(File::from)
                .map_err(|error| system("memory for a configuration")(error.into()))?,
            slot: Slot::Empty(now),
            policy: RestartPolicy::default(),
            session: None,
            check: None,
            stopping: None,
            keep_alive: now,
            #[cfg(feature = "crash-points")]
            crash_points: crate::crash_points::CrashPoints::from_environment(),
        })
    }

    /// Serves VMMs until SIGTERM.
    pub(crate) fn run(mut self) -> Result<ExitCode, KeeperError> {
        // The first start tells whether the program exists at all.
        self.start_service()?;
        self.notifier.send(&State::Ready);
        loop {
            if self.supervise()? {
                return Ok(Exit::Ok.into());
            }
            match self.session.take() {
                Some(session) => self.relay(session)?,
                None => self.wait_for_vmm()?,
            }
        }
    }

    /// Everything but the session: signals, the service's life, timers. `true` at the end.
    fn supervise(&mut self) -> Result<bool, KeeperError> {
        let now = Instant::now();
        if self.signals.take_stop() {
            self.stop(now);
        }
        if self.signals.take_update() {
            self.begin_update(now);
        }
        self.look_after_check(now)?;
        self.look_at_watchdog(now);
        let done = self.look_after_service(now)?;
        self.look_after_session(now);
        if let Some(interval) = self
            .notifier
            .keep_alive_interval()
            .filter(|_| now >= self.keep_alive)
        {
            self.notifier.send(&State::Watchdog);
            self.keep_alive = after(now, interval);
        }
        Ok(done)
    }

    /// A service that lives and gives no sign of life is killed, and followed by another one.
    fn look_at_watchdog(&mut self, now: Instant) {
        let service = match &self.slot {
            Slot::Running(service) => Some(service),
            // Who was asked to leave has a deadline already.
            Slot::Leaving(..) | Slot::Empty(_) => None,
        };
        self.watchdog
            .hear(service.map(|service| service.process.id()), now);
        let Some(service) = service else { return };
        if self.watchdog.due().is_some_and(|due| now >= due) {
            log::error!("service {} hangs: it is killed", service.process.id());
            service.process.signal(Signal::KILL);
            self.watchdog.begin();
        }
    }

    /// SIGTERM: the service drains; a second one does not wait for it.
    fn stop(&mut self, now: Instant) {
        self.notifier.send(&State::Stopping);
        let again = self.stopping.is_some();
        self.stopping = Some(if again { now } else { after(now, DRAIN) });
        if let Slot::Running(service) | Slot::Leaving(service, _) = &self.slot {
            service.process.signal(Signal::TERM);
        }
    }

    /// SIGHUP: is the program on disk willing to take over?
    fn begin_update(&mut self, now: Instant) {
        if self.stopping.is_some() || self.check.is_some() {
            return;
        }
        self.notifier.send(&State::Reloading);
        match start_check(self.line, &self.record) {
            Ok(process) => {
                let until = after(now, CHECK);
                self.check = Some(Check { process, until });
            }
            Err(error) => self.refuse_update(&format!("cannot start {}: {error}", self.program())),
        }
    }

    fn look_after_check(&mut self, now: Instant) -> Result<(), KeeperError> {
        let Some(mut check) = self.check.take() else {
            return Ok(());
        };
        match check.process.ended().map_err(system("the start check"))? {
            Some(status) if status.success() => {
                log::info!("the program agrees to the update: the service is replaced");
                self.notifier.send(&State::Ready);
                self.replace_service(now);
            }
            Some(status) => self.refuse_update(&format!("--check ended with {status}")),
            // Dropping it ends it.
            None if now >= check.until => self.refuse_update("--check takes too long"),
            None => self.check = Some(check),
        }
        Ok(())
    }

    fn refuse_update(&self, why: &str) {
        log::error!("the update is refused, the old service goes on: {why}");
        self.notifier.send(&State::Ready);
        self.notifier
            .send(&State::Status("update refused, the old service goes on"));
    }

    /// Asks the service to leave; its successor starts when it has.
    fn replace_service(&mut self, now: Instant) {
        self.slot = match std::mem::replace(&mut self.slot, Slot::Empty(now)) {
            Slot::Running(service) => {
                service.process.signal(Signal::TERM);
                Slot::Leaving(service, after(now, HANDOVER))
            }
            other => other,
        };
    }

    /// Reaps, kills and starts the service. `true` when it has ended after SIGTERM.
    fn look_after_service(&mut self, now: Instant) -> Result<bool, KeeperError> {
        let ended = match &mut self.slot {
            Slot::Running(service) | Slot::Leaving(service, _) => {
                service.process.ended().map_err(system("the service"))?
            }
            Slot::Empty(_) => None,
        };
        if let Some(status) = ended {
            self.bury(status, now)?;
        }
        if let Some(until) = self.stopping {
            let running = !matches!(self.slot, Slot::Empty(_));
            self.kill_after(until, now);
            return Ok(!running);
        }
        match self.slot {
            Slot::Leaving(_, until) => self.kill_after(until, now),
            Slot::Empty(at) if now >= at => {
                if let Err(error) = self.start_service() {
                    limited!(log::Level::Error, "{error}; trying again in a second");
                    self.slot = Slot::Empty(after(now, Duration::from_secs(1)));
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn kill_after(&self, until: Instant, now: Instant) {
        if now < until {
            return;
        }
        if let Slot::Running(service) | Slot::Leaving(service, _) = &self.slot {
            log::warn!("the service does not end: it is killed");
            service.process.signal(Signal::KILL);
        }
    }

    /// The service is dead.
    fn bury(&mut self, status: ExitStatus, now: Instant) -> Result<(), KeeperError> {
        let (service, asked) = match std::mem::replace(&mut self.slot, Slot::Empty(now)) {
            Slot::Running(service) => (service, false),
            Slot::Leaving(service, _) => (service, true),
            Slot::Empty(at) => {
                self.slot = Slot::Empty(at);
                return Ok(());
            }
        };
        if self.stopping.is_some() {
            log::info!("the service has ended with {}", in_words(status));
            return Ok(());
        }
        let served = self.session.as_mut().is_some_and(|session| {
            let served = session.note_outage(now);
            session.relay.detach();
            served
        });
        let lived = now.saturating_duration_since(service.process.started);
        let verdict = self.policy.judge(
            Death {
                status,
                asked,
                had_come_up: served || lived >= CAME_UP,
                in_session: self.session.is_some(),
            },
            now,
        );
        match verdict {
            Verdict::Restart(delay) => {
                // One that was asked to go, or that nobody killed and nothing failed in, is no fault.
                let level = if asked || status.success() {
                    log::Level::Info
                } else {
                    log::Level::Warn
                };
                let next = if asked {
                    "its successor starts"
                } else {
                    "it starts again"
                };
                log::log!(
                    level,
                    "service {} has ended with {} after {lived:.1?}: {next}",
                    service.process.id(),
                    in_words(status)
                );
                self.slot = Slot::Empty(after(now, delay));
            }
            Verdict::GiveUpSession(delay) => {
                log::error!(
                    "the service ended again and again, at last with {}, perhaps because of this \
                     guest: hanging up on its VMM",
                    in_words(status)
                );
                self.notifier
                    .send(&State::Status("gave a VMM up after a crash loop"));
                self.session = None;
                self.slot = Slot::Empty(after(now, delay));
            }
            Verdict::End(code) => return Err(KeeperError::NeverCameUp(status, code)),
        }
        Ok(())
    }

    fn start_service(&mut self) -> Result<(), KeeperError> {
        let program = self.program();
        let start = |source| KeeperError::Start { program, source };
        self.watchdog.begin();
        if self.session.is_none() {
            // Nobody knows the device as it was: the file counts.
            self.used_config
                .set_len(0)
                .map_err(system("memory for a configuration"))?;
        }
        let service = self
            .watchdog
            .environment()
            .and_then(|environment| {
                Service::start(self.line, &self.record, &self.used_config, environment)
            })
            .map_err(start)?;
        log::info!(
            "started {} as process {}",
            self.program(),
            service.process.id()
        );
        #[cfg(feature = "crash-points")]
        self.crash_points.set_victim(service.process.pidfd());
        if let Some(session) = &mut self.session {
            session.attach(service.connect());
        }
        self.slot = Slot::Running(service);
        Ok(())
    }

    /// Ends an outage that is over, or the session whose outage lasts too long.
    fn look_after_session(&mut self, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.settle();
        if session
            .outage
            .is_some_and(|since| now >= after(since, self.grace))
        {
            log::error!("no service for {:?}: hanging up on the VMM", self.grace);
            self.notifier
                .send(&State::Status("gave a VMM up: no service came up in time"));
            self.session = None;
        }
    }

    /// Relays until something else is to be done.
    fn relay(&mut self, mut session: Session) -> Result<(), KeeperError> {
        let until = self.next_event(Some(&session));
        let end = session.relay.run(&self.watched(), until)?;
        match end {
            End::VmmGone(fault) => {
                limited!(log::Level::Info, "the VMM's session is over: {fault}");
                self.notifier.send(&State::Status("waiting for a VMM"));
                return Ok(());
            }
            End::ServiceGone(fault) => {
                self.session = Some(session);
                return self.service_hung_up(&fault);
            }
            End::BroughtRecord(record) => self.adopt(&mut session, record),
            End::Watched | End::Deadline | End::ShutDown => {}
        }
        self.session = Some(session);
        Ok(())
    }

    /// A connection to the service ended: it died, or it refused a request.
    fn service_hung_up(
        &mut self,
        fault: &agl_virtio_relay::ServiceFault,
    ) -> Result<(), KeeperError> {
        let now = Instant::now();
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        session.note_outage(now);
        let (Slot::Running(service) | Slot::Leaving(service, _)) = &mut self.slot else {
            return Ok(());
        };
        // A dying process closes its sockets a moment before it is dead.
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let mut fds = [PollFd::from_borrowed_fd(
            service.process.as_fd(),
            PollFlags::IN,
        )];
        let dead = poll(&mut fds, Some(&moment)).is_ok_and(|ready| ready > 0);
        if dead || self.stopping.is_some() || matches!(self.slot, Slot::Leaving(..)) {
            return Ok(());
        }
        session.hang_ups = session.hang_ups.saturating_add(1);
        let Slot::Running(service) = &self.slot else {
            return Ok(());
        };
        if session.hang_ups > HANG_UPS {
            log::error!("the service hangs up again and again: it is killed");
            service.process.signal(Signal::KILL);
            return Ok(());
        }
        limited!(log::Level::Warn, "{fault}, but it lives: connecting again");
        session.attach(service.connect());
        Ok(())
    }

    /// The VMM brought the record of an earlier session: the service starts again on it.
    fn adopt(&mut self, session: &mut Session, record: Record) {
        let now = Instant::now();
        let (ours, theirs) = (self.record.device(), record.device());
        if ours != 0 && theirs != 0 && ours != theirs {
            limited!(
                log::Level::Error,
                "the VMM brought the record of virtio device {theirs}, this is {ours}"
            );
            // Its end, if the VMM is gone, shows at the next step.
            let _ = session.relay.refuse_record();
            return;
        }
        limited!(
            log::Level::Info,
            "the VMM brought the record of an earlier session: the service starts on it"
        );
        self.record = Arc::new(record);
        session.relay.use_record(Arc::clone(&self.record));
        session.note_outage(now);
        self.replace_service(now);
    }

    fn wait_for_vmm(&mut self) -> Result<(), KeeperError> {
        let accepts = self.stopping.is_none();
        let mut fds: Vec<PollFd<'_>> = self
            .watched()
            .into_iter()
            .chain(accepts.then(|| self.listener.as_fd()))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = self
            .next_event(None)
            .map(|until| until.saturating_duration_since(Instant::now()))
            .and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(system("waiting")(error.into())),
        }
        if !accepts {
            return Ok(());
        }
        match self.listener.accept() {
            Ok((vmm, _)) => self.begin_session(vmm),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => {
                // A VMM that left again, or no descriptors: the next one may have more luck.
                limited!(log::Level::Warn, "cannot accept a VMM: {error}");
                Ok(())
            }
        }
    }

    fn begin_session(&mut self, vmm: std::os::unix::net::UnixStream) -> Result<(), KeeperError> {
        limited!(log::Level::Info, "a VMM has connected");
        self.notifier.send(&State::Status("serving a VMM"));
        let relay = Relay::new(vmm, Some(Arc::clone(&self.record)))?;
        let mut session = Session::new(relay);
        #[cfg(feature = "crash-points")]
        self.crash_points.observe(&mut session.relay);
        if let Slot::Running(service) = &self.slot {
            session.attach(service.connect());
        }
        self.session = Some(session);
        Ok(())
    }

    /// What wakes the keeper up beside the session.
    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = Vec::from(self.signals.fds());
        fds.push(self.watchdog.as_fd());
        if let Slot::Running(service) | Slot::Leaving(service, _) = &self.slot {
            fds.push(service.process.as_fd());
        }
        fds.extend(self.check.as_ref().map(|check| check.process.as_fd()));
        fds
    }

    /// When the next timer is due.
    fn next_event(&self, session: Option<&Session>) -> Option<Instant> {
        let outage = session.and_then(|session| session.outage);
        let slot = match self.slot {
            Slot::Running(_) => None,
            Slot::Leaving(_, at) | Slot::Empty(at) => Some(at),
        };
        [
            outage.map(|since| after(since, self.grace)),
            slot,
            self.stopping,
            self.watchdog.due(),
            self.check.as_ref().map(|check| check.until),
            self.notifier.keep_alive_interval().map(|_| self.keep_alive),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn program(&self) -> String {
        self.line
            .first()
            .map(|program| program.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
