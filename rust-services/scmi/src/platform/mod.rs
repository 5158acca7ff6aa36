// SPDX-License-Identifier: Apache-2.0

//! The platform: what there is, who may use it, what each agent wants of it, and what it does
//! because of all that. It has no sockets, threads or clock: time comes in with each call, events
//! go out through [`Platform::take_event`], so a test can drive it through anything.

mod agent;
mod clock;
mod host;
mod performance;
mod pins;
mod policy;
mod power;
mod powercap;
mod reset;
mod saved;
mod sensor;
mod system;
mod time;
mod voltage;
mod votes;
mod waveform;

use std::time::Duration;

pub use agent::{Agent, AgentId, AgentStatistics, MOST_AGENTS};
pub use clock::{Clock, ClockShape, ClockSpec, DEEPEST, Rates, Rounding};
pub use host::HostState;
pub use performance::{Level, Performance, PerformanceSpec};
pub use pins::{
    PIN_SETTINGS, Pin, PinFunction, PinFunctionSpec, PinGroup, PinGroupSpec, PinSetup, PinSpec,
    Pins, pin_setting,
};
pub use policy::{Access, DeviceGroup, Kind, Limits, Policy, Right};
pub use power::{POWER_OFF, POWER_ON, PowerDomain, PowerSpec};
pub use powercap::{Powercap, PowercapSpec};
pub use reset::{Reset, ResetSpec};
pub use sensor::{
    Axis, AxisSpec, Interval, MOST_AXES, Sensor, SensorConfig, SensorSpec, Trip, TripMode,
    unit_code,
};
pub use system::{SystemRequest, SystemRight, SystemState};
pub use time::{Clocked, Later};
pub use voltage::{Voltage, VoltageSpec, Volts};
pub use votes::Votes;
pub use waveform::{Shape, Waveform};

use crate::backend::{Job, JobResult, Ticket};
use crate::wire::{Event, Header, Status};

/// What the base protocol says about the platform.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Vendor, at most 15 bytes.
    pub vendor: String,
    /// Sub-vendor, at most 15 bytes.
    pub sub_vendor: String,
    /// Implementation version: major 31:24, minor 23:16, patch 15:0.
    pub version: u32,
}

/// All there is. Lists are in the order of the configuration; an agent sees those it may see,
/// numbered from 0 without gaps ([`Policy::resolve`]).
pub struct Platform {
    /// Who we are.
    pub identity: Identity,
    /// Who may do what.
    pub policy: Policy,
    /// The agents, by [`AgentId`].
    pub agents: Vec<Agent>,
    /// Power domains.
    pub power: Vec<PowerDomain>,
    /// Performance domains.
    pub performance: Vec<Performance>,
    /// Clocks.
    pub clocks: Vec<Clock>,
    /// Sensors.
    pub sensors: Vec<Sensor>,
    /// Reset domains.
    pub resets: Vec<Reset>,
    /// Voltage domains.
    pub voltages: Vec<Voltage>,
    /// Power capping domains.
    pub powercaps: Vec<Powercap>,
    /// Pins.
    pub pins: Vec<Pin>,
    /// Groups of pins.
    pub pin_groups: Vec<PinGroup>,
    /// Functions that groups of pins can serve.
    pub pin_functions: Vec<PinFunction>,
    later: Vec<Later>,
    bound: Vec<host::Bound>,
    pending: Vec<host::Pending>,
    jobs: Vec<Job>,
    next_ticket: u32,
    /// Agents with events that nobody has fetched, one bit each.
    eventful: u64,
    /// What guests asked of the whole system, for the host.
    requests: Vec<SystemRequest>,
    /// [`Policy::fingerprint`] of the configuration.
    configured: u64,
    /// Names and order of all there is, once they were asked for.
    names: Option<u64>,
    /// Counts what was changed: whoever saves or shows it compares.
    changes: u64,
}

