// SPDX-License-Identifier: Apache-2.0
//! Who starts processes and knows how they ended: systemd, or the manager itself.
//!
//! What follows an end is decided by the guest's task in both cases, so that the states are the
//! same ones.

use crate::cgroup::ControlGroups;
use crate::definition::{Definition, Limits};
use crate::process::{Ending, Process, last_words};
use crate::systemd::units::{self, DeviceUnit, Reach};
use crate::systemd::{Monitor, Systemd};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixDatagram;

/// How the end of a process is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How.
    pub ending: Ending,
    /// The last lines that it wrote.
    pub words: String,
}

/// A guest or a device of it, as far as supervision goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervised {
    /// Its unit.
    unit: String,
    /// Its log, without systemd.
    log: PathBuf,
}

/// A device that was started.
#[derive(Debug)]
pub struct Started {
    /// The keeper.
    pub process: Process,
    /// Where it says that it serves.
    pub readiness: Readiness,
}

/// Where a device says that it serves.
#[derive(Debug)]
pub enum Readiness {
    /// The manager listens (sd_notify(3)).
    Notify(UnixDatagram),
    /// systemd does.
    Unit(Arc<Systemd>, String),
}

impl Readiness {
    /// Waits. Whether it serves.
    pub async fn wait(self) -> bool {
        match self {
            Self::Unit(systemd, unit) => systemd.is_ready(&unit).await,
            Self::Notify(socket) => {
                let mut buffer = [0; 512];
                while let Ok(length) = socket.recv(&mut buffer).await {
                    let said = buffer.get(..length).unwrap_or_default();
                    if said
                        .split(|byte| *byte == b'\n')
                        .any(|line| line == b"READY=1")
                    {
                        return true;
                    }
                }
                false
            }
        }
    }
}

/// A device's keeper, to be.
#[derive(Debug)]
pub struct Keeper<'a> {
    /// The device as a unit.
    pub unit: DeviceUnit<'a>,
    /// The folder in which it works.
    pub folder: &'a Path,
    /// Its log, without systemd.
    pub log: &'a Path,
}

/// Who supervises.
#[derive(Debug, Clone)]
pub enum Supervision {
    /// The manager, with a control group for each guest where it may make some, or the reason why
    /// it may not.
    Own(Result<ControlGroups, String>),
    /// systemd.
    Systemd(Arc<Systemd>),
}

impl Supervision {
    /// The manager itself, with control groups below this one, or below its own.
    #[must_use]
    pub fn own(groups: Option<&Path>) -> Self {
        Self::Own(ControlGroups::find(groups).map_err(|error| error.to_string()))
    }

    /// systemd.
    #[must_use]
    pub fn systemd() -> Self {
        Self::Systemd(Arc::default())
    }

    /// A guest's monitor, as it is called here.
    #[must_use]
    pub fn monitor(&self, guest: &str, log: PathBuf) -> Supervised {
        let unit = units::monitor(guest);
        Supervised { unit, log }
    }

    /// A device's keeper, as it is called here.
    #[must_use]
    pub fn keeper(&self, guest: &str, device: &str, of_type: &str, log: PathBuf) -> Supervised {
        let unit = units::device(of_type, guest, device);
        Supervised { unit, log }
    }

    /// The unit's name, where there are units.
    #[must_use]
    pub fn unit(&self, supervised: &Supervised) -> String {
        match self {
            Self::Own(_) => String::new(),
            Self::Systemd(_) => supervised.unit.clone(),
        }
    }

    /// Starts a keeper.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_keeper(&self, keeper: &Keeper<'_>, limits: &Limits) -> io::Result<Started> {
        match self {
            Self::Systemd(systemd) => {
                self.limit(keeper.unit.guest, limits).await;
                let process = systemd.start_device(&keeper.unit).await?;
                let readiness = Readiness::Unit(Arc::clone(systemd), keeper.unit.name());
                Ok(Started { process, readiness })
            }
            Self::Own(_) => {
                let _ = std::fs::remove_file(keeper.log);
                let notify = keeper.log.with_extension("notify");
                let _ = std::fs::remove_file(&notify);
                let socket = UnixDatagram::bind(&notify)?;
                let command = self
                    .limited(keeper.unit.guest, limits, keeper.unit.command)
                    .await;
                let environment = [("NOTIFY_SOCKET", notify.as_path())];
                let process = Process::start(&command, &environment, keeper.folder, keeper.log)?;
                let readiness = Readiness::Notify(socket);
                Ok(Started { process, readiness })
            }
        }
    }

    /// Starts a guest's monitor.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_monitor(
        &self,
        definition: &Definition,
        command: &[String],
        folder: &Path,
        log: &Path,
    ) -> io::Result<Process> {
        let (guest, limits) = (definition.name.as_str(), &definition.guest.limits);
        match self {
            Self::Systemd(systemd) => {
                self.limit(guest, limits).await;
                let description = definition.guest.description.as_str();
                let monitor = Monitor {
                    guest,
                    description,
                    command,
                    folder,
                    reach: Reach::of(&definition.guest, folder),
                };
                let process = systemd.start_monitor(&monitor).await?;
                systemd.register_machine(guest, process.id()).await;
                Ok(process)
            }
            Self::Own(_) => {
                let _ = std::fs::remove_file(log);
                let command = self.limited(guest, limits, command).await;
                Process::start(&command, &[], folder, log)
            }
        }
    }

    /// What was started by an earlier manager is this one's now.
    pub async fn adopt(&self, supervised: &Supervised) {
        if let Self::Systemd(systemd) = self {
            systemd.hold(&supervised.unit).await;
        }
    }

    /// Waits for a process to end, and learns how.
    ///
    /// # Errors
    /// The process cannot be watched.
    pub async fn end(&self, process: &Process, supervised: &Supervised) -> io::Result<End> {
        let ending = process.ended().await?;
        Ok(match (self, ending) {
            (Self::Systemd(systemd), Ending::Unknown) => {
                let (ending, words) = systemd.ending(&supervised.unit).await;
                End { ending, words }
            }
            _ => End {
                ending,
                words: last_words(&supervised.log),
            },
        })
    }

    /// A guest does not run any more.
    pub async fn monitor_ended(&self, guest: &str) {
        if let Self::Systemd(systemd) = self {
            systemd.unregister_machine(guest).await;
        }
    }

    /// Sets what a guest may use, from now on. Why that cannot be is in the log.
    pub async fn limit(&self, guest: &str, limits: &Limits) {
        let set = match self {
            Self::Systemd(systemd) => systemd.limit(guest, limits).await,
            Self::Own(Ok(groups)) => groups.limit(guest, limits),
            Self::Own(Err(_)) if *limits == Limits::default() => Ok(()),
            Self::Own(Err(reason)) => Err(io::Error::other(reason.clone())),
        };
        if let Err(error) = set {
            log::warn!("{guest}: its limits are not in force: {error}");
        }
    }

    /// A command within a guest's limits, where it has some.
    async fn limited(&self, guest: &str, limits: &Limits, command: &[String]) -> Vec<String> {
        let group = match self {
            Self::Own(Ok(groups)) => Some(groups),
            Self::Own(Err(_)) | Self::Systemd(_) => None,
        };
        if *limits == Limits::default() {
            return command.to_vec();
        }
        self.limit(guest, limits).await;
        match group {
            Some(groups) if groups.of(guest).is_dir() => groups.within(guest, command),
            _ => command.to_vec(),
        }
    }
}
