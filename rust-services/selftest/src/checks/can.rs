// SPDX-License-Identifier: Apache-2.0

//! CAN controllers, with the usual programs.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Outcome, devices};
use crate::options::Options;
use crate::system::{System, file_name, run};

/// The kernel's type of a CAN interface (ARPHRD_CAN).
const ARPHRD_CAN: &str = "280";
/// A number that no car's network uses for anything: the last of the standard ones, which gives way to all others.
const FRAME: &str = "7FF#5E1F7E57";
const PATIENCE: Duration = Duration::from_secs(30);

fn sent(system: &System, interface: &Path) -> u64 {
    let count = system.read(&interface.join("statistics/tx_packets"));
    count.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Whether the device says that a frame has gone.
pub(super) fn sends(system: &System, _: &Options) -> Outcome {
    if let Err(outcome) = devices::of_type(system, "can") {
        return outcome;
    }
    let interfaces = system.entries(&system.path("sys/class/net"));
    let is_ours = |folder: &&PathBuf| {
        system.read(&folder.join("type")).as_deref() == Some(ARPHRD_CAN)
            && system.virtio_parent(folder).is_some()
    };
    let Some(interface) = interfaces.iter().find(is_ours) else {
        return Outcome::failed("the driver has made no interface: see the kernel's log");
    };
    let name = file_name(interface);
    // An interface that is up already stays as it is.
    if let Err(error) = run("ip", &["link", "set", &name, "up"], &[]) {
        return error.into();
    }
    let before = sent(system, interface);
    if let Err(error) = run("cansend", &[&name, FRAME], &[]) {
        return error.into();
    }
    let end = Instant::now().checked_add(PATIENCE);
    while sent(system, interface) == before {
        if end.is_none_or(|end| Instant::now() > end) {
            return Outcome::failed(format!(
                "{name} has not sent {FRAME} within {} s: does anybody hear it?",
                PATIENCE.as_secs()
            ));
        }
        // The counter is a file: nothing tells when it changes.
        thread::sleep(Duration::from_millis(20));
    }
    Outcome::passed(format!("{name} sent {FRAME}"))
}
