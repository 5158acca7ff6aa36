// SPDX-License-Identifier: Apache-2.0

//! The messages of the CAN device (VIRTIO 1.4, CAN Device): little-endian headers of 16 bytes, data
//! behind them, one byte back.

use crate::frame::{Frame, Id, Kind, MAX_CLASSIC_DATA, MAX_DATA};

/// Classic frames.
pub const F_CAN_CLASSIC: u64 = 1 << 0;
/// FD frames.
pub const F_CAN_FD: u64 = 1 << 1;
/// Remote frames; needs classic ones.
pub const F_RTR_FRAMES: u64 = 1 << 2;
/// A transmission is complete when the bus has acknowledged it.
pub const F_LATE_TX_ACK: u64 = 1 << 3;
/// All of them.
pub const FEATURES: u64 = F_CAN_CLASSIC | F_CAN_FD | F_RTR_FRAMES | F_LATE_TX_ACK;

/// Bit of the configuration's `status`: the controller is off the bus.
pub const S_CTRL_BUSOFF: u16 = 1 << 0;

/// Bytes before the data of a frame.
pub const HEADER_SIZE: usize = 16;
/// The largest message.
pub const MAX_MESSAGE: usize = HEADER_SIZE + MAX_DATA;

const TX: u16 = 0x0001;
const RX: u16 = 0x0101;
const START: u16 = 0x0201;
const STOP: u16 = 0x0202;

const EXTENDED: u32 = 0x8000;
const FD: u32 = 0x4000;
const RTR: u32 = 0x2000;

/// The answer to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Outcome {
    /// Done.
    Ok = 0,
    /// Not done.
    NotOk = 1,
}

/// A request of the control queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Takes part in the bus.
    Start,
    /// Leaves it.
    Stop,
}

impl Mode {
    /// Reads a request; `None` for a code that is none.
    #[must_use]
    pub const fn parse(code: [u8; 2]) -> Option<Self> {
        match u16::from_le_bytes(code) {
            START => Some(Self::Start),
            STOP => Some(Self::Stop),
            _ => None,
        }
    }
}

/// Why a message to be transmitted is no frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// The message is not `VIRTIO_CAN_TX`.
    #[error("message type {0:#06x} is no transmission")]
    Type(u16),
    /// Flags that nobody has defined.
    #[error("flags {0:#x} are not defined")]
    Flags(u32),
    /// The driver has not negotiated frames of this kind.
    #[error("{0:?} frames were not negotiated")]
    NotNegotiated(Kind),
    /// The number is out of the range of its format.
    #[error("identifier {0:#x} does not exist")]
    Identifier(u32),
    /// The kind of frame cannot carry so much.
    #[error("{length} bytes are too many for a {kind:?} frame")]
    Length {
        /// What the message says.
        length: u16,
        /// What it is.
        kind: Kind,
    },
    /// There are fewer data than the message says.
    #[error("the message ends before its data do")]
    Short,
}

/// Reads a message to be transmitted.
///
/// # Errors
/// When it is none that a driver with `features` may send.
pub fn parse_tx(message: &[u8], features: u64) -> Result<Frame, Malformed> {
    let (header, data) = message
        .split_first_chunk::<HEADER_SIZE>()
        .ok_or(Malformed::Short)?;
    let [t0, t1, l0, l1, _, _, _, _, f0, f1, f2, f3, i0, i1, i2, i3] = *header;
    let kind = u16::from_le_bytes([t0, t1]);
    if kind != TX {
        return Err(Malformed::Type(kind));
    }
    let length = u16::from_le_bytes([l0, l1]);
    let flags = u32::from_le_bytes([f0, f1, f2, f3]);
    if flags & !(EXTENDED | FD | RTR) != 0 || flags & (FD | RTR) == FD | RTR {
        return Err(Malformed::Flags(flags));
    }
    let kind = match (flags & FD != 0, flags & RTR != 0) {
        (true, _) => Kind::Fd,
        (_, true) => Kind::Remote,
        _ => Kind::Data,
    };
    if features & needed(kind) != needed(kind) {
        return Err(Malformed::NotNegotiated(kind));
    }
    let number = u32::from_le_bytes([i0, i1, i2, i3]);
    let id = Id::new(number, flags & EXTENDED != 0).ok_or(Malformed::Identifier(number))?;
    let too_long = Malformed::Length { length, kind };
    let most = if kind == Kind::Fd {
        MAX_DATA
    } else {
        MAX_CLASSIC_DATA
    };
    let len = usize::from(length);
    if len > most {
        return Err(too_long);
    }
    if kind == Kind::Remote {
        // Linux sends as many bytes as it asks for; they mean nothing.
        let len = u8::try_from(length).map_err(|_| too_long)?;
        return Frame::remote(id, len).ok_or(too_long);
    }
    let data = data.get(..len).ok_or(Malformed::Short)?;
    Frame::new(id, kind, data).ok_or(too_long)
}

