// SPDX-License-Identifier: Apache-2.0

//! The relay between one connection of a VMM and the services that serve it, one after the other.
//!
//! One request of the VMM is with the service at a time; until it is answered the next one waits in
//! the VMM's socket. Nothing here waits for one peer alone: a peer that is slow, stuck or gone
//! never keeps the other from being heard.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use crate::back_channel::BackChannel;
use crate::channel::{Channel, ChannelError};
use crate::handle::Handle;
use crate::message::Message;
use crate::question::{Question, Unanswered};
use crate::record::{Phase, Record};
use crate::request::{Offer, Refusal};
use crate::service_side::Service;
use crate::settings::Settings;

/// Why [`Relay::run`] returned.
#[derive(Debug)]
pub enum End {
    /// The VMM is gone, or was not to be understood: drop the relay, which hangs up on both.
    VmmGone(VmmFault),
    /// The service hung up. [`Relay::attach`] another connection and run on; the VMM waits.
    ServiceGone(ServiceFault),
    /// The VMM brought a record of an earlier session (`SET_INFLIGHT_FD`). Start the service on it,
    /// then [`Relay::use_record`] and [`Relay::attach`]; or [`Relay::refuse_record`].
    BroughtRecord(Record),
    /// One of the descriptors to watch is readable.
    Watched,
    /// The time given has come.
    Deadline,
    /// [`Handle::shut_down`] was called.
    ShutDown,
}

/// Why a session with a VMM ended.
#[derive(Debug, thiserror::Error)]
pub enum VmmFault {
    /// It closed the connection.
    #[error("the VMM closed the connection")]
    Left,
    /// It broke the protocol, or the connection failed.
    #[error("the VMM's connection: {0}")]
    Channel(#[from] ChannelError),
    /// It sent an answer where it asks.
    #[error("the VMM sent a reply on the channel for requests")]
    Reply,
    /// A request was refused that has no answer for errors.
    #[error("request {code} cannot be answered: {refusal}")]
    Refused {
        /// The request's code.
        code: u32,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a session with a service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceFault {
    /// It closed the connection: it died, or it refused a request.
    #[error("the service closed the connection")]
    Left,
    /// It broke the protocol, or the connection failed.
    #[error("the service's connection: {0}")]
    Channel(#[from] ChannelError),
    /// It said something nobody asked for.
    #[error("the service sent message {code} out of turn")]
    OutOfTurn {
        /// The message's code.
        code: u32,
    },
    /// It cannot take the place of its predecessor, or serve at all.
    #[error("the service does not offer {0}")]
    Unsuitable(&'static str),
}

/// What ends a relay for a reason of this machine.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No descriptors or no memory left.
    #[error("cannot create the relay's eventfd: {0}")]
    Wake(Errno),
    /// Waiting failed.
    #[error("cannot wait for the peers: {0}")]
    Poll(Errno),
}

/// How the record relates to this session of the VMM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Continuity {
    /// The VMM has not said yet; the record may hold an earlier session.
    Undecided,
    /// It begins anew with this session, or did when it was brought.
    Decided,
}

/// The request of the VMM that is not answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) message: Message,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// To be sent to the service, after so many deaths of a service that had it.
    ToSend { deaths: u8 },
    /// With the service.
    Sent { deaths: u8 },
    /// With the owner of the relay: [`End::BroughtRecord`].
    AtOwner,
    /// The owner took the record; answered when the service is there.
    RecordTaken,
}

impl Stage {
    fn note_death(&mut self) {
        if let Self::Sent { deaths } = *self {
            *self = Self::ToSend {
                deaths: deaths.saturating_add(1),
            };
        }
    }
}

/// A message on its way to a service, for tests that end the service there.
#[cfg(feature = "crash-points")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    /// One of a replay (of what the VMM said; not of the relay's own questions).
    Replay,
    /// A request of the VMM.
    Request,
}

/// One session of a VMM.
pub struct Relay {
    pub(crate) vmm: Channel,
    pub(crate) service: Option<Service>,
    pub(crate) record: Option<Arc<Record>>,
    /// Services do not have the record: each is told it.
    pub(crate) brings_record: bool,
    pub(crate) settings: Settings,
    pub(crate) back: BackChannel,
    pub(crate) pending: Option<Pending>,
    pub(crate) continuity: Continuity,
    pub(crate) offer: Offer,
    pub(crate) live_since: Option<Instant>,
    /// Requests refused in this session.
    pub(crate) refused: u64,
    pub(crate) handle: Handle,
    #[cfg(feature = "crash-points")]
    pub(crate) observer: Option<Box<dyn FnMut(Sent) + Send>>,
}

impl Relay {
    /// Begins the session of a VMM that has just connected. With a record, the VMM is offered to
    /// hold it (`INFLIGHT_SHMFD`), and its [`Phase`] is kept.
    ///
    /// # Errors
    /// When no eventfd can be had.
    pub fn new(vmm: UnixStream, record: Option<Arc<Record>>) -> Result<Self, RelayError> {
        Ok(Self {
            vmm: Channel::new(vmm.into()),
            service: None,
            record,
            brings_record: false,
            settings: Settings::default(),
            back: BackChannel::default(),
            pending: None,
            continuity: Continuity::Undecided,
            offer: Offer::default(),
            live_since: None,
            refused: 0,
            handle: Handle::new().map_err(RelayError::Wake)?,
            #[cfg(feature = "crash-points")]
            observer: None,
        })
    }

