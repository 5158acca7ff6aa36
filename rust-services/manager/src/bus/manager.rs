// SPDX-License-Identifier: Apache-2.0
//! The manager's own object.

use super::{GuestObject, failed, registry};
use crate::registry::{Registry, RegistryError};
use agl_virtio_service::bus::{DEFINE_ACTION, RUN_ACTION, guest_path, is_shown, may_do};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use zbus::fdo;
use zbus::message::Header;
use zbus::zvariant::{ObjectPath, OwnedObjectPath};

/// The name of the interface.
pub const MANAGER_INTERFACE: &str = "org.automotivelinux.Virtio1.Manager";

/// How often, and how often at most, it is looked whether an object is on the bus.
const LOOK: Duration = Duration::from_millis(5);
const LOOKS: u32 = 400;

/// The object at the root.
#[derive(Debug)]
pub struct ManagerObject {
    registry: Arc<OnceLock<Arc<Registry>>>,
}

impl ManagerObject {
    /// Shows this registry, once it is set.
    #[must_use]
    pub const fn new(registry: Arc<OnceLock<Arc<Registry>>>) -> Self {
        Self { registry }
    }
}

fn path_of(name: &str) -> fdo::Result<OwnedObjectPath> {
    let path = ObjectPath::try_from(guest_path(name)).map_err(failed)?;
    Ok(path.into())
}

/// The bus's own thread brings objects there a moment after the registry has them. Whoever asked
/// for a guest finds it when the answer comes.
async fn objects_are_there(server: &zbus::ObjectServer, registry: &Registry) {
    let guests = registry.overview().borrow().guests.clone();
    for name in guests.keys() {
        for _ in 0..LOOKS {
            let Ok(path) = path_of(name) else {
                break;
            };
            if is_shown::<GuestObject>(server, &path).await {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn refused(error: &RegistryError) -> fdo::Error {
    match error {
        RegistryError::Files(_) | RegistryError::Name(_) => {
            fdo::Error::InvalidArgs(error.to_string())
        }
        RegistryError::NoGuest(_) => fdo::Error::UnknownObject(error.to_string()),
        RegistryError::File { .. } => fdo::Error::IOError(error.to_string()),
        RegistryError::Guest(_) => fdo::Error::Failed(error.to_string()),
    }
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Manager")]
impl ManagerObject {
    /// Reads the guests' files again and applies the difference: new guests are there, changed
    /// devices get their new options, devices that are new or gone are put into running guests or
    /// taken out, guests without a file go when they end. Where a file is wrong, nothing changes,
    /// and the error says what is wrong with file, line and remedy.
    async fn reload(
        &self,
        #[zbus(object_server)] server: &zbus::ObjectServer,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        may_do(connection, Some(&header), RUN_ACTION).await?;
        let registry = registry(&self.registry)?;
        registry.reload().await.map_err(|error| refused(&error))?;
        objects_are_there(server, registry).await;
        Ok(())
    }

    /// Writes a guest's file and reloads. `source` is its TOML text. Returns the guest's object.
    async fn define(
        &self,
        name: String,
        source: String,
        #[zbus(object_server)] server: &zbus::ObjectServer,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        may_do(connection, Some(&header), DEFINE_ACTION).await?;
        let registry = registry(&self.registry)?;
        let defined = registry.define(&name, source).await;
        defined.map_err(|error| refused(&error))?;
        objects_are_there(server, registry).await;
        path_of(&name)
    }

    /// Removes a guest that does not run, and its file.
    async fn remove(
        &self,
        name: String,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        may_do(connection, Some(&header), DEFINE_ACTION).await?;
        let registry = registry(&self.registry)?;
        registry
            .remove(&name)
            .await
            .map_err(|error| refused(&error))
    }

    /// The object of a guest, by its plain name.
    fn get_guest(&self, name: String) -> fdo::Result<OwnedObjectPath> {
        let found = registry(&self.registry)?.guest(&name);
        found.map_err(|error| refused(&error))?;
        path_of(&name)
    }

    /// The objects of all guests, sorted by name.
    #[zbus(property)]
    fn guests(&self) -> fdo::Result<Vec<OwnedObjectPath>> {
        let overview = registry(&self.registry)?.overview();
        let guests = overview.borrow().guests.clone();
        guests.keys().map(|name| path_of(name)).collect()
    }

    /// What is wrong with the guests' files as they are now, a paragraph for each fault; empty
    /// where they are in force.
    #[zbus(property)]
    fn faults(&self) -> fdo::Result<Vec<String>> {
        let overview = registry(&self.registry)?.overview();
        let faults = overview.borrow().faults.clone();
        Ok(faults)
    }

    /// The version of the manager.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }
}
