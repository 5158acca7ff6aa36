// SPDX-License-Identifier: Apache-2.0

//! The platform on D-Bus: what there is, how it stands and why, and what may be changed.

use std::collections::HashMap;
use std::sync::Arc;

use agl_virtio_service::bus::{self, Bus};
use virtio_device::now;
use zbus::fdo;
use zbus::message::Header;

use crate::platform::{Access, AgentId, Kind, Limits, Pins, Platform, SystemRequest, SystemState};
use crate::shared::Shared;
use crate::wire::Status;

/// The name of the interface.
pub const INTERFACE: &str = "org.automotivelinux.Virtio1.Scmi";

/// Shows the platform.
///
/// # Errors
/// Never in practice: the path is the device's own.
pub fn show(bus: &Bus, shared: &Arc<Shared>) -> Result<(), zbus::zvariant::Error> {
    let shared = Arc::clone(shared);
    bus.add("", move || Control {
        shared: Arc::clone(&shared),
    })
}

/// Tells the host that a guest asks something of its system.
pub fn signal_system_power(bus: &Bus, agent: &str, request: SystemRequest) {
    let body = (agent, request.state.word(), request.graceful);
    if let Err(error) = bus.signal("", INTERFACE, "SystemPowerRequested", &body) {
        log::warn!("the host was not told on D-Bus: {error}");
    }
}

/// A resource: kind, name, state in words, value, agents that want something of it.
type Resource = (String, String, String, i64, Vec<String>);

struct Control {
    shared: Arc<Shared>,
}

impl Control {
    fn find(platform: &Platform, kind: &str, name: &str) -> fdo::Result<(Kind, usize)> {
        let found = Kind::ALL
            .into_iter()
            .find(|other| other.word() == kind)
            .and_then(|kind| {
                let mut places = 0..platform.count(kind);
                Some((
                    kind,
                    places.find(|place| platform.name(kind, *place) == Some(name))?,
                ))
            });
        found.ok_or_else(|| fdo::Error::InvalidArgs(format!("there is no {kind} {name}")))
    }

    fn agent(platform: &Platform, name: &str) -> fdo::Result<AgentId> {
        let place = platform.agents.iter().position(|agent| agent.name == name);
        let place = place.ok_or_else(|| fdo::Error::InvalidArgs(format!("there is no {name}")))?;
        Ok(AgentId::new(place))
    }
}

fn refused(status: Status) -> fdo::Error {
    fdo::Error::InvalidArgs(status.to_string())
}

fn names(platform: &Platform, bits: u64) -> Vec<String> {
    let agents = (0..platform.agents.len()).map(AgentId::new);
    agents
        .filter(|agent| bits & agent.bit() != 0)
        .filter_map(|agent| Some(platform.agents.get(agent.index())?.name.clone()))
        .collect()
}

