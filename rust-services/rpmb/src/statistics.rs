// SPDX-License-Identifier: Apache-2.0

//! What is known about a store from outside: numbers only, never key or data.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::wire::OpResult;

/// Shared by who answers requests and who tells about it.
#[derive(Debug, Default)]
pub struct Statistics {
    requests: [AtomicU64; 6],
    results: [AtomicU64; OpResult::ALL.len()],
    blocks_written: AtomicU64,
    blocks_read: AtomicU64,
    repeated: AtomicU64,
    key_programmed: AtomicBool,
    counter: AtomicU32,
    failed: AtomicBool,
}

/// Names of request types, by their codes; the first is all that are none.
const REQUESTS: [&str; 6] = [
    "unknown",
    "program-key",
    "get-write-counter",
    "data-write",
    "data-read",
    "result-read",
];

impl Statistics {
    /// A request of a type came, and ended so.
    pub fn answered(&self, code: u16, result: OpResult) {
        let request = self.requests.get(usize::from(code));
        if let Some(count) = request.or_else(|| self.requests.first()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(count) = self.results.get(usize::from(result.code())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Blocks were written.
    pub fn wrote(&self, blocks: u64) {
        self.blocks_written.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Blocks were read.
    pub fn read(&self, blocks: u64) {
        self.blocks_read.fetch_add(blocks, Ordering::Relaxed);
    }

    /// A request that had been done before the service died was answered.
    pub fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// How the store stands.
    pub fn stands(&self, key_programmed: bool, counter: u32, failed: bool) {
        self.key_programmed.store(key_programmed, Ordering::Relaxed);
        self.counter.store(counter, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }

    /// Whether there is a key.
    #[must_use]
    pub fn key_programmed(&self) -> bool {
        self.key_programmed.load(Ordering::Relaxed)
    }

    /// The write counter.
    #[must_use]
    pub fn counter(&self) -> u32 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Whether the medium fails.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// All counters by name: requests by type, answers by result, blocks.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let requests = REQUESTS.iter().zip(&self.requests);
        let results = OpResult::ALL.iter().zip(&self.results);
        requests
            .map(|(name, count)| (format!("requests-{name}"), load(count)))
            .chain(
                results.map(|(result, count)| (format!("results-{}", result.word()), load(count))),
            )
            .chain([
                ("blocks-written".to_owned(), load(&self.blocks_written)),
                ("blocks-read".to_owned(), load(&self.blocks_read)),
                ("repeated-after-death".to_owned(), load(&self.repeated)),
            ])
            .collect()
    }
}
