// SPDX-License-Identifier: Apache-2.0

//! Power capping domains: the lowest cap that an agent asked for holds.

use serde::Deserialize;

use crate::backend::Job;
use crate::platform::{AgentId, Kind, Platform, Votes, Waveform, at, at_mut};
use crate::wire::{Event, Status};

/// A power capping domain, as configured. All power in µW.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowercapSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// The domain around it.
    pub parent: Option<String>,
    /// The least cap.
    pub min: u32,
    /// The most; also the cap while nobody asks for one.
    pub max: u32,
    /// The step between caps.
    pub step: u32,
    /// What it can use for ever.
    pub sustainable: u32,
    /// Time over which power is averaged, in µs.
    pub interval_us: u32,
    /// How long a change takes, in µs; from 1 on it can be asked for asynchronously.
    pub settle_us: u64,
    /// What a simulated domain would use without a cap.
    pub draw: Waveform,
    /// `linux` back end: the zone below class/powercap (`intel-rapl:0`).
    pub zone: Option<String>,
}

/// A power capping domain.
#[derive(Clone, Debug)]
pub struct Powercap {
    /// As configured.
    pub spec: PowercapSpec,
    /// The domain around it.
    pub parent: Option<usize>,
    /// Who wants to hear of new caps.
    pub notify: Votes<()>,
    pub(super) cap_votes: Votes<u32>,
}

impl Powercap {
    /// A domain without wishes.
    #[must_use]
    pub fn new(spec: PowercapSpec, parent: Option<usize>) -> Self {
        Self {
            spec,
            parent,
            notify: Votes::default(),
            cap_votes: Votes::default(),
        }
    }

    /// The cap that holds.
    #[must_use]
    pub fn cap(&self) -> u32 {
        self.cap_votes.all().min().unwrap_or(self.spec.max)
    }

    /// What it uses at an instant.
    #[must_use]
    pub fn power(&self, now: std::time::Duration) -> u32 {
        u32::try_from(self.spec.draw.at(now))
            .unwrap_or(0)
            .min(self.cap())
    }
}

impl Platform {
    /// Whether an agent may set a cap.
    ///
    /// # Errors
    /// [`Status::Denied`] by right or limits, [`Status::OutOfRange`],
    /// [`Status::InvalidParameters`] for what is between two steps.
    pub fn check_cap(&mut self, agent: AgentId, domain: usize, cap: u32) -> Result<(), Status> {
        let limits = self.may_set(agent, Kind::Powercap, domain)?;
        let spec = &at(&self.powercaps, domain)?.spec;
        if !(spec.min..=spec.max).contains(&cap) {
            return Err(Status::OutOfRange);
        }
        if cap
            .saturating_sub(spec.min)
            .checked_rem(spec.step)
            .unwrap_or(0)
            != 0
        {
            return Err(Status::InvalidParameters);
        }
        if limits.allow(cap.into()) {
            Ok(())
        } else {
            Err(self.denied(agent))
        }
    }

    /// An agent wants a cap that [`Platform::check_cap`] allowed.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn vote_cap(&mut self, agent: AgentId, domain: usize, cap: u32) -> Result<(), Status> {
        at(&self.powercaps, domain)?;
        self.change_cap(agent, domain, Some(cap));
        Ok(())
    }

    fn change_cap(&mut self, cause: AgentId, domain: usize, vote: Option<u32>) {
        let Ok(of) = at_mut(&mut self.powercaps, domain) else {
            return;
        };
        let before = of.cap();
        of.cap_votes.set(cause, vote);
        let (cap, pai, hear) = (of.cap(), of.spec.interval_us, of.notify.bits());
        if of.spec.zone.is_some() && cap != before {
            self.jobs.push(Job::Cap {
                domain,
                microwatts: cap,
            });
        }
        if cap != before {
            self.notify(hear, Kind::Powercap, domain, |number| {
                Event::notification(0x18, 0, &[cause.number(), number, cap, pai])
            });
        }
        self.changed();
    }

    pub(super) fn release_powercaps(&mut self, agent: AgentId) {
        for domain in 0..self.powercaps.len() {
            if let Some(of) = self.powercaps.get_mut(domain) {
                of.notify.set(agent, None);
            }
            self.change_cap(agent, domain, None);
        }
    }
}
