// SPDX-License-Identifier: Apache-2.0
//! The guests' files: which there are, who may have written them, and what an earlier manager kept
//! of them.

use crate::definition::Definition;
use crate::guest::Surroundings;
use agl_virtio_service::config::{Diagnostic, is_name};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a folder, sorted by name.
pub(super) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "toml")
    });
    files.sort();
    Ok(files)
}

/// Whether a file may say what is started: whoever writes it runs programs as the manager's user.
/// If not, what is wrong and what to do.
pub(super) fn trusted(file: &Path) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    match std::fs::metadata(file) {
        Ok(found) => judge(file, &found, own),
        Err(error) => Err(fault(file, &error.to_string(), "a file, or none")),
    }
}

fn judge(file: &Path, found: &Metadata, own: u32) -> Result<(), String> {
    let name = file.display();
    if !found.is_file() {
        // A pipe would be waited for, for ever.
        return Err(fault(file, "this is no file", "a guest's file, or none"));
    }
    if ![0, own].contains(&found.uid()) {
        let what = format!("this is user {}'s, who so starts programs", found.uid());
        return Err(fault(
            file,
            &what,
            &format!("nothing, but: chown {own} {name}"),
        ));
    }
    if found.mode() & 0o002 != 0 {
        let what = "everybody may write this, and so start programs";
        return Err(fault(
            file,
            what,
            &format!("nothing, but: chmod o-w {name}"),
        ));
    }
    Ok(())
}

fn fault(file: &Path, what: &str, remedy: &str) -> String {
    let fault = Diagnostic {
        message: format!("{}: {what}", file.display()),
        remedy: remedy.to_owned(),
        place: None,
    };
    fault.to_string()
}

/// The guests of which something runs that an earlier manager started, as the copies of their
/// files say that it kept.
pub(super) fn left_running(folder: &Path, around: &Surroundings) -> Vec<Definition> {
    let Ok(entries) = std::fs::read_dir(around.guests()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_name(&name) || !crate::guest::is_noted(&entry.path()) {
            continue;
        }
        let copy = entry.path().join(format!("{name}.toml"));
        let definition = std::fs::read_to_string(&copy)
            .map_err(|error| error.to_string())
            .and_then(|source| {
                let file = folder.join(format!("{name}.toml"));
                Definition::parse(&file, source).map_err(|error| error.to_string())
            });
        match definition {
            Ok(definition) => found.push(definition),
            Err(error) => log::error!("{}: {error}: what runs is left alone", copy.display()),
        }
    }
    found
}

/// Two guests cannot listen on one socket: the later ones, with what to do about it.
pub(super) fn sockets_used_twice(
    definitions: &[Arc<Definition>],
    around: &Surroundings,
) -> Vec<(String, String)> {
    let mut used: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for definition in definitions {
        for device in &definition.devices {
            let socket = device
                .socket
                .clone()
                .unwrap_or_else(|| around.socket(&definition.name, &device.name));
            let place = format!("{}/{}", definition.name, device.name);
            if let Some(other) = used.insert(socket.clone(), place.clone()) {
                let what = format!(
                    "{place} and {other} listen on the same socket {}",
                    socket.display()
                );
                let remedy = "another socket = \"/path\" for one of them";
                let fault = fault(&definition.file, &what, remedy);
                faults.push((definition.name.clone(), fault));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_may_write_or_that_is_none_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ivi.toml");
        fs::write(&file, "").unwrap();
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o664);
        trusted(&file).unwrap();
        mode(0o666);
        let text = trusted(&file).unwrap_err();
        assert!(
            text.contains("chmod o-w") && text.contains("ivi.toml"),
            "{text}"
        );

        mode(0o600);
        let own = fs::metadata(&file).unwrap();
        let stranger = own.uid().wrapping_add(1);
        let verdict = judge(&file, &own, stranger);
        if own.uid() == 0 {
            verdict.unwrap();
        } else {
            assert!(verdict.unwrap_err().contains("chown"));
        }
        assert!(trusted(folder.path()).unwrap_err().contains("no file"));
        let none = folder.path().join("none.toml");
        assert!(trusted(&none).unwrap_err().contains("none.toml"));
    }
}
