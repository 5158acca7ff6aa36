// SPDX-License-Identifier: Apache-2.0

//! Codecs, each session of which is in a process of its own.

use std::io;

use agl_virtio_service::Exit;

use super::link::{LOADING, Link};
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
            if error.kind() == io::ErrorKind::BrokenPipe {
                // No session will ever begin again; a new service has a new one.
                log::error!("the process that starts codecs is gone, so the service ends");
                std::process::exit(i32::from(Exit::Os.code()));
            }
        });
        Link::new(hired?, self.host.prepare.clone())
    }

    fn session(&mut self, job: &Job) -> io::Result<Remote> {
        let spare = self.spare.take();
        let link = match spare.filter(|spare| !spare.has_ended()) {
            Some(spare) => spare,
            None => self.hire()?,
        };
        link.attach(self.host.notify.clone());
        let setup = &self.nursery.setup;
        let session = Remote::open(link, job, setup.pixels, setup.patience)?;
        self.spare = self.hire().ok();
        Ok(session)
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
