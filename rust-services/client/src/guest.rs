// SPDX-License-Identifier: Apache-2.0
//! A guest.

use zbus::zvariant::OwnedObjectPath;

/// A guest, at one of the paths that the manager lists.
#[zbus::proxy(
    interface = "org.automotivelinux.Virtio1.Guest",
    default_service = "org.automotivelinux.Virtio1",
    gen_blocking = false
)]
pub trait Guest {
    /// Starts it; returns when it runs, or with the reason why it does not.
    fn start(&self) -> zbus::Result<()>;

    /// Presses the power button, and ends it after so many milliseconds (3600000 at most).
    fn stop(&self, timeout_ms: u32) -> zbus::Result<()>;

    /// Ends it at once.
    fn kill(&self) -> zbus::Result<()>;

    /// Presses the reset button.
    fn reboot(&self) -> zbus::Result<()>;

    /// Stops its processors.
    fn pause(&self) -> zbus::Result<()>;

    /// Lets them run on.
    fn resume(&self) -> zbus::Result<()>;

    /// Keeps what `agl-virtio-selftest --json` has written in the running guest.
    fn record_selftest(&self, report: &str) -> zbus::Result<()>;

    /// The command line of its monitor.
    fn get_command(&self) -> zbus::Result<Vec<String>>;

    /// Its file, as it is in force.
    fn get_definition(&self) -> zbus::Result<String>;

    /// The plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// What it is, for people.
    #[zbus(property)]
    fn description(&self) -> zbus::Result<String>;

    /// `stopped`, `starting`, `running`, `paused`, `stopping`, `restarting`, `isolated`, `failed`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// `qemu`, `crosvm`, `xen` or `loopback`.
    #[zbus(property)]
    fn vmm(&self) -> zbus::Result<String>;

    /// The monitor's process, or 0.
    #[zbus(property)]
    fn pid(&self) -> zbus::Result<u32>;

    /// When it started, in microseconds since 1970, or 0.
    #[zbus(property)]
    fn started_usec(&self) -> zbus::Result<u64>;

    /// Why it ended last.
    #[zbus(property)]
    fn exit_reason(&self) -> zbus::Result<String>;

    /// `never`, `on-failure` or `always`.
    #[zbus(property)]
    fn restart_policy(&self) -> zbus::Result<String>;

    /// How often the manager has started it again.
    #[zbus(property)]
    fn restarts(&self) -> zbus::Result<u32>;

    /// It starts together with the manager.
    #[zbus(property)]
    fn autostart(&self) -> zbus::Result<bool>;

    /// Its file has changes that come into force when it starts next.
    #[zbus(property)]
    fn changes_pending(&self) -> zbus::Result<bool>;

    /// Memory in bytes.
    #[zbus(property)]
    fn memory(&self) -> zbus::Result<u64>;

    /// Processors.
    #[zbus(property)]
    fn cpus(&self) -> zbus::Result<u32>;

    /// The objects of its devices, sorted by name.
    #[zbus(property)]
    fn devices(&self) -> zbus::Result<Vec<OwnedObjectPath>>;
}
