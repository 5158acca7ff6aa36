// SPDX-License-Identifier: Apache-2.0

//! How often something may happen.

use std::time::{Duration, Instant};

/// So many times at once, and one more after each of equal times.
#[derive(Debug)]
pub(super) struct Allowance {
    most: u32,
    each: Duration,
    left: u32,
    /// Since when none was added.
    since: Instant,
}

impl Allowance {
    pub(super) fn new(most: u32, each: Duration, now: Instant) -> Self {
        Self {
            most,
            each,
            left: most,
            since: now,
        }
    }

    /// Takes one, if it is allowed now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.grow(now);
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// After how long there is one.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        self.grow(now);
        if self.left > 0 {
            return Duration::ZERO;
        }
        let passed = now.saturating_duration_since(self.since);
        self.each.saturating_sub(passed)
    }

    fn grow(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let gained = passed.as_nanos().checked_div(self.each.as_nanos());
        let gained = u32::try_from(gained.unwrap_or(0)).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(gained).min(self.most);
        let counted = self.each.saturating_mul(gained);
        self.since = self.since.checked_add(counted).unwrap_or(now).min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_and_then_one_by_one() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut allowance = Allowance::new(3, Duration::from_millis(500), start);
        let taken =
            |allowance: &mut Allowance, ms| (0..10).filter(|_| allowance.take(after(ms))).count();
        assert_eq!(allowance.next(start), Duration::ZERO);
        assert_eq!(taken(&mut allowance, 0), 3);
        assert_eq!(allowance.next(after(100)), Duration::from_millis(400));
        assert_eq!(taken(&mut allowance, 499), 0);
        assert_eq!(taken(&mut allowance, 1100), 2);
        assert_eq!(taken(&mut allowance, 1499), 0, "what is left over counts");
        assert_eq!(taken(&mut allowance, 1500), 1);
        assert_eq!(taken(&mut allowance, 3_600_000), 3, "no more than at first");
    }
}
