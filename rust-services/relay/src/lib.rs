// SPDX-License-Identifier: Apache-2.0

//! Relays vhost-user between a VMM and a device service, and keeps what must outlive the service.
//!
//! A VMM's connection ends where its back end ends; most VMMs never take up the device again. The
//! [`Relay`] stands in between: to the VMM it is the back end, to the service it is the front end.
//! It remembers what the VMM has said (`settings`) and tells it to the next service (`replay`),
//! so that the death of a service is a pause. It also answers what the vhost crates refuse:
//! `GET_INFLIGHT_FD` and `SET_INFLIGHT_FD` with the [`record`], and `CONFIG_CHANGE_MSG`.
//!
//! ```text
//!          requests ──▶            NEED_REPLY ──▶
//!   VMM ───────────────── Relay ─────────────────── service
//!          ◀── replies   settings   ◀── replies
//!             record     back channel
//! ```
//!
//! Nothing a guest wrote passes through: kicks, calls and rings are between guest and service.
#![forbid(unsafe_code)]

mod back_channel;
mod channel;
mod handle;
mod limit;
mod memory_table;
pub mod message;
mod question;
pub mod record;
mod relay;
mod replay;
mod request;
mod service_side;
mod settings;
mod vmm_side;

pub use channel::{Channel, ChannelError, Received};
pub use handle::Handle;
pub use limit::RateLimit;
/// For [`limited!`].
#[doc(hidden)]
pub use log;
pub use question::{Question, Unanswered};
pub use record::Record;
#[cfg(feature = "crash-points")]
pub use relay::Sent;
pub use relay::{End, Relay, RelayError, ServiceFault, VmmFault};
pub use request::Refusal;
