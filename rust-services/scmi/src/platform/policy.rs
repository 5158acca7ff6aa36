// SPDX-License-Identifier: Apache-2.0

//! Who may do what with which resource.

use serde::Deserialize;

use crate::platform::agent::AgentId;
use crate::wire::Status;

/// What kinds of resources there are: one per protocol that has resources.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Power domain.
    Power,
    /// Performance domain.
    Performance,
    /// Clock.
    Clock,
    /// Sensor.
    Sensor,
    /// Reset domain.
    Reset,
    /// Voltage domain.
    Voltage,
    /// Power capping domain.
    Powercap,
    /// Pin.
    Pin,
    /// Group of pins.
    PinGroup,
    /// Function that groups of pins can serve.
    PinFunction,
}

/// How many kinds there are.
const KINDS: usize = 10;

impl Kind {
    /// All kinds, in the order of their protocols.
    pub const ALL: [Self; KINDS] = [
        Self::Power,
        Self::Performance,
        Self::Clock,
        Self::Sensor,
        Self::Reset,
        Self::Voltage,
        Self::Powercap,
        Self::Pin,
        Self::PinGroup,
        Self::PinFunction,
    ];

    /// The word in configuration and on D-Bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Performance => "performance",
            Self::Clock => "clock",
            Self::Sensor => "sensor",
            Self::Reset => "reset",
            Self::Voltage => "voltage",
            Self::Powercap => "powercap",
            Self::Pin => "pin",
            Self::PinGroup => "pin-group",
            Self::PinFunction => "pin-function",
        }
    }

    /// The protocol whose resources these are.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Power => 0x11,
            Self::Performance => 0x13,
            Self::Clock => 0x14,
            Self::Sensor => 0x15,
            Self::Reset => 0x16,
            Self::Voltage => 0x17,
            Self::Powercap => 0x18,
            Self::Pin | Self::PinGroup | Self::PinFunction => 0x19,
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Power => 0,
            Self::Performance => 1,
            Self::Clock => 2,
            Self::Sensor => 3,
            Self::Reset => 4,
            Self::Voltage => 5,
            Self::Powercap => 6,
            Self::Pin => 7,
            Self::PinGroup => 8,
            Self::PinFunction => 9,
        }
    }
}

/// How much of a resource an agent has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// The agent does not know that it exists.
    Invisible,
    /// Its state may be read.
    Read,
    /// It may be changed; what several agents want is put together.
    #[default]
    Set,
    /// It may be changed, and nobody else may.
    Exclusive,
}

impl Access {
    /// The word in configuration and on D-Bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Invisible => "invisible",
            Self::Read => "read",
            Self::Set => "set",
            Self::Exclusive => "exclusive",
        }
    }

    /// Each there is.
    const ALL: [Self; 4] = [Self::Invisible, Self::Read, Self::Set, Self::Exclusive];

    /// Its number in what is saved.
    const fn code(self) -> u8 {
        match self {
            Self::Invisible => 0,
            Self::Read => 1,
            Self::Set => 2,
            Self::Exclusive => 3,
        }
    }

    /// The access of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|access| access.word() == word)
    }
}

/// The least and the most value that an agent may ask for, in the resource's own unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The least.
    pub min: i64,
    /// The most.
    pub max: i64,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        min: i64::MIN,
        max: i64::MAX,
    };

    /// Whether a value is within them.
    #[must_use]
    pub fn allow(&self, value: i64) -> bool {
        (self.min..=self.max).contains(&value)
    }

    /// As [`Limits::allow`], for values without sign.
    #[must_use]
    pub fn allow_u64(&self, value: u64) -> bool {
        self.allow(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

/// What one agent may do with one resource at present.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// From the configuration, or changed over D-Bus.
    pub access: Access,
    /// Between these values only.
    pub limits: Limits,
    /// A trusted agent has taken the right away (BASE_SET_DEVICE_PERMISSIONS).
    pub device_denied: bool,
    /// A trusted agent has taken the right away (BASE_SET_PROTOCOL_PERMISSIONS).
    pub protocol_denied: bool,
    /// Somebody else has it alone.
    pub taken: bool,
    /// The access was changed while the agent runs, and is not what the configuration says.
    pub changed: bool,
}

impl Right {
    /// A right as configured.
    #[must_use]
    pub const fn new(access: Access, limits: Limits) -> Self {
        Self {
            access,
            limits,
            device_denied: false,
            protocol_denied: false,
            taken: false,
            changed: false,
        }
    }

    /// Whether the state may be read.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.access != Access::Invisible && !self.device_denied && !self.protocol_denied
    }

    /// Whether the state may be changed.
    #[must_use]
    pub fn may_set(&self) -> bool {
        self.may_read()
            && match self.access {
                Access::Exclusive => true,
                Access::Set => !self.taken,
                Access::Read | Access::Invisible => false,
            }
    }
}

