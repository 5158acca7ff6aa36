// SPDX-License-Identifier: Apache-2.0

//! How long a frame is on a bus, to the bit: stuff bits are counted, not estimated.
//!
//! A controller inserts a bit of the other value after five equal ones, from the start of frame to
//! the end of the checksum (classic) or of the data (FD, whose checksum has stuff bits at fixed
//! places). ISO 11898-1:2015, 10.4 and 10.5.

use std::time::Duration;

use crate::frame::{Frame, Kind};

/// Bits after the checksum: its delimiter, acknowledge and its delimiter, end of frame, and the gap
/// to the next one.
const TAIL: u64 = 1 + 2 + 7 + 3;
/// Bits that an error costs beside the part of the frame that was sent: flag, echoes of it, its
/// delimiter, and the gap.
const ERROR: u64 = 6 + 6 + 8 + 3;

/// The bit rates of a bus, in bit/s.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rates {
    /// Of classic frames, and of the arbitration of FD frames.
    pub nominal: u32,
    /// Of the data of FD frames.
    pub data: u32,
}

/// Bits on the bus at either rate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bits {
    /// At the nominal rate.
    pub nominal: u64,
    /// At the data rate.
    pub data: u64,
}

impl Bits {
    /// How long they take.
    #[must_use]
    pub fn time(self, rates: Rates) -> Duration {
        let of = |bits: u64, rate: u32| {
            bits.saturating_mul(1_000_000_000)
                .checked_div(rate.into())
                .unwrap_or(0)
        };
        let nominal = of(self.nominal, rates.nominal);
        Duration::from_nanos(nominal.saturating_add(of(self.data, rates.data)))
    }
}

/// The time of a frame from its first bit to where the next one may begin.
#[must_use]
pub fn frame_time(frame: &Frame, rates: Rates) -> Duration {
    bits(frame).time(rates)
}

/// The time of a frame that an error ends in its middle.
#[must_use]
pub fn broken_frame_time(frame: &Frame, rates: Rates) -> Duration {
    let error = Bits {
        nominal: ERROR,
        data: 0,
    };
    let half = frame_time(frame, rates).checked_div(2).unwrap_or_default();
    half.saturating_add(error.time(rates))
}

/// The bits of a frame, stuff bits and the gap behind it included.
#[must_use]
pub fn bits(frame: &Frame) -> Bits {
    let mut stream = Stream::default();
    let id = frame.id();
    stream.push(0, 1); // start of frame
    if id.is_extended() {
        stream.push(id.number() >> 18, 11);
        stream.push(0b11, 2); // substitute remote request, identifier extension
        stream.push(id.number() & 0x3_ffff, 18);
    } else {
        stream.push(id.number(), 11);
    }
    if frame.kind() == Kind::Fd {
        return fd_bits(stream, frame);
    }
    stream.push((frame.kind() == Kind::Remote).into(), 1);
    // Two bits follow in either format: identifier extension or reserved, and reserved.
    stream.push(0, 2);
    stream.push(frame.len().into(), 4);
    for byte in frame.data() {
        stream.push((*byte).into(), 8);
    }
    let checksum = stream.checksum;
    stream.push(checksum.into(), 15);
    Bits {
        nominal: stream.bits.saturating_add(TAIL),
        data: 0,
    }
}

fn fd_bits(mut stream: Stream, frame: &Frame) -> Bits {
    // Remote request substitution is dominant; a standard frame has an identifier extension bit.
    stream.push(0, if frame.id().is_extended() { 1 } else { 2 });
    stream.push(1, 1); // FD format
    stream.push(0, 1); // reserved
    stream.push(1, 1); // bit rate switch
    let nominal = stream.bits;
    stream.push(0, 1); // error state indicator
    stream.push(length_code(frame.len()), 4);
    for byte in frame.data() {
        stream.push((*byte).into(), 8);
    }
    // Stuff count and checksum, with a fixed stuff bit before and after each four of them.
    let checksum: u64 = if frame.len() > 16 {
        4 + 21 + 7
    } else {
        4 + 17 + 6
    };
    let data = stream.bits.saturating_sub(nominal).saturating_add(checksum);
    Bits {
        nominal: nominal.saturating_add(TAIL),
        data,
    }
}

/// The data length code of an FD frame of `len` bytes.
fn length_code(len: u8) -> u32 {
    match len {
        0..=8 => len.into(),
        9..=12 => 9,
        13..=16 => 10,
        17..=20 => 11,
        21..=24 => 12,
        25..=32 => 13,
        33..=48 => 14,
        _ => 15,
    }
}

