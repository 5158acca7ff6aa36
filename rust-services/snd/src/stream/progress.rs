// SPDX-License-Identifier: Apache-2.0

//! How far an output stream is in its oldest buffer, in a word that outlives the service.

use virtio_device::{Chain, Record};

const HEAD_SHIFT: u32 = 48;
const VALID: u64 = 1 << 47;

/// A stream's word in the record.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    word: usize,
}

impl Progress {
    /// The word of a stream.
    #[must_use]
    pub fn of(stream: usize) -> Self {
        Self { word: stream }
    }

    /// `chain` is consumed up to `bytes`, from now on.
    pub fn store(self, record: &Record, chain: &Chain, bytes: usize) {
        let head = u64::from(chain.head()) << HEAD_SHIFT;
        record.set_word(self.word, head | VALID | bytes as u64 & (VALID - 1));
    }

    /// Nothing is consumed.
    pub fn clear(self, record: &Record) {
        record.set_word(self.word, 0);
    }

    /// How many bytes of `chain` a former process has consumed.
    #[must_use]
    pub fn resume(self, record: &Record, chain: &Chain) -> usize {
        // A chain that no process died over is new, even where its head was used before.
        if chain.deaths() == 0 {
            return 0;
        }
        let word = record.word(self.word);
        let same = word & VALID != 0 && word >> HEAD_SHIFT == u64::from(chain.head());
        if same {
            usize::try_from(word & (VALID - 1)).unwrap_or(0)
        } else {
            0
        }
    }
}
