// SPDX-License-Identifier: Apache-2.0

//! The clock tree. A clock is on while an agent or one of its children wants it; its rate is the
//! highest that an agent asked for; its parent belongs to who chose it first.

use serde::Deserialize;

use crate::platform::{AgentId, Kind, Limits, Platform, Votes, at, at_mut};
use crate::wire::{Event, Status};

/// A clock, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ClockSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// The rates it can have, in Hz.
    pub rates: Vec<u64>,
    /// Or the least rate, the most and the step between, in Hz.
    pub range: Option<[u64; 3]>,
    /// Its rate while nobody asks for one, in Hz; without it the least.
    pub rate: Option<u64>,
    /// The clocks it can be fed by; the first is in use at the start. A clock without rates of its
    /// own has its parent's.
    pub parents: Vec<String>,
    /// Is never off.
    pub always_on: bool,
    /// How long it takes to come on, in µs.
    pub enable_latency_us: u32,
    /// How long a change of the rate takes, in µs: for asynchronous requests.
    pub settle_us: u64,
    /// Duty cycle and phase can be set.
    pub duty_and_phase: bool,
    /// `linux` back end: the host's own clock of this name, which the kernel module
    /// agl-virtio-resources shows.
    pub host: Option<String>,
}

/// The rates a clock can have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rates {
    /// These, in rising order.
    Discrete(Vec<u64>),
    /// From the first to the second in steps of the third.
    Stepped(u64, u64, u64),
    /// Its parent's.
    Parent,
}

/// How a rate between two possible ones is rounded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rounding {
    /// To the next lower.
    Down,
    /// To the next higher.
    Up,
    /// To the nearest.
    Nearest,
}

impl Rates {
    /// The least and the most.
    #[must_use]
    pub fn bounds(&self) -> Option<(u64, u64)> {
        match self {
            Self::Discrete(rates) => Some((*rates.first()?, *rates.last()?)),
            Self::Stepped(min, max, _) => Some((*min, *max)),
            Self::Parent => None,
        }
    }

    /// The possible rate for a wish.
    #[must_use]
    pub fn round(&self, wish: u64, rounding: Rounding) -> Option<u64> {
        let (below, above) = match self {
            Self::Discrete(rates) => (
                rates.iter().copied().rev().find(|rate| *rate <= wish),
                rates.iter().copied().find(|rate| *rate >= wish),
            ),
            Self::Stepped(min, max, step) => {
                let offset = wish.saturating_sub(*min);
                let past = offset.checked_rem(*step).unwrap_or(0);
                let below = wish
                    .min(*max)
                    .saturating_sub(if wish < *max { past } else { 0 });
                let above = if past == 0 {
                    wish
                } else {
                    below.saturating_add(*step).min(*max)
                };
                (
                    (wish >= *min).then_some(below),
                    (wish <= *max).then_some(above.max(*min)),
                )
            }
            Self::Parent => return None,
        };
        match rounding {
            Rounding::Down => below,
            Rounding::Up => above,
            Rounding::Nearest => match (below, above) {
                (Some(below), Some(above)) => {
                    let down = wish.abs_diff(below) <= wish.abs_diff(above);
                    Some(if down { below } else { above })
                }
                (one, other) => one.or(other),
            },
        }
    }

    /// What is left of the rates within limits, for an agent that may not leave them.
    #[must_use]
    pub fn within(&self, limits: Limits) -> Self {
        match self {
            Self::Discrete(rates) => {
                let allowed = rates.iter().copied().filter(|rate| limits.allow_u64(*rate));
                Self::Discrete(allowed.collect())
            }
            Self::Stepped(min, max, step) => {
                let least = u64::try_from(limits.min).unwrap_or(0).max(*min);
                let most = u64::try_from(limits.max).unwrap_or(0).min(*max);
                let least = self.round(least, Rounding::Up).unwrap_or(*min);
                let most = self.round(most, Rounding::Down).unwrap_or(*min);
                Self::Stepped(least, most.max(least), *step)
            }
            Self::Parent => Self::Parent,
        }
    }
}

