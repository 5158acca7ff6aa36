// SPDX-License-Identifier: Apache-2.0
//! Runs the example daemon and a private bus as processes of their own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of tests fails the test"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Generous: no test fails because a machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const NAME: &str = "org.automotivelinux.Virtio1.Device.guest.idle";
pub const PATH: &str = "/org/automotivelinux/Virtio1/guests/guest/idle";
pub const KNOB_PATH: &str = "/org/automotivelinux/Virtio1/guests/guest/idle/knob";
pub const DEVICE: &str = "org.automotivelinux.Virtio1.Device";
pub const KNOB: &str = "org.automotivelinux.Virtio1.Knob";

/// The example, which cargo builds together with the tests.
pub fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/idle");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build -p agl-virtio-service --examples` first",
        path.display()
    );
    path
}

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

/// A daemon and what it says.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Daemon {
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(Command::new(example()).args(arguments))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            said: Vec::new(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with this text.
    pub fn says(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("it did not say {text:?} but:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Everything it said so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        until("the end of the daemon", || self.child.try_wait().unwrap())
    }

    /// One field of the main thread's /proc status.
    pub fn status_field(&self, name: &str) -> String {
        status_field(&format!("/proc/{}/status", self.id()), name)
    }

    /// One field of the status of the thread of this name.
    pub fn thread_field(&self, thread: &str, name: &str) -> String {
        let folder = until(&format!("a thread {thread}"), || {
            fs::read_dir(format!("/proc/{}/task", self.id()))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .find(|path| {
                    fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == thread)
                })
        });
        status_field(folder.join("status").to_str().unwrap(), name)
    }
}

fn status_field(file: &str, name: &str) -> String {
    let status = fs::read_to_string(file).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{file} has no {name}"))
        .trim()
        .to_owned()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a byte and gets it back: the daemon serves.
pub fn echo(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"x")?;
    let mut back = [0];
    stream.read_exact(&mut back)?;
    assert_eq!(back, *b"x");
    Ok(())
}

pub fn echoes(socket: &Path) {
    until("an answer on the socket", || echo(socket).ok());
}

/// A dbus-daemon of our own on a socket in a folder of our own.
pub struct PrivateBus {
    folder: PathBuf,
    process: Option<Child>,
}

impl PrivateBus {
    pub fn start(folder: &Path) -> Self {
        let mut bus = Self {
            folder: folder.to_owned(),
            process: None,
        };
        // Others than us may connect, so that refusals can be tested.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let configuration = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>{}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>"#,
            bus.address()
        );
        fs::write(folder.join("bus.conf"), configuration).unwrap();
        bus.restart();
        bus
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.join("bus").display())
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.stop();
        let socket = self.folder.join("bus");
        let _ = fs::remove_file(&socket);
        let process = Command::new("dbus-daemon")
            .arg(format!(
                "--config-file={}",
                self.folder.join("bus.conf").display()
            ))
            .arg("--nofork")
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start dbus-daemon ({error}): install the package dbus-daemon")
            });
        self.process = Some(process);
        until("the bus", || UnixStream::connect(&socket).ok());
    }

    /// A connection of ours.
    pub async fn connect(&self) -> zbus::Connection {
        zbus::connection::Builder::address(self.address().as_str())
            .unwrap()
            .build()
            .await
            .unwrap()
    }

    /// What a person with this user number gets when setting the volume.
    pub fn set_volume_as(&self, user: u32, volume: u32) -> Output {
        let mut command = Command::new("dbus-send");
        command
            .arg(format!("--bus={}", self.address()))
            .args(["--print-reply", &format!("--dest={NAME}"), KNOB_PATH])
            .args([
                "org.freedesktop.DBus.Properties.Set",
                &format!("string:{KNOB}"),
            ])
            .args(["string:Volume", &format!("variant:uint32:{volume}")]);
        if user != rustix::process::geteuid().as_raw() {
            command.uid(user);
        }
        command.output().unwrap_or_else(|error| {
            panic!("cannot run dbus-send ({error}): install the package dbus-bin")
        })
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.stop();
    }
}
