// SPDX-License-Identifier: Apache-2.0
//! A device, as the manager keeps it and as its service tells.

use std::collections::HashMap;

/// A device as the manager keeps it.
#[zbus::proxy(
    interface = "org.automotivelinux.Virtio1.ManagedDevice",
    default_service = "org.automotivelinux.Virtio1",
    gen_blocking = false
)]
pub trait ManagedDevice {
    /// Starts its service.
    fn start(&self) -> zbus::Result<()>;

    /// Ends the service of a device that no guest has.
    fn stop(&self) -> zbus::Result<()>;

    /// Puts it into the running guest.
    fn attach(&self) -> zbus::Result<()>;

    /// Takes it out of the running guest; returns when the guest has let go.
    fn detach(&self) -> zbus::Result<()>;

    /// The feature bits that are offered, and those that the driver acknowledged.
    fn get_features(&self) -> zbus::Result<(u64, u64)>;

    /// Counters of each virtqueue, by name.
    fn get_statistics(&self) -> zbus::Result<Vec<HashMap<String, u64>>>;

    /// The guest's plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn guest(&self) -> zbus::Result<String>;

    /// The plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// Where its service is on the bus, at the same path.
    #[zbus(property(emits_changed_signal = "const"))]
    fn bus_name(&self) -> zbus::Result<String>;

    /// The device type, such as `snd`.
    #[zbus(property, name = "Type")]
    fn device_type(&self) -> zbus::Result<String>;

    /// `stopped`, `starting`, `running`, `restarting` or `isolated`.
    #[zbus(property)]
    fn service_state(&self) -> zbus::Result<String>;

    /// The running guest has it.
    #[zbus(property)]
    fn attached(&self) -> zbus::Result<bool>;

    /// How often the manager has started it again.
    #[zbus(property)]
    fn restarts(&self) -> zbus::Result<u32>;

    /// Where its monitor connects.
    #[zbus(property)]
    fn socket(&self) -> zbus::Result<String>;

    /// The keeper's process, or 0.
    #[zbus(property)]
    fn pid(&self) -> zbus::Result<u32>;

    /// Why it is not well; empty if it is.
    #[zbus(property)]
    fn reason(&self) -> zbus::Result<String>;

    /// `untested`, `passed`, `failed` or `outdated`: what the guest's self-test has found.
    #[zbus(property)]
    fn conformance(&self) -> zbus::Result<String>;

    /// The same as a sentence; empty if it has found nothing.
    #[zbus(property)]
    fn conformance_report(&self) -> zbus::Result<String>;
}

/// A device as its service tells; the destination is [`ManagedDeviceProxy::bus_name`].
#[zbus::proxy(interface = "org.automotivelinux.Virtio1.Device", gen_blocking = false)]
pub trait Device {
    /// The guest's plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn guest(&self) -> zbus::Result<String>;

    /// The plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// The device type, such as `snd`.
    #[zbus(property(emits_changed_signal = "const"), name = "Type")]
    fn device_type(&self) -> zbus::Result<String>;

    /// The version of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// `waiting`, `connected`, `running` or `needs-reset`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Virtio feature bits that are offered.
    #[zbus(property(emits_changed_signal = "const"))]
    fn features_offered(&self) -> zbus::Result<u64>;

    /// Virtio feature bits that the driver acknowledged; 0 before.
    #[zbus(property)]
    fn features_acknowledged(&self) -> zbus::Result<u64>;

    /// How often a service took over from one that died.
    #[zbus(property)]
    fn restarts(&self) -> zbus::Result<u32>;

    /// Counters of each virtqueue, by name.
    #[zbus(property(emits_changed_signal = "false"))]
    fn statistics(&self) -> zbus::Result<Vec<HashMap<String, u64>>>;
}
