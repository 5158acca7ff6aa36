// SPDX-License-Identifier: Apache-2.0

//! Which chains of a queue are in flight, in memory that outlives the service.
//!
//! The layout and the order of writes are those of vhost-user, "Inflight I/O tracking", split
//! virtqueue, with batches of one: a death between any two writes leaves a state from which it is
//! known which chains were not given back. Of the five padding bytes of a descriptor's state,
//! one counts the deaths it was in flight at, another those at which it was being worked on: a chain
//! that only waited while the service was killed is no suspect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agl_virtio_relay::record::{MAX_QUEUE_SIZE, Record};
use vm_memory::{Bytes, VolatileSlice};

const VERSION_AT: usize = 8;
const DESC_NUM_AT: usize = 10;
const LAST_HEAD_AT: usize = 12;
const USED_IDX_AT: usize = 14;
const STATES_AT: usize = 16;
const STATE_SIZE: usize = 16;

const INFLIGHT: usize = 0;
const DEATHS: usize = 2;
const BLAME: usize = 3;
const NEXT: usize = 6;
const COUNTER: usize = 8;

/// The layout's version; 0 is a record nobody has used.
const VERSION: u16 = 1;

/// The record of one queue.
pub(crate) struct Inflight {
    record: Arc<Record>,
    queue: usize,
    counter: u64,
}

/// A chain that a former process had taken and not given back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lost {
    pub(crate) head: u16,
    pub(crate) deaths: u8,
    pub(crate) blame: u8,
}

impl Inflight {
    pub(crate) fn new(record: Arc<Record>, queue: usize) -> Self {
        Self {
            record,
            queue,
            counter: 0,
        }
    }

    fn slice(&self) -> Option<VolatileSlice<'_>> {
        self.record.queue(self.queue)
    }

    fn load<T: vm_memory::AtomicAccess + Default>(&self, at: usize) -> T {
        self.slice()
            .and_then(|s| s.load(at, Ordering::Acquire).ok())
            .unwrap_or_default()
    }

    fn store<T: vm_memory::AtomicAccess>(&self, at: usize, value: T) {
        if let Some(slice) = self.slice() {
            let _ = slice.store(value, at, Ordering::Release);
        }
    }

    /// Forgets everything: the queue starts anew with `size` descriptors, its used index at
    /// `used_idx`.
    pub(crate) fn clear(&mut self, size: u16, used_idx: u16) {
        self.store(VERSION_AT, 0_u16);
        for head in 0..MAX_QUEUE_SIZE {
            // A page of the record that was never written is not allocated by looking at it.
            if self.load::<u8>(state(head, INFLIGHT)) != 0
                || self.load::<u8>(state(head, DEATHS)) != 0
            {
                self.store(state(head, INFLIGHT), 0_u8);
                self.store(state(head, DEATHS), 0_u16);
            }
        }
        self.record.set_in_hand(self.queue, None);
        self.counter = 0;
        self.store(DESC_NUM_AT, size);
        self.store(LAST_HEAD_AT, 0_u16);
        self.store(USED_IDX_AT, used_idx);
        self.store(VERSION_AT, VERSION);
    }

    /// Whether this is the record of a queue of `size` descriptors whose ring stands at `used_idx`.
    pub(crate) fn matches(&self, size: u16, used_idx: u16) -> bool {
        let behind = used_idx.wrapping_sub(self.load::<u16>(USED_IDX_AT));
        self.load::<u16>(VERSION_AT) == VERSION
            && self.load::<u16>(DESC_NUM_AT) == size
            && behind <= 1
    }

    /// How many chains are in flight for a ring that stands at `used_idx`.
    pub(crate) fn count(&self, size: u16, used_idx: u16) -> u16 {
        let finished = self.half_finished(used_idx);
        let open = (0..size)
            .filter(|head| Some(*head) != finished && self.load::<u8>(state(*head, INFLIGHT)) != 0)
            .count();
        u16::try_from(open).unwrap_or(u16::MAX)
    }

    /// The chain whose used index was written and whose end was not recorded any more.
    fn half_finished(&self, used_idx: u16) -> Option<u16> {
        (self.load::<u16>(USED_IDX_AT) != used_idx).then(|| self.load::<u16>(LAST_HEAD_AT))
    }

    /// Takes over from a process that died: the chains it had taken and not given back, in the
    /// order in which it took them.
    pub(crate) fn recover(&mut self, size: u16, used_idx: u16) -> Vec<Lost> {
        if let Some(head) = self.half_finished(used_idx) {
            self.store(
                state(head.min(MAX_QUEUE_SIZE.saturating_sub(1)), INFLIGHT),
                0_u8,
            );
            self.store(USED_IDX_AT, used_idx);
        }
        let in_hand = self.record.in_hand(self.queue);
        // It is blamed for this death once, however many more there are before it is taken again.
        self.record.set_in_hand(self.queue, None);
        let mut lost: Vec<(u64, Lost)> = (0..size)
            .filter(|head| self.load::<u8>(state(*head, INFLIGHT)) != 0)
            .map(|head| {
                let deaths = self.load::<u8>(state(head, DEATHS)).saturating_add(1);
                self.store(state(head, DEATHS), deaths);
                let blame = self
                    .load::<u8>(state(head, BLAME))
                    .saturating_add(u8::from(in_hand == Some(head)));
                self.store(state(head, BLAME), blame);
                (
                    self.load::<u64>(state(head, COUNTER)),
                    Lost {
                        head,
                        deaths,
                        blame,
                    },
                )
            })
            .collect();
        lost.sort_unstable_by_key(|(counter, _)| *counter);
        self.counter = lost
            .last()
            .map_or(0, |(counter, _)| counter.saturating_add(1));
        lost.into_iter().map(|(_, chain)| chain).collect()
    }

    /// Whether the chain at `head` is in flight.
    #[inline]
    pub(crate) fn is_taken(&self, head: u16) -> bool {
        self.load::<u8>(state(head, INFLIGHT)) != 0
    }

    /// The chain at `head`, or none, is being worked on from now on.
    #[inline]
    pub(crate) fn in_hand(&self, head: Option<u16>) {
        self.record.set_in_hand(self.queue, head);
    }

    /// The chain at `head` was taken.
    #[inline]
    pub(crate) fn taken(&mut self, head: u16) {
        if let Some(slice) = self.slice() {
            let _ = slice.store(self.counter, state(head, COUNTER), Ordering::Relaxed);
            // Deaths and blame at once.
            let _ = slice.store(0_u16, state(head, DEATHS), Ordering::Relaxed);
            let _ = slice.store(1_u8, state(head, INFLIGHT), Ordering::Release);
        }
        self.counter = self.counter.wrapping_add(1);
    }

    /// The used index is about to be written for `head`.
    #[inline]
    pub(crate) fn finishing(&self, head: u16) {
        if let Some(slice) = self.slice() {
            let last: u16 = slice.load(LAST_HEAD_AT, Ordering::Relaxed).unwrap_or(0);
            let _ = slice.store(last, state(head, NEXT), Ordering::Relaxed);
            let _ = slice.store(head, LAST_HEAD_AT, Ordering::Release);
        }
    }

    /// The used index was written for `head`, and is `used_idx` now.
    #[inline]
    pub(crate) fn finished(&self, head: u16, used_idx: u16) {
        if let Some(slice) = self.slice() {
            let _ = slice.store(0_u8, state(head, INFLIGHT), Ordering::Release);
            let _ = slice.store(used_idx, USED_IDX_AT, Ordering::Release);
        }
    }
}

