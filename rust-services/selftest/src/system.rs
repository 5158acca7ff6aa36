// SPDX-License-Identifier: Apache-2.0

//! The guest: what its kernel says in sysfs, and programs that are run in it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A virtio device that the kernel has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VirtioDevice {
    /// The kernel's name, such as `virtio2`.
    pub(crate) name: String,
    /// The device ID of the specification, section 5.
    pub(crate) id: u16,
    /// The driver that has it.
    pub(crate) driver: Option<String>,
}

/// Why a program of the guest did not do what it is for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{program} is not in this guest: install it")]
    Missing { program: String },
    #[error("{program} cannot be started or read: {source}")]
    Io { program: String, source: io::Error },
    #[error("{program} has not ended after {seconds} s")]
    Hangs { program: String, seconds: u64 },
    #[error("{program} ended with {status}: {said}")]
    Failed {
        program: String,
        status: String,
        said: String,
    },
}

/// Where the kernel's files are; tests have a folder of their own.
#[derive(Debug)]
pub(crate) struct System {
    root: PathBuf,
}

/// A device that does not answer must not stop the whole test. Far more than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

impl System {
    pub(crate) fn of_this_machine() -> Self {
        Self::at(Path::new("/"))
    }

    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// A file or folder by its path from the root, without a leading slash.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file's text, without white space around it.
    pub(crate) fn read(&self, path: &Path) -> Option<String> {
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    }

    /// What is in a folder, in order; nothing if there is no folder.
    pub(crate) fn entries(&self, path: &Path) -> Vec<PathBuf> {
        let Ok(folder) = fs::read_dir(path) else {
            return Vec::new();
        };
        let mut paths: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    /// All virtio devices.
    pub(crate) fn virtio_devices(&self) -> Vec<VirtioDevice> {
        let folders = self.entries(&self.path("sys/bus/virtio/devices"));
        let device = |folder: &PathBuf| {
            let text = self.read(&folder.join("device"))?;
            let id = u16::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
            let driver = fs::read_link(folder.join("driver")).ok();
            Some(VirtioDevice {
                name: file_name(folder),
                id,
                driver: driver.as_deref().map(file_name),
            })
        };
        folders.iter().filter_map(device).collect()
    }

    /// The virtio device that a device of a class (a sound card, a network interface) belongs to, by its kernel name.
    pub(crate) fn virtio_parent(&self, class_device: &Path) -> Option<String> {
        let real = fs::canonicalize(class_device.join("device")).ok()?;
        let parent = real.ancestors().find(|folder| {
            file_name(folder).starts_with("virtio") && folder.join("features").exists()
        })?;
        Some(file_name(parent))
    }
}

/// The last part of a path.
pub(crate) fn file_name(path: impl AsRef<Path>) -> String {
    let name = path.as_ref().file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Runs a program with this input, and waits for it: its output, and how long it took.
pub(crate) fn run(
    program: &str,
    arguments: &[&str],
    input: &[u8],
) -> Result<(Vec<u8>, Duration), ProgramError> {
    let named = || program.to_owned();
    let io_error = |source| ProgramError::Io {
        program: named(),
        source,
    };
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing { program: named() },
            _ => io_error(error),
        })?;
    let stdin = child.stdin.take();
    let process = child.id();
    let (ended, wait) = std::sync::mpsc::channel();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A program that has failed does not read: its exit status says more than a broken pipe.
            let _ = stdin.map(|mut pipe| pipe.write_all(input));
        });
        scope.spawn(move || {
            if wait.recv_timeout(PATIENCE).is_err() {
                let _ = Command::new("kill")
                    .args(["-KILL", &process.to_string()])
                    .status();
            }
        });
        let output = child.wait_with_output();
        let _ = ended.send(());
        output
    });
    let took = began.elapsed();
    let Output {
        status,
        stdout,
        stderr,
    } = output.map_err(io_error)?;
    if took >= PATIENCE {
        return Err(ProgramError::Hangs {
            program: named(),
            seconds: PATIENCE.as_secs(),
        });
    }
    if status.success() {
        Ok((stdout, took))
    } else {
        let said = String::from_utf8_lossy(&stderr);
        Err(ProgramError::Failed {
            program: named(),
            status: status.to_string(),
            said: said.trim().to_owned(),
        })
    }
}