    /// Gives services the record with `SET_INFLIGHT_FD`, as a VMM would: for those that somebody else
    /// starts. One that does not take it is not served by.
    #[must_use]
    pub fn bringing_record(mut self) -> Self {
        self.brings_record = true;
        self
    }

    /// What other threads may ask of this relay.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Gives the session a service, in place of any earlier one: a connection that speaks
    /// vhost-user as a back end. [`Relay::run`] tells it what the VMM has said so far.
    pub fn attach(&mut self, service: UnixStream) {
        self.detach();
        self.live_since = None;
        self.service = Some(Service::new(service));
    }

    /// Hangs up on the service; the VMM waits for another one.
    pub fn detach(&mut self) {
        if self.service.take().is_some() {
            self.note_service_gone();
        }
    }

    /// Whether a service has been told everything and serves the VMM.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.service.as_ref().is_some_and(Service::is_ready)
    }

    /// Since when the service attached last has served the VMM; still so after it has gone.
    #[must_use]
    pub fn live_since(&self) -> Option<Instant> {
        self.live_since
    }

    /// Whether the VMM waits for the answer to a request.
    #[must_use]
    pub fn is_answer_due(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes up the record that the VMM brought: the service attached next runs on it. The VMM's
    /// request is answered once that service is live.
    pub fn use_record(&mut self, record: Arc<Record>) {
        self.detach();
        record.set_phase(Phase::Replaying);
        self.record = Some(record);
        self.continuity = Continuity::Decided;
        self.settings.record_was_brought();
        if let Some(stage @ Stage::AtOwner) = self.stage_mut() {
            *stage = Stage::RecordTaken;
        }
    }

    /// Answers the VMM that its record cannot be used; everything stays as it was.
    pub fn refuse_record(&mut self) -> Option<End> {
        match self.pending.take() {
            Some(pending) if pending.stage == Stage::AtOwner => {
                self.refuse(&pending.message, Refusal::Record)
            }
            other => {
                self.pending = other;
                None
            }
        }
    }

    /// Is told of every message just sent to a service.
    #[cfg(feature = "crash-points")]
    pub fn set_observer(&mut self, observer: Box<dyn FnMut(Sent) + Send>) {
        self.observer = Some(observer);
    }

    /// Relays until something is for the owner to decide: see [`End`]. Returns too when one of
    /// `watch` is readable or hung up, and at `until`.
    ///
    /// # Errors
    /// When the kernel refuses to wait. What a peer does is never an error.
    pub fn run(
        &mut self,
        watch: &[BorrowedFd<'_>],
        until: Option<Instant>,
    ) -> Result<End, RelayError> {
        if self.handle.is_shut_down() {
            return Ok(End::ShutDown);
        }
        loop {
            if let Some(end) = self.advance() {
                return Ok(end);
            }
            let ready = self.wait(watch, until)?;
            if let Some(end) = self.react(&ready) {
                return Ok(end);
            }
        }
    }

    /// Whether the VMM's next request may be read.
    fn listens(&self) -> bool {
        self.pending.is_none() && self.is_live() && !self.vmm.is_waiting()
    }

    fn wait(&self, watch: &[BorrowedFd<'_>], until: Option<Instant>) -> Result<Ready, RelayError> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.handle.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(
                self.vmm.as_fd(),
                // While nothing is read, the VMM's leaving shows as RDHUP.
                PollFlags::RDHUP | wish(self.listens(), self.vmm.is_waiting()),
            ),
        ];
        let service = self.service.as_ref().map(|service| &service.channel);
        let service_at = push(&mut fds, service, true);
        let back_vmm_at = push(&mut fds, self.back.vmm(), true);
        let back_service_at = push(&mut fds, self.back.service(), self.back.service_may_send());
        let watch_at = fds.len();
        fds.extend(
            watch
                .iter()
                .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)),
        );

