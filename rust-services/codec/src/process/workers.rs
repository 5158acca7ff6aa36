// SPDX-License-Identifier: Apache-2.0

//! Codecs, each session of which is in a process of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agl_virtio_service::{Exit, limited};

use super::link::{LOADING, Link};
use super::message::is_closed;
use super::nursery::Nursery;
use super::remote::Remote;
use crate::coder::{Codecs, Coder, Job};
use crate::{Codec, CodecError, Host};

/// Where sessions come from. One worker is always ahead, with its codecs loaded, so that a session
/// begins at once.
pub struct Workers {
    pool: Arc<Pool>,
    decoders: Vec<Codec>,
    encoders: Vec<Codec>,
}

/// The nursery, and the worker that is ahead.
struct Pool {
    nursery: Nursery,
    host: Host,
    spare: Mutex<Option<Spare>>,
    /// Each worker that still loads has one of these.
    loading: Arc<()>,
}

/// A worker that is ahead.
enum Spare {
    /// It is not listened to before it has a stream: whoever hires it may be a thread of another one, and
    /// a thread that it started would carry the filters of both.
    Hired(OwnedFd),
    /// The first one, which has told what can be coded.
    Known(Link),
}

impl Workers {
    /// Waits until the first worker has loaded its codecs.
    ///
    /// # Errors
    /// GStreamer does not start, or takes its process with it.
    pub fn new(mut nursery: Nursery, host: Host) -> Result<Self, CodecError> {
        let library = |error: io::Error| CodecError::Library {
            reason: error.to_string(),
        };
        // Pictures are put in order, and RGB is calculated, on this side.
        gstreamer::init().map_err(|error| library(io::Error::other(error)))?;
        let first = match nursery.first.take() {
            Some(first) => first,
            None => nursery.hire().map_err(library)?,
        };
        let pool = Arc::new(Pool::new(nursery, host));
        let [decoders, encoders] = {
            // Held, so that no further one is hired once this one has loaded.
            let mut spare = pool.spare();
            let first = pool.link(first).map_err(library)?;
            let codecs = first.codecs(LOADING)?;
            *spare = Some(Spare::Known(first));
            codecs
        };
        Ok(Self {
            pool,
            decoders,
            encoders,
        })
    }

    /// What can be decoded.
    #[must_use]
    pub fn decoders(&self) -> &[Codec] {
        &self.decoders
    }

    /// What can be encoded.
    #[must_use]
    pub fn encoders(&self) -> &[Codec] {
        &self.encoders
    }
}

impl Pool {
    fn new(nursery: Nursery, host: Host) -> Self {
        Self {
            nursery,
            host,
            spare: Mutex::new(None),
            loading: Arc::default(),
        }
    }

    fn spare(&self) -> MutexGuard<'_, Option<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to a worker. Once it has loaded its codecs, the next one may.
    fn link(self: &Arc<Self>, socket: OwnedFd) -> io::Result<Link> {
        let pool = Arc::downgrade(self);
        let loaded = move || {
            if let Some(pool) = pool.upgrade() {
                pool.fill();
            }
        };
        let prepare = Arc::clone(&self.host.prepare);
        Link::new(socket, prepare, Arc::clone(&self.loading), loaded)
    }

    fn hire(&self) -> io::Result<OwnedFd> {
        self.nursery.hire().inspect_err(|error| {
            if is_closed(error) {
                // No session will ever begin again; a new service has a new one.
                log::error!("the process that starts codecs is gone, so the service ends");
                std::process::exit(i32::from(Exit::Os.code()));
            }
        })
    }

    /// Has a worker ahead, unless one still loads: streams that come and go without end have no more
    /// than one load for nobody.
    fn fill(&self) {
        let mut spare = self.spare();
        let is_loading = Arc::strong_count(&self.loading) > 1;
        if spare.is_none() && !is_loading {
            *spare = self.hire().ok().map(Spare::Hired);
        }
    }

    fn session(self: &Arc<Self>, job: &Job) -> io::Result<Remote> {
        let spare = self.spare().take();
        let link = match spare {
            Some(Spare::Known(link)) => Ok(link),
            Some(Spare::Hired(socket)) => self.link(socket),
            None => self.hire().and_then(|socket| self.link(socket)),
        };
        let session = match self.begin(link?, job) {
            // It has died while it waited, which is not this stream's fault.
            Err(error) if is_closed(&error) => {
                limited!(
                    log::Level::Warn,
                    "a codec process is gone before it had a stream"
                );
                self.begin(self.link(self.hire()?)?, job)?
            }
            session => session?,
        };
        self.fill();
        Ok(session)
    }

    fn begin(&self, link: Link, job: &Job) -> io::Result<Remote> {
        if link.has_ended() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        link.attach(self.host.notify.clone());
        Remote::open(link, job, &self.nursery.setup)
    }
}

impl Codecs for Workers {
    fn open(&mut self, job: &Job) -> Result<Box<dyn Coder>, CodecError> {
        let (codec, list) = match job {
            Job::Decode(codec) => (*codec, &self.decoders),
            Job::Encode(codec, ..) => (*codec, &self.encoders),
        };
        if !list.contains(&codec) {
            return Err(CodecError::NotOffered { codec });
        }
        match self.pool.session(job) {
            Ok(session) => Ok(Box::new(session)),
            Err(error) => Err(CodecError::Start {
                codec,
                reason: format!("no process for it: {error}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
