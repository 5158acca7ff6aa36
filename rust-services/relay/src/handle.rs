// SPDX-License-Identifier: Apache-2.0

//! What other threads may ask of a running relay.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use crate::question::{Question, Unanswered};

/// Questions that wait for the relay's thread, at most.
const MAX_QUESTIONS: usize = 1024;

const CONFIG_CHANGED: u8 = 1;
const SHUT_DOWN: u8 = 2;

/// Wakes a relay up from any thread; never waits. Any number of clones.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Wish>);

#[derive(Debug)]
struct Wish {
    wake: OwnedFd,
    wanted: AtomicU8,
    questions: Mutex<VecDeque<Question>>,
    /// The protocol features that the VMM has negotiated.
    protocol: AtomicU64,
}

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) config_changed: bool,
    pub(crate) shut_down: bool,
}

impl Handle {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self(Arc::new(Wish {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            wanted: AtomicU8::new(0),
            questions: Mutex::default(),
            protocol: AtomicU64::new(0),
        })))
    }

    /// Tells the VMM that the configuration space has changed (`CONFIG_CHANGE_MSG`). Calls that
    /// come faster than the relay sends become one message; without a back-end channel, or when
    /// `CONFIG` was not negotiated, there is nobody to tell.
    pub fn config_changed(&self) {
        self.want(CONFIG_CHANGED);
    }

    /// Ends [`Relay::run`](crate::Relay::run) with [`End::ShutDown`](crate::End::ShutDown), now and
    /// at every later call.
    pub fn shut_down(&self) {
        self.want(SHUT_DOWN);
    }

    /// Asks the VMM on the back-end channel. Never waits: the answer comes to the question, at once
    /// where there is nobody to ask. Questions are asked in the order in which they come here.
    pub fn ask(&self, question: Question) {
        match self.0.questions.lock() {
            Ok(mut questions) if questions.len() < MAX_QUESTIONS => questions.push_back(question),
            // Outside of the lock: the answer may ask again.
            _ => return question.answer(Err(Unanswered::Crowded)),
        }
        self.wake();
    }

    /// Whether the VMM has negotiated all these protocol features.
    #[must_use]
    pub fn negotiated(&self, features: VhostUserProtocolFeatures) -> bool {
        let negotiated = self.0.protocol.load(Ordering::Acquire);
        negotiated & features.bits() == features.bits()
    }

    pub(crate) fn note_protocol(&self, features: u64) {
        self.0.protocol.store(features, Ordering::Release);
    }

    /// The questions that have come since.
    pub(crate) fn questions(&self) -> VecDeque<Question> {
        let questions = self.0.questions.lock();
        questions.map_or_else(
            |_| VecDeque::new(),
            |mut questions| std::mem::take(&mut *questions),
        )
    }

    fn want(&self, bit: u8) {
        self.0.wanted.fetch_or(bit, Ordering::AcqRel);
        self.wake();
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then the relay is awake.
        let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn take(&self) -> Wanted {
        let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
        let wanted = self.0.wanted.fetch_and(!CONFIG_CHANGED, Ordering::AcqRel);
        Wanted {
            config_changed: wanted & CONFIG_CHANGED != 0,
            shut_down: wanted & SHUT_DOWN != 0,
        }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.0.wanted.load(Ordering::Acquire) & SHUT_DOWN != 0
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}