        loop {
            let next = until.into_iter().chain(self.back.deadline()).min();
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => break,
                // A signal's handler has run; its owner watches for what it wrote.
                Err(Errno::INTR) => {}
                Err(error) => return Err(RelayError::Poll(error)),
            }
        }
        let seen = |at: Option<usize>| {
            at.and_then(|at| fds.get(at))
                .map_or(PollFlags::empty(), PollFd::revents)
        };
        Ok(Ready {
            wake: !seen(Some(0)).is_empty(),
            vmm: seen(Some(1)),
            service: !seen(service_at).is_empty(),
            back_vmm: !seen(back_vmm_at).is_empty(),
            back_service: !seen(back_service_at).is_empty(),
            watched: fds.iter().skip(watch_at).any(|fd| !fd.revents().is_empty()),
            late: until.is_some_and(|until| until <= Instant::now()),
        })
    }

    fn react(&mut self, ready: &Ready) -> Option<End> {
        if ready.wake {
            let wanted = self.handle.take();
            if wanted.shut_down {
                return Some(End::ShutDown);
            }
            if wanted.config_changed && self.tells_config_changes() {
                self.back.config_changed();
            }
            for question in self.handle.questions() {
                self.consider_question(question);
            }
        }
        self.back.flush();
        self.back.give_up(Instant::now());
        if ready.back_service {
            self.back.service_readable();
        }
        if ready.back_vmm {
            self.back.vmm_readable();
        }
        let mut end = None;
        if ready.service {
            end = self.service_readable();
        }
        if end.is_none() && !ready.vmm.is_empty() {
            end = self.vmm_ready(ready.vmm);
        }
        end.or(ready.watched.then_some(End::Watched))
            .or(ready.late.then_some(End::Deadline))
    }

    fn consider_question(&mut self, question: Question) {
        let negotiated = |feature: Protocol| self.settings.has_protocol_feature(feature.bits());
        if negotiated(Protocol::REPLY_ACK) && question.feature().is_none_or(negotiated) {
            self.back.ask(question);
        } else {
            question.answer(Err(Unanswered::NotNegotiated));
        }
    }

    fn vmm_ready(&mut self, events: PollFlags) -> Option<End> {
        if let Err(error) = self.vmm.flush() {
            return Some(End::VmmGone(error.into()));
        }
        if self.listens() {
            return self.vmm_readable();
        }
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        events
            .intersects(gone)
            .then_some(End::VmmGone(VmmFault::Left))
    }

    /// Puts everything in the state "no service": what it had is told to the next one.
    pub(crate) fn note_service_gone(&mut self) {
        self.back.service_gone();
        self.settings.service_gone();
        if self.settings.any_ring_started() {
            self.set_phase(Phase::Replaying);
        }
        if let Some(stage) = self.stage_mut() {
            stage.note_death();
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        if let Some(record) = &self.record {
            record.set_phase(phase);
        }
    }

    fn stage_mut(&mut self) -> Option<&mut Stage> {
        self.pending.as_mut().map(|pending| &mut pending.stage)
    }
}

/// What the last wait found.
struct Ready {
    wake: bool,
    vmm: PollFlags,
    service: bool,
    back_vmm: bool,
    back_service: bool,
    watched: bool,
    late: bool,
}

fn wish(reads: bool, writes: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, reads);
    flags.set(PollFlags::OUT, writes);
    flags
}

fn push<'a>(fds: &mut Vec<PollFd<'a>>, channel: Option<&'a Channel>, reads: bool) -> Option<usize> {
    let channel = channel?;
    let at = fds.len();
    fds.push(PollFd::from_borrowed_fd(
        channel.as_fd(),
        wish(reads, channel.is_waiting()),
    ));
    Some(at)
}
