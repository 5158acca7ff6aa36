// SPDX-License-Identifier: Apache-2.0
//! What can go wrong on the driver's side, and what a device can be caught doing.
use std::io;

use crate::ring::ChainId;

/// The result of what this crate does.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation of the driver did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// What was waited for did not come.
    #[error("waited in vain for {0}")]
    TimedOut(String),
    /// The back end closed the connection.
    #[error("the back end hung up during {0}")]
    Disconnected(&'static str),
    /// The back end answered a message that changes something with a status other than 0.
    #[error("the back end refused request {request} with status {status}")]
    Refused {
        /// The message's number ([`crate::protocol::request`]).
        request: u32,
        /// The status in the answer.
        status: u64,
    },
    /// The answer is not one that the protocol allows.
    #[error("bad answer to request {request}: {problem}")]
    BadReply {
        /// The message's number ([`crate::protocol::request`]).
        request: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// The test asked for something that this session did not negotiate.
    #[error("not negotiated: {0}")]
    NotNegotiated(&'static str),
    /// No connection: `connect` or `reconnect` first.
    #[error("there is no connection")]
    NotConnected,
    /// Guest memory was used wrongly by the test.
    #[error("guest memory: {0}")]
    Memory(String),
    /// The ring has too few free descriptors for the chain.
    #[error("ring {ring} has {free} free descriptors, {needed} are needed")]
    RingFull {
        /// The queue's index.
        ring: u16,
        /// Descriptors left.
        free: usize,
        /// Descriptors that the chain takes.
        needed: usize,
    },
    /// The device broke a rule of the virtqueue (VIRTIO 1.4, 2.7).
    #[error("ring {ring}: the device misbehaved: {what}")]
    Device {
        /// The queue's index.
        ring: u16,
        /// What it did.
        what: Misbehaviour,
    },
    /// The program under test could not be started, or ended.
    #[error("service under test: {0}")]
    Service(String),
}

impl Error {
    /// Wrap what the system said about `doing`.
    pub(crate) fn io(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            doing,
            source: source.into(),
        }
    }

    /// The rule that the device broke, where it broke one.
    #[must_use]
    pub fn misbehaviour(&self) -> Option<&Misbehaviour> {
        match self {
            Self::Device { what, .. } => Some(what),
            _ => None,
        }
    }
}

/// A rule of the split virtqueue that the device broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// used.idx moved further than chains were outstanding (or backwards).
    #[error("used.idx is {used_idx}, {seen} were taken, and only {outstanding} are outstanding")]
    UsedIndexJumped {
        /// used.idx as read.
        used_idx: u16,
        /// Where this driver stands.
        seen: u16,
        /// Chains that the device holds.
        outstanding: usize,
    },
    /// A used element names a head beyond the descriptor table.
    #[error("used element with id {id}, the table has {size}")]
    HeadOutOfRange {
        /// The element's id.
        id: u32,
        /// The queue's size.
        size: u16,
    },
    /// A used element names a chain that the device had already returned.
    #[error("head {head} returned again; its last chain {chain:?} was returned before")]
    ReturnedTwice {
        /// The head.
        head: u16,
        /// The chain that had it last.
        chain: ChainId,
    },
    /// A used element names a head that was never made available.
    #[error("head {0} returned, but it was never made available")]
    NeverAvailable(u16),
    /// used.len is more than the chain's device-writable part.
    #[error("head {head}: used.len is {written}, its writable part is {writable} bytes")]
    WroteTooMuch {
        /// The head.
        head: u16,
        /// used.len.
        written: u32,
        /// Bytes that the device was allowed to write.
        writable: u64,
    },
    /// A chain was returned and an interrupt was due, but none came.
    #[error("used.idx moved to {used_idx} with notifications wanted, but no call came")]
    CallMissing {
        /// used.idx as read.
        used_idx: u16,
    },
    /// The device wrote into the descriptor table or the available ring.
    #[error("the device changed {area} at byte {offset}")]
    DriverAreaChanged {
        /// Which of the two.
        area: &'static str,
        /// The first byte that differs.
        offset: usize,
    },
}
