// SPDX-License-Identifier: Apache-2.0

//! How often a guest can have a sound server make a stream anew.
//!
//! The server is shared with everybody: a guest that prepares and releases without end would keep it
//! busy with streams that come and go, and all others would hear it.

use std::time::{Duration, Instant};

/// So many streams at once are made without waiting: a guest that starts probes its card.
const BURST: u32 = 8;
/// After them, one in this time.
const EACH: Duration = Duration::from_millis(250);

/// Counts the streams that a thread has opened.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the streams opened so far are all paid for.
    paid: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            paid: Instant::now(),
        }
    }

    /// Takes a stream's turn at `now`. Returns how long to wait for it.
    pub(super) fn turn(&mut self, now: Instant) -> Duration {
        let paid = self.paid.max(now);
        self.paid = paid.checked_add(EACH).unwrap_or(paid);
        let free = EACH.saturating_mul(BURST);
        self.paid
            .saturating_duration_since(now)
            .saturating_sub(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_streams_are_free_and_then_four_a_second() {
        let start = Instant::now();
        let mut pace = Pace { paid: start };
        let waits: Vec<Duration> = (0..10).map(|_| pace.turn(start)).collect();
        assert_eq!(waits[..8], [Duration::ZERO; 8]);
        assert_eq!(waits[8..], [EACH, EACH * 2]);
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.turn(later), Duration::ZERO);
    }
}
