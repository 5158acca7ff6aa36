// SPDX-License-Identifier: Apache-2.0
//! crosvm: a command line for `crosvm run`, and its control socket by its own commands.
//!
//! Options and not a file: crosvm's `--cfg` was experimental, and is gone since November 2025.

use super::{Control, Launch, Plan, Request, Vmm, VmmError, program};
use crate::definition::{Accelerator, Boot, Serial};
use std::path::Path;

pub(super) struct Crosvm;

const NAME: &str = "crosvm";

impl Vmm for Crosvm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn control(&self) -> Control {
        Control::Commands
    }

    fn launch(&self, plan: &Plan<'_>) -> Result<Launch, VmmError> {
        Ok(Launch {
            command: command_line(plan)?,
            files: Vec::new(),
        })
    }

    fn command(&self, plan: &Plan<'_>, request: Request) -> Option<Vec<String>> {
        let word = match request {
            Request::PowerDown => "powerbtn",
            Request::Pause => "suspend",
            Request::Resume => "resume",
            Request::Reset => return None,
        };
        Some(vec![
            program(plan.definition, NAME.to_owned()),
            word.to_owned(),
            plan.control_socket().to_string_lossy().into_owned(),
        ])
    }
}

fn command_line(plan: &Plan<'_>) -> Result<Vec<String>, VmmError> {
    let guest = &plan.definition.guest;
    let boot = &guest.boot;
    if guest.machine.accelerator == Accelerator::Tcg {
        return Err(cannot(
            "emulated processors",
            "write accelerator = \"kvm\", or vmm = \"qemu\"",
        ));
    }
    if boot.device_tree.is_some() {
        return Err(cannot(
            "a device tree of its own",
            "leave device_tree out, or give overlays by arguments",
        ));
    }
    let mut words = vec![program(plan.definition, NAME.to_owned()), "run".to_owned()];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("name", plan.definition.name.clone());
    option("socket", path(&plan.control_socket()));
    option("cpus", format!("num-cores={}", guest.cpus));
    if !guest.pinning.is_empty() {
        option("cpu-affinity", affinity(&guest.pinning));
    }
    option("mem", format!("size={}", guest.memory.in_mebibytes()));
    for (index, port) in guest.serial.iter().enumerate() {
        option("serial", serial(index, port)?);
    }
    for disk in &guest.disks {
        let file = quoted(&disk.path);
        option("block", format!("path={file},ro={}", disk.read_only));
    }
    for device in &plan.devices {
        let Some(word) = device.front_end.crosvm else {
            return Err(VmmError::NoFrontEnd {
                vmm: NAME,
                device: device.name.clone(),
                device_type: device.front_end.device_type,
            });
        };
        let socket = quoted(&device.socket);
        option("vhost-user", format!("type={word},socket={socket}"));
    }
    boot_from(boot, &mut option);
    words.extend(guest.arguments.iter().cloned());
    // The one word without an option.
    words.extend(boot.kernel.iter().map(|kernel| path(kernel)));
    Ok(words)
}

fn cannot(what: &'static str, remedy: &'static str) -> VmmError {
    VmmError::Cannot {
        vmm: NAME,
        what,
        remedy,
    }
}

/// `0=2:1=2,3`: the host's processors for each of the guest's.
fn affinity(pinning: &[Vec<u16>]) -> String {
    let pairs = pinning.iter().enumerate().map(|(cpu, set)| {
        let set: Vec<String> = set.iter().map(u16::to_string).collect();
        format!("{cpu}={}", set.join(","))
    });
    pairs.collect::<Vec<String>>().join(":")
}

fn serial(index: usize, port: &Serial) -> Result<String, VmmError> {
    let (kind, file) = match port {
        Serial::File(file) => ("file", file),
        Serial::Connect(file) => ("unix-stream,input-unix-stream=true", file),
        Serial::Listen(_) => {
            return Err(cannot(
                "a serial port that listens",
                "write file = \"/path\" or connect = \"/path\"",
            ));
        }
    };
    let number = index.saturating_add(1);
    let console = if index == 0 { ",console=true" } else { "" };
    let file = quoted(file);
    Ok(format!(
        "hardware=serial,num={number},type={kind},path={file}{console}"
    ))
}

fn boot_from(boot: &Boot, option: &mut impl FnMut(&str, String)) {
    for (name, file) in [("initrd", &boot.initrd), ("bios", &boot.firmware)] {
        if let Some(file) = file {
            option(name, path(file));
        }
    }
    if !boot.append.is_empty() {
        option("params", boot.append.clone());
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A path among an option's keys: between quotes a comma or a bracket ends nothing.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+".contains(c);
    if text.chars().all(plain) {
        return text.into_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
