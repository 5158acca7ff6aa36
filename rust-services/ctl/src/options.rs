// SPDX-License-Identifier: Apache-2.0
//! The command line.

use agl_virtio_service::cli::BusChoice;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  agl-virtioctl start ivi                        devices first, then the guest
  agl-virtioctl status ivi                       all that is known of one guest
  agl-virtioctl attach ivi camera                put a device into the running guest
  agl-virtioctl set ivi/cabin/streams/0 Volume 0.5
  ssh ivi agl-virtio-selftest --json | agl-virtioctl conformance ivi -
  agl-virtioctl list --json | jq '.[] | select(.state != \"running\")'";

/// Guests and their virtual devices
#[derive(Debug, Parser)]
#[command(name = "agl-virtioctl", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Which bus the manager is on: system, session, or an address
    #[arg(long, value_name = "BUS", default_value = "system", global = true)]
    pub(crate) bus: BusChoice,

    /// Write JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the guests, a line for each
    List,
    /// Tell all about one guest, or about every guest
    Status {
        /// The guest
        guest: Option<String>,
    },
    /// Start a guest with its devices; done when it runs
    Start {
        /// The guest, or GUEST/DEVICE: then that device's service alone
        guest: String,
    },
    /// Press a guest's power button, and wait until it has ended
    Stop {
        /// The guest, or GUEST/DEVICE: the service of a device that the guest does not have now
        guest: String,
        /// End it at once if it still runs after so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=3600))]
        timeout: u32,
    },
    /// End a guest at once
    Kill {
        /// The guest
        guest: String,
    },
    /// Press a guest's reset button
    Reboot {
        /// The guest
        guest: String,
    },
    /// Stop a guest's processors
    Pause {
        /// The guest
        guest: String,
    },
    /// Let a guest's processors run on
    Resume {
        /// The guest
        guest: String,
    },
    /// Put a device into a running guest
    Attach {
        /// The guest
        guest: String,
        /// The device, a table of the guest's file
        device: String,
    },
    /// Take a device out of a running guest
    Detach {
        /// The guest
        guest: String,
        /// The device
        device: String,
    },
    /// Change a property, such as a volume
    Set {
        /// GUEST/DEVICE, or an object below it, such as ivi/cabin/streams/0
        object: String,
        /// The property, such as Volume
        property: String,
        /// Its new value: a number, true, false, or text
        value: String,
    },
    /// Read the guests' files again and apply the difference
    Reload,
    /// Make or change a guest by a file, whose name is the guest's
    Define {
        /// NAME.toml
        file: PathBuf,
    },
    /// Remove a guest that does not run, and its file
    Remove {
        /// The guest
        guest: String,
    },
    /// Show how a guest is started, or what its file says
    Show {
        /// The guest
        #[arg(required_unless_present = "file")]
        guest: Option<String>,
        /// The monitor's command line
        #[arg(long)]
        command: bool,
        /// Of this file, without asking the manager
        #[arg(long, value_name = "NAME.toml")]
        file: Option<PathBuf>,
    },
    /// Keep what agl-virtio-selftest --json has written in a running guest, for status to show
    Conformance {
        /// The guest
        guest: String,
        /// The report; - is standard input
        report: PathBuf,
    },
    /// Follow what happens, a line for each change, until interrupted
    Monitor,
    /// Watch guests and devices with their rates, live; with --json a line for each look
    Top {
        /// Look so often, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        interval: f64,
    },
    /// Write all that a person who helps from afar would ask for
    Report,
    /// Is this host able to run guests; with files, are they in order
    Check {
        /// NAME.toml
        files: Vec<PathBuf>,
    },
    /// Write the completion for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}
