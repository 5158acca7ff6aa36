// SPDX-License-Identifier: Apache-2.0

//! The channel on which a back end asks its VMM (`SET_BACKEND_REQ_FD`): the service's end is a
//! socket of the relay, so that the VMM's one outlives the service. A relay inside of a service also
//! asks for the device itself ([`Question`]).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vhost::vhost_user::message::{BackendReq, FrontendReq};

use crate::channel::{Channel, ChannelError, Received};
use crate::limited;
use crate::message::Message;
use crate::question::{Question, Unanswered};

/// Requests of services that the VMM has yet to answer, at most. No more are read beyond.
const MAX_UNANSWERED: usize = 64;

/// Who waits for an answer of the VMM.
#[derive(Debug)]
enum Asker {
    /// The service of this number.
    Service(u64),
    /// The device, by this relay.
    Device(Question),
}

/// Both ends of the channel, each there or not.
#[derive(Debug, Default)]
pub(crate) struct BackChannel {
    vmm: Option<Channel>,
    service: Option<Channel>,
    /// Whom each answer of the VMM is for, in the order of the requests.
    unanswered: VecDeque<Asker>,
    /// Questions of the device that are not asked yet.
    waiting: VecDeque<Question>,
    /// Number of the present service.
    service_number: u64,
    /// Whether the VMM answers requests (`REPLY_ACK`).
    vmm_answers: bool,
}

impl BackChannel {
    /// The VMM has given its end, in place of an earlier one.
    pub(crate) fn set_vmm(&mut self, socket: OwnedFd) {
        self.forget_questions();
        self.vmm = Some(Channel::new(socket));
    }

    /// Says whether the VMM answers requests; from the protocol features that it negotiated.
    pub(crate) fn set_vmm_answers(&mut self, answers: bool) {
        self.vmm_answers = answers;
    }

    pub(crate) fn has_vmm(&self) -> bool {
        self.vmm.is_some()
    }

