// SPDX-License-Identifier: Apache-2.0

//! The requests of a VMM: what they look like, and which are refused before a service sees them.
//!
//! vhost's request handler ends the connection after any request that it or the device refuses,
//! and a guest can bring a VMM to send such a one (a queue at an odd address, of a size that is no
//! power of two). So what can be judged here is answered here, and the session goes on.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};

use crate::memory_table::MemoryTable;
use crate::message::{Message, NO_FD};
use crate::record::MAX_QUEUE_SIZE;
use crate::settings::{MAX_RINGS, Settings, ring_of};

/// Why a request was not passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The vhost crates do not know it, or it was never offered.
    #[error("the request is not supported")]
    Unsupported,
    /// The payload has another size.
    #[error("the payload has not the size that the request has")]
    Size,
    /// Too many or too few descriptors.
    #[error("the descriptors are not those that the request has")]
    Descriptors,
    /// A protocol feature is missing.
    #[error("the protocol feature it needs was not negotiated")]
    NotNegotiated,
    /// Features that were not offered.
    #[error("features that were not offered: {0:#x}")]
    Features(u64),
    /// Beyond the device's rings.
    #[error("the device has no ring {0}")]
    NoRing(u32),
    /// A ring's size, address or state that no device accepts.
    #[error("ring {index}: {reason}")]
    Ring {
        /// The ring.
        index: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// A region of memory that cannot be.
    #[error("memory: {0}")]
    Memory(&'static str),
    /// Access beyond the configuration space.
    #[error("the access is not within the configuration space")]
    Config,
    /// The record that the VMM brought cannot be used.
    #[error("the record cannot be used")]
    Record,
    /// Two services in a row died of it.
    #[error("the service died of it twice")]
    Deadly,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// By 0 or an error, when the VMM asks for it and `REPLY_ACK` was negotiated.
    Acknowledgement,
    /// Always, in its own way.
    Reply,
}

enum Size {
    Exactly(usize),
    AtLeast(usize),
}

enum Fds {
    None,
    /// What is attached is closed unused; older VMMs do it.
    Ignored,
    /// The request's own check counts them.
    Counted,
    One,
}

struct Rule {
    size: Size,
    fds: Fds,
    feature: Option<Protocol>,
    answer: Answer,
}

fn rule(request: FrontendReq) -> Option<Rule> {
    use Answer::{Acknowledgement, Reply};
    use FrontendReq as R;
    use Size::{AtLeast, Exactly};
    let (size, fds, feature, answer) = match request {
        R::GET_FEATURES | R::GET_PROTOCOL_FEATURES => (Exactly(0), Fds::None, None, Reply),
        R::SET_FEATURES | R::SET_PROTOCOL_FEATURES => {
            (Exactly(8), Fds::None, None, Acknowledgement)
        }
        R::SET_OWNER | R::RESET_OWNER => (Exactly(0), Fds::None, None, Acknowledgement),
        R::SET_MEM_TABLE => (AtLeast(8), Fds::Counted, None, Acknowledgement),
        R::SET_LOG_BASE => (Exactly(16), Fds::One, Some(Protocol::LOG_SHMFD), Reply),
        R::SET_VRING_NUM | R::SET_VRING_BASE | R::SET_VRING_ENABLE => {
            (Exactly(8), Fds::None, None, Acknowledgement)
        }
        R::SET_VRING_ADDR => (Exactly(40), Fds::None, None, Acknowledgement),
        R::GET_VRING_BASE => (Exactly(8), Fds::None, None, Reply),
        R::SET_VRING_KICK | R::SET_VRING_CALL | R::SET_VRING_ERR => {
            (Exactly(8), Fds::Counted, None, Acknowledgement)
        }
        R::GET_QUEUE_NUM => (Exactly(0), Fds::None, Some(Protocol::MQ), Reply),
        R::SET_BACKEND_REQ_FD => (
            Exactly(0),
            Fds::One,
            Some(Protocol::BACKEND_REQ),
            Acknowledgement,
        ),
        R::GET_CONFIG => (AtLeast(12), Fds::None, Some(Protocol::CONFIG), Reply),
        R::SET_CONFIG => (
            AtLeast(12),
            Fds::None,
            Some(Protocol::CONFIG),
            Acknowledgement,
        ),
        R::GET_INFLIGHT_FD => (
            AtLeast(20),
            Fds::None,
            Some(Protocol::INFLIGHT_SHMFD),
            Reply,
        ),
        R::SET_INFLIGHT_FD => (
            AtLeast(20),
            Fds::One,
            Some(Protocol::INFLIGHT_SHMFD),
            Acknowledgement,
        ),
        R::GPU_SET_SOCKET => (Exactly(0), Fds::One, None, Acknowledgement),
        R::RESET_DEVICE => (
            Exactly(0),
            Fds::None,
            Some(Protocol::RESET_DEVICE),
            Acknowledgement,
        ),
        R::GET_MAX_MEM_SLOTS => (
            Exactly(0),
            Fds::None,
            Some(Protocol::CONFIGURE_MEM_SLOTS),
            Reply,
        ),
        R::ADD_MEM_REG => (
            AtLeast(40),
            Fds::One,
            Some(Protocol::CONFIGURE_MEM_SLOTS),
            Acknowledgement,
        ),
        R::REM_MEM_REG => (
            AtLeast(40),
            Fds::Ignored,
            Some(Protocol::CONFIGURE_MEM_SLOTS),
            Acknowledgement,
        ),
        R::GET_SHARED_OBJECT => (Exactly(16), Fds::None, Some(Protocol::SHARED_OBJECT), Reply),
        R::SET_DEVICE_STATE_FD => (Exactly(8), Fds::One, Some(Protocol::DEVICE_STATE), Reply),
        R::CHECK_DEVICE_STATE => (Exactly(0), Fds::None, Some(Protocol::DEVICE_STATE), Reply),
        R::GET_SHMEM_CONFIG => (Exactly(0), Fds::None, Some(Protocol::SHMEM), Reply),
        _ => return None,
    };
    Some(Rule {
        size,
        fds,
        feature,
        answer,
    })
}

/// How the request is answered; those unknown by an acknowledgement, except the few of the
/// specification that always have a reply.
pub(crate) fn answer(message: &Message) -> Answer {
    match message.frontend_request() {
        Some(
            FrontendReq::GET_STATUS
            | FrontendReq::CREATE_CRYPTO_SESSION
            | FrontendReq::POSTCOPY_ADVISE
            | FrontendReq::POSTCOPY_END,
        ) => Answer::Reply,
        Some(request) => rule(request).map_or(Answer::Acknowledgement, |rule| rule.answer),
        None => Answer::Acknowledgement,
    }
}

/// What the service offers, as far as requests are judged by it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    /// What the VMM is offered, the relay's own included.
    pub(crate) protocol_features: u64,
    pub(crate) rings: u32,
}

