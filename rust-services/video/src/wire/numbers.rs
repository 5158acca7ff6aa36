// SPDX-License-Identifier: Apache-2.0

//! Numbers that all dialects share.

use agl_virtio_codec::Codec;

/// Where the resources of a queue lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemoryType {
    /// In pages of the guest.
    GuestPages,
    /// In objects that other devices have exported (VIRTIO 1.4, section 2.11).
    Objects,
}

impl MemoryType {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::GuestPages => 0,
            Self::Objects => 1,
        }
    }

    /// By its number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::GuestPages, Self::Objects]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// Commands by their number.
pub(super) mod command {
    pub(crate) const QUERY_CAPABILITY: u32 = 0x100;
    pub(crate) const STREAM_CREATE: u32 = 0x101;
    pub(crate) const STREAM_DESTROY: u32 = 0x102;
    pub(crate) const STREAM_DRAIN: u32 = 0x103;
    pub(crate) const RESOURCE_ATTACH: u32 = 0x104;
    pub(crate) const RESOURCE_QUEUE: u32 = 0x105;
    pub(crate) const QUEUE_DETACH_RESOURCES: u32 = 0x106;
    pub(crate) const QUEUE_CLEAR: u32 = 0x107;
    pub(crate) const GET_PARAMS: u32 = 0x108;
    pub(crate) const SET_PARAMS: u32 = 0x109;
    pub(crate) const QUERY_CONTROL: u32 = 0x10A;
    pub(crate) const GET_CONTROL: u32 = 0x10B;
    pub(crate) const SET_CONTROL: u32 = 0x10C;
}

/// Answers by their number.
pub(super) mod response {
    pub(crate) const OK: u32 = 0x200;
    pub(crate) const QUERY_CAPABILITY: u32 = 0x201;
    pub(crate) const RESOURCE_QUEUE: u32 = 0x202;
    pub(crate) const GET_PARAMS: u32 = 0x203;
    pub(crate) const QUERY_CONTROL: u32 = 0x204;
    pub(crate) const GET_CONTROL: u32 = 0x205;
}

/// Events by their number.
pub mod event {
    /// The stream has failed.
    pub const ERROR: u32 = 0x100;
    /// A decoder's pictures have another size.
    pub const RESOLUTION_CHANGED: u32 = 0x200;
}

/// Flags of a resource in draft v5: AGL's driver compares them as plain numbers.
pub mod flag {
    /// The last one.
    pub const END: u32 = 1;
    /// A key picture.
    pub const KEY: u32 = 2;
}

/// Controls by their number.
pub mod control {
    /// Bits per second.
    pub const BITRATE: u32 = 1;
    /// Profile.
    pub const PROFILE: u32 = 2;
    /// Level.
    pub const LEVEL: u32 = 3;
    /// The next picture is to be a key picture.
    pub const FORCE_KEYFRAME: u32 = 4;
    /// 0 variable, 1 constant.
    pub const BITRATE_MODE: u32 = 5;
    /// Bits per second, at most.
    pub const BITRATE_PEAK: u32 = 6;
    /// Whether each key picture brings its headers.
    pub const PREPEND_HEADERS: u32 = 7;
    /// Pictures from a key picture to the next; of our own, in no draft.
    pub const KEYFRAME_INTERVAL: u32 = 0x1000;
}

/// A control that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Control {
    /// See [`control::BITRATE`].
    Bitrate,
    /// See [`control::PROFILE`].
    Profile,
    /// See [`control::LEVEL`].
    Level,
    /// See [`control::FORCE_KEYFRAME`].
    ForceKeyframe,
    /// See [`control::BITRATE_MODE`].
    BitrateMode,
    /// See [`control::PREPEND_HEADERS`].
    PrependHeaders,
    /// See [`control::KEYFRAME_INTERVAL`].
    KeyframeInterval,
}

impl Control {
    /// By its number.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            control::BITRATE => Self::Bitrate,
            control::PROFILE => Self::Profile,
            control::LEVEL => Self::Level,
            control::FORCE_KEYFRAME => Self::ForceKeyframe,
            control::BITRATE_MODE => Self::BitrateMode,
            control::PREPEND_HEADERS => Self::PrependHeaders,
            control::KEYFRAME_INTERVAL => Self::KeyframeInterval,
            _ => return None,
        })
    }
}

/// Coded formats by their number.
pub(super) const fn coded(codec: Codec) -> Option<u32> {
    Some(match codec {
        Codec::Mpeg2 => 0x1000,
        Codec::Mpeg4 => 0x1001,
        Codec::H264 => 0x1002,
        Codec::Hevc => 0x1003,
        Codec::Vp8 => 0x1004,
        Codec::Vp9 => 0x1005,
        Codec::Av1 => return None,
    })
}
