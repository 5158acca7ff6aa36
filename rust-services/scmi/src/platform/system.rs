// SPDX-License-Identifier: Apache-2.0

//! Power of the whole system, as one guest sees it: the guest itself. What a guest asks for is told
//! to the host on D-Bus; what the host or a trusted guest asks for is told to the guest.

use serde::Deserialize;

use crate::platform::{AgentId, Platform};
use crate::wire::{Event, Status};

/// What an agent may do about the system.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum SystemRight {
    /// The protocol is not there for it.
    None,
    /// It hears of what the host wants.
    #[default]
    Notify,
    /// It may also ask.
    Set,
}

/// A state of the system (SCMI 3.2, 4.4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SystemState {
    /// Off.
    Shutdown,
    /// Off and on.
    ColdReset,
    /// Begin anew with memory kept.
    WarmReset,
    /// Go on.
    PowerUp,
    /// Suspend to memory.
    Suspend,
}

impl SystemState {
    /// All states, by their number.
    pub const ALL: [Self; 5] = [
        Self::Shutdown,
        Self::ColdReset,
        Self::WarmReset,
        Self::PowerUp,
        Self::Suspend,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Shutdown => 0,
            Self::ColdReset => 1,
            Self::WarmReset => 2,
            Self::PowerUp => 3,
            Self::Suspend => 4,
        }
    }

    /// The state of this number.
    ///
    /// # Errors
    /// [`Status::InvalidParameters`].
    pub fn of(code: u32) -> Result<Self, Status> {
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.code() == code)
            .ok_or(Status::InvalidParameters)
    }

    /// The word on D-Bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::ColdReset => "cold-reset",
            Self::WarmReset => "warm-reset",
            Self::PowerUp => "power-up",
            Self::Suspend => "suspend",
        }
    }
}

/// What a guest asked of the whole system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SystemRequest {
    /// Who.
    pub agent: AgentId,
    /// What for.
    pub state: SystemState,
    /// Whether with time to prepare.
    pub graceful: bool,
}

/// Requests that wait for the host at most; a guest that repeats itself adds nothing.
const MOST_REQUESTS: usize = 16;

impl Platform {
    /// Notes what a guest asks of the system, for the host to take.
    pub(crate) fn request_system(&mut self, agent: AgentId, state: SystemState, graceful: bool) {
        let request = SystemRequest {
            agent,
            state,
            graceful,
        };
        if self.requests.len() < MOST_REQUESTS && !self.requests.contains(&request) {
            self.requests.push(request);
            self.changed();
        }
    }

    /// What guests asked of the system since the last call.
    pub fn take_requests(&mut self) -> Vec<SystemRequest> {
        std::mem::take(&mut self.requests)
    }

    /// The host asks one guest: whether it listens, and has room to hear it.
    pub fn ask_system(
        &mut self,
        agent: AgentId,
        state: SystemState,
        graceful: bool,
        timeout_ms: u32,
    ) -> bool {
        let listens = self
            .agents
            .get(agent.index())
            .is_some_and(|of| of.system_notify);
        let words = [0, u32::from(graceful), state.code(), timeout_ms];
        listens && self.post(agent, Event::notification(0x12, 0, &words))
    }

    /// A guest asks for a state of its system, and the host hears of it by the caller. The other
    /// agents hear of it only from a trusted one: Linux does what such a notification says without
    /// a look at who asked, so any other guest could shut its neighbours down.
    pub fn announce_system(&mut self, cause: AgentId, state: SystemState, graceful: bool) {
        let trusted = self.agents.get(cause.index()).is_some_and(|of| of.trusted);
        if !trusted {
            return;
        }
        for agent in (0..self.agents.len()).map(AgentId::new) {
            let listens = self
                .agents
                .get(agent.index())
                .is_some_and(|of| of.system_notify);
            if listens && agent != cause {
                let words = [cause.number(), u32::from(graceful), state.code(), 0];
                self.post(agent, Event::notification(0x12, 0, &words));
            }
        }
    }
}
