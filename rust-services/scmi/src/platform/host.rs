// SPDX-License-Identifier: Apache-2.0

//! Resources that are the host's own clocks, resets, regulators and power domains. The host follows
//! what agents want; a command is answered when it has followed, and a wish that it could not
//! follow is forgotten.

use crate::backend::{Job, Ticket};
use crate::platform::{AgentId, Kind, Platform};
use crate::wire::Status;

/// What the host is to make of a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostState {
    /// A clock. Without a rate or a parent, nobody cares which.
    Clock {
        /// Whether it runs.
        on: bool,
        /// In Hz.
        rate: Option<u64>,
        /// The clock that feeds it.
        parent: Option<usize>,
    },
    /// A power domain.
    Power {
        /// Whether it has power.
        on: bool,
    },
    /// A reset.
    Reset {
        /// Whether it is held.
        asserted: bool,
        /// How often it was pulsed since the service started.
        pulses: u64,
    },
    /// A regulator. Without a voltage, nobody cares which.
    Voltage {
        /// Whether it is on.
        on: bool,
        /// In µV.
        level: Option<i32>,
    },
}

/// A resource of the host.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    kind: Kind,
    index: usize,
    /// What the host was told last.
    told: Option<HostState>,
    /// Jobs under way.
    busy: u32,
}

/// What an agent wanted of a resource before it wanted something else.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Clock(Option<()>, Option<u64>, Option<u32>),
    Power(Option<()>),
    Reset(Option<()>),
    Voltage(Option<()>, Option<i32>),
}

/// A wish that waits for the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    ticket: Ticket,
    kind: Kind,
    index: usize,
    before: Wish,
}

impl Platform {
    /// Finds the resources that are the host's, once all are there.
    pub(crate) fn bind(&mut self) {
        let power = self.power.iter().map(|of| of.spec.host.is_some());
        let clocks = self.clocks.iter().map(|of| of.spec.host.is_some());
        let resets = self.resets.iter().map(|of| of.spec.host.is_some());
        let voltages = self.voltages.iter().map(|of| of.spec.host.is_some());
        let mut all: Vec<(Kind, usize)> = Vec::new();
        let mut add = |kind, bound: &mut dyn Iterator<Item = bool>| {
            let places = bound.enumerate().filter(|(_, bound)| *bound);
            all.extend(places.map(|(place, _)| (kind, place)));
        };
        add(Kind::Power, &mut { power });
        add(Kind::Clock, &mut { clocks });
        add(Kind::Reset, &mut { resets });
        add(Kind::Voltage, &mut { voltages });
        let bound = all.into_iter().map(|(kind, index)| Bound {
            kind,
            index,
            told: None,
            busy: 0,
        });
        self.bound = bound.collect();
    }

    fn bound_mut(&mut self, kind: Kind, index: usize) -> Option<&mut Bound> {
        let mut bound = self.bound.iter_mut();
        bound.find(|of| (of.kind, of.index) == (kind, index))
    }

    /// What agents' wishes for a resource come to.
    fn host_state(&self, kind: Kind, index: usize) -> Option<HostState> {
        Some(match kind {
            Kind::Clock => {
                let of = self.clocks.get(index)?;
                let chosen = of.parent_votes.all().next();
                HostState::Clock {
                    on: self.clock_is_on(index),
                    rate: of.rate_votes.all().max(),
                    parent: chosen.and_then(|_| of.parent()),
                }
            }
            Kind::Power => HostState::Power {
                on: self.is_powered(index),
            },
            Kind::Reset => {
                let of = self.resets.get(index)?;
                HostState::Reset {
                    asserted: of.asserted_by() != 0,
                    pulses: of.autonomous,
                }
            }
            Kind::Voltage => {
                let of = self.voltages.get(index)?;
                HostState::Voltage {
                    on: of.is_on(),
                    level: of.level_votes.all().max(),
                }
            }
            _ => return None,
        })
    }

    fn wish(&self, agent: AgentId, kind: Kind, index: usize) -> Option<Wish> {
        Some(match kind {
            Kind::Clock => {
                let of = self.clocks.get(index)?;
                let parent = of.parent_votes.of(agent);
                Wish::Clock(of.on.of(agent), of.rate_votes.of(agent), parent)
            }
            Kind::Power => Wish::Power(self.power.get(index)?.on.of(agent)),
            Kind::Reset => Wish::Reset(self.resets.get(index)?.asserted.of(agent)),
            Kind::Voltage => {
                let of = self.voltages.get(index)?;
                Wish::Voltage(of.on.of(agent), of.level_votes.of(agent))
            }
            _ => return None,
        })
    }

