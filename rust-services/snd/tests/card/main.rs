// SPDX-License-Identifier: Apache-2.0

//! A good driver and the whole device, over vhost-user, in one process: so that a test can also turn
//! the host's knobs.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod capture;
mod controls;
mod mixing;
mod pausing;
mod playback;
mod requests;
mod support;
mod transport;
