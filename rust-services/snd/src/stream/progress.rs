// SPDX-License-Identifier: Apache-2.0

//! How far a stream is in its oldest buffer, and an input stream's clock with it, in words that
//! outlive the service.

use virtio_device::{Chain, Record};

use crate::config::MOST_STREAMS;

const HEAD_SHIFT: u32 = 48;
const VALID: u64 = 1 << 47;
/// The words with the times lie behind those with the positions.
const TIMES: usize = MOST_STREAMS;

/// A stream's words in the record.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    stream: usize,
}

impl Progress {
    /// The words of a stream.
    #[must_use]
    pub fn of(stream: usize) -> Self {
        Self { stream }
    }

    fn time_word(self) -> usize {
        TIMES.saturating_add(self.stream)
    }

    /// `chain` is consumed or filled up to `bytes`, from now on.
    pub fn store(self, record: &Record, chain: &Chain, bytes: usize) {
        let head = u64::from(chain.head()) << HEAD_SHIFT;
        record.set_word(self.stream, head | VALID | bytes as u64 & (VALID - 1));
    }

    /// What follows what is stored began at `since`, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn store_time(self, record: &Record, since: u64) {
        record.set_word(self.time_word(), since);
    }

    /// The clock stands.
    pub fn clear_time(self, record: &Record) {
        record.set_word(self.time_word(), 0);
    }

    /// Nothing is consumed or filled, and the clock stands.
    pub fn clear(self, record: &Record) {
        record.set_word(self.stream, 0);
        self.clear_time(record);
    }

    /// How many bytes of `chain` a former process has consumed or filled.
    #[must_use]
    pub fn resume(self, record: &Record, chain: &Chain) -> usize {
        self.stored(record, chain).unwrap_or(0)
    }

    /// Since when `chain` would have been filled further, had the former process not died: before
    /// `now`.
    #[must_use]
    pub fn resume_time(self, record: &Record, chain: &Chain, now: u64) -> Option<u64> {
        self.stored(record, chain)?;
        let since = record.word(self.time_word());
        (since != 0 && since <= now).then_some(since)
    }

    fn stored(self, record: &Record, chain: &Chain) -> Option<usize> {
        // A chain that no process died over is new, even where its head was used before.
        if chain.deaths() == 0 {
            return None;
        }
        let word = record.word(self.stream);
        let same = word & VALID != 0 && word >> HEAD_SHIFT == u64::from(chain.head());
        same.then(|| usize::try_from(word & (VALID - 1)).unwrap_or(0))
    }
}
