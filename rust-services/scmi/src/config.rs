// SPDX-License-Identifier: Apache-2.0

//! The platform in TOML: its resources, the agents, and what each may do.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use agl_virtio_service::config::{Problems, Validate};
use serde::Deserialize;

use crate::platform::{
    Access, Agent, AgentId, Clock, ClockSpec, DEEPEST, DeviceGroup, Identity, Kind, Limits,
    MOST_AGENTS, MOST_AXES, PIN_SETTINGS, Performance, PerformanceSpec, Pin, PinFunction,
    PinFunctionSpec, PinGroup, PinGroupSpec, PinSpec, Platform, Policy, PowerDomain, PowerSpec,
    Powercap, PowercapSpec, Reset, ResetSpec, Right, Sensor, SensorSpec, SystemRight, Voltage,
    VoltageSpec, pin_setting, unit_code,
};

/// Resources of one kind at most: what numbers in the protocols can say.
const MOST_RESOURCES: usize = 4096;
/// The simulated platform that is there without any file.
const BUILT_IN: &str = include_str!("built_in.toml");

/// Where values come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Everything is simulated.
    #[default]
    Sim,
    /// Resources that name something of the host are that.
    Linux,
}

/// What an agent may do with a resource: a word, or a word with limits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "write \"invisible\", \"read\", \"set\" or \"exclusive\", or \
                 { access = \"set\", min = …, max = … } with whole numbers, and no other key"
)]
pub enum AccessConfig {
    /// Without limits.
    Word(Access),
    /// Between limits, in the resource's unit.
    Limited {
        /// The access.
        access: Access,
        /// The least value it may ask for.
        #[serde(default = "no_minimum")]
        min: i64,
        /// The most.
        #[serde(default = "no_maximum")]
        max: i64,
    },
}

const fn no_minimum() -> i64 {
    i64::MIN
}

const fn no_maximum() -> i64 {
    i64::MAX
}

impl AccessConfig {
    fn right(self) -> Right {
        match self {
            Self::Word(access) => Right::new(access, Limits::NONE),
            Self::Limited { access, min, max } => Right::new(access, Limits { min, max }),
        }
    }
}

/// A guest.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Where its monitor connects; the first agent's is the service's own socket.
    pub socket: Option<PathBuf>,
    /// What it may do with resources that `access` does not name.
    pub default: Access,
    /// What it may do, by `kind:name`.
    pub access: BTreeMap<String, AccessConfig>,
    /// Whether it may change the rights of others.
    pub trusted: bool,
    /// Messages a second that it may send; 0 for any number.
    pub rate_limit: u32,
    /// What it may do about the whole system.
    pub system_power: SystemRight,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            name: "guest".into(),
            socket: None,
            default: Access::default(),
            access: BTreeMap::new(),
            trusted: false,
            rate_limit: 0,
            system_power: SystemRight::default(),
        }
    }
}

/// Resources whose permissions a trusted agent changes together.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// Its name.
    pub name: String,
    /// Its resources, by `kind:name`.
    pub members: Vec<String>,
}

/// The whole platform.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default = "Config::empty")]
pub struct Config {
    /// Vendor, at most 15 bytes.
    pub vendor: String,
    /// Sub-vendor, at most 15 bytes.
    pub sub_vendor: String,
    /// Implementation version.
    pub version: u32,
    /// Where values come from.
    pub backend: BackendKind,
    /// Where sysfs is.
    pub sysfs: PathBuf,
    /// The guests; without any, one that may do everything.
    pub agents: Vec<AgentConfig>,
    /// What permissions of the base protocol are about, by device number.
    pub groups: Vec<GroupConfig>,
    /// Power domains.
    pub power: Vec<PowerSpec>,
    /// Performance domains.
    pub performance: Vec<PerformanceSpec>,
    /// Clocks.
    pub clocks: Vec<ClockSpec>,
    /// Sensors.
    pub sensors: Vec<SensorSpec>,
    /// Reset domains.
    pub resets: Vec<ResetSpec>,
    /// Voltage domains.
    pub voltages: Vec<VoltageSpec>,
    /// Power capping domains.
    pub powercaps: Vec<PowercapSpec>,
    /// Pins.
    pub pins: Vec<PinSpec>,
    /// Groups of pins.
    pub pin_groups: Vec<PinGroupSpec>,
    /// Functions of pins.
    pub pin_functions: Vec<PinFunctionSpec>,
}

