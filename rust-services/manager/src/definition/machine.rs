// SPDX-License-Identifier: Apache-2.0
//! The machine that a guest finds itself in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Instruction set of the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Architecture {
    /// 64-bit Arm.
    #[default]
    #[serde(rename = "aarch64")]
    Aarch64,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Architecture {
    /// As it is in the names of QEMU's programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        }
    }
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// KVM where the host has it for this architecture, else emulation.
    #[default]
    Auto,
    /// The host's processor, by KVM.
    Kvm,
    /// Emulation, as on a development machine.
    Tcg,
}

/// What the machine is like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// Instruction set.
    pub architecture: Architecture,
    /// The monitor's name of the machine; default: `virt`, on x86 `q35`.
    pub model: Option<String>,
    /// The monitor's name of the processor; default: `host` under KVM, else `max`.
    pub processor: Option<String>,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Options of the machine, such as `gic-version = "3"`.
    pub options: BTreeMap<String, String>,
}

/// What the machine starts: a kernel, or firmware that finds one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Boot {
    /// Kernel image.
    pub kernel: Option<PathBuf>,
    /// First file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub append: String,
    /// Device tree, where the monitor's own does not do.
    pub device_tree: Option<PathBuf>,
    /// Firmware image.
    pub firmware: Option<PathBuf>,
}

/// How a disk image is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// As it is.
    #[default]
    Raw,
    /// QEMU's own, which grows.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's and Xen's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Image or block device.
    pub path: PathBuf,
    /// How it is laid out.
    #[serde(default)]
    pub format: DiskFormat,
    /// The guest cannot write to it.
    #[serde(default)]
    pub read_only: bool,
}

/// Where a serial port goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Serial {
    /// Into this file.
    File(PathBuf),
    /// To whoever connects to this socket.
    Listen(PathBuf),
    /// To whoever listens on this socket.
    Connect(PathBuf),
}
