// SPDX-License-Identifier: Apache-2.0

//! Pins, groups of them, and the functions that groups can serve. A pin belongs to the agent that
//! asked for it or, where nobody asked, to the one that set it up first; what it was set to ends
//! with that agent.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::platform::{AgentId, Kind, Platform, at, at_mut};
use crate::wire::Status;

/// What can be set of a pin, by its number on the wire (SCMI 3.2, 4.11.2.6).
pub const PIN_SETTINGS: &[(&str, u8)] = &[
    ("default", 0),
    ("bias-bus-hold", 1),
    ("bias-disable", 2),
    ("bias-high-impedance", 3),
    ("bias-pull-up", 4),
    ("bias-pull-default", 5),
    ("bias-pull-down", 6),
    ("drive-open-drain", 7),
    ("drive-open-source", 8),
    ("drive-push-pull", 9),
    ("drive-strength", 10),
    ("input-debounce", 11),
    ("input-mode", 12),
    ("pull-mode", 13),
    ("input-value", 14),
    ("input-schmitt", 15),
    ("low-power-mode", 16),
    ("output-mode", 17),
    ("output-value", 18),
    ("power-source", 19),
    ("slew-rate", 20),
];
/// Settings of which at most one holds: the newest.
const CHOICES: [std::ops::RangeInclusive<u8>; 2] = [1..=6, 7..=9];

/// The number of a setting; `None` for a word that is none.
#[must_use]
pub fn pin_setting(word: &str) -> Option<u8> {
    let mut known = PIN_SETTINGS.iter();
    known.find(|(name, _)| *name == word).map(|(_, code)| *code)
}

/// A pin, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PinSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// What can be set of it, with the values that hold while nobody sets anything.
    pub settings: BTreeMap<String, u32>,
}

/// A group of pins, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PinGroupSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// Its pins.
    pub pins: Vec<String>,
}

/// A function, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PinFunctionSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// The groups that can serve it.
    pub groups: Vec<String>,
}

/// A pin.
#[derive(Clone, Debug)]
pub struct Pin {
    /// As configured.
    pub spec: PinSpec,
    /// What can be set of it, and the values without any agent.
    initial: BTreeMap<u8, u32>,
    /// What it is set to.
    pub(super) settings: BTreeMap<u8, u32>,
    /// The function that it serves.
    pub(super) function: Option<usize>,
    /// Who asked for it.
    pub(super) requested: Option<AgentId>,
    /// Who set it up.
    pub(super) set_by: Option<AgentId>,
}

impl Pin {
    /// A pin that nobody has.
    #[must_use]
    pub fn new(spec: PinSpec) -> Self {
        let settings = spec.settings.iter();
        let initial: BTreeMap<u8, u32> = settings
            .filter_map(|(word, value)| Some((pin_setting(word)?, *value)))
            .collect();
        Self {
            spec,
            settings: initial.clone(),
            initial,
            function: None,
            requested: None,
            set_by: None,
        }
    }

    /// The agent that has it.
    #[must_use]
    pub fn owner(&self) -> Option<AgentId> {
        self.requested.or(self.set_by)
    }

    /// The function that it serves.
    #[must_use]
    pub fn function(&self) -> Option<usize> {
        self.function
    }

    /// What it is set to, by number.
    #[must_use]
    pub fn settings(&self) -> &BTreeMap<u8, u32> {
        &self.settings
    }

    fn set(&mut self, setting: u8, value: u32) {
        for choice in CHOICES {
            if choice.contains(&setting) {
                for other in choice {
                    // A pin cannot be pulled two ways: what it had before does not hold any more.
                    if let Some(old) = self.settings.get_mut(&other) {
                        *old = 0;
                    }
                }
            }
        }
        if let Some(old) = self.settings.get_mut(&setting) {
            *old = value;
        }
    }

    fn forget(&mut self) {
        self.settings.clone_from(&self.initial);
        self.function = None;
        self.set_by = None;
    }
}

/// A group of pins.
#[derive(Clone, Debug)]
pub struct PinGroup {
    /// As configured.
    pub spec: PinGroupSpec,
    /// Its pins.
    pub pins: Vec<usize>,
}

/// A function.
#[derive(Clone, Debug)]
pub struct PinFunction {
    /// As configured.
    pub spec: PinFunctionSpec,
    /// The groups that can serve it.
    pub groups: Vec<usize>,
}

/// One pin, or a group of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pins {
    /// A pin.
    One(usize),
    /// A group.
    Group(usize),
}

/// Something to be made of pins.
#[derive(Clone, Debug, Default)]
pub struct PinSetup {
    /// The function that they serve from now on.
    pub function: Option<usize>,
    /// Settings and their values, in this order.
    pub settings: Vec<(u8, u32)>,
}