/// A clock.
#[derive(Clone, Debug)]
pub struct Clock {
    /// As configured.
    pub spec: ClockSpec,
    /// Its rates.
    pub rates: Rates,
    /// The clocks it can be fed by.
    pub parents: Vec<usize>,
    /// Who wants to hear of new rates.
    pub notify: Votes<()>,
    /// Who wants to hear of wishes for new rates.
    pub notify_requests: Votes<()>,
    pub(super) on: Votes<()>,
    pub(super) rate_votes: Votes<u64>,
    pub(super) parent_votes: Votes<u32>,
    /// In per cent.
    pub(super) duty: Votes<u32>,
    /// In degrees.
    pub(super) phase: Votes<u32>,
    /// The rate of the host's clock, once the host has told it.
    pub(super) host_rate: Option<u64>,
}

impl Clock {
    /// A clock that nobody wants yet.
    #[must_use]
    pub fn new(spec: ClockSpec, parents: Vec<usize>) -> Self {
        let mut rates = spec.rates.clone();
        rates.sort_unstable();
        rates.dedup();
        let rates = match spec.range {
            Some([min, max, step]) => Rates::Stepped(min, max, step),
            None if rates.is_empty() => Rates::Parent,
            None => Rates::Discrete(rates),
        };
        Self {
            spec,
            rates,
            parents,
            notify: Votes::default(),
            notify_requests: Votes::default(),
            on: Votes::default(),
            rate_votes: Votes::default(),
            parent_votes: Votes::default(),
            duty: Votes::default(),
            phase: Votes::default(),
            host_rate: None,
        }
    }

    fn own_rate(&self) -> u64 {
        let idle = self
            .spec
            .rate
            .or(self.rates.bounds().map(|(least, _)| least));
        self.rate_votes.all().max().or(idle).unwrap_or(0)
    }

    /// The clock that feeds it.
    #[must_use]
    pub fn parent(&self) -> Option<usize> {
        let place = self.parent_votes.all().next().unwrap_or(0);
        self.parents.get(usize::try_from(place).ok()?).copied()
    }

    /// Agents that want it on.
    #[must_use]
    pub fn wanted_by(&self) -> u64 {
        self.on.bits()
    }

    /// The rate that an agent asked for.
    #[must_use]
    pub fn rate_wish(&self, agent: AgentId) -> Option<u64> {
        self.rate_votes.of(agent)
    }

    /// The duty cycle in per cent: the newest wish of the highest agent.
    #[must_use]
    pub fn duty_cycle(&self) -> u32 {
        self.duty.all().last().unwrap_or(50)
    }

    /// The phase in degrees.
    #[must_use]
    pub fn phase_angle(&self) -> u32 {
        self.phase.all().last().unwrap_or(0)
    }
}

/// Parents of parents at most, of clocks and of power domains; a deeper tree is refused.
pub const DEEPEST: usize = 32;

impl Platform {
    /// The rate of a clock in Hz.
    #[must_use]
    pub fn clock_rate(&self, clock: usize) -> u64 {
        let mut clock = clock;
        for _ in 0..=DEEPEST {
            let Some(of) = self.clocks.get(clock) else {
                return 0;
            };
            if let Some(rate) = of.host_rate {
                return rate;
            }
            match (&of.rates, of.parent()) {
                (Rates::Parent, Some(parent)) => clock = parent,
                _ => return of.own_rate(),
            }
        }
        0
    }

    /// Whether a clock runs: somebody wants it, or what it feeds.
    #[must_use]
    pub fn clock_is_on(&self, clock: usize) -> bool {
        // From each clock that is wanted up to what feeds it: a search downwards would take the
        // square of the number of clocks, and guests may ask as often as they like.
        self.clocks.iter().enumerate().any(|(place, of)| {
            let wanted = of.spec.always_on || of.on.all().next().is_some();
            wanted && self.feeds(clock, place)
        })
    }

    /// Whether a clock is another one, or feeds it.
    fn feeds(&self, clock: usize, fed: usize) -> bool {
        let mut next = Some(fed);
        for _ in 0..=DEEPEST {
            match next {
                Some(place) if place == clock => return true,
                Some(place) => next = self.clocks.get(place).and_then(Clock::parent),
                None => return false,
            }
        }
        false
    }

    /// An agent wants a clock on, or not any more.
    ///
    /// # Errors
    /// [`Status::Denied`].
    pub fn switch_clock(&mut self, agent: AgentId, clock: usize, on: bool) -> Result<(), Status> {
        self.may_set(agent, Kind::Clock, clock)?;
        at_mut(&mut self.clocks, clock)?
            .on
            .set(agent, on.then_some(()));
        self.changed();
        Ok(())
    }

