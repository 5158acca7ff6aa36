// SPDX-License-Identifier: Apache-2.0

//! What a device asks its VMM on the back-end channel, without ever waiting for it.

use std::fmt;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{BackendReq, VhostUserProtocolFeatures as Protocol};

use crate::message::Message;

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unanswered {
    /// The VMM did not negotiate the protocol feature of this request, or does not answer at all
    /// (`REPLY_ACK`). It was not asked.
    #[error("the VMM has not negotiated this request")]
    NotNegotiated,
    /// There is no VMM, it has closed the channel, or left.
    #[error("the VMM is gone")]
    Gone,
    /// Too many questions wait. It was not asked.
    #[error("too many requests wait for the VMM")]
    Crowded,
    /// It was asked and has not answered in the time that it had. It may still do what it was asked for:
    /// a second answer says what became of it.
    #[error("the VMM has not answered in time")]
    Late,
}

type Take = Box<dyn Fn(Result<Message, Unanswered>) + Send>;

/// Where the answer goes, from the thread of the relay or the one that asks: once, and once more after
/// [`Unanswered::Late`].
struct Answer(Option<Take>);

impl Answer {
    fn give(mut self, answer: Result<Message, Unanswered>) {
        if let Some(take) = self.0.take() {
            take(answer);
        }
    }

    fn give_up(&self) {
        if let Some(take) = &self.0 {
            take(Err(Unanswered::Late));
        }
    }
}

impl Drop for Answer {
    /// Nobody is left who could answer.
    fn drop(&mut self) {
        if let Some(take) = self.0.take() {
            take(Err(Unanswered::Gone));
        }
    }
}

/// A request to the VMM and what is done with the answer.
pub struct Question {
    /// What is sent, with `NEED_REPLY`.
    pub(crate) message: Message,
    answer: Answer,
    /// When it is given up, unless it was.
    until: Option<Instant>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("code", &self.message.code())
            .finish_non_exhaustive()
    }
}

impl Question {
    /// A question whose answer (payload and descriptors) goes to `answer`, whatever happens, and from
    /// another thread, which must not be kept waiting. It is given up after `patience`: then `answer`
    /// hears so ([`Unanswered::Late`]), and once more when the answer comes or will not come any more.
    #[must_use]
    pub fn new(
        message: Message,
        patience: Duration,
        answer: impl Fn(Result<Message, Unanswered>) + Send + 'static,
    ) -> Self {
        let now = Instant::now();
        Self {
            message: message.with_need_reply(true),
            answer: Answer(Some(Box::new(answer))),
            until: Some(now.checked_add(patience).unwrap_or(now)),
        }
    }

    /// When it is given up, unless it was.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether its time has come.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Says that its time has come. What is answered after all is still told.
    pub(crate) fn give_up(&mut self) {
        self.until = None;
        self.answer.give_up();
    }

    /// Answers it.
    pub(crate) fn answer(self, answer: Result<Message, Unanswered>) {
        self.answer.give(answer);
    }

    /// The protocol feature that the VMM must have negotiated before it may be asked this.
    pub(crate) fn feature(&self) -> Option<Protocol> {
        let code = self.message.code();
        let is = |request: BackendReq| code == u32::from(request);
        if is(BackendReq::SHMEM_MAP) || is(BackendReq::SHMEM_UNMAP) {
            Some(Protocol::SHMEM)
        } else if is(BackendReq::SHARED_OBJECT_ADD)
            || is(BackendReq::SHARED_OBJECT_REMOVE)
            || is(BackendReq::SHARED_OBJECT_LOOKUP)
        {
            Some(Protocol::SHARED_OBJECT)
        } else {
            None
        }
    }
}
