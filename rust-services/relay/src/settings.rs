// SPDX-License-Identifier: Apache-2.0

//! What the VMM has said: the newest value of each setting, not a log.
//!
//! A setting is taken over when the service has acknowledged it, so that a service never hears from
//! its relay what its predecessor refused. Writes to the configuration space are not among them:
//! the device keeps them in the record's settings, with what they did to it.

use vhost::vhost_user::message::{FrontendReq, VhostUserVirtioFeatures};

use crate::memory_table::MemoryTable;
use crate::message::{Message, NO_FD};

/// Rings a relay keeps settings of: as many as a KICK request can name.
pub(crate) const MAX_RINGS: u32 = 256;

/// The newest value of each setting.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) owned: bool,
    /// As the VMM said them, `INFLIGHT_SHMFD` included.
    pub(crate) protocol_features: Option<u64>,
    pub(crate) features: Option<u64>,
    pub(crate) memory: MemoryTable,
    pub(crate) log_base: Option<Message>,
    pub(crate) gpu_socket: Option<Message>,
    rings: Vec<Ring>,
    /// The VMM brought the record: rings it has not started yet ran before.
    brought: bool,
}

/// The settings of one ring. A message is kept whole, with its descriptors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    pub(crate) num: Option<Message>,
    pub(crate) base: Option<Message>,
    pub(crate) addr: Option<Message>,
    pub(crate) call: Option<Message>,
    pub(crate) err: Option<Message>,
    pub(crate) kick: Option<Message>,
    pub(crate) enable: Option<Message>,
    /// The ring ran under a service that is gone, and no successor has started it since: the record
    /// says where it goes on, not the VMM's BASE.
    pub(crate) recovering: bool,
}

impl Ring {
    /// Whether the ring has been started (a kick descriptor was given) and not stopped since.
    pub(crate) fn is_started(&self) -> bool {
        self.kick
            .as_ref()
            .and_then(|kick| kick.u64_at(0))
            .is_some_and(|value| value & NO_FD == 0)
    }

    fn is_enabled(&self) -> bool {
        self.enable.as_ref().and_then(|enable| enable.u32_at(4)) == Some(1)
    }

    /// What remains after `GET_VRING_BASE`, or after a reset. The spec has a VMM say everything
    /// again before it starts the ring; its size and whether it is enabled are not undone by a stop.
    fn stop(&mut self) {
        *self = Self {
            num: self.num.take(),
            err: self.err.take(),
            enable: self.enable.take(),
            ..Self::default()
        };
    }
}

impl Settings {
    /// Whether a ring needs `SET_VRING_ENABLE` (and a service accepts it).
    pub(crate) fn rings_are_enabled_one_by_one(&self) -> bool {
        let bit = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.features.is_some_and(|features| features & bit != 0)
    }

    /// Whether the VMM negotiated a protocol feature.
    pub(crate) fn has_protocol_feature(&self, bits: u64) -> bool {
        self.protocol_features
            .is_some_and(|features| features & bits != 0)
    }

    pub(crate) fn rings(&self) -> impl Iterator<Item = &Ring> {
        self.rings.iter()
    }

    pub(crate) fn ring(&self, index: u32) -> Option<&Ring> {
        self.rings.get(usize::try_from(index).ok()?)
    }

    fn ring_mut(&mut self, index: u32) -> Option<&mut Ring> {
        if index >= MAX_RINGS {
            return None;
        }
        let index = usize::try_from(index).ok()?;
        if index >= self.rings.len() {
            let ring = Ring {
                recovering: self.brought,
                ..Ring::default()
            };
            self.rings.resize(index.saturating_add(1), ring);
        }
        self.rings.get_mut(index)
    }

    /// Whether any ring runs.
    pub(crate) fn any_ring_started(&self) -> bool {
        self.rings.iter().any(Ring::is_started)
    }

    /// The record is of an earlier session: every ring goes on from it.
    pub(crate) fn record_was_brought(&mut self) {
        self.brought = true;
        for ring in &mut self.rings {
            ring.recovering = true;
        }
    }

    /// Whether a ring goes on from the record when it starts.
    pub(crate) fn is_recovering(&self, index: u32) -> bool {
        self.ring(index)
            .map_or(self.brought, |ring| ring.recovering)
    }

    /// The service is gone: started rings go on from the record.
    pub(crate) fn service_gone(&mut self) {
        for ring in &mut self.rings {
            ring.recovering |= ring.is_started();
        }
    }

