// SPDX-License-Identifier: Apache-2.0
//! What every device daemon shares: command line, configuration, logging, systemd, sandbox,
//! real time, the D-Bus object and an orderly end.
//!
//! Nothing in here knows a device, and the data path never waits for anything in here.
#![deny(unsafe_code)]

mod arenas;
mod brake;
pub mod bus;
pub mod cli;
pub mod config;
mod exit;
pub mod fair;
mod health;
pub mod inherited_fd;
pub mod listener;
pub mod logging;
pub mod notify;
pub mod realtime;
mod run;
pub mod sandbox;
mod serving;
mod settings;
mod shutdown;
mod supervisor;
mod used_config;

pub use brake::Brake;
pub use exit::{Exit, ExitReason, explain};
pub use health::{Health, Heartbeat, Turn};
pub use run::{Daemon, Service, run};
pub use serving::{Seat, ServingError};
pub use shutdown::Stop;
pub use virtio_device::{RateLimit, limited};

/// The facade that devices log through.
pub use log;
