// SPDX-License-Identifier: Apache-2.0

//! Serves a device on a socket: one VMM after the other, any number of times.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use agl_virtio_relay::record::{MAX_QUEUES, Record, RecordError};
use agl_virtio_relay::{End, Handle, Relay, RelayError, limited};
use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::GuestMemoryMmap;

use crate::device::Device;
use crate::private;
use crate::session::{Session, offered};
use crate::stats::DeviceStats;
use crate::vmm::Vmm;
use crate::vring::{AtomicMemory, Workers, with_workers};
use crate::waker::Waker;
use crate::worker::{Control, Worker};

/// How long a VMM may take for what a device asks of it. One that starts another machine or migrates
/// this one takes seconds, and a program of the guest should not wait much longer for its memory.
const VMM_PATIENCE: Duration = Duration::from_secs(10);

/// Why a device cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The device names more queues than a record has room for, or none.
    #[error("a device of {0} queues cannot be served: 1 to {MAX_QUEUES} are possible")]
    Queues(usize),
    /// The record was written for another device type.
    #[error("the record belongs to virtio device {found}, this service is {expected}")]
    OtherDevice {
        /// Device id in the record.
        found: u32,
        /// Device id of this service.
        expected: u32,
    },
    /// The record cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The host refused something the service cannot do without.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::Host { what, source }
}

/// What a server is started with.
pub struct Options {
    /// The record that a keeper handed over. Without one the service makes its own, which ends with
    /// it.
    pub record: Option<Record>,
    /// Runs first on each queue thread, with its name: priority, sandbox.
    pub prepare_thread: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            record: None,
            prepare_thread: Arc::new(|_| {}),
        }
    }
}

/// Ends [`Server::serve`] from another thread.
#[derive(Clone)]
pub struct Stop {
    waker: Waker,
    wanted: Arc<AtomicBool>,
    vmm: Vmm,
}

impl Stop {
    fn new(vmm: Vmm) -> io::Result<Self> {
        Ok(Self {
            waker: Waker::new()?,
            wanted: Arc::new(AtomicBool::new(false)),
            vmm,
        })
    }

    /// Ends the present session, if there is one, and the service with it. What is in flight stays
    /// in the record, for a successor under the same keeper.
    pub fn stop(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.waker.wake();
        if let Some(relay) = self.vmm.relay() {
            relay.shut_down();
        }
    }

    fn wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Says which session is running. One that begins while a stop is wanted ends at once.
    fn watch(&self, relay: Option<Handle>) {
        self.vmm.set(relay.clone());
        if let Some(relay) = relay.filter(|_| self.wanted()) {
            relay.shut_down();
        }
    }
}

/// A device with its queue threads, ready to be served.
pub struct Server {
    device: Arc<dyn Device>,
    workers: Arc<Workers>,
    stats: DeviceStats,
    record: Mutex<Arc<Record>>,
    /// Whether the record came from a keeper.
    kept: bool,
    acked: Arc<AtomicU64>,
    connected: Arc<AtomicBool>,
    observer: Observer,
    stop: Stop,
}

/// Who is told that a VMM came or went, or that a driver took features: once set, never another.
pub(crate) type Observer = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// Tells who wants to know.
pub(crate) fn tell(observer: &Observer) {
    if let Some(observer) = observer.get() {
        observer();
    }
}

impl Server {
    /// Starts the device's queue threads.
    ///
    /// # Errors
    /// When the device has no queues or too many, the record is not its own, or the host refuses
    /// threads or descriptors.
    pub fn new(device: Arc<dyn Device>, options: Options) -> Result<Self, ServerError> {
        Self::with_vmm_patience(device, options, VMM_PATIENCE)
    }

