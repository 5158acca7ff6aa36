// SPDX-License-Identifier: Apache-2.0
//! Guests and devices as units of systemd, within a slice for each guest, and guests as machines
//! of systemd-machined.
//!
//! systemd starts the processes, keeps their limits and sandboxes and tells how they ended. What
//! follows an end is decided by the guest's task, in the same way as without systemd.

mod proxies;
pub mod units;

use crate::definition::Limits;
use crate::process::{Ending, Process, last_lines};
use agl_virtio_service::bus::connect;
use agl_virtio_service::cli::BusChoice;
use futures_lite::StreamExt;
use proxies::{MachinesProxy, ManagerProxy, Property, ServiceProxy, UnitProxy};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::sync::Mutex;
use units::{DeviceUnit, Reach};
use zbus::Connection;
use zbus::proxy::CacheProperties;
use zbus::zvariant::Value;

/// systemd answers within this time, whatever it has to do.
const ANSWER: Duration = Duration::from_secs(25);
/// A process that is to start has one by then.
const START: Duration = Duration::from_secs(30);
/// What a process said last is in the journal by then.
const WORDS: Duration = Duration::from_secs(5);
/// So long after a process has ended its unit says so.
const END: Duration = Duration::from_secs(60);

/// Whether this process is a unit of a systemd that is the host's first process.
#[must_use]
pub fn runs_us() -> bool {
    // sd_booted(3), and systemd.exec(5) on what units find in their environment.
    Path::new("/run/systemd/system").is_dir() && std::env::var_os("INVOCATION_ID").is_some()
}

/// A monitor's process, to be.
#[derive(Debug)]
pub struct Monitor<'a> {
    /// The guest.
    pub guest: &'a str,
    /// What the guest is, for people.
    pub description: &'a str,
    /// Program and arguments.
    pub command: &'a [String],
    /// Where it works.
    pub folder: &'a Path,
    /// What of the host it has beyond what all monitors have.
    pub reach: Reach,
}

/// systemd, on the system bus.
#[derive(Debug, Default)]
pub struct Systemd {
    /// Made when it is first needed, and again after the bus was restarted.
    connection: Mutex<Option<Connection>>,
}

