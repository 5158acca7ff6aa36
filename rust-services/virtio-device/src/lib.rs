// SPDX-License-Identifier: Apache-2.0

//! The ground floor of every AGL virtio device service.
//!
//! A device says who it is ([`Device`]) and what to do with a request ([`Handler`]); everything
//! between that and a VMM lives here: the vhost-user session, the split virtqueues, descriptor
//! chains however they are cut, notification, pause, reset, reconnection, recovery after a death of
//! the service, and statistics. It is the only room that knows vhost-user, and the only one with
//! `unsafe` code (the modules `window` and `object`).
//!
//! ```text
//!  VMM ──unix socket──▶ relay ─▶ vhost-user-backend ─▶ vring ──ring control──▶ worker ─▶ Handler
//!  guest ─────────────────────────── kick eventfd ────────────────────────────▶ │
//!  guest ◀────────────────────────── call eventfd ───────────────────────────── │
//! ```
//!
//! The session's threads and a worker share no lock while requests flow: a ring is moved into its
//! worker when it starts and answers for itself at a barrier when it stops.
#![deny(unsafe_code)]

pub mod chain;
mod clock;
pub mod crash;
pub mod device;
mod inflight;
mod io;
mod memory;
mod object;
mod pages;
mod private;
mod ring;
mod seen;
mod server;
mod session;
mod shared;
pub mod stats;
pub mod vmm;
mod vring;
mod waker;
mod window;
mod worker;

pub use agl_virtio_relay::record::Record;
pub use agl_virtio_relay::{RateLimit, Unanswered, limited};
pub use chain::{Chain, ChainError};
pub use clock::{Timer, now};
pub use device::{Device, Handler, QueueSpec, Start, ThreadPlan};
pub use io::Io;
pub use memory::Memory;
pub use object::{Object, ObjectAccess, ObjectError};
pub use pages::Pages;
pub use seen::{Mark, Seen};
pub use server::{Options, Server, ServerError, Stop};
pub use shared::SharedMemory;
pub use vmm::{Answer, Place, Refused, Reply, Request, Ticket};
pub use waker::Waker;
