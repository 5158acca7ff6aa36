// SPDX-License-Identifier: Apache-2.0

//! Voltage domains: on while an agent wants it, at the highest voltage that an agent asked for.

use serde::Deserialize;

use crate::platform::{AgentId, Kind, Limits, Platform, Votes, at, at_mut};
use crate::wire::Status;

/// A voltage domain, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct VoltageSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// The voltages it can have, in µV.
    pub levels: Vec<i32>,
    /// Or the least, the most and the step between, in µV.
    pub range: Option<[i32; 3]>,
    /// Its voltage while nobody asks for one, in µV; without it the least.
    pub level: Option<i32>,
    /// Is never off.
    pub always_on: bool,
    /// How long a change takes, in µs; from 1 on it can be asked for asynchronously.
    pub settle_us: u64,
    /// `linux` back end: the host's own regulator of this name, which the kernel module
    /// agl-virtio-resources shows.
    pub host: Option<String>,
}

/// The voltages a domain can have, in µV.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Volts {
    /// These, in rising order.
    Discrete(Vec<i32>),
    /// From the first to the second in steps of the third.
    Stepped(i32, i32, i32),
}

impl Volts {
    /// Whether it can have this voltage.
    #[must_use]
    pub fn contains(&self, level: i32) -> bool {
        match self {
            Self::Discrete(levels) => levels.contains(&level),
            Self::Stepped(least, most, step) => {
                let past = i64::from(level).saturating_sub((*least).into());
                (*least..=*most).contains(&level)
                    && past.checked_rem((*step).into()).unwrap_or(0) == 0
            }
        }
    }

    /// The least and the most.
    #[must_use]
    pub fn bounds(&self) -> (i32, i32) {
        (self.least(), self.most())
    }

    /// What is left of the voltages within limits, for an agent that may not leave them.
    #[must_use]
    pub fn within(&self, limits: Limits) -> Self {
        match self {
            Self::Discrete(levels) => {
                let allowed = levels.iter().copied();
                Self::Discrete(allowed.filter(|of| limits.allow((*of).into())).collect())
            }
            Self::Stepped(least, most, step) => {
                let [low, high, by] = [*least, *most, *step].map(i64::from);
                let past = |value: i64| value.saturating_sub(low).checked_rem(by).unwrap_or(0);
                let bottom = limits.min.clamp(low, high);
                let bottom = match past(bottom) {
                    0 => bottom,
                    past => bottom.saturating_sub(past).saturating_add(by),
                };
                let top = limits.max.clamp(low, high);
                let top = top.saturating_sub(past(top));
                let narrow = |value: i64| i32::try_from(value).unwrap_or(*least);
                Self::Stepped(narrow(bottom), narrow(top.max(bottom)), *step)
            }
        }
    }

    fn least(&self) -> i32 {
        match self {
            Self::Discrete(levels) => levels.first().copied().unwrap_or(0),
            Self::Stepped(least, ..) => *least,
        }
    }

    fn most(&self) -> i32 {
        match self {
            Self::Discrete(levels) => levels.last().copied().unwrap_or(0),
            Self::Stepped(_, most, _) => *most,
        }
    }
}

/// A voltage domain.
#[derive(Clone, Debug)]
pub struct Voltage {
    /// As configured.
    pub spec: VoltageSpec,
    /// Its voltages.
    pub volts: Volts,
    pub(super) on: Votes<()>,
    pub(super) level_votes: Votes<i32>,
}

impl Voltage {
    /// A domain that nobody wants yet.
    #[must_use]
    pub fn new(spec: VoltageSpec) -> Self {
        let volts = match spec.range {
            Some([least, most, step]) => Volts::Stepped(least, most, step),
            None => {
                let mut levels = spec.levels.clone();
                levels.sort_unstable();
                levels.dedup();
                Volts::Discrete(levels)
            }
        };
        Self {
            spec,
            volts,
            on: Votes::default(),
            level_votes: Votes::default(),
        }
    }

    /// Its voltage in µV while it is on.
    #[must_use]
    pub fn level(&self) -> i32 {
        let idle = self.spec.level.unwrap_or_else(|| self.volts.least());
        self.level_votes.all().max().unwrap_or(idle)
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.spec.always_on || self.on.all().next().is_some()
    }

    /// Agents that want it on.
    #[must_use]
    pub fn wanted_by(&self) -> u64 {
        self.on.bits()
    }
}

impl Platform {
    /// An agent wants a domain on, or not any more.
    ///
    /// # Errors
    /// [`Status::Denied`].
    pub fn switch_voltage(
        &mut self,
        agent: AgentId,
        domain: usize,
        on: bool,
    ) -> Result<(), Status> {
        self.may_set(agent, Kind::Voltage, domain)?;
        at_mut(&mut self.voltages, domain)?
            .on
            .set(agent, on.then_some(()));
        self.changed();
        Ok(())
    }

    /// Whether an agent may have a voltage.
    ///
    /// # Errors
    /// [`Status::Denied`] by right or limits, [`Status::OutOfRange`] beyond what the domain can
    /// do, [`Status::InvalidParameters`] for what is between its levels.
    pub fn check_voltage(
        &mut self,
        agent: AgentId,
        domain: usize,
        level: i32,
    ) -> Result<(), Status> {
        let limits = self.may_set(agent, Kind::Voltage, domain)?;
        let of = at(&self.voltages, domain)?;
        if level < of.volts.least() || level > of.volts.most() {
            return Err(Status::OutOfRange);
        }
        if !of.volts.contains(level) {
            return Err(Status::InvalidParameters);
        }
        if limits.allow(level.into()) {
            Ok(())
        } else {
            Err(self.denied(agent))
        }
    }

    /// An agent wants a voltage that [`Platform::check_voltage`] allowed.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn vote_voltage(
        &mut self,
        agent: AgentId,
        domain: usize,
        level: i32,
    ) -> Result<(), Status> {
        at_mut(&mut self.voltages, domain)?
            .level_votes
            .set(agent, Some(level));
        self.changed();
        Ok(())
    }

    pub(super) fn release_voltages(&mut self, agent: AgentId) {
        for of in &mut self.voltages {
            of.on.set(agent, None);
            of.level_votes.set(agent, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_leave_the_voltages_that_are_within_them() {
        let limits = Limits { min: 25, max: 45 };
        let stepped = Volts::Stepped(10, 50, 10);
        assert_eq!(stepped.within(limits), Volts::Stepped(30, 40, 10));
        assert_eq!(stepped.within(Limits::NONE), stepped);
        let discrete = Volts::Discrete(vec![10, 30, 50]);
        assert_eq!(discrete.within(limits), Volts::Discrete(vec![30]));
    }
}
