// SPDX-License-Identifier: Apache-2.0
//! A device's object, as the manager keeps it. What the device itself tells is on its service.

use super::last_known::LastKnown;
use super::{failed, registry};
use crate::guest::{Command, DeviceStatus, ServiceState};
use crate::registry::Registry;
use agl_virtio_client::DeviceProxy;
use agl_virtio_service::bus::{Place, RUN_ACTION, may_do};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use zbus::fdo;
use zbus::message::Header;
use zbus::proxy::CacheProperties;

/// The name of the interface.
pub const DEVICE_INTERFACE: &str = "org.automotivelinux.Virtio1.ManagedDevice";

/// A service tells what it counts without waiting for anything.
const ANSWER: Duration = Duration::from_secs(10);

/// The object of a device.
#[derive(Debug)]
pub struct DeviceObject {
    place: Place,
    registry: Arc<OnceLock<Arc<Registry>>>,
    shown: LastKnown<DeviceStatus>,
}

/// Which properties differ.
pub(super) fn difference(old: &DeviceStatus, new: &DeviceStatus) -> Vec<&'static str> {
    [
        ("Type", old.device_type != new.device_type),
        ("ServiceState", old.state != new.state),
        ("Attached", old.attached != new.attached),
        ("Restarts", old.restarts != new.restarts),
        ("Socket", old.socket != new.socket),
        ("Pid", old.pid != new.pid),
        ("Reason", old.reason != new.reason),
        ("Conformance", old.conformance != new.conformance),
        (
            "ConformanceReport",
            old.conformance_report != new.conformance_report,
        ),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

impl DeviceObject {
    /// Shows the device at this place, which was so when it came.
    #[must_use]
    pub const fn new(
        place: Place,
        registry: Arc<OnceLock<Arc<Registry>>>,
        first: Option<DeviceStatus>,
    ) -> Self {
        Self {
            place,
            registry,
            shown: LastKnown::new(first),
        }
    }

    fn status(&self) -> fdo::Result<DeviceStatus> {
        self.shown.or_last(self.look())
    }

    fn look(&self) -> fdo::Result<DeviceStatus> {
        let guest = registry(&self.registry)?.guest(self.place.guest());
        let status = guest.map_err(failed)?.status();
        let device = status.devices.get(self.place.device()).cloned();
        device.ok_or_else(|| fdo::Error::UnknownObject("there is no such device".to_owned()))
    }

    /// The device as its service tells. Nothing is kept of it: a service may be another one by the
    /// next call.
    async fn service(&self, connection: &zbus::Connection) -> zbus::Result<DeviceProxy<'static>> {
        DeviceProxy::builder(connection)
            .destination(self.place.bus_name())?
            .path(self.place.path())?
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    /// What the service says, or why it does not.
    async fn told<T>(&self, asked: impl Future<Output = zbus::Result<T>>) -> fdo::Result<T> {
        let state = self.status()?.state;
        if state != ServiceState::Running {
            let reason = format!("the service is {}: start the device first", state.word());
            return Err(fdo::Error::Failed(reason));
        }
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(fdo::Error::TimedOut(
                "the service does not answer".to_owned(),
            )),
        }
    }

    async fn ask(
        &self,
        connection: &zbus::Connection,
        header: &Header<'_>,
        command: impl FnOnce(String) -> Command,
    ) -> fdo::Result<()> {
        may_do(connection, Some(header), RUN_ACTION).await?;
        let guest = registry(&self.registry)?.guest(self.place.guest());
        let command = command(self.place.device().to_owned());
        guest.map_err(failed)?.call(command).await.map_err(failed)
    }
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.ManagedDevice")]
impl DeviceObject {
    /// Starts the device's service under its keeper. What led to an isolation is forgotten.
    async fn start(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::StartDevice).await
    }

    /// Ends the service of a device that no guest has.
    async fn stop(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::StopDevice).await
    }

    /// Puts the device into the running guest, its service started before if need be. Returns
    /// when the monitor has it.
    async fn attach(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::Attach).await
    }

    /// Takes the device out of the running guest. Returns when the guest has let go of it.
    async fn detach(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.ask(connection, &header, Command::Detach).await
    }

    /// The virtio feature bits that the device offers, and those that the driver acknowledged (0
    /// before it did): what the service tells, as `FeaturesOffered` and `FeaturesAcknowledged`.
    async fn get_features(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> fdo::Result<(u64, u64)> {
        let features = async {
            let service = self.service(connection).await?;
            let offered = service.features_offered().await?;
            zbus::Result::Ok((offered, service.features_acknowledged().await?))
        };
        self.told(features).await
    }

    /// The counters of each virtqueue, by name, since the service started: `requests`,
    /// `completed`, `errors`, `bytes_read`, `bytes_written`, `kicks`, `signals`, `broken`, and the
    /// latencies as `latency_us_N`, the requests that took up to N microseconds and longer than
    /// the N before, with `latency_us_more` for those of more than a second. What the service
    /// tells, as `Statistics`.
    async fn get_statistics(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> fdo::Result<Vec<HashMap<String, u64>>> {
        let statistics = async { self.service(connection).await?.statistics().await };
        self.told(statistics).await
    }

    /// The guest's plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn guest(&self) -> &str {
        self.place.guest()
    }

    /// The device's plain name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        self.place.device()
    }

    /// Where the service is on the bus, at the same path as this object, while it runs. It has
    /// the interface `org.automotivelinux.Virtio1.Device`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn bus_name(&self) -> String {
        self.place.bus_name()
    }

    /// The device type, such as `snd`.
    #[zbus(property, name = "Type")]
    fn device_type(&self) -> fdo::Result<String> {
        Ok(self.status()?.device_type)
    }

    /// `stopped`, `starting`, `running`, `restarting` or `isolated` (it ended too often).
    #[zbus(property)]
    fn service_state(&self) -> fdo::Result<String> {
        Ok(self.status()?.state.word().to_owned())
    }

    /// The running guest has it.
    #[zbus(property)]
    fn attached(&self) -> fdo::Result<bool> {
        Ok(self.status()?.attached)
    }

    /// How often the manager has started it again. What the keeper did is in the service's own
    /// property of this name.
    #[zbus(property)]
    fn restarts(&self) -> fdo::Result<u32> {
        Ok(self.status()?.restarts)
    }

    /// Where its monitor connects.
    #[zbus(property)]
    fn socket(&self) -> fdo::Result<String> {
        Ok(self.status()?.socket.to_string_lossy().into_owned())
    }

    /// The keeper's process, or 0.
    #[zbus(property)]
    fn pid(&self) -> fdo::Result<u32> {
        Ok(self.status()?.pid)
    }

    /// Why it is not well; empty if it is.
    #[zbus(property)]
    fn reason(&self) -> fdo::Result<String> {
        Ok(self.status()?.reason)
    }

    /// Whether the guest's own self-test has found devices of this type to work: `passed`,
    /// `failed`, `outdated` (the report is of an earlier boot of the guest) or `untested`. See
    /// `RecordSelftest` of the guest.
    #[zbus(property)]
    fn conformance(&self) -> fdo::Result<String> {
        Ok(self.status()?.conformance.word().to_owned())
    }

    /// What the self-test said of devices of this type, in a sentence; empty if nothing.
    #[zbus(property)]
    fn conformance_report(&self) -> fdo::Result<String> {
        Ok(self.status()?.conformance_report)
    }
}
