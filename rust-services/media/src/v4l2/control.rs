// SPDX-License-Identifier: Apache-2.0

//! Controls.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of an id that is asked for the next one.
pub const NEXT_CTRL: u32 = 0x8000_0000;
/// The next one with a payload of its own.
pub const NEXT_COMPOUND: u32 = 0x4000_0000;
/// `V4L2_CTRL_WHICH_DEF_VAL`.
pub const WHICH_DEFAULT: u32 = 0x0f00_0000;
/// `V4L2_CTRL_WHICH_REQUEST_VAL`.
pub const WHICH_REQUEST: u32 = 0x0f01_0000;

/// `struct v4l2_queryctrl`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct QueryCtrl {
    /// Which one.
    pub id: u32,
    /// V4L2_CTRL_TYPE_*.
    pub type_: u32,
    /// For people.
    pub name: [u8; 32],
    /// Least value.
    pub minimum: i32,
    /// Greatest value.
    pub maximum: i32,
    /// Between values.
    pub step: i32,
    /// Value at first.
    pub default: i32,
    /// V4L2_CTRL_FLAG_*.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

/// `struct v4l2_query_ext_ctrl`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct QueryExtCtrl {
    /// Which one.
    pub id: u32,
    /// V4L2_CTRL_TYPE_*.
    pub type_: u32,
    /// For people.
    pub name: [u8; 32],
    /// Least value.
    pub minimum: i64,
    /// Greatest value.
    pub maximum: i64,
    /// Between values.
    pub step: u64,
    /// Value at first.
    pub default: i64,
    /// V4L2_CTRL_FLAG_*.
    pub flags: u32,
    /// Bytes of an element.
    pub elem_size: u32,
    /// Elements.
    pub elems: u32,
    /// Dimensions.
    pub nr_of_dims: u32,
    /// Their lengths.
    pub dims: [u32; 4],
    /// Zero.
    pub reserved: [u32; 32],
}

/// `struct v4l2_querymenu`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct QueryMenu {
    /// Which control.
    pub id: u32,
    /// Which value.
    pub index: u32,
    /// For people, or the value itself.
    pub name: [u8; 32],
    /// Zero.
    pub reserved: u32,
}

/// `struct v4l2_control`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Which one.
    pub id: u32,
    /// Its value.
    pub value: i32,
}

/// `struct v4l2_ext_control`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, packed)]
pub struct ExtControl {
    /// Which one.
    pub id: u32,
    /// Bytes that the value has elsewhere.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Its value, where it has no payload.
    pub value: i64,
}

/// `struct v4l2_ext_controls`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ExtControls {
    /// Class, or which values.
    pub which: u32,
    /// Controls that follow.
    pub count: u32,
    /// Which one is wrong.
    pub error_idx: u32,
    /// Not used.
    pub request_fd: i32,
    /// Zero.
    pub reserved: u32,
    /// Zero.
    pub padding: u32,
    /// Comes back as it was.
    pub pointer: u64,
}

const _: () = {
    assert!(size_of::<QueryCtrl>() == 68);
    assert!(size_of::<QueryExtCtrl>() == 232);
    assert!(size_of::<QueryMenu>() == 44);
    assert!(size_of::<ExtControl>() == 20);
    assert!(size_of::<ExtControls>() == 32);
};
