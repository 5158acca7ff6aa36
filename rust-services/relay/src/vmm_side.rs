// SPDX-License-Identifier: Apache-2.0

//! The relay as the back end of a VMM: requests are judged, answered here or handed to the service.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};

use crate::channel::Received;
use crate::limited;
use crate::message::Message;
use crate::record::{INFLIGHT_OFFSET, INFLIGHT_SIZE, Record};
use crate::relay::{Continuity, End, Pending, Relay, Stage, VmmFault};
use crate::request::{Answer, Refusal, admit, answer};

/// In the reply to `SET_DEVICE_STATE_FD`: failed, and no descriptor.
const NO_STATE: u64 = 0x101;

impl Relay {
    /// Whether the VMM wants to hear of changes of the configuration space.
    pub(crate) fn tells_config_changes(&self) -> bool {
        self.settings.has_protocol_feature(Protocol::CONFIG.bits())
    }

    /// Reads the VMM's next request.
    pub(crate) fn vmm_readable(&mut self) -> Option<End> {
        match self.vmm.receive() {
            Ok(Received::Nothing) => None,
            Ok(Received::Message(message)) => self.consider(message),
            Ok(Received::Closed) => Some(End::VmmGone(VmmFault::Left)),
            Err(error) => Some(End::VmmGone(error.into())),
        }
    }

    fn consider(&mut self, message: Message) -> Option<End> {
        if message.is_reply() {
            return Some(End::VmmGone(VmmFault::Reply));
        }
        let message = match admit(message.clone(), &self.settings, &self.offer) {
            Ok(message) => message,
            Err(refusal) => return self.refuse(&message, refusal),
        };
        match message.frontend_request() {
            Some(FrontendReq::GET_FEATURES) => {
                self.reply_u64(&message, self.offer.features & !self.hidden_features())
            }
            Some(FrontendReq::GET_PROTOCOL_FEATURES) => {
                self.reply_u64(&message, self.offer.protocol_features)
            }
            // A second one ends vhost-user-backend's connection.
            Some(FrontendReq::SET_OWNER) if self.settings.owned => self.acknowledge(&message, true),
            Some(FrontendReq::GET_INFLIGHT_FD) => self.give_record(&message),
            Some(FrontendReq::SET_INFLIGHT_FD) => self.take_record(message),
            Some(FrontendReq::SET_BACKEND_REQ_FD) => match sole_fd(&message) {
                Ok(fd) => {
                    self.back.set_vmm(fd);
                    self.hand_on(message)
                }
                Err(refusal) => self.refuse(&message, refusal),
            },
            Some(
                FrontendReq::SET_VRING_NUM
                | FrontendReq::SET_VRING_BASE
                | FrontendReq::SET_VRING_ADDR
                | FrontendReq::SET_VRING_KICK,
            ) => {
                // It sets up rings and has brought no record.
                self.begin_record();
                self.hand_on(message)
            }
            _ => self.hand_on(message),
        }
    }

    /// What this VMM is not offered, because the device would need of it what was not negotiated. It may
    /// not be negotiated yet; a VMM that asks again afterwards, as QEMU does, learns of the rest then.
    fn hidden_features(&self) -> u64 {
        if self
            .settings
            .has_protocol_feature(Protocol::SHARED_OBJECT.bits())
        {
            return 0;
        }
        let record = self.record.as_ref();
        record.map_or(0, |record| record.object_features().into())
    }

    fn hand_on(&mut self, message: Message) -> Option<End> {
        self.pending = Some(Pending {
            message,
            stage: Stage::ToSend { deaths: 0 },
        });
        None
    }

    /// The record begins with this session, unless that is decided.
    fn begin_record(&mut self) {
        if self.continuity == Continuity::Undecided {
            self.record.as_deref().map(clear);
        }
        self.continuity = Continuity::Decided;
    }

    /// `GET_INFLIGHT_FD`: the VMM holds the queues' part of the record, as something opaque.
    fn give_record(&mut self, message: &Message) -> Option<End> {
        let Some(record) = self.record.clone() else {
            return self.refuse(message, Refusal::NotNegotiated);
        };
        let fd = match record.file().try_clone() {
            Ok(file) => Arc::new(OwnedFd::from(file)),
            Err(error) => {
                limited!(log::Level::Error, "cannot give the VMM the record: {error}");
                return self.refuse(message, Refusal::Record);
            }
        };
        if !self.settings.any_ring_started() {
            clear(&record);
        }
        self.continuity = Continuity::Decided;
        // Queues and their size stay as the VMM asked; the record has room for all.
        let mut payload = INFLIGHT_SIZE.to_ne_bytes().to_vec();
        payload.extend_from_slice(&INFLIGHT_OFFSET.to_ne_bytes());
        payload.extend_from_slice(message.payload.get(16..).unwrap_or_default());
        self.send_vmm(&Message::reply(message.code(), payload).with_fds(vec![fd]))
    }

