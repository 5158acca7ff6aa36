// SPDX-License-Identifier: Apache-2.0
//! Which front end a virtual machine monitor has for each type of device.

use agl_virtio_service::config::DeviceEntry;

/// A device type and how monitors attach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontEnd {
    /// As in `type = "snd"` and `agl-virtio-snd`.
    pub device_type: &'static str,
    /// The value of the key `function`, where it decides what device it is. What comes first in
    /// the table is what a device is without the key, as the service has it.
    pub function: Option<&'static str>,
    /// Number of the device type in the VIRTIO specification.
    pub virtio_id: u16,
    /// QEMU's device on a PCI bus, with the properties that it needs. Types without a front end
    /// of their own go by the generic one, which is told number, queues and configuration space.
    pub qemu: &'static str,
    /// crosvm's word, where it has one.
    pub crosvm: Option<&'static str>,
}

/// All types there are, by name.
pub const TYPES: &[FrontEnd] = &[
    FrontEnd {
        device_type: "can",
        function: None,
        virtio_id: 36,
        qemu: "vhost-user-test-device-pci,virtio-id=36,num_vqs=3,vq_size=256,config_size=2",
        crosvm: None,
    },
    FrontEnd {
        device_type: "gpio",
        function: None,
        virtio_id: 41,
        qemu: "vhost-user-gpio-pci",
        crosvm: None,
    },
    FrontEnd {
        device_type: "i2c",
        function: None,
        virtio_id: 34,
        qemu: "vhost-user-i2c-pci",
        crosvm: None,
    },
    FrontEnd {
        device_type: "input",
        function: None,
        virtio_id: 18,
        qemu: "vhost-user-input-pci",
        crosvm: Some("input"),
    },
    FrontEnd {
        device_type: "media",
        function: None,
        virtio_id: 48,
        // QEMU 11.1 ends itself over a number that it has no name for: the layer's has a patch.
        qemu: "vhost-user-test-device-pci,virtio-id=48,num_vqs=2,vq_size=256,config_size=40",
        crosvm: Some("media"),
    },
    FrontEnd {
        device_type: "rng",
        function: None,
        virtio_id: 4,
        qemu: "vhost-user-rng-pci",
        crosvm: Some("rng"),
    },
    FrontEnd {
        device_type: "rpmb",
        function: None,
        virtio_id: 28,
        qemu: "vhost-user-test-device-pci,virtio-id=28,num_vqs=1,vq_size=256,config_size=3",
        crosvm: None,
    },
    FrontEnd {
        device_type: "rtc",
        function: None,
        virtio_id: 17,
        qemu: "vhost-user-rtc-pci",
        crosvm: None,
    },
    FrontEnd {
        device_type: "scmi",
        function: None,
        virtio_id: 32,
        qemu: "vhost-user-scmi-pci",
        crosvm: Some("scmi"),
    },
    FrontEnd {
        device_type: "snd",
        function: None,
        virtio_id: 25,
        // Linux reads the number of control elements whatever this says.
        qemu: "vhost-user-snd-pci,controls=on",
        crosvm: Some("sound"),
    },
    FrontEnd {
        device_type: "spi",
        function: None,
        virtio_id: 45,
        qemu: "vhost-user-spi-pci",
        crosvm: None,
    },
    FrontEnd {
        device_type: "video",
        function: Some("decoder"),
        virtio_id: 31,
        qemu: "vhost-user-test-device-pci,virtio-id=31,num_vqs=2,vq_size=1024,config_size=12",
        crosvm: Some("video-decoder"),
    },
    FrontEnd {
        device_type: "video",
        function: Some("encoder"),
        virtio_id: 30,
        qemu: "vhost-user-test-device-pci,virtio-id=30,num_vqs=2,vq_size=1024,config_size=12",
        crosvm: Some("video-encoder"),
    },
];

/// The front end of a device; nothing where there is no such type, or no such function of it.
#[must_use]
pub fn of(device: &DeviceEntry) -> Option<&'static FrontEnd> {
    let wanted = device.options.get("function");
    TYPES.iter().find(|front_end| {
        front_end.device_type == device.device_type
            && front_end
                .function
                .is_none_or(|own| wanted.is_none_or(|wanted| wanted.as_str() == Some(own)))
    })
}

/// The names of all types, each once.
#[must_use]
pub fn types() -> Vec<&'static str> {
    let mut names: Vec<&str> = TYPES
        .iter()
        .map(|front_end| front_end.device_type)
        .collect();
    names.dedup();
    names
}

/// The functions that devices of a type may have; empty where the type says all.
#[must_use]
pub fn functions(device_type: &str) -> Vec<&'static str> {
    TYPES
        .iter()
        .filter(|front_end| front_end.device_type == device_type)
        .filter_map(|front_end| front_end.function)
        .collect()
}

/// Whether a device of this type is started before the others: a chime and the rear camera's
/// picture are wanted first.
#[must_use]
pub fn comes_first(device_type: &str) -> bool {
    matches!(device_type, "media" | "snd" | "video")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Definition;
    use std::path::Path;

    fn front_end(table: &str) -> Option<&'static FrontEnd> {
        let source = format!("[guest]\nvmm = \"loopback\"\n[devices.it]\n{table}\n");
        let definition = Definition::parse(Path::new("/etc/ivi.toml"), source).ok()?;
        of(&definition.devices[0])
    }

    #[test]
    fn the_table_is_sorted_and_the_generic_front_end_is_told_the_right_number() {
        assert!(TYPES.is_sorted_by_key(|front_end| (front_end.device_type, front_end.function)));
        for front_end in TYPES {
            let told = front_end
                .qemu
                .split(',')
                .find_map(|word| word.strip_prefix("virtio-id="));
            let generic = front_end.qemu.starts_with("vhost-user-test-device");
            assert_eq!(told.is_some(), generic);
            if let Some(number) = told {
                assert_eq!(number, front_end.virtio_id.to_string());
            }
        }
    }

    #[test]
    fn every_type_is_found_by_its_name_and_no_other() {
        for name in types() {
            let found = front_end(&format!("type = \"{name}\"")).unwrap();
            assert_eq!(found.device_type, name);
        }
        assert_eq!(front_end("type = \"sndd\""), None);
    }

    #[test]
    fn a_codec_is_the_device_that_its_function_says_and_a_decoder_without() {
        let number = |table: &str| front_end(table).map(|found| found.virtio_id);
        assert_eq!(number("type = \"video\""), Some(31));
        assert_eq!(number("type = \"video\"\nfunction = \"decoder\""), Some(31));
        assert_eq!(number("type = \"video\"\nfunction = \"encoder\""), Some(30));
        assert_eq!(number("type = \"video\"\nfunction = \"transcoder\""), None);
        assert_eq!(number("type = \"video\"\nfunction = 1"), None);
        // The key of another type is that service's own.
        assert_eq!(number("type = \"media\"\nfunction = \"x\""), Some(48));
    }
}
