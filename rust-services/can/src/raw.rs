// SPDX-License-Identifier: Apache-2.0

//! Frames as programs of the host know them: Linux' `struct can_frame` (16 bytes) and
//! `struct canfd_frame` (72 bytes), in the host's byte order.

use crate::frame::{EXTENDED_MASK, Frame, Id, Kind, STANDARD_MASK};

/// Bytes of a classic frame.
pub const CLASSIC_SIZE: usize = 16;
/// Bytes of an FD frame.
pub const FD_SIZE: usize = 72;
/// Bytes before the data.
const HEADER_SIZE: usize = 8;

const EXTENDED: u32 = 0x8000_0000;
const REMOTE: u32 = 0x4000_0000;
const ERROR: u32 = 0x2000_0000;
/// The data of an FD frame go at the higher rate, and it is one: `CANFD_BRS`, `CANFD_FDF`.
const FD_FLAGS: u8 = 0x01 | 0x04;

/// Error classes of error frames (`linux/can/error.h`).
pub const BUS_OFF: u32 = 0x40;
/// The controller takes part again.
pub const RESTARTED: u32 = 0x100;

/// What the host has sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// A frame.
    Frame(Frame),
    /// The interface reports errors of these classes.
    Error(u32),
}

/// A frame as the host's bytes, and how many there are.
#[must_use]
pub fn bytes(frame: &Frame) -> ([u8; FD_SIZE], usize) {
    let mut id = frame.id().number();
    if frame.id().is_extended() {
        id |= EXTENDED;
    }
    if frame.kind() == Kind::Remote {
        id |= REMOTE;
    }
    let mut raw = [0; FD_SIZE];
    let (flags, size) = if frame.kind() == Kind::Fd {
        (FD_FLAGS, FD_SIZE)
    } else {
        (0, CLASSIC_SIZE)
    };
    if let Some((header, data)) = raw.split_first_chunk_mut::<HEADER_SIZE>() {
        let [i0, i1, i2, i3] = id.to_ne_bytes();
        *header = [i0, i1, i2, i3, frame.len(), flags, 0, 0];
        for (to, from) in data.iter_mut().zip(frame.data()) {
            *to = *from;
        }
    }
    (raw, size)
}

/// An error frame of some classes.
#[must_use]
pub fn error_frame(classes: u32) -> [u8; CLASSIC_SIZE] {
    let mut raw = [0; CLASSIC_SIZE];
    if let Some((id, rest)) = raw.split_first_chunk_mut::<4>() {
        *id = (ERROR | classes).to_ne_bytes();
        // Eight bytes that say no more.
        if let Some(len) = rest.first_mut() {
            *len = 8;
        }
    }
    raw
}

/// Reads the host's bytes; `None` where they are no frame.
#[must_use]
pub fn parse(raw: &[u8]) -> Option<Heard> {
    let fd = match raw.len() {
        CLASSIC_SIZE => false,
        FD_SIZE => true,
        _ => return None,
    };
    let ([i0, i1, i2, i3, len, ..], data) = raw.split_first_chunk::<HEADER_SIZE>()?;
    let id = u32::from_ne_bytes([*i0, *i1, *i2, *i3]);
    if id & ERROR != 0 {
        return Some(Heard::Error(id & EXTENDED_MASK));
    }
    let extended = id & EXTENDED != 0;
    let mask = if extended {
        EXTENDED_MASK
    } else {
        STANDARD_MASK
    };
    let number = Id::new(id & EXTENDED_MASK & mask, extended)?;
    let frame = if id & REMOTE != 0 {
        if fd {
            return None;
        }
        Frame::remote(number, *len)?
    } else {
        let kind = if fd { Kind::Fd } else { Kind::Data };
        Frame::new(number, kind, data.get(..usize::from(*len))?)?
    };
    Some(Heard::Frame(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_after_the_way_through_the_host() {
        let standard = Id::new(0x123, false).unwrap();
        let extended = Id::new(0x1234_5678, true).unwrap();
        let frames = [
            Frame::new(standard, Kind::Data, &[1, 2, 3]).unwrap(),
            Frame::new(extended, Kind::Data, &[]).unwrap(),
            Frame::remote(extended, 5).unwrap(),
            Frame::new(standard, Kind::Fd, &[3; 64]).unwrap(),
        ];
        for frame in frames {
            let (raw, size) = bytes(&frame);
            assert_eq!(parse(&raw[..size]), Some(Heard::Frame(frame)));
        }
    }

    #[test]
    fn error_frames_are_told_from_others_and_nonsense_is_nothing() {
        let mut raw = error_frame(BUS_OFF);
        assert_eq!(parse(&raw), Some(Heard::Error(BUS_OFF)));
        assert_eq!(parse(&raw[..15]), None);
        raw[..4].copy_from_slice(&1_u32.to_ne_bytes());
        raw[4] = 9;
        assert_eq!(parse(&raw), None);
    }
}