/// Counts bits with those that are stuffed between them, and sums up the classic checksum.
#[derive(Default)]
struct Stream {
    bits: u64,
    /// The last bit, and how many of it were in a row.
    run: (bool, u8),
    checksum: u16,
}

impl Stream {
    /// The lowest `count` bits of `value`, the highest of them first.
    fn push(&mut self, value: u32, count: u32) {
        for place in (0..count).rev() {
            self.bit(value.checked_shr(place).unwrap_or(0) & 1 != 0);
        }
    }

    fn bit(&mut self, bit: bool) {
        let carry = (self.checksum & 0x4000 != 0) != bit;
        self.checksum = (self.checksum << 1) & 0x7fff;
        if carry {
            self.checksum ^= 0x4599;
        }
        self.bits = self.bits.saturating_add(1);
        self.run = match self.run {
            (last, count) if last == bit && count > 0 => (bit, count.saturating_add(1)),
            _ => (bit, 1),
        };
        if self.run.1 == 5 {
            self.bits = self.bits.saturating_add(1);
            self.run = (!bit, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Id;

    fn standard(id: u32, data: &[u8]) -> Frame {
        Frame::new(Id::new(id, false).unwrap(), Kind::Data, data).unwrap()
    }

    fn fd(id: u32, extended: bool, data: &[u8]) -> Frame {
        Frame::new(Id::new(id, extended).unwrap(), Kind::Fd, data).unwrap()
    }

    #[test]
    fn a_classic_frame_has_its_47_bits_its_data_and_its_stuff_bits() {
        // Nothing but zeroes to the end of the checksum, which is 0 for them: 34 bits, stuffed at
        // 5 and then, each stuff bit ending a run, after every five of the following zeroes.
        assert_eq!(bits(&standard(0, &[])).nominal, 47 + 6);
        // Alternating bits need none in identifier and data.
        let quiet = bits(&standard(0x555, &[0x55; 8])).nominal;
        assert!((47 + 64..47 + 64 + 6).contains(&quiet), "{quiet}");
        for byte in 0..=255 {
            let frame = standard(u32::from(byte) * 8, &[byte; 8]);
            let count = bits(&frame).nominal;
            assert!((111..=111 + 24).contains(&count), "{frame:?}: {count}");
        }
    }

    #[test]
    fn an_extended_frame_is_20_bits_longer() {
        let id = Id::new(0x1555_5555 & 0x1fff_ffff, true).unwrap();
        let frame = Frame::new(id, Kind::Data, &[0xaa; 8]).unwrap();
        let count = bits(&frame).nominal;
        assert!((131..131 + 8).contains(&count), "{count}");
        let remote = bits(&Frame::remote(id, 8).unwrap()).nominal;
        assert!((67..67 + 8).contains(&remote), "{remote}");
    }

    #[test]
    fn an_fd_frame_sends_its_data_at_the_higher_rate() {
        // 17 bits of arbitration and 13 behind the checksum; 5 + 64 bytes + 32 at the data rate.
        let quiet = bits(&fd(0x555, false, &[0x55; 64]));
        assert!((30..33).contains(&quiet.nominal), "{quiet:?}");
        assert!(
            (5 + 512 + 32..5 + 512 + 32 + 3).contains(&quiet.data),
            "{quiet:?}"
        );
        let short = bits(&fd(0x555, false, &[0x55; 16]));
        assert!(
            (5 + 128 + 27..5 + 128 + 27 + 3).contains(&short.data),
            "{short:?}"
        );
        let extended = bits(&fd(0x1555_5555 & 0x1fff_ffff, true, &[0x55; 64]));
        assert!((49..53).contains(&extended.nominal), "{extended:?}");
    }

    #[test]
    fn time_follows_the_rates() {
        let rates = Rates {
            nominal: 1_000_000,
            data: 8_000_000,
        };
        assert_eq!(
            frame_time(&standard(0, &[]), rates),
            Duration::from_micros(53)
        );
        let slow = Rates {
            nominal: 125_000,
            ..rates
        };
        assert_eq!(
            frame_time(&standard(0, &[]), slow),
            Duration::from_micros(424)
        );
        let frame = fd(0x555, false, &[0x55; 64]);
        let Bits { nominal, data } = bits(&frame);
        assert_eq!(
            frame_time(&frame, rates),
            Duration::from_nanos(nominal * 1000 + data * 125)
        );
    }
}
