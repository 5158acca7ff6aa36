// SPDX-License-Identifier: Apache-2.0
//! crosvm: a configuration for `crosvm run --cfg`, and its control socket by its own commands.

use super::{Control, GeneratedFile, Launch, Plan, Request, Vmm, VmmError, program};
use crate::definition::{Accelerator, Serial};
use serde_json::{Value, json};

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
        let configuration = configuration(plan)?;
        let file = plan.folder.join("crosvm.json");
        // The alternate form ends every line alike and is easy to read; it cannot fail on a Value.
        let content = format!("{configuration:#}\n");
        let mut command = vec![
            program(plan.definition, NAME.to_owned()),
            "run".to_owned(),
            "--cfg".to_owned(),
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

fn configuration(plan: &Plan<'_>) -> Result<Value, VmmError> {
    let guest = &plan.definition.guest;
    if guest.machine.accelerator == Accelerator::Tcg {
        return Err(VmmError::Cannot {
            vmm: NAME,
            what: "emulated processors",
            remedy: "write accelerator = \"kvm\", or vmm = \"qemu\"",
        });
    }
    let mut vhost_user = Vec::new();
    for device in &plan.devices {
        let Some(word) = device.front_end.crosvm else {
            return Err(VmmError::NoFrontEnd {
                vmm: NAME,
                device: device.name.clone(),
                device_type: device.front_end.device_type,
            });
        };
        vhost_user.push(json!({ "type": word, "socket": device.socket }));
    }
    let mut serial = Vec::new();
    for (index, port) in guest.serial.iter().enumerate() {
        let mut entry = json!({
            "hardware": "serial",
            "num": index.saturating_add(1),
            "console": index == 0,
        });
        let (kind, path) = match port {
            Serial::File(path) => ("file", path),
            Serial::Connect(path) => ("unix-stream", path),
            Serial::Listen(_) => {
                return Err(VmmError::Cannot {
                    vmm: NAME,
                    what: "a serial port that listens",
                    remedy: "write file = \"/path\" or connect = \"/path\"",
                });
            }
        };
        insert(&mut entry, "type", json!(kind));
        insert(&mut entry, "path", json!(path));
        serial.push(entry);
    }
    let block: Vec<Value> = guest
        .disks
        .iter()
        .map(|disk| json!({ "path": disk.path, "ro": disk.read_only }))
        .collect();
    let mut configuration = json!({
        "name": plan.definition.name,
        "cpus": { "num-cores": guest.cpus },
        "mem": { "size": guest.memory.in_mebibytes() },
        "socket": plan.control_socket(),
        "serial": serial,
        "block": block,
        "vhost-user": vhost_user,
    });
    if !guest.pinning.is_empty() {
        let pairs: Vec<String> = guest
            .pinning
            .iter()
            .enumerate()
            .map(|(cpu, set)| {
                let set: Vec<String> = set.iter().map(u16::to_string).collect();
                format!("{cpu}={}", set.join(","))
            })
            .collect();
        insert(&mut configuration, "cpu-affinity", json!(pairs.join(":")));
    }
    let boot = &guest.boot;
    for (key, path) in [
        ("kernel", &boot.kernel),
        ("initrd", &boot.initrd),
        ("bios", &boot.firmware),
    ] {
        if let Some(path) = path {
            insert(&mut configuration, key, json!(path));
        }
    }
    if !boot.append.is_empty() {
        insert(&mut configuration, "params", json!([boot.append]));
    }
    if boot.device_tree.is_some() {
        return Err(VmmError::Cannot {
            vmm: NAME,
            what: "a device tree of its own",
            remedy: "leave device_tree out, or give overlays by arguments",
        });
    }
    Ok(configuration)
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}
