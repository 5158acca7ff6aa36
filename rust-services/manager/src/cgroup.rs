// SPDX-License-Identifier: Apache-2.0
//! Limits of guests where no systemd keeps them: a control group for each guest (cgroups(7),
//! version 2), where the manager may make some.

use crate::definition::Limits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The period over which processor time is limited, in microseconds: the kernel's own.
const PERIOD: u64 = 100_000;

/// Where the manager makes a group for each guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGroups {
    base: PathBuf,
}

impl ControlGroups {
    /// The groups below this one, or below the manager's own one.
    ///
    /// # Errors
    /// Why the manager can make none there.
    pub fn find(base: Option<&Path>) -> io::Result<Self> {
        if let Some(base) = base {
            return Self::at(base);
        }
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let own = own.ok_or_else(|| io::Error::other("no control groups of version 2"))?;
        Self::at(&Path::new(ROOT).join(own))
    }

    fn at(base: &Path) -> io::Result<Self> {
        let there = fs::read_to_string(base.join("cgroup.controllers"))?;
        for controller in ["memory", "cpu"] {
            if !there.split_whitespace().any(|word| word == controller) {
                let reason = format!("{} has no controller {controller}", base.display());
                return Err(io::Error::other(reason));
            }
        }
        fs::write(base.join("cgroup.subtree_control"), "+memory +cpu")?;
        Ok(Self {
            base: base.to_owned(),
        })
    }

    /// A guest's group.
    #[must_use]
    pub fn of(&self, guest: &str) -> PathBuf {
        self.base.join(format!("machine-{guest}"))
    }

    /// What a guest may use, with all that belongs to it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn limit(&self, guest: &str, limits: &Limits) -> io::Result<()> {
        let group = self.of(guest);
        match fs::create_dir(&group) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        for (file, value) in files(limits) {
            fs::write(group.join(file), value)?;
        }
        Ok(())
    }

    /// The command that starts another one within a guest's group: whatever it starts is there
    /// from its first moment on.
    #[must_use]
    pub fn within(&self, guest: &str, command: &[String]) -> Vec<String> {
        let script = "echo 0 >\"$0\" && exec \"$@\"";
        let entry = self.of(guest).join("cgroup.procs");
        let mut words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        words.push(entry.to_string_lossy().into_owned());
        words.extend_from_slice(command);
        words
    }
}

/// A guest's limits as the kernel reads them.
fn files(limits: &Limits) -> [(&'static str, String); 3] {
    let none = || "max".to_owned();
    let memory = limits.memory.map(|size| size.in_bytes().to_string());
    let share = limits.cpu_percent.map(|percent| {
        let time = u64::from(percent).saturating_mul(PERIOD) / 100;
        format!("{time} {PERIOD}")
    });
    [
        ("memory.max", memory.unwrap_or_else(none)),
        ("cpu.weight", limits.cpu_weight.unwrap_or(100).to_string()),
        ("cpu.max", share.unwrap_or_else(none)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Size;

    /// A folder that looks like a group with these controllers.
    fn group(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        folder
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them_and_lifted_where_there_are_none() {
        let folder = group("cpuset cpu io memory pids\n");
        let groups = ControlGroups::at(folder.path()).unwrap();
        let given = Limits {
            memory: Some(Size::mebibytes(64)),
            cpu_weight: Some(50),
            cpu_percent: Some(150),
        };
        let read = |name: &str| fs::read_to_string(groups.of("ivi").join(name)).unwrap();
        groups.limit("ivi", &given).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("cpu.weight"), "50");
        assert_eq!(read("cpu.max"), "150000 100000");
        groups.limit("ivi", &Limits::default()).unwrap();
        assert_eq!(read("memory.max"), "max");
        assert_eq!(read("cpu.weight"), "100");
        assert_eq!(read("cpu.max"), "max");
    }

    #[test]
    fn a_program_is_in_its_group_before_it_begins() {
        let folder = group("cpu memory");
        let groups = ControlGroups::at(folder.path()).unwrap();
        groups.limit("ivi", &Limits::default()).unwrap();
        let entry = groups.of("ivi").join("cgroup.procs");
        let command = ["cat".to_owned(), entry.to_string_lossy().into_owned()];
        let words = groups.within("ivi", &command);
        let output = std::process::Command::new(&words[0])
            .args(&words[1..])
            .output();
        assert_eq!(output.unwrap().stdout, b"0\n");
    }

    #[test]
    fn a_group_without_the_controllers_is_refused_with_the_reason() {
        let folder = group("cpu pids");
        let error = ControlGroups::at(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no controller memory"), "{error}");
        assert!(ControlGroups::at(Path::new("/nowhere")).is_err());
    }
}
