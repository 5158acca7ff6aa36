// SPDX-License-Identifier: Apache-2.0
//! What a guest is to be: the table `guest` of `/etc/agl-virtio/guests.d/NAME.toml`, strongly
//! typed, and the devices beside it.
//!
//! Everything has a default but what only the integrator can know. A file is checked as a whole
//! before anything of it is used.

mod machine;
mod restart;
mod size;
mod validate;

pub use machine::{Accelerator, Architecture, Boot, Disk, DiskFormat, Machine, Serial};
pub use restart::{Cause, CauseLimits, RestartPolicy, RestartRules};
pub use size::Size;

use agl_virtio_service::config::{self, ConfigError, DeviceEntry, GuestFile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use validate::Whole;

/// Which virtual machine monitor runs the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmmKind {
    /// QEMU: everything, hot plug included.
    #[default]
    Qemu,
    /// crosvm, by a command line and its control socket.
    Crosvm,
    /// Xen's `xl`, by a generated domain configuration.
    Xen,
    /// No virtual machine: the host's own drivers, by virtio-loopback.
    Loopback,
}

/// The table `guest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guest {
    /// What the guest is, for people.
    pub description: String,
    /// Which virtual machine monitor runs it.
    pub vmm: VmmKind,
    /// Its program, where it is not the usual one.
    pub program: Option<PathBuf>,
    /// Start it together with the manager.
    pub autostart: bool,
    /// Memory, such as `"512M"` or `"2G"`.
    pub memory: Size,
    /// Processors, 1 to 64.
    pub cpus: u8,
    /// For each processor of the guest, the host's processors that it may run on; empty: any.
    pub pinning: Vec<Vec<u16>>,
    /// What the machine is like.
    pub machine: Machine,
    /// What it starts.
    pub boot: Boot,
    /// Its disks, in the order in which the guest sees them.
    pub disks: Vec<Disk>,
    /// Its serial ports; the first one is the console.
    pub serial: Vec<Serial>,
    /// How many devices may be added while the guest runs, 0 to 16.
    pub hotplug_slots: u8,
    /// What happens when the guest or one of its devices ends by itself.
    pub restart: RestartRules,
    /// What the guest and its devices may use of the host, by their systemd slice.
    pub limits: Limits,
    /// How the monitor attaches a device, by the device's name.
    pub attach: BTreeMap<String, Attachment>,
    /// More words for the monitor's command line, as they are.
    pub arguments: Vec<String>,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            description: String::new(),
            vmm: VmmKind::default(),
            program: None,
            autostart: false,
            memory: Size::mebibytes(512),
            cpus: 1,
            pinning: Vec::new(),
            machine: Machine::default(),
            boot: Boot::default(),
            disks: Vec::new(),
            serial: Vec::new(),
            hotplug_slots: 4,
            restart: RestartRules::default(),
            limits: Limits::default(),
            attach: BTreeMap::new(),
            arguments: Vec::new(),
        }
    }
}

/// How the monitor attaches a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attachment {
    /// Properties of the monitor's device, such as `controls = "on"`.
    pub properties: BTreeMap<String, String>,
    /// Leave the device out until somebody attaches it.
    pub manual: bool,
}

/// Limits of a guest with all that belongs to it; systemd enforces them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory beyond which something of the guest is ended.
    pub memory: Option<Size>,
    /// Share of processor time against other guests, 1 to 10000; 100 is usual.
    pub cpu_weight: Option<u16>,
    /// Processor time, in percent of one processor, 1 to 6400.
    pub cpu_percent: Option<u16>,
}

/// A guest's file, read and in order.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The guest's name: that of its file.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Its text: services read a copy of it, which stays while the file is being changed.
    pub source: String,
    /// The table `guest`.
    pub guest: Guest,
    /// The devices, by name.
    pub devices: Vec<DeviceEntry>,
}

impl Definition {
    /// Reads a guest's file and checks it whole, but for what only the services know.
    ///
    /// # Errors
    /// Everything that is wrong, with place and remedy.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let (whole, guest) = config::read_guest::<Guest>(file)?;
        Self::checked(whole, guest)
    }

    /// As [`Definition::read`], of a text that is to become the file.
    ///
    /// # Errors
    /// As [`Definition::read`].
    pub fn parse(file: &Path, source: String) -> Result<Self, ConfigError> {
        let (whole, guest) = config::parse_guest::<Guest>(file, source)?;
        Self::checked(whole, guest)
    }

    fn checked(whole: GuestFile, guest: Guest) -> Result<Self, ConfigError> {
        whole.check(&Whole {
            guest: &guest,
            devices: &whole.devices,
        })?;
        Ok(Self {
            file: whole.path().to_owned(),
            source: whole.source().to_owned(),
            name: whole.name,
            guest,
            devices: whole.devices,
        })
    }

    /// A device by its name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&DeviceEntry> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// How a device is attached.
    #[must_use]
    pub fn attachment(&self, device: &str) -> Attachment {
        self.guest.attach.get(device).cloned().unwrap_or_default()
    }
}

/// The JSON schema of a guest's file, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    use crate::vmm::front_end;
    let guest = schemars::schema_for!(Guest);
    let mut guest = guest.to_value();
    let definitions = guest
        .as_object_mut()
        .and_then(|object| object.remove("$defs"));
    if let Some(object) = guest.as_object_mut() {
        object.remove("$schema");
    }
    // A function says only in some types what device it is; in others the key may mean anything.
    let functions: Vec<serde_json::Value> = front_end::types()
        .into_iter()
        .filter(|name| !front_end::functions(name).is_empty())
        .map(|name| {
            serde_json::json!({
                "if": { "properties": { "type": { "const": name } } },
                "then": { "properties": { "function": { "enum": front_end::functions(name) } } }
            })
        })
        .collect();
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A guest of agl-virtio: /etc/agl-virtio/guests.d/NAME.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "guest": guest,
            "devices": {
                "type": "object",
                "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
                "additionalProperties": {
                    "type": "object",
                    "description": "A device; keys beside these two belong to its service.",
                    "required": ["type"],
                    "properties": {
                        "type": { "enum": front_end::types() },
                        "socket": { "type": "string", "pattern": "^/" }
                    },
                    "allOf": functions
                }
            }
        },
        "$defs": definitions,
    })
}

#[cfg(test)]
mod tests;
