// SPDX-License-Identifier: Apache-2.0

//! Performance domains: the highest level that an agent asked for, within what all agents' limits
//! have in common.

use serde::Deserialize;

use crate::backend::Job;
use crate::platform::{AgentId, Kind, Limits, Platform, Votes, at, at_mut};
use crate::wire::{Event, Status};

/// A performance level.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Performance, on any scale that rises.
    pub level: u32,
    /// What it costs, in the unit of [`PerformanceSpec::microwatts`].
    #[serde(default)]
    pub power: u32,
    /// How long a change to it takes, in µs.
    #[serde(default)]
    pub latency_us: u16,
    /// The frequency that belongs to it, in kHz.
    #[serde(default)]
    pub freq_khz: u32,
}

/// A performance domain, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PerformanceSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// Its levels.
    pub levels: Vec<Level>,
    /// The level it can keep for ever; without it the highest.
    pub sustained: Option<u32>,
    /// Its level while nobody asks for one; without it the lowest.
    pub idle: Option<u32>,
    /// Power is in µW instead of mW.
    pub microwatts: bool,
    /// Agents name levels by index instead of by value.
    pub indexed: bool,
    /// Least time between two requests, in µs.
    pub rate_limit_us: u32,
    /// The guest's processors that run at it: for the device tree.
    pub cpus: Vec<u32>,
    /// `linux` back end: the cpufreq policy (`policy0`) that it is.
    pub cpufreq: Option<String>,
    /// `linux` back end: the devfreq device that it is.
    pub devfreq: Option<String>,
}

/// A performance domain.
#[derive(Clone, Debug)]
pub struct Performance {
    /// As configured, levels in rising order.
    pub spec: PerformanceSpec,
    /// Who wants to hear of new limits.
    pub notify_limits: Votes<()>,
    /// Who wants to hear of new levels.
    pub notify_level: Votes<()>,
    pub(super) level_votes: Votes<u32>,
    pub(super) limit_votes: Votes<(u32, u32)>,
}

impl Performance {
    /// A domain that nobody wants anything of yet.
    #[must_use]
    pub fn new(mut spec: PerformanceSpec) -> Self {
        spec.levels.sort_unstable_by_key(|level| level.level);
        Self {
            spec,
            notify_limits: Votes::default(),
            notify_level: Votes::default(),
            level_votes: Votes::default(),
            limit_votes: Votes::default(),
        }
    }

    fn lowest(&self) -> u32 {
        self.spec.levels.first().map_or(0, |level| level.level)
    }

    fn highest(&self) -> u32 {
        self.spec.levels.last().map_or(0, |level| level.level)
    }

    /// The least and the most level that all agents' limits allow. Where they contradict each
    /// other, the lower maximum wins: limits protect the hardware.
    #[must_use]
    pub fn limits(&self) -> (u32, u32) {
        let most = self
            .limit_votes
            .all()
            .map(|(_, max)| max)
            .min()
            .unwrap_or(u32::MAX);
        let most = most.min(self.highest());
        let least = self
            .limit_votes
            .all()
            .map(|(min, _)| min)
            .max()
            .unwrap_or(0);
        (least.max(self.lowest()).min(most), most)
    }

    /// The level it is at.
    #[must_use]
    pub fn level(&self) -> u32 {
        let idle = self.spec.idle.unwrap_or_else(|| self.lowest());
        let wish = self.level_votes.all().max().unwrap_or(idle);
        let (least, most) = self.limits();
        let wish = wish.clamp(least, most);
        let mut at_least = self.spec.levels.iter().map(|level| level.level);
        match at_least.find(|level| *level >= wish) {
            Some(level) if level <= most => level,
            _ => {
                let levels = self.spec.levels.iter().rev().map(|level| level.level);
                levels
                    .into_iter()
                    .find(|level| *level <= wish)
                    .unwrap_or_else(|| self.lowest())
            }
        }
    }

    /// The description of the level it is at.
    #[must_use]
    pub fn current(&self) -> Option<&Level> {
        let level = self.level();
        self.spec.levels.iter().find(|other| other.level == level)
    }

    /// The level that an agent asked for.
    #[must_use]
    pub fn wish(&self, agent: AgentId) -> Option<u32> {
        self.level_votes.of(agent)
    }

    /// The levels an agent may ask for, with their indices.
    pub fn allowed(&self, limits: Limits) -> impl Iterator<Item = (u32, &Level)> {
        (0_u32..)
            .zip(&self.spec.levels)
            .filter(move |(_, level)| limits.allow(level.level.into()))
    }

