// SPDX-License-Identifier: Apache-2.0

//! virtio-snd (device id 25; VIRTIO 1.4, section 5.14) as a vhost-user device service.
#![forbid(unsafe_code)]

pub mod backend;
pub mod clock;
pub mod config;
pub mod control;
pub mod controls;
pub mod daemon;
pub mod device;
pub mod events;
pub mod format;
pub mod handler;
pub mod mixer;
pub mod model;
pub mod panel;
pub mod policy;
pub mod sample;
mod sandbox;
pub mod stream;
pub mod topology;
pub mod wire;
