// SPDX-License-Identifier: Apache-2.0
//! A guest at run time: one task that owns its processes and decides what happens to them.

mod actor;
mod call;
mod conformance;
mod device;
mod history;
mod hotplug;
mod machine;
mod power;
mod saved;
mod services;
mod status;

pub use actor::spawn;
pub use call::{Call, Command, GuestError, GuestHandle};
pub use conformance::{Conformance, Selftest, SelftestError};
pub(crate) use saved::is_noted;
pub use status::{DeviceStatus, GuestState, GuestStatus, ServiceState};

use crate::supervision::Supervision;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What all guests share.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Sockets, logs and notes of what runs; emptied by a reboot of the host.
    pub runtime: PathBuf,
    /// Where the keeper and the services are.
    pub programs: PathBuf,
    /// The services' `--bus`.
    pub bus: String,
    /// Who starts processes and knows how they ended.
    pub supervision: Supervision,
}

impl Surroundings {
    /// Where each guest has a folder. What is in it is believed: nobody else may write there.
    #[must_use]
    pub fn guests(&self) -> PathBuf {
        self.runtime.join("guests")
    }

    /// A guest's own folder.
    #[must_use]
    pub fn folder(&self, guest: &str) -> PathBuf {
        self.guests().join(guest)
    }

    /// The socket of a device whose file names none.
    #[must_use]
    pub fn socket(&self, guest: &str, device: &str) -> PathBuf {
        self.runtime.join(format!("{guest}-{device}.sock"))
    }

    /// One of our programs.
    #[must_use]
    pub fn program(&self, name: &str) -> String {
        self.programs.join(name).to_string_lossy().into_owned()
    }
}

/// Writes a file so that it is either the old or the new one, whatever happens. One that is as it
/// should be needs no room for another one: a guest starts again while a disk is full.
pub(crate) fn replace_file(path: &Path, content: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    // Who could read it can, and nobody else.
    let mode = std::fs::metadata(path).map_or(0o644, |old| old.permissions().mode());
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(content.as_bytes())?;
    std::fs::rename(&new, path)
}
