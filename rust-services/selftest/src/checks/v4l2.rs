// SPDX-License-Identifier: Apache-2.0

//! Video nodes of virtio devices, and V4L2's own program.

use super::Outcome;
use crate::system::{ProgramError, System, file_name, run};

const TOOL: &str = "v4l2-ctl";

/// A video node of the guest.
pub(super) struct Node {
    /// `/dev/video0`.
    device: String,
    /// What its driver calls it.
    pub(super) name: String,
}

impl Node {
    /// Runs `v4l2-ctl` on this node.
    pub(super) fn control(&self, words: &[&str]) -> Result<Vec<u8>, ProgramError> {
        let all: Vec<_> = ["-d", &self.device]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        run(TOOL, &all, &[]).map(|(output, _)| output)
    }
}

/// The nodes of the virtio devices that this driver has; an outcome to end with when there is no such device, or no node.
pub(super) fn nodes(system: &System, device: &str, driver: &str) -> Result<Vec<Node>, Outcome> {
    let mut devices = system.virtio_devices();
    devices.retain(|found| found.driver.as_deref() == Some(driver));
    if devices.is_empty() {
        return Err(Outcome::skipped(format!(
            "this guest has no {device} device with a driver"
        )));
    }
    let folders = system.entries(&system.path("sys/class/video4linux"));
    let ours = folders.iter().filter(|folder| {
        system
            .virtio_parent(folder)
            .is_some_and(|parent| devices.iter().any(|device| device.name == parent))
    });
    let nodes: Vec<_> = ours
        .map(|folder| Node {
            device: format!("/dev/{}", file_name(folder)),
            name: system.read(&folder.join("name")).unwrap_or_default(),
        })
        .collect();
    if nodes.is_empty() {
        return Err(Outcome::failed(
            "the driver has made no video node: see the kernel's log",
        ));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_node_is_found_by_the_driver_of_its_device() {
        let root = tempfile::tempdir().unwrap();
        let system = System::at(root.path());
        assert!(matches!(
            nodes(&system, "media", "virtio_media"),
            Err(Outcome::Skipped { .. })
        ));

        let device = root.path().join("sys/bus/virtio/devices/virtio3");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("device"), "0x0030\n").unwrap();
        fs::write(device.join("features"), "").unwrap();
        symlink(
            "../../../../bus/virtio/drivers/virtio_media",
            device.join("driver"),
        )
        .unwrap();
        assert!(matches!(
            nodes(&system, "media", "virtio_media"),
            Err(Outcome::Failed { .. })
        ));

        let node = root.path().join("sys/class/video4linux/video0");
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("name"), "Rear camera\n").unwrap();
        symlink(&device, node.join("device")).unwrap();
        let found = nodes(&system, "media", "virtio_media").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].device, "/dev/video0");
        assert_eq!(found[0].name, "Rear camera");
        assert!(nodes(&system, "video", "virtio_video").is_err());
    }
}
