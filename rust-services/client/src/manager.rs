// SPDX-License-Identifier: Apache-2.0
//! The manager.

use zbus::zvariant::OwnedObjectPath;

/// All guests.
#[zbus::proxy(
    interface = "org.automotivelinux.Virtio1.Manager",
    default_service = "org.automotivelinux.Virtio1",
    default_path = "/org/automotivelinux/Virtio1",
    gen_blocking = false
)]
pub trait Manager {
    /// Reads the guests' files again and applies the difference.
    fn reload(&self) -> zbus::Result<()>;

    /// Writes a guest's file, given as TOML text, and reloads; the guest's object.
    fn define(&self, name: &str, source: &str) -> zbus::Result<OwnedObjectPath>;

    /// Removes a guest that does not run, and its file.
    fn remove(&self, name: &str) -> zbus::Result<()>;

    /// The object of a guest, by its plain name.
    fn get_guest(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    /// The objects of all guests, sorted by name.
    #[zbus(property)]
    fn guests(&self) -> zbus::Result<Vec<OwnedObjectPath>>;

    /// What is wrong with the guests' files as they are now.
    #[zbus(property)]
    fn faults(&self) -> zbus::Result<Vec<String>>;

    /// The version of the manager.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
}
