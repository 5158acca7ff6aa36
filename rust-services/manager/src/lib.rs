// SPDX-License-Identifier: Apache-2.0
//! The manager of guests: files that define them, the virtual machine monitors that run them, the
//! device services beside them, and all of it on D-Bus.
//!
//! Nothing of a guest depends on the manager being alive: monitors and services are processes of
//! their own, and a new manager finds them again.
#![forbid(unsafe_code)]

pub mod bus;
mod cgroup;
mod daemon;
pub mod definition;
pub mod foreign;
pub mod guest;
#[cfg(test)]
mod manual;
mod mixing;
pub mod process;
pub mod registry;
pub mod supervision;
pub mod systemd;
pub mod vmm;

pub use daemon::run;
