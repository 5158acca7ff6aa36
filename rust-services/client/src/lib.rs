// SPDX-License-Identifier: Apache-2.0
//! Guests and their devices over D-Bus, for applications: typed proxies of
//! `org.automotivelinux.Virtio1`.
//!
//! The manager has the bus name [`MANAGER`]: its object [`ROOT`] is also the ObjectManager of all
//! guests and devices. Each device's service has a name of its own, which the manager tells
//! ([`ManagedDeviceProxy::bus_name`]), and shows the same path: there are the device's counters,
//! and streams, jacks and the like below it. Reading is free, a change asks polkit.
//!
//! ```no_run
//! # async fn example() -> agl_virtio_client::zbus::Result<()> {
//! use agl_virtio_client::{GuestProxy, ManagerProxy, zbus};
//!
//! let bus = zbus::Connection::system().await?;
//! let manager = ManagerProxy::new(&bus).await?;
//! for path in manager.guests().await? {
//!     let guest = GuestProxy::new(&bus, path).await?;
//!     println!("{}: {}", guest.name().await?, guest.state().await?);
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod device;
mod guest;
mod manager;
mod sound;

pub use device::{DeviceProxy, ManagedDeviceProxy};
pub use guest::GuestProxy;
pub use manager::ManagerProxy;
pub use sound::{JackProxy, StreamProxy};

/// The D-Bus library that the proxies are of.
pub use zbus;

/// The manager's name on the bus.
pub const MANAGER: &str = "org.automotivelinux.Virtio1";

/// The manager's object, and the ObjectManager of all guests and devices.
pub const ROOT: &str = "/org/automotivelinux/Virtio1";
