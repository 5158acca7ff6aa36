// SPDX-License-Identifier: Apache-2.0
//! How guests and devices are called as units, and what the manager adds to a device's template.

use crate::definition::{Guest, Limits, Serial, VmmKind};
use std::fmt::Write as _;
use std::path::Path;
use zbus::zvariant::Value;

/// What the manager writes lies here, and is gone with the next boot.
const RUNTIME_UNITS: &str = "/run/systemd/system";

/// Drop-ins of all folders are read in the order of their names, and the last word counts: this
/// one has to come after the template's own (`sandbox.conf`), or systemd would restart what the
/// manager judges.
const DROP_IN: &str = "zz-agl-virtiod.conf";

/// What Xen's `xl` speaks to the hypervisor with.
const XEN: [&str; 4] = [
    "/dev/xen/evtchn",
    "/dev/xen/gntdev",
    "/dev/xen/privcmd",
    "/dev/xen/xenbus",
];

/// The slice of a guest and all that belongs to it. A dash in a slice's name would mean another
/// slice below.
#[must_use]
pub fn slice(guest: &str) -> String {
    format!("machine-{}.slice", guest.replace('-', "\\x2d"))
}

/// The unit of a guest's monitor.
#[must_use]
pub fn monitor(guest: &str) -> String {
    format!("agl-guest@{guest}.service")
}

/// The unit of a device: its type's template, for a guest's device. No name has a colon.
#[must_use]
pub fn device(device_type: &str, guest: &str, device: &str) -> String {
    format!("agl-virtio-{device_type}@{guest}:{device}.service")
}

/// What a guest's monitor may write to and open, beyond what its template's sandbox grants to all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Folders that it may write to.
    pub folders: Vec<String>,
    /// Devices of the host, and how it may open them.
    pub devices: Vec<(String, String)>,
}

impl Reach {
    /// What the guest's file names, and the folder of the monitor's own socket.
    #[must_use]
    pub fn of(guest: &Guest, folder: &Path) -> Self {
        let mut reach = Self {
            folders: vec![folder.to_string_lossy().into_owned()],
            devices: Vec::new(),
        };
        if guest.vmm == VmmKind::Xen {
            for path in XEN {
                reach.open(Path::new(path), "rw");
            }
        }
        for disk in &guest.disks {
            reach.open(&disk.path, if disk.read_only { "r" } else { "rw" });
        }
        for port in &guest.serial {
            match port {
                Serial::File(path) if path.starts_with("/dev") => reach.open(path, "rw"),
                Serial::File(path) | Serial::Listen(path) => reach.make(path),
                Serial::Connect(_) => {}
            }
        }
        reach
    }

    /// A device, if it is one. systemd refuses names with spaces, which no device has.
    fn open(&mut self, path: &Path, how: &str) {
        let name = path.to_string_lossy();
        if path.starts_with("/dev") && !name.contains(char::is_whitespace) {
            self.devices.push((name.into_owned(), how.to_owned()));
        }
    }

    /// A file or socket that it makes. Not all of /run for one in it: units and rules are there.
    fn make(&mut self, path: &Path) {
        let folder = path.parent().filter(|folder| folder.parent().is_some());
        let Some(folder) = folder.filter(|folder| *folder != Path::new("/run")) else {
            return;
        };
        // Where it is missing the monitor says so.
        self.folders.push(format!("-{}", folder.to_string_lossy()));
    }
}

/// All that a device's unit needs beside its template.
#[derive(Debug)]
pub struct DeviceUnit<'a> {
    /// The guest.
    pub guest: &'a str,
    /// The device.
    pub device: &'a str,
    /// Its type.
    pub device_type: &'a str,
    /// The keeper's command line.
    pub command: &'a [String],
    /// The folder of the socket.
    pub socket_folder: &'a Path,
}

impl DeviceUnit<'_> {
    /// The unit's name.
    #[must_use]
    pub fn name(&self) -> String {
        device(self.device_type, self.guest, self.device)
    }

    /// The drop-in that makes the template's instance this device.
    ///
    /// The manager judges every end, so that systemd must not.
    #[must_use]
    pub fn drop_in(&self) -> String {
        let mut text = format!(
            "# Of agl-virtiod, for the device {} of the guest {}.\n\
             [Unit]\nConditionPathExists=\nStartLimitIntervalSec=0\n\n\
             [Service]\nExecStart=\nExecStart=:",
            self.device, self.guest
        );
        let words: Vec<String> = self.command.iter().map(|word| quote(word)).collect();
        text.push_str(&words.join(" "));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\nSlice={}\nRestart=no\nReadWritePaths={}\n\
             LogExtraFields=AGL_VIRTIO_GUEST={} AGL_VIRTIO_DEVICE={}\n",
            slice(self.guest),
            quote(&self.socket_folder.to_string_lossy()),
            self.guest,
            self.device
        );
        text
    }

    /// Writes the drop-in where it is not so already.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn write(&self) -> std::io::Result<()> {
        let folder = Path::new(RUNTIME_UNITS).join(format!("{}.d", self.name()));
        let file = folder.join(DROP_IN);
        let text = self.drop_in();
        if std::fs::read_to_string(&file).is_ok_and(|old| old == text) {
            return Ok(());
        }
        std::fs::create_dir_all(&folder)?;
        crate::guest::replace_file(&file, &text)
    }
}

