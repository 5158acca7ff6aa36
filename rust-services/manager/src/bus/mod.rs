// SPDX-License-Identifier: Apache-2.0
//! The manager on D-Bus: itself, the guests, and their devices as the manager keeps them.

mod device;
mod guest;
mod last_known;
mod manager;
mod reference;

pub use device::{DEVICE_INTERFACE, DeviceObject};
pub use guest::{GUEST_INTERFACE, GuestObject};
pub use manager::{MANAGER_INTERFACE, ManagerObject};
pub use reference::reference;

use crate::guest::{DeviceStatus, GuestStatus};
use crate::registry::Registry;
use agl_virtio_service::bus::{Bus, Place, ROOT, guest_path};
use std::sync::{Arc, OnceLock};
use zbus::fdo;

/// Puts guests and devices on the bus and takes them off, and says what changed.
pub struct Stage {
    bus: Bus,
    registry: Arc<OnceLock<Arc<Registry>>>,
}

impl Stage {
    /// The manager's own object is there at once; `registry` is set before anybody can ask.
    ///
    /// # Errors
    /// A path that cannot be one.
    pub fn new(bus: Bus, registry: Arc<OnceLock<Arc<Registry>>>) -> zbus::zvariant::Result<Self> {
        let of = Arc::clone(&registry);
        bus.add("", move || ManagerObject::new(Arc::clone(&of)))?;
        Ok(Self { bus, registry })
    }

    /// The manager's lists have changed.
    pub fn manager_changed(&self) {
        self.changed("", MANAGER_INTERFACE, &["Guests", "Faults"]);
    }

    /// A guest has changed.
    pub fn show(&self, name: &str, old: Option<&GuestStatus>, new: Option<&GuestStatus>) {
        let path = below_root(&guest_path(name));
        match (old, new) {
            (None, Some(new)) => {
                let (registry, of) = (Arc::clone(&self.registry), name.to_owned());
                let first = Arc::new(new.clone());
                self.add(&path, move || {
                    GuestObject::new(&of, Arc::clone(&registry), Some(Arc::clone(&first)))
                });
                self.manager_changed();
            }
            (_, None) => {
                self.remove(&path);
                self.manager_changed();
            }
            (Some(old), Some(new)) => {
                let changed = guest::difference(old, new);
                self.changed(&path, GUEST_INTERFACE, &changed);
            }
        }
        let nothing = std::collections::BTreeMap::new();
        let before = old.map_or(&nothing, |status| &status.devices);
        let now = new.map_or(&nothing, |status| &status.devices);
        for device in before.keys().filter(|device| !now.contains_key(*device)) {
            self.remove(&below_root(&Place::new(name, device).path()));
        }
        for (device, status) in now {
            self.show_device(name, device, before.get(device), status);
        }
    }

    fn show_device(
        &self,
        guest: &str,
        device: &str,
        old: Option<&DeviceStatus>,
        new: &DeviceStatus,
    ) {
        let path = below_root(&Place::new(guest, device).path());
        match old {
            None => {
                let (registry, place) = (Arc::clone(&self.registry), Place::new(guest, device));
                let first = new.clone();
                self.add(&path, move || {
                    DeviceObject::new(place.clone(), Arc::clone(&registry), Some(first.clone()))
                });
            }
            Some(old) => self.changed(&path, DEVICE_INTERFACE, &device::difference(old, new)),
        }
    }

    fn add<I: zbus::object_server::Interface>(
        &self,
        path: &str,
        make: impl Fn() -> I + Send + Sync + 'static,
    ) {
        if let Err(error) = self.bus.add(path, make) {
            log::error!("{path} stays off the bus: {error}");
        }
    }

    fn remove(&self, path: &str) {
        if let Err(error) = self.bus.remove(path) {
            log::error!("{path} stays on the bus: {error}");
        }
    }

    fn changed(&self, path: &str, interface: &'static str, names: &[&'static str]) {
        for name in names {
            match self.bus.property(path, interface, name) {
                Ok(property) => property.changed(),
                Err(error) => log::error!("{path}: {error}"),
            }
        }
    }
}

fn below_root(path: &str) -> String {
    path.strip_prefix(ROOT)
        .unwrap_or(path)
        .trim_start_matches('/')
        .to_owned()
}

/// The registry, which is there before the first call is.
fn registry(cell: &OnceLock<Arc<Registry>>) -> fdo::Result<&Arc<Registry>> {
    cell.get()
        .ok_or_else(|| fdo::Error::Failed("the manager is starting".to_owned()))
}

fn failed(error: impl std::fmt::Display) -> fdo::Error {
    fdo::Error::Failed(error.to_string())
}
