// SPDX-License-Identifier: Apache-2.0

//! When a silence has lasted too long.

use std::time::{Duration, Instant};

/// From the first look that finds a silence too long to the one that ends it.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// Judges a codec by how long nothing was heard of it, at two looks.
///
/// After a machine was suspended, or a virtual one stopped, all codecs have been silent for long. Who
/// lives says so between the looks.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The silence that was found too long, by its beginning, and when it was.
    suspected: Option<(Instant, Instant)>,
}

impl Verdict {
    /// Whether a silence since `since` is given up now, if `patience` is how long it may last.
    pub(crate) fn falls(&mut self, since: Instant, patience: Duration) -> bool {
        self.falls_at(Instant::now(), since, patience)
    }

    fn falls_at(&mut self, now: Instant, since: Instant, patience: Duration) -> bool {
        if now.saturating_duration_since(since) < patience {
            self.suspected = None;
            return false;
        }
        match self.suspected {
            Some((of, looked)) if of == since => {
                now.saturating_duration_since(looked) >= patience.min(SECOND_LOOK)
            }
            _ => {
                self.suspected = Some((since, now));
                false
            }
        }
    }

    /// After how long to look next.
    pub(crate) fn next_look(&self, since: Instant, patience: Duration) -> Duration {
        match self.suspected {
            Some((of, looked)) if of == since => {
                patience.min(SECOND_LOOK).saturating_sub(looked.elapsed())
            }
            _ => patience.saturating_sub(since.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn after(since: Instant, seconds: u64) -> Instant {
        since.checked_add(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn a_silence_is_given_up_at_the_second_look() {
        let (mut verdict, since) = (Verdict::default(), Instant::now());
        assert!(!verdict.falls_at(after(since, 19), since, PATIENCE));
        assert!(!verdict.falls_at(after(since, 20), since, PATIENCE));
        assert!(!verdict.falls_at(after(since, 24), since, PATIENCE));
        assert!(verdict.falls_at(after(since, 25), since, PATIENCE));
    }

    #[test]
    fn who_speaks_up_after_the_machine_stood_still_is_not_given_up() {
        let (mut verdict, since) = (Verdict::default(), Instant::now());
        // An hour in which nobody ran.
        assert!(!verdict.falls_at(after(since, 3600), since, PATIENCE));
        let since = after(since, 3601);
        assert!(!verdict.falls_at(after(since, 5), since, PATIENCE));
        // And again, without a look in between.
        assert!(!verdict.falls_at(after(since, 3600), since, PATIENCE));
        let since = after(since, 3601);
        assert!(!verdict.falls_at(after(since, 3600), since, PATIENCE));
    }

    #[test]
    fn the_next_look_is_when_the_verdict_may_fall() {
        let (mut verdict, since) = (Verdict::default(), Instant::now());
        assert!(verdict.next_look(since, PATIENCE) > Duration::from_secs(5));
        assert!(verdict.next_look(since, Duration::ZERO).is_zero());
        verdict.falls_at(after(since, 20), since, PATIENCE);
        assert_eq!(verdict.next_look(since, PATIENCE), SECOND_LOOK);
    }
}