/// A word of a unit's file as systemd reads it (systemd.service(5), command lines; specifiers).
fn quote(word: &str) -> String {
    let mut quoted = String::from("\"");
    for character in word.chars() {
        match character {
            '%' => quoted.push_str("%%"),
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            '\n' => quoted.push_str("\\n"),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// A guest's limits as properties of its slice; what the file does not name is lifted.
#[must_use]
pub fn limits(limits: &Limits) -> Vec<(&'static str, Value<'static>)> {
    let memory = limits.memory.map_or(u64::MAX, |size| size.in_bytes());
    let weight = limits.cpu_weight.map_or(u64::MAX, u64::from);
    let quota = limits.cpu_percent.map_or(u64::MAX, |percent| {
        u64::from(percent).saturating_mul(10_000)
    });
    vec![
        ("MemoryMax", Value::from(memory)),
        ("CPUWeight", Value::from(weight)),
        ("CPUQuotaPerSecUSec", Value::from(quota)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Disk, DiskFormat};

    #[test]
    fn names_of_guests_and_devices_cannot_be_mixed_up() {
        assert_eq!(slice("ivi"), "machine-ivi.slice");
        assert_eq!(slice("a-b"), "machine-a\\x2db.slice");
        assert_ne!(device("snd", "a-b", "c"), device("snd", "a", "b-c"));
        assert_eq!(monitor("ivi"), "agl-guest@ivi.service");
    }

    #[test]
    fn a_device_s_drop_in_says_what_the_template_cannot_know() {
        let command = ["/usr/bin/keeper", "--config", "/run/a b/100%\"\\.toml"].map(str::to_owned);
        let unit = DeviceUnit {
            guest: "ivi",
            device: "cabin",
            device_type: "snd",
            command: &command,
            socket_folder: Path::new("/run/agl-virtio"),
        };
        assert_eq!(unit.name(), "agl-virtio-snd@ivi:cabin.service");
        let text = unit.drop_in();
        for line in [
            "ConditionPathExists=",
            "ExecStart=",
            "ExecStart=:\"/usr/bin/keeper\" \"--config\" \"/run/a b/100%%\\\"\\\\.toml\"",
            "Slice=machine-ivi.slice",
            "Restart=no",
            "LogExtraFields=AGL_VIRTIO_GUEST=ivi AGL_VIRTIO_DEVICE=cabin",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_monitor_reaches_what_its_guest_s_file_names() {
        let disk = |path: &str, read_only| Disk {
            path: path.into(),
            format: DiskFormat::Raw,
            read_only,
        };
        let guest = Guest {
            disks: vec![
                disk("/dev/mmcblk0p5", false),
                disk("/dev/disk/by-label/maps", true),
                disk("/var/lib/ivi/root.img", false),
            ],
            serial: vec![
                Serial::File("/dev/ttySC1".into()),
                Serial::Listen("/run/consoles/ivi.sock".into()),
                Serial::Listen("/run/ivi.sock".into()),
                Serial::Connect("/run/others/ivi.sock".into()),
            ],
            ..Guest::default()
        };
        let reach = Reach::of(&guest, Path::new("/run/agl-virtio/guests/ivi"));
        let devices: Vec<_> = reach
            .devices
            .iter()
            .map(|(path, how)| (path.as_str(), how.as_str()))
            .collect();
        assert_eq!(
            devices,
            [
                ("/dev/mmcblk0p5", "rw"),
                ("/dev/disk/by-label/maps", "r"),
                ("/dev/ttySC1", "rw"),
            ]
        );
        assert_eq!(
            reach.folders,
            ["/run/agl-virtio/guests/ivi", "-/run/consoles"]
        );
    }

    #[test]
    fn the_drop_in_has_the_last_word_over_those_that_are_installed() {
        let files = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../meta-agl-virtio/recipes-virt/agl-virtio/agl-virtio_0.1.0.bb");
        let recipe = std::fs::read_to_string(files).unwrap();
        let installed: Vec<&str> = recipe
            .split_whitespace()
            .filter_map(|word| word.split_once(".service.d/"))
            .map(|(_, name)| name)
            .filter(|name| name.ends_with(".conf"))
            .collect();
        assert!(installed.contains(&"sandbox.conf"), "{installed:?}");
        assert!(
            installed.iter().all(|name| *name < DROP_IN),
            "{installed:?}"
        );
    }

    #[test]
    fn limits_are_in_systemd_s_units_and_none_lifts_them() {
        let none = u64::MAX;
        let of = |given: &Limits| -> Vec<u64> {
            let values = limits(given).into_iter();
            values.map(|(_, value)| value.try_into().unwrap()).collect()
        };
        assert_eq!(of(&Limits::default()), [none; 3]);
        let given = Limits {
            memory: Some(crate::definition::Size::mebibytes(64)),
            cpu_weight: Some(50),
            cpu_percent: Some(150),
        };
        assert_eq!(of(&given), [64 << 20, 50, 1_500_000]);
    }
}
