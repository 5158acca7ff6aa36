// SPDX-License-Identifier: Apache-2.0

//! What V4L2 says, in the 64-bit layout that travels (Linux UAPI, `videodev2.h`).

pub mod buffer;
pub mod control;
pub mod event;
pub mod format;
pub mod input;
pub mod ioctl;
pub mod name;

pub use buffer::{Buffer, BufferFlags, CreateBuffers, Memory, Plane, RequestBuffers};
pub use event::{Event, EventSubscription};
pub use format::{BufType, Format, FormatDescription, FourCc, PixFormat, PixFormatMplane};
pub use ioctl::Ioctl;

/// A fraction of a second, or any other.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    zerocopy::FromBytes,
    zerocopy::Immutable,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Fraction {
    /// Above the line.
    pub numerator: u32,
    /// Below it.
    pub denominator: u32,
}

/// A rectangle in pixels.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    zerocopy::FromBytes,
    zerocopy::Immutable,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Rectangle {
    /// From the left edge.
    pub left: i32,
    /// From the upper edge.
    pub top: i32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}
