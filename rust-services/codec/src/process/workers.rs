// SPDX-License-Identifier: Apache-2.0

//! Codecs, each session of which is in a process of its own.

use std::io;

use agl_virtio_service::Exit;

use super::link::{LOADING, Link};
use super::message::is_closed;
use super::nursery::Nursery;
use super::remote::Remote;
use crate::coder::{Codecs, Coder, Job};
use crate::{Codec, CodecError, Host};

/// Where sessions come from. One worker is always ahead, with its codecs loaded, so that a session
/// begins at once.
pub struct Workers {
    nursery: Nursery,
    host: Host,
    spare: Option<Link>,
    decoders: Vec<Codec>,
    encoders: Vec<Codec>,
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
        let spare = Link::new(first, host.prepare.clone()).map_err(library)?;
        let [decoders, encoders] = spare.codecs(LOADING)?;
        Ok(Self {
            nursery,
            host,
            spare: Some(spare),
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

    fn hire(&self) -> io::Result<Link> {
        let hired = self.nursery.hire().inspect_err(|error| {
            if is_closed(error) {
                // No session will ever begin again; a new service has a new one.
                log::error!("the process that starts codecs is gone, so the service ends");
                std::process::exit(i32::from(Exit::Os.code()));
            }
        });
        Link::new(hired?, self.host.prepare.clone())
    }

    fn session(&mut self, job: &Job) -> io::Result<Remote> {
        let spare = self.spare.take().filter(|spare| !spare.has_ended());
        let session = match spare.map(|spare| self.begin(spare, job)) {
            Some(Ok(session)) => session,
            // It has died while it waited, which is not this stream's fault.
            Some(Err(error)) if is_closed(&error) => self.begin(self.hire()?, job)?,
            Some(Err(error)) => return Err(error),
            None => self.begin(self.hire()?, job)?,
        };
        self.spare = self.hire().ok();
        Ok(session)
    }

    fn begin(&self, link: Link, job: &Job) -> io::Result<Remote> {
        link.attach(self.host.notify.clone());
        let setup = &self.nursery.setup;
        Remote::open(link, job, setup.pixels, setup.patience)
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
        match self.session(job) {
            Ok(session) => Ok(Box::new(session)),
            Err(error) => Err(CodecError::Start {
                codec,
                reason: format!("no process for it: {error}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::Duration;

    use rustix::net::{Shutdown, shutdown};

    use super::super::message::{Command, Report, Wait, pair, receive, send};
    use super::super::setup::Setup;
    use super::*;
    use crate::Elements;

    const JOB: Job = Job::Decode(Codec::Vp8);

    /// Workers of a nursery that the test plays, with a spare one; its end, and the nursery's.
    fn workers() -> (Workers, OwnedFd, OwnedFd) {
        gstreamer::init().unwrap();
        let setup = Setup {
            elements: Elements::default(),
            paths: Vec::new(),
            patience: Duration::from_secs(60),
            memory: 1 << 30,
            pixels: 64 * 64,
            sessions: 4,
            sandbox: false,
            log: "off".to_owned(),
        };
        let (nursery, asked) = Nursery::scripted(setup).unwrap();
        let (ours, its) = pair().unwrap();
        let host = Host {
            notify: Arc::new(|| ()),
            prepare: Arc::new(|| ()),
            patience: Duration::from_secs(60),
        };
        let workers = Workers {
            spare: Some(Link::new(ours, host.prepare.clone()).unwrap()),
            nursery,
            host,
            decoders: vec![Codec::Vp8],
            encoders: Vec::new(),
        };
        (workers, its, asked)
    }

    /// The end of the next worker that the nursery is asked for.
    fn hired(asked: &OwnedFd) -> Option<OwnedFd> {
        let asked = receive::<()>(asked, Wait::No).ok()?;
        asked.and_then(|(_, mut fds)| fds.pop())
    }

    #[test]
    fn a_spare_that_has_died_is_replaced_and_not_given_to_a_stream() {
        let (mut workers, its, asked) = workers();
        // Nobody has seen yet that it is gone.
        shutdown(&its, Shutdown::Read).unwrap();
        assert!(workers.open(&JOB).is_ok());
        let its = hired(&asked).unwrap();
        let first = receive::<Command>(&its, Wait::Yes).unwrap().unwrap();
        assert!(matches!(first.0, Command::Open { .. }));
    }
}
