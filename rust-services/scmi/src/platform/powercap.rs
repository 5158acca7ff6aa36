// SPDX-License-Identifier: Apache-2.0

//! Power capping domains: the lowest cap that an agent asked for holds, and the shortest time over
//! which power is averaged.

use std::time::Duration;

use serde::Deserialize;

use crate::backend::{Job, Ticket};
use crate::platform::{AgentId, Kind, Platform, Votes, Waveform, at, at_mut};
use crate::wire::{Event, Status};

/// A power capping domain, as configured. All power in µW.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
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
    /// The shortest such time that an agent may ask for, the longest, and the step between, in µs;
    /// without it the time is fixed.
    pub interval_range: Option<[u32; 3]>,
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
    pub(super) interval_votes: Votes<u32>,
    /// Who wants to hear when power leaves the range between these, in µW.
    pub(super) watchers: Votes<(u32, u32)>,
    /// Where the power was when each of them was told last.
    told: Votes<Place>,
    next_look: Option<Duration>,
}

/// Where power is, as somebody sees it who watches a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Below,
    Within,
    Above,
}

/// The shortest time between two looks at power that somebody watches.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);
/// Readings that make a simulated average.
const SAMPLES: u32 = 8;

impl Powercap {
    /// A domain without wishes.
    #[must_use]
    pub fn new(spec: PowercapSpec, parent: Option<usize>) -> Self {
        Self {
            spec,
            parent,
            notify: Votes::default(),
            cap_votes: Votes::default(),
            interval_votes: Votes::default(),
            watchers: Votes::default(),
            told: Votes::default(),
            next_look: None,
        }
    }

    /// The cap that holds; 0 where an agent has switched it off and no other wants one.
    #[must_use]
    pub fn cap(&self) -> u32 {
        let lowest = self.cap_votes.all().filter(|cap| *cap > 0).min();
        let without = self.cap_votes.all().min().unwrap_or(self.spec.max);
        lowest.unwrap_or(without)
    }

    /// What it may use.
    fn most(&self) -> u32 {
        match self.cap() {
            0 => u32::MAX,
            cap => cap,
        }
    }

    /// The time over which power is averaged, in µs.
    #[must_use]
    pub fn interval(&self) -> u32 {
        let shortest = self.interval_votes.all().min();
        shortest.unwrap_or(self.spec.interval_us)
    }

    /// What a simulated domain used on average in the interval before an instant.
    #[must_use]
    pub fn power(&self, now: Duration) -> u32 {
        let step = Duration::from_micros(self.interval().into())
            .checked_div(SAMPLES)
            .unwrap_or_default();
        let cap = u64::from(self.most());
        let mut at = now;
        let mut sum = 0_u64;
        for _ in 0..SAMPLES {
            let drawn = u64::try_from(self.spec.draw.at(at)).unwrap_or(0);
            sum = sum.saturating_add(drawn.min(cap));
            at = at.saturating_sub(step);
        }
        let average = sum.checked_div(SAMPLES.into()).unwrap_or(0);
        u32::try_from(average).unwrap_or(u32::MAX)
    }

    /// Whether the back end has it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.spec.zone.is_some()
    }

    /// Agents that asked for a cap.
    #[must_use]
    pub fn wanted_by(&self) -> u64 {
        let votes = self.cap_votes.by_agent();
        votes.fold(0, |bits, (agent, _)| bits | agent.bit())
    }

    /// When to look next at what somebody watches: power is new once per interval.
    fn plan(&mut self, now: Duration) {
        let watched = self.watchers.all().next().is_some();
        let interval = Duration::from_micros(self.interval().into()).max(SHORTEST_LOOK);
        self.next_look = watched.then(|| now.saturating_add(interval));
    }

    /// The agents that are to hear of a power now.
    fn leaving(&mut self, power: u32) -> u64 {
        let mut hear = 0;
        let watchers: Vec<_> = self.watchers.by_agent().collect();
        for (agent, (low, high)) in watchers {
            let place = if power < low {
                Place::Below
            } else if power > high {
                Place::Above
            } else {
                Place::Within
            };
            if self.told.of(agent) != Some(place) && place != Place::Within {
                hear |= agent.bit();
            }
            self.told.set(agent, Some(place));
        }
        hear
    }
}

impl Platform {
    /// Whether an agent may set a cap, or switch it off with 0.
    ///
    /// # Errors
    /// [`Status::Denied`] by right or limits, [`Status::OutOfRange`],
    /// [`Status::InvalidParameters`] for what is between two steps.
    pub fn check_cap(&mut self, agent: AgentId, domain: usize, cap: u32) -> Result<(), Status> {
        let limits = self.may_set(agent, Kind::Powercap, domain)?;
        let spec = &at(&self.powercaps, domain)?.spec;
        if cap == 0 {
            // Who may not go beyond a cap may not be without one either.
            let bounded = limits.max < i64::from(spec.max);
            return if bounded {
                Err(self.denied(agent))
            } else {
                Ok(())
            };
        }
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
        let (cap, pai, hear) = (of.cap(), of.interval(), of.notify.bits());
        if of.is_bound() && cap != before {
            let microwatts = if cap == 0 { of.spec.max } else { cap };
            self.jobs.push(Job::Cap { domain, microwatts });
        }
        if cap != before {
            self.notify(hear, Kind::Powercap, domain, |number| {
                Event::notification(0x18, 0, &[cause.number(), number, cap, pai])
            });
        }
        self.changed();
    }