    /// `SET_INFLIGHT_FD`: the record in use, one of an earlier session, or something else.
    fn take_record(&mut self, message: Message) -> Option<End> {
        let record = match (&self.record, message.fds.first()) {
            (Some(record), Some(fd)) => match record.is_same_file(fd) {
                Ok(true) => Brought::Ours,
                Ok(false) => foreign(fd),
                Err(error) => Brought::Unusable(error.to_string()),
            },
            _ => Brought::Unusable("there is none".to_owned()),
        };
        match record {
            Brought::Ours => {
                if self.continuity == Continuity::Undecided {
                    self.settings.record_was_brought();
                }
                self.continuity = Continuity::Decided;
                self.acknowledge(&message, true)
            }
            Brought::Earlier(record) if !self.settings.any_ring_started() => {
                self.pending = Some(Pending {
                    message,
                    stage: Stage::AtOwner,
                });
                Some(End::BroughtRecord(record))
            }
            Brought::Earlier(_) => {
                limited!(log::Level::Warn, "the VMM brought a record while rings run");
                self.refuse(&message, Refusal::Record)
            }
            Brought::Unusable(why) => {
                limited!(
                    log::Level::Warn,
                    "the VMM brought a record that cannot be used: {why}"
                );
                self.refuse(&message, Refusal::Record)
            }
        }
    }

    fn reply_u64(&mut self, message: &Message, value: u64) -> Option<End> {
        self.send_vmm(&Message::reply_u64(message.code(), value))
    }

    /// Answers a request without a reply of its own, if the VMM wants to know.
    pub(crate) fn acknowledge(&mut self, message: &Message, done: bool) -> Option<End> {
        let wanted = message.needs_reply()
            && self
                .settings
                .has_protocol_feature(Protocol::REPLY_ACK.bits());
        wanted
            .then(|| self.reply_u64(message, u64::from(!done)))
            .flatten()
    }

    /// Refuses a request in the way in which its sender can understand it.
    pub(crate) fn refuse(&mut self, message: &Message, refusal: Refusal) -> Option<End> {
        let code = message.code();
        self.refused = self.refused.saturating_add(1);
        // A guest can cause one by every reset: the log gets ever fewer of them.
        if self.refused.is_power_of_two() {
            limited!(
                log::Level::Warn,
                "refused request {code} of the VMM: {refusal} ({} refused so far)",
                self.refused
            );
        }
        if answer(message) == Answer::Acknowledgement {
            return self.acknowledge(message, false);
        }
        match message.frontend_request() {
            Some(FrontendReq::GET_CONFIG) => {
                // A size of 0 says that it failed.
                let mut payload = message.payload.get(..4).unwrap_or(&[0; 4]).to_vec();
                payload.extend_from_slice(&[0; 8]);
                self.send_vmm(&Message::reply(code, payload))
            }
            Some(FrontendReq::SET_DEVICE_STATE_FD) => self.reply_u64(message, NO_STATE),
            Some(FrontendReq::CHECK_DEVICE_STATE) => self.reply_u64(message, 1),
            Some(FrontendReq::GET_SHARED_OBJECT) => {
                self.send_vmm(&Message::reply(code, Vec::new()))
            }
            _ => Some(End::VmmGone(VmmFault::Refused { code, refusal })),
        }
    }

    pub(crate) fn send_vmm(&mut self, message: &Message) -> Option<End> {
        let sent = self.vmm.send(message);
        sent.err().map(|error| End::VmmGone(error.into()))
    }
}

/// What the VMM's record is.
enum Brought {
    Ours,
    Earlier(Record),
    Unusable(String),
}

fn foreign(fd: &Arc<OwnedFd>) -> Brought {
    let opened = fd
        .try_clone()
        .map_err(|error| error.to_string())
        .and_then(|fd| Record::open(File::from(fd)).map_err(|error| error.to_string()));
    match opened {
        Ok(record) => Brought::Earlier(record),
        Err(why) => Brought::Unusable(why),
    }
}

fn clear(record: &Record) {
    if let Err(error) = record.clear_queues() {
        limited!(
            log::Level::Error,
            "cannot clear the record for a new session: {error}"
        );
    }
}

/// The one descriptor of a message, on its own.
fn sole_fd(message: &Message) -> Result<OwnedFd, Refusal> {
    let [fd] = message.fds.as_slice() else {
        return Err(Refusal::Descriptors);
    };
    fd.try_clone().map_err(|_| Refusal::Descriptors)
}
