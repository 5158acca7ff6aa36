// SPDX-License-Identifier: Apache-2.0

//! CAN controllers for guests, on buses in this process and of the host, by policy (VIRTIO 1.4, CAN
//! Device).
//!
//! ```text
//!  guest ─ txq ─▶ device ─▶ network (policy, buses, gateways) ─▶ hub ─▶ CAN interface
//!  guest ◀─ rxq ─ device ◀─┘      ▲        the clock of the buses ┘ └─▶ programs of the host
//!                              control ─ D-Bus
//! ```
//!
//! Only the hub waits for an interface. But a guest's own thread, once it has the network in hand,
//! writes what it sends there, and hears what is back already.
//!
//! All guests of a virtual bus are controllers of one process: arbitration is decided where all
//! frames are, under one lock that is held for a few messages and goes to who has waited longest.
//! Guests that are to live and die by themselves get a process each, on an interface of the host (a
//! `vcan` where there is no real one): then the host's kernel is the bus.
#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod device;
pub mod frame;
pub mod hub;
pub mod identifiers;
pub mod network;
pub mod raw;
pub mod service;
pub mod shared;
pub mod timing;
pub mod wire;
