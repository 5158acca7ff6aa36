// SPDX-License-Identifier: Apache-2.0
//! Is this host able to run guests: each finding with what to do about it.

mod ports;

use crate::error::CtlError;
use crate::table::{Tone, colours, paint, width, wrap};
use crate::{say, say_json};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// No guest runs like this.
    No,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::No => "no",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) found: String,
    /// What to do; empty where nothing is to be done.
    pub(crate) remedy: &'static str,
}

/// Below the findings, right of the verdicts.
const INDENT: &str = "         ";

pub(crate) fn check(json: bool) -> Result<(), CtlError> {
    let findings = findings();
    if json {
        say_json(&findings)?;
    } else {
        let colours = colours();
        for finding in &findings {
            let word = format!("{:<8}", finding.verdict.word());
            let word = paint(&word, Tone::of_state(finding.verdict.word()), colours);
            let room = width().map(|width| width.saturating_sub(INDENT.len()));
            let found = format!("{}: {}", finding.what, finding.found);
            let lines = wrap(&found, room).join(&format!("\n{INDENT}"));
            say(&format!("{word} {lines}\n"))?;
            if !finding.remedy.is_empty() {
                for line in wrap(finding.remedy, room) {
                    say(&format!("{INDENT}{line}\n"))?;
                }
            }
        }
    }
    match findings
        .iter()
        .any(|finding| finding.verdict == Verdict::No)
    {
        true => Err(CtlError::NotAble),
        false => Ok(()),
    }
}

/// Everything that was found.
pub(crate) fn findings() -> Vec<Finding> {
    vec![
        kvm(),
        memfd(),
        vmm(),
        programs(),
        runtime(Path::new("/run/agl-virtio")),
        sticky(Path::new("/run/agl-virtio")),
        ports::ports(Path::new("/run/agl-virtio")),
        bus(),
        polkit(),
        landlock(),
        realtime(),
    ]
}

fn finding(
    what: &'static str,
    holds: bool,
    otherwise: Verdict,
    found: impl Into<String>,
    remedy: &'static str,
) -> Finding {
    Finding {
        what,
        verdict: if holds { Verdict::Ok } else { otherwise },
        found: found.into(),
        remedy: if holds { "" } else { remedy },
    }
}

fn kvm() -> Finding {
    let device = Path::new("/dev/kvm");
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device);
    let found = match &opened {
        Ok(_) => "/dev/kvm can be used".to_owned(),
        Err(error) => format!("/dev/kvm: {error}"),
    };
    let remedy = "guests are emulated, which is slow: enable virtualisation in the firmware, load \
                  the kvm module, and put the monitor's user into group kvm";
    finding(
        "hardware virtualisation",
        opened.is_ok(),
        Verdict::Warning,
        found,
        remedy,
    )
}

fn memfd() -> Finding {
    let made = rustix::fs::memfd_create("check", rustix::fs::MemfdFlags::ALLOW_SEALING);
    let found = match &made {
        Ok(_) => "memory can be shared by descriptor (memfd)".to_owned(),
        Err(error) => format!("memfd_create: {error}"),
    };
    let remedy = "services cannot map a guest's memory: the kernel needs CONFIG_MEMFD_CREATE";
    finding("memory backend", made.is_ok(), Verdict::No, found, remedy)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn vmm() -> Finding {
    let known = ["qemu-system-aarch64", "qemu-system-x86_64", "crosvm", "xl"];
    let found: Vec<String> = known
        .iter()
        .filter_map(|name| in_path(name))
        .map(|path| path.display().to_string())
        .collect();
    let remedy = "install QEMU 8.2 or later (sound: 9.0), crosvm or Xen, or name a program in \
                  each guest's file";
    let text = if found.is_empty() {
        "none in PATH".to_owned()
    } else {
        found.join(", ")
    };
    finding(
        "virtual machine monitor",
        !found.is_empty(),
        Verdict::Warning,
        text,
        remedy,
    )
}

fn programs() -> Finding {
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent);
    let missing: Vec<&str> = ["agl-virtiod", "agl-virtio-keeper"]
        .into_iter()
        .filter(|name| {
            let here = beside.is_some_and(|folder| folder.join(name).is_file());
            !here && in_path(name).is_none()
        })
        .collect();
    let found = if missing.is_empty() {
        "agl-virtiod and agl-virtio-keeper are there".to_owned()
    } else {
        format!("missing: {}", missing.join(", "))
    };
    let remedy = "install agl-virtio-manager and agl-virtio-keeper";
    finding("programs", missing.is_empty(), Verdict::No, found, remedy)
}

