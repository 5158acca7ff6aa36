// SPDX-License-Identifier: Apache-2.0

//! What a device asks its VMM for, on vhost-user's back-end channel.
//!
//! Nothing here waits: [`Io::ask`](crate::Io::ask) returns at once, and the answer comes to
//! [`Handler::answered`](crate::Handler::answered). A VMM has one thread for its devices, and may be
//! waiting for this very queue thread while it is asked (to stop a ring, for instance): a queue thread
//! that waited for the VMM would stand still with it.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agl_virtio_relay::message::Message;
use agl_virtio_relay::{Handle, Question, Unanswered};
use vhost::vhost_user::message::{BackendReq, VhostUserProtocolFeatures as Protocol};

use crate::waker::Waker;

/// A run of one of the device's shared memory regions. The VMM maps whole pages of its host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The region's id (`shmid`): the index in [`Device::shared_memory`](crate::Device::shared_memory).
    pub region: u8,
    /// Bytes from the region's beginning.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Something that only the VMM can do.
#[derive(Debug)]
pub enum Request {
    /// Show a file to the guest (`SHMEM_MAP`). The VMM refuses a place where something is mapped.
    Map {
        /// Where.
        place: Place,
        /// Of which file, usually a memfd. The VMM keeps it open as long as it is mapped.
        file: Arc<OwnedFd>,
        /// Which part of the file begins there, in bytes.
        file_offset: u64,
        /// Whether the guest may write too.
        writable: bool,
    },
    /// Take back a mapping, whole (`SHMEM_UNMAP`). A reset of the device takes back all of them
    /// without a word.
    Unmap(Place),
    /// Find the object of this UUID, which another device has exported (`SHARED_OBJECT_LOOKUP`): a
    /// descriptor comes with the answer, for [`Object`](crate::Object). Of a device that names
    /// [`Device::features_of_shared_objects`](crate::Device::features_of_shared_objects) only.
    LookUp([u8; 16]),
}

/// Which request an answer is for. Never used twice by a process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(u64);

/// What came with the answer to a request that was done.
#[derive(Debug, Default)]
pub struct Reply {
    /// The descriptors.
    pub fds: Vec<Arc<OwnedFd>>,
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The VMM was asked and said no, with this number.
    #[error("the VMM refuses it ({0:#x})")]
    ByVmm(u64),
    /// The VMM was not asked, or has not answered.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

/// The answer to a request. After [`Unanswered::Late`] there is a second one: what the VMM has said after
/// all, or [`Unanswered::Gone`] once it will not.
pub type Answer = Result<Reply, Refused>;

/// The relay of the present session, by which its VMM is asked. Clones share it.
#[derive(Clone)]
pub(crate) struct Vmm {
    current: Arc<Mutex<Option<Handle>>>,
    patience: Duration,
}

impl Vmm {
    /// No session yet. Each question of one is given up after `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            current: Arc::default(),
            patience,
        }
    }

    /// Says which session is there.
    pub(crate) fn set(&self, relay: Option<Handle>) {
        if let Ok(mut current) = self.current.lock() {
            *current = relay;
        }
    }

    /// Whether it maps what it is asked to.
    pub(crate) fn maps(&self) -> bool {
        let relay = self.relay();
        relay.is_some_and(|relay| relay.negotiated(Protocol::SHMEM | Protocol::REPLY_ACK))
    }

    /// The present session's relay.
    pub(crate) fn relay(&self) -> Option<Handle> {
        self.current.lock().ok().and_then(|relay| relay.clone())
    }
}

/// The asking end of a queue thread: numbers its requests and leads the answers back.
pub(crate) struct Asking {
    pub(crate) vmm: Vmm,
    pub(crate) answers: Sender<(Ticket, Answer)>,
    pub(crate) waker: Waker,
    pub(crate) next: u64,
}

impl Asking {
    pub(crate) fn ask(&mut self, request: Request) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        let (answers, waker) = (self.answers.clone(), self.waker.clone());
        let question = Question::new(message(request), self.vmm.patience, move |answer| {
            // The queue thread may have ended; then nobody wants to know.
            let _ = answers.send((ticket, judge(answer)));
            waker.wake();
        });
        match self.vmm.relay() {
            Some(relay) => relay.ask(question),
            // The question says so itself.
            None => drop(question),
        }
        ticket
    }
}

/// The request on the wire (vhost-user, "struct VhostUserMMap").
fn message(request: Request) -> Message {
    let mapping = |place: Place, file_offset: u64, flags: u64| {
        let words = [
            u64::from_ne_bytes([place.region, 0, 0, 0, 0, 0, 0, 0]),
            file_offset,
            place.offset,
            place.len,
            flags,
        ];
        words.into_iter().flat_map(u64::to_ne_bytes).collect()
    };
    match request {
        Request::Map {
            place,
            file,
            file_offset,
            writable,
        } => Message::to_vmm(
            BackendReq::SHMEM_MAP,
            mapping(place, file_offset, writable.into()),
        )
        .with_fds(vec![file]),
        Request::Unmap(place) => Message::to_vmm(BackendReq::SHMEM_UNMAP, mapping(place, 0, 0)),
        Request::LookUp(uuid) => Message::to_vmm(BackendReq::SHARED_OBJECT_LOOKUP, uuid.to_vec()),
    }
}

fn judge(answer: Result<Message, Unanswered>) -> Answer {
    let message = answer?;
    match message.u64_at(0) {
        Some(0) => Ok(Reply { fds: message.fds }),
        refused => Err(Refused::ByVmm(refused.unwrap_or(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_lies_on_the_wire_as_vhost_user_has_it() {
        let place = Place {
            region: 3,
            offset: 0x1_0000_2000,
            len: 0x5000,
        };
        let unmap = message(Request::Unmap(place));
        assert_eq!(unmap.payload.len(), 40);
        assert_eq!(unmap.payload.first(), Some(&3));
        let words = [8, 16, 24, 32].map(|at| unmap.u64_at(at));
        assert_eq!(words, [Some(0), Some(0x1_0000_2000), Some(0x5000), Some(0)]);
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let map = message(Request::Map {
            place,
            file: Arc::new(file),
            file_offset: 0x3000,
            writable: true,
        });
        assert_eq!((map.u64_at(8), map.u64_at(32)), (Some(0x3000), Some(1)));
        assert_eq!(map.fds.len(), 1);
    }

    #[test]
    fn an_answer_that_is_cut_short_is_a_refusal() {
        let short = Message::reply(BackendReq::SHMEM_MAP.into(), vec![0; 4]);
        assert!(matches!(judge(Ok(short)), Err(Refused::ByVmm(u64::MAX))));
    }
}