impl Config {
    /// A platform without resources.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            vendor: "AGL".into(),
            sub_vendor: String::new(),
            version: 0x0001_0000,
            backend: BackendKind::Sim,
            sysfs: "/sys".into(),
            agents: Vec::new(),
            groups: Vec::new(),
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
        }
    }

    /// The agents: at least one.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentConfig> {
        if self.agents.is_empty() {
            vec![AgentConfig::default()]
        } else {
            self.agents.clone()
        }
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        fn of<'a, T>(list: &'a [T], name: impl Fn(&'a T) -> &'a String) -> Vec<&'a str> {
            list.iter().map(|of| name(of).as_str()).collect()
        }
        match kind {
            Kind::Power => of(&self.power, |of| &of.name),
            Kind::Performance => of(&self.performance, |of| &of.name),
            Kind::Clock => of(&self.clocks, |of| &of.name),
            Kind::Sensor => of(&self.sensors, |of| &of.name),
            Kind::Reset => of(&self.resets, |of| &of.name),
            Kind::Voltage => of(&self.voltages, |of| &of.name),
            Kind::Powercap => of(&self.powercaps, |of| &of.name),
            Kind::Pin => of(&self.pins, |of| &of.name),
            Kind::PinGroup => of(&self.pin_groups, |of| &of.name),
            Kind::PinFunction => of(&self.pin_functions, |of| &of.name),
        }
    }

    /// The resource of `kind:name`.
    fn find(&self, text: &str) -> Option<(Kind, usize)> {
        let (kind, name) = text.split_once(':')?;
        let kind = Kind::ALL.into_iter().find(|other| other.word() == kind)?;
        let place = self
            .names(kind)
            .into_iter()
            .position(|other| other == name)?;
        Some((kind, place))
    }

    /// The platform that was described. The configuration has been validated: what a reference
    /// does not find is left out.
    #[must_use]
    pub fn build(&self) -> Platform {
        match self.backend {
            BackendKind::Linux => self.assemble(),
            BackendKind::Sim => {
                let mut simulated = self.clone();
                simulated.unbind();
                simulated.assemble()
            }
        }
    }

    /// Nothing is the host's: nobody would answer for it.
    fn unbind(&mut self) {
        for of in &mut self.sensors {
            of.file = None;
            of.axes.iter_mut().for_each(|axis| axis.file = None);
        }
        for of in &mut self.performance {
            (of.cpufreq, of.devfreq) = (None, None);
        }
        self.powercaps.iter_mut().for_each(|of| of.zone = None);
        self.power.iter_mut().for_each(|of| of.host = None);
        self.clocks.iter_mut().for_each(|of| of.host = None);
        self.resets.iter_mut().for_each(|of| of.host = None);
        self.voltages.iter_mut().for_each(|of| of.host = None);
    }

    fn assemble(&self) -> Platform {
        let identity = Identity {
            vendor: self.vendor.clone(),
            sub_vendor: self.sub_vendor.clone(),
            version: self.version,
        };
        let agents = self.agents();
        let mut platform = Platform::new(
            identity,
            agents
                .iter()
                .map(|of| Agent::new(of.name.clone(), of.trusted, of.rate_limit, of.system_power))
                .collect(),
            self.policy(&agents),
        );
        let place = |kind, name: &Option<String>| {
            let name = name.as_ref()?;
            self.names(kind).into_iter().position(|other| other == name)
        };
        platform.power = self
            .power
            .iter()
            .map(|spec| PowerDomain::new(spec.clone(), place(Kind::Power, &spec.parent)))
            .collect();
        platform.performance = self
            .performance
            .iter()
            .cloned()
            .map(Performance::new)
            .collect();
        let clocks = self.names(Kind::Clock);
        platform.clocks = self
            .clocks
            .iter()
            .map(|spec| {
                let parents = spec.parents.iter();
                let parents = parents.filter_map(|name| clocks.iter().position(|of| of == name));
                Clock::new(spec.clone(), parents.collect())
            })
            .collect();
        platform.sensors = self.sensors.iter().cloned().map(Sensor::new).collect();
        platform.resets = self.resets.iter().cloned().map(Reset::new).collect();
        platform.voltages = self.voltages.iter().cloned().map(Voltage::new).collect();
        platform.powercaps = self
            .powercaps
            .iter()
            .map(|spec| Powercap::new(spec.clone(), place(Kind::Powercap, &spec.parent)))
            .collect();
        platform.pins = self.pins.iter().cloned().map(Pin::new).collect();
        platform.pin_groups = self
            .pin_groups
            .iter()
            .map(|spec| PinGroup {
                spec: spec.clone(),
                pins: self.places(Kind::Pin, &spec.pins),
            })
            .collect();
        platform.pin_functions = self
            .pin_functions
            .iter()
            .map(|spec| PinFunction {
                spec: spec.clone(),
                groups: self.places(Kind::PinGroup, &spec.groups),
            })
            .collect();
        platform.bind();
        platform
    }

    /// Where these are, those that are there.
    fn places(&self, kind: Kind, names: &[String]) -> Vec<usize> {
        let known = self.names(kind);
        let place = |name| known.iter().position(|other| other == name);
        names.iter().filter_map(place).collect()
    }

    fn policy(&self, agents: &[AgentConfig]) -> Policy {
        let groups = self.groups.iter().map(|group| DeviceGroup {
            name: group.name.clone(),
            members: group
                .members
                .iter()
                .filter_map(|member| self.find(member))
                .collect(),
        });
        let mut policy = Policy::new(agents.len(), groups.collect());
        for (place, agent) in agents.iter().enumerate() {
            for kind in Kind::ALL {
                let right = |name: &&str| {
                    let key = format!("{}:{name}", kind.word());
                    let named = agent.access.get(&key).copied();
                    named.unwrap_or(AccessConfig::Word(agent.default)).right()
                };
                let rights = self.names(kind).iter().map(right).collect();
                policy.grant(AgentId::new(place), kind, rights);
            }
        }
        policy
    }
}