    /// The rate that a clock would have for a wish of an agent.
    ///
    /// # Errors
    /// [`Status::Denied`] by right or limits, [`Status::OutOfRange`] beyond what the clock can do.
    pub fn possible_rate(
        &mut self,
        agent: AgentId,
        clock: usize,
        wish: u64,
        rounding: Rounding,
    ) -> Result<u64, Status> {
        let limits = self.may_set(agent, Kind::Clock, clock)?;
        let current = self.clock_rate(clock);
        let of = at(&self.clocks, clock)?;
        if of.rates == Rates::Parent {
            // It has no rate of its own: only to wish for what is there changes nothing.
            return if wish == current {
                Ok(current)
            } else {
                Err(Status::InvalidParameters)
            };
        }
        let rate = of.rates.round(wish, rounding).ok_or(Status::OutOfRange)?;
        if limits.allow_u64(rate) {
            Ok(rate)
        } else {
            Err(self.denied(agent))
        }
    }

    /// An agent wants this rate, one that [`Platform::possible_rate`] gave.
    ///
    /// # Errors
    /// [`Status::NotFound`] where there is no such clock.
    pub fn vote_rate(&mut self, agent: AgentId, clock: usize, rate: u64) -> Result<(), Status> {
        let before = self.clock_rate(clock);
        let of = at_mut(&mut self.clocks, clock)?;
        if of.rates != Rates::Parent {
            of.rate_votes.set(agent, Some(rate));
        }
        let requests = of.notify_requests.bits() & !agent.bit();
        self.notify(requests, Kind::Clock, clock, |number| {
            rate_event(1, agent.number(), number, rate)
        });
        if self.clock_rate(clock) != before {
            self.announce_rate(agent.number(), clock, DEEPEST);
        }
        self.changed();
        Ok(())
    }

    /// The host has told the rate of one of its clocks.
    pub(super) fn host_rate(&mut self, clock: usize, rate: u64, cause: Option<AgentId>) {
        let before = self.clock_rate(clock);
        if let Some(of) = self.clocks.get_mut(clock) {
            of.host_rate = Some(rate);
        }
        if rate != before {
            self.announce_rate(cause.map_or(0, AgentId::number), clock, DEEPEST);
        }
    }

    /// Tells of a new rate, and of those that follow it. The platform itself is agent 0.
    fn announce_rate(&mut self, cause: u32, clock: usize, depth: usize) {
        let rate = self.clock_rate(clock);
        let Some(of) = self.clocks.get(clock) else {
            return;
        };
        let subscribers = of.notify.bits();
        self.notify(subscribers, Kind::Clock, clock, |number| {
            rate_event(0, cause, number, rate)
        });
        if depth == 0 {
            return;
        }
        for child in 0..self.clocks.len() {
            let follows = self
                .clocks
                .get(child)
                .is_some_and(|of| of.rates == Rates::Parent && of.parent() == Some(clock));
            if follows {
                self.announce_rate(cause, child, depth.saturating_sub(1));
            }
        }
    }

    /// An agent feeds a clock by another parent.
    ///
    /// # Errors
    /// [`Status::Denied`] by right, for a parent whose rate is beyond the agent's limits, or while
    /// another agent has chosen a parent;
    /// [`Status::InvalidParameters`] for a clock that is no parent of it.
    pub fn choose_parent(
        &mut self,
        agent: AgentId,
        clock: usize,
        parent: usize,
    ) -> Result<(), Status> {
        let limits = self.may_set(agent, Kind::Clock, clock)?;
        let before = self.clock_rate(clock);
        let of = at_mut(&mut self.clocks, clock)?;
        let place = of.parents.iter().position(|other| *other == parent);
        let place = place.and_then(|place| u32::try_from(place).ok());
        let place = place.ok_or(Status::InvalidParameters)?;
        let elsewhere = of
            .parent_votes
            .by_agent()
            .any(|(other, vote)| other != agent && vote != place);
        if elsewhere {
            return Err(self.denied(agent));
        }
        let chosen = of.parent_votes.of(agent);
        of.parent_votes.set(agent, Some(place));
        let rate = self.clock_rate(clock);
        if rate != before && !limits.allow_u64(rate) {
            // A parent is no way around limits.
            at_mut(&mut self.clocks, clock)?
                .parent_votes
                .set(agent, chosen);
            return Err(self.denied(agent));
        }
        if rate != before {
            self.announce_rate(agent.number(), clock, DEEPEST);
        }
        self.changed();
        Ok(())
    }