/// Offset of a field in the state of the descriptor `head`, which is below [`MAX_QUEUE_SIZE`].
#[inline]
fn state(head: u16, field: usize) -> usize {
    STATES_AT
        .saturating_add(usize::from(head).saturating_mul(STATE_SIZE))
        .saturating_add(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflight(record: &Arc<Record>) -> Inflight {
        Inflight::new(Arc::clone(record), 3)
    }

    #[test]
    fn chains_in_flight_come_back_in_the_order_they_were_taken() {
        let record = Arc::new(Record::create().unwrap());
        let mut before = inflight(&record);
        before.clear(8, 0);
        for head in [5, 2, 7, 0] {
            before.taken(head);
        }
        before.finishing(2);
        before.finished(2, 1);

        let mut after = inflight(&record);
        assert!(after.matches(8, 1));
        assert_eq!(after.count(8, 1), 3);
        let heads: Vec<u16> = after.recover(8, 1).iter().map(|lost| lost.head).collect();
        assert_eq!(heads, [5, 7, 0]);
    }

    #[test]
    fn a_death_before_the_used_index_leaves_the_chain_in_flight() {
        let record = Arc::new(Record::create().unwrap());
        let mut before = inflight(&record);
        before.clear(8, 0);
        before.taken(4);
        before.finishing(4);

        let mut after = inflight(&record);
        let lost = |deaths| Lost {
            head: 4,
            deaths,
            blame: 0,
        };
        assert_eq!(after.recover(8, 0), [lost(1)]);
        assert_eq!(inflight(&record).recover(8, 0), [lost(2)]);
    }

    #[test]
    fn only_the_chain_that_was_being_worked_on_is_blamed_for_a_death() {
        let record = Arc::new(Record::create().unwrap());
        let mut process = inflight(&record);
        process.clear(8, 0);
        process.taken(1);
        process.taken(6);
        let blame = |hand| {
            process.in_hand(hand);
            let mut next = inflight(&record);
            next.recover(8, 0)
                .iter()
                .map(|lost| lost.blame)
                .collect::<Vec<_>>()
        };
        assert_eq!(blame(Some(6)), [0, 1]);
        assert_eq!(blame(None), [0, 1], "it only waited");
        assert_eq!(blame(Some(6)), [0, 2]);
        process.finishing(6);
        process.finished(6, 1);
        process.taken(6);
        let lost = process.recover(8, 1);
        assert_eq!(
            lost.last().map(|lost| (lost.head, lost.blame)),
            Some((6, 0))
        );
    }

    #[test]
    fn a_death_after_the_used_index_leaves_nothing() {
        let record = Arc::new(Record::create().unwrap());
        let mut before = inflight(&record);
        before.clear(8, 41);
        before.taken(4);
        before.finishing(4);

        let mut after = inflight(&record);
        assert!(after.matches(8, 42));
        assert_eq!(after.count(8, 42), 0);
        assert_eq!(after.recover(8, 42), []);
    }

    #[test]
    fn a_record_of_another_ring_does_not_match() {
        let record = Arc::new(Record::create().unwrap());
        let mut queue = inflight(&record);
        assert!(!queue.matches(8, 0), "nobody has used it");
        queue.clear(8, 10);
        assert!(!queue.matches(16, 10));
        assert!(!queue.matches(8, 9));
        assert!(!queue.matches(8, 12));
    }
}