impl Default for Config {
    fn default() -> Self {
        // A test reads it: it cannot be wrong in a release.
        toml::from_str(BUILT_IN).unwrap_or_else(|error| {
            log::error!("the built-in platform: {error}");
            Self::empty()
        })
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        for (key, text) in [("vendor", &self.vendor), ("sub_vendor", &self.sub_vendor)] {
            problems.require(text.len() < 16, key, "is too long", "at most 15 bytes");
        }
        for kind in Kind::ALL {
            self.validate_names(kind, problems);
        }
        self.validate_agents(problems);
        self.validate_trees(problems);
        for (place, group) in self.groups.iter().enumerate() {
            for (at, member) in group.members.iter().enumerate() {
                let key = format!("groups.{place}.members.{at}");
                self.reference(problems, key, member);
            }
        }
        for (place, spec) in self.performance.iter().enumerate() {
            validate_performance(&format!("performance.{place}"), spec, problems);
        }
        for (place, spec) in self.clocks.iter().enumerate() {
            validate_clock(&format!("clocks.{place}"), spec, problems);
        }
        for (place, spec) in self.sensors.iter().enumerate() {
            validate_sensor(&format!("sensors.{place}"), spec, problems);
        }
        for (place, spec) in self.voltages.iter().enumerate() {
            validate_voltage(&format!("voltages.{place}"), spec, problems);
        }
        for (place, spec) in self.powercaps.iter().enumerate() {
            validate_powercap(&format!("powercaps.{place}"), spec, problems);
        }
        self.validate_pins(problems);
        self.validate_hosts(problems);
    }
}

/// The key of a kind's list in the configuration.
const fn list(kind: Kind) -> &'static str {
    match kind {
        Kind::Power => "power",
        Kind::Performance => "performance",
        Kind::Clock => "clocks",
        Kind::Sensor => "sensors",
        Kind::Reset => "resets",
        Kind::Voltage => "voltages",
        Kind::Powercap => "powercaps",
        Kind::Pin => "pins",
        Kind::PinGroup => "pin_groups",
        Kind::PinFunction => "pin_functions",
    }
}

impl Config {
    fn validate_names(&self, kind: Kind, problems: &mut Problems) {
        let names = self.names(kind);
        problems.require(
            names.len() <= MOST_RESOURCES,
            list(kind),
            format!("{} are too many", names.len()),
            format!("at most {MOST_RESOURCES}"),
        );
        let mut seen = HashSet::new();
        for (place, name) in names.into_iter().enumerate() {
            let key = format!("{}.{place}.name", list(kind));
            check_name(problems, &key, name);
            let new = seen.insert(name.to_owned());
            problems.require(
                new,
                key,
                format!("{name} is there twice"),
                "a name of its own",
            );
        }
    }

    fn validate_agents(&self, problems: &mut Problems) {
        problems.require(
            self.agents.len() <= MOST_AGENTS,
            "agents",
            format!("{} are too many", self.agents.len()),
            format!("at most {MOST_AGENTS}"),
        );
        let mut names = HashSet::new();
        let mut exclusive = HashSet::new();
        let mut sockets = HashSet::new();
        for (place, agent) in self.agents.iter().enumerate() {
            let key = format!("agents.{place}");
            let name = &agent.name;
            problems.require(
                (1..16).contains(&name.len()) && names.insert(name.clone()),
                format!("{key}.name"),
                format!("{name:?} is no name, or another agent's"),
                "a name of its own, 1 to 15 bytes",
            );
            problems.require(
                place == 0 || agent.socket.is_some(),
                key.clone(),
                format!("{name} has no socket, and only the first agent has the service's"),
                "socket = \"/run/agl-virtio/….sock\"",
            );
            problems.require(
                agent
                    .socket
                    .as_ref()
                    .is_none_or(|path| sockets.insert(path)),
                format!("{key}.socket"),
                "another agent has this socket",
                "a socket for each agent",
            );
            problems.require(
                agent.default != Access::Exclusive || self.agents.len() == 1,
                format!("{key}.default"),
                "not everything can be exclusive while there are other agents",
                "exclusive below access, resource by resource",
            );
            for (resource, access) in &agent.access {
                let at = format!("{key}.access.{resource}");
                self.reference(problems, at.clone(), resource);
                let right = access.right();
                let alone = right.access != Access::Exclusive || exclusive.insert(resource.clone());
                problems.require(
                    alone,
                    at.clone(),
                    format!("{resource} is exclusive to two agents"),
                    "set, or exclusive for one of them",
                );
                problems.require(
                    right.limits.min <= right.limits.max,
                    at,
                    "the least is more than the most",
                    "min = …, max = … with min at most max",
                );
                self.check_limits(
                    problems,
                    &format!("{key}.access.{resource}"),
                    resource,
                    right,
                );
            }
        }
    }

