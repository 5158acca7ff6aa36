// SPDX-License-Identifier: Apache-2.0

//! Events and wishes for them.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `V4L2_EVENT_EOS`.
pub const EOS: u32 = 2;
/// `V4L2_EVENT_CTRL`.
pub const CTRL: u32 = 3;
/// `V4L2_EVENT_SOURCE_CHANGE`.
pub const SOURCE_CHANGE: u32 = 5;
/// `V4L2_EVENT_ALL`, to unsubscribe.
pub const ALL: u32 = 0;
/// `V4L2_EVENT_SUB_FL_SEND_INITIAL`.
pub const SEND_INITIAL: u32 = 1;
/// `V4L2_EVENT_SUB_FL_ALLOW_FEEDBACK`.
pub const ALLOW_FEEDBACK: u32 = 2;
/// `V4L2_EVENT_CTRL_CH_VALUE`.
pub const CHANGED_VALUE: u32 = 1;
/// `V4L2_EVENT_CTRL_CH_FLAGS`.
pub const CHANGED_FLAGS: u32 = 2;
/// `V4L2_EVENT_SRC_CH_RESOLUTION`.
pub const CHANGED_RESOLUTION: u32 = 1;

/// `struct v4l2_event`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// V4L2_EVENT_*.
    pub type_: u32,
    padding: u32,
    u: [u8; 64],
    /// More to come; the driver counts those.
    pub pending: u32,
    /// Which one of the session; the driver counts those too.
    pub sequence: u32,
    /// Seconds of its time.
    pub seconds: i64,
    /// Nanoseconds of its time.
    pub nanoseconds: i64,
    /// Of which control or queue.
    pub id: u32,
    /// Zero.
    pub reserved: [u32; 8],
    padding2: u32,
}

/// `struct v4l2_event_ctrl`.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CtrlChange {
    /// What has changed.
    pub changes: u32,
    /// Of which type the control is.
    pub type_: u32,
    /// Its value.
    pub value: i64,
    /// Its flags.
    pub flags: u32,
    /// Least value.
    pub minimum: i32,
    /// Greatest value.
    pub maximum: i32,
    /// Between values.
    pub step: i32,
    /// Value at first.
    pub default: i32,
    /// Zero.
    pub padding: u32,
}

impl Event {
    /// An event with its content.
    #[must_use]
    pub fn new(type_: u32, id: u32, content: &[u8]) -> Self {
        let mut event = Self::new_zeroed();
        event.type_ = type_;
        event.id = id;
        for (to, from) in event.u.iter_mut().zip(content) {
            *to = *from;
        }
        event
    }
}

/// `struct v4l2_event_subscription`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct EventSubscription {
    /// V4L2_EVENT_*.
    pub type_: u32,
    /// Of which control.
    pub id: u32,
    /// V4L2_EVENT_SUB_FL_*.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 5],
}

const _: () = {
    assert!(size_of::<Event>() == 136);
    assert!(size_of::<CtrlChange>() == 40);
    assert!(size_of::<EventSubscription>() == 32);
};
