// SPDX-License-Identifier: Apache-2.0
//! A user-space vhost-user driver: the VMM and the guest's driver in one process, without a VMM.
//!
//! It owns guest memory (memfd regions), split rings, kick and call eventfds and the control
//! connection, so a test can do all that a good driver does and all that a hostile one does. It
//! knows no device's internals: it speaks the wire, and checks what the device does with the ring
//! ([`ring::Ring::pop`]).
//!
//! Where to begin: [`guest::Guest`] ties the parts together for a test;
//! [`service_under_test::ServiceUnderTest`] starts the program to be tested; [`hostile`] has the
//! catalogue of malformed chains; [`clients`] has one thin wire client per device.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "a test tool: it trusts its own numbers, and a panic here is a failed test, not a lost service"
)]

pub mod clients;
pub mod config;
pub mod connection;
pub mod deadline;
pub mod error;
pub mod event;
pub mod guest;
pub mod hostile;
pub mod inflight;
pub mod memory;
pub mod message_bus;
pub mod protocol;
pub mod ring;
pub mod service_under_test;
pub mod session;
pub mod shared_memory;
pub mod shared_objects;

pub use deadline::Deadline;
pub use error::{Error, Misbehaviour, Result};
pub use guest::{Guest, GuestOptions};
pub use memory::{Buffer, Memory, MemoryLayout};
pub use message_bus::MessageBus;
pub use ring::{ChainId, Completion, Ring, Segment};
pub use service_under_test::{Launch, ServiceUnderTest};
pub use shared_memory::SharedMemory;
