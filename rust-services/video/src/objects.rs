// SPDX-License-Identifier: Apache-2.0

//! Objects of other devices, as the VMM finds them (`SHARED_OBJECT_LOOKUP`).
//!
//! The VMM is asked and answers when it likes, or never; meanwhile everything else goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use virtio_device::{Answer, Io, Refused, Request, Ticket, Unanswered, limited};

use crate::guest::Buffer;
use crate::model::Wanted;
use crate::wire::{Refusal, Uuid};

/// Questions that wait for the VMM, at most: twice what a driver may have, for one that gives up and
/// asks anew.
const MOST_ASKED: usize = 512;

/// What the VMM is asked, and what it has answered.
#[derive(Default)]
pub(crate) struct Objects {
    asked: BTreeMap<Ticket, Wanted>,
    found: Vec<(Wanted, Result<Buffer, Refusal>)>,
    /// The VMM finds objects and does not hand them over.
    useless: bool,
}

impl Objects {
    /// Has the VMM look for objects.
    pub(crate) fn seek(&mut self, io: &mut Io, wanted: Vec<Wanted>) {
        for one in wanted {
            if self.useless {
                self.found.push((one, Err(Refusal::InvalidResource)));
                continue;
            }
            if self.asked.len() >= MOST_ASKED {
                self.found.push((one, Err(Refusal::OutOfMemory)));
                continue;
            }
            let ticket = io.ask(Request::LookUp(one.object.0));
            self.asked.insert(ticket, one);
        }
    }

    /// The VMM has answered.
    pub(crate) fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let Some(wanted) = self.asked.remove(&ticket) else {
            return;
        };
        let found = self.judge(wanted.object, answer);
        self.found.push((wanted, found));
    }

    /// What was found since, or was not.
    pub(crate) fn take(&mut self) -> Vec<(Wanted, Result<Buffer, Refusal>)> {
        std::mem::take(&mut self.found)
    }

    /// Nobody waits for any of them any more, and the next VMM may be another one. What it was asked
    /// still counts, or a driver that resets the device could have it asked without end.
    pub(crate) fn forget(&mut self) {
        self.found.clear();
        self.useless = false;
    }

    fn judge(&mut self, object: Uuid, answer: Answer) -> Result<Buffer, Refusal> {
        let unknown = |why: &str| {
            limited!(log::Level::Warn, "object {object} cannot be used: {why}");
            Refusal::InvalidResource
        };
        let mut reply = answer.map_err(|refused| match refused {
            Refused::Unanswered(Unanswered::Crowded) => Refusal::OutOfMemory,
            other => unknown(&other.to_string()),
        })?;
        let fd = match (reply.fds.pop(), reply.fds.pop()) {
            (Some(fd), None) => Arc::into_inner(fd),
            (None, _) => {
                // QEMU 11.1 does so, and keeps a descriptor open for each time it is asked: a guest that
                // went on asking would use up what it has.
                self.useless = true;
                return Err(unknown(
                    "the VMM says that it has it, and sends no descriptor; it is not asked again",
                ));
            }
            (Some(_), Some(_)) => None,
        };
        let fd = fd.ok_or_else(|| unknown("the VMM has sent more than one descriptor"))?;
        Buffer::of_object(fd).map_err(|error| unknown(&error.to_string()))
    }
}
