// SPDX-License-Identifier: Apache-2.0

//! Video codecs as V4L2 understands a stateful one, on GStreamer.
//!
//! A [`Decoder`] takes coded bytes, however they are cut, and gives [`Picture`]s; an [`Encoder`]
//! takes [`RawPicture`]s and gives [`AccessUnit`]s. Both are a [`Session`]: nothing in it waits, what
//! has happened is asked for with [`Session::poll`], and a closure of the owner's says when there is
//! something to ask for. Timestamps are the owner's: they come out as they went in, however the codec
//! reorders.
//!
//! ```text
//!  push ─▶ appsrc ─▶ parser ─▶ codec ─▶ videoconvert ─▶ appsink ─▶ poll
//!                        └ number of the unit, as a meta ┘
//! ```
//!
//! Which elements are behind a codec is [`Elements`]; what of them is installed is found out once, by
//! [`Library::load`]. Each session has a thread that brings its pipeline up and down, so that an
//! element which hangs holds up nobody; such a session ends with [`CodecError::Hangs`].
//!
//! Devices that decode or encode by what they are told to be use [`coder`], which has one face for
//! both.
//!
//! Or each session is in a process of its own, which is all that a crash takes with it: [`process`].
//!
//! No virtio in here: how guest memory is reached is the business of who calls [`Picture::write`],
//! which hands over runs of bytes to be copied once, and of who fills the bytes of a [`RawPicture`].
// One call that maps a file, in `frames`.
#![deny(unsafe_code)]

mod bell;
mod codec;
pub mod coder;
mod decoder;
mod elements;
mod encoder;
mod error;
mod frames;
pub mod isolation;
mod layout;
mod ledger;
mod picture;
mod planes;
pub mod process;
#[cfg(feature = "scripted")]
pub mod scripted;
mod session;
mod settings;
mod silence;

pub use bell::Bell;
pub use codec::Codec;
pub use decoder::Decoder;
pub use elements::{Elements, Library};
pub use encoder::{AccessUnit, Encoder, RawPicture};
pub use error::CodecError;
pub use layout::{Layout, Limits, PixelFormat, Plane, Position, Size};
pub use picture::{Picture, WriteError};
pub use session::{Counters, Event, Host, Session};
pub use settings::{
    BitrateMode, EncoderSettings, FrameRate, H264Profile, H264Tools, HevcProfile, Profile, Tier,
    Vp8Profile,
};
