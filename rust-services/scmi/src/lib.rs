// SPDX-License-Identifier: Apache-2.0

//! The platform side of SCMI for guests: power, clocks, performance, sensors, resets and voltages,
//! by policy (VIRTIO 1.4, 5.17; SCMI 3.2).
//!
//! ```text
//!  guest ─ cmdq ─▶ device ─▶ protocol/* ─▶ platform (policy, votes, simulated SoC) ─▶ backend
//!  guest ◀ eventq ─ device ◀── outbox of the agent ◀──┘                     D-Bus ─ control
//! ```
//!
//! All guests that share hardware are agents of one process: votes add up where the platform is,
//! in one place, under one lock that is held for a few messages and goes to who has waited longest. A
//! process per guest would need a platform daemon behind it, a second protocol, and one more context
//! switch per message; the sandbox is the same. What a guest does reaches only its own agent's queues and votes.
#![forbid(unsafe_code)]

pub mod backend;
pub mod config;
pub mod control;
pub mod device;
pub mod devicetree;
pub mod fair;
pub mod order;
pub mod platform;
pub mod protocol;
pub mod reload;
pub mod service;
pub mod shared;
pub mod wire;
