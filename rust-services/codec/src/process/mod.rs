// SPDX-License-Identifier: Apache-2.0

//! Sessions in processes of their own: an element that crashes, hangs or is taken over by the stream
//! that it decodes has one session, and nothing else of the service or of the guest.
//!
//! ```text
//!  service ── Nursery ──▶ nursery ── starts, sees how they end ──▶ worker: HostCodecs, one session
//!     └─ Workers ─ Remote ◀── packets, and two memories in places ──┘
//! ```
//!
//! A worker sees its stream and its pictures, and no guest memory: the service copies between that
//! and the session's own, into which a decoder draws its pictures where its element can. Its sandbox has no socket, no file but its devices, and a limit of memory.

mod allowance;
mod link;
mod memory;
mod message;
mod nursery;
mod outputs;
mod picture;
mod remote;
mod setup;
mod worker;
mod workers;

pub use nursery::Nursery;
pub use setup::{Setup, main_of_worker, registry};
pub use workers::Workers;