impl Systemd {
    async fn connection(&self) -> zbus::Result<Connection> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            let bus = zbus::fdo::DBusProxy::new(connection).await?;
            if bus.get_id().await.is_ok() {
                return Ok(connection.clone());
            }
        }
        let connection = connect(&BusChoice::System, ANSWER).await?;
        // Without this it tells nobody of changes.
        ManagerProxy::new(&connection).await?.subscribe().await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Starts a device's unit. Its end is told by [`Systemd::ending`].
    ///
    /// # Errors
    /// What systemd said.
    pub async fn start_device(&self, unit: &DeviceUnit<'_>) -> io::Result<Process> {
        unit.write()?;
        let name = unit.name();
        let start = async {
            let connection = self.connection().await?;
            let manager = ManagerProxy::new(&connection).await?;
            let held = unit_of(&connection, &name).await?;
            held.hold().await?;
            if held.need_daemon_reload().await? {
                manager.reload().await?;
            }
            // One that never failed has nothing to forget.
            let _ = manager.reset_failed_unit(&name).await;
            manager.start_unit(&name, "replace").await?;
            main_process(&connection, &name).await
        };
        within(START, &name, start).await
    }

    /// Starts a guest's monitor as a unit of its own.
    ///
    /// # Errors
    /// What systemd said.
    pub async fn start_monitor(&self, monitor: &Monitor<'_>) -> io::Result<Process> {
        let name = units::monitor(monitor.guest);
        let Some(program) = monitor.command.first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let description = if monitor.description.is_empty() {
            format!("Guest {}", monitor.guest)
        } else {
            format!("Guest {}: {}", monitor.guest, monitor.description)
        };
        let field = format!("AGL_VIRTIO_GUEST={}", monitor.guest);
        let words: Vec<&str> = monitor.command.iter().map(String::as_str).collect();
        // Dollar signs are the guest's own.
        let command = vec![(program.as_str(), words, vec!["no-env-expand"])];
        let properties: Vec<Property<'_>> = vec![
            ("Description", Value::from(description)),
            ("Type", Value::from("exec")),
            ("ExecStartEx", Value::from(command)),
            (
                "WorkingDirectory",
                Value::from(monitor.folder.to_string_lossy().into_owned()),
            ),
            ("Slice", Value::from(units::slice(monitor.guest))),
            ("ReadWritePaths", Value::from(monitor.reach.folders.clone())),
            ("DeviceAllow", Value::from(monitor.reach.devices.clone())),
            ("LogExtraFields", Value::from(vec![field.into_bytes()])),
            // It stays until its end is known.
            ("AddRef", Value::from(true)),
        ];
        let start = async {
            let connection = self.connection().await?;
            let manager = ManagerProxy::new(&connection).await?;
            let _ = manager.reset_failed_unit(&name).await;
            manager
                .start_transient_unit(&name, "replace", &properties, &[])
                .await?;
            main_process(&connection, &name).await
        };
        within(START, &name, start).await
    }

    /// Keeps what is known of a unit that an earlier manager started.
    pub async fn hold(&self, name: &str) {
        let held = async {
            let connection = self.connection().await?;
            unit_of(&connection, name).await?.hold().await
        };
        if let Err(error) = held.await {
            log::debug!("{name}: {error}");
        }
    }

    /// Waits until a unit serves. Whether it does.
    pub async fn is_ready(&self, name: &str) -> bool {
        let ready = async {
            let connection = self.connection().await?;
            let unit = unit_of(&connection, name).await?;
            state(&unit, |state| state != "activating").await
        };
        match ready.await {
            Ok(state) => state == "active" || state == "reloading",
            Err(error) => {
                log::error!("{name}: {error}");
                false
            }
        }
    }

    /// How a unit's process ended, and its last words.
    pub async fn ending(&self, name: &str) -> (Ending, String) {
        let ended = async {
            let connection = self.connection().await?;
            let unit = unit_of(&connection, name).await?;
            let over = |state: &str| matches!(state, "inactive" | "failed");
            state(&unit, over).await?;
            let ending = how(&service_of(&connection, &unit).await?).await?;
            let invocation = unit.invocation_id().await?;
            let _ = ManagerProxy::new(&connection)
                .await?
                .reset_failed_unit(name)
                .await;
            let _ = unit.release().await;
            zbus::Result::Ok((ending, invocation))
        };
        match tokio::time::timeout(END, ended).await {
            Ok(Ok((ending, invocation))) => (ending, words(&invocation).await),
            Ok(Err(error)) => {
                log::warn!("{name}: how it ended is not known: {error}");
                (Ending::Unknown, String::new())
            }
            Err(_) => {
                log::warn!("{name}: how it ended is not known: systemd does not say");
                (Ending::Unknown, String::new())
            }
        }
    }

    /// What a guest may use, with all that belongs to it.
    ///
    /// # Errors
    /// What systemd said.
    pub async fn limit(&self, guest: &str, limits: &Limits) -> io::Result<()> {
        let slice = units::slice(guest);
        let set = async {
            let connection = self.connection().await?;
            let manager = ManagerProxy::new(&connection).await?;
            manager
                .set_unit_properties(&slice, true, &units::limits(limits))
                .await
        };
        within(ANSWER, &slice, set).await
    }

    /// Tells systemd-machined of a guest that runs. A host without it has no list of machines.
    pub async fn register_machine(&self, guest: &str, monitor: u32) {
        let register = async {
            let connection = self.connection().await?;
            let machines = MachinesProxy::new(&connection).await?;
            machines
                .register_machine(guest, &[], "agl-virtiod", "vm", monitor, "")
                .await
        };
        match register.await {
            Ok(_) => log::debug!("{guest}: known to systemd-machined"),
            // An earlier manager did it.
            Err(zbus::Error::MethodError(name, _, _)) if name.ends_with("MachineExists") => {}
            Err(error) => log::info!("{guest}: not known to systemd-machined: {error}"),
        }
    }

    /// It does not run any more.
    pub async fn unregister_machine(&self, guest: &str) {
        let unregister = async {
            let connection = self.connection().await?;
            let machines = MachinesProxy::new(&connection).await?;
            machines.unregister_machine(guest).await
        };
        // It notices by itself that a machine's unit is gone.
        if let Err(error) = unregister.await {
            log::debug!("{guest}: {error}");
        }
    }
}