/// A device of the base protocol: resources whose permissions change together.
#[derive(Clone, Debug)]
pub struct DeviceGroup {
    /// Its name.
    pub name: String,
    /// Its resources.
    pub members: Vec<(Kind, usize)>,
}

/// What one agent sees of one kind.
#[derive(Clone, Debug, Default)]
struct View {
    /// Resource by the agent's number.
    resources: Vec<usize>,
    /// The agent's number by resource.
    numbers: Vec<Option<u32>>,
    /// By resource.
    rights: Vec<Right>,
}

/// All rights.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    agents: Vec<[View; KINDS]>,
    /// Devices of the base protocol, by device id.
    pub devices: Vec<DeviceGroup>,
}

impl Policy {
    /// A policy for `agents` agents who see nothing yet.
    #[must_use]
    pub fn new(agents: usize, devices: Vec<DeviceGroup>) -> Self {
        Self {
            agents: (0..agents).map(|_| Default::default()).collect(),
            devices,
        }
    }

    /// Says what an agent may do with the resources of a kind, in their order.
    pub fn grant(&mut self, agent: AgentId, kind: Kind, rights: Vec<Right>) {
        let mut view = View {
            rights,
            ..View::default()
        };
        for (index, right) in view.rights.iter().enumerate() {
            if right.access == Access::Invisible {
                view.numbers.push(None);
            } else {
                view.numbers.push(u32::try_from(view.resources.len()).ok());
                view.resources.push(index);
            }
        }
        if let Some(of) = self
            .agents
            .get_mut(agent.index())
            .and_then(|a| a.get_mut(kind.place()))
        {
            *of = view;
        }
        self.settle_exclusive(kind);
    }

    fn view(&self, agent: AgentId, kind: Kind) -> Option<&View> {
        self.agents.get(agent.index())?.get(kind.place())
    }

    fn right_mut(&mut self, agent: AgentId, kind: Kind, index: usize) -> Option<&mut Right> {
        self.agents
            .get_mut(agent.index())?
            .get_mut(kind.place())?
            .rights
            .get_mut(index)
    }

    /// Marks what is exclusive as taken for all others.
    fn settle_exclusive(&mut self, kind: Kind) {
        let place = kind.place();
        let views: Vec<&View> = self.agents.iter().filter_map(|a| a.get(place)).collect();
        let most = views
            .iter()
            .map(|view| view.rights.len())
            .max()
            .unwrap_or(0);
        let taken: Vec<bool> = (0..most)
            .map(|index| {
                let mut rights = views.iter().filter_map(|view| view.rights.get(index));
                rights.any(|right| right.access == Access::Exclusive)
            })
            .collect();
        for view in self.agents.iter_mut().filter_map(|a| a.get_mut(place)) {
            for (right, taken) in view.rights.iter_mut().zip(&taken) {
                right.taken = *taken;
            }
        }
    }

    /// How many resources of a kind an agent sees.
    #[must_use]
    pub fn visible(&self, agent: AgentId, kind: Kind) -> usize {
        self.view(agent, kind)
            .map_or(0, |view| view.resources.len())
    }

    /// The resource that an agent means.
    ///
    /// # Errors
    /// [`Status::NotFound`], also for what it may not see.
    pub fn resolve(&self, agent: AgentId, kind: Kind, number: u32) -> Result<usize, Status> {
        let number = usize::try_from(number).map_err(|_| Status::NotFound)?;
        let view = self.view(agent, kind).ok_or(Status::NotFound)?;
        view.resources.get(number).copied().ok_or(Status::NotFound)
    }

    /// The agent's number of a resource.
    #[must_use]
    pub fn number(&self, agent: AgentId, kind: Kind, index: usize) -> Option<u32> {
        self.view(agent, kind)?
            .numbers
            .get(index)
            .copied()
            .flatten()
    }

    /// What an agent may do with a resource.
    #[must_use]
    pub fn right(&self, agent: AgentId, kind: Kind, index: usize) -> Option<Right> {
        self.view(agent, kind)?.rights.get(index).copied()
    }