    /// Limits must leave something to ask for.
    fn check_limits(&self, problems: &mut Problems, key: &str, resource: &str, right: Right) {
        let left = match self.find(resource) {
            Some((Kind::Performance, place)) => self.performance.get(place).is_none_or(|of| {
                of.levels
                    .iter()
                    .any(|of| right.limits.allow(of.level.into()))
            }),
            Some((Kind::Clock, place)) => self.clocks.get(place).is_none_or(|of| match of.range {
                Some(range) => steps_within(range.map(Into::into), right.limits),
                None => {
                    of.rates.is_empty() || of.rates.iter().any(|rate| right.limits.allow_u64(*rate))
                }
            }),
            Some((Kind::Voltage, place)) => {
                self.voltages.get(place).is_none_or(|of| match of.range {
                    Some(range) => steps_within(range.map(Into::into), right.limits),
                    None => of.levels.iter().any(|of| right.limits.allow((*of).into())),
                })
            }
            _ => true,
        };
        problems.require(
            left,
            key,
            format!("the limits leave nothing of {resource}"),
            "limits that one of its values is within",
        );
    }

    fn reference(&self, problems: &mut Problems, key: String, text: &str) {
        problems.require(
            self.find(text).is_some(),
            key,
            format!("there is no {text}"),
            "kind:name of a resource, such as \"clock:lcd\"; kinds are power, performance, \
             clock, sensor, reset, voltage, powercap, pin, pin-group and pin-function",
        );
    }

    /// What the host's kernel module shows is named as a folder is, and takes the time it takes.
    fn validate_hosts(&self, problems: &mut Problems) {
        let power = self.power.iter().map(|of| (&of.host, 0));
        let clocks = self.clocks.iter().map(|of| (&of.host, of.settle_us));
        let resets = self.resets.iter().map(|of| (&of.host, 0));
        let voltages = self.voltages.iter().map(|of| (&of.host, of.settle_us));
        let all = [
            (Kind::Power, power.collect::<Vec<_>>()),
            (Kind::Clock, clocks.collect()),
            (Kind::Reset, resets.collect()),
            (Kind::Voltage, voltages.collect()),
        ];
        for (kind, of) in all {
            for (place, (host, settle)) in of.into_iter().enumerate() {
                let Some(host) = host else { continue };
                let key = format!("{}.{place}", list(kind));
                let at = format!("{key}.host");
                check_name(problems, &at, host);
                check_file(problems, &at, Some(host));
                problems.require(
                    !host.contains('/'),
                    at,
                    "it is no name of the kernel module",
                    "what follows the colon below class/agl-virtio-resource",
                );
                problems.require(
                    settle == 0,
                    format!("{key}.settle_us"),
                    "a resource of the host takes the time that it takes",
                    "settle_us only for simulated ones",
                );
            }
        }
    }

    /// Settings are known, groups and functions have members, and who sees one sees all of these.
    fn validate_pins(&self, problems: &mut Problems) {
        for (place, spec) in self.pins.iter().enumerate() {
            for word in spec.settings.keys() {
                problems.require(
                    pin_setting(word).is_some(),
                    format!("pins.{place}.settings.{word}"),
                    "there is no such setting",
                    PIN_SETTINGS
                        .iter()
                        .map(|(word, _)| *word)
                        .collect::<Vec<_>>()
                        .join(", "),
                );
            }
        }
        let groups = self.pin_groups.iter().map(|of| (&of.name, &of.pins));
        let functions = self.pin_functions.iter().map(|of| (&of.name, &of.groups));
        self.validate_members(Kind::PinGroup, Kind::Pin, groups, problems);
        self.validate_members(Kind::PinFunction, Kind::PinGroup, functions, problems);
    }

