// SPDX-License-Identifier: Apache-2.0

//! The relay as the front end of a service: questions, replay, then the VMM's requests, each with
//! `NEED_REPLY`, so that it is known what the service has done.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use vhost::vhost_user::message::{
    FrontendReq, VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures,
};

use crate::channel::{Channel, Received};
use crate::limited;
use crate::message::Message;
use crate::record::{INFLIGHT_OFFSET, INFLIGHT_SIZE, Phase};
use crate::relay::{End, Pending, Relay, ServiceFault, Stage};
use crate::replay::replay;
use crate::request::{Answer, Refusal, answer};
use crate::settings::{MAX_RINGS, ring_of};

/// Protocol features whose messages the relay passes on; others are hidden from the VMM.
const PASSED: Protocol = Protocol::MQ
    .union(Protocol::LOG_SHMFD)
    .union(Protocol::REPLY_ACK)
    .union(Protocol::BACKEND_REQ)
    .union(Protocol::CONFIG)
    .union(Protocol::BACKEND_SEND_FD)
    .union(Protocol::RESET_DEVICE)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::XEN_MMAP)
    .union(Protocol::SHARED_OBJECT)
    .union(Protocol::DEVICE_STATE)
    .union(Protocol::SHMEM);

/// Services that may die of one request before it is refused.
const DEATHS: u8 = 2;

/// A connection to a service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) channel: Channel,
    script: VecDeque<Step>,
    turn: Turn,
}

/// What the service is expected to answer.
#[derive(Debug)]
enum Turn {
    /// Nothing; the script goes on.
    Script,
    /// A step of the script.
    Step(Step),
    /// The script is done; requests of the VMM may be sent.
    Ready,
    /// A request of the VMM.
    Request,
}

/// What every service is asked and told before it hears from the VMM.
#[derive(Debug)]
enum Step {
    Features,
    ProtocolFeatures,
    Rings,
    /// One of the relay's own settings.
    Own(Message),
    /// The record, for a service that was not started on it.
    Record(Message),
    /// The service's end of the back-end channel; made when it is sent.
    BackChannel,
    /// What the VMM had said.
    Setting(Message),
}

impl Service {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            channel: Channel::new(stream.into()),
            script: VecDeque::from([Step::Features, Step::ProtocolFeatures]),
            turn: Turn::Script,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.turn, Turn::Ready | Turn::Request)
    }
}

impl Relay {
    /// Sends the service what comes next, if it is the service's turn to listen.
    pub(crate) fn advance(&mut self) -> Option<End> {
        loop {
            let service = self.service.as_mut()?;
            match service.turn {
                Turn::Script => {
                    let step = service.script.pop_front();
                    let sent = match step {
                        Some(step) => self.send_step(step),
                        None => self.become_live(),
                    };
                    if let Err(fault) = sent {
                        return Some(self.lose_service(fault));
                    }
                }
                Turn::Ready => {
                    if let Some(end) = self.send_pending()? {
                        return Some(end);
                    }
                }
                Turn::Step(_) | Turn::Request => return None,
            }
        }
    }

    fn send_step(&mut self, step: Step) -> Result<(), ServiceFault> {
        let message = match &step {
            Step::Features => Message::request(FrontendReq::GET_FEATURES, Vec::new()),
            Step::ProtocolFeatures => {
                Message::request(FrontendReq::GET_PROTOCOL_FEATURES, Vec::new())
            }
            Step::Rings => Message::request(FrontendReq::GET_QUEUE_NUM, Vec::new()),
            Step::BackChannel => self
                .back
                .offer_to_service()
                .map_err(|error| ServiceFault::Channel(error.into()))?
                .with_need_reply(true),
            Step::Own(message) | Step::Record(message) | Step::Setting(message) => {
                message.clone().with_need_reply(true)
            }
        };
        #[cfg(feature = "crash-points")]
        let replayed = matches!(step, Step::BackChannel | Step::Setting(_));
        if let Some(service) = &mut self.service {
            service.turn = Turn::Step(step);
            service.channel.send(&message)?;
        }
        #[cfg(feature = "crash-points")]
        if let Some(observer) = self.observer.as_mut().filter(|_| replayed) {
            observer(crate::Sent::Replay);
        }
        Ok(())
    }

    /// Everything has been said again.
    fn become_live(&mut self) -> Result<(), ServiceFault> {
        self.settings.note_all_recovered();
        self.set_phase(Phase::Live);
        self.live_since = Some(Instant::now());
        if let Some(service) = &mut self.service {
            service.turn = Turn::Ready;
        }
        Ok(())
    }