    /// A level as agents name it: itself, or its index.
    #[must_use]
    pub fn outward(&self, level: u32) -> u32 {
        if !self.spec.indexed {
            return level;
        }
        (0_u32..)
            .zip(&self.spec.levels)
            .filter(|(_, other)| other.level <= level)
            .last()
            .map_or(0, |(index, _)| index)
    }

    /// The level that an agent names.
    ///
    /// # Errors
    /// [`Status::OutOfRange`] for what is none, or beyond the lowest and the highest.
    pub fn inward(&self, level: u32) -> Result<u32, Status> {
        if self.spec.indexed {
            let index = usize::try_from(level).map_err(|_| Status::OutOfRange)?;
            return Ok(at(&self.spec.levels, index)
                .map_err(|_| Status::OutOfRange)?
                .level);
        }
        if (self.lowest()..=self.highest()).contains(&level) {
            Ok(level)
        } else {
            Err(Status::OutOfRange)
        }
    }

    /// Whether a process outside has to be told of new levels.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.spec.cpufreq.is_some() || self.spec.devfreq.is_some()
    }
}

impl Platform {
    /// An agent wants at least this level.
    ///
    /// # Errors
    /// [`Status::Denied`] by right or limits.
    pub fn vote_level(&mut self, agent: AgentId, domain: usize, level: u32) -> Result<(), Status> {
        let limits = self.may_set(agent, Kind::Performance, domain)?;
        if !limits.allow(level.into()) {
            return Err(self.denied(agent));
        }
        // Between two levels the higher one is meant. Where that is beyond what the agent may ask
        // for, it is the highest that is not.
        let of = at(&self.performance, domain)?;
        let above = of.spec.levels.iter().find(|other| other.level >= level);
        let level = match above {
            Some(above) if !limits.allow(above.level.into()) => {
                let highest = of.allowed(limits).last();
                highest.map(|(_, level)| level.level)
            }
            _ => Some(level),
        };
        let Some(level) = level else {
            return Err(self.denied(agent));
        };
        self.change_performance(agent, domain, |of| of.level_votes.set(agent, Some(level)))
    }

    /// An agent wants the level between these.
    ///
    /// # Errors
    /// [`Status::Denied`] by right or limits.
    pub fn vote_limits(
        &mut self,
        agent: AgentId,
        domain: usize,
        least: u32,
        most: u32,
    ) -> Result<(), Status> {
        let limits = self.may_set(agent, Kind::Performance, domain)?;
        if !limits.allow(most.into()) {
            return Err(self.denied(agent));
        }
        self.change_performance(agent, domain, |of| {
            of.limit_votes.set(agent, Some((least, most)));
        })
    }

    fn change_performance(
        &mut self,
        cause: AgentId,
        domain: usize,
        change: impl FnOnce(&mut Performance),
    ) -> Result<(), Status> {
        let of = at_mut(&mut self.performance, domain)?;
        let (level, limits) = (of.level(), of.limits());
        change(of);
        let (new_level, new_limits) = (of.level(), of.limits());
        let of = at(&self.performance, domain)?;
        let outward = [new_limits.1, new_limits.0, new_level].map(|level| of.outward(level));
        let [most, least, now] = outward;
        let (hear_limits, hear_level) = (of.notify_limits.bits(), of.notify_level.bits());
        if limits != new_limits {
            self.notify(hear_limits, Kind::Performance, domain, |number| {
                Event::notification(0x13, 0, &[cause.number(), number, most, least])
            });
        }
        if level != new_level {
            self.notify(hear_level, Kind::Performance, domain, |number| {
                Event::notification(0x13, 1, &[cause.number(), number, now])
            });
        }
        let of = at(&self.performance, domain)?;
        if of.is_bound() && level != new_level {
            if let Some(current) = of.current() {
                let khz = current.freq_khz;
                self.jobs.push(Job::Frequency { domain, khz });
            }
        }
        self.changed();
        Ok(())
    }

    pub(super) fn release_performance(&mut self, agent: AgentId) {
        for domain in 0..self.performance.len() {
            // The domain exists: it was just counted.
            let _ = self.change_performance(agent, domain, |of| {
                of.notify_limits.set(agent, None);
                of.notify_level.set(agent, None);
                of.level_votes.set(agent, None);
                of.limit_votes.set(agent, None);
            });
        }
    }
}