    fn validate_members<'a>(
        &self,
        kind: Kind,
        of: Kind,
        all: impl Iterator<Item = (&'a String, &'a Vec<String>)>,
        problems: &mut Problems,
    ) {
        let known = self.names(of);
        for (place, (name, members)) in all.enumerate() {
            let key = format!("{}.{place}", list(kind));
            problems.require(
                !members.is_empty() && members.iter().all(|name| known.contains(&name.as_str())),
                key.clone(),
                format!("{name} has no {0}, or one that is not there", of.word()),
                format!("the names of some of {}", list(of)),
            );
            for agent in self.agents() {
                let sees = |kind: Kind, name: &str| {
                    let named = agent.access.get(&format!("{}:{name}", kind.word()));
                    let access = named.map_or(agent.default, |access| access.right().access);
                    access != Access::Invisible
                };
                problems.require(
                    !sees(kind, name) || members.iter().all(|member| sees(of, member)),
                    key.clone(),
                    format!("{} sees {name}, but not all of it", agent.name),
                    format!("invisible, or at least read for its {}s too", of.word()),
                );
            }
        }
    }

    /// Parents exist, and nobody is its own ancestor.
    fn validate_trees(&self, problems: &mut Problems) {
        let power = self
            .power
            .iter()
            .map(|of| of.parent.iter().cloned().collect());
        let clocks = self.clocks.iter().map(|of| of.parents.clone());
        let caps = self
            .powercaps
            .iter()
            .map(|of| of.parent.iter().cloned().collect());
        let trees: [(Kind, &str, Vec<Vec<String>>); 3] = [
            (Kind::Power, "parent", power.collect()),
            (Kind::Clock, "parents", clocks.collect()),
            (Kind::Powercap, "parent", caps.collect()),
        ];
        for (kind, field, parents) in trees {
            let names = self.names(kind);
            let places: Vec<Vec<usize>> = parents
                .iter()
                .map(|of| {
                    let place = |name| names.iter().position(|other| other == name);
                    of.iter().filter_map(place).collect()
                })
                .collect();
            for (place, of) in parents.iter().enumerate() {
                let key = format!("{}.{place}.{field}", list(kind));
                for name in of {
                    problems.require(
                        names.contains(&name.as_str()),
                        key.clone(),
                        format!("there is no {} {name}", kind.word()),
                        "the name of one that is there",
                    );
                }
                problems.require(
                    !is_own_ancestor(place, &places),
                    key.clone(),
                    "it is its own ancestor",
                    "parents without a loop",
                );
            }
            problems.require(
                !is_deeper(&places, DEEPEST),
                list(kind),
                "parents have parents, and these too, too often",
                format!("at most {DEEPEST}, one above the other"),
            );
        }
    }
}

fn is_own_ancestor(start: usize, parents: &[Vec<usize>]) -> bool {
    let mut seen = vec![false; parents.len()];
    let mut todo = parents.get(start).cloned().unwrap_or_default();
    while let Some(place) = todo.pop() {
        if place == start {
            return true;
        }
        if let Some(seen) = seen.get_mut(place) {
            if !std::mem::replace(seen, true) {
                todo.extend(parents.get(place).into_iter().flatten());
            }
        }
    }
    false
}

/// Whether more than `most` stand one above the other; a loop is for [`is_own_ancestor`] to tell.
fn is_deeper(parents: &[Vec<usize>], most: usize) -> bool {
    let mut above = vec![false; parents.len()];
    let mut next: Vec<bool> = parents.iter().map(|of| !of.is_empty()).collect();
    for _ in 0..most {
        above.clone_from(&next);
        let has = |place: &usize| above.get(*place).copied().unwrap_or(false);
        next = parents.iter().map(|of| of.iter().any(has)).collect();
    }
    let loops = (0..parents.len()).any(|place| is_own_ancestor(place, parents));
    !loops && next.contains(&true)
}

/// Whether one of the values from the first to the second, in steps of the third, is within limits.
fn steps_within([least, most, step]: [i128; 3], limits: Limits) -> bool {
    let low = i128::from(limits.min).max(least);
    let high = i128::from(limits.max).min(most);
    let past = low.saturating_sub(least).checked_rem(step).unwrap_or(0);
    let first = if past == 0 {
        low
    } else {
        low.saturating_sub(past).saturating_add(step)
    };
    // The last one is also where no step leads.
    low <= high && (first <= high || high == most)
}

fn check_name(problems: &mut Problems, key: &str, name: &str) {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"');
    problems.require(
        plain && (1..64).contains(&name.len()),
        key,
        format!("{name:?} is no name"),
        "1 to 63 letters, digits and signs, no blanks",
    );
}