/// The features that frames of a kind need.
#[must_use]
pub const fn needed(kind: Kind) -> u64 {
    match kind {
        Kind::Data => F_CAN_CLASSIC,
        Kind::Remote => F_CAN_CLASSIC | F_RTR_FRAMES,
        Kind::Fd => F_CAN_FD,
    }
}

/// A received frame as a message, and its length. A remote frame is as long as the data it asks
/// for: Linux refuses one that is shorter.
#[must_use]
pub fn rx_message(frame: &Frame) -> ([u8; MAX_MESSAGE], usize) {
    let mut flags = match frame.kind() {
        Kind::Data => 0,
        Kind::Remote => RTR,
        Kind::Fd => FD,
    };
    if frame.id().is_extended() {
        flags |= EXTENDED;
    }
    let mut message = [0; MAX_MESSAGE];
    let [t0, t1] = RX.to_le_bytes();
    let [l0, l1] = u16::from(frame.len()).to_le_bytes();
    let [f0, f1, f2, f3] = flags.to_le_bytes();
    let [i0, i1, i2, i3] = frame.id().number().to_le_bytes();
    let header = [t0, t1, l0, l1, 0, 0, 0, 0, f0, f1, f2, f3, i0, i1, i2, i3];
    if let Some((head, rest)) = message.split_first_chunk_mut::<HEADER_SIZE>() {
        *head = header;
        for (to, from) in rest.iter_mut().zip(frame.data()) {
            *to = *from;
        }
    }
    (message, HEADER_SIZE.saturating_add(frame.len().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, length: u16, flags: u32, id: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(flags.to_le_bytes());
        bytes.extend(id.to_le_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn what_is_sent_is_received_but_for_its_type() {
        let table = [
            (0, 0x123, 3, &[1_u8, 2, 3][..]),
            (EXTENDED, 0x1234_5678, 0, &[]),
            (RTR, 0x7ff, 8, &[0; 8]),
            (FD, 1, 64, &[9; 64]),
            (FD | EXTENDED, 1, 12, &[9; 12]),
        ];
        for (flags, id, length, data) in table {
            let sent = message(TX, length, flags, id, data);
            let frame = parse_tx(&sent, FEATURES).unwrap();
            let (received, len) = rx_message(&frame);
            assert_eq!(&received[..len], message(RX, length, flags, id, data));
        }
    }

    #[test]
    fn what_no_driver_may_send_is_refused_for_what_it_is() {
        let classic = F_CAN_CLASSIC;
        let table = [
            (message(RX, 0, 0, 1, &[]), FEATURES, Malformed::Type(RX)),
            (message(TX, 0, 1, 1, &[]), FEATURES, Malformed::Flags(1)),
            (
                message(TX, 0, FD | RTR, 1, &[]),
                FEATURES,
                Malformed::Flags(FD | RTR),
            ),
            (
                message(TX, 0, 0, 0x800, &[]),
                FEATURES,
                Malformed::Identifier(0x800),
            ),
            (
                message(TX, 0, EXTENDED, 0x2000_0000, &[]),
                FEATURES,
                Malformed::Identifier(0x2000_0000),
            ),
            (
                message(TX, 9, 0, 1, &[0; 9]),
                FEATURES,
                Malformed::Length {
                    length: 9,
                    kind: Kind::Data,
                },
            ),
            (
                message(TX, 65, FD, 1, &[0; 65]),
                FEATURES,
                Malformed::Length {
                    length: 65,
                    kind: Kind::Fd,
                },
            ),
            (message(TX, 8, 0, 1, &[0; 7]), FEATURES, Malformed::Short),
            (
                message(TX, 0, RTR, 1, &[]),
                classic,
                Malformed::NotNegotiated(Kind::Remote),
            ),
            (
                message(TX, 0, FD, 1, &[]),
                classic,
                Malformed::NotNegotiated(Kind::Fd),
            ),
            (
                message(TX, 0, 0, 1, &[]),
                F_CAN_FD,
                Malformed::NotNegotiated(Kind::Data),
            ),
            (vec![1, 0, 0], FEATURES, Malformed::Short),
        ];
        for (bytes, features, reason) in table {
            assert_eq!(parse_tx(&bytes, features), Err(reason));
        }
    }

    #[test]
    fn a_remote_frame_is_padded_to_its_length() {
        let sent = message(TX, 5, RTR, 1, &[1, 2, 3, 4, 5]);
        let (received, len) = rx_message(&parse_tx(&sent, FEATURES).unwrap());
        assert_eq!(len, 21);
        assert_eq!(received[16..21], [0; 5]);
    }
}
