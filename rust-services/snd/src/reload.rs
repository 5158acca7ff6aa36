// SPDX-License-Identifier: Apache-2.0

//! A new configuration while the service runs (SIGHUP).
//!
//! What a person may turn on D-Bus is taken over at once, running streams included: volumes, roles,
//! priorities, who steps back, jacks. A knob whose line in the file is as it was stays where the
//! guest or the host has put it. What the guest's driver was told when it came (how many streams,
//! their shapes, elements, names) and where sound goes cannot change under it: each such line is
//! named in the log, and the next start of the service takes it over.

use std::sync::Arc;

use crate::config::{JackConfig, SndConfig, StreamConfig};
use crate::panel::{Change, Panel};

/// What the service runs with.
pub struct Running {
    config: SndConfig,
    panel: Arc<Panel>,
}

/// What became of a new configuration, in words for the log.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// Settings that hold now, such as `streams.0.volume = 60`.
    pub applied: Vec<String>,
    /// Settings that wait for the next start of the service, such as `streams.0.backend`.
    pub waiting: Vec<String>,
}

impl Running {
    /// A service that was started with this configuration.
    #[must_use]
    pub fn new(config: SndConfig, panel: Arc<Panel>) -> Self {
        Self { config, panel }
    }

    /// Takes over of `new` what can be.
    pub fn reload(&mut self, new: &SndConfig) -> Outcome {
        let mut outcome = Outcome::default();
        let now = &mut self.config;
        outcome.compare("streams", now.streams.len() != new.streams.len());
        outcome.compare("jacks", now.jacks.len() != new.jacks.len());
        outcome.compare("chmaps", now.chmaps != new.chmaps);
        outcome.compare("polling", now.polling != new.polling);
        let priority = now.realtime_priority != new.realtime_priority;
        outcome.compare("realtime_priority", priority);
        for (index, (now, new)) in now.streams.iter_mut().zip(&new.streams).enumerate() {
            outcome.stream(index, now, new, &self.panel);
        }
        for (index, (now, new)) in now.jacks.iter_mut().zip(&new.jacks).enumerate() {
            outcome.jack(index, now, new, &self.panel);
        }
        if !outcome.applied.is_empty() {
            self.panel.host_turned();
        }
        outcome
    }
}

impl Outcome {
    /// Says in the log what became of it.
    pub fn log(&self) {
        for setting in &self.applied {
            log::info!("new configuration: {setting}");
        }
        if !self.waiting.is_empty() {
            log::warn!(
                "new configuration: {} cannot change while a guest may use the card; the next start \
                 of the service takes it over",
                self.waiting.join(", ")
            );
        }
    }

    fn compare(&mut self, key: &str, differs: bool) {
        if differs {
            self.waiting.push(key.to_owned());
        }
    }

    fn stream(&mut self, index: usize, now: &mut StreamConfig, new: &StreamConfig, panel: &Panel) {
        let key = |name: &str| format!("streams.{index}.{name}");
        let fixed = [
            ("name", now.name != new.name),
            ("direction", now.direction != new.direction),
            ("device", now.device != new.device),
            ("channels_min", now.channels_min != new.channels_min),
            ("channels_max", now.channels_max != new.channels_max),
            ("rates", now.rates != new.rates),
            ("formats", now.formats != new.formats),
            ("controls", now.controls != new.controls),
            ("sources", now.sources != new.sources),
            ("backend", now.backend != new.backend),
        ];
        for (name, differs) in fixed {
            self.compare(&key(name), differs);
        }
        let Some(knobs) = panel.stream(index) else {
            return;
        };
        if now.volume != new.volume {
            knobs.set_volume(new.volume);
            panel.tell(Change::Volume(index));
            self.applied
                .push(format!("{} = {}", key("volume"), new.volume));
        }
        if now.role != new.role {
            knobs.set_role(new.role);
            panel.tell(Change::Role(index));
            self.applied
                .push(format!("{} = {}", key("role"), new.role.name()));
        }
        // A role brings its own priority only where the host has not put another one.
        let from_role = now.priority.is_none() && knobs.priority() == now.role.priority();
        // A line that was written, changed or taken away counts even where it says what the role does.
        let follows = from_role && now.priority() != new.priority() || now.priority != new.priority;
        if follows && knobs.priority() != new.priority() {
            knobs.set_priority(new.priority());
            panel.tell(Change::Priority(index));
            self.applied
                .push(format!("{} = {}", key("priority"), new.priority()));
        }
        if now.step_back != new.step_back {
            knobs.set_step_back(new.step_back);
            self.applied
                .push(format!("{} = {:?}", key("step_back"), new.step_back));
        }
        if now.duck_centibels() != new.duck_centibels() {
            knobs.set_duck_level(new.duck_centibels());
            panel.tell(Change::DuckLevel(index));
            self.applied
                .push(format!("{} = {}", key("duck_level"), new.duck_level));
        }
        now.volume = new.volume;
        now.role = new.role;
        now.priority = new.priority;
        now.step_back = new.step_back;
        now.duck_level = new.duck_level;
    }