fn validate_performance(key: &str, spec: &PerformanceSpec, problems: &mut Problems) {
    let levels = &spec.levels;
    problems.require(
        (1..=64).contains(&levels.len()),
        format!("{key}.levels"),
        format!("{} levels: Linux takes 1 to 64", levels.len()),
        "levels = [ { level = 1000, power = 500, latency_us = 50, freq_khz = 1000000 }, … ]",
    );
    let distinct: HashSet<u32> = levels.iter().map(|level| level.level).collect();
    problems.require(
        distinct.len() == levels.len() && !distinct.contains(&0),
        format!("{key}.levels"),
        "two levels are the same, or one is 0",
        "levels that differ, from 1",
    );
    for (field, level) in [("sustained", spec.sustained), ("idle", spec.idle)] {
        problems.require(
            level.is_none_or(|level| distinct.contains(&level)),
            format!("{key}.{field}"),
            "it is none of the levels",
            "one of the levels",
        );
    }
    problems.require(
        spec.cpufreq.is_none() || spec.devfreq.is_none(),
        key,
        "it is both a cpufreq policy and a devfreq device",
        "cpufreq or devfreq",
    );
    let bound = spec.cpufreq.is_some() || spec.devfreq.is_some();
    problems.require(
        !bound || levels.iter().all(|level| level.freq_khz > 0),
        format!("{key}.levels"),
        "a level of a domain that is bound to the host has no frequency",
        "freq_khz for each level",
    );
    for (field, name) in [("cpufreq", &spec.cpufreq), ("devfreq", &spec.devfreq)] {
        check_file(problems, &format!("{key}.{field}"), name.as_deref());
    }
    let most = 0xf_ffff;
    problems.range(
        format!("{key}.rate_limit_us"),
        &spec.rate_limit_us,
        0..=most,
    );
}

fn validate_clock(key: &str, spec: &ClockSpec, problems: &mut Problems) {
    let own = !spec.rates.is_empty();
    problems.require(
        !(own && spec.range.is_some()),
        key,
        "it has both rates and a range",
        "rates = [ … ] or range = [ least, most, step ]",
    );
    problems.require(
        own || spec.range.is_some() || !spec.parents.is_empty(),
        key,
        "it has neither rates of its own nor a parent",
        "rates, range, or parents",
    );
    if let Some([least, most, step]) = spec.range {
        problems.require(
            least <= most && step > 0,
            format!("{key}.range"),
            "the least is more than the most, or the step is 0",
            "[ least, most, step ]",
        );
    }
    let can = |rate: &u64| match spec.range {
        Some([least, most, _]) => (least..=most).contains(rate),
        None => spec.rates.contains(rate),
    };
    problems.require(
        spec.rate.is_none_or(|rate| can(&rate)),
        format!("{key}.rate"),
        "it is none of the clock's own rates",
        "one of rates, or of range",
    );
    problems.require(
        spec.parents.len() <= 255,
        format!("{key}.parents"),
        "are too many",
        "at most 255",
    );
    problems.range(format!("{key}.settle_us"), &spec.settle_us, 0..=10_000_000);
}

fn validate_sensor(key: &str, spec: &SensorSpec, problems: &mut Problems) {
    problems.require(
        unit_code(&spec.unit).is_some(),
        format!("{key}.unit"),
        format!("{} is no unit", spec.unit),
        "celsius, volt, ampere, watt, joule, rpm, percent, hertz, lux, pascal, gauss, \
         metre-per-second-squared, radian-per-second, …",
    );
    problems.range(format!("{key}.scale"), &spec.scale, -16..=15);
    problems.require(
        spec.axes.len() <= MOST_AXES,
        format!("{key}.axes"),
        format!(
            "the readings of {} axes do not fit a message",
            spec.axes.len()
        ),
        format!("at most {MOST_AXES}"),
    );
    for (place, axis) in spec.axes.iter().enumerate() {
        check_name(problems, &format!("{key}.axes.{place}.name"), &axis.name);
        check_file(
            problems,
            &format!("{key}.axes.{place}.file"),
            axis.file.as_deref(),
        );
    }
    check_file(problems, &format!("{key}.file"), spec.file.as_deref());
    let names: HashSet<&str> = spec.axes.iter().map(|axis| axis.name.as_str()).collect();
    problems.require(
        names.len() == spec.axes.len(),
        format!("{key}.axes"),
        "two axes have the same name",
        "a name of its own for each",
    );
    let files = spec.axes.iter().filter(|axis| axis.file.is_some()).count();
    problems.require(
        files == 0 || files == spec.axes.len(),
        format!("{key}.axes"),
        "some axes have a file and some have none",
        "a file for each, or for none",
    );
    problems.require(
        spec.factor[1] != 0,
        format!("{key}.factor"),
        "nothing can be divided by 0",
        "factor = [ times, parts ]",
    );
    problems.require(
        spec.read_us == 0 || (files == 0 && spec.file.is_none()),
        format!("{key}.read_us"),
        "a sensor of the host takes the time that it takes",
        "read_us only for simulated sensors",
    );
    problems.range(format!("{key}.read_us"), &spec.read_us, 0..=10_000_000);
    for (place, interval) in spec.intervals_ms.iter().enumerate() {
        problems.range(
            format!("{key}.intervals_ms.{place}"),
            interval,
            1..=65_535_000,
        );
    }
    if let Some([least, most]) = spec.range {
        problems.require(
            least <= most,
            format!("{key}.range"),
            "the least is more than the most",
            "[ least, most ]",
        );
    }
}

