// SPDX-License-Identifier: Apache-2.0
//! The service on D-Bus: seen and steered there, and not depending on it.
//!
//! One thread of its own keeps the connection: it connects when a bus is there, waits when none
//! is, and after the bus was restarted registers everything anew. Everybody else holds a
//! [`Bus`], whose methods never wait for the bus.

mod authority;
mod connection;
mod device;
mod names;
mod registry;
mod told;
mod value;

pub use authority::{DEFINE_ACTION, MANAGE_ACTION, RUN_ACTION, may_change, may_do};
pub(crate) use device::DeviceObject;
pub use device::{DEVICE_INTERFACE, DeviceChange, DeviceInfo, DeviceState, QueueStatistics};
pub use names::{Place, ROOT, guest_path};
pub use registry::PropertyChange;
pub use told::is_shown;
pub use value::typed;

/// The D-Bus library, for devices that define interfaces of their own.
pub use zbus;

use crate::cli::BusChoice;
use crate::sandbox::Sandbox;
use registry::Registry;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use zbus::object_server::Interface;

/// The stack of the bus thread, in bytes; only what is touched counts as memory.
const STACK: usize = 512 * 1024;

/// Whether the bus is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusStatus {
    /// No bus is wanted.
    Off,
    /// No bus is there; it is looked for.
    Absent,
    /// All objects are on the bus.
    Present,
}

/// Which bus is meant; none for [`BusChoice::None`].
fn target(choice: &BusChoice) -> io::Result<Option<connection::Target>> {
    Ok(Some(match choice {
        BusChoice::None => return Ok(None),
        BusChoice::System => connection::Target::System,
        BusChoice::Session => connection::Target::Session,
        BusChoice::Address(address) => {
            let address = address.parse().map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{address} is no D-Bus address: {error}"),
                )
            })?;
            connection::Target::Address(address)
        }
    }))
}

/// A connection of its own for who asks others. A method that has no answer after `patience` has
/// failed.
///
/// # Errors
/// The bus is not there, or none is wanted.
pub async fn connect(choice: &BusChoice, patience: Duration) -> zbus::Result<zbus::Connection> {
    match target(choice)? {
        Some(target) => target.connect(patience).await,
        None => Err(io::Error::new(io::ErrorKind::NotConnected, "no bus is wanted").into()),
    }
}

/// The service's side of the bus. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Bus {
    registry: Arc<Registry>,
    place: Place,
}

impl Bus {
    /// No bus: every method does nothing.
    #[must_use]
    pub fn off(place: Place) -> Self {
        Self {
            registry: Arc::new(Registry::new(BusStatus::Off)),
            place,
        }
    }

    /// Starts the thread that connects to the bus.
    ///
    /// # Errors
    /// The thread cannot be started, or the address cannot be one.
    pub fn start(choice: &BusChoice, place: Place, sandbox: Sandbox) -> io::Result<Self> {
        let bus = Self::start_held(choice, place, sandbox)?;
        bus.release();
        Ok(bus)
    }

    /// As [`Bus::start`], but the bus name is only taken after [`Bus::release`].
    ///
    /// # Errors
    /// As [`Bus::start`].
    pub fn start_held(choice: &BusChoice, place: Place, sandbox: Sandbox) -> io::Result<Self> {
        let Some(target) = target(choice)? else {
            return Ok(Self::off(place));
        };
        let bus = Self {
            registry: Arc::new(Registry::new(BusStatus::Absent)),
            place,
        };
        let (registry, place) = (Arc::clone(&bus.registry), bus.place.clone());
        std::thread::Builder::new()
            .name("bus".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                sandbox.enter(crate::sandbox::Role::Bus);
                connection::run(&target, &place, &registry);
            })?;
        Ok(bus)
    }

    /// All objects are there: who sees the bus name from now on finds them.
    pub fn release(&self) {
        self.registry.release();
    }

    /// Puts an object on the bus, now and after every return of the bus.
    ///
    /// `path` is below the device's own path, such as `streams/0`, or empty for the device
    /// itself; its parts are of `A-Z a-z 0-9 _`. `make` is called for each connection; what it
    /// makes should hold its state behind an `Arc`.
    ///
    /// # Errors
    /// The path cannot be one.
    pub fn add<I: Interface>(
        &self,
        path: &str,
        make: impl Fn() -> I + Send + Sync + 'static,
    ) -> Result<(), zbus::zvariant::Error> {
        self.registry.add::<I>(self.place.path_of(path)?, make);
        Ok(())
    }

    /// Takes all interfaces of an object off the bus.
    ///
    /// # Errors
    /// The path cannot be one.
    pub fn remove(&self, path: &str) -> Result<(), zbus::zvariant::Error> {
        self.registry.remove(&self.place.path_of(path)?);
        Ok(())
    }

    /// A handle to say that a property has changed, from any thread, real-time ones included.
    ///
    /// # Errors
    /// The path cannot be one.
    pub fn property(
        &self,
        path: &str,
        interface: &'static str,
        name: &'static str,
    ) -> Result<PropertyChange, zbus::zvariant::Error> {
        Ok(self
            .registry
            .property(self.place.path_of(path)?, interface, name))
    }

    /// Sends a signal. Where the bus is absent or slow it is dropped: a signal that waits has
    /// lost its meaning. What must not be lost is a property.
    ///
    /// # Errors
    /// The path cannot be one, or the body cannot be written.
    pub fn signal<B>(
        &self,
        path: &str,
        interface: &'static str,
        name: &'static str,
        body: &B,
    ) -> zbus::Result<()>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let path = self.place.path_of(path)?;
        let message = zbus::Message::signal(path, interface, name)?.build(body)?;
        self.registry.signal(message);
        Ok(())
    }

    /// Whether the bus is there.
    #[must_use]
    pub fn status(&self) -> BusStatus {
        self.registry.status()
    }

    /// Which guest and device this is.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }
}
