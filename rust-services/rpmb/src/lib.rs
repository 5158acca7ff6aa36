// SPDX-License-Identifier: Apache-2.0

//! A replay-protected memory block for guests (VIRTIO 1.4, 5.12; JESD84-B51, 6.6.22).
//!
//! ```text
//!  guest ─ requestq ─▶ device ─▶ worker ─▶ engine ─▶ store ─▶ medium: a file,
//!                                  │         (what the standard says)   or a region of an eMMC
//!                                  └────▶ partition: an eMMC of the guest's own
//! ```
//!
//! The engine answers requests and knows nothing of disks; the store makes a key, a counter and
//! blocks change together or not at all on any medium that can write and wait.
#![deny(unsafe_code)]

#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
pub mod control;
#[cfg(feature = "service")]
pub mod device;
pub mod engine;
pub mod key;
pub mod mmc;
#[cfg(feature = "service")]
pub mod service;
pub mod statistics;
pub mod store;
pub mod tool;
mod trouble;
pub mod wire;
#[cfg(feature = "service")]
pub mod worker;
