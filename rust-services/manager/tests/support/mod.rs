// SPDX-License-Identifier: Apache-2.0
//! A manager on a bus of its own, with the policy file that is shipped.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of tests fails the test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Generous: no test fails because a machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Somebody who is neither root nor in any of our groups.
pub const NOBODY: u32 = 65_534;
pub const NAME: &str = "org.automotivelinux.Virtio1";
pub const ROOT: &str = "/org/automotivelinux/Virtio1";
pub const GUEST: &str = "/org/automotivelinux/Virtio1/guests/ivi";

/// Asks again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        // Between two looks at something that cannot be waited for.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Scene {
    pub folder: tempfile::TempDir,
    pub manager: Running,
    bus: Running,
}

impl Scene {
    /// A bus as the system's is, which denies what no file allows, and a manager with these
    /// guests.
    pub fn start(guests: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let files = folder.path().join("guests.d");
        fs::create_dir(&files).unwrap();
        for (name, text) in guests {
            fs::write(files.join(format!("{name}.toml")), text).unwrap();
        }
        // A service whose tables are all in order. Nobody starts it.
        let service = folder.path().join("programs/agl-virtio-snd");
        fs::create_dir(folder.path().join("programs")).unwrap();
        fs::write(&service, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&service, fs::Permissions::from_mode(0o755)).unwrap();
        let policy = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../meta-agl-virtio/recipes-virt/agl-virtio/files")
            .join("org.automotivelinux.Virtio1.conf");
        assert!(policy.exists(), "{} is missing", policy.display());
        let configuration = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
  <policy user="root">
    <allow own="org.freedesktop.PolicyKit1"/>
  </policy>
  <include>{}</include>
</busconfig>"#,
            folder.path().join("bus").display(),
            policy.display()
        );
        fs::write(folder.path().join("bus.conf"), configuration).unwrap();
        let bus = Command::new("dbus-daemon")
            .arg(format!(
                "--config-file={}",
                folder.path().join("bus.conf").display()
            ))
            .arg("--nofork")
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start dbus-daemon ({error}): install the package dbus-daemon")
            });
        let bus = Running(bus);
        until("the bus", || {
            UnixStream::connect(folder.path().join("bus")).ok()
        });
        let manager = Self::manager(folder.path());
        let scene = Self {
            folder,
            manager,
            bus,
        };
        until("the manager on the bus", || {
            scene.guests().status.success().then_some(())
        });
        scene
    }

    fn manager(folder: &Path) -> Running {
        let path = |name: &str| folder.join(name);
        let child = Command::new(env!("CARGO_BIN_EXE_agl-virtiod"))
            .arg("--guests")
            .arg(path("guests.d"))
            .arg("--runtime")
            .arg(path("run"))
            .arg("--bus")
            .arg(format!("unix:path={}", path("bus").display()))
            .arg("--programs")
            .arg(path("programs"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Running(child)
    }

    /// Ends the manager as a crash does, and starts another one.
    pub fn crash(&mut self) {
        self.manager.0.kill().unwrap();
        self.manager.0.wait().unwrap();
        self.manager = Self::manager(self.folder.path());
        until("the new manager on the bus", || {
            self.guests().status.success().then_some(())
        });
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("bus").display())
    }

    pub fn file(&self, guest: &str) -> PathBuf {
        self.folder.path().join(format!("guests.d/{guest}.toml"))
    }

    /// A call as this user.
    pub fn call(&self, user: u32, path: &str, method: &str, words: &[&str]) -> Output {
        let mut command = Command::new("dbus-send");
        command
            .arg(format!("--bus={}", self.address()))
            .args(["--print-reply", "--reply-timeout=60000"])
            .arg(format!("--dest={NAME}"))
            .args([path, method])
            .args(words);
        if user != rustix::process::geteuid().as_raw() {
            command.uid(user);
        }
        command.output().unwrap_or_else(|error| {
            panic!("cannot run dbus-send ({error}): install the package dbus-bin")
        })
    }

    fn guests(&self) -> Output {
        let own = rustix::process::geteuid().as_raw();
        self.get(own, ROOT, "org.automotivelinux.Virtio1.Manager", "Guests")
    }

    pub fn get(&self, user: u32, path: &str, interface: &str, property: &str) -> Output {
        let words = [format!("string:{interface}"), format!("string:{property}")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.call(user, path, "org.freedesktop.DBus.Properties.Get", &words)
    }

    /// The text of a guest's property.
    pub fn of_guest(&self, property: &str) -> String {
        let own = rustix::process::geteuid().as_raw();
        let interface = "org.automotivelinux.Virtio1.Guest";
        let output = self.get(own, GUEST, interface, property);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // The line before is the message's own.
        text.split_once('\n')
            .map_or(text.clone(), |(_, value)| value.to_owned())
    }
}