    fn jack(&mut self, index: usize, now: &mut JackConfig, new: &JackConfig, panel: &Panel) {
        let key = |name: &str| format!("jacks.{index}.{name}");
        self.compare(&key("name"), now.name != new.name);
        self.compare(&key("kind"), now.kind != new.kind);
        self.compare(&key("device"), now.device != new.device);
        if now.connected != new.connected {
            now.connected = new.connected;
            panel.set_jack(index, new.connected);
            panel.tell(Change::Jack(index));
            self.applied
                .push(format!("{} = {}", key("connected"), new.connected));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Role;

    fn running() -> (SndConfig, Running) {
        let config = SndConfig::default();
        let panel = Arc::new(crate::device::panel(&config));
        (config.clone(), Running::new(config, panel))
    }

    #[test]
    fn knobs_are_turned_and_lines_that_did_not_change_turn_none() {
        let (mut config, mut running) = running();
        running.panel.stream(0).unwrap().set_volume(33);
        config.streams[0].role = Role::Communication;
        config.streams[1].volume = 60;
        config.jacks[0].connected = true;
        let outcome = running.reload(&config);
        let applied = [
            "streams.0.role = Communication",
            "streams.0.priority = 30",
            "streams.1.volume = 60",
            "jacks.0.connected = true",
        ];
        assert_eq!(
            (outcome.applied, outcome.waiting),
            (applied.map(String::from).into(), vec![])
        );
        let knobs = running.panel.stream(0).unwrap();
        assert_eq!(
            (knobs.volume(), knobs.role(), knobs.priority()),
            (33, Role::Communication, 30)
        );
        assert!(running.panel.jack(0));
        assert_eq!(running.reload(&config), Outcome::default());
    }

    #[test]
    fn another_role_leaves_the_priority_that_the_host_has_set() {
        let (mut config, mut running) = running();
        running.panel.stream(0).unwrap().set_priority(77);
        config.streams[0].role = Role::Communication;
        let outcome = running.reload(&config);
        assert_eq!(outcome.applied, ["streams.0.role = Communication"]);
        assert_eq!(running.panel.stream(0).unwrap().priority(), 77);
        config.streams[0].priority = Some(5);
        assert_eq!(running.reload(&config).applied, ["streams.0.priority = 5"]);
        assert_eq!(running.panel.stream(0).unwrap().priority(), 5);
    }

    #[test]
    fn a_priority_that_is_written_counts_even_where_it_is_that_of_the_role() {
        let (mut config, mut running) = running();
        running.panel.stream(0).unwrap().set_priority(77);
        config.streams[0].priority = Some(10);
        assert_eq!(running.reload(&config).applied, ["streams.0.priority = 10"]);
        assert_eq!(running.panel.stream(0).unwrap().priority(), 10);
        running.panel.stream(0).unwrap().set_priority(77);
        assert_eq!(running.reload(&config), Outcome::default());
        assert_eq!(running.panel.stream(0).unwrap().priority(), 77);
    }

    #[test]
    fn what_a_driver_was_told_waits_and_is_named_as_long_as_it_differs() {
        let (old, mut running) = running();
        let mut config = old.clone();
        config.streams[2].channels_max = 2;
        config.streams[0].rates = vec![48_000];
        config.jacks.pop();
        config.polling = true;
        let waiting = [
            "jacks",
            "polling",
            "streams.0.rates",
            "streams.2.channels_max",
        ];
        for _ in 0..2 {
            let outcome = running.reload(&config);
            assert_eq!(
                (outcome.applied, outcome.waiting),
                (vec![], waiting.map(String::from).into())
            );
        }
        assert_eq!(running.reload(&old), Outcome::default());
    }
}
