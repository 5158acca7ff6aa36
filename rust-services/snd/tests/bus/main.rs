// SPDX-License-Identifier: Apache-2.0

//! The sound service on a message bus with the policy that is shipped, while a driver plays.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod card;
mod host;
mod knobs;
mod player;
mod refusals;
mod reload;
mod states;
