// SPDX-License-Identifier: Apache-2.0
//! The note of what runs, from which the next manager finds it again.

use super::{Selftest, replace_file};
use crate::definition::Guest;
use crate::process::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FILE: &str = "running.json";

/// A running device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedDevice {
    pub(super) keeper: Identity,
    /// The running guest has it.
    pub(super) attached: bool,
    /// The hot plug slot that it is in.
    pub(super) slot: Option<u8>,
    pub(super) restarts: u32,
}

/// A guest that runs, or whose devices do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) vmm: Option<Identity>,
    /// With what the monitor was started.
    pub(super) started_as: Option<Guest>,
    pub(super) started_usec: u64,
    pub(super) restarts: u32,
    pub(super) exit_reason: String,
    /// It ended too often before the manager did.
    pub(super) isolated: bool,
    pub(super) devices: BTreeMap<String, SavedDevice>,
    /// What the guest's self-test has found. Managers before this one noted none.
    #[serde(default)]
    pub(super) selftest: Option<Selftest>,
}

impl Saved {
    /// What an earlier manager noted; nothing where there is no note, or none that can be read.
    pub(super) fn read(folder: &Path) -> Self {
        let Ok(text) = std::fs::read_to_string(folder.join(FILE)) else {
            return Self::default();
        };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            log::error!(
                "{}: {error}: what ran before is not found again",
                folder.join(FILE).display()
            );
            Self::default()
        })
    }

    /// Writes the note. Whether that was possible.
    pub(super) fn write(&self, folder: &Path) -> bool {
        let written = serde_json::to_string_pretty(self)
            .map_err(std::io::Error::other)
            .and_then(|text| replace_file(&folder.join(FILE), &text));
        if let Err(error) = &written {
            log::error!(
                "{}: {error}: a manager that is started now would not find all that runs; \
                 this is tried again",
                folder.join(FILE).display()
            );
        }
        written.is_ok()
    }
}

/// Whether an earlier manager noted in this folder that something of its guest runs.
pub(crate) fn is_noted(folder: &Path) -> bool {
    let saved = Saved::read(folder);
    saved.vmm.is_some() || !saved.devices.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_a_torn_one_is_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let saved = Saved {
            restarts: 3,
            exit_reason: "crash".to_owned(),
            started_as: Some(Guest::default()),
            ..Saved::default()
        };
        assert_eq!(Saved::read(folder.path()), Saved::default());
        assert!(saved.write(folder.path()));
        assert_eq!(Saved::read(folder.path()), saved);
        std::fs::write(folder.path().join(FILE), "{ \"vmm\": {").unwrap();
        assert_eq!(Saved::read(folder.path()), Saved::default());
        assert!(!saved.write(Path::new("/nowhere")));
    }
}
