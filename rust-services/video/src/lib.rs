// SPDX-License-Identifier: Apache-2.0

//! Hardware codecs for guests: virtio-video in the drafts that guests speak.
//!
//! ```text
//!  guest ─ commandq ─▶ device ─▶ dialect ─▶ model ─▶ stream ─▶ coder: agl-virtio-codec
//!        ◀─ eventq ──           (v5, v3)      │
//!                                             └ guest: pages that requests name
//! ```
//!
//! The dialects are parsers behind the trait [`wire::Dialect`]; the model knows neither wire nor
//! GStreamer.
#![deny(unsafe_code)]

pub use agl_virtio_codec::coder;

pub mod config;
pub mod control;
pub mod device;
mod guest;
pub mod model;
mod objects;
pub mod service;
pub mod statistics;
pub mod wire;
