// SPDX-License-Identifier: Apache-2.0

//! The service's end of a connection to a worker.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use agl_virtio_service::limited;
use rustix::net::{Shutdown, shutdown};

use super::allowance::Allowance;
use super::message::{Command, Report, Wait, receive, send, tame};
use crate::{Codec, CodecError};

/// How long a busy machine may take to load all plugins.
pub(super) const LOADING: Duration = Duration::from_secs(120);
/// Reports that wait to be looked at: a worker that keeps to the protocol never has so many.
const MOST_REPORTS: usize = 32;
/// Signs of life that are heard at once: more than wait in a socket when nobody had time to hear them.
const MOST_BEATS: u32 = 1024;
/// After how long one more is: a worker that keeps to the protocol gives one in each
/// [`BEAT`](super::worker::BEAT).
const NEXT_BEAT: Duration = Duration::from_millis(250);

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
    beats: Allowance,
    /// Held until it has loaded its codecs.
    loading: Option<Arc<()>>,
    /// What it can decode, and encode.
    codecs: Option<Result<[Vec<Codec>; 2], CodecError>>,
}

struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
    notify: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    loaded: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more may come.
    fn hear(&self, received: io::Result<Option<(Report, Vec<OwnedFd>)>>) -> bool {
        let mut heard = self.lock();
        heard.last = Instant::now();
        let said = match &received {
            Ok(Some((Report::Said { text }, _))) => Some(tame(text)),
            _ => None,
        };
        let noted = match received {
            Ok(Some((report, _))) => heard.note(report),
            Ok(None) => heard.end("is gone"),
            Err(error) => heard.end(&format!("does not speak our language: {error}")),
        };
        let goes_on = noted != Noted::End;
        let told = heard.is_ready() || !goes_on;
        let has_loaded = told && heard.loading.take().is_some();
        let process = heard.process;
        drop(heard);
        if let Some(text) = said {
            limited!(log::Level::Warn, "codec process {process}: {text}");
        }
        if noted != Noted::Nothing {
            self.changed.notify_all();
            if let Some(notify) = self.notify.get() {
                notify();
            }
        }
        if has_loaded && goes_on {
            (self.loaded)();
        }
        goes_on
    }
}

/// What a report is to who looks at them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Noted {
    /// Nothing new, or something behind what they were told of and did not look at yet.
    Nothing,
    News,
    /// The last one.
    End,
}

impl Heard {
    /// Whether it has loaded its codecs.
    pub(super) fn is_ready(&self) -> bool {
        self.codecs.is_some()
    }

    fn end(&mut self, how: &str) -> Noted {
        self.ended.get_or_insert_with(|| how.to_owned());
        Noted::End
    }

    fn note(&mut self, report: Report) -> Noted {
        match report {
            // The nursery says it, before the worker can say anything.
            Report::Process { id } if self.process == 0 => self.process = id,
            Report::Process { .. } => return self.end("says twice which process it is"),
            Report::Alive | Report::Said { .. } if self.beats.take(self.last) => {
                return Noted::Nothing;
            }
            Report::Alive | Report::Said { .. } => {
                return self.end("says without end that it lives");
            }
            Report::Ended { how } => return self.end(&tame(&how)),
            Report::Ready { decoders, encoders } => {
                self.codecs.get_or_insert(Ok([decoders, encoders]));
            }
            Report::Failed(error) if self.codecs.is_none() => self.codecs = Some(Err(error)),
            _ if self.reports.len() >= MOST_REPORTS => {
                return self.end("says more than it was asked");
            }
            report => {
                self.reports.push_back(report);
                if self.reports.len() > 1 {
                    return Noted::Nothing;
                }
            }
        }
        Noted::News
    }
}

/// A connection; its worker ends with it.
pub(super) struct Link {
    mouth: Mouth,
}

/// The way to a worker, for who has to tell it something perhaps after its session. Clones are the same.
#[derive(Clone)]
pub(super) struct Mouth {
    socket: Arc<OwnedFd>,
    shared: Arc<Shared>,
}

impl Mouth {
    /// Tells the worker something. It never has so much untold that this would have to wait, as long
    /// as it listens.
    pub(super) fn tell(&self, command: &Command) {
        if let Err(error) = self.send(command, &[]) {
            // One that is gone has left a better reason.
            let how = format!("takes no command: {error}");
            self.shared.lock().ended.get_or_insert(how);
        }
    }

