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

impl Job {
    /// Who waits.
    fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Measure { ticket, .. }
            | Self::Power { ticket, .. }
            | Self::Apply { ticket, .. } => *ticket,
            Self::Frequency { .. } | Self::Cap { .. } => None,
        }
    }

    /// Whether it changes nothing.
    fn is_read(&self) -> bool {
        matches!(self, Self::Measure { .. } | Self::Power { .. })
    }

    /// Whether another job is of the same kind and about the same thing.
    fn is_about(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Measure { sensor: one, .. }, Self::Measure { sensor: two, .. })
            | (Self::Frequency { domain: one, .. }, Self::Frequency { domain: two, .. })
            | (Self::Power { domain: one, .. }, Self::Power { domain: two, .. })
            | (Self::Cap { domain: one, .. }, Self::Cap { domain: two, .. }) => one == two,
            (
                Self::Apply { kind, index, .. },
                Self::Apply {
                    kind: other,
                    index: at,
                    ..
                },
            ) => (kind, index) == (other, at),
            _ => false,
        }
    }

    /// The result of a job that is not done: there are too many.
    fn refused(self) -> JobResult {
        match self {
            Self::Measure { sensor, ticket } => JobResult::Measured {
                sensor,
                values: Err(Status::Busy),
                ticket,
            },
            Self::Power { domain, ticket } => JobResult::Power {
                domain,
                microwatts: Err(Status::Busy),
                ticket,
            },
            Self::Apply {
                kind,
                index,
                ticket,
                ..
            } => JobResult::Applied {
                kind,
                index,
                ticket,
                result: Err(Status::Busy),
            },
            Self::Frequency { .. } | Self::Cap { .. } => JobResult::Set,
        }
    }
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

impl JobResult {
    /// The same result for somebody else who waits.
    fn of(&self, waits: Option<Ticket>) -> Self {
        let mut result = self.clone();
        match &mut result {
            Self::Measured { ticket, .. }
            | Self::Power { ticket, .. }
            | Self::Applied { ticket, .. } => *ticket = waits,
            Self::Set => {}
        }
        result
    }
}

/// A way to the host's hardware.
pub trait Backend: Send {
    /// Does a job. May block.
    fn work(&mut self, job: Job) -> JobResult;
}
