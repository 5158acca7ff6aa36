// SPDX-License-Identifier: Apache-2.0
//! When something that ended by itself is started again: at once, later, or not any more.

use crate::definition::{Cause, RestartRules};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start it again after this time.
    Restart(Duration),
    /// It ended too often for this cause: leave it alone until somebody starts it.
    Isolate,
}

/// The ends within the window, for each cause.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<Cause, VecDeque<Instant>>);

impl History {
    pub(super) fn judge(&mut self, rules: &RestartRules, cause: Cause, now: Instant) -> Verdict {
        let ends = self.0.entry(cause).or_default();
        let window = Duration::from_secs(u64::from(rules.window_s));
        while ends
            .front()
            .is_some_and(|end| now.saturating_duration_since(*end) > window)
        {
            ends.pop_front();
        }
        let before = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        if before >= rules.limit(cause) {
            return Verdict::Isolate;
        }
        ends.push_back(now);
        Verdict::Restart(delay(rules, before))
    }

    /// Somebody started it: what was is forgotten.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

fn delay(rules: &RestartRules, before: u32) -> Duration {
    let Some(doublings) = before.checked_sub(1) else {
        return Duration::ZERO;
    };
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let longest = u64::from(rules.longest_delay_ms);
    Duration::from_millis(
        u64::from(rules.delay_ms)
            .saturating_mul(factor)
            .min(longest),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_the_limit_isolates() {
        let mut rules = RestartRules::default();
        rules.limits.crash = 6;
        rules.longest_delay_ms = 700;
        let mut history = History::default();
        let now = Instant::now();
        let waits: Vec<Verdict> = (0..7)
            .map(|_| history.judge(&rules, Cause::Crash, now))
            .collect();
        let expected = [0, 100, 200, 400, 700, 700].map(Duration::from_millis);
        assert_eq!(waits[..6], expected.map(Verdict::Restart));
        assert_eq!(waits[6], Verdict::Isolate);
    }

    #[test]
    fn each_cause_is_counted_by_itself_and_old_ends_do_not_count() {
        let rules = RestartRules::default();
        let mut history = History::default();
        let now = Instant::now();
        let often = |history: &mut History, cause, now| {
            (0..20)
                .filter(|_| history.judge(&rules, cause, now) != Verdict::Isolate)
                .count()
        };
        assert_eq!(often(&mut history, Cause::Panic, now), 3);
        assert_eq!(often(&mut history, Cause::Crash, now), 5);
        assert_eq!(often(&mut history, Cause::Crash, now), 0);
        let later = now + Duration::from_secs(61);
        assert_eq!(often(&mut history, Cause::Crash, later), 5);
        history.forget();
        assert_eq!(often(&mut history, Cause::Crash, later), 5);
    }
}