    /// Changes an agent's access while it runs. The agent's numbers stay, so nothing appears or
    /// disappears.
    ///
    /// # Errors
    /// [`Status::InvalidParameters`] for a change from or to invisible, or a second exclusive.
    pub fn change(
        &mut self,
        agent: AgentId,
        kind: Kind,
        index: usize,
        access: Access,
    ) -> Result<(), Status> {
        let other_has_it = (0..self.agents.len()).map(AgentId::new).any(|other| {
            other != agent
                && self
                    .right(other, kind, index)
                    .is_some_and(|right| right.access == Access::Exclusive)
        });
        let right = self.right_mut(agent, kind, index).ok_or(Status::NotFound)?;
        let hides = access == Access::Invisible || right.access == Access::Invisible;
        if hides || (access == Access::Exclusive && other_has_it) {
            return Err(Status::InvalidParameters);
        }
        right.access = access;
        right.changed = true;
        self.settle_exclusive(kind);
        Ok(())
    }

    /// Whether another policy shows an agent the same resources.
    #[must_use]
    pub(crate) fn sees_as_in(&self, other: &Self, agent: AgentId) -> bool {
        let numbers = |of: &Self, kind| of.view(agent, kind).map(|view| view.numbers.clone());
        Kind::ALL
            .into_iter()
            .all(|kind| numbers(self, kind) == numbers(other, kind))
    }

    /// Takes over the access and the limits of a policy for the same agents and resources. What
    /// trusted agents have taken away stays away.
    pub(crate) fn adopt(&mut self, new: &Self) {
        let views = self.agents.iter_mut().flatten();
        for (old, new) in views.zip(new.agents.iter().flatten()) {
            for (old, new) in old.rights.iter_mut().zip(&new.rights) {
                (old.access, old.limits) = (new.access, new.limits);
                old.changed = false;
            }
        }
        for kind in Kind::ALL {
            self.settle_exclusive(kind);
        }
    }

    /// Access and limits of all agents, as configured, in one number: whether what was changed since
    /// belongs to the same configuration. Asked before anything is changed.
    pub(crate) fn fingerprint(&self) -> u64 {
        let rights = self.agents.iter().flatten().flat_map(|view| &view.rights);
        rights.fold(0xcbf2_9ce4_8422_2325_u64, |hash, right| {
            let words = [
                u64::from(right.access.code()),
                u64::from_le_bytes(right.limits.min.to_le_bytes()),
                u64::from_le_bytes(right.limits.max.to_le_bytes()),
            ];
            words.into_iter().fold(hash, |hash, word| {
                (hash ^ word).wrapping_mul(0x0100_0000_01b3)
            })
        })
    }

    /// What differs from the configuration: a place among all rights of all agents, and a word.
    pub(crate) fn differences(&self) -> Vec<(u64, u64)> {
        let rights = self.agents.iter().flatten().flat_map(|view| &view.rights);
        let words = rights.map(|right| {
            let access = if right.changed {
                1 << 2 | u64::from(right.access.code()) << 3
            } else {
                0
            };
            u64::from(right.device_denied) | u64::from(right.protocol_denied) << 1 | access
        });
        (0_u64..)
            .zip(words)
            .filter(|(_, word)| *word != 0)
            .collect()
    }

    /// Takes back over what [`Policy::differences`] gave: what was taken away, and with `access`
    /// also what the access was changed to.
    pub(crate) fn differ(&mut self, differences: &[(u64, u64)], access: bool) {
        let views = self.agents.iter_mut().flatten();
        let mut rights = (0_u64..).zip(views.flat_map(|view| &mut view.rights));
        for (place, word) in differences {
            let Some((_, right)) = rights.find(|(other, _)| other == place) else {
                break;
            };
            right.device_denied = word & 1 != 0;
            right.protocol_denied = word & 2 != 0;
            let changed = Access::ALL
                .into_iter()
                .find(|other| word & 4 != 0 && u64::from(other.code()) == word >> 3);
            let hidden = |access| access == Access::Invisible;
            if let Some(to) = changed.filter(|to| access && hidden(*to) == hidden(right.access)) {
                right.access = to;
                right.changed = true;
            }
        }
        for kind in Kind::ALL {
            self.settle_exclusive(kind);
        }
    }

