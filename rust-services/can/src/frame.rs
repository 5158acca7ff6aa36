// SPDX-License-Identifier: Apache-2.0

//! CAN frames: an identifier, a kind, up to 64 bytes (ISO 11898-1).

use std::fmt;

/// Bytes that an FD frame carries at most.
pub const MAX_DATA: usize = 64;
/// Bytes that a classic frame carries at most.
pub const MAX_CLASSIC_DATA: usize = 8;
/// The highest standard identifier.
pub const STANDARD_MASK: u32 = 0x7ff;
/// The highest extended identifier.
pub const EXTENDED_MASK: u32 = 0x1fff_ffff;

/// An identifier that exists: a number within the range of its format.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Id {
    number: u32,
    extended: bool,
}

impl Id {
    /// An identifier of 29 bits if `extended`, else of 11; `None` if `number` has more.
    #[must_use]
    pub const fn new(number: u32, extended: bool) -> Option<Self> {
        let most = if extended {
            EXTENDED_MASK
        } else {
            STANDARD_MASK
        };
        if number > most {
            return None;
        }
        Some(Self { number, extended })
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Whether it has 29 bits.
    #[must_use]
    pub const fn is_extended(self) -> bool {
        self.extended
    }
}

impl fmt::Display for Id {
    /// As candump prints it: three hexadecimal digits, or eight for an extended one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.extended {
            write!(f, "{:08X}", self.number)
        } else {
            write!(f, "{:03X}", self.number)
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Classic, with up to 8 bytes of data.
    Data,
    /// Classic, without data: asks for a frame of this identifier and length.
    Remote,
    /// Flexible data rate, with up to 64 bytes of data.
    Fd,
}

/// A frame.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Frame {
    id: Id,
    kind: Kind,
    len: u8,
    data: [u8; MAX_DATA],
}

impl Frame {
    /// A frame with these data, or `None` where they are too many for its kind. FD data of a length
    /// that cannot be on a bus are padded with zeroes to the next one that can, as controllers do.
    #[must_use]
    pub fn new(id: Id, kind: Kind, bytes: &[u8]) -> Option<Self> {
        let most = if kind == Kind::Fd {
            MAX_DATA
        } else {
            MAX_CLASSIC_DATA
        };
        if bytes.len() > most || kind == Kind::Remote {
            return None;
        }
        let mut data = [0; MAX_DATA];
        data.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let len = if kind == Kind::Fd {
            fd_len(bytes.len())
        } else {
            bytes.len()
        };
        Some(Self {
            id,
            kind,
            len: u8::try_from(len).ok()?,
            data,
        })
    }

    /// A request for `len` bytes, 8 at most.
    #[must_use]
    pub fn remote(id: Id, len: u8) -> Option<Self> {
        (usize::from(len) <= MAX_CLASSIC_DATA).then_some(Self {
            id,
            kind: Kind::Remote,
            len,
            data: [0; MAX_DATA],
        })
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> Id {
        self.id
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The length that it states, in bytes: for a remote frame of the data that it asks for.
    #[must_use]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Whether it states a length of 0.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its data. A remote frame has none.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match self.kind {
            Kind::Remote => &[],
            Kind::Data | Kind::Fd => self.data.get(..usize::from(self.len)).unwrap_or(&self.data),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.kind {
            Kind::Data => "#",
            Kind::Remote => "#R",
            Kind::Fd => "##0",
        };
        write!(f, "{}{mark}", self.id)?;
        self.data()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// The least length that an FD frame can have for `len` bytes, up to [`MAX_DATA`].
#[must_use]
pub const fn fd_len(len: usize) -> usize {
    match len {
        0..=8 => len,
        9..=12 => 12,
        13..=16 => 16,
        17..=20 => 20,
        21..=24 => 24,
        25..=32 => 32,
        33..=48 => 48,
        _ => MAX_DATA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_outside_of_its_format_does_not_exist() {
        assert!(Id::new(0x7ff, false).is_some());
        assert!(Id::new(0x800, false).is_none());
        assert!(Id::new(0x1fff_ffff, true).is_some());
        assert!(Id::new(0x2000_0000, true).is_none());
    }

    #[test]
    fn fd_data_are_padded_to_a_length_that_a_bus_knows() {
        let id = Id::new(1, false).unwrap();
        let frame = Frame::new(id, Kind::Fd, &[7; 9]).unwrap();
        assert_eq!(frame.data(), [7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0]);
        assert_eq!(Frame::new(id, Kind::Fd, &[1; 64]).unwrap().len(), 64);
        assert!(Frame::new(id, Kind::Fd, &[1; 65]).is_none());
        assert!(Frame::new(id, Kind::Data, &[1; 9]).is_none());
    }

    #[test]
    fn a_remote_frame_states_a_length_and_has_no_data() {
        let id = Id::new(1, false).unwrap();
        let frame = Frame::remote(id, 8).unwrap();
        assert_eq!((frame.len(), frame.data()), (8, &[][..]));
        assert!(Frame::remote(id, 9).is_none());
    }
}