/// A path that stays below the root.
fn check_file(problems: &mut Problems, key: &str, file: Option<&str>) {
    let stays = |file: &str| {
        let parts = std::path::Path::new(file).components();
        let mut parts = parts.map(|part| matches!(part, std::path::Component::Normal(_)));
        !file.is_empty() && parts.all(|normal| normal)
    };
    problems.require(
        file.is_none_or(stays),
        key,
        "it is no path below sysfs",
        "a path such as class/hwmon/hwmon0/temp1_input, without / in front and without ..",
    );
}

fn validate_voltage(key: &str, spec: &VoltageSpec, problems: &mut Problems) {
    problems.require(
        spec.levels.is_empty() == spec.range.is_some(),
        key,
        "it has no voltages, or two kinds of them",
        "levels = [ … ] or range = [ least, most, step ], in µV",
    );
    if let Some([least, most, step]) = spec.range {
        problems.require(
            least <= most && step > 0,
            format!("{key}.range"),
            "the least is more than the most, or the step is not positive",
            "[ least, most, step ]",
        );
    }
    let volts = Voltage::new(spec.clone()).volts;
    problems.require(
        spec.level.is_none_or(|level| volts.contains(level)),
        format!("{key}.level"),
        "it is none of the voltages",
        "one of levels, or of range, in µV",
    );
    problems.range(format!("{key}.settle_us"), &spec.settle_us, 0..=10_000_000);
}

