// SPDX-License-Identifier: Apache-2.0
//! QEMU: a command line, and its monitor protocol.

use super::words::Options;
use super::{Control, Launch, Plan, PlannedDevice, Request, Vmm, VmmError, program};
use crate::definition::{Accelerator, Architecture, Definition, Serial};
use serde_json::{Map, Value};
use std::path::Path;

pub(super) struct Qemu;

impl Vmm for Qemu {
    fn name(&self) -> &'static str {
        "QEMU"
    }

    fn control(&self) -> Control {
        Control::Qmp
    }

    fn launch(&self, plan: &Plan<'_>) -> Result<Launch, VmmError> {
        let definition = plan.definition;
        let usual = format!(
            "qemu-system-{}",
            definition.guest.machine.architecture.word()
        );
        let mut command = vec![program(definition, usual)];
        command.extend(words(&["-name", &definition.name]));
        // Nothing that the file does not say, and no window.
        command.extend(words(&["-nodefaults", "-display", "none"]));
        machine(&mut command, definition);
        boot(&mut command, definition);
        disks(&mut command, definition);
        serial(&mut command, definition);
        let control = Options::new("")
            .with("server", "on")
            .with("wait", "off")
            .word();
        let socket = plan.control_socket().to_string_lossy().replace(',', ",,");
        command.extend(["-qmp".to_owned(), format!("unix:{socket},{control}")]);
        for slot in 0..definition.guest.hotplug_slots {
            let port = Options::new("pcie-root-port")
                .with("id", port_id(slot))
                .with("chassis", slot.saturating_add(1).to_string());
            command.extend(["-device".to_owned(), port.word()]);
        }
        for device in &plan.devices {
            attach(&mut command, device);
        }
        command.extend(definition.guest.arguments.iter().cloned());
        Ok(Launch {
            command,
            files: Vec::new(),
        })
    }

    fn command(&self, _plan: &Plan<'_>, _request: Request) -> Option<Vec<String>> {
        None
    }
}

