// SPDX-License-Identifier: Apache-2.0
//! Virtual machine monitors: what each needs to run a guest as its file says.
//!
//! An adapter turns a [`Plan`] into a [`Launch`], a pure function: what would be started can be
//! shown, compared and tested without starting it.

mod crosvm;
pub mod front_end;
mod loopback;
mod qemu;
pub mod qmp;
mod words;
mod xen;

pub use qemu::{device_properties, port_id};

use crate::definition::{Attachment, Definition, VmmKind};
use front_end::FrontEnd;
use std::path::PathBuf;

/// A device as the monitor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDevice {
    /// The device's name.
    pub name: String,
    /// Its type's front end.
    pub front_end: &'static FrontEnd,
    /// The socket that its service, or rather the keeper, listens on.
    pub socket: PathBuf,
    /// How it is attached.
    pub attachment: Attachment,
}

/// All that a launch depends on.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// What the guest is to be.
    pub definition: &'a Definition,
    /// The devices that are there from the start.
    pub devices: Vec<PlannedDevice>,
    /// The guest's own folder for sockets and generated files.
    pub folder: PathBuf,
}

impl Plan<'_> {
    /// Where the monitor's control socket is.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.folder.join("control")
    }
}

/// A file that the monitor reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub content: String,
}

/// How to start a monitor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments; empty where there is no process.
    pub command: Vec<String>,
    /// Files to be written before.
    pub files: Vec<GeneratedFile>,
}

/// How a running monitor is controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// By QEMU's monitor protocol on [`Plan::control_socket`].
    Qmp,
    /// By commands of its own.
    Commands,
    /// Not at all: there is no virtual machine.
    None,
}

/// What a running guest can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The power button.
    PowerDown,
    /// The reset button.
    Reset,
    /// Stop all processors.
    Pause,
    /// Let them run on.
    Resume,
}

/// Why a guest cannot be run by a monitor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VmmError {
    /// The monitor has no front end.
    #[error(
        "{vmm} has no front end for the device {device} of type {device_type}: run the guest with qemu, or leave the device out"
    )]
    NoFrontEnd {
        /// The monitor.
        vmm: &'static str,
        /// The device.
        device: String,
        /// Its type.
        device_type: &'static str,
    },
    /// The monitor cannot do what the file says.
    #[error("{vmm} cannot have {what}: {remedy}")]
    Cannot {
        /// The monitor.
        vmm: &'static str,
        /// What the file says.
        what: &'static str,
        /// What to write instead.
        remedy: &'static str,
    },
}

/// A virtual machine monitor.
pub trait Vmm: Send + Sync {
    /// Its name, as people write it.
    fn name(&self) -> &'static str;

    /// How it is controlled.
    fn control(&self) -> Control;

    /// How to start the guest.
    ///
    /// # Errors
    /// What of the plan the monitor cannot do.
    fn launch(&self, plan: &Plan<'_>) -> Result<Launch, VmmError>;

    /// The command that asks a running guest, for [`Control::Commands`]; nothing where the
    /// monitor cannot.
    fn command(&self, plan: &Plan<'_>, request: Request) -> Option<Vec<String>>;
}

/// The adapter of a kind of monitor.
#[must_use]
pub fn of(kind: VmmKind) -> &'static dyn Vmm {
    match kind {
        VmmKind::Qemu => &qemu::Qemu,
        VmmKind::Crosvm => &crosvm::Crosvm,
        VmmKind::Xen => &xen::Xen,
        VmmKind::Loopback => &loopback::Loopback,
    }
}

/// The program to run: what the file names, or the usual one.
fn program(definition: &Definition, usual: String) -> String {
    definition
        .guest
        .program
        .as_ref()
        .map_or(usual, |path| path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