fn validate_powercap(key: &str, spec: &PowercapSpec, problems: &mut Problems) {
    problems.require(
        spec.min > 0 && spec.min <= spec.max && (spec.step > 0 || spec.min == spec.max),
        key,
        "the least cap is 0 or more than the most, or there is no step",
        "min, max and step in µW, from 1",
    );
    problems.require(
        spec.interval_us > 0,
        format!("{key}.interval_us"),
        "power is averaged over no time",
        "a number of µs from 1",
    );
    if let Some([least, most, step]) = spec.interval_range {
        problems.require(
            least > 0 && least < most && step > 0 && (least..=most).contains(&spec.interval_us),
            format!("{key}.interval_range"),
            "the least is 0 or not below the most, there is no step, or interval_us is outside",
            "[ least, most, step ] in µs",
        );
        problems.require(
            spec.zone.is_none(),
            format!("{key}.interval_range"),
            "Linux does not let the host's own zones be averaged otherwise",
            "no interval_range with a zone",
        );
    }
    check_file(problems, &format!("{key}.zone"), spec.zone.as_deref());
    problems.range(format!("{key}.settle_us"), &spec.settle_us, 0..=10_000_000);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let config: Config = toml::from_str(text).unwrap();
        let mut problems = Problems::new();
        config.validate(&mut problems);
        problems
            .into_list()
            .into_iter()
            .map(|problem| problem.key)
            .collect()
    }

    #[test]
    fn the_built_in_platform_and_the_example_are_in_order_and_have_every_protocol() {
        let example = include_str!("../examples/r-car-h3.toml");
        let table: toml::Table = toml::from_str(example).unwrap();
        let mut device = table["devices"]["soc"]
            .clone()
            .try_into::<toml::Table>()
            .unwrap();
        device.remove("type");
        device.remove("socket");
        let example = toml::to_string(&device).unwrap();
        for text in [BUILT_IN, example.as_str()] {
            assert_eq!(faults(text), Vec::<String>::new());
            let config: Config = toml::from_str(text).unwrap();
            let platform = config.build();
            for protocol in crate::protocol::PROTOCOLS {
                assert!(
                    protocol.is_offered(&platform, AgentId::new(0)),
                    "{:#x}",
                    protocol.id
                );
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let clock = "[[clocks]]\nname = \"a\"\n";
        let level = "levels = [{ level = 1 }]\n";
        let table = [
            (clock.to_owned(), "clocks.0"),
            (format!("{clock}rates = [1]\nrange = [1, 2, 1]"), "clocks.0"),
            (format!("{clock}range = [2, 1, 1]"), "clocks.0.range"),
            (format!("{clock}parents = [\"b\"]"), "clocks.0.parents"),
            (format!("{clock}parents = [\"a\"]"), "clocks.0.parents"),
            (
                format!("{clock}rates = [1]\n{clock}rates = [1]"),
                "clocks.1.name",
            ),
            ("[[power]]\nname = \"a b\"".to_owned(), "power.0.name"),
            (
                format!("[[performance]]\nname = \"p\"\nidle = 2\n{level}"),
                "performance.0.idle",
            ),
            (
                "[[sensors]]\nname = \"s\"\nunit = \"degree\"".to_owned(),
                "sensors.0.unit",
            ),
            (
                "[[sensors]]\nname = \"s\"\nfile = \"../etc/passwd\"".to_owned(),
                "sensors.0.file",
            ),
            (
                "[[agents]]\nname = \"a\"\naccess = { \"clock:x\" = \"read\" }".to_owned(),
                "agents.0.access.clock:x",
            ),
            (
                "[[agents]]\nname = \"a\"\n[[agents]]\nname = \"b\"".to_owned(),
                "agents.1",
            ),
            (
                format!("{clock}rates = [1]\nhost = \"a/b\""),
                "clocks.0.host",
            ),
            (
                format!("{clock}rates = [1]\nhost = \"b\"\nsettle_us = 1"),
                "clocks.0.settle_us",
            ),
            (format!("{clock}rates = [1]\nrate = 2"), "clocks.0.rate"),
            (
                "[[voltages]]\nname = \"v\"\nrange = [1, 9, 2]\nlevel = 2".to_owned(),
                "voltages.0.level",
            ),
            (
                format!("[[performance]]\nname = \"p\"\ncpufreq = \"a\"\ndevfreq = \"b\"\n{level}"),
                "performance.0",
            ),
            (
                "[[sensors]]\nname = \"s\"\naxes = [{ name = \"x\" }, { name = \"x\" }]".to_owned(),
                "sensors.0.axes",
            ),
            (
                "[[agents]]\nname = \"a\"\nsocket = \"/s\"\n[[agents]]\nname = \"b\"\nsocket = \"/s\""
                    .to_owned(),
                "agents.1.socket",
            ),
            (
                format!(
                    "{clock}range = [10, 20, 1]\n[[agents]]\n\
                     access = {{ \"clock:a\" = {{ access = \"set\", min = 30 }} }}"
                ),
                "agents.0.access.clock:a",
            ),
            (
                "[[pins]]\nname = \"p\"\nsettings = { pull = 1 }".to_owned(),
                "pins.0.settings.pull",
            ),
            (
                "[[pin_groups]]\nname = \"g\"\npins = [\"p\"]".to_owned(),
                "pin_groups.0",
            ),
            (
                "[[groups]]\nmembers = [\"lcd\"]".to_owned(),
                "groups.0.members.0",
            ),
        ];
        for (text, key) in table {
            let found = faults(&text);
            assert!(found.iter().any(|other| other == key), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_limit_with_a_slip_of_the_pen_is_no_limit_left_out() {
        let access = |words: &str| {
            let text = format!("[[agents]]\naccess = {{ \"clock:a\" = {words} }}");
            toml::from_str::<Config>(&text).map_err(|error| error.to_string())
        };
        assert!(access("{ access = \"set\", max = 1 }").is_ok());
        for words in ["{ access = \"set\", mx = 1 }", "\"write\"", "{ max = 1 }"] {
            let error = access(words).unwrap_err();
            assert!(error.contains("min = …, max = …"), "{words}: {error}");
        }
    }

    #[test]
    fn a_tree_is_as_deep_as_the_platform_looks() {
        let tree = |depth: usize| {
            let mut text = "[[power]]\nname = \"p0\"\n".to_owned();
            for place in 1..=depth {
                let parent = place - 1;
                text += &format!("[[power]]\nname = \"p{place}\"\nparent = \"p{parent}\"\n");
            }
            text
        };
        assert_eq!(faults(&tree(DEEPEST)), Vec::<String>::new());
        assert_eq!(faults(&tree(DEEPEST + 1)), ["power"]);
        let config: Config = toml::from_str(&tree(DEEPEST)).unwrap();
        let mut platform = config.build();
        let agent = AgentId::new(0);
        platform
            .vote_power(agent, DEEPEST, crate::platform::POWER_ON)
            .unwrap();
        assert!(platform.is_powered(0));
    }

    #[test]
    fn a_simulated_platform_leaves_the_host_alone() {
        let text = "[[sensors]]\nname = \"s\"\nfile = \"class/hwmon/hwmon0/temp1_input\"\n\
             [[clocks]]\nname = \"c\"\nrates = [1]\nhost = \"lcd\"\n";
        for (backend, bound) in [("sim", false), ("linux", true)] {
            let config: Config =
                toml::from_str(&format!("backend = \"{backend}\"\n{text}")).unwrap();
            let platform = config.build();
            assert_eq!(platform.sensors[0].is_bound(), bound);
            assert_eq!(platform.clocks[0].spec.host.is_some(), bound);
        }
    }

    #[test]
    fn one_thing_cannot_be_exclusive_to_two() {
        let text = "[[clocks]]\nname = \"a\"\nrates = [1]\n\
             [[agents]]\nname = \"x\"\naccess = { \"clock:a\" = \"exclusive\" }\n\
             [[agents]]\nname = \"y\"\nsocket = \"/y\"\naccess = { \"clock:a\" = \"exclusive\" }";
        assert_eq!(faults(text), ["agents.1.access.clock:a"]);
    }
}
