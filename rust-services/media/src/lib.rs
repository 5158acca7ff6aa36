// SPDX-License-Identifier: Apache-2.0

//! Cameras and codecs for guests (VIRTIO 1.4, 5.22).
//!
//! ```text
//!  guest ─ commandq ─▶ device ─▶ function: camera ◀── source: test picture, GStreamer
//!  guest ◀─ eventq ─── outbox ◀────┘        └─▶ queue ─▶ pages of the guest, or memory of ours
//!    └──────────── MMAP, MUNMAP ── region ◀───────────────────────────────────────────┘
//! ```
//!
//! The device knows commands, sessions and events; a function knows what V4L2 asks of it; a source
//! knows pictures. All of it runs on one thread, which is the only one that touches guest memory.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        reason = "tests compute with numbers of their own"
    )
)]

pub mod buffers;
pub mod camera;
#[cfg(feature = "gstreamer")]
pub mod codec;
pub mod config;
pub mod control;
pub mod controls;
pub mod device;
pub mod function;
pub mod memory;
pub mod outbox;
pub mod payload;
pub mod queue;
pub mod rate;
pub mod region;
pub mod service;
pub mod statistics;
pub mod v4l2;
pub mod wire;
