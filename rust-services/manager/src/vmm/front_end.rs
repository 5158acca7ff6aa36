// SPDX-License-Identifier: Apache-2.0
//! Which front end a virtual machine monitor has for each type of device.

/// A device type and how monitors attach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontEnd {
    /// As in `type = "snd"` and `agl-virtio-snd`.
    pub device_type: &'static str,
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
        virtio_id: 36,
        qemu: "vhost-user-test-device-pci,virtio-id=36,num_vqs=3,vq_size=256,config_size=2",
        crosvm: None,
    },
    FrontEnd {
        device_type: "gpio",
        virtio_id: 41,
        qemu: "vhost-user-gpio-pci",
        crosvm: None,
    },
    FrontEnd {
        device_type: "i2c",
        virtio_id: 34,
        qemu: "vhost-user-i2c-pci",
        crosvm: None,
    },
    FrontEnd {
        device_type: "input",
        virtio_id: 18,
        qemu: "vhost-user-input-pci",
        crosvm: Some("input"),
    },
    FrontEnd {
        device_type: "rng",
        virtio_id: 4,
        qemu: "vhost-user-rng-pci",
        crosvm: Some("rng"),
    },
    FrontEnd {
        device_type: "rpmb",
        virtio_id: 28,
        qemu: "vhost-user-test-device-pci,virtio-id=28,num_vqs=1,vq_size=256,config_size=3",
        crosvm: None,
    },
    FrontEnd {
        device_type: "rtc",
        virtio_id: 17,
        qemu: "vhost-user-rtc-pci",
        crosvm: None,
    },
    FrontEnd {
        device_type: "scmi",
        virtio_id: 32,
        qemu: "vhost-user-scmi-pci",
        crosvm: Some("scmi"),
    },
    FrontEnd {
        device_type: "snd",
        virtio_id: 25,
        // Linux reads the number of control elements whatever this says.
        qemu: "vhost-user-snd-pci,controls=on",
        crosvm: Some("sound"),
    },
    FrontEnd {
        device_type: "spi",
        virtio_id: 45,
        qemu: "vhost-user-spi-pci",
        crosvm: None,
    },
];

/// The front end of a device type.
#[must_use]
pub fn of(device_type: &str) -> Option<&'static FrontEnd> {
    TYPES
        .iter()
        .find(|front_end| front_end.device_type == device_type)
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

    #[test]
    fn the_table_is_sorted_and_the_generic_front_end_is_told_the_right_number() {
        assert!(TYPES.is_sorted_by_key(|front_end| front_end.device_type));
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
            assert_eq!(of(front_end.device_type), Some(front_end));
        }
        assert_eq!(of("sndd"), None);
    }
}
