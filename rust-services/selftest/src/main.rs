// SPDX-License-Identifier: Apache-2.0

//! `agl-virtio-selftest`: whether a guest's virtio devices work, seen from inside the guest.
//!
//! It uses what every program of the guest uses: sysfs, and the usual programs for sound and CAN. So it finds what a
//! missing kernel option, a missing module or a dead service does to a guest, on any VMM.

#![forbid(unsafe_code)]

mod checks;
mod options;
mod report;
mod system;
mod tone;

use std::process::ExitCode;

use clap::Parser;

use checks::CHECKS;
use options::Options;
use report::{Finding, Report};
use system::System;

/// As sysexits has it: the output could not be written.
const EX_IOERR: u8 = 74;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for check in CHECKS {
            println!("{:10}{}", check.name, check.holds);
        }
        return ExitCode::SUCCESS;
    }
    let system = System::of_this_machine();
    let wanted = CHECKS.iter().filter(|check| options.wants(check.name));
    let findings = wanted.map(|check| Finding::of(check, &system, &options));
    let report = if options.json {
        Report::json(findings)
    } else {
        Report::tap(findings, options.count())
    };
    match report {
        Ok(Report { failed: 0 }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("agl-virtio-selftest: cannot write the report: {error}");
            ExitCode::from(EX_IOERR)
        }
    }
}
