// SPDX-License-Identifier: Apache-2.0

//! Which timestamp belongs to which picture.
//!
//! GStreamer's times would not do: a guest may write any number on a buffer, the same one twice, or
//! ever smaller ones, and base classes straighten such times on their way. So a unit (a piece of
//! coded stream that makes one picture, or a picture to be encoded) gets a number when it enters the
//! codec; the number travels as a meta, which base classes copy from what goes in to what comes out.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use gstreamer as gst;

/// Units that are remembered: more than any codec keeps for reordering.
const MOST_UNITS: usize = 256;
/// Pieces that are remembered: one may hold part of a unit only.
const MOST_PIECES: usize = 4096;
/// Nanoseconds between the internal times of two pieces, or of two units: parsers that guess times
/// between them do not reach the next.
pub(crate) const STEP: u64 = 1_000_000_000;

static REFERENCE: LazyLock<gst::Caps> =
    LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-agl-virtio-unit"));

/// What is known of a unit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Unit {
    pub(crate) timestamp: u64,
    pub(crate) key: bool,
    /// An encoder is to make a key picture of it.
    pub(crate) force_key: bool,
}

/// The book of one session.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pieces: BTreeMap<u64, u64>,
    next_piece: u64,
    /// The piece in which the last unit began.
    last_piece: u64,
    units: BTreeMap<u64, Unit>,
    next_unit: u64,
    /// Units before this one were flushed.
    first_unit: u64,
}

impl Ledger {
    /// Books a piece of coded stream; its internal time.
    pub(crate) fn piece(&mut self, timestamp: u64) -> gst::ClockTime {
        let number = self.next_piece;
        self.next_piece = number.saturating_add(1);
        self.pieces.insert(number, timestamp);
        if self.pieces.len() > MOST_PIECES {
            self.pieces.pop_first();
        }
        time_of(number)
    }

    /// Books the unit which a parser has found in the piece of this time, or, without a time, in the
    /// one of the unit before. Its number.
    pub(crate) fn found(&mut self, time: Option<gst::ClockTime>, key: bool) -> u64 {
        let piece = time.map_or(self.last_piece, number_of);
        let piece = piece.min(self.next_piece.saturating_sub(1));
        self.last_piece = piece;
        let timestamp = self
            .pieces
            .get(&piece)
            .or_else(|| self.pieces.range(..=piece).next_back().map(|entry| entry.1))
            .copied()
            .unwrap_or_default();
        self.book(Unit {
            timestamp,
            key,
            force_key: false,
        })
    }

    /// Books a unit. Its number.
    pub(crate) fn book(&mut self, unit: Unit) -> u64 {
        let number = self.next_unit;
        self.next_unit = number.saturating_add(1);
        self.units.insert(number, unit);
        if self.units.len() > MOST_UNITS {
            self.units.pop_first();
        }
        number
    }

    /// Units that were booked until now are not to come out any more.
    pub(crate) fn flush(&mut self) {
        self.first_unit = self.next_unit;
    }

    /// Whether this buffer was made of a unit that was flushed.
    pub(crate) fn is_flushed(&self, buffer: &gst::BufferRef) -> bool {
        number_on(buffer).is_some_and(|number| number < self.first_unit)
    }

    /// The unit of this number.
    pub(crate) fn unit(&self, number: u64) -> Option<Unit> {
        self.units.get(&number).copied()
    }

    /// The unit that came out of the codec as this buffer.
    pub(crate) fn unit_of(&self, buffer: &gst::BufferRef) -> Option<Unit> {
        let number = number_on(buffer).or_else(|| buffer.pts().map(number_of))?;
        self.unit(number)
    }
}

/// The internal time of a piece or unit.
pub(crate) fn time_of(number: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(number.saturating_mul(STEP).min(i64::MAX.unsigned_abs()))
}

fn number_of(time: gst::ClockTime) -> u64 {
    time.nseconds().checked_div(STEP).unwrap_or(0)
}

/// Writes a unit's number on a buffer.
pub(crate) fn write_number(buffer: &mut gst::BufferRef, number: u64) {
    gst::meta::ReferenceTimestampMeta::add(
        buffer,
        &REFERENCE,
        gst::ClockTime::from_nseconds(number),
        gst::ClockTime::NONE,
    );
}

/// The number on a buffer.
pub(crate) fn number_on(buffer: &gst::BufferRef) -> Option<u64> {
    buffer
        .iter_meta::<gst::meta::ReferenceTimestampMeta>()
        .find(|meta| meta.reference().is_strictly_equal(&REFERENCE))
        .map(|meta| meta.timestamp().nseconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_timestamp_of_the_piece_in_which_it_begins() {
        let mut ledger = Ledger::default();
        let first = ledger.piece(700);
        let second = ledger.piece(u64::MAX);
        let third = ledger.piece(3);
        assert_eq!(ledger.unit(0), None);
        let of = |ledger: &mut Ledger, time| {
            let number = ledger.found(time, false);
            ledger.unit(number).unwrap().timestamp
        };
        assert_eq!(of(&mut ledger, Some(first)), 700);
        assert_eq!(of(&mut ledger, None), 700, "another unit of the same piece");
        assert_eq!(of(&mut ledger, Some(third)), 3);
        assert_eq!(of(&mut ledger, Some(second)), u64::MAX);
    }

    #[test]
    fn a_time_of_no_piece_is_not_trusted() {
        let mut ledger = Ledger::default();
        ledger.piece(9);
        let number = ledger.found(Some(time_of(1000)), true);
        let unit = ledger.unit(number).unwrap();
        assert_eq!((unit.timestamp, unit.key), (9, true));
    }

    #[test]
    fn the_book_does_not_grow_for_ever() {
        let mut ledger = Ledger::default();
        for number in 0..10_000 {
            let time = ledger.piece(number);
            ledger.found(Some(time), false);
        }
        assert_eq!(ledger.units.len(), MOST_UNITS);
        assert_eq!(ledger.pieces.len(), MOST_PIECES);
    }

    #[test]
    fn a_number_travels_on_a_buffer() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        assert_eq!(number_on(&buffer), None);
        write_number(buffer.get_mut().unwrap(), 77);
        assert_eq!(number_on(&buffer), Some(77));
        assert_eq!(number_on(&buffer.copy()), Some(77));
    }
}
