// SPDX-License-Identifier: Apache-2.0

//! The command line.

use clap::Parser;

use crate::checks::CHECKS;

const EXAMPLES: &str = "\
Examples:
  agl-virtio-selftest                      everything this guest has; what it has not is skipped
  agl-virtio-selftest --expect snd,scmi    a guest without these two fails
  agl-virtio-selftest --only snd --tone 1000
  agl-virtio-selftest --json | jq '.checks[] | select(.result == \"failed\")'

Run it as root: it sets CAN interfaces up and opens the RPMB device. It plays for a second.

Exit codes: 0 nothing failed; 1 a check failed; 64 wrong usage; 74 the report could not be written.";

/// Checks this guest's virtio devices
#[derive(Debug, Default, Parser)]
#[command(name = "agl-virtio-selftest", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Print JSON, and not TAP (the Test Anything Protocol, version 14)
    #[arg(long)]
    pub(crate) json: bool,

    /// Say what is checked, and stop
    #[arg(long)]
    pub(crate) list: bool,

    /// Only these checks, by the names that --list says
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = name)]
    pub(crate) only: Vec<String>,

    /// A device of these types has to be there: without one, its checks fail and are not skipped
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    pub(crate) expect: Vec<String>,

    /// What the card records is a tone of this frequency
    #[arg(long, value_name = "HERTZ", value_parser = clap::value_parser!(u32).range(20..20_000))]
    pub(crate) tone: Option<u32>,
}

impl Options {
    /// Whether this check is to be run.
    pub(crate) fn wants(&self, check: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == check)
    }

    /// How many checks will be run.
    pub(crate) fn count(&self) -> usize {
        CHECKS.iter().filter(|check| self.wants(check.name)).count()
    }

    /// Whether a device of this type has to be there.
    pub(crate) fn expects(&self, device: &str) -> bool {
        self.expect.iter().any(|expected| expected == device)
    }
}

fn name(text: &str) -> Result<String, String> {
    if CHECKS.iter().any(|check| check.name == text) {
        Ok(text.to_owned())
    } else {
        Err("there is no check of this name; --list says which there are".to_owned())
    }
}
