// SPDX-License-Identifier: Apache-2.0

//! Counters of a device, readable from any thread at no cost to the one that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer, its queue's thread: no locked instruction is needed to add.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds, from the one thread that writes; wraps at 2^64.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }
}

/// What one queue has done since the service started.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Chains taken from the driver.
    pub requests: Counter,
    /// Chains given back.
    pub completed: Counter,
    /// Chains answered as wrong: malformed, or refused by the device as invalid.
    pub errors: Counter,
    /// Bytes that drivers offered for reading.
    pub bytes_read: Counter,
    /// Bytes written for drivers.
    pub bytes_written: Counter,
    /// Wake-ups by the driver.
    pub kicks: Counter,
    /// Interrupts sent to the driver.
    pub signals: Counter,
    /// Times the ring was found corrupt and set aside until its next start.
    pub broken: Counter,
}

impl QueueStats {
    /// Counts a ring that is set aside. Returns whether the log is to say so: a guest can break its
    /// rings as often as it resets its device, so of a thousand times it says ten.
    pub(crate) fn note_broken(&self) -> bool {
        self.broken.add(1);
        self.broken.get().is_power_of_two()
    }

    /// Every counter with its name, as it is shown to people and programs.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 8] {
        [
            ("requests", self.requests.get()),
            ("completed", self.completed.get()),
            ("errors", self.errors.get()),
            ("bytes_read", self.bytes_read.get()),
            ("bytes_written", self.bytes_written.get()),
            ("kicks", self.kicks.get()),
            ("signals", self.signals.get()),
            ("broken", self.broken.get()),
        ]
    }
}

/// What a device has done since the service started.
#[derive(Clone, Debug)]
pub struct DeviceStats(Arc<Vec<(&'static str, QueueStats)>>);

impl DeviceStats {
    pub(crate) fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Self(Arc::new(
            names.map(|name| (name, QueueStats::default())).collect(),
        ))
    }

    /// The queues with their names, by index.
    pub fn queues(&self) -> impl Iterator<Item = (&'static str, &QueueStats)> {
        self.0.iter().map(|(name, stats)| (*name, stats))
    }

    /// The counters of one queue.
    #[must_use]
    pub fn queue(&self, index: usize) -> Option<&QueueStats> {
        self.0.get(index).map(|(_, stats)| stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_breaks_its_rings_all_day_does_not_fill_the_log() {
        let stats = QueueStats::default();
        let said = (0..1_000_000).filter(|_| stats.note_broken()).count();
        assert_eq!((said, stats.broken.get()), (20, 1_000_000));
    }
}
