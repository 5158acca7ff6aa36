// SPDX-License-Identifier: Apache-2.0

//! The SCMI platform: what Linux has made of its protocols.

use std::path::PathBuf;

use super::{Outcome, devices};
use crate::options::Options;
use crate::system::{System, file_name};

/// Whether the kernel has drivers at the platform's protocols.
pub(super) fn protocols(system: &System, _: &Options) -> Outcome {
    if let Err(outcome) = devices::of_type(system, "scmi") {
        return outcome;
    }
    let folders = system.entries(&system.path("sys/bus/scmi/devices"));
    let driven: Vec<_> = folders
        .iter()
        .filter(|folder| folder.join("driver").exists())
        .collect();
    if driven.is_empty() {
        return Outcome::failed(
            "no protocol has a driver: has the device tree a node arm,scmi-virtio with them?",
        );
    }
    let name = |folder: &&PathBuf| {
        let driver = std::fs::read_link(folder.join("driver")).ok();
        driver.as_deref().map(file_name)
    };
    let mut names: Vec<_> = driven.iter().filter_map(name).collect();
    names.sort();
    names.dedup();
    Outcome::passed(names.join(", "))
}

/// Whether each sensor has a value.
pub(super) fn sensors(system: &System, _: &Options) -> Outcome {
    if let Err(outcome) = devices::of_type(system, "scmi") {
        return outcome;
    }
    let monitors = system.entries(&system.path("sys/class/hwmon"));
    let is_ours = |folder: &&PathBuf| {
        system
            .read(&folder.join("name"))
            .is_some_and(|name| name.starts_with("scmi"))
    };
    let inputs: Vec<_> = monitors
        .iter()
        .filter(is_ours)
        .flat_map(|folder| system.entries(folder))
        .filter(|file| file_name(file).ends_with("_input"))
        .collect();
    if inputs.is_empty() {
        return Outcome::skipped("the platform has no sensor that hwmon knows");
    }
    let mut values = Vec::new();
    for input in &inputs {
        let value = system.read(input).and_then(|text| text.parse::<i64>().ok());
        match value {
            Some(value) => values.push(format!(
                "{}={value}",
                file_name(input).trim_end_matches("_input")
            )),
            None => return Outcome::failed(format!("{} cannot be read", input.display())),
        }
    }
    Outcome::passed(values.join(" "))
}