impl Platform {
    /// A platform of nothing, for these agents.
    #[must_use]
    pub fn new(identity: Identity, agents: Vec<Agent>, policy: Policy) -> Self {
        Self {
            identity,
            configured: policy.fingerprint(),
            policy,
            agents,
            power: Vec::new(),
            performance: Vec::new(),
            clocks: Vec::new(),
            sensors: Vec::new(),
            resets: Vec::new(),
            voltages: Vec::new(),
            powercaps: Vec::new(),
            pins: Vec::new(),
            pin_groups: Vec::new(),
            pin_functions: Vec::new(),
            later: Vec::new(),
            bound: Vec::new(),
            pending: Vec::new(),
            jobs: Vec::new(),
            next_ticket: 0,
            eventful: 0,
            requests: Vec::new(),
            names: None,
            changes: 0,
        }
    }

    /// How many resources of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Power => self.power.len(),
            Kind::Performance => self.performance.len(),
            Kind::Clock => self.clocks.len(),
            Kind::Sensor => self.sensors.len(),
            Kind::Reset => self.resets.len(),
            Kind::Voltage => self.voltages.len(),
            Kind::Powercap => self.powercaps.len(),
            Kind::Pin => self.pins.len(),
            Kind::PinGroup => self.pin_groups.len(),
            Kind::PinFunction => self.pin_functions.len(),
        }
    }

    /// The name of a resource.
    #[must_use]
    pub fn name(&self, kind: Kind, index: usize) -> Option<&str> {
        Some(match kind {
            Kind::Power => &self.power.get(index)?.spec.name,
            Kind::Performance => &self.performance.get(index)?.spec.name,
            Kind::Clock => &self.clocks.get(index)?.spec.name,
            Kind::Sensor => &self.sensors.get(index)?.spec.name,
            Kind::Reset => &self.resets.get(index)?.spec.name,
            Kind::Voltage => &self.voltages.get(index)?.spec.name,
            Kind::Powercap => &self.powercaps.get(index)?.spec.name,
            Kind::Pin => &self.pins.get(index)?.spec.name,
            Kind::PinGroup => &self.pin_groups.get(index)?.spec.name,
            Kind::PinFunction => &self.pin_functions.get(index)?.spec.name,
        })
    }

    /// Lets an agent change a resource, or counts the denial.
    ///
    /// # Errors
    /// [`Status::Denied`].
    pub fn may_set(&mut self, agent: AgentId, kind: Kind, index: usize) -> Result<Limits, Status> {
        match self.policy.right(agent, kind, index) {
            Some(right) if right.may_set() => Ok(right.limits),
            _ => Err(self.denied(agent)),
        }
    }

    /// Counts a denial.
    pub fn denied(&mut self, agent: AgentId) -> Status {
        if let Some(agent) = self.agents.get_mut(agent.index()) {
            agent.statistics.denied = agent.statistics.denied.saturating_add(1);
        }
        Status::Denied
    }

    /// The agent's own number of a resource; `None` where it does not see it.
    #[must_use]
    pub fn number(&self, agent: AgentId, kind: Kind, index: usize) -> Option<u32> {
        self.policy.number(agent, kind, index)
    }

    /// As [`Platform::number`], while the agent may read the resource: what was taken away from it
    /// is not told by notifications either.
    pub(crate) fn number_to_tell(&self, agent: AgentId, kind: Kind, index: usize) -> Option<u32> {
        let right = self.policy.right(agent, kind, index)?;
        self.number(agent, kind, index).filter(|_| right.may_read())
    }

    /// An agent's access is another one from now on.
    ///
    /// # Errors
    /// Those of [`Policy::change`].
    pub fn set_access(
        &mut self,
        agent: AgentId,
        kind: Kind,
        index: usize,
        access: Access,
    ) -> Result<(), Status> {
        self.policy.change(agent, kind, index, access)?;
        self.changed();
        Ok(())
    }

    /// Takes over the access and the limits of another configuration's policy.
    pub(crate) fn adopt(&mut self, policy: &Policy) {
        self.policy.adopt(policy);
        self.configured = policy.fingerprint();
        self.changed();
    }

    /// Something changed that is saved or shown.
    pub(crate) fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    /// What an agent listens to changed, which is saved like what it wants.
    pub(crate) fn settled(&mut self) {
        self.changed();
    }

    /// A number that differs when something has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Tells every agent that subscribed to it how a resource is now. `event` makes the message from
    /// the agent's own number of the resource, which is its second word. What waits for a slow agent
    /// about the same is outdated: a guest cannot fill another's outbox, nor hide the last change.
    fn notify(&mut self, subscribers: u64, kind: Kind, index: usize, event: impl Fn(u32) -> Event) {
        for agent in (0..self.agents.len()).map(AgentId::new) {
            if subscribers & agent.bit() == 0 {
                continue;
            }
            if let Some(number) = self.number_to_tell(agent, kind, index) {
                let event = event(number);
                if let Some(of) = self.agents.get_mut(agent.index()) {
                    of.forget_outdated(&event);
                }
                self.post(agent, event);
            }
        }
    }

    /// Puts a notification into the agent's outbox; a full one drops it, and counts. Whether it is
    /// there now.
    pub(crate) fn post(&mut self, agent: AgentId, event: Event) -> bool {
        let of = self.agents.get_mut(agent.index());
        let posted = of.is_some_and(|of| of.post(event));
        if posted {
            self.eventful |= agent.bit();
        }
        posted
    }

    /// Puts a delayed response into the agent's outbox, where it waits as long as it must.
    pub(crate) fn respond(&mut self, agent: AgentId, event: Event) {
        if let Some(of) = self.agents.get_mut(agent.index()) {
            of.respond(event);
            self.eventful |= agent.bit();
            self.changed();
        }
    }

    /// The next event of an agent, delayed responses first, but for those which still have to wait.
    pub fn take_event(&mut self, agent: AgentId, waits: impl Fn(&Event) -> bool) -> Option<Event> {
        let of = self.agents.get_mut(agent.index())?;
        let waiting = of.waiting_responses();
        let event = of.take_event(waits);
        if of.waiting_responses() != waiting {
            self.changed();
        }
        event
    }

    /// Puts back an event that the agent's buffer could not hold.
    pub fn return_event(&mut self, agent: AgentId, event: Event) {
        if let Some(of) = self.agents.get_mut(agent.index()) {
            of.return_event(event);
        }
    }

    /// Tells of a command that policy denied: to its agent, and to trusted ones. Who has not heard of
    /// the agent's last denial yet hears of both at once: a guest cannot fill another's outbox by
    /// asking for what it may not.
    pub fn announce_denial(&mut self, cause: AgentId) {
        for agent in (0..self.agents.len()).map(AgentId::new) {
            let hears = self
                .agents
                .get(agent.index())
                .is_some_and(|of| of.error_notify && (agent == cause || of.trusted));
            // No list of messages follows: what others asked for is their business.
            let event = Event::notification(0x10, 0, &[cause.number(), 0]);
            let tells = |of: &Agent| !of.is_waiting(&event);
            if hears && self.agents.get(agent.index()).is_some_and(tells) {
                self.post(agent, event);
            }
        }
    }

    /// Whether [`Platform::take_event`] would give one.
    #[must_use]
    pub fn has_event(&self, agent: AgentId, waits: impl Fn(&Event) -> bool) -> bool {
        let of = self.agents.get(agent.index());
        of.is_some_and(|of| of.has_event(waits))
    }

    /// Whether a delayed response has not been sent yet.
    #[must_use]
    pub fn has_response(&self, agent: AgentId) -> bool {
        let of = self.agents.get(agent.index());
        of.is_some_and(|of| of.waiting_responses() > 0)
    }

    /// The agents that got events or answers since the last call, one bit each.
    pub fn take_eventful(&mut self) -> u64 {
        std::mem::take(&mut self.eventful)
    }

    /// What the back end is to do.
    pub fn take_jobs(&mut self, into: &mut Vec<Job>) {
        into.append(&mut self.jobs);
    }

    /// Gives the back end something to do whose answer `agent` waits for.
    pub(crate) fn hold(
        &mut self,
        agent: AgentId,
        job: impl FnOnce(Option<Ticket>) -> Job,
    ) -> Ticket {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let ticket = Ticket {
            agent,
            number: self.next_ticket,
        };
        self.jobs.push(job(Some(ticket)));
        ticket
    }

    /// The back end has done something: the answers that were held for it are in the outbox of
    /// their agents.
    pub fn job_done(&mut self, result: JobResult, now: Duration) {
        match result {
            JobResult::Measured {
                sensor,
                values,
                ticket,
            } => {
                self.measured(
                    sensor,
                    values.as_deref().map_err(|status| *status),
                    ticket,
                    now,
                );
            }
            JobResult::Power {
                domain,
                microwatts,
                ticket,
            } => self.power_measured(domain, microwatts, ticket),
            // Nobody waits for these: the log has told.
            JobResult::Set => {}
            JobResult::Applied {
                kind,
                index,
                ticket,
                result,
            } => self.host_applied(kind, index, ticket, result),
        }
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, result: Result<(), Status>, payload: Vec<u8>) {
        if let Some(agent) = self.agents.get_mut(ticket.agent.index()) {
            agent.answers.push_back((ticket, result.map(|()| payload)));
            self.eventful |= ticket.agent.bit();
        }
    }

    /// The agent's driver began anew or went away: what it wanted is forgotten, and what only it
    /// wanted ends.
    pub fn release(&mut self, agent: AgentId, now: Duration) {
        self.later.retain(|later| later.agent != agent);
        self.forget_pending(agent);
        if let Some(of) = self.agents.get_mut(agent.index()) {
            of.reset();
        }
        self.release_power(agent);
        self.release_performance(agent);
        self.release_clocks(agent);
        self.release_sensors(agent);
        self.release_resets(agent);
        self.release_voltages(agent);
        self.release_powercaps(agent);
        self.release_pins(agent);
        self.advance(now);
        self.changed();
    }

    /// A trusted agent resets another's configuration while that one's driver runs. As
    /// [`Platform::release`], but its driver still waits for what it asked: commands that are held
    /// get their answers, and asynchronous ones their delayed responses.
    pub(crate) fn reset_agent(&mut self, agent: AgentId, now: Duration) {
        let (ended, others) = self.later.drain(..).partition(|of| of.agent == agent);
        self.later = others;
        let ended: Vec<Later> = ended;
        for later in ended {
            self.end_early(later);
        }
        let of = self.agents.get_mut(agent.index());
        let owed = of.map(Agent::take_owed).unwrap_or_default();
        self.release(agent, now);
        if let Some(of) = self.agents.get_mut(agent.index()) {
            of.owe(owed);
            if of.has_event(|_| false) {
                self.eventful |= agent.bit();
            }
        }
    }

    /// Queues the rest of an asynchronous command.
    ///
    /// # Errors
    /// [`Status::NotSupported`] without an event queue, [`Status::Busy`] with too many of them.
    pub(crate) fn start_later(&mut self, later: Later) -> Result<(), Status> {
        let agent = self
            .agents
            .get(later.agent.index())
            .ok_or(Status::GenericError)?;
        if !agent.p2a {
            return Err(Status::NotSupported);
        }
        let running = self
            .later
            .iter()
            .filter(|other| other.agent == later.agent)
            .count();
        let waiting = agent.waiting_responses();
        if running.saturating_add(waiting) >= usize::from(MAX_ASYNC) {
            return Err(Status::Busy);
        }
        self.later.push(later);
        self.changed();
        Ok(())
    }
}

/// Asynchronous commands an agent may have under way.
pub const MAX_ASYNC: u8 = 32;

/// Who sent a command, and the command's header.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// The agent.
    pub agent: AgentId,
    /// Its command.
    pub header: Header,
}

/// The element, or that there is no such resource.
pub(crate) fn at<T>(list: &[T], index: usize) -> Result<&T, Status> {
    list.get(index).ok_or(Status::NotFound)
}

pub(crate) fn at_mut<T>(list: &mut [T], index: usize) -> Result<&mut T, Status> {
    list.get_mut(index).ok_or(Status::NotFound)
}
