// SPDX-License-Identifier: Apache-2.0

//! Frames as they lie on the wire, and the codes in them (VIRTIO 1.4, 5.12.6).

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Bytes of a frame.
pub const FRAME_SIZE: usize = 512;
/// Bytes of data in a frame: the unit that addresses and block counts are in.
pub const BLOCK_SIZE: usize = 256;
/// Bytes of a frame that its MAC is of: all from the data to the end.
pub const AUTHENTICATED_SIZE: usize = 284;
/// Bytes of a key and of a MAC.
pub const KEY_SIZE: usize = 32;
/// Bytes in one unit of the configuration's capacity.
pub const CAPACITY_UNIT: u32 = 128 * 1024;
/// Blocks in one unit of capacity.
pub const BLOCKS_PER_UNIT: u32 = 512;
/// Most units of capacity: 16 MiB.
pub const MOST_UNITS: u8 = 0x80;

/// One frame, request or response. Numbers are big endian.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frame {
    /// Padding, which no MAC is of.
    pub stuff: [u8; 196],
    /// The key in a request to program it, else the MAC.
    pub key_mac: [u8; KEY_SIZE],
    /// One block.
    pub data: [u8; BLOCK_SIZE],
    /// A number of the driver's choice, copied into the responses to reads.
    pub nonce: [u8; 16],
    /// The count of writes.
    pub write_counter: U32,
    /// Number of the first block.
    pub address: U16,
    /// How many blocks.
    pub block_count: U16,
    /// How it went.
    pub result: U16,
    /// What it is.
    pub req_resp: U16,
}

impl Default for Frame {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl Frame {
    /// A frame of a type, all else 0.
    #[must_use]
    pub fn of(req_resp: u16) -> Self {
        let mut frame = Self::default();
        frame.req_resp.set(req_resp);
        frame
    }

    /// The part that its MAC is of.
    #[must_use]
    pub fn authenticated(&self) -> &[u8] {
        self.as_bytes()
            .get(FRAME_SIZE.saturating_sub(AUTHENTICATED_SIZE)..)
            .unwrap_or_default()
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum RequestType {
    /// Program the key, once.
    ProgramKey = 1,
    /// Read the write counter.
    GetWriteCounter = 2,
    /// Write blocks.
    DataWrite = 3,
    /// Read blocks.
    DataRead = 4,
    /// Tell how the last write or programming went.
    ResultRead = 5,
}

impl RequestType {
    /// By its code.
    #[must_use]
    pub const fn of(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::ProgramKey,
            2 => Self::GetWriteCounter,
            3 => Self::DataWrite,
            4 => Self::DataRead,
            5 => Self::ResultRead,
            _ => return None,
        })
    }

    /// Its code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The code of its response.
    #[must_use]
    pub const fn response(self) -> u16 {
        response_to(self.code())
    }
}

/// The code of the response to any request.
#[must_use]
pub const fn response_to(code: u16) -> u16 {
    (code & 0xff) << 8
}

/// How an operation went: the low bits of the result.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum OpResult {
    /// It is done.
    Ok = 0,
    /// The request makes no sense, or something else.
    GeneralFailure = 1,
    /// The MAC is not that of this frame and key.
    AuthFailure = 2,
    /// The counter is another one.
    CountFailure = 3,
    /// The blocks are out of range.
    AddrFailure = 4,
    /// It could not be stored, or may not be.
    WriteFailure = 5,
    /// It could not be read.
    ReadFailure = 6,
    /// There is no key yet.
    NoAuthKey = 7,
}

impl OpResult {
    /// All of them, by their codes.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::GeneralFailure,
        Self::AuthFailure,
        Self::CountFailure,
        Self::AddrFailure,
        Self::WriteFailure,
        Self::ReadFailure,
        Self::NoAuthKey,
    ];

    /// Its code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The operation's part of a result.
    #[must_use]
    pub fn of(result: u16) -> Option<Self> {
        let code = result & !COUNTER_EXPIRED;
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    /// In words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::GeneralFailure => "general-failure",
            Self::AuthFailure => "authentication-failure",
            Self::CountFailure => "counter-failure",
            Self::AddrFailure => "address-failure",
            Self::WriteFailure => "write-failure",
            Self::ReadFailure => "read-failure",
            Self::NoAuthKey => "no-key",
        }
    }
}

/// The bit of a result that says that the counter has reached its end.
pub const COUNTER_EXPIRED: u16 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_standard_has_them() {
        assert_eq!(size_of::<Frame>(), FRAME_SIZE);
        assert_eq!(align_of::<Frame>(), 1);
        let mut bytes = [0; FRAME_SIZE];
        bytes[196] = 1;
        bytes[228] = 2;
        bytes[484] = 3;
        bytes[500..].copy_from_slice(&[0, 0, 1, 2, 3, 4, 5, 6, 0, 0x87, 3, 0]);
        let frame = Frame::read_from_bytes(&bytes).unwrap();
        assert_eq!((frame.key_mac[0], frame.data[0], frame.nonce[0]), (1, 2, 3));
        assert_eq!(frame.write_counter.get(), 0x102);
        assert_eq!(frame.address.get(), 0x304);
        assert_eq!(frame.block_count.get(), 0x506);
        assert_eq!(frame.result.get(), 0x87);
        assert_eq!(OpResult::of(frame.result.get()), Some(OpResult::NoAuthKey));
        assert_eq!(frame.req_resp.get(), RequestType::DataWrite.response());
        assert_eq!(frame.authenticated(), &bytes[228..]);
        assert_eq!(frame.authenticated().len(), AUTHENTICATED_SIZE);
    }
}