    /// An agent changes a resource. Where that is the host's, the ticket under which the host's
    /// answer comes.
    ///
    /// # Errors
    /// Those of `change`.
    pub(crate) fn through_host(
        &mut self,
        agent: AgentId,
        kind: Kind,
        index: usize,
        change: impl FnOnce(&mut Self) -> Result<(), Status>,
    ) -> Result<Option<Ticket>, Status> {
        if self.bound.is_empty() {
            return change(self).map(|()| None);
        }
        let before = self.wish(agent, kind, index);
        change(self)?;
        let (Some(before), Some(state)) = (before, self.host_state(kind, index)) else {
            return Ok(None);
        };
        let Some(bound) = self.bound_mut(kind, index) else {
            return Ok(None);
        };
        if bound.told == Some(state) && bound.busy == 0 {
            return Ok(None);
        }
        bound.told = Some(state);
        bound.busy = bound.busy.saturating_add(1);
        let ticket = self.hold(agent, |ticket| Job::Apply {
            kind,
            index,
            state,
            ticket,
        });
        self.pending.push(Pending {
            ticket,
            kind,
            index,
            before,
        });
        Ok(Some(ticket))
    }

    /// Tells the host of all that has changed without a command that waits: because an agent went
    /// away, a wish was forgotten, or the service has just started.
    pub fn sync_host(&mut self) {
        for place in 0..self.bound.len() {
            let Some((kind, index)) = self.bound.get(place).map(|of| (of.kind, of.index)) else {
                continue;
            };
            let Some(state) = self.host_state(kind, index) else {
                continue;
            };
            let Some(bound) = self.bound.get_mut(place) else {
                continue;
            };
            if bound.told != Some(state) {
                bound.told = Some(state);
                bound.busy = bound.busy.saturating_add(1);
                self.jobs.push(Job::Apply {
                    kind,
                    index,
                    state,
                    ticket: None,
                });
            }
        }
    }

    /// The host has followed, or could not. `rate` is what a clock has now, in Hz.
    pub(super) fn host_applied(
        &mut self,
        kind: Kind,
        index: usize,
        ticket: Option<Ticket>,
        result: Result<Option<u64>, Status>,
    ) {
        if let Some(bound) = self.bound_mut(kind, index) {
            bound.busy = bound.busy.saturating_sub(1);
            if result.is_err() && ticket.is_some() {
                bound.told = None;
            }
        }
        let cause = ticket.map(|ticket| ticket.agent);
        if let Ok(Some(rate)) = result {
            self.host_rate(index, rate, cause);
        }
        let Some(ticket) = ticket else { return };
        let place = self.pending.iter().position(|of| of.ticket == ticket);
        let pending = place.map(|place| self.pending.swap_remove(place));
        if let (Err(_), Some(pending)) = (result, pending) {
            self.take_back(pending);
        }
        if !self.finish_later(ticket, result.map(drop)) {
            self.answer(ticket, result.map(drop), Vec::new());
        }
    }

    /// An agent's wish is what it was before.
    fn take_back(&mut self, pending: Pending) {
        let (agent, index) = (pending.ticket.agent, pending.index);
        match pending.before {
            Wish::Clock(on, rate, parent) => {
                if let Some(of) = self.clocks.get_mut(index) {
                    of.on.set(agent, on);
                    of.rate_votes.set(agent, rate);
                    of.parent_votes.set(agent, parent);
                }
            }
            Wish::Power(on) => {
                if let Some(of) = self.power.get_mut(index) {
                    of.on.set(agent, on);
                }
            }
            Wish::Reset(asserted) => {
                if let Some(of) = self.resets.get_mut(index) {
                    of.asserted.set(agent, asserted);
                }
            }
            Wish::Voltage(on, level) => {
                if let Some(of) = self.voltages.get_mut(index) {
                    of.on.set(agent, on);
                    of.level_votes.set(agent, level);
                }
            }
        }
        log::warn!(
            "the host cannot do what was asked of {:?} {index}",
            pending.kind
        );
        self.changed();
    }

    /// Nobody waits any more for what an agent asked.
    pub(super) fn forget_pending(&mut self, agent: AgentId) {
        self.pending.retain(|of| of.ticket.agent != agent);
    }
}