    fn send(&self, command: &Command, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&*self.socket, command, fds, Wait::No)
    }
}

impl Link {
    /// Listens to what is said by this connection, in a thread that runs `prepare` first. `loading` is
    /// held until the worker has loaded its codecs or is gone, and `loaded` called in the first case.
    pub(super) fn new(
        socket: OwnedFd,
        prepare: Arc<dyn Fn() + Send + Sync>,
        loading: Arc<()>,
        loaded: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            heard: Mutex::new(Heard {
                reports: VecDeque::new(),
                process: 0,
                ended: None,
                last: now,
                beats: Allowance::new(MOST_BEATS, NEXT_BEAT, now),
                loading: Some(loading),
                codecs: None,
            }),
            changed: Condvar::new(),
            notify: OnceLock::new(),
            loaded: Box::new(loaded),
        });
        let socket = Arc::new(socket);
        let (ear, its) = (Arc::clone(&socket), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("codec".to_owned())
            .spawn(move || {
                prepare();
                while its.hear(receive(&*ear, Wait::Yes)) {}
            })?;
        let mouth = Mouth { socket, shared };
        Ok(Self { mouth })
    }

    /// Who hears that something was said. The first one stays.
    pub(super) fn attach(&self, notify: Arc<dyn Fn() + Send + Sync>) {
        let _ = self.mouth.shared.notify.set(notify);
    }

    /// What was said.
    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.mouth.shared.lock()
    }

    /// Whether the worker is gone, or not listened to any more.
    pub(super) fn has_ended(&self) -> bool {
        self.heard().ended.is_some()
    }

    /// The way to its worker.
    pub(super) fn mouth(&self) -> &Mouth {
        &self.mouth
    }

    /// Gives the worker its job, with the memory for it.
    pub(super) fn begin(&self, job: &Command, memory: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.mouth.send(job, memory)
    }

    /// Waits until it has loaded its codecs: what can be decoded, and encoded.
    pub(super) fn codecs(&self, patience: Duration) -> Result<[Vec<Codec>; 2], CodecError> {
        let none = |heard: &mut Heard| heard.codecs.is_none() && heard.ended.is_none();
        let shared = &self.mouth.shared;
        let waited = shared
            .changed
            .wait_timeout_while(shared.lock(), patience, none);
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
        let _ = shutdown(&*self.mouth.socket, Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::message::pair;
    use super::*;

    /// A link whose owner counts how often it is woken, and the worker's end.
    fn link() -> (Link, OwnedFd, Arc<AtomicU32>) {
        let (ours, its) = pair().unwrap();
        let link = Link::new(ours, Arc::new(|| ()), Arc::default(), || ()).unwrap();
        let woken = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&woken);
        link.attach(Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        (link, its, woken)
    }

    #[test]
    fn many_words_wake_their_owner_once() {
        let (link, its, woken) = link();
        for _ in 0..20 {
            send(&its, &Report::Alive, &[], Wait::Yes).unwrap();
            send(&its, &Report::Adjusted, &[], Wait::Yes).unwrap();
        }
        while link.heard().reports.len() < 20 {
            std::thread::yield_now();
        }
        drop(its);
        while !link.has_ended() {
            std::thread::yield_now();
        }
        // Once for the reports, and once for the end, of which it may not have been told yet.
        assert!(woken.load(Ordering::SeqCst) <= 2);
        assert!(woken.load(Ordering::SeqCst) >= 1);
    }

    #[test]
    fn a_worker_that_says_without_end_that_it_lives_is_not_listened_to() {
        let (link, its, _woken) = link();
        while !link.has_ended() {
            let _ = send(&its, &Report::Alive, &[], Wait::No);
            std::thread::yield_now();
        }
        let how = link.heard().ended.clone().unwrap();
        assert!(how.contains("lives"), "{how}");
    }

    #[test]
    fn signs_of_life_that_nobody_had_time_to_hear_are_no_offence() {
        let (one, other) = pair().unwrap();
        let waiting =
            (0..=MOST_BEATS).take_while(|_| send(&one, &Report::Alive, &[], Wait::No).is_ok());
        assert!(
            waiting.count() <= MOST_BEATS as usize,
            "a socket holds more"
        );
        drop(other);
    }
}
