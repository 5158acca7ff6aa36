// SPDX-License-Identifier: Apache-2.0
//! A guest's configuration: one TOML file per guest, one table per device.
//!
//! ```toml
//! # /etc/agl-virtio/ivi.toml: the file's name is the guest's name
//! [devices.cabin-sound]            # any name of letters, digits, - and _
//! type = "snd"                     # which service: agl-virtio-snd
//! socket = "/run/agl-virtio/ivi-cabin-sound.sock"    # where the command line says nothing
//! # all other keys are the device's own
//! ```
//!
//! A table `[guest]` belongs to the manager ([`read_guest`]) and is left alone. Everything else is refused.
//! The file is read once, checked as a whole, and what is wrong with it is shown as a compiler
//! shows it: file, line, column, what is wrong, and what to write.

mod advice;
mod diagnostic;
mod guest_file;
mod problem;
mod typed;
mod whole_guest;

pub use diagnostic::Diagnostic;
pub use guest_file::{DeviceTable, Selection, parse, read, read_text};
pub(crate) use guest_file::{check_without_file, explain_problems};
pub use problem::{Problem, Problems, Validate};
pub use whole_guest::{DeviceEntry, GuestFile, parse_guest, read_guest};

use crate::{Exit, ExitReason};
use std::io::ErrorKind;
use std::path::PathBuf;

/// Longer files are no configuration. In bytes.
pub const LONGEST_FILE: u64 = 1024 * 1024;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "error: cannot read the configuration {file}: {source}; give --config the guest's TOML file"
    )]
    Unreadable {
        /// The file that was named.
        file: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error(
        "error: {0} is larger than 1 MiB, which no configuration is: name the guest's TOML file"
    )]
    TooLarge(PathBuf),
    /// Its contents are wrong in one or more places.
    #[error("{}", in_paragraphs(.0))]
    Faulty(Vec<Diagnostic>),
    /// It is right, but the host has not what it asks for.
    #[error("{}", in_paragraphs(.faults))]
    Host {
        /// What is missing or cannot be used.
        faults: Vec<Diagnostic>,
        /// The code for the first of it.
        exit: Exit,
    },
}

fn in_paragraphs(diagnostics: &[Diagnostic]) -> String {
    let texts: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
    texts.join("\n\n")
}

impl ExitReason for ConfigError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unreadable { source, .. } if source.kind() == ErrorKind::IsADirectory => {
                Exit::NoInput
            }
            Self::Unreadable { source, .. } => source.exit(),
            Self::Host { exit, .. } => *exit,
            Self::TooLarge(_) | Self::Faulty(_) => Exit::Config,
        }
    }
}

/// Whether a guest or device may have this name: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