/// Brings a request into the form that the service takes, or refuses it.
pub(crate) fn admit(
    mut message: Message,
    settings: &Settings,
    offer: &Offer,
) -> Result<Message, Refusal> {
    let request = message.frontend_request().ok_or(Refusal::Unsupported)?;
    let rule = rule(request).ok_or(Refusal::Unsupported)?;
    let size = message.payload.len();
    match rule.size {
        Size::Exactly(exactly) if size != exactly => return Err(Refusal::Size),
        Size::AtLeast(least) if size < least => return Err(Refusal::Size),
        Size::Exactly(_) | Size::AtLeast(_) => {}
    }
    match rule.fds {
        Fds::None | Fds::Ignored => message.fds.clear(),
        Fds::One if message.fds.len() != 1 => return Err(Refusal::Descriptors),
        Fds::One | Fds::Counted => {}
    }
    let negotiated = |feature: Protocol| settings.has_protocol_feature(feature.bits());
    if !rule.feature.is_none_or(negotiated) {
        return Err(Refusal::NotNegotiated);
    }
    if let Some(index) = ring_of(&message) {
        if index >= offer.rings.min(MAX_RINGS) {
            return Err(Refusal::NoRing(index));
        }
        admit_ring(request, &message, index, settings)?;
    }
    match request {
        FrontendReq::SET_FEATURES => only(offer.features, &message)?,
        FrontendReq::SET_PROTOCOL_FEATURES => only(offer.protocol_features, &message)?,
        FrontendReq::SET_MEM_TABLE => {
            // In the order that vhost-user-backend accepts.
            let mut messages = MemoryTable::from_table(&message)?.messages();
            let needs_reply = message.needs_reply();
            message = messages
                .pop()
                .ok_or(Refusal::Size)?
                .with_need_reply(needs_reply);
        }
        FrontendReq::ADD_MEM_REG => drop(settings.memory.with_added(&message)?),
        FrontendReq::REM_MEM_REG => drop(settings.memory.with_removed(&message)?),
        FrontendReq::SET_LOG_BASE => admit_log(&message)?,
        FrontendReq::GET_CONFIG | FrontendReq::SET_CONFIG => admit_config(&message)?,
        _ => {}
    }
    Ok(message)
}

