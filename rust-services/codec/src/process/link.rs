// SPDX-License-Identifier: Apache-2.0

//! The service's end of a connection to a worker.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::message::{Command, Report, Wait, receive, send, tame};
use crate::{Codec, CodecError};

/// How long a busy machine may take to load all plugins.
pub(super) const LOADING: Duration = Duration::from_secs(120);
/// Reports that wait to be looked at: a worker that keeps to the protocol never has so many.
const MOST_REPORTS: usize = 32;

/// What a worker has said.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) reports: VecDeque<Report>,
    /// The worker's number, once the nursery has told it.
    pub(super) process: u32,
    /// It is gone, and this is how.
    pub(super) ended: Option<String>,
    /// When it said something last.
    pub(super) last: Instant,
    /// What it can decode, and encode.
    codecs: Option<Result<[Vec<Codec>; 2], CodecError>>,
}

struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
    notify: OnceLock<Arc<dyn Fn() + Send + Sync>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more may come.
    fn hear(&self, received: io::Result<Option<(Report, Vec<OwnedFd>)>>) -> bool {
        let mut heard = self.lock();
        heard.last = Instant::now();
        let goes_on = match received {
            Ok(Some((report, _))) => heard.note(report),
            Ok(None) => {
                heard.ended.get_or_insert_with(|| "is gone".to_owned());
                false
            }
            Err(error) => {
                let how = format!("does not speak our language: {error}");
                heard.ended.get_or_insert(how);
                false
            }
        };
        drop(heard);
        self.changed.notify_all();
        if let Some(notify) = self.notify.get() {
            notify();
        }
        goes_on
    }
}

impl Heard {
    /// Whether it has loaded its codecs.
    pub(super) fn is_ready(&self) -> bool {
        self.codecs.is_some()
    }

    fn note(&mut self, report: Report) -> bool {
        match report {
            // The nursery says it, before the worker can say anything.
            Report::Process { id } if self.process == 0 => self.process = id,
            Report::Process { .. } => {
                let how = "says twice which process it is".to_owned();
                self.ended.get_or_insert(how);
                return false;
            }
            Report::Alive => {}
            Report::Ended { how } => {
                self.ended.get_or_insert(tame(&how));
                return false;
            }
            Report::Ready { decoders, encoders } => {
                self.codecs.get_or_insert(Ok([decoders, encoders]));
            }
            Report::Failed(error) if self.codecs.is_none() => self.codecs = Some(Err(error)),
            _ if self.reports.len() >= MOST_REPORTS => {
                let how = "says more than it was asked".to_owned();
                self.ended.get_or_insert(how);
                return false;
            }
            report => self.reports.push_back(report),
        }
        true
    }
}

/// A connection; its worker ends with it.
pub(super) struct Link {
    socket: Arc<OwnedFd>,
    shared: Arc<Shared>,
}

impl Link {
    /// Listens to what is said by this connection, in a thread that runs `prepare` first.
    pub(super) fn new(socket: OwnedFd, prepare: Arc<dyn Fn() + Send + Sync>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            heard: Mutex::new(Heard {
                reports: VecDeque::new(),
                process: 0,
                ended: None,
                last: Instant::now(),
                codecs: None,
            }),
            changed: Condvar::new(),
            notify: OnceLock::new(),
        });
        let socket = Arc::new(socket);
        let (ear, its) = (Arc::clone(&socket), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("codec".to_owned())
            .spawn(move || {
                prepare();
                while its.hear(receive(&*ear, Wait::Yes)) {}
            })?;
        Ok(Self { socket, shared })
    }

    /// Who hears that something was said. The first one stays.
    pub(super) fn attach(&self, notify: Arc<dyn Fn() + Send + Sync>) {
        let _ = self.shared.notify.set(notify);
    }

    /// What was said.
    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.shared.lock()
    }

    /// Whether the worker is gone, or not listened to any more.
    pub(super) fn has_ended(&self) -> bool {
        self.heard().ended.is_some()
    }

    /// Tells the worker something. It never has so much untold that this would have to wait, as long
    /// as it listens.
    pub(super) fn tell(&self, command: &Command, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&*self.socket, command, fds, Wait::No)
    }

    /// Waits until it has loaded its codecs: what can be decoded, and encoded.
    pub(super) fn codecs(&self, patience: Duration) -> Result<[Vec<Codec>; 2], CodecError> {
        let none = |heard: &mut Heard| heard.codecs.is_none() && heard.ended.is_none();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), patience, none);
        let (heard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (&heard.codecs, &heard.ended) {
            (Some(codecs), _) => codecs.clone(),
            (None, Some(how)) => Err(CodecError::Library {
                reason: format!("the process that loads its plugins {how}"),
            }),
            (None, None) => Err(CodecError::Library {
                reason: format!("its plugins are not loaded after {patience:?}"),
            }),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Ends the thread, and the worker.
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }
}