    /// BASE_SET_DEVICE_PERMISSIONS and, with a protocol, BASE_SET_PROTOCOL_PERMISSIONS.
    ///
    /// # Errors
    /// [`Status::NotFound`] for an unknown agent or device.
    pub fn permit(
        &mut self,
        agent: AgentId,
        device: u32,
        protocol: Option<u8>,
        allowed: bool,
    ) -> Result<(), Status> {
        if agent.index() >= self.agents.len() {
            return Err(Status::NotFound);
        }
        let device = usize::try_from(device).map_err(|_| Status::NotFound)?;
        let members = self
            .devices
            .get(device)
            .ok_or(Status::NotFound)?
            .members
            .clone();
        for (of, index) in members {
            if protocol.is_some_and(|protocol| protocol != of.protocol()) {
                continue;
            }
            if let Some(right) = self.right_mut(agent, of, index) {
                match protocol {
                    Some(_) => right.protocol_denied = !allowed,
                    None => right.device_denied = !allowed,
                }
            }
        }
        Ok(())
    }

    /// Gives back all that was taken away by [`Policy::permit`].
    pub fn restore(&mut self, agent: AgentId) {
        if let Some(views) = self.agents.get_mut(agent.index()) {
            for right in views.iter_mut().flat_map(|view| &mut view.rights) {
                right.device_denied = false;
                right.protocol_denied = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let group = DeviceGroup {
            name: "display".into(),
            members: vec![(Kind::Clock, 1)],
        };
        let mut policy = Policy::new(2, vec![group]);
        let right = |access| Right::new(access, Limits::NONE);
        let first = [Access::Invisible, Access::Set, Access::Read]
            .map(right)
            .to_vec();
        let second = [Access::Set, Access::Exclusive, Access::Set]
            .map(right)
            .to_vec();
        policy.grant(AgentId::new(0), Kind::Clock, first);
        policy.grant(AgentId::new(1), Kind::Clock, second);
        policy
    }

    #[test]
    fn an_agent_counts_only_what_it_sees() {
        let (policy, agent) = (policy(), AgentId::new(0));
        assert_eq!(policy.visible(agent, Kind::Clock), 2);
        assert_eq!(policy.resolve(agent, Kind::Clock, 0), Ok(1));
        assert_eq!(policy.resolve(agent, Kind::Clock, 2), Err(Status::NotFound));
        assert_eq!(
            policy.resolve(agent, Kind::Sensor, 0),
            Err(Status::NotFound)
        );
        assert_eq!(policy.number(agent, Kind::Clock, 0), None);
        assert_eq!(policy.number(agent, Kind::Clock, 2), Some(1));
    }

    #[test]
    fn what_one_has_alone_nobody_else_may_change_until_it_is_given_up() {
        let mut policy = policy();
        let (first, second) = (AgentId::new(0), AgentId::new(1));
        assert!(!policy.right(first, Kind::Clock, 1).unwrap().may_set());
        assert!(policy.right(second, Kind::Clock, 1).unwrap().may_set());
        let again = policy.change(first, Kind::Clock, 1, Access::Exclusive);
        assert_eq!(again, Err(Status::InvalidParameters));
        policy.change(second, Kind::Clock, 1, Access::Read).unwrap();
        assert!(policy.right(first, Kind::Clock, 1).unwrap().may_set());
    }

    #[test]
    fn a_device_that_was_taken_away_can_be_given_back() {
        let mut policy = policy();
        let agent = AgentId::new(1);
        policy.permit(agent, 0, None, false).unwrap();
        assert!(!policy.right(agent, Kind::Clock, 1).unwrap().may_read());
        assert!(policy.right(agent, Kind::Clock, 0).unwrap().may_set());
        policy.permit(agent, 0, Some(0x14), false).unwrap();
        policy.permit(agent, 0, None, true).unwrap();
        assert!(!policy.right(agent, Kind::Clock, 1).unwrap().may_read());
        policy.restore(agent);
        assert!(policy.right(agent, Kind::Clock, 1).unwrap().may_set());
        assert_eq!(policy.permit(agent, 1, None, true), Err(Status::NotFound));
    }

    #[test]
    fn nothing_appears_or_disappears_while_a_guest_runs() {
        let mut policy = policy();
        for (index, access) in [(0, Access::Set), (1, Access::Invisible)] {
            let changed = policy.change(AgentId::new(0), Kind::Clock, index, access);
            assert_eq!(changed, Err(Status::InvalidParameters));
        }
    }
}
