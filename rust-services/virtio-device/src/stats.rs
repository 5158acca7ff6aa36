// SPDX-License-Identifier: Apache-2.0

//! Counters of a device, readable from any thread at no cost to the one that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// Upper ends of the ranges in which [`Latencies`] counts, in microseconds: each four times the one
/// before.
const RANGES: [(u64, &str); 11] = [
    (1, "latency_us_1"),
    (4, "latency_us_4"),
    (16, "latency_us_16"),
    (64, "latency_us_64"),
    (256, "latency_us_256"),
    (1024, "latency_us_1024"),
    (4096, "latency_us_4096"),
    (16_384, "latency_us_16384"),
    (65_536, "latency_us_65536"),
    (262_144, "latency_us_262144"),
    (1_048_576, "latency_us_1048576"),
];

/// How long chains were with the device: from the wake-up that found them to their being given back.
/// A buffer of a sound stream is with the device until it has been played.
#[derive(Debug, Default)]
pub struct Latencies {
    ranges: [Counter; RANGES.len()],
    longer: Counter,
}

impl Latencies {
    pub(crate) fn add(&self, latency: Duration) {
        let micros = latency.as_micros();
        let mut ranges = RANGES.iter().zip(&self.ranges);
        let range = ranges.find(|((end, _), _)| micros <= u128::from(*end));
        range.map_or(&self.longer, |(_, counter)| counter).add(1);
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
    /// How long chains were with the device.
    pub latencies: Latencies,
}

impl QueueStats {
    /// Counts a ring that is set aside. Returns whether the log is to say so: a guest can break its
    /// rings as often as it resets its device, so of a thousand times it says ten.
    pub(crate) fn note_broken(&self) -> bool {
        self.broken.add(1);
        self.broken.get().is_power_of_two()
    }

    /// Every counter with its name, as it is shown to people and programs. `latency_us_N` counts
    /// the chains that were with the device for up to N microseconds, and longer than the range
    /// before; `latency_us_more` those of more than a second.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 20] {
        let [a, b, c, d, e, f, g, h, i, j, k] = std::array::from_fn(|range| {
            let (name, counter) = (RANGES.get(range), self.latencies.ranges.get(range));
            (
                name.map_or("", |(_, name)| *name),
                counter.map_or(0, Counter::get),
            )
        });
        [
            ("requests", self.requests.get()),
            ("completed", self.completed.get()),
            ("errors", self.errors.get()),
            ("bytes_read", self.bytes_read.get()),
            ("bytes_written", self.bytes_written.get()),
            ("kicks", self.kicks.get()),
            ("signals", self.signals.get()),
            ("broken", self.broken.get()),
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            ("latency_us_more", self.latencies.longer.get()),
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
    fn each_latency_is_counted_in_its_range_and_in_no_other() {
        let stats = QueueStats::default();
        for micros in [0, 1, 2, 4, 5, 300, 1_048_576, 1_048_577, 9_000_000] {
            stats.latencies.add(Duration::from_micros(micros));
        }
        let counters = std::collections::BTreeMap::from(stats.counters());
        assert_eq!(counters.len(), 20, "two counters have one name");
        let told = counters.into_iter().filter(|(_, count)| *count > 0);
        let told: Vec<_> = told
            .map(|(name, count)| (name.trim_start_matches("latency_us_"), count))
            .collect();
        assert_eq!(
            told,
            [
                ("1", 2),
                ("1024", 1),
                ("1048576", 1),
                ("16", 1),
                ("4", 2),
                ("more", 2)
            ]
        );
    }

    #[test]
    fn a_guest_that_breaks_its_rings_all_day_does_not_fill_the_log() {
        let stats = QueueStats::default();
        let said = (0..1_000_000).filter(|_| stats.note_broken()).count();
        assert_eq!((said, stats.broken.get()), (20, 1_000_000));
    }
}
