// SPDX-License-Identifier: Apache-2.0

//! Power domains: on while an agent or a domain within wants it.

use serde::Deserialize;

use crate::platform::{AgentId, DEEPEST, Kind, Platform, Votes, at, at_mut};
use crate::wire::{Event, Status};

/// The state of a domain that has power (SCMI 3.2, 4.3.1).
pub const POWER_ON: u32 = 0;
/// The state of a domain that has none, and lost its context.
pub const POWER_OFF: u32 = 1 << 30;

/// A power domain, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PowerSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// The domain that must be on for this one.
    pub parent: Option<String>,
    /// Is never off.
    pub always_on: bool,
    /// `linux` back end: the host's own power domain of this name, which the kernel module
    /// agl-virtio-resources shows.
    pub host: Option<String>,
}

/// A power domain.
#[derive(Clone, Debug)]
pub struct PowerDomain {
    /// As configured.
    pub spec: PowerSpec,
    /// The domain that must be on for this one.
    pub parent: Option<usize>,
    /// Who wants to hear of changes.
    pub notify: Votes<()>,
    pub(super) on: Votes<()>,
}

impl PowerDomain {
    /// A domain that nobody wants yet.
    #[must_use]
    pub fn new(spec: PowerSpec, parent: Option<usize>) -> Self {
        Self {
            spec,
            parent,
            notify: Votes::default(),
            on: Votes::default(),
        }
    }

    /// Agents that want it on.
    #[must_use]
    pub fn wanted_by(&self) -> u64 {
        self.on.bits()
    }
}

impl Platform {
    /// Whether a domain has power.
    #[must_use]
    pub fn is_powered(&self, domain: usize) -> bool {
        // Upwards from what is wanted, as for clocks.
        self.power.iter().enumerate().any(|(place, of)| {
            let wanted = of.spec.always_on || of.on.all().next().is_some();
            wanted && self.is_within(place, domain)
        })
    }

    /// Whether a domain is another one, or lies within it.
    fn is_within(&self, inner: usize, domain: usize) -> bool {
        let mut next = Some(inner);
        for _ in 0..=DEEPEST {
            match next {
                Some(place) if place == domain => return true,
                Some(place) => next = self.power.get(place).and_then(|of| of.parent),
                None => return false,
            }
        }
        false
    }

    /// The state of a domain on the wire.
    #[must_use]
    pub fn power_state(&self, domain: usize) -> u32 {
        if self.is_powered(domain) {
            POWER_ON
        } else {
            POWER_OFF
        }
    }

    /// An agent wants a domain on, or not any more.
    ///
    /// # Errors
    /// [`Status::Denied`], [`Status::InvalidParameters`] for a state that is neither on nor off.
    pub fn vote_power(&mut self, agent: AgentId, domain: usize, state: u32) -> Result<(), Status> {
        self.may_set(agent, Kind::Power, domain)?;
        let vote = match state {
            POWER_ON => Some(()),
            POWER_OFF => None,
            _ => return Err(Status::InvalidParameters),
        };
        at(&self.power, domain)?;
        self.change_power(agent, domain, vote);
        Ok(())
    }

    fn change_power(&mut self, cause: AgentId, domain: usize, vote: Option<()>) {
        let mut lineage = [None; DEEPEST + 1];
        let mut next = Some(domain);
        for place in &mut lineage {
            *place = next.map(|domain| (domain, self.power_state(domain)));
            next = next.and_then(|domain| self.power.get(domain)?.parent);
        }
        if let Ok(of) = at_mut(&mut self.power, domain) {
            of.on.set(cause, vote);
        }
        for (domain, before) in lineage.into_iter().flatten() {
            let state = self.power_state(domain);
            if state == before {
                continue;
            }
            let hear = self.power.get(domain).map_or(0, |of| of.notify.bits());
            self.notify(hear, Kind::Power, domain, |number| {
                Event::notification(0x11, 0, &[cause.number(), number, state])
            });
        }
        self.changed();
    }

    pub(super) fn release_power(&mut self, agent: AgentId) {
        for domain in 0..self.power.len() {
            if let Some(of) = self.power.get_mut(domain) {
                of.notify.set(agent, None);
            }
            self.change_power(agent, domain, None);
        }
    }
}