/// The name of the port for the hot plug slot of this number.
#[must_use]
pub fn port_id(slot: u8) -> String {
    format!("slot{slot}")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn machine(command: &mut Vec<String>, definition: &Definition) {
    let guest = &definition.guest;
    let usual = match guest.machine.architecture {
        Architecture::Aarch64 => "virt",
        Architecture::X86_64 => "q35",
    };
    let mut options = Options::new(guest.machine.model.as_deref().unwrap_or(usual));
    for (key, value) in &guest.machine.options {
        options = options.with(key, value);
    }
    // vhost-user: the services map the guest's memory.
    let options = options.with("memory-backend", "memory").word();
    command.extend(["-machine".to_owned(), options]);
    let size = guest.memory.to_string();
    let memory = Options::new("memory-backend-memfd")
        .with("id", "memory")
        .with("size", &size)
        .with("share", "on")
        .word();
    command.extend(["-object".to_owned(), memory, "-m".to_owned(), size]);
    let processor = match (&guest.machine.processor, guest.machine.accelerator) {
        (Some(processor), _) => processor.as_str(),
        (None, Accelerator::Kvm) => "host",
        (None, Accelerator::Auto | Accelerator::Tcg) => "max",
    };
    command.extend(words(&["-cpu", processor]));
    let accelerators: &[&str] = match guest.machine.accelerator {
        // The first that works.
        Accelerator::Auto => &["-accel", "kvm", "-accel", "tcg"],
        Accelerator::Kvm => &["-accel", "kvm"],
        Accelerator::Tcg => &["-accel", "tcg"],
    };
    command.extend(words(accelerators));
    command.extend(["-smp".to_owned(), guest.cpus.to_string()]);
}

fn boot(command: &mut Vec<String>, definition: &Definition) {
    let boot = &definition.guest.boot;
    for (word, path) in [
        ("-kernel", &boot.kernel),
        ("-initrd", &boot.initrd),
        ("-dtb", &boot.device_tree),
        ("-bios", &boot.firmware),
    ] {
        if let Some(path) = path {
            command.extend([word.to_owned(), path.to_string_lossy().into_owned()]);
        }
    }
    if !boot.append.is_empty() {
        command.extend(["-append".to_owned(), boot.append.clone()]);
    }
}

fn disks(command: &mut Vec<String>, definition: &Definition) {
    for (index, disk) in definition.guest.disks.iter().enumerate() {
        let id = format!("disk{index}");
        let drive = Options::new("")
            .with("id", &id)
            .with("if", "none")
            .with("format", disk.format.word())
            .with("readonly", if disk.read_only { "on" } else { "off" })
            .with_path("file", &disk.path)
            .word();
        let device = Options::new("virtio-blk-pci").with("drive", &id).word();
        command.extend(["-drive".to_owned(), drive, "-device".to_owned(), device]);
    }
}

fn serial(command: &mut Vec<String>, definition: &Definition) {
    for (index, serial) in definition.guest.serial.iter().enumerate() {
        let id = format!("serial{index}");
        let options = match serial {
            Serial::File(path) => Options::new("file").with("id", &id).with_path("path", path),
            Serial::Connect(path) => Options::new("socket")
                .with("id", &id)
                .with_path("path", path),
            Serial::Listen(path) => Options::new("socket")
                .with("id", &id)
                .with_path("path", path)
                .with("server", "on")
                .with("wait", "off"),
        };
        command.extend([
            "-chardev".to_owned(),
            options.word(),
            "-serial".to_owned(),
            format!("chardev:{id}"),
        ]);
    }
}

fn attach(command: &mut Vec<String>, device: &PlannedDevice) {
    let chardev = Options::new("socket")
        .with("id", chardev_id(&device.name))
        .with_path("path", &device.socket)
        .word();
    let mut front_end = Options::new(device.front_end.qemu)
        .with("id", device_id(&device.name))
        .with("chardev", chardev_id(&device.name));
    for (key, value) in &device.attachment.properties {
        front_end = front_end.with(key, value);
    }
    command.extend([
        "-chardev".to_owned(),
        chardev,
        "-device".to_owned(),
        front_end.word(),
    ]);
}

/// QEMU's names begin with a letter; a device's need not.
pub(super) fn device_id(name: &str) -> String {
    format!("device-{name}")
}

pub(super) fn chardev_id(name: &str) -> String {
    format!("socket-{name}")
}

/// The arguments of `device_add` for a device at a port, all as text.
#[must_use]
pub fn device_properties(device: &PlannedDevice, port: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut text = |key: &str, value: &str| {
        properties.insert(key.to_owned(), Value::from(value));
    };
    let mut front_end = device.front_end.qemu.split(',');
    text("driver", front_end.next().unwrap_or_default());
    text("id", &device_id(&device.name));
    text("chardev", &chardev_id(&device.name));
    text("bus", port);
    for (key, value) in front_end.filter_map(|option| option.split_once('=')) {
        text(key, value);
    }
    for (key, value) in &device.attachment.properties {
        text(key, value);
    }
    properties
}

/// The monitor protocol tells numbers and truths from text, which a command line does not: turns
/// text into what each property is, as `device-list-properties` says.
pub(super) fn typed(properties: &mut Map<String, Value>, listed: &Value) {
    for property in listed.as_array().into_iter().flatten() {
        let word = |key: &str| property.get(key).and_then(Value::as_str);
        let (Some(name), Some(kind)) = (word("name"), word("type")) else {
            continue;
        };
        let Some(Value::String(text)) = properties.get(name) else {
            continue;
        };
        let value = match (kind, text.as_str()) {
            ("bool", "on" | "true" | "yes") => Value::from(true),
            ("bool", "off" | "false" | "no") => Value::from(false),
            (kind, text) if kind.contains("int") => match text.parse::<u64>() {
                Ok(number) => Value::from(number),
                Err(_) => continue,
            },
            _ => continue,
        };
        properties.insert(name.to_owned(), value);
    }
}

/// The arguments of `chardev-add` for a device's socket.
pub(super) fn chardev_arguments(name: &str, socket: &Path) -> Value {
    serde_json::json!({
        "id": chardev_id(name),
        "backend": {
            "type": "socket",
            "data": {
                "addr": { "type": "unix", "data": { "path": socket } },
                "server": false,
            }
        }
    })
}
