// SPDX-License-Identifier: Apache-2.0
//! The interface that every device has: what it is and how it does.

use super::{Bus, Place, PropertyChange};
use crate::sandbox::Sandbox;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The name of the interface.
pub const DEVICE_INTERFACE: &str = "org.automotivelinux.Virtio1.Device";

/// Counters of one virtqueue by name, such as `chains` and `bytes_read`.
pub type QueueStatistics = BTreeMap<&'static str, u64>;

/// How far a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    /// No virtual machine monitor is connected.
    Waiting,
    /// A virtual machine monitor is connected; the guest has not started the device.
    Connected,
    /// The guest's driver uses the device.
    Running,
    /// The device needs a reset by the guest (a queue is broken).
    NeedsReset,
}

impl DeviceState {
    /// The word on the bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connected => "connected",
            Self::Running => "running",
            Self::NeedsReset => "needs-reset",
        }
    }
}

/// What a device tells about itself. Called on the bus thread; must not wait for the data path:
/// give it atomics.
pub trait DeviceInfo: Send + Sync + 'static {
    /// How far the device is.
    fn state(&self) -> DeviceState;
    /// The virtio feature bits that are offered.
    fn features_offered(&self) -> u64;
    /// The virtio feature bits that the driver acknowledged; 0 before it did.
    fn features_acknowledged(&self) -> u64;
    /// How often the service took over from one that died, for this guest's connection.
    fn restarts(&self) -> u32;
    /// Counters of each virtqueue, by its index.
    fn statistics(&self) -> Vec<QueueStatistics>;
}

/// Says that what a device tells about itself may have changed.
#[derive(Debug, Clone)]
pub struct DeviceChange(Vec<PropertyChange>);

impl DeviceChange {
    /// For the properties that are told.
    pub(crate) fn of(bus: &Bus) -> Result<Self, zbus::zvariant::Error> {
        let told = ["State", "FeaturesAcknowledged", "Restarts"];
        let properties = told.map(|name| bus.property("", DEVICE_INTERFACE, name));
        properties.into_iter().collect::<Result<_, _>>().map(Self)
    }

    /// The state, the features or the restarts may be others. Never waits.
    pub fn changed(&self) {
        self.0.iter().for_each(PropertyChange::changed);
    }
}

/// The object's implementation of the interface.
pub(crate) struct DeviceObject {
    pub(crate) place: Place,
    pub(crate) device_type: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sandbox: Sandbox,
    pub(crate) info: Arc<dyn DeviceInfo>,
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Device")]
impl DeviceObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn guest(&self) -> &str {
        self.place.guest()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        self.place.device()
    }

    #[zbus(property(emits_changed_signal = "const"), name = "Type")]
    fn device_type(&self) -> &str {
        self.device_type
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        self.version
    }

    #[zbus(property)]
    fn state(&self) -> &str {
        self.info.state().word()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn features_offered(&self) -> u64 {
        self.info.features_offered()
    }

    #[zbus(property)]
    fn features_acknowledged(&self) -> u64 {
        self.info.features_acknowledged()
    }

    #[zbus(property)]
    fn restarts(&self) -> u32 {
        self.info.restarts()
    }

    // Changes all the time: who wants it reads it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn statistics(&self) -> Vec<HashMap<String, u64>> {
        self.info
            .statistics()
            .into_iter()
            .map(|queue| {
                queue
                    .into_iter()
                    .map(|(name, count)| (name.to_owned(), count))
                    .collect()
            })
            .collect()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn sandbox(&self) -> HashMap<String, String> {
        self.sandbox
            .report()
            .measures()
            .into_iter()
            .map(|(name, measure)| (name.to_owned(), measure.to_string()))
            .collect()
    }
}
