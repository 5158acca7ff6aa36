// SPDX-License-Identifier: Apache-2.0

//! What a new service is told, in this order, of what the VMM had said:
//!
//! | step | when |
//! | --- | --- |
//! | `SET_PROTOCOL_FEATURES` | always first, for from then on everything is acknowledged; the VMM's, with `REPLY_ACK` |
//! | `SET_OWNER` | the VMM sent it |
//! | `SET_FEATURES` | said |
//! | `SET_MEM_TABLE`, then `ADD_MEM_REG` | regions, as the VMM told them |
//! | `SET_LOG_BASE`, `GPU_SET_SOCKET` | said |
//! | `SET_BACKEND_REQ_FD` | the VMM has given a channel |
//! | per ring: `NUM`, `BASE`, `ADDR`, `CALL`, `ERR`, `KICK`, `ENABLE` | said, and the ring not stopped since |
//!
//! `BASE` is the VMM's last word; a service recovers the position of a running ring from the record
//! while its phase is [`Phase::Replaying`](crate::record::Phase::Replaying).

use vhost::vhost_user::message::FrontendReq;

use crate::message::Message;
use crate::settings::{Ring, Settings};

/// The requests before the back-end channel and those after it. Protocol features are not among
/// them: the relay negotiates its own with every service.
pub(crate) struct Replay {
    pub(crate) device: Vec<Message>,
    pub(crate) rings: Vec<Message>,
}

/// Puts the requests together.
pub(crate) fn replay(settings: &Settings) -> Replay {
    let mut device = Vec::new();
    if let Some(features) = settings.features {
        device.push(Message::request_u64(FrontendReq::SET_FEATURES, features));
    }
    device.extend(settings.memory.messages());
    device.extend(settings.log_base.clone());
    device.extend(settings.gpu_socket.clone());
    let rings = settings
        .rings()
        .flat_map(|ring| ring_messages(ring, settings))
        .collect();
    Replay { device, rings }
}

fn ring_messages(ring: &Ring, settings: &Settings) -> Vec<Message> {
    // The memory may have changed under a ring that does not run: its address would be refused.
    let addr = ring.addr.as_ref().filter(|addr| {
        [8, 16, 24].into_iter().all(|at| {
            addr.u64_at(at)
                .is_some_and(|user| settings.memory.maps(user))
        })
    });
    let enable = ring
        .enable
        .as_ref()
        .filter(|_| settings.rings_are_enabled_one_by_one());
    [
        ring.num.as_ref(),
        ring.base.as_ref(),
        addr,
        ring.call.as_ref(),
        ring.err.as_ref(),
        ring.kick.as_ref(),
        enable,
    ]
    .into_iter()
    .flatten()
    .cloned()
    .collect()
}
