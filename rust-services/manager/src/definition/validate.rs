// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a guest beyond the types of its values.

use super::{Guest, Size, VmmKind};
use crate::vmm::front_end;
use agl_virtio_service::config::{DeviceEntry, Problems, Validate};
use std::path::Path;

/// The longest path of a unix socket, in bytes (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The guest and its devices, to be judged together.
pub(super) struct Whole<'a> {
    pub(super) guest: &'a Guest,
    pub(super) devices: &'a [DeviceEntry],
}

impl Validate for Whole<'_> {
    fn validate(&self, problems: &mut Problems) {
        self.machine(problems);
        self.boot(problems);
        self.texts(problems);
        self.disks_and_ports(problems);
        self.restart_and_limits(problems);
        self.devices(problems);
    }
}

impl Whole<'_> {
    fn machine(&self, problems: &mut Problems) {
        let guest = self.guest;
        let range = Size::mebibytes(16)..=Size::mebibytes(1 << 20);
        problems.range("guest.memory", &guest.memory, range);
        problems.range("guest.cpus", &guest.cpus, 1..=64);
        problems.range("guest.hotplug_slots", &guest.hotplug_slots, 0..=16);
        problems.require(
            guest.pinning.is_empty() || guest.pinning.len() == usize::from(guest.cpus),
            "guest.pinning",
            format!(
                "{} lists for {} processors",
                guest.pinning.len(),
                guest.cpus
            ),
            "a list of the host's processors for each of the guest's, such as [[2], [3]]",
        );
        for (index, set) in guest.pinning.iter().enumerate() {
            problems.require(
                !set.is_empty() && set.iter().all(|cpu| *cpu < 1024),
                format!("guest.pinning.{index}"),
                "no such processors",
                "numbers of the host's processors, such as [2, 3]",
            );
        }
        if let Some(program) = &guest.program {
            absolute(problems, "guest.program", program);
        }
    }

    fn boot(&self, problems: &mut Problems) {
        let boot = &self.guest.boot;
        for (key, path) in [
            ("guest.boot.kernel", &boot.kernel),
            ("guest.boot.initrd", &boot.initrd),
            ("guest.boot.device_tree", &boot.device_tree),
            ("guest.boot.firmware", &boot.firmware),
        ] {
            if let Some(path) = path {
                absolute(problems, key, path);
            }
        }
        let loopback = self.guest.vmm == VmmKind::Loopback;
        problems.require(
            loopback || boot.kernel.is_some() || boot.firmware.is_some(),
            "guest.boot",
            "the guest has nothing to start",
            "[guest.boot] with kernel = \"/path\" or firmware = \"/path\"",
        );
        for (key, given) in [
            ("guest.boot.initrd", boot.initrd.is_some()),
            ("guest.boot.append", !boot.append.is_empty()),
        ] {
            problems.require(
                !given || boot.kernel.is_some(),
                key,
                "this is for a kernel, and none is named",
                "also kernel = \"/path\"",
            );
        }
    }

    /// What becomes a word of a command line, a property on the bus or a line on a terminal.
    fn texts(&self, problems: &mut Problems) {
        let guest = self.guest;
        let mut texts: Vec<(String, &str)> = vec![
            ("guest.description".to_owned(), &guest.description),
            ("guest.boot.append".to_owned(), &guest.boot.append),
        ];
        for (key, text) in [
            ("guest.machine.model", &guest.machine.model),
            ("guest.machine.processor", &guest.machine.processor),
        ] {
            texts.extend(text.as_deref().map(|text| (key.to_owned(), text)));
        }
        for (index, word) in guest.arguments.iter().enumerate() {
            texts.push((format!("guest.arguments.{index}"), word));
        }
        for (name, value) in &guest.machine.options {
            let key = format!("guest.machine.options.{name}");
            texts.extend([(key.clone(), name.as_str()), (key, value)]);
        }
        for (device, attachment) in &guest.attach {
            for (name, value) in &attachment.properties {
                let key = format!("guest.attach.{device}.properties.{name}");
                texts.extend([(key.clone(), name.as_str()), (key, value)]);
            }
        }
        for (key, text) in texts {
            problems.require(
                is_one_line(text),
                key,
                "this has a line break or another control character in it",
                "one line",
            );
        }
    }

    fn disks_and_ports(&self, problems: &mut Problems) {
        for (index, disk) in self.guest.disks.iter().enumerate() {
            let key = format!("guest.disks.{index}.path");
            absolute(problems, &key, &disk.path);
            let earlier = self.guest.disks.iter().take(index);
            let shared = earlier
                .filter(|other| other.path == disk.path)
                .any(|other| !(other.read_only && disk.read_only));
            problems.require(
                !shared,
                key,
                "two disks write to the same image",
                "another path, or read_only = true for both",
            );
        }
        problems.require(
            self.guest.serial.len() <= 4,
            "guest.serial",
            "more serial ports than machines have",
            "at most 4",
        );
        for (index, serial) in self.guest.serial.iter().enumerate() {
            use super::Serial::{Connect, File, Listen};
            let (File(path) | Listen(path) | Connect(path)) = serial;
            absolute(problems, &format!("guest.serial.{index}"), path);
        }
    }

    fn restart_and_limits(&self, problems: &mut Problems) {
        let rules = &self.guest.restart;
        problems.range("guest.restart.delay_ms", &rules.delay_ms, 1..=60_000);
        problems.range(
            "guest.restart.longest_delay_ms",
            &rules.longest_delay_ms,
            rules.delay_ms.max(1)..=3_600_000,
        );
        problems.range("guest.restart.window_s", &rules.window_s, 1..=86_400);
        for (name, limit) in [
            ("power_off", rules.limits.power_off),
            ("panic", rules.limits.panic),
            ("crash", rules.limits.crash),
            ("start", rules.limits.start),
            ("device", rules.limits.device),
        ] {
            problems.range(format!("guest.restart.limits.{name}"), &limit, 0..=1000);
        }
        let limits = &self.guest.limits;
        if let Some(weight) = limits.cpu_weight {
            problems.range("guest.limits.cpu_weight", &weight, 1..=10_000);
        }
        if let Some(percent) = limits.cpu_percent {
            problems.range("guest.limits.cpu_percent", &percent, 1..=6400);
        }
        if let Some(memory) = limits.memory {
            problems.require(
                memory > self.guest.memory,
                "guest.limits.memory",
                format!("{memory} is not more than the guest's own memory"),
                "the guest's memory and what its monitor and services need, 256M or more",
            );
        }
    }

    fn devices(&self, problems: &mut Problems) {
        for (index, device) in self.devices.iter().enumerate() {
            let key = |rest: &str| format!("devices.{}{rest}", device.name);
            if front_end::of(device).is_none() {
                let functions = front_end::functions(&device.device_type);
                if functions.is_empty() {
                    problems.add(
                        key(".type"),
                        format!("there is no device type {:?}", device.device_type),
                        format!("one of {}", front_end::types().join(", ")),
                    );
                } else {
                    problems.add(
                        key(".function"),
                        format!(
                            "no device of type {:?} has this function",
                            device.device_type
                        ),
                        format!("one of {}", functions.join(", ")),
                    );
                }
            }
            if let Some(socket) = &device.socket {
                problems.require(
                    socket.as_os_str().len() <= LONGEST_SOCKET,
                    key(".socket"),
                    "the path is too long for a socket",
                    "a path of at most 107 bytes",
                );
                problems.require(
                    is_one_line(&socket.to_string_lossy()),
                    key(".socket"),
                    "the path has a control character in it",
                    "a path that can be read",
                );
                let twice = self
                    .devices
                    .iter()
                    .take(index)
                    .any(|other| other.socket.as_ref() == Some(socket));
                problems.require(
                    !twice,
                    key(".socket"),
                    "two devices listen on the same socket",
                    "another path",
                );
            }
        }
        for name in self.guest.attach.keys() {
            problems.require(
                self.devices.iter().any(|device| device.name == *name),
                format!("guest.attach.{name}"),
                format!("there is no device {name}"),
                "the name of one of the tables [devices.NAME]",
            );
        }
    }
}

fn absolute(problems: &mut Problems, key: &str, path: &Path) {
    let text = path.to_string_lossy();
    problems.require(
        path.is_absolute(),
        key,
        format!("{text:?} is no absolute path"),
        "a path that begins with /",
    );
    problems.require(
        is_one_line(&text),
        key,
        "the path has a control character in it",
        "a path that can be read",
    );
}

fn is_one_line(text: &str) -> bool {
    !text.contains(|character: char| character.is_control() && character != '\t')
}