    /// An agent sets duty cycle (per cent) or phase (degrees).
    ///
    /// # Errors
    /// [`Status::Denied`], [`Status::NotSupported`], [`Status::OutOfRange`].
    pub fn shape_clock(
        &mut self,
        agent: AgentId,
        clock: usize,
        what: ClockShape,
        value: u32,
    ) -> Result<(), Status> {
        self.may_set(agent, Kind::Clock, clock)?;
        let of = at_mut(&mut self.clocks, clock)?;
        if !of.spec.duty_and_phase {
            return Err(Status::NotSupported);
        }
        let (votes, most) = match what {
            ClockShape::Duty => (&mut of.duty, 100),
            ClockShape::Phase => (&mut of.phase, 359),
        };
        if value > most {
            return Err(Status::OutOfRange);
        }
        votes.set(agent, Some(value));
        self.changed();
        Ok(())
    }

    pub(super) fn release_clocks(&mut self, agent: AgentId) {
        for clock in 0..self.clocks.len() {
            let before = self.clock_rate(clock);
            if let Some(of) = self.clocks.get_mut(clock) {
                of.notify.set(agent, None);
                of.notify_requests.set(agent, None);
                of.on.set(agent, None);
                of.rate_votes.set(agent, None);
                of.parent_votes.set(agent, None);
                of.duty.set(agent, None);
                of.phase.set(agent, None);
            }
            if self.clock_rate(clock) != before {
                self.announce_rate(agent.number(), clock, DEEPEST);
            }
        }
    }
}

/// What else can be set of a clock (CLOCK_CONFIG_SET, extended configuration types).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClockShape {
    /// Type 1.
    Duty,
    /// Type 2.
    Phase,
}

fn rate_event(message: u8, cause: u32, number: u32, rate: u64) -> Event {
    let mut event = Event::notification(0x14, message, &[cause, number]);
    event.put(&rate.to_le_bytes());
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_round_as_asked_and_never_leave_their_bounds() {
        let discrete = Rates::Discrete(vec![100, 200, 400]);
        let stepped = Rates::Stepped(100, 450, 100);
        let table = [
            (&discrete, 250, Rounding::Down, Some(200)),
            (&discrete, 250, Rounding::Up, Some(400)),
            (&discrete, 299, Rounding::Nearest, Some(200)),
            (&discrete, 301, Rounding::Nearest, Some(400)),
            (&discrete, 400, Rounding::Up, Some(400)),
            (&discrete, 401, Rounding::Up, None),
            (&discrete, 401, Rounding::Down, Some(400)),
            (&discrete, 99, Rounding::Down, None),
            (&discrete, 99, Rounding::Nearest, Some(100)),
            (&stepped, 250, Rounding::Down, Some(200)),
            (&stepped, 250, Rounding::Up, Some(300)),
            (&stepped, 300, Rounding::Up, Some(300)),
            (&stepped, 449, Rounding::Up, Some(450)),
            (&stepped, 450, Rounding::Up, Some(450)),
            (&stepped, 1000, Rounding::Down, Some(450)),
            (&stepped, 1000, Rounding::Up, None),
            (&stepped, 99, Rounding::Down, None),
            (&stepped, 99, Rounding::Up, Some(100)),
            (&Rates::Parent, 99, Rounding::Up, None),
        ];
        for (rates, wish, rounding, expected) in table {
            assert_eq!(
                rates.round(wish, rounding),
                expected,
                "{rates:?} {wish} {rounding:?}"
            );
        }
    }

    #[test]
    fn limits_leave_the_rates_that_are_within_them() {
        let limits = Limits { min: 150, max: 420 };
        let discrete = Rates::Discrete(vec![100, 200, 400, 500]);
        assert_eq!(discrete.within(limits), Rates::Discrete(vec![200, 400]));
        let stepped = Rates::Stepped(100, 500, 100);
        assert_eq!(stepped.within(limits), Rates::Stepped(200, 400, 100));
        assert_eq!(stepped.within(Limits::NONE), stepped);
    }
}
