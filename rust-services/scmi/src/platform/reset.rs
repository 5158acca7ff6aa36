// SPDX-License-Identifier: Apache-2.0

//! Reset domains: held in reset while an agent asserts it; pulsed when one asks for a reset.

use serde::Deserialize;

use crate::platform::{AgentId, Kind, Platform, Votes, at_mut};
use crate::wire::{Event, Status};

/// A reset domain, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ResetSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// How long a reset takes, in µs; from 1 on it can be asked for asynchronously.
    pub latency_us: u32,
    /// `linux` back end: the host's own reset of this name, which the kernel module
    /// agl-virtio-resources shows.
    pub host: Option<String>,
}

/// A reset domain.
#[derive(Clone, Debug)]
pub struct Reset {
    /// As configured.
    pub spec: ResetSpec,
    /// How often it was reset.
    pub pulses: u64,
    /// Of these, those that the platform did by itself, and nobody asserted.
    pub(super) autonomous: u64,
    /// Who wants to hear of resets.
    pub notify: Votes<()>,
    pub(super) asserted: Votes<()>,
}

impl Reset {
    /// A domain out of reset.
    #[must_use]
    pub fn new(spec: ResetSpec) -> Self {
        Self {
            spec,
            pulses: 0,
            autonomous: 0,
            notify: Votes::default(),
            asserted: Votes::default(),
        }
    }

    /// Agents that hold it in reset.
    #[must_use]
    pub fn asserted_by(&self) -> u64 {
        self.asserted.bits()
    }
}

impl Platform {
    /// Resets a domain: the agent may, as was checked when it asked.
    pub(crate) fn pulse(&mut self, cause: AgentId, domain: usize, state: u32) {
        if let Some(of) = self.resets.get_mut(domain) {
            of.autonomous = of.autonomous.saturating_add(1);
        }
        self.announce_reset(cause, domain, state);
    }

    fn announce_reset(&mut self, cause: AgentId, domain: usize, state: u32) {
        let Some(of) = self.resets.get_mut(domain) else {
            return;
        };
        of.pulses = of.pulses.saturating_add(1);
        let hear = of.notify.bits();
        self.notify(hear, Kind::Reset, domain, |number| {
            Event::notification(0x16, 0, &[cause.number(), number, state])
        });
        self.changed();
    }

    /// An agent holds a domain in reset, or not any more.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn assert_reset(
        &mut self,
        agent: AgentId,
        domain: usize,
        asserted: bool,
    ) -> Result<(), Status> {
        let of = at_mut(&mut self.resets, domain)?;
        let was_free = of.asserted.bits() == 0;
        of.asserted.set(agent, asserted.then_some(()));
        if was_free && asserted {
            self.announce_reset(agent, domain, 0);
        }
        self.changed();
        Ok(())
    }

    pub(super) fn release_resets(&mut self, agent: AgentId) {
        for of in &mut self.resets {
            of.notify.set(agent, None);
            of.asserted.set(agent, None);
        }
    }
}
