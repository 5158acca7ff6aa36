// SPDX-License-Identifier: Apache-2.0

//! What a guest hears of it when its service dies, or its VMM hangs up, again and again.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod edited;
mod endurance;
#[cfg(feature = "crash-points")]
mod injected;
mod kills;
mod support;
