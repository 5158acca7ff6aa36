// SPDX-License-Identifier: Apache-2.0
//! The names of guests and devices as D-Bus writes them.

use zbus::zvariant::{Error, ObjectPath, OwnedObjectPath};

/// Where the ObjectManager is.
pub const ROOT: &str = "/org/automotivelinux/Virtio1";

/// The manager's name.
const MANAGER: &str = "org.automotivelinux.Virtio1";

/// What the names of all device services begin with, and a name for which every one of them waits.
/// A policy lets somebody own names by this prefix, which is not one of the manager's name, and lets
/// people speak to whoever waits for the name: so a policy need not list devices, and needs no rule
/// that dbus-broker does not know.
const DEVICES: &str = "org.automotivelinux.Virtio1.Device";

/// Who somebody on the bus is, and so its name there and the path of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(Whose);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    Manager,
    Device { guest: String, device: String },
}

impl Place {
    /// The device `device` of `guest`.
    #[must_use]
    pub fn new(guest: &str, device: &str) -> Self {
        Self(Whose::Device {
            guest: guest.to_owned(),
            device: device.to_owned(),
        })
    }

    /// The manager of all guests.
    #[must_use]
    pub const fn manager() -> Self {
        Self(Whose::Manager)
    }

    /// The guest's name; empty for the manager.
    #[must_use]
    pub fn guest(&self) -> &str {
        match &self.0 {
            Whose::Manager => "",
            Whose::Device { guest, .. } => guest,
        }
    }

    /// The device's name; empty for the manager.
    #[must_use]
    pub fn device(&self) -> &str {
        match &self.0 {
            Whose::Manager => "",
            Whose::Device { device, .. } => device,
        }
    }

    /// The name on the bus: `org.automotivelinux.Virtio1.Device.GUEST.DEVICE`, or for the manager
    /// `org.automotivelinux.Virtio1`.
    #[must_use]
    pub fn bus_name(&self) -> String {
        match &self.0 {
            Whose::Manager => MANAGER.to_owned(),
            Whose::Device { guest, device } => {
                format!("{DEVICES}.{}.{}", label(guest), label(device))
            }
        }
    }

    /// The name that it shares with its like: `org.automotivelinux.Virtio1.Device` for a device, none
    /// for the manager.
    #[must_use]
    pub const fn shared_name(&self) -> Option<&'static str> {
        match &self.0 {
            Whose::Manager => None,
            Whose::Device { .. } => Some(DEVICES),
        }
    }

    /// The path of the device's object, `/org/automotivelinux/Virtio1/guests/GUEST/DEVICE`, or
    /// of the manager's: [`ROOT`].
    #[must_use]
    pub fn path(&self) -> String {
        match &self.0 {
            Whose::Manager => ROOT.to_owned(),
            Whose::Device { guest, device } => {
                format!("{}/{}", guest_path(guest), label(device))
            }
        }
    }

    /// The path of an object below the device's; empty for the device's own.
    ///
    /// # Errors
    /// `below` is no relative object path.
    pub fn path_of(&self, below: &str) -> Result<OwnedObjectPath, Error> {
        let path = if below.is_empty() {
            self.path()
        } else {
            format!("{}/{below}", self.path())
        };
        ObjectPath::try_from(path).map(OwnedObjectPath::from)
    }
}

/// The path of a guest's object: `/org/automotivelinux/Virtio1/guests/GUEST`.
#[must_use]
pub fn guest_path(guest: &str) -> String {
    format!("{ROOT}/guests/{}", label(guest))
}

/// What D-Bus does not allow in a path is written as `_` and two hexadecimal digits, as systemd
/// does it (sd_bus_path_encode(3)).
fn label(name: &str) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    let mut out = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit());
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("_{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels_that_nothing_else_becomes() {
        let table = [
            ("ivi", "ivi"),
            ("cabin-sound", "cabin_2dsound"),
            ("cabin_sound", "cabin_5fsound"),
            ("2nd", "_32nd"),
            ("", "_"),
            ("ä", "_c3_a4"),
        ];
        for (name, expected) in table {
            assert_eq!(label(name), expected);
        }
    }

    #[test]
    fn every_place_has_a_name_and_a_path_that_the_bus_takes() {
        for (guest, device) in [("ivi", "cabin-sound"), ("2", "-"), ("", "ä b")] {
            let place = Place::new(guest, device);
            zbus::names::WellKnownName::try_from(place.bus_name()).unwrap();
            place.path_of("streams/0").unwrap();
        }
        let manager = Place::manager();
        assert_eq!(manager.bus_name(), "org.automotivelinux.Virtio1");
        assert_eq!(
            manager.path_of("guests/ivi").unwrap().as_str(),
            guest_path("ivi")
        );
        assert!(Place::new("a", "b").path_of("/streams").is_err());
        assert!(Place::new("a", "b").path_of("str-eams").is_err());
    }
}
