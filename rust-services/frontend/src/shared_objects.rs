// SPDX-License-Identifier: Apache-2.0
//! A VMM's table of the objects that devices share, and its answers to who looks one up
//! (`SHARED_OBJECT_LOOKUP`).
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use crate::connection::Message;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::protocol::{backend_request, header};
use crate::session::BackendChannel;

/// The name of an object.
pub type Uuid = [u8; 16];

/// The objects of all devices of a VMM.
#[derive(Debug, Default)]
pub struct SharedObjects(BTreeMap<Uuid, File>);

impl SharedObjects {
    /// Put an object under a name.
    pub fn add(&mut self, name: Uuid, object: File) {
        self.0.insert(name, object);
    }

    /// The object of a name.
    #[must_use]
    pub fn get(&self, name: Uuid) -> Option<&File> {
        self.0.get(&name)
    }

    /// Wait for the next lookup, and answer it: 0 and a descriptor, or 1 where there is no such
    /// object. Which one was looked for.
    ///
    /// # Errors
    /// As [`next_lookup`].
    pub fn serve(&self, channel: &BackendChannel, deadline: Deadline) -> Result<Uuid> {
        let (name, asked) = next_lookup(channel, deadline)?;
        match self.0.get(&name) {
            Some(object) => answer(channel, &asked, 0, &[object.as_fd()])?,
            None => answer(channel, &asked, 1, &[])?,
        }
        Ok(name)
    }
}

/// Wait for the next lookup, and leave its answer to the caller. Which object is looked for.
///
/// # Errors
/// Where none comes, or something else does.
pub fn next_lookup(channel: &BackendChannel, deadline: Deadline) -> Result<(Uuid, Message)> {
    let asked = channel.connection().receive_by(deadline)?;
    let name = Uuid::try_from(asked.payload.as_slice());
    match (asked.request, name) {
        (backend_request::SHARED_OBJECT_LOOKUP, Ok(name)) => Ok((name, asked)),
        _ => Err(Error::BadReply {
            request: asked.request,
            problem: "not SHARED_OBJECT_LOOKUP with a name".into(),
        }),
    }
}

/// Answer a lookup with any number and descriptors.
///
/// # Errors
/// Where the back end is gone.
pub fn answer(
    channel: &BackendChannel,
    asked: &Message,
    value: u64,
    objects: &[BorrowedFd<'_>],
) -> Result<()> {
    let flags = header::VERSION | header::REPLY;
    let bytes = value.to_le_bytes();
    channel
        .connection()
        .send(asked.request, flags, &bytes, objects)
}