    /// Makes a new pair and the request that gives the service its end.
    pub(crate) fn offer_to_service(&mut self) -> Result<Message, Errno> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        self.service = Some(Channel::new(ours));
        Ok(
            Message::request(FrontendReq::SET_BACKEND_REQ_FD, Vec::new())
                .with_fds(vec![Arc::new(theirs)]),
        )
    }

    /// The service is gone: answers still to come from the VMM are for nobody.
    pub(crate) fn service_gone(&mut self) {
        self.service = None;
        self.service_number = self.service_number.wrapping_add(1);
    }

    /// Tells the VMM that the configuration space has changed. One that waits unread says it all.
    pub(crate) fn config_changed(&mut self) {
        let code = BackendReq::CONFIG_CHANGE_MSG.into();
        if let Some(vmm) = self.vmm.as_mut().filter(|vmm| !vmm.has_waiting(code)) {
            let sent = vmm.send(&Message::with_code(code, Vec::new()));
            self.keep_vmm(sent);
        }
    }

    /// The VMM's end, to wait for; and whether to wait for room to write.
    pub(crate) fn vmm(&self) -> Option<&Channel> {
        self.vmm.as_ref()
    }

    /// The service's end, to wait for.
    pub(crate) fn service(&self) -> Option<&Channel> {
        self.service.as_ref()
    }

    /// Asks the VMM for the device, as soon as there is room.
    pub(crate) fn ask(&mut self, question: Question) {
        self.waiting.push_back(question);
        self.ask_waiting();
    }

    fn ask_waiting(&mut self) {
        while self.service_may_send() {
            let Some(question) = self.waiting.pop_front() else {
                return;
            };
            let Some(vmm) = &mut self.vmm else {
                question.answer(Err(Unanswered::Gone));
                continue;
            };
            let sent = vmm.send(&question.message);
            self.unanswered.push_back(Asker::Device(question));
            self.keep_vmm(sent);
        }
    }

    /// When the first question is to be given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let asked = self.unanswered.iter().filter_map(|asker| match asker {
            Asker::Device(question) => Some(question),
            Asker::Service(_) => None,
        });
        asked.chain(&self.waiting).filter_map(Question::until).min()
    }

    /// Gives up the questions whose time has come. Their answers may still come.
    pub(crate) fn give_up(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        for asker in &mut self.unanswered {
            match asker {
                Asker::Device(question) if question.is_over(now) => question.give_up(),
                _ => {}
            }
        }
        // What was not sent yet will not be done either.
        while self
            .waiting
            .front()
            .is_some_and(|question| question.is_over(now))
        {
            if let Some(question) = self.waiting.pop_front() {
                question.answer(Err(Unanswered::Crowded));
            }
        }
    }

    /// Whether the service may send more: the VMM reads what it gets and answers it.
    pub(crate) fn service_may_send(&self) -> bool {
        self.unanswered.len() < MAX_UNANSWERED
            && !self.vmm.as_ref().is_some_and(Channel::is_waiting)
    }

    /// Writes what had to wait.
    pub(crate) fn flush(&mut self) {
        let flushed = self.vmm.as_mut().map_or(Ok(()), Channel::flush);
        self.keep_vmm(flushed);
        let flushed = self.service.as_mut().map_or(Ok(()), Channel::flush);
        self.keep_service(flushed);
        self.ask_waiting();
    }

    /// Passes the service's requests on, as long as there is room.
    pub(crate) fn service_readable(&mut self) {
        while self.service_may_send() {
            let Some(service) = &mut self.service else {
                return;
            };
            match service.receive() {
                Ok(Received::Message(message)) => self.pass_to_vmm(message),
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => self.service = None,
                Err(error) => self.keep_service(Err(error)),
            }
        }
    }

    fn pass_to_vmm(&mut self, message: Message) {
        if message.is_reply() {
            limited!(
                log::Level::Warn,
                "the service answered on the back-end channel, where it asks"
            );
            return;
        }
        let code = message.code();
        let wants_answer = message.needs_reply();
        let answered_by_vmm = wants_answer && self.vmm_answers && self.vmm.is_some();
        let reached = match &mut self.vmm {
            Some(vmm) => {
                let sent = vmm.send(&message.with_need_reply(answered_by_vmm));
                let reached = sent.is_ok();
                self.keep_vmm(sent);
                reached
            }
            None => false,
        };
        if reached && answered_by_vmm {
            self.unanswered
                .push_back(Asker::Service(self.service_number));
        } else if wants_answer {
            self.answer_service(&Message::reply_u64(code, u64::from(!reached)));
        }
    }

    /// Passes the VMM's answers on, each to the service that asked, if it still lives.
    pub(crate) fn vmm_readable(&mut self) {
        while let Some(vmm) = &mut self.vmm {
            match vmm.receive() {
                Ok(Received::Message(message)) => self.pass_on(message),
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => self.drop_vmm(),
                Err(error) => self.keep_vmm(Err(error)),
            }
        }
    }

    fn pass_on(&mut self, message: Message) {
        if !message.is_reply() {
            limited!(
                log::Level::Warn,
                "the VMM asked on the back-end channel, where it answers"
            );
            return;
        }
        match self.unanswered.pop_front() {
            Some(Asker::Service(number)) if number == self.service_number => {
                self.answer_service(&message);
            }
            Some(Asker::Device(question)) => question.answer(Ok(message)),
            Some(Asker::Service(_)) | None => {}
        }
        self.ask_waiting();
    }

    fn answer_service(&mut self, message: &Message) {
        if let Some(service) = &mut self.service {
            let sent = service.send(message);
            self.keep_service(sent);
        }
    }

    fn keep_vmm(&mut self, result: Result<(), ChannelError>) {
        if let Err(error) = result {
            limited!(
                log::Level::Warn,
                "the VMM's back-end channel failed: {error}"
            );
            self.drop_vmm();
        }
    }

    fn keep_service(&mut self, result: Result<(), ChannelError>) {
        if let Err(error) = result {
            limited!(
                log::Level::Warn,
                "the service's back-end channel failed: {error}"
            );
            self.service = None;
        }
    }

    /// Without the VMM's end there is nobody to ask: a service that waits for an answer learns it
    /// by the end of its own.
    fn drop_vmm(&mut self) {
        self.vmm = None;
        self.forget_questions();
        self.service = None;
    }

    /// Nobody is left who would answer: each question is told so as it is dropped.
    fn forget_questions(&mut self) {
        self.unanswered.clear();
        self.waiting.clear();
    }
}