impl Platform {
    /// The pins that are meant.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn pins_of(&self, which: Pins) -> Result<Vec<usize>, Status> {
        match which {
            Pins::One(pin) => at(&self.pins, pin).map(|_| vec![pin]),
            Pins::Group(group) => Ok(at(&self.pin_groups, group)?.pins.clone()),
        }
    }

    /// The pins that are meant, which the agent may set up and nobody else has.
    ///
    /// # Errors
    /// [`Status::Denied`], [`Status::InUse`].
    fn free_pins(&mut self, agent: AgentId, which: Pins) -> Result<Vec<usize>, Status> {
        if let Pins::Group(group) = which {
            self.may_set(agent, Kind::PinGroup, group)?;
        }
        let pins = self.pins_of(which)?;
        for pin in &pins {
            self.may_set(agent, Kind::Pin, *pin)?;
            let owner = at(&self.pins, *pin)?.owner();
            if owner.is_some_and(|owner| owner != agent) {
                return Err(Status::InUse);
            }
        }
        Ok(pins)
    }

    /// An agent wants pins for itself.
    ///
    /// # Errors
    /// [`Status::Denied`], [`Status::InUse`] where another one has one of them.
    pub fn request_pins(&mut self, agent: AgentId, which: Pins) -> Result<(), Status> {
        for pin in self.free_pins(agent, which)? {
            at_mut(&mut self.pins, pin)?.requested = Some(agent);
        }
        self.changed();
        Ok(())
    }

    /// An agent gives pins back. What they are set to stays until somebody sets them up anew.
    ///
    /// # Errors
    /// [`Status::Denied`] for pins that it has not asked for.
    pub fn release_pin_request(&mut self, agent: AgentId, which: Pins) -> Result<(), Status> {
        let pins = self.pins_of(which)?;
        let mine = |pin: &usize| {
            let of = self.pins.get(*pin);
            of.is_some_and(|of| of.requested == Some(agent))
        };
        if !pins.iter().all(mine) {
            return Err(self.denied(agent));
        }
        for pin in pins {
            let of = at_mut(&mut self.pins, pin)?;
            of.requested = None;
            of.set_by = None;
        }
        self.changed();
        Ok(())
    }

    /// An agent sets pins up: all of it, or nothing.
    ///
    /// # Errors
    /// [`Status::Denied`], [`Status::InUse`], [`Status::InvalidParameters`] for a function that
    /// these pins cannot serve, [`Status::NotSupported`] for what cannot be set of them.
    pub fn set_up_pins(
        &mut self,
        agent: AgentId,
        which: Pins,
        setup: &PinSetup,
    ) -> Result<(), Status> {
        let pins = self.free_pins(agent, which)?;
        if let Some(function) = setup.function {
            self.may_set(agent, Kind::PinFunction, function)?;
            let serves = match which {
                Pins::Group(group) => at(&self.pin_functions, function)?.groups.contains(&group),
                Pins::One(_) => false,
            };
            if !serves {
                return Err(Status::InvalidParameters);
            }
        }
        for (setting, _) in &setup.settings {
            let knows = |pin: &usize| {
                let of = self.pins.get(*pin);
                of.is_some_and(|of| of.settings.contains_key(setting))
            };
            if !pins.iter().all(knows) {
                return Err(Status::NotSupported);
            }
        }
        for pin in pins {
            let of = at_mut(&mut self.pins, pin)?;
            of.set_by = Some(agent);
            of.function = setup.function.or(of.function);
            for (setting, value) in &setup.settings {
                of.set(*setting, *value);
            }
        }
        self.changed();
        Ok(())
    }

    /// The settings that all of the pins have alike.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn common_settings(&self, which: Pins) -> Result<BTreeMap<u8, u32>, Status> {
        let mut common: Option<BTreeMap<u8, u32>> = None;
        for pin in self.pins_of(which)? {
            let settings = &at(&self.pins, pin)?.settings;
            common = Some(match common {
                None => settings.clone(),
                Some(mut common) => {
                    common.retain(|setting, value| settings.get(setting) == Some(value));
                    common
                }
            });
        }
        Ok(common.unwrap_or_default())
    }

    /// The function that all of the pins serve.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn common_function(&self, which: Pins) -> Result<Option<usize>, Status> {
        let pins = self.pins_of(which)?;
        let mut functions = pins
            .iter()
            .map(|pin| self.pins.get(*pin).and_then(|of| of.function));
        let first = functions.next().flatten();
        Ok(first.filter(|first| functions.all(|other| other == Some(*first))))
    }

    pub(super) fn release_pins(&mut self, agent: AgentId) {
        for of in &mut self.pins {
            if of.owner() == Some(agent) {
                of.forget();
                of.requested = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_pulled_one_way_only() {
        let settings = [("bias-pull-up", 1), ("bias-pull-down", 0), ("slew-rate", 3)];
        let mut pin = Pin::new(PinSpec {
            name: "p".into(),
            settings: settings
                .map(|(word, value)| (word.to_owned(), value))
                .into(),
        });
        pin.set(6, 1);
        assert_eq!(pin.settings(), &BTreeMap::from([(4, 0), (6, 1), (20, 3)]));
        pin.forget();
        assert_eq!(pin.settings(), &BTreeMap::from([(4, 1), (6, 0), (20, 3)]));
    }
}