    /// As [`Server::new`], for a VMM that may take so long for what the device asks of it
    /// ([`Io::ask`](crate::Io::ask)).
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn with_vmm_patience(
        device: Arc<dyn Device>,
        options: Options,
        patience: Duration,
    ) -> Result<Self, ServerError> {
        let queues = device.queues().len();
        if queues == 0 || queues > MAX_QUEUES {
            return Err(ServerError::Queues(queues));
        }
        let kept = options.record.is_some();
        let record = Arc::new(match options.record {
            Some(record) => record,
            None => Record::create()?,
        });
        if claim(&record, &*device)? {
            record.count_restart();
        }
        let vmm = Vmm::new(patience);
        let stop = Stop::new(vmm).map_err(host("create an event descriptor"))?;
        let stats = DeviceStats::new(device.queues().iter().map(|queue| queue.name));
        let workers = device
            .threads()
            .into_iter()
            .map(|plan| {
                let prepare = Arc::clone(&options.prepare_thread);
                let vmm = stop.vmm.clone();
                Worker::spawn(
                    plan,
                    queues,
                    stats.clone(),
                    Arc::clone(&record),
                    vmm,
                    prepare,
                )
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(host("start a queue thread"))?;
        Ok(Self {
            device,
            workers: Arc::new(Workers(workers)),
            stats,
            record: Mutex::new(record),
            kept,
            acked: Arc::new(AtomicU64::new(0)),
            connected: Arc::new(AtomicBool::new(false)),
            observer: Observer::default(),
            stop,
        })
    }

    /// The counters of the queues.
    #[must_use]
    pub fn stats(&self) -> DeviceStats {
        self.stats.clone()
    }

    fn record(&self) -> Option<Arc<Record>> {
        self.record.lock().ok().map(|record| Arc::clone(&record))
    }

    /// How often a service of this device took over from another one, by its record.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.record().map_or(0, |record| record.restarts())
    }

    /// The features offered to drivers.
    #[must_use]
    pub fn offered_features(&self) -> u64 {
        offered(&*self.device)
    }

    /// The features that the present driver took: 0 without one.
    #[must_use]
    pub fn acked_features(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.acked)
    }

