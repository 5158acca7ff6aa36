// SPDX-License-Identifier: Apache-2.0
//! The small measures: privileges, core dumps, tracing, descriptors.

use super::Measure;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

/// Enough for every queue, stream and connection of a device.
const OPEN_FILES: u64 = 1024;

fn measure(result: rustix::io::Result<()>, done: &str) -> Measure {
    match result {
        Ok(()) => Measure::Applied(done.to_owned()),
        Err(error) => Measure::Refused(error.to_string()),
    }
}

pub(super) fn no_new_privileges() -> Measure {
    measure(rustix::thread::set_no_new_privs(true), "set")
}

pub(super) fn no_core_dumps() -> Measure {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    measure(setrlimit(Resource::Core, none), "limit 0")
}

pub(super) fn not_traceable() -> Measure {
    measure(
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable),
        "not dumpable",
    )
}

pub(super) fn open_files(wanted: Option<u64>) -> Measure {
    let wanted = wanted.unwrap_or(OPEN_FILES);
    // Never above what the unit allows.
    let most = getrlimit(Resource::Nofile)
        .maximum
        .map_or(wanted, |maximum| maximum.min(wanted));
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    measure(
        setrlimit(Resource::Nofile, limit),
        &format!("at most {most}"),
    )
}

/// How many threads run beside this one, if any.
pub(super) fn other_threads() -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?.count();
    tasks.checked_sub(1).filter(|others| *others > 0)
}
