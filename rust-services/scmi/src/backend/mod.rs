// SPDX-License-Identifier: Apache-2.0

//! What is real on the host. Everything that may be slow is a [`Job`], done on a thread of its
//! own; the command that asked waits in its queue meanwhile, and other commands go on.

mod linux;
mod resources;
mod worker;

pub use linux::{Bindings, Linux, PerformanceFiles};
pub use resources::{Names, Resources};
pub use worker::Worker;

use crate::platform::{AgentId, HostState, Kind};
use crate::wire::Status;

/// Names a command that waits for the back end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    /// Whose command.
    pub agent: AgentId,
    /// Which.
    pub number: u32,
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Job {
    /// Read a sensor.
    Measure {
        /// Which.
        sensor: usize,
        /// Who waits; nobody for a periodic reading.
        ticket: Option<Ticket>,
    },
    /// A performance domain has a new level.
    Frequency {
        /// Which.
        domain: usize,
        /// Its frequency.
        khz: u32,
    },
    /// Read a power capping domain's power.
    Power {
        /// Which.
        domain: usize,
        /// Who waits; nobody where it is watched.
        ticket: Option<Ticket>,
    },
    /// Bring one of the host's own resources to a state.
    Apply {
        /// A clock, power domain, reset or voltage.
        kind: Kind,
        /// Which.
        index: usize,
        /// How it is to be.
        state: HostState,
        /// Who waits.
        ticket: Option<Ticket>,
    },
    /// A power capping domain has a new cap.
    Cap {
        /// Which.
        domain: usize,
        /// The cap.
        microwatts: u32,
    },
}

/// Something that was done.
#[derive(Clone, Debug)]
pub enum JobResult {
    /// A sensor was read.
    Measured {
        /// Which.
        sensor: usize,
        /// A value for each axis.
        values: Result<Vec<i64>, Status>,
        /// Who waits.
        ticket: Option<Ticket>,
    },
    /// A power capping domain's power was read.
    Power {
        /// Which.
        domain: usize,
        /// In µW.
        microwatts: Result<u32, Status>,
        /// Who waits.
        ticket: Option<Ticket>,
    },
    /// A frequency or a cap was set, or not.
    Set,
    /// One of the host's own resources is as it was to be, or not.
    Applied {
        /// A clock, power domain, reset or voltage.
        kind: Kind,
        /// Which.
        index: usize,
        /// Who waits.
        ticket: Option<Ticket>,
        /// Whether it is; with the rate of a clock, in Hz.
        result: Result<Option<u64>, Status>,
    },
}

/// A way to the host's hardware.
pub trait Backend: Send {
    /// Does a job. May block.
    fn work(&mut self, job: Job) -> JobResult;
}
