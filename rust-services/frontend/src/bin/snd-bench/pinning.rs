// SPDX-License-Identifier: Apache-2.0
//! Puts both sides of a round trip on one CPU, in real time where that is allowed.
use std::fmt;
use std::process::{Command, Stdio};

use frontend::{Error, Result};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};

/// The priority of the services.
const SERVICE: &str = "5";

/// How the driver stands to the service on their CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// It runs only when the service, and the tool that counts for it, sleep: so each message
    /// wakes the service, and a count is the same every time. Else the driver would send the next
    /// message while the service still looks for one, at times.
    Yields,
    /// Both take turns: a round trip.
    TakesTurns,
}

/// Raises the calling thread to SCHED_FIFO; whether that is allowed.
pub(crate) fn raise(priority: &str) -> bool {
    let me = gettid().as_raw_nonzero().to_string();
    Command::new("chrt")
        .args(["--fifo", "--pid", priority, &me])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// How the present thread runs, and services are to be started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pinning {
    cpu: usize,
    real_time: bool,
}

impl Pinning {
    /// Pin the calling thread, and raise it to SCHED_FIFO if that is allowed.
    pub(crate) fn take(cpu: usize, driver: Driver) -> Result<Self> {
        let priority = match driver {
            Driver::Yields => "4",
            Driver::TakesTurns => SERVICE,
        };
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)
            .map_err(|source| Error::Service(format!("cannot run on CPU {cpu}: {source}")))?;
        let real_time = raise(priority);
        Ok(Self { cpu, real_time })
    }

    /// The words before a program that starts it likewise.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let cpu = self.cpu.to_string();
        let mut words = vec!["taskset".into(), "--cpu-list".into(), cpu];
        if self.real_time {
            words.extend(["chrt", "--fifo", SERVICE].map(String::from));
        }
        words
    }
}

impl Pinning {
    /// Whether the priorities are in force.
    pub(crate) fn is_real_time(&self) -> bool {
        self.real_time
    }
}

impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = if self.real_time {
            "SCHED_FIFO"
        } else {
            "without SCHED_FIFO (not allowed)"
        };
        write!(f, "with both sides pinned to CPU {}, {class}", self.cpu)
    }
}
