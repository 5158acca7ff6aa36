// SPDX-License-Identifier: Apache-2.0
//! What others see of a guest.

use super::Conformance;
use crate::definition::{Definition, VmmKind};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How far a guest is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GuestState {
    /// It does not run.
    #[default]
    Stopped,
    /// Its devices or its monitor start.
    Starting,
    /// It runs.
    Running,
    /// Its processors are stopped.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It ended by itself and will be started again soon.
    Restarting,
    /// It ended by itself too often, and stays so until somebody starts it.
    Isolated,
    /// It ended by itself, and its policy does not start it again.
    Failed,
}

impl GuestState {
    /// The word on the bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Isolated => "isolated",
            Self::Failed => "failed",
        }
    }
}

/// How far a device's service is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceState {
    /// It does not run.
    #[default]
    Stopped,
    /// It comes up.
    Starting,
    /// It serves.
    Running,
    /// It ended and will be started again soon.
    Restarting,
    /// It ended too often, and stays so until somebody starts it.
    Isolated,
}

impl ServiceState {
    /// The word on the bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Isolated => "isolated",
        }
    }
}

/// A device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its type, such as `snd`.
    pub device_type: String,
    /// How far its service is.
    pub state: ServiceState,
    /// The running guest has it.
    pub attached: bool,
    /// How often the manager started it again.
    pub restarts: u32,
    /// Where its monitor connects.
    pub socket: PathBuf,
    /// The keeper's process, or 0.
    pub pid: u32,
    /// Why it is not well; empty if it is.
    pub reason: String,
    /// Whether the guest's self-test has found it to work.
    pub conformance: Conformance,
    /// What the self-test said of it, in a sentence; empty if nothing.
    pub conformance_report: String,
}

/// A guest.
#[derive(Debug, Clone)]
pub struct GuestStatus {
    /// What its file says.
    pub definition: Arc<Definition>,
    /// How far it is.
    pub state: GuestState,
    /// When it started, in microseconds since 1970, or 0.
    pub started_usec: u64,
    /// Why it ended last; empty while it runs for the first time.
    pub exit_reason: String,
    /// How often the manager started it again.
    pub restarts: u32,
    /// Its file has changes that come into force when it starts next.
    pub changes_pending: bool,
    /// The monitor's process, or 0.
    pub pid: u32,
    /// Its devices, by name.
    pub devices: BTreeMap<String, DeviceStatus>,
    /// The monitor's command line, or what keeps it from having one.
    pub command: Result<Vec<String>, String>,
}

impl GuestStatus {
    /// The monitor's name.
    #[must_use]
    pub fn vmm(&self) -> &'static str {
        match self.definition.guest.vmm {
            VmmKind::Qemu => "qemu",
            VmmKind::Crosvm => "crosvm",
            VmmKind::Xen => "xen",
            VmmKind::Loopback => "loopback",
        }
    }
}