    /// An agent wants power averaged over this time, in µs.
    ///
    /// # Errors
    /// [`Status::Denied`], [`Status::NotSupported`] where the time is fixed,
    /// [`Status::OutOfRange`], [`Status::InvalidParameters`] for what is between two steps.
    pub fn vote_interval(
        &mut self,
        agent: AgentId,
        domain: usize,
        interval: u32,
    ) -> Result<(), Status> {
        self.may_set(agent, Kind::Powercap, domain)?;
        let of = at_mut(&mut self.powercaps, domain)?;
        let [least, most, step] = of.spec.interval_range.ok_or(Status::NotSupported)?;
        if !(least..=most).contains(&interval) {
            return Err(Status::OutOfRange);
        }
        let past = interval.saturating_sub(least);
        if past.checked_rem(step).unwrap_or(0) != 0 {
            return Err(Status::InvalidParameters);
        }
        let before = of.interval();
        of.interval_votes.set(agent, Some(interval));
        self.announce_interval(agent, domain, before);
        self.changed();
        Ok(())
    }

    fn announce_interval(&mut self, cause: AgentId, domain: usize, before: u32) {
        let Some(of) = self.powercaps.get(domain) else {
            return;
        };
        let (cap, pai, hear) = (of.cap(), of.interval(), of.notify.bits());
        if pai != before {
            self.notify(hear, Kind::Powercap, domain, |number| {
                Event::notification(0x18, 0, &[cause.number(), number, cap, pai])
            });
        }
    }

    /// An agent wants to hear when power leaves a range in µW, or not any more.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::InvalidParameters`] for a range upside down.
    pub fn watch_power(
        &mut self,
        agent: AgentId,
        domain: usize,
        range: Option<(u32, u32)>,
        now: Duration,
    ) -> Result<(), Status> {
        let of = at_mut(&mut self.powercaps, domain)?;
        if range.is_some_and(|(low, high)| low > high) {
            return Err(Status::InvalidParameters);
        }
        of.watchers.set(agent, range);
        of.told.set(agent, None);
        of.plan(now);
        self.changed();
        Ok(())
    }

    /// Asks the back end; the answer to the command comes with the ticket.
    pub fn measure_power(&mut self, agent: AgentId, domain: usize) -> Ticket {
        self.hold(agent, |ticket| Job::Power { domain, ticket })
    }

    /// The back end has read a domain's power.
    pub(super) fn power_measured(
        &mut self,
        domain: usize,
        power: Result<u32, Status>,
        ticket: Option<Ticket>,
    ) {
        let interval = self.powercaps.get(domain).map_or(0, Powercap::interval);
        if let Some(ticket) = ticket {
            let words = [power.unwrap_or(0), interval].map(u32::to_le_bytes);
            self.answer(ticket, power.map(drop), words.concat());
        } else if let Ok(power) = power {
            self.tell_power(domain, power);
        }
    }

    fn tell_power(&mut self, domain: usize, power: u32) {
        let Some(of) = self.powercaps.get_mut(domain) else {
            return;
        };
        let hear = of.leaving(power);
        // Nobody's doing: the platform itself is agent 0.
        self.notify(hear, Kind::Powercap, domain, |number| {
            Event::notification(0x18, 1, &[0, number, power])
        });
    }

    /// Looks at the power that somebody watches.
    pub(super) fn look_at_power(&mut self, now: Duration) {
        for domain in 0..self.powercaps.len() {
            let Some(of) = self.powercaps.get_mut(domain) else {
                continue;
            };
            if of.next_look.is_none_or(|at| at > now) {
                continue;
            }
            of.plan(now);
            if of.is_bound() {
                let ticket = None;
                self.jobs.push(Job::Power { domain, ticket });
            } else {
                let power = of.power(now);
                self.tell_power(domain, power);
            }
        }
    }

    pub(super) fn next_power_look(&self) -> Option<Duration> {
        self.powercaps.iter().filter_map(|of| of.next_look).min()
    }

    /// Goes on watching after a restart.
    pub(super) fn plan_power(&mut self, now: Duration) {
        for of in &mut self.powercaps {
            of.plan(now);
        }
    }

    pub(super) fn release_powercaps(&mut self, agent: AgentId) {
        for domain in 0..self.powercaps.len() {
            if let Some(of) = self.powercaps.get_mut(domain) {
                of.notify.set(agent, None);
                of.watchers.set(agent, None);
                of.told.set(agent, None);
                if of.watchers.all().next().is_none() {
                    of.next_look = None;
                }
                let before = of.interval();
                of.interval_votes.set(agent, None);
                self.announce_interval(agent, domain, before);
            }
            self.change_cap(agent, domain, None);
        }
    }
}
