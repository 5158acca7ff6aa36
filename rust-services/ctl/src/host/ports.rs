// SPDX-License-Identifier: Apache-2.0
//! The ports at which guests and services meet: sockets in one folder, and nothing on the network.

use super::{Finding, Verdict, finding};
use std::collections::HashSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Marks in /proc/net/unix a socket that listens (`__SO_ACCEPTCON`).
const LISTENS: u32 = 1 << 16;

/// Whether somebody listens at every socket of the folder. A guest that connects to one which nobody
/// serves has no device.
pub(super) fn ports(folder: &Path) -> Finding {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    judge(folder, &listening(&table))
}

/// The paths of the sockets that listen, in the kernel's table.
fn listening(table: &str) -> HashSet<PathBuf> {
    table
        .lines()
        .filter_map(|line| {
            // Num RefCount Protocol Flags Type St Inode Path
            let mut words = line.split_ascii_whitespace();
            let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
            let path = words.nth(3)?;
            (flags & LISTENS != 0).then(|| PathBuf::from(path))
        })
        .collect()
}

fn judge(folder: &Path, listening: &HashSet<PathBuf>) -> Finding {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let (served, dead): (Vec<_>, Vec<_>) = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .partition(|path| listening.contains(path));
    let found = match dead.first() {
        None => format!(
            "sockets in {}: {}, somebody listens at each; none of the network is used",
            folder.display(),
            served.len()
        ),
        Some(first) => format!(
            "nobody listens at {}{}",
            first.display(),
            match dead.len() {
                1 => String::new(),
                count => format!(" and {} more", count.saturating_sub(1)),
            }
        ),
    };
    let remedy = "a guest has no device there: start the service (agl-virtioctl start \
                  GUEST/DEVICE, or its systemd socket), or remove what an earlier one has left";
    finding("ports", dead.is_empty(), Verdict::Warning, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_that_nobody_listens_at_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let served = UnixListener::bind(folder.path().join("ivi-card.sock")).unwrap();
        std::fs::write(folder.path().join("notes"), "").unwrap();
        let all = ports(folder.path());
        assert_eq!(all.verdict, Verdict::Ok, "{all:?}");
        assert!(all.found.contains(": 1, somebody listens"), "{all:?}");
        drop(served);
        let one = ports(folder.path());
        assert_eq!(one.verdict, Verdict::Warning);
        assert!(one.found.ends_with("ivi-card.sock"), "{one:?}");
        drop(UnixListener::bind(folder.path().join("ivi-bus.sock")).unwrap());
        assert!(ports(folder.path()).found.ends_with("and 1 more"));
    }

    #[test]
    fn a_host_without_the_folder_has_no_port_that_is_missing() {
        assert_eq!(ports(Path::new("/nowhere")).verdict, Verdict::Ok);
    }
}