fn only(offered: u64, message: &Message) -> Result<(), Refusal> {
    match message.u64_at(0).ok_or(Refusal::Size)? & !offered {
        0 => Ok(()),
        beyond => Err(Refusal::Features(beyond)),
    }
}

fn admit_ring(
    request: FrontendReq,
    message: &Message,
    index: u32,
    settings: &Settings,
) -> Result<(), Refusal> {
    let refuse = |reason| Err(Refusal::Ring { index, reason });
    match request {
        FrontendReq::SET_VRING_NUM => {
            let num = message.u32_at(4).ok_or(Refusal::Size)?;
            // VIRTIO 1.4, section 2.7: a power of two. The record has no room for a larger one.
            if !num.is_power_of_two() || num > u32::from(MAX_QUEUE_SIZE) {
                return refuse("its size is not a power of two up to 1024");
            }
        }
        FrontendReq::SET_VRING_ADDR => {
            let at = |offset| message.u64_at(offset).ok_or(Refusal::Size);
            let (desc, used, avail) = (at(8)?, at(16)?, at(24)?);
            if message.u32_at(4).ok_or(Refusal::Size)? & !1 != 0 {
                return refuse("unknown flags of its address");
            }
            // VIRTIO 1.4, section 2.7: alignment of the parts of a split virtqueue.
            if desc & 0xf != 0 || used & 0x3 != 0 || avail & 0x1 != 0 {
                return refuse("its address is not aligned");
            }
            if ![desc, used, avail]
                .into_iter()
                .all(|user| settings.memory.maps(user))
            {
                return refuse("its address is not in the guest's memory");
            }
        }
        FrontendReq::SET_VRING_ENABLE => {
            if !settings.rings_are_enabled_one_by_one() {
                return refuse("enabled before SET_FEATURES with the protocol features' bit");
            }
            if message.u32_at(4).ok_or(Refusal::Size)? > 1 {
                return refuse("enabled with a value that is neither 0 nor 1");
            }
        }
        FrontendReq::SET_VRING_KICK | FrontendReq::SET_VRING_CALL | FrontendReq::SET_VRING_ERR => {
            let without = message.u64_at(0).ok_or(Refusal::Size)? & NO_FD != 0;
            if message.fds.len() != usize::from(!without) {
                return Err(Refusal::Descriptors);
            }
        }
        _ => {}
    }
    Ok(())
}

fn admit_log(message: &Message) -> Result<(), Refusal> {
    let size = message.u64_at(0).ok_or(Refusal::Size)?;
    let offset = message.u64_at(8).ok_or(Refusal::Size)?;
    if size == 0 || offset.checked_add(size).is_none() {
        return Err(Refusal::Memory("the log is empty or wraps around"));
    }
    Ok(())
}

/// Bytes of the configuration space that vhost-user can address.
const CONFIG_SIZE: u32 = vhost::vhost_user::message::VHOST_USER_CONFIG_SIZE;
/// Bytes before the content: offset, size, flags.
pub(crate) const CONFIG_PREFIX: usize = 12;

fn admit_config(message: &Message) -> Result<(), Refusal> {
    let at = |offset| message.u32_at(offset).ok_or(Refusal::Size);
    let (offset, size, flags) = (at(0)?, at(4)?, at(8)?);
    let content = message.payload.len().saturating_sub(CONFIG_PREFIX);
    let fits = offset
        .checked_add(size)
        .is_some_and(|end| end <= CONFIG_SIZE);
    if size == 0 || !fits || flags & !0x3 != 0 || usize::try_from(size) != Ok(content) {
        return Err(Refusal::Config);
    }
    Ok(())
}
