// SPDX-License-Identifier: Apache-2.0
//! How a guest is started, and what its file says; with a file, without the manager.

use crate::actions::guest_of;
use crate::error::CtlError;
use crate::{say, say_json};
use agl_virtio_client::zbus::Connection;
use agl_virtio_manager::definition::Definition;
use agl_virtio_manager::vmm::{self, Plan, PlannedDevice, front_end};
use std::path::{Path, PathBuf};

/// The runtime folder of a manager that was started without options.
const RUNTIME: &str = "/run/agl-virtio";

pub(crate) async fn guest(
    bus: &Connection,
    name: &str,
    command: bool,
    json: bool,
) -> Result<(), CtlError> {
    let guest = guest_of(bus, name).await?;
    if !command {
        let text = guest.get_definition().await?;
        if json {
            return say_json(&serde_json::json!({ "guest": name, "definition": text }));
        }
        return say(&text);
    }
    words(&guest.get_command().await?, json)
}

/// What would be started for a file, with the manager's usual folders.
pub(crate) fn file(file: &Path, json: bool) -> Result<(), CtlError> {
    let definition = read(file)?;
    let runtime = Path::new(RUNTIME);
    let devices = definition.devices.iter().filter_map(|device| {
        let attachment = definition.attachment(&device.name);
        let usual = runtime.join(format!("{}-{}.sock", definition.name, device.name));
        (!attachment.manual).then_some(PlannedDevice {
            name: device.name.clone(),
            front_end: front_end::of(device)?,
            socket: device.socket.clone().unwrap_or(usual),
            attachment,
        })
    });
    let plan = Plan {
        devices: devices.collect(),
        folder: runtime.join("guests").join(&definition.name),
        definition: &definition,
    };
    let launch = vmm::of(definition.guest.vmm)
        .launch(&plan)
        .map_err(|error| CtlError::Files(error.to_string()))?;
    if json {
        let files = launch
            .files
            .iter()
            .map(|file| serde_json::json!({ "path": file.path, "content": file.content }));
        let files: Vec<_> = files.collect();
        return say_json(&serde_json::json!({ "command": launch.command, "files": files }));
    }
    for generated in &launch.files {
        say(&format!(
            "# {}\n{}",
            generated.path.display(),
            generated.content
        ))?;
    }
    words(&launch.command, false)
}

pub(crate) fn check_files(files: &[PathBuf], json: bool) -> Result<(), CtlError> {
    let mut faults = Vec::new();
    let mut verdicts = Vec::new();
    for file in files {
        let fault = Definition::read(file).err().map(|error| error.to_string());
        if fault.is_none() && !json {
            say(&format!("{}: in order\n", file.display()))?;
        }
        verdicts.push(serde_json::json!({ "file": file, "fault": fault }));
        faults.extend(fault);
    }
    if json {
        say_json(&verdicts)?;
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(CtlError::Files(faults.join("\n\n")))
    }
}

fn read(file: &Path) -> Result<Definition, CtlError> {
    Definition::read(file).map_err(|error| CtlError::Files(error.to_string()))
}

fn words(command: &[String], json: bool) -> Result<(), CtlError> {
    if json {
        return say_json(&command);
    }
    say(&format!("{}\n", shell_line(command)))
}

/// A command line that a shell takes, an option and its value on each line.
fn shell_line(command: &[String]) -> String {
    let mut text = String::new();
    for (index, word) in command.iter().enumerate() {
        if index > 0 {
            text.push_str(if word.starts_with('-') {
                " \\\n    "
            } else {
                " "
            });
        }
        text.push_str(&quoted(word));
    }
    text
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_given_to_a_shell() {
        let words = ["qemu", "-append", "console=ttyAMA0 it's", "-name", ""].map(str::to_owned);
        assert_eq!(
            shell_line(&words),
            "qemu \\\n    -append 'console=ttyAMA0 it'\\''s' \\\n    -name ''"
        );
    }
}
