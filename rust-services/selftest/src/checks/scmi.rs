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
    let folders = system.entries(&system.path("sys/bus/scmi_protocol/devices"));
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn guest(root: &Path) -> System {
        let device = root.join("sys/bus/virtio/devices/virtio0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("device"), "0x0020\n").unwrap();
        symlink("/sys/bus/virtio/drivers/scmi-virtio", device.join("driver")).unwrap();
        System::at(root)
    }

    #[test]
    fn protocols_are_named_by_their_drivers() {
        let root = tempfile::tempdir().unwrap();
        let system = guest(root.path());
        let options = Options::default();
        assert!(matches!(
            protocols(&system, &options),
            Outcome::Failed { .. }
        ));
        let protocol = root.path().join("sys/bus/scmi_protocol/devices/scmi_dev.1");
        let driver = root
            .path()
            .join("sys/bus/scmi_protocol/drivers/scmi-clocks");
        fs::create_dir_all(&protocol).unwrap();
        fs::create_dir_all(&driver).unwrap();
        symlink(&driver, protocol.join("driver")).unwrap();
        assert_eq!(protocols(&system, &options), Outcome::passed("scmi-clocks"));
    }

    #[test]
    fn a_sensor_that_cannot_be_read_fails() {
        let root = tempfile::tempdir().unwrap();
        let system = guest(root.path());
        let monitor = root.path().join("sys/class/hwmon/hwmon0");
        fs::create_dir_all(&monitor).unwrap();
        fs::write(monitor.join("name"), "scmi_sensors\n").unwrap();
        fs::write(monitor.join("temp1_input"), "41000\n").unwrap();
        assert_eq!(
            sensors(&system, &Options::default()),
            Outcome::passed("temp1=41000")
        );
        fs::write(monitor.join("temp2_input"), "").unwrap();
        assert!(matches!(
            sensors(&system, &Options::default()),
            Outcome::Failed { .. }
        ));
    }
}