    /// Notes that a service has all that starts this ring, if it has.
    pub(crate) fn note_recovered(&mut self, index: u32) {
        let one_by_one = self.rings_are_enabled_one_by_one();
        if let Some(ring) = self.ring_mut(index) {
            ring.recovering &= !(ring.is_started() && (ring.is_enabled() || !one_by_one));
        }
    }

    /// Notes the same of every ring.
    pub(crate) fn note_all_recovered(&mut self) {
        for index in 0..u32::try_from(self.rings.len()).unwrap_or(MAX_RINGS) {
            self.note_recovered(index);
        }
    }

    /// Takes over a request that the service has acknowledged.
    pub(crate) fn apply(&mut self, message: &Message) {
        let Some(request) = message.frontend_request() else {
            return;
        };
        match request {
            FrontendReq::SET_OWNER => self.owned = true,
            FrontendReq::RESET_OWNER => {
                self.owned = false;
                self.reset();
            }
            FrontendReq::RESET_DEVICE => self.reset(),
            FrontendReq::SET_PROTOCOL_FEATURES => self.protocol_features = message.u64_at(0),
            FrontendReq::SET_FEATURES => self.features = message.u64_at(0),
            FrontendReq::SET_MEM_TABLE => {
                if let Ok(table) = MemoryTable::from_table(message) {
                    self.memory = table;
                }
            }
            FrontendReq::ADD_MEM_REG => {
                if let Ok(table) = self.memory.with_added(message) {
                    self.memory = table;
                }
            }
            FrontendReq::REM_MEM_REG => {
                if let Ok(table) = self.memory.with_removed(message) {
                    self.memory = table;
                }
            }
            FrontendReq::SET_LOG_BASE => self.log_base = Some(message.clone()),
            FrontendReq::GPU_SET_SOCKET => self.gpu_socket = Some(message.clone()),
            _ => self.apply_to_ring(request, message),
        }
    }

    fn apply_to_ring(&mut self, request: FrontendReq, message: &Message) {
        let Some(ring) = ring_of(message).and_then(|index| self.ring_mut(index)) else {
            return;
        };
        let value = Some(message.clone());
        match request {
            FrontendReq::SET_VRING_NUM => ring.num = value,
            FrontendReq::SET_VRING_BASE => ring.base = value,
            FrontendReq::SET_VRING_ADDR => ring.addr = value,
            FrontendReq::SET_VRING_CALL => ring.call = value,
            FrontendReq::SET_VRING_ERR => ring.err = value,
            FrontendReq::SET_VRING_KICK => ring.kick = value,
            FrontendReq::SET_VRING_ENABLE => ring.enable = value,
            FrontendReq::GET_VRING_BASE => ring.stop(),
            _ => {}
        }
    }

    /// A service refused in a replay what its predecessor took: not said to the next one.
    pub(crate) fn forget(&mut self, message: &Message) {
        let Some(request) = message.frontend_request() else {
            return;
        };
        match request {
            FrontendReq::SET_LOG_BASE => self.log_base = None,
            FrontendReq::GPU_SET_SOCKET => self.gpu_socket = None,
            _ => {
                // A ring that lacks one setting cannot run.
                if let Some(ring) = ring_of(message).and_then(|index| self.ring_mut(index)) {
                    *ring = Ring::default();
                }
            }
        }
    }

    /// Rings disabled, features not negotiated (vhost-user specification, `RESET_DEVICE`).
    fn reset(&mut self) {
        self.features = None;
        for ring in &mut self.rings {
            ring.enable = None;
            ring.recovering = false;
        }
    }
}

/// The ring that a request is about; `None` when it is about something else.
pub(crate) fn ring_of(message: &Message) -> Option<u32> {
    match message.frontend_request()? {
        FrontendReq::SET_VRING_NUM
        | FrontendReq::SET_VRING_BASE
        | FrontendReq::SET_VRING_ADDR
        | FrontendReq::SET_VRING_ENABLE
        | FrontendReq::GET_VRING_BASE => message.u32_at(0),
        FrontendReq::SET_VRING_KICK | FrontendReq::SET_VRING_CALL | FrontendReq::SET_VRING_ERR => {
            u32::try_from(message.u64_at(0)? & 0xff).ok()
        }
        _ => None,
    }
}
