// SPDX-License-Identifier: Apache-2.0
//! A guest's object.

use super::last_known::LastKnown;
use super::{failed, registry};
use crate::guest::{Command, GuestStatus, Selftest};
use crate::registry::Registry;
use agl_virtio_service::bus::{Place, RUN_ACTION, may_do};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use zbus::fdo;
use zbus::message::Header;
use zbus::zvariant::{ObjectPath, OwnedObjectPath};

/// The name of the interface.
pub const GUEST_INTERFACE: &str = "org.automotivelinux.Virtio1.Guest";

/// The object of a guest.
#[derive(Debug)]
pub struct GuestObject {
    name: String,
    registry: Arc<OnceLock<Arc<Registry>>>,
    shown: LastKnown<Arc<GuestStatus>>,
}

/// Which properties differ.
pub(super) fn difference(old: &GuestStatus, new: &GuestStatus) -> Vec<&'static str> {
    let (a, b) = (&old.definition.guest, &new.definition.guest);
    [
        ("State", old.state != new.state),
        ("Pid", old.pid != new.pid),
        ("StartedUsec", old.started_usec != new.started_usec),
        ("ExitReason", old.exit_reason != new.exit_reason),
        ("Restarts", old.restarts != new.restarts),
        ("ChangesPending", old.changes_pending != new.changes_pending),
        ("Description", a.description != b.description),
        ("Vmm", a.vmm != b.vmm),
        ("RestartPolicy", a.restart.policy != b.restart.policy),
        ("Autostart", a.autostart != b.autostart),
        ("Memory", a.memory != b.memory),
        ("Cpus", a.cpus != b.cpus),
        ("Devices", !old.devices.keys().eq(new.devices.keys())),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

impl GuestObject {
    /// Shows the guest of this name, which was so when it came.
    #[must_use]
    pub fn new(
        name: &str,
        registry: Arc<OnceLock<Arc<Registry>>>,
        first: Option<Arc<GuestStatus>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            registry,
            shown: LastKnown::new(first),
        }
    }

    fn status(&self) -> fdo::Result<Arc<GuestStatus>> {
        let guest = registry(&self.registry).map(|registry| registry.guest(&self.name));
        let status = guest.and_then(|guest| Ok(guest.map_err(failed)?.status()));
        self.shown.or_last(status)
    }

    /// A file may have what not everybody is to know, such as a disk's key: its mode says so.
    async fn may_read(
        &self,
        connection: &zbus::Connection,
        header: &Header<'_>,
    ) -> fdo::Result<()> {
        let status = self.status()?;
        let found = std::fs::metadata(&status.definition.file);
        if found.is_ok_and(|found| found.mode() & 0o004 != 0) {
            return Ok(());
        }
        may_do(connection, Some(header), RUN_ACTION).await
    }

    async fn ask(
        &self,
        connection: &zbus::Connection,
        header: &Header<'_>,
        command: Command,
    ) -> fdo::Result<()> {
        may_do(connection, Some(header), RUN_ACTION).await?;
        let guest = registry(&self.registry)?
            .guest(&self.name)
            .map_err(failed)?;
        guest.call(command).await.map_err(failed)
    }
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Guest")]
impl GuestObject {
    /// Starts the guest's device services, then its monitor. Returns when the guest runs, or with
    /// the reason why it does not. What led to an isolation is forgotten.
    async fn start(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::Start).await
    }

    /// Presses the power button, and ends the guest if it still runs after so many milliseconds
    /// (at most an hour). Returns when the button is pressed; State says when it has ended.
    async fn stop(
        &self,
        timeout_ms: u32,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        if timeout_ms > 3_600_000 {
            let reason = "write a time of at most 3600000 ms".to_owned();
            return Err(fdo::Error::InvalidArgs(reason));
        }
        let patience = Duration::from_millis(u64::from(timeout_ms));
        self.ask(connection, &header, Command::Stop(patience)).await
    }

    /// Ends the guest at once, as a power failure does.
    async fn kill(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::Kill).await
    }

    /// Presses the reset button.
    async fn reboot(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::Reboot).await
    }

    /// Stops the guest's processors.
    async fn pause(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::Pause).await
    }

    /// Lets them run on.
    async fn resume(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::Resume).await
    }

    /// Keeps what the running guest's self-test has found: `report` is the JSON that
    /// `agl-virtio-selftest` has written there, at most 256 KiB. The devices show it as
    /// `Conformance`, until the host is booted anew.
    async fn record_selftest(
        &self,
        report: String,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        may_do(connection, Some(&header), RUN_ACTION).await?;
        let selftest = Selftest::read(&report);
        let selftest = selftest.map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        let guest = registry(&self.registry)?.guest(&self.name);
        let command = Command::RecordSelftest(selftest);
        guest.map_err(failed)?.call(command).await.map_err(failed)
    }

    /// The command line that the guest's monitor is started with. Free where everybody may read
    /// the guest's file.
    async fn get_command(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<Vec<String>> {
        self.may_read(connection, &header).await?;
        self.status()?.command.clone().map_err(failed)
    }

    /// The guest's file, as it is in force. Free where everybody may read it.
    async fn get_definition(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<String> {
        self.may_read(connection, &header).await?;
        Ok(self.status()?.definition.source.clone())
    }

    /// The plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        &self.name
    }

    /// What the guest is, for people.
    #[zbus(property)]
    fn description(&self) -> fdo::Result<String> {
        Ok(self.status()?.definition.guest.description.clone())
    }

    /// `stopped`, `starting`, `running`, `paused`, `stopping`, `restarting`, `isolated` (it ended
    /// by itself too often) or `failed` (it ended by itself and is not started again).
    #[zbus(property)]
    fn state(&self) -> fdo::Result<String> {
        Ok(self.status()?.state.word().to_owned())
    }

    /// `qemu`, `crosvm`, `xen` or `loopback`.
    #[zbus(property)]
    fn vmm(&self) -> fdo::Result<String> {
        Ok(self.status()?.vmm().to_owned())
    }

    /// The monitor's process, or 0.
    #[zbus(property)]
    fn pid(&self) -> fdo::Result<u32> {
        Ok(self.status()?.pid)
    }

    /// When the guest started, in microseconds since 1970, or 0.
    #[zbus(property)]
    fn started_usec(&self) -> fdo::Result<u64> {
        Ok(self.status()?.started_usec)
    }

    /// Why the guest ended last: `power-off`, `panic`, `crash` or `start`, a colon and the
    /// circumstances; empty if it never did.
    #[zbus(property)]
    fn exit_reason(&self) -> fdo::Result<String> {
        Ok(self.status()?.exit_reason.clone())
    }

    /// `never`, `on-failure` or `always`.
    #[zbus(property)]
    fn restart_policy(&self) -> fdo::Result<String> {
        let status = self.status()?;
        Ok(status.definition.guest.restart.policy.word().to_owned())
    }

    /// How often the manager has started the guest again.
    #[zbus(property)]
    fn restarts(&self) -> fdo::Result<u32> {
        Ok(self.status()?.restarts)
    }

    /// It starts together with the manager.
    #[zbus(property)]
    fn autostart(&self) -> fdo::Result<bool> {
        Ok(self.status()?.definition.guest.autostart)
    }

    /// The file has changes that come into force when the guest starts next.
    #[zbus(property)]
    fn changes_pending(&self) -> fdo::Result<bool> {
        Ok(self.status()?.changes_pending)
    }

    /// Memory in bytes.
    #[zbus(property)]
    fn memory(&self) -> fdo::Result<u64> {
        Ok(self.status()?.definition.guest.memory.in_bytes())
    }

    /// Processors.
    #[zbus(property)]
    fn cpus(&self) -> fdo::Result<u32> {
        Ok(u32::from(self.status()?.definition.guest.cpus))
    }

    /// The objects of its devices, sorted by name.
    #[zbus(property)]
    fn devices(&self) -> fdo::Result<Vec<OwnedObjectPath>> {
        let status = self.status()?;
        let paths = status.devices.keys().map(|device| {
            let path = Place::new(&self.name, device).path();
            ObjectPath::try_from(path).map(Into::into).map_err(failed)
        });
        paths.collect()
    }
}