/// The future's answer as an I/O error, or one that says that it took too long.
async fn within<T>(
    patience: Duration,
    name: &str,
    work: impl Future<Output = zbus::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(io::Error::other(format!("systemd: {name}: {error}"))),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("systemd: {name}: no answer"),
        )),
    }
}

async fn unit_of(connection: &Connection, name: &str) -> zbus::Result<UnitProxy<'static>> {
    let manager = ManagerProxy::new(connection).await?;
    let path = manager.load_unit(name).await?;
    UnitProxy::builder(connection).path(path)?.build().await
}

async fn service_of(
    connection: &Connection,
    unit: &UnitProxy<'_>,
) -> zbus::Result<ServiceProxy<'static>> {
    ServiceProxy::builder(connection)
        .path(unit.inner().path().to_owned())?
        // They change together with the state, which was waited for.
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Waits for a state that is wanted.
async fn state(unit: &UnitProxy<'_>, wanted: impl Fn(&str) -> bool) -> zbus::Result<String> {
    let mut changes = unit.receive_active_state_changed().await;
    loop {
        let state = unit.active_state().await?;
        if wanted(&state) || changes.next().await.is_none() {
            return Ok(state);
        }
    }
}

/// The main process of a unit that was told to start.
async fn main_process(connection: &Connection, name: &str) -> zbus::Result<Process> {
    let unit = unit_of(connection, name).await?;
    let service = ServiceProxy::builder(connection)
        .path(unit.inner().path().to_owned())?
        .build()
        .await?;
    let mut changes = service.receive_main_pid_changed().await;
    let mut states = unit.receive_active_state_changed().await;
    loop {
        let pid = service.main_pid().await?;
        if pid != 0 {
            return Ok(Process::open(pid)?);
        }
        let state = unit.active_state().await?;
        if state == "failed" {
            let result = service.result().await?;
            return Err(io::Error::other(format!("did not start: {result}")).into());
        }
        tokio::select! {
            _ = changes.next() => {}
            _ = states.next() => {}
        }
    }
}

async fn how(service: &ServiceProxy<'_>) -> zbus::Result<Ending> {
    let status = service.exec_main_status().await?;
    // CLD_EXITED, CLD_KILLED and CLD_DUMPED of waitid(2).
    Ok(
        match (
            service.result().await?.as_str(),
            service.exec_main_code().await?,
        ) {
            ("watchdog", _) => Ending::Watchdog,
            ("oom-kill", _) => Ending::OutOfMemory,
            (_, 1) => Ending::Code(status),
            (_, 2 | 3) => Ending::Signal(status),
            _ => Ending::Unknown,
        },
    )
}

/// The last lines that an invocation of a unit left in the journal.
async fn words(invocation: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut id = String::new();
    for byte in invocation {
        let _ = write!(id, "{byte:02x}");
    }
    let read = async {
        let journal = |words: &[&str]| {
            let mut command = tokio::process::Command::new("journalctl");
            command
                .args(words)
                .stdin(std::process::Stdio::null())
                .kill_on_drop(true);
            command
        };
        // What was just said may be on its way.
        let _ = journal(&["--sync"]).output().await;
        journal(&["--quiet", "--output=cat", "--lines=3"])
            .arg(format!("_SYSTEMD_INVOCATION_ID={id}"))
            .output()
            .await
    };
    match tokio::time::timeout(WORDS, read).await {
        Ok(Ok(output)) => last_lines(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(error)) => {
            log::debug!("journalctl: {error}");
            String::new()
        }
        Err(_) => String::new(),
    }
}