fn runtime(folder: &Path) -> Finding {
    use rustix::fs::{Access, access};
    let result = access(folder, Access::WRITE_OK | Access::EXEC_OK);
    let found = match result {
        Ok(()) => format!("{} can be written to", folder.display()),
        Err(error) => format!("{}: {error}", folder.display()),
    };
    let remedy = "only the manager's user needs it: systemd-tmpfiles --create agl-virtio.conf \
                  makes it, and membership in group agl-virtio opens it";
    finding(
        "sockets' folder",
        result.is_ok(),
        Verdict::Warning,
        found,
        remedy,
    )
}

/// Whether services that may write to a folder can take away what is not theirs.
fn sticky(folder: &Path) -> Finding {
    let mode = std::fs::metadata(folder).map_or(0, |found| found.mode());
    let holds = mode & 0o022 == 0 || mode & 0o1000 != 0;
    let found = if holds {
        format!("nobody takes another's place in {}", folder.display())
    } else {
        format!(
            "services may take each other's places in {}",
            folder.display()
        )
    };
    let remedy = "a service that a guest has taken over could be another guest's device: chmod +t \
                  the folder, as systemd-tmpfiles --create agl-virtio.conf does";
    finding("sockets' owners", holds, Verdict::Warning, found, remedy)
}

fn bus() -> Finding {
    let socket = Path::new("/run/dbus/system_bus_socket");
    let result = std::os::unix::net::UnixStream::connect(socket);
    let found = match &result {
        Ok(_) => "the system bus answers".to_owned(),
        Err(error) => format!("{}: {error}", socket.display()),
    };
    let remedy =
        "start dbus-daemon or dbus-broker; guests run without, but nobody can ask for them";
    finding(
        "message bus",
        result.is_ok(),
        Verdict::Warning,
        found,
        remedy,
    )
}

fn polkit() -> Finding {
    let file = Path::new("/usr/share/polkit-1/actions/org.automotivelinux.virtio1.policy");
    let found = if file.exists() {
        "the action org.automotivelinux.virtio1.manage is known"
    } else {
        "the action org.automotivelinux.virtio1.manage is not known"
    };
    let remedy = "only root can change something: install polkit and agl-virtio-common";
    finding("rights", file.exists(), Verdict::Warning, found, remedy)
}

fn landlock() -> Finding {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let has = modules.split(',').any(|module| module.trim() == "landlock");
    let found = if has {
        "landlock confines the services"
    } else {
        "no landlock: services confine themselves by seccomp only"
    };
    let remedy = "Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and landlock in lsm=";
    finding("sandbox", has, Verdict::Warning, found, remedy)
}

fn realtime() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Rtprio);
    let allowed = limit.current.is_none_or(|most| most > 0) || rustix::process::geteuid().is_root();
    let found = if allowed {
        "SCHED_FIFO is allowed"
    } else {
        "SCHED_FIFO is not allowed"
    };
    let remedy = "sound may stutter under load: LimitRTPRIO=40 in the service's unit, or rtprio in \
                  limits.conf";
    finding("real time", allowed, Verdict::Warning, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_ok_says_what_to_do() {
        for finding in findings() {
            assert_eq!(
                finding.verdict == Verdict::Ok,
                finding.remedy.is_empty(),
                "{finding:?}"
            );
            assert!(!finding.found.is_empty());
        }
        assert_eq!(runtime(Path::new("/nowhere")).verdict, Verdict::Warning);
        assert_eq!(memfd().verdict, Verdict::Ok);
        let folder = tempfile::tempdir().unwrap();
        for (mode, verdict) in [
            (0o755, Verdict::Ok),
            (0o2770, Verdict::Warning),
            (0o3770, Verdict::Ok),
        ] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(folder.path(), mode).unwrap();
            assert_eq!(sticky(folder.path()).verdict, verdict);
        }
    }
}
