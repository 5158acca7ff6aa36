// SPDX-License-Identifier: Apache-2.0
//! Xen: a domain configuration for `xl create`.
//!
//! Xen's toolstack describes a virtio device that something outside of it serves; xen-vhost-frontend
//! (or QEMU) maps the guest's memory and speaks vhost-user to the service's socket.

use super::{Control, GeneratedFile, Launch, Plan, Request, Vmm, VmmError, program};
use crate::definition::{Accelerator, Serial};
use std::fmt::Write;

pub(super) struct Xen;

const NAME: &str = "Xen";
/// Disks are told apart by a letter.
const LETTERS: usize = 26;

impl Vmm for Xen {
    fn name(&self) -> &'static str {
        NAME
    }

    fn control(&self) -> Control {
        Control::Commands
    }

    fn launch(&self, plan: &Plan<'_>) -> Result<Launch, VmmError> {
        let file = plan.folder.join("xl.cfg");
        let content = configuration(plan)?;
        let mut command = vec![
            program(plan.definition, "xl".to_owned()),
            "create".to_owned(),
            // In the foreground: it ends when the domain ends.
            "-F".to_owned(),
            file.to_string_lossy().into_owned(),
        ];
        command.extend(plan.definition.guest.arguments.iter().cloned());
        Ok(Launch {
            command,
            files: vec![GeneratedFile {
                path: file,
                content,
            }],
        })
    }

    fn command(&self, plan: &Plan<'_>, request: Request) -> Option<Vec<String>> {
        let word = match request {
            Request::PowerDown => "shutdown",
            Request::Reset => "reboot",
            Request::Pause => "pause",
            Request::Resume => "unpause",
        };
        Some(vec![
            program(plan.definition, "xl".to_owned()),
            word.to_owned(),
            plan.definition.name.clone(),
        ])
    }
}

fn configuration(plan: &Plan<'_>) -> Result<String, VmmError> {
    let guest = &plan.definition.guest;
    if guest.machine.accelerator == Accelerator::Tcg {
        return Err(VmmError::Cannot {
            vmm: NAME,
            what: "emulated processors",
            remedy: "leave accelerator out, or write vmm = \"qemu\"",
        });
    }
    if !guest
        .serial
        .iter()
        .all(|port| matches!(port, Serial::File(_)))
        || guest.serial.len() > 1
    {
        return Err(VmmError::Cannot {
            vmm: NAME,
            what: "such serial ports",
            remedy: "leave serial out and use xl console, or write one file = \"/path\"",
        });
    }
    if guest.disks.len() > LETTERS {
        return Err(VmmError::Cannot {
            vmm: NAME,
            what: "so many disks",
            remedy: "write 26 at most",
        });
    }
    let disks = guest.disks.iter().map(|disk| disk.path.to_string_lossy());
    let files = [
        &guest.boot.kernel,
        &guest.boot.initrd,
        &guest.boot.device_tree,
        &guest.boot.firmware,
    ];
    let files = files
        .into_iter()
        .flatten()
        .map(|file| file.to_string_lossy());
    let append = std::iter::once(guest.boot.append.as_str().into());
    if disks
        .chain(files)
        .chain(append)
        .any(|text| text.contains('"') && text.contains('\''))
    {
        return Err(VmmError::Cannot {
            vmm: NAME,
            what: "a text with quotes and apostrophes",
            remedy: "leave one kind of them out",
        });
    }
    let mut text =
        String::from("# Written by agl-virtiod from the guest's file: change that one.\n");
    let mut line = |key: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    line("name", quoted(&plan.definition.name));
    line("memory", guest.memory.in_mebibytes().to_string());
    line("vcpus", guest.cpus.to_string());
    if !guest.pinning.is_empty() {
        line(
            "cpus",
            list(guest.pinning.iter().map(|set| {
                let set: Vec<String> = set.iter().map(u16::to_string).collect();
                quoted(&set.join(","))
            })),
        );
    }
    let boot = &guest.boot;
    for (key, path) in [
        ("kernel", &boot.kernel),
        ("ramdisk", &boot.initrd),
        ("device_tree", &boot.device_tree),
        ("firmware_override", &boot.firmware),
    ] {
        if let Some(path) = path {
            line(key, quoted(&path.to_string_lossy()));
        }
    }
    if !boot.append.is_empty() {
        line("extra", quoted(&boot.append));
    }
    // What happens at the end is the manager's to decide.
    for key in ["on_poweroff", "on_crash"] {
        line(key, quoted("destroy"));
    }
    line("on_reboot", quoted("restart"));
    if !guest.disks.is_empty() {
        line(
            "disk",
            list(guest.disks.iter().zip('a'..='z').map(|(disk, letter)| {
                let access = if disk.read_only { "ro" } else { "rw" };
                quoted(&format!(
                    "format={},vdev=xvd{letter},access={access},target={}",
                    disk.format.word(),
                    disk.path.display()
                ))
            })),
        );
    }
    if !plan.devices.is_empty() {
        line(
            "virtio",
            list(plan.devices.iter().map(|device| {
                quoted(&format!(
                    "backend=Domain-0,type=virtio,device{:x},transport=mmio",
                    device.front_end.virtio_id
                ))
            })),
        );
    }
    for device in &plan.devices {
        let _ = writeln!(
            text,
            "# {}: vhost-user at {}",
            device.name,
            device.socket.display()
        );
    }
    Ok(text)
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    format!("[ {} ]", items.join(", "))
}

/// xl takes no escapes: a text with quotes goes between apostrophes. One with both was refused.
fn quoted(text: &str) -> String {
    if text.contains('"') {
        format!("'{text}'")
    } else {
        format!("\"{text}\"")
    }
}
