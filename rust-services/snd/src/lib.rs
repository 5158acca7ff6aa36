// SPDX-License-Identifier: Apache-2.0

//! virtio-snd (device id 25; VIRTIO 1.4, section 5.14) as a vhost-user device service.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in a test, a panic is the verdict; the code itself is checked without tests"
    )
)]

pub mod backend;
pub mod clock;
pub mod config;
pub mod control;
pub mod controls;
pub mod daemon;
pub mod device;
pub mod events;
pub mod format;
mod greeting;
pub mod handler;
pub mod mixer;
pub mod model;
pub mod panel;
pub mod policy;
pub mod reload;
pub mod sample;
mod sandbox;
pub mod stream;
pub mod topology;
pub mod wire;