/// State in words, value and voters of a resource.
fn describe(platform: &Platform, kind: Kind, index: usize) -> Option<(String, i64, u64)> {
    let on = |on: bool| if on { "on" } else { "off" }.to_owned();
    let wide = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let wishes = |wish: &dyn Fn(AgentId) -> bool| {
        let agents = (0..platform.agents.len()).map(AgentId::new);
        agents
            .filter(|agent| wish(*agent))
            .fold(0, |bits, agent| bits | agent.bit())
    };
    Some(match kind {
        Kind::Power => {
            let of = platform.power.get(index)?;
            let powered = platform.is_powered(index);
            (on(powered), powered.into(), of.wanted_by())
        }
        Kind::Performance => {
            let of = platform.performance.get(index)?;
            let (least, most) = of.limits();
            let words = format!("level {} of {least} to {most}", of.level());
            (
                words,
                of.level().into(),
                wishes(&|agent| of.wish(agent).is_some()),
            )
        }
        Kind::Clock => {
            let of = platform.clocks.get(index)?;
            let wanted = of.wanted_by() | wishes(&|agent| of.rate_wish(agent).is_some());
            (
                on(platform.clock_is_on(index)),
                wide(platform.clock_rate(index)),
                wanted,
            )
        }
        Kind::Sensor => {
            let of = platform.sensors.get(index)?;
            let value = of.values(now()).ok().and_then(|mut values| values.next());
            let words = if of.has_fault() {
                "fault"
            } else if of.is_bound() {
                "of the host"
            } else {
                "simulated"
            };
            (words.to_owned(), value.unwrap_or(0), of.notify_trips.bits())
        }
        Kind::Reset => {
            let of = platform.resets.get(index)?;
            let words = if of.asserted_by() == 0 {
                "running"
            } else {
                "in reset"
            };
            (words.to_owned(), wide(of.pulses), of.asserted_by())
        }
        Kind::Voltage => {
            let of = platform.voltages.get(index)?;
            (on(of.is_on()), of.level().into(), of.wanted_by())
        }
        Kind::Powercap => {
            let of = platform.powercaps.get(index)?;
            (
                match of.cap() {
                    0 => "no cap".to_owned(),
                    cap => format!("cap {cap} µW"),
                },
                of.power(now()).into(),
                of.wanted_by(),
            )
        }
        Kind::Pin => {
            let of = platform.pins.get(index)?;
            let function = of
                .function()
                .and_then(|of| platform.name(Kind::PinFunction, of));
            let owner = of.owner().map_or(0, AgentId::bit);
            (function.unwrap_or("no function").to_owned(), 0, owner)
        }
        Kind::PinGroup => {
            let of = platform.pin_groups.get(index)?;
            let function = platform.common_function(Pins::Group(index)).ok()?;
            let function = function.and_then(|of| platform.name(Kind::PinFunction, of));
            let pins = i64::try_from(of.pins.len()).unwrap_or(i64::MAX);
            (function.unwrap_or("no function").to_owned(), pins, 0)
        }
        Kind::PinFunction => {
            let of = platform.pin_functions.get(index)?;
            let groups = i64::try_from(of.groups.len()).unwrap_or(i64::MAX);
            ("function".to_owned(), groups, 0)
        }
    })
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Scmi")]
impl Control {
    /// The agents' names, in the order of their numbers.
    #[zbus(property(emits_changed_signal = "const"))]
    fn agents(&self) -> Vec<String> {
        self.shared
            .platform()
            .agents
            .iter()
            .map(|agent| agent.name.clone())
            .collect()
    }

    /// All resources: kind, name, state, value (rate in Hz, level, reading, resets, voltage in µV,
    /// power in µW, number of pins or groups), and the agents that want something of it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn resources(&self) -> Vec<Resource> {
        let platform = self.shared.platform();
        let mut resources = Vec::new();
        for kind in Kind::ALL {
            for index in 0..platform.count(kind) {
                let Some((state, value, voters)) = describe(&platform, kind, index) else {
                    continue;
                };
                let name = platform.name(kind, index).unwrap_or_default().to_owned();
                let voters = names(&platform, voters);
                resources.push((kind.word().to_owned(), name, state, value, voters));
            }
        }
        resources
    }

    /// Between which values agents may set a resource, of those that have limits: the least and the
    /// most, in the resource's unit.
    fn limits(&self, kind: &str, name: &str) -> fdo::Result<HashMap<String, (i64, i64)>> {
        let platform = self.shared.platform();
        let (kind, index) = Self::find(&platform, kind, name)?;
        let agents = platform.agents.iter().enumerate();
        Ok(agents
            .filter_map(|(place, agent)| {
                let right = platform.policy.right(AgentId::new(place), kind, index)?;
                let limits = right.limits;
                (limits != Limits::NONE).then(|| (agent.name.clone(), (limits.min, limits.max)))
            })
            .collect())
    }

    /// What each agent may do with a resource: invisible, read, set or exclusive.
    fn access(&self, kind: &str, name: &str) -> fdo::Result<HashMap<String, String>> {
        let platform = self.shared.platform();
        let (kind, index) = Self::find(&platform, kind, name)?;
        let agents = platform.agents.iter().enumerate();
        Ok(agents
            .filter_map(|(place, agent)| {
                let right = platform.policy.right(AgentId::new(place), kind, index)?;
                Some((agent.name.clone(), right.access.word().to_owned()))
            })
            .collect())
    }

    /// Changes what an agent may do with a resource that it sees. What it wanted stays until it
    /// wants something else or goes away.
    async fn set_access(
        &self,
        agent: &str,
        kind: &str,
        name: &str,
        access: &str,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        let access = Access::of(access)
            .ok_or_else(|| fdo::Error::InvalidArgs("write read, set or exclusive".into()))?;
        self.shared.change(|platform| {
            let agent = Self::agent(platform, agent)?;
            let (kind, index) = Self::find(platform, kind, name)?;
            platform
                .set_access(agent, kind, index, access)
                .map_err(refused)
        })
    }

    /// What was counted of an agent.
    fn statistics(&self, agent: &str) -> fdo::Result<HashMap<String, u64>> {
        let platform = self.shared.platform();
        let agent = Self::agent(&platform, agent)?;
        let counted = platform
            .agents
            .get(agent.index())
            .map(|agent| agent.statistics);
        let counted = counted.unwrap_or_default();
        let table = [
            ("messages", counted.messages),
            ("refused", counted.refused),
            ("denied", counted.denied),
            ("limited", counted.limited),
            ("dropped", counted.dropped),
        ];
        Ok(table.map(|(name, count)| (name.to_owned(), count)).into())
    }

    /// Puts a value in the place of a simulated sensor's, for one axis (0 for a scalar sensor).
    async fn inject_sensor(
        &self,
        name: &str,
        axis: u32,
        value: i64,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        self.inject(name, axis, Some(value))
    }

    /// Lets a sensor's value follow its wave again.
    async fn release_sensor(
        &self,
        name: &str,
        axis: u32,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        self.inject(name, axis, None)
    }

    /// Makes all readings of a sensor fail, or heals it.
    async fn set_sensor_fault(
        &self,
        name: &str,
        fault: bool,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        self.shared.change(|platform| {
            let (_, index) = Self::find(platform, Kind::Sensor.word(), name)?;
            if let Some(sensor) = platform.sensors.get_mut(index) {
                sensor.set_fault(fault);
            }
            Ok(())
        })
    }

    /// Asks a guest for a state of its system: shutdown, cold-reset, warm-reset, power-up or
    /// suspend; a graceful request may be given a time in ms. Whether the guest listens.
    async fn request_system_power(
        &self,
        agent: &str,
        state: &str,
        graceful: bool,
        timeout_ms: u32,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<bool> {
        bus::may_change(connection, Some(&header)).await?;
        let wanted = SystemState::ALL
            .into_iter()
            .find(|other| other.word() == state);
        let wanted = wanted.ok_or_else(|| {
            let words = SystemState::ALL.map(SystemState::word).join(", ");
            fdo::Error::InvalidArgs(format!("{state} is none of {words}"))
        })?;
        self.shared.change(|platform| {
            let agent = Self::agent(platform, agent)?;
            Ok(platform.ask_system(agent, wanted, graceful, timeout_ms))
        })
    }
}

impl Control {
    fn inject(&self, name: &str, axis: u32, value: Option<i64>) -> fdo::Result<()> {
        self.shared.change(|platform| {
            let (_, index) = Self::find(platform, Kind::Sensor.word(), name)?;
            let sensor = platform.sensors.get_mut(index);
            let axis_place = usize::try_from(axis).unwrap_or(usize::MAX);
            if sensor.is_some_and(|sensor| sensor.inject(axis_place, value)) {
                Ok(())
            } else {
                Err(fdo::Error::InvalidArgs(format!(
                    "{name} has no axis {axis}"
                )))
            }
        })
    }
}
