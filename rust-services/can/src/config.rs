// SPDX-License-Identifier: Apache-2.0

//! Buses, controllers and gateways in TOML.
//!
//! ```toml
//! [devices.powertrain]
//! type = "can"
//! [[devices.powertrain.buses]]
//! name = "chassis"
//! bitrate = 500000
//! programs = "/run/agl-virtio/chassis.sock"
//! [[devices.powertrain.controllers]]
//! name = "cluster"
//! send = ["700-70f"]
//! ```

use std::collections::HashSet;
use std::path::PathBuf;

use agl_virtio_service::config::{Problems, Validate};
use serde::Deserialize;

use crate::identifiers::IdSet;
use crate::network::policy::{Limit, Policy};
use crate::network::{Acknowledge, BusId, Controller, MOST_CONTROLLERS, Medium, Network};
use crate::timing::Rates;

/// Buses, and gateways, at most in one process.
const MOST: usize = 64;

/// What a bus is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A bus in this process.
    #[default]
    Bus,
    /// A CAN interface of the host.
    Socketcan,
}

/// A bus.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// Its name.
    pub name: String,
    /// What it is.
    pub backend: Backend,
    /// The host's interface, where it is one.
    pub interface: Option<String>,
    /// Bit/s.
    pub bitrate: u32,
    /// Bit/s of the data of FD frames.
    pub data_bitrate: u32,
    /// Who acknowledges frames.
    pub acknowledge: Acknowledge,
    /// Where programs of the host join.
    pub programs: Option<PathBuf>,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            name: "bus".into(),
            backend: Backend::Bus,
            interface: None,
            bitrate: 500_000,
            data_bitrate: 2_000_000,
            acknowledge: Acknowledge::default(),
            programs: None,
        }
    }
}

impl BusConfig {
    fn medium(&self) -> Medium {
        let rates = Rates {
            nominal: self.bitrate,
            data: self.data_bitrate,
        };
        match (self.backend, &self.interface) {
            (Backend::Socketcan, Some(name)) => Medium::Interface(name.clone(), rates),
            _ => Medium::Virtual {
                rates,
                acknowledge: self.acknowledge,
            },
        }
    }
}

/// How often frames may be sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// Which.
    pub ids: Vec<String>,
    /// Frames a second in the long run.
    pub per_second: u32,
    /// Frames at once; a tenth of a second's, where it is not said.
    pub burst: Option<u32>,
}

/// A guest's controller.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllerConfig {
    /// Its name.
    pub name: String,
    /// Its bus; the first one where it is not said.
    pub bus: Option<String>,
    /// Where its monitor connects; the first controller's is the service's own socket.
    pub socket: Option<PathBuf>,
    /// What its guest may send.
    pub send: Vec<String>,
    /// What its guest may hear.
    pub receive: Vec<String>,
    /// What its guest hears first, and before others when it is slow.
    pub urgent: Vec<String>,
    /// How often it may send what.
    pub limits: Vec<LimitConfig>,
    /// Frames that are kept for a guest that is slow.
    pub backlog: usize,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            name: "guest".into(),
            bus: None,
            socket: None,
            send: vec!["any".into()],
            receive: vec!["any".into()],
            urgent: Vec::new(),
            limits: Vec::new(),
            backlog: 4096,
        }
    }
}

impl ControllerConfig {
    fn policy(&self) -> Policy {
        let set = |texts: &[String]| IdSet::parse(texts).unwrap_or_default();
        let limits = self.limits.iter().map(|limit| {
            let tenth = limit.per_second.div_ceil(10);
            let burst = limit.burst.unwrap_or(tenth);
            Limit::new(set(&limit.ids), limit.per_second, burst)
        });
        Policy {
            send: set(&self.send),
            receive: set(&self.receive),
            urgent: set(&self.urgent),
            limits: limits.collect(),
        }
    }
}

/// Frames from one bus that are sent on another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where they come from.
    pub from: String,
    /// Where they go.
    pub to: String,
    /// Which.
    pub ids: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The buses; without any, one in this process.
    pub buses: Vec<BusConfig>,
    /// The controllers; without any, one on the first bus that may do everything.
    pub controllers: Vec<ControllerConfig>,
    /// The gateways.
    pub gateways: Vec<GatewayConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            buses: vec![BusConfig::default()],
            controllers: vec![ControllerConfig::default()],
            gateways: Vec::new(),
        }
    }
}

impl Config {
    fn bus(&self, name: &str) -> Option<BusId> {
        let place = self.buses.iter().position(|bus| bus.name == name);
        place.map(BusId)
    }

