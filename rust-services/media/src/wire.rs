// SPDX-License-Identifier: Apache-2.0

//! Commands, answers and events (VIRTIO 1.4, 5.22.6).
//!
//! All is little endian, and so is every host that this runs on: values lie as they are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::v4l2::{Buffer, Event, Plane};

#[cfg(target_endian = "big")]
compile_error!("the layouts of virtio-media are little endian, and taken as they are");

/// Virtio device id.
pub const DEVICE_ID: u32 = 48;
/// Commands come here.
pub const COMMANDS: usize = 0;
/// Events go out here.
pub const EVENTS: usize = 1;
/// Planes of a buffer in an event.
pub const MAX_PLANES: usize = 8;

/// The commands (5.22.6.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Begins a session.
    Open,
    /// Ends a session, without an answer.
    Close,
    /// Runs an ioctl.
    Ioctl,
    /// Maps a buffer into shared memory region 0.
    Mmap,
    /// Takes such a mapping back.
    Munmap,
}

impl Command {
    /// By its code.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Close,
            3 => Self::Ioctl,
            4 => Self::Mmap,
            5 => Self::Munmap,
            _ => return None,
        })
    }
}

/// How every command begins.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CommandHeader {
    /// See [`Command`].
    pub code: u32,
    /// Zero.
    pub reserved: u32,
}

/// The rest of CLOSE.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Close {
    /// Which session ends.
    pub session: u32,
    /// Zero.
    pub reserved: u32,
}

/// The rest of IOCTL, before its payload.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct IoctlHead {
    /// Of which session.
    pub session: u32,
    /// The ioctl's number among those of type 'V'.
    pub number: u32,
}

/// The rest of MMAP.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Mmap {
    /// Of which session.
    pub session: u32,
    /// Bit 0: to be written too.
    pub flags: u32,
    /// What QUERYBUF told as the plane's offset.
    pub offset: u32,
}

/// `VIRTIO_MEDIA_MMAP_FLAG_RW` in [`Mmap::flags`].
pub const MMAP_WRITABLE: u32 = 1;

/// The rest of MUNMAP.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Munmap {
    /// Where the mapping begins in the region.
    pub offset: u64,
}

/// The answer to MMAP.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Mapped {
    /// Success.
    pub header: ResponseHeader,
    /// Where the mapping begins in the region.
    pub offset: u64,
    /// Bytes of the plane.
    pub len: u64,
}

/// How every answer begins.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ResponseHeader {
    /// 0, or a positive error number of Linux.
    pub status: u32,
    /// Zero.
    pub reserved: u32,
}

/// The answer to OPEN.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Opened {
    /// Success.
    pub header: ResponseHeader,
    /// The new session.
    pub session: u32,
    /// Zero.
    pub reserved: u32,
}

/// A run of guest pages (5.22.6.1.4.3).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SgEntry {
    /// Guest-physical address.
    pub start: u64,
    /// Bytes.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

/// How every event begins.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct EventHeader {
    /// 0 error, 1 buffer, 2 V4L2 event.
    pub event: u32,
    /// Of which session.
    pub session: u32,
}

/// The session is lost.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ErrorEvent {
    /// With code 0.
    pub header: EventHeader,
    /// A positive error number of Linux.
    pub errno: u32,
    /// Zero.
    pub reserved: u32,
}

/// A buffer comes back.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct BufferEvent {
    /// With code 1.
    pub header: EventHeader,
    /// The buffer.
    pub buffer: Buffer,
    /// Its planes, where it has several.
    pub planes: [Plane; MAX_PLANES],
}

/// A V4L2 event.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct V4l2Event {
    /// With code 2.
    pub header: EventHeader,
    /// The event.
    pub event: Event,
}

/// The configuration space (5.22.4).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// V4L2_CAP_*.
    pub device_caps: u32,
    /// VFL_TYPE_*: 0 for a video device.
    pub device_type: u32,
    /// Its name.
    pub card: [u8; 32],
}

const _: () = {
    assert!(size_of::<Config>() == 40);
    assert!(size_of::<BufferEvent>() == 608);
    assert!(size_of::<V4l2Event>() == 144);
    assert!(size_of::<SgEntry>() == 16);
    assert!(size_of::<Mmap>() == 12);
};
