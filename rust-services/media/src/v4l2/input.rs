// SPDX-License-Identifier: Apache-2.0

//! Inputs, sizes, rates, cut-outs and codec commands.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::{Fraction, Rectangle};

/// `struct v4l2_input`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Input {
    /// Which one.
    pub index: u32,
    /// For people.
    pub name: [u8; 32],
    /// 2 for a camera.
    pub type_: u32,
    /// Zero.
    pub audioset: u32,
    /// Zero.
    pub tuner: u32,
    /// Zero.
    pub std: u64,
    /// V4L2_IN_ST_*.
    pub status: u32,
    /// Zero.
    pub capabilities: u32,
    /// Zero.
    pub reserved: [u32; 3],
    /// Zero.
    pub padding: u32,
}

/// `V4L2_CAP_TIMEPERFRAME`.
pub const TIME_PER_FRAME: u32 = 0x1000;

/// `struct v4l2_streamparm`, for a queue that captures.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CaptureParm {
    /// Of which queue.
    pub type_: u32,
    /// See [`TIME_PER_FRAME`].
    pub capability: u32,
    /// Zero.
    pub mode: u32,
    /// From one picture to the next.
    pub interval: Fraction,
    /// Zero.
    pub extended_mode: u32,
    /// Buffers that read() uses.
    pub read_buffers: u32,
    /// Zero.
    pub reserved: [u8; 176],
}

/// `V4L2_FRMSIZE_TYPE_DISCRETE`, and of intervals too.
pub const DISCRETE: u32 = 1;
/// `V4L2_FRMIVAL_TYPE_CONTINUOUS`.
pub const CONTINUOUS: u32 = 2;
/// `V4L2_FRMSIZE_TYPE_STEPWISE`.
pub const STEPWISE: u32 = 3;

/// `struct v4l2_frmsizeenum`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct FrameSize {
    /// Which one.
    pub index: u32,
    /// Of which format.
    pub pixel_format: u32,
    /// See [`DISCRETE`] and [`STEPWISE`].
    pub type_: u32,
    /// Width and height; or least, greatest, step of both.
    pub size: [u32; 6],
    /// Zero.
    pub reserved: [u32; 2],
}

/// `struct v4l2_frmivalenum`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct FrameInterval {
    /// Which one.
    pub index: u32,
    /// Of which format.
    pub pixel_format: u32,
    /// Of which width.
    pub width: u32,
    /// Of which height.
    pub height: u32,
    /// See [`DISCRETE`] and [`STEPWISE`].
    pub type_: u32,
    /// The interval; or least, greatest, step.
    pub interval: [Fraction; 3],
    /// Zero.
    pub reserved: [u32; 2],
}

/// `struct v4l2_selection`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Selection {
    /// Of which queue; the single-planar names count for both.
    pub type_: u32,
    /// V4L2_SEL_TGT_*.
    pub target: u32,
    /// V4L2_SEL_FLAG_*.
    pub flags: u32,
    /// What is cut out.
    pub r: Rectangle,
    /// Zero.
    pub reserved: [u32; 9],
}

/// `struct v4l2_decoder_cmd`.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct DecoderCmd {
    /// V4L2_DEC_CMD_*.
    pub cmd: u32,
    /// V4L2_DEC_CMD_*_…
    pub flags: u32,
    /// For commands that no device of ours has.
    pub raw: [u32; 16],
}

/// `struct v4l2_encoder_cmd`.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct EncoderCmd {
    /// V4L2_ENC_CMD_*.
    pub cmd: u32,
    /// V4L2_ENC_CMD_*_…
    pub flags: u32,
    /// Zero.
    pub raw: [u32; 8],
}

impl Input {
    /// A camera.
    #[must_use]
    pub fn camera(name: &str) -> Self {
        let mut input = Self::new_zeroed();
        input.name = super::name::name(name);
        input.type_ = 2;
        input
    }
}

const _: () = {
    assert!(size_of::<Input>() == 80);
    assert!(size_of::<CaptureParm>() == 204);
    assert!(size_of::<FrameSize>() == 44);
    assert!(size_of::<FrameInterval>() == 52);
    assert!(size_of::<Selection>() == 64);
    assert!(size_of::<DecoderCmd>() == 72);
    assert!(size_of::<EncoderCmd>() == 40);
};
