// SPDX-License-Identifier: Apache-2.0

//! All virtio devices of the guest.

use super::Outcome;
use crate::options::Options;
use crate::system::{System, VirtioDevice};

/// Types by their IDs (VIRTIO 1.4, section 5), with what Linux calls the option of their driver.
const TYPES: &[(u16, &str, &str)] = &[
    (1, "net", "VIRTIO_NET"),
    (2, "blk", "VIRTIO_BLK"),
    (3, "console", "VIRTIO_CONSOLE"),
    (4, "rng", "HW_RANDOM_VIRTIO"),
    (5, "balloon", "VIRTIO_BALLOON"),
    (8, "scsi", "SCSI_VIRTIO"),
    (9, "9p", "NET_9P_VIRTIO"),
    (16, "gpu", "DRM_VIRTIO_GPU"),
    (17, "rtc", "VIRTIO_RTC"),
    (18, "input", "VIRTIO_INPUT"),
    (19, "vsock", "VIRTIO_VSOCKETS"),
    (20, "crypto", "CRYPTO_DEV_VIRTIO"),
    (25, "snd", "SND_VIRTIO"),
    (26, "fs", "VIRTIO_FS"),
    (28, "rpmb", "the package virtio-rpmb"),
    (30, "video", "the package virtio-video"),
    (31, "video", "the package virtio-video"),
    (32, "scmi", "ARM_SCMI_TRANSPORT_VIRTIO"),
    (34, "i2c", "I2C_VIRTIO"),
    (36, "can", "CAN_VIRTIO_CAN, or the package virtio-can"),
    (41, "gpio", "GPIO_VIRTIO"),
    (45, "spi", "SPI_VIRTIO"),
    (48, "media", "the package virtio-media"),
    (49, "media", "the package virtio-media"),
];

/// The devices of a type; an outcome to end with when there is none, or none with a driver.
pub(super) fn of_type(system: &System, device: &str) -> Result<Vec<VirtioDevice>, Outcome> {
    let mut devices = system.virtio_devices();
    devices.retain(|found| type_of(found.id).is_some_and(|(name, _)| name == device));
    if devices.is_empty() {
        return Err(Outcome::skipped(format!(
            "this guest has no {device} device"
        )));
    }
    devices.retain(|found| found.driver.is_some());
    if devices.is_empty() {
        return Err(Outcome::failed(format!("no {device} device has a driver")));
    }
    Ok(devices)
}

fn type_of(id: u16) -> Option<(&'static str, &'static str)> {
    let (_, name, driver) = TYPES.iter().find(|(known, ..)| *known == id)?;
    Some((name, driver))
}

/// Whether every device is driven.
pub(super) fn have_drivers(system: &System, options: &Options) -> Outcome {
    let devices = system.virtio_devices();
    let names: Vec<_> = devices
        .iter()
        .map(|device| type_of(device.id).map_or("unknown", |(name, _)| name))
        .collect();
    if let Some(missing) = options
        .expect
        .iter()
        .find(|expected| !names.contains(&expected.as_str()))
    {
        return Outcome::failed(format!(
            "there is no {missing} device; there are: {}",
            names.join(", ")
        ));
    }
    if devices.is_empty() {
        return Outcome::skipped("this machine has no virtio device");
    }
    let idle = devices.iter().find(|device| device.driver.is_none());
    match idle {
        None => Outcome::passed(names.join(", ")),
        Some(device) => Outcome::failed(match type_of(device.id) {
            Some((name, driver)) => {
                format!("{} ({name}) has no driver; it needs {driver}", device.name)
            }
            None => format!(
                "{} has no driver; its device ID is {}",
                device.name, device.id
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn device(root: &Path, name: &str, id: u16, driver: Option<&str>) {
        let folder = root.join("sys/bus/virtio/devices").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("device"), format!("{id:#06x}\n")).unwrap();
        if let Some(driver) = driver {
            symlink(
                Path::new("/sys/bus/virtio/drivers").join(driver),
                folder.join("driver"),
            )
            .unwrap();
        }
    }

    #[test]
    fn a_device_without_a_driver_fails_and_says_what_it_needs() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "virtio0", 1, Some("virtio_net"));
        let system = System::at(root.path());
        let options = Options::default();
        assert_eq!(have_drivers(&system, &options), Outcome::passed("net"));
        device(root.path(), "virtio1", 25, None);
        let Outcome::Failed { why } = have_drivers(&system, &options) else {
            panic!("a card without a driver is not noticed");
        };
        assert!(
            why.contains("virtio1 (snd)") && why.contains("SND_VIRTIO"),
            "{why}"
        );
    }

    #[test]
    fn a_guest_without_an_expected_device_fails() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "virtio0", 1, Some("virtio_net"));
        let options = Options {
            expect: vec!["can".to_owned()],
            ..Options::default()
        };
        let system = System::at(root.path());
        assert!(matches!(
            have_drivers(&system, &options),
            Outcome::Failed { .. }
        ));
        assert!(matches!(
            of_type(&system, "can"),
            Err(Outcome::Skipped { .. })
        ));
        assert_eq!(of_type(&system, "net").unwrap().len(), 1);
    }

    #[test]
    fn a_machine_without_virtio_has_nothing_to_check() {
        let root = tempfile::tempdir().unwrap();
        let outcome = have_drivers(&System::at(root.path()), &Options::default());
        assert!(matches!(outcome, Outcome::Skipped { .. }));
    }
}
