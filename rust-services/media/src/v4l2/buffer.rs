// SPDX-License-Identifier: Apache-2.0

//! Buffers and their queues.

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::format::Format;

/// Where a queue's buffers lie (5.22.6.1.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Memory {
    /// The device's, mapped into shared memory region 0.
    Mmap,
    /// Pages of the guest.
    SharedPages,
}

impl Memory {
    /// From the wire.
    ///
    /// # Errors
    /// EINVAL for others: virtio objects are not shared yet.
    pub fn parse(code: u32) -> Result<Self, Errno> {
        match code {
            1 => Ok(Self::Mmap),
            2 => Ok(Self::SharedPages),
            _ => Err(Errno::INVAL),
        }
    }

    /// As V4L2 writes it.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Mmap => 1,
            Self::SharedPages => 2,
        }
    }
}

/// Bits of [`Buffer::flags`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BufferFlags(pub u32);

impl BufferFlags {
    /// Mapped by the driver.
    pub const MAPPED: Self = Self(0x1);
    /// With the device.
    pub const QUEUED: Self = Self(0x2);
    /// Ready for the driver.
    pub const DONE: Self = Self(0x4);
    /// A picture that needs no other one.
    pub const KEYFRAME: Self = Self(0x8);
    /// A picture that needs an earlier one.
    pub const PFRAME: Self = Self(0x10);
    /// A picture that needs a later one too.
    pub const BFRAME: Self = Self(0x20);
    /// The content is damaged.
    pub const ERROR: Self = Self(0x40);
    /// PREPARE_BUF was called.
    pub const PREPARED: Self = Self(0x400);
    /// The clock that timestamps are of.
    pub const TIMESTAMP_MONOTONIC: Self = Self(0x2000);
    /// Timestamps are those of what came in.
    pub const TIMESTAMP_COPY: Self = Self(0x4000);
    /// What a codec's outputs have of their inputs: a time code, and when the time was taken
    /// (`V4L2_BUF_FLAG_TIMECODE`, `V4L2_BUF_FLAG_TSTAMP_SRC_MASK`).
    pub const KEPT: Self = Self(0x7_0100);
    /// The last buffer of a sequence.
    pub const LAST: Self = Self(0x10_0000);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether one of these is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// `struct v4l2_buffer`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Buffer {
    /// Which one of its queue.
    pub index: u32,
    /// Of which queue.
    pub type_: u32,
    /// Bytes that mean something.
    pub bytesused: u32,
    /// See [`BufferFlags`].
    pub flags: u32,
    /// V4L2_FIELD_*.
    pub field: u32,
    /// Zero.
    pub padding: u32,
    /// Seconds of its time.
    pub seconds: i64,
    /// Microseconds of its time.
    pub microseconds: i64,
    /// Not used.
    pub timecode: [u8; 16],
    /// Which one of its stream.
    pub sequence: u32,
    /// See [`Memory`].
    pub memory: u32,
    /// Offset, address, or the place of the planes.
    pub m: u64,
    /// Bytes of the buffer, or number of planes.
    pub length: u32,
    /// Zero.
    pub reserved: u32,
    /// Not used.
    pub request_fd: i32,
    /// Zero.
    pub padding2: u32,
}

/// `struct v4l2_plane`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Plane {
    /// Bytes that mean something.
    pub bytesused: u32,
    /// Bytes of the plane.
    pub length: u32,
    /// Offset or address.
    pub m: u64,
    /// Where the content begins.
    pub data_offset: u32,
    /// Zero.
    pub reserved: [u32; 11],
}

/// `struct v4l2_requestbuffers`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RequestBuffers {
    /// How many.
    pub count: u32,
    /// Of which queue.
    pub type_: u32,
    /// See [`Memory`].
    pub memory: u32,
    /// V4L2_BUF_CAP_*.
    pub capabilities: u32,
    /// V4L2_MEMORY_FLAG_*.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// `struct v4l2_create_buffers`.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CreateBuffers {
    /// The first new one.
    pub index: u32,
    /// How many.
    pub count: u32,
    /// See [`Memory`].
    pub memory: u32,
    /// Zero.
    pub padding: u32,
    /// What they must have room for.
    pub format: Format,
    /// V4L2_BUF_CAP_*.
    pub capabilities: u32,
    /// V4L2_MEMORY_FLAG_*.
    pub flags: u32,
    /// Most that a queue may have.
    pub max_num_buffers: u32,
    /// Zero.
    pub reserved: [u32; 5],
}

/// `V4L2_FIELD_ANY`: the driver leaves it open.
pub const FIELD_ANY: u32 = 0;
/// `V4L2_BUF_CAP_SUPPORTS_MMAP`.
pub const CAN_MMAP: u32 = 1;
/// `V4L2_BUF_CAP_SUPPORTS_USERPTR`: pages of the guest.
pub const CAN_SHARE_PAGES: u32 = 2;
/// `V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS`: buffers may go while their memory is mapped.
pub const CAN_BE_ORPHANED: u32 = 0x10;

const _: () = {
    assert!(size_of::<Buffer>() == 88);
    assert!(size_of::<Plane>() == 64);
    assert!(size_of::<RequestBuffers>() == 20);
    assert!(size_of::<CreateBuffers>() == 256);
};