    /// Sends the VMM's request if one is to be sent: `None` when there is nothing to do.
    #[expect(
        clippy::option_option,
        reason = "nothing done, done, or done and at an end"
    )]
    fn send_pending(&mut self) -> Option<Option<End>> {
        let pending = self.pending.as_mut()?;
        let deaths = match pending.stage {
            Stage::ToSend { deaths } => deaths,
            Stage::Sent { .. } | Stage::AtOwner => return None,
            Stage::RecordTaken => {
                let message = self.pending.take()?.message;
                self.settings.apply(&message);
                return Some(self.acknowledge(&message, true));
            }
        };
        if deaths >= DEATHS {
            let message = self.pending.take()?.message;
            return Some(self.refuse(&message, Refusal::Deadly));
        }
        pending.stage = Stage::Sent { deaths };
        let message = pending.message.clone();
        let sent = self.send_request(&message);
        Some(sent.err().map(|fault| self.lose_service(fault)))
    }

    fn send_request(&mut self, message: &Message) -> Result<(), ServiceFault> {
        // A ring that ran before is about to start: the service has to look into the record.
        if ring_of(message).is_some_and(|index| self.settings.is_recovering(index)) {
            self.set_phase(Phase::Replaying);
        }
        let message = match message.frontend_request() {
            Some(FrontendReq::SET_PROTOCOL_FEATURES) => Message::request_u64(
                FrontendReq::SET_PROTOCOL_FEATURES,
                self.for_service(message.u64_at(0).unwrap_or(0)),
            ),
            Some(FrontendReq::SET_BACKEND_REQ_FD) => self
                .back
                .offer_to_service()
                .map_err(|error| ServiceFault::Channel(error.into()))?,
            _ => message.clone(),
        };
        let needs_reply = answer(&message) == Answer::Acknowledgement;
        if let Some(service) = &mut self.service {
            service.turn = Turn::Request;
            service
                .channel
                .send(&message.with_need_reply(needs_reply))?;
        }
        #[cfg(feature = "crash-points")]
        if let Some(observer) = &mut self.observer {
            observer(crate::Sent::Request);
        }
        Ok(())
    }

    /// Hears what the service says.
    pub(crate) fn service_readable(&mut self) -> Option<End> {
        let service = self.service.as_mut()?;
        let received = match service.channel.flush() {
            Ok(()) => service.channel.receive(),
            Err(error) => Err(error),
        };
        let fault = match received {
            Ok(Received::Nothing) => return None,
            Ok(Received::Message(reply)) => match self.hear(reply) {
                Ok(end) => return end,
                Err(fault) => fault,
            },
            Ok(Received::Closed) => ServiceFault::Left,
            Err(error) => ServiceFault::Channel(error),
        };
        Some(self.lose_service(fault))
    }

    fn hear(&mut self, reply: Message) -> Result<Option<End>, ServiceFault> {
        let out_of_turn = ServiceFault::OutOfTurn { code: reply.code() };
        let Some(service) = &mut self.service else {
            return Err(out_of_turn);
        };
        if !reply.is_reply() {
            return Err(out_of_turn);
        }
        match std::mem::replace(&mut service.turn, Turn::Script) {
            Turn::Step(step) if reply.code() == step.code() => {
                self.hear_step(step, &reply)?;
                Ok(None)
            }
            Turn::Request => {
                service.turn = Turn::Ready;
                match self.pending.take() {
                    Some(pending) if pending.message.code() == reply.code() => {
                        Ok(self.hear_answer(&pending, reply))
                    }
                    other => {
                        self.pending = other;
                        Err(out_of_turn)
                    }
                }
            }
            Turn::Step(_) | Turn::Script | Turn::Ready => Err(out_of_turn),
        }
    }

    fn hear_step(&mut self, step: Step, reply: &Message) -> Result<(), ServiceFault> {
        let value = reply
            .u64_at(0)
            .ok_or(ServiceFault::OutOfTurn { code: reply.code() })?;
        match step {
            Step::Features => {
                if value & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
                    return Err(ServiceFault::Unsuitable("protocol features"));
                }
                if self.settings.features.unwrap_or(0) & !value != 0 {
                    return Err(ServiceFault::Unsuitable("a feature that the guest uses"));
                }
                self.offer.features = value;
            }
            Step::ProtocolFeatures => self.hear_protocol_features(value)?,
            Step::Rings => self.offer.rings = u32::try_from(value).unwrap_or(MAX_RINGS),
            Step::Own(message) if value != 0 => {
                limited!(
                    log::Level::Warn,
                    "the service refuses request {} of the relay",
                    message.code()
                );
            }
            // Without it, what is in flight would be lost at the next death.
            Step::Record(_) if value != 0 => return Err(ServiceFault::Unsuitable("the record")),
            Step::Setting(message) if value != 0 => {
                limited!(
                    log::Level::Warn,
                    "the service refuses what its predecessor took: request {}; the device goes on without",
                    message.code()
                );
                self.settings.forget(&message);
            }
            Step::BackChannel | Step::Own(_) | Step::Record(_) | Step::Setting(_) => {}
        }
        Ok(())
    }

    /// The message that gives a service the record, if it is to be told.
    fn record_to_bring(&self) -> Result<Option<Message>, ServiceFault> {
        let Some(record) = self.record.as_ref().filter(|_| self.brings_record) else {
            return Ok(None);
        };
        let fd = record.file().try_clone();
        let fd = fd.map_err(|error| {
            ServiceFault::Channel(Errno::from_io_error(&error).unwrap_or(Errno::BADF).into())
        })?;
        let mut payload = INFLIGHT_SIZE.to_ne_bytes().to_vec();
        payload.extend_from_slice(&INFLIGHT_OFFSET.to_ne_bytes());
        // Queues and their size: the record has room for all.
        payload.extend_from_slice(&[0; 4]);
        let message = Message::request(FrontendReq::SET_INFLIGHT_FD, payload);
        Ok(Some(message.with_fds(vec![Arc::new(fd.into())])))
    }

    /// The protocol features to negotiate with a service for those that the VMM negotiated.
    fn for_service(&self, features: u64) -> u64 {
        let record = Protocol::INFLIGHT_SHMFD.bits();
        let told = if self.brings_record { record } else { 0 };
        features & !record | told | Protocol::REPLY_ACK.bits()
    }

    /// Knowing what the service can do, writes the rest of the script.
    fn hear_protocol_features(&mut self, offered: u64) -> Result<(), ServiceFault> {
        if offered & Protocol::REPLY_ACK.bits() == 0 {
            return Err(ServiceFault::Unsuitable("REPLY_ACK"));
        }
        let mut for_vmm = offered & PASSED.bits() | Protocol::BACKEND_REQ.bits();
        if self.record.is_some() {
            for_vmm |= Protocol::INFLIGHT_SHMFD.bits();
        }
        if self.settings.protocol_features.unwrap_or(0) & !for_vmm != 0 {
            return Err(ServiceFault::Unsuitable(
                "a protocol feature that the VMM uses",
            ));
        }
        self.offer.protocol_features = for_vmm;

        let mq = offered & Protocol::MQ.bits();
        let record = self.record_to_bring()?;
        if record.is_some() && offered & Protocol::INFLIGHT_SHMFD.bits() == 0 {
            return Err(ServiceFault::Unsuitable("INFLIGHT_SHMFD"));
        }
        let negotiated = self.for_service(self.settings.protocol_features.unwrap_or(mq));
        let mut script = vec![Step::Own(Message::request_u64(
            FrontendReq::SET_PROTOCOL_FEATURES,
            negotiated,
        ))];
        if negotiated & Protocol::MQ.bits() != 0 {
            script.push(Step::Rings);
        } else if mq == 0 {
            self.offer.rings = MAX_RINGS;
        }
        script.extend(record.map(Step::Record));
        if self.settings.owned {
            script.push(Step::Setting(Message::request(
                FrontendReq::SET_OWNER,
                Vec::new(),
            )));
        }
        let replay = replay(&self.settings);
        script.extend(replay.device.into_iter().map(Step::Setting));
        if self.back.has_vmm() {
            script.push(Step::BackChannel);
        }
        script.extend(replay.rings.into_iter().map(Step::Setting));
        if let Some(service) = &mut self.service {
            service.script.extend(script);
        }
        Ok(())
    }

    /// The service has answered a request of the VMM.
    fn hear_answer(&mut self, pending: &Pending, reply: Message) -> Option<End> {
        let request = &pending.message;
        let done = match answer(request) {
            Answer::Acknowledgement => reply.u64_at(0) == Some(0),
            Answer::Reply => true,
        };
        if done {
            self.settings.apply(request);
            self.handle
                .note_protocol(self.settings.protocol_features.unwrap_or(0));
            self.back.set_vmm_answers(
                self.settings
                    .has_protocol_feature(Protocol::REPLY_ACK.bits()),
            );
        }
        if let Some(index) = ring_of(request) {
            self.settings.note_recovered(index);
            self.set_phase(Phase::Live);
        }
        match answer(request) {
            Answer::Acknowledgement => self.acknowledge(request, done),
            Answer::Reply => self.send_vmm(&reply),
        }
    }

    pub(crate) fn lose_service(&mut self, fault: ServiceFault) -> End {
        self.detach();
        End::ServiceGone(fault)
    }
}

impl Step {
    fn code(&self) -> u32 {
        match self {
            Self::Features => FrontendReq::GET_FEATURES.into(),
            Self::ProtocolFeatures => FrontendReq::GET_PROTOCOL_FEATURES.into(),
            Self::Rings => FrontendReq::GET_QUEUE_NUM.into(),
            Self::BackChannel => FrontendReq::SET_BACKEND_REQ_FD.into(),
            Self::Own(message) | Self::Record(message) | Self::Setting(message) => message.code(),
        }
    }
}