    /// The network that this describes.
    #[must_use]
    pub fn build(&self) -> Network {
        let mut network = Network::default();
        for bus in &self.buses {
            network.add_bus(bus.name.clone(), bus.medium());
        }
        for controller in &self.controllers {
            let bus = controller.bus.as_deref().and_then(|name| self.bus(name));
            network.add_controller(Controller::new(
                controller.name.clone(),
                bus.unwrap_or(BusId(0)),
                controller.policy(),
                controller.backlog,
            ));
        }
        for gateway in &self.gateways {
            if let (Some(from), Some(to)) = (self.bus(&gateway.from), self.bus(&gateway.to)) {
                let ids = IdSet::parse(&gateway.ids).unwrap_or_default();
                network.add_gateway(from, to, ids);
            }
        }
        network
    }
}

impl Config {
    /// Whether running guests find their controllers in those of `other`: each its own, at its place.
    /// Buses and what a guest may do there can change.
    pub(crate) fn is_same_device(&self, other: &Self) -> bool {
        let seats = |of: &Self| -> Vec<_> {
            let controllers = of.controllers.iter();
            controllers
                .map(|one| (one.name.clone(), one.socket.clone()))
                .collect()
        };
        seats(self) == seats(other)
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.range("buses", &self.buses.len(), 1..=MOST);
        problems.range("controllers", &self.controllers.len(), 1..=MOST_CONTROLLERS);
        problems.range("gateways", &self.gateways.len(), 0..=MOST);
        unique(problems, "buses", self.buses.iter().map(|bus| &bus.name));
        unique(
            problems,
            "controllers",
            self.controllers.iter().map(|of| &of.name),
        );
        for (place, bus) in self.buses.iter().enumerate() {
            problems.part(&format!("buses.{place}"), bus);
        }
        self.once(problems);
        for (place, controller) in self.controllers.iter().enumerate() {
            let key = format!("controllers.{place}");
            problems.part(&key, controller);
            problems.require(
                place == 0 || controller.socket.is_some(),
                format!("{key}.socket"),
                format!("nobody could connect to {}", controller.name),
                "the path of a socket; only the first controller has the service's own",
            );
            problems.require(
                place != 0 || controller.socket.is_none(),
                format!("{key}.socket"),
                format!(
                    "nobody would listen there: {} is the first",
                    controller.name
                ),
                "nothing: the first controller has the service's own socket (--socket)",
            );
            if let Some(bus) = &controller.bus {
                self.known(problems, format!("{key}.bus"), bus);
            }
        }
        for (place, gateway) in self.gateways.iter().enumerate() {
            let key = format!("gateways.{place}");
            self.known(problems, format!("{key}.from"), &gateway.from);
            self.known(problems, format!("{key}.to"), &gateway.to);
            problems.require(
                gateway.from != gateway.to,
                format!("{key}.to"),
                "the gateway leads back to its own bus",
                "the name of another bus",
            );
            identifiers(problems, &format!("{key}.ids"), &gateway.ids);
            any(problems, format!("{key}.ids"), &gateway.ids);
        }
    }
}

impl Config {
    fn known(&self, problems: &mut Problems, key: String, bus: &str) {
        let names: Vec<_> = self.buses.iter().map(|bus| bus.name.as_str()).collect();
        problems.require(
            names.contains(&bus),
            key,
            format!("there is no bus {bus}"),
            format!("one of {}", names.join(", ")),
        );
    }
}

impl Config {
    /// What can be used once only. Two buses on one interface would hear each other, and a gateway
    /// between them send for ever.
    fn once(&self, problems: &mut Problems) {
        let mut seen = HashSet::new();
        for (place, bus) in self.buses.iter().enumerate() {
            if let Some(interface) = &bus.interface {
                problems.require(
                    seen.insert(interface.clone()),
                    format!("buses.{place}.interface"),
                    format!("{interface} is another bus already"),
                    "an interface of its own, or one bus for all who use it",
                );
            }
        }
        let programs = self.buses.iter().enumerate();
        let programs =
            programs.map(|(place, bus)| (format!("buses.{place}.programs"), &bus.programs));
        let guests = self.controllers.iter().enumerate();
        let guests = guests.map(|(place, of)| (format!("controllers.{place}.socket"), &of.socket));
        let mut seen = HashSet::new();
        for (key, path) in programs.chain(guests) {
            if let Some(path) = path {
                problems.require(
                    seen.insert(path),
                    key,
                    format!("{} is another socket already", path.display()),
                    "a path of its own",
                );
            }
        }
    }
}

/// A list of nothing would do nothing.
fn any(problems: &mut Problems, key: String, texts: &[String]) {
    problems.require(
        !texts.is_empty(),
        key,
        "names no identifiers, so it does nothing",
        "identifiers, or \"any\"",
    );
}