    /// Whether a VMM is connected.
    #[must_use]
    pub fn connected(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.connected)
    }

    /// Calls `changed` whenever [`Server::connected`] or [`Server::acked_features`] may have changed,
    /// on the thread that serves: it must not wait. Only the first observer is kept.
    pub fn observe(&self, changed: impl Fn() + Send + Sync + 'static) {
        // A second one is a mistake of the caller, and does no harm.
        let _ = self.observer.set(Box::new(changed));
    }

    /// Ends [`Server::serve`].
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// For a watchdog: each queue thread's turn counter, and what makes it turn.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<(Arc<AtomicU64>, Waker)> {
        self.workers
            .0
            .iter()
            .map(|worker| (worker.heartbeat(), worker.waker()))
            .collect()
    }

    /// Tells the driver that the configuration space has changed.
    pub fn config_changed(&self) {
        if let Some(relay) = self.stop.vmm.relay() {
            relay.config_changed();
        }
    }

    /// Serves one VMM after the other until [`Stop::stop`]. A session that ends badly is logged, and
    /// the next one begins.
    ///
    /// # Errors
    /// When the listening socket itself fails.
    pub fn serve(&self, listener: &UnixListener) -> Result<(), ServerError> {
        listener
            .set_nonblocking(true)
            .map_err(host("prepare the socket"))?;
        while let Some(vmm) = self.accept(listener)? {
            self.connected.store(true, Ordering::Relaxed);
            tell(&self.observer);
            limited!(self.level(), "a VMM has connected");
            if let Err(error) = self.session(vmm) {
                limited!(log::Level::Error, "the session ended: {error}");
            }
            self.stop.watch(None);
            self.connected.store(false, Ordering::Relaxed);
            if !self.stop.wanted() {
                self.acked.store(0, Ordering::Relaxed);
                self.workers.ask_all(|| Control::Reset);
            }
            tell(&self.observer);
        }
        for worker in &self.workers.0 {
            worker.join();
        }
        Ok(())
    }

    /// How loud it is that somebody came or went. Under a keeper it is the keeper that says so: what
    /// connects to this process is the keeper itself.
    fn level(&self) -> log::Level {
        if self.kept {
            log::Level::Debug
        } else {
            log::Level::Info
        }
    }

    fn accept(&self, listener: &UnixListener) -> Result<Option<UnixStream>, ServerError> {
        loop {
            if self.stop.wanted() {
                return Ok(None);
            }
            match listener.accept() {
                Ok((vmm, _)) => {
                    vmm.set_nonblocking(false)
                        .map_err(host("prepare a connection"))?;
                    return Ok(Some(vmm));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The peer has gone again; the next one may stay.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(host("accept a connection")(error)),
            }
            let mut fds = [
                PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.stop.waker.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(host("wait for a connection")(error.into())),
            }
        }
    }

    /// One VMM's connection, from its first message to its end.
    fn session(&self, vmm: UnixStream) -> Result<(), SessionError> {
        // Under a keeper, it is the keeper that shows the record to the VMM.
        let record = (!self.kept).then(|| self.record()).flatten();
        let mut relay = Relay::new(vmm, record)?;
        self.stop.watch(Some(relay.handle()));
        let (daemon, service) = self.daemon()?;
        let mut serving = Some(daemon);
        relay.attach(service);
        loop {
            match relay.run(&[], None)? {
                End::BroughtRecord(record) => match self.adopt(record) {
                    Ok(record) => {
                        relay.use_record(record);
                        drop(serving.take());
                        let (daemon, service) = self.daemon()?;
                        serving.replace(daemon);
                        relay.attach(service);
                    }
                    Err(error) => {
                        limited!(
                            log::Level::Warn,
                            "the VMM brought a record that cannot be used: {error}"
                        );
                        if relay.refuse_record().is_some() {
                            return Ok(());
                        }
                    }
                },
                End::VmmGone(fault) => {
                    limited!(self.level(), "the VMM's session is over: {fault}");
                    return Ok(());
                }
                End::ServiceGone(fault) => {
                    limited!(
                        log::Level::Error,
                        "the VMM sent what cannot be served: {fault}"
                    );
                    return Ok(());
                }
                End::Watched | End::Deadline => {}
                End::ShutDown => return Ok(()),
            }
        }
    }

    /// A vhost-user-backend daemon, and the connection to it.
    fn daemon(&self) -> Result<(Daemon, UnixStream), SessionError> {
        let session = Arc::new(Session {
            device: Arc::clone(&self.device),
            workers: Arc::clone(&self.workers),
            acked: Arc::clone(&self.acked),
            observer: Arc::clone(&self.observer),
        });
        let mut daemon = with_workers(&self.workers, || {
            VhostUserDaemon::new(
                "session".to_owned(),
                session,
                AtomicMemory::new(GuestMemoryMmap::new()),
            )
        })
        .map_err(daemon_error)?;
        let (listener, service) = private::connection()?;
        daemon
            .start(&mut Listener::from(listener))
            .map_err(daemon_error)?;
        Ok((Daemon(daemon), service))
    }

    /// Goes on with a record that the VMM kept while another process of this service died.
    fn adopt(&self, record: Record) -> Result<Arc<Record>, ServerError> {
        if claim(&record, &*self.device)? {
            record.count_restart();
        }
        let record = Arc::new(record);
        self.workers
            .ask_all(|| Control::Record(Arc::clone(&record)));
        if let Ok(mut current) = self.record.lock() {
            *current = Arc::clone(&record);
        }
        Ok(record)
    }
}

/// Makes a record this device's own. Returns whether it was so before.
fn claim(record: &Record, device: &dyn Device) -> Result<bool, ServerError> {
    // For who speaks with the VMM, which is the keeper where there is one.
    record.set_object_features(device.features_of_shared_objects());
    match record.device() {
        0 => record.set_device(device.id()),
        found if found != device.id() => {
            return Err(ServerError::OtherDevice {
                found,
                expected: device.id(),
            });
        }
        _ => return Ok(true),
    }
    Ok(false)
}

/// A daemon whose thread has ended when it is dropped: nothing it still does comes after the reset.
struct Daemon(VhostUserDaemon<Arc<Session>>);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.request_shutdown();
        if let Err(error) = self.0.wait() {
            log::debug!("the session's thread: {error}");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("vhost-user: {0}")]
    Daemon(String),
    #[error("relay: {0}")]
    Relay(#[from] RelayError),
    #[error("the private socket: {0}")]
    Private(#[from] io::Error),
}

/// The crate's error is no [`std::error::Error`].
fn daemon_error(error: vhost_user_backend::Error) -> SessionError {
    SessionError::Daemon(error.to_string())
}