fn unique<'a>(problems: &mut Problems, key: &str, names: impl Iterator<Item = &'a String>) {
    let mut seen = HashSet::new();
    for (place, name) in names.enumerate() {
        problems.require(
            agl_virtio_service::config::is_name(name) && seen.insert(name),
            format!("{key}.{place}.name"),
            format!("{name:?} is no name, or that of another one"),
            "a name of its own, of letters, digits, - and _",
        );
    }
}

fn identifiers(problems: &mut Problems, key: &str, texts: &[String]) {
    for (place, text) in texts.iter().enumerate() {
        if let Err(error) = IdSet::parse(&[text]) {
            problems.add(
                format!("{key}.{place}"),
                error.to_string(),
                "any, standard, extended, 123, 120-12f, 120:7f0, or the same with eight digits",
            );
        }
    }
}

impl Validate for BusConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.range("bitrate", &self.bitrate, 10_000..=1_000_000);
        problems.range(
            "data_bitrate",
            &self.data_bitrate,
            self.bitrate..=20_000_000,
        );
        problems.require(
            (self.backend == Backend::Socketcan) == self.interface.is_some(),
            "interface",
            "a bus of backend = \"socketcan\" has an interface, any other has none",
            "the name of a CAN interface that `ip link` shows, such as can0",
        );
        problems.require(
            self.backend == Backend::Bus || self.acknowledge == Acknowledge::Bus,
            "acknowledge",
            "whose frames are acknowledged is up to the interface's bus",
            "nothing, or backend = \"bus\"",
        );
    }
}

impl Validate for ControllerConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.range("backlog", &self.backlog, 1..=65_536);
        identifiers(problems, "send", &self.send);
        identifiers(problems, "receive", &self.receive);
        identifiers(problems, "urgent", &self.urgent);
        problems.range("limits", &self.limits.len(), 0..=MOST);
        for (place, limit) in self.limits.iter().enumerate() {
            let key = format!("limits.{place}");
            identifiers(problems, &format!("{key}.ids"), &limit.ids);
            any(problems, format!("{key}.ids"), &limit.ids);
            problems.range(format!("{key}.per_second"), &limit.per_second, 1..=100_000);
            problems.range(
                format!("{key}.burst"),
                &limit.burst.unwrap_or(1),
                1..=100_000,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        let mut problems = Problems::new();
        config.validate(&mut problems);
        let list = problems.into_list();
        list.into_iter().map(|problem| problem.key).collect()
    }

    fn on(interface: &str, name: &str) -> BusConfig {
        BusConfig {
            name: name.into(),
            backend: Backend::Socketcan,
            interface: Some(interface.into()),
            ..BusConfig::default()
        }
    }

    #[test]
    fn what_would_do_nothing_or_harm_is_named() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        let first = |config: &mut Config| config.controllers[0].socket = Some("/run/a".into());
        assert_eq!(problems(first), ["controllers.0.socket"]);
        let twice = |config: &mut Config| config.buses = vec![on("can0", "a"), on("can0", "b")];
        assert_eq!(problems(twice), ["buses.1.interface"]);
        let sockets = |config: &mut Config| {
            config.buses[0].programs = Some("/run/a".into());
            config.controllers.push(ControllerConfig {
                name: "b".into(),
                socket: Some("/run/a".into()),
                ..ControllerConfig::default()
            });
        };
        assert_eq!(problems(sockets), ["controllers.1.socket"]);
        let idle = |config: &mut Config| {
            config.buses.push(on("can0", "b"));
            config.buses[1].acknowledge = Acknowledge::Stations;
            config.gateways.push(GatewayConfig {
                from: "bus".into(),
                to: "b".into(),
                ids: Vec::new(),
            });
            config.controllers[0].limits.push(LimitConfig {
                ids: Vec::new(),
                per_second: 1,
                burst: None,
            });
        };
        let expected = [
            "buses.1.acknowledge",
            "controllers.0.limits.0.ids",
            "gateways.0.ids",
        ];
        assert_eq!(problems(idle), expected);
    }

    #[test]
    fn a_running_guest_may_have_another_bus_but_not_another_place() {
        let config = Config::default();
        let buses = vec![BusConfig {
            bitrate: 125_000,
            ..BusConfig::default()
        }];
        assert!(config.is_same_device(&Config {
            buses,
            ..Config::default()
        }));
        let controllers = vec![ControllerConfig {
            name: "cluster".into(),
            ..ControllerConfig::default()
        }];
        assert!(!config.is_same_device(&Config {
            controllers,
            ..Config::default()
        }));
    }
}
