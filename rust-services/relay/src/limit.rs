// SPDX-License-Identifier: Apache-2.0

//! A guest or a VMM may cause a line of the log as often as it likes; the log takes only some.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets through `burst` lines per `interval` and counts the others.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    interval: Duration,
    window: Mutex<Option<Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    start: Instant,
    taken: u32,
    suppressed: u64,
}

impl RateLimit {
    /// At most `burst` lines in every `interval`.
    #[must_use]
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            window: Mutex::new(None),
        }
    }

    /// Whether a line may be written now; if so, how many were suppressed before it.
    #[must_use]
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        // Whoever meets somebody else here is one line too many anyway: never wait.
        let mut window = self.window.try_lock().ok()?;
        let fresh = Window {
            start: now,
            taken: 0,
            suppressed: 0,
        };
        let current = window.get_or_insert(fresh);
        let mut before = 0;
        if now.saturating_duration_since(current.start) >= self.interval {
            before = current.suppressed;
            *current = fresh;
        }
        if current.taken < self.burst {
            current.taken = current.taken.saturating_add(1);
            Some(before)
        } else {
            current.suppressed = current.suppressed.saturating_add(1);
            None
        }
    }
}

/// Logs at most 5 lines of this place in 10 seconds, then one that says how many were left
/// out. For everything that a guest or a VMM can cause.
///
/// ```
/// # use agl_virtio_relay::limited;
/// limited!(log::Level::Warn, "chain {} makes no sense", 7);
/// ```
#[macro_export]
macro_rules! limited {
    ($level:expr, $($argument:tt)+) => {{
        static LIMIT: $crate::RateLimit =
            $crate::RateLimit::new(5, ::std::time::Duration::from_secs(10));
        match LIMIT.admit() {
            None => {}
            Some(0) => $crate::log::log!($level, $($argument)+),
            Some(count) => $crate::log::log!(
                $level,
                "{} ({count} like it were left out)",
                format_args!($($argument)+)
            ),
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_rest_is_counted() {
        let limit = RateLimit::new(5, Duration::from_secs(10));
        let start = Instant::now();
        let written = (0..1_000_000)
            .filter(|_| limit.admit_at(start).is_some())
            .count();
        assert_eq!(written, 5);
        let later = start + Duration::from_secs(10);
        assert_eq!(limit.admit_at(later), Some(999_995));
        assert_eq!(limit.admit_at(later), Some(0));
    }

    #[test]
    fn a_calm_place_loses_nothing() {
        let limit = RateLimit::new(1, Duration::from_secs(1));
        let start = Instant::now();
        for second in 0..100 {
            assert_eq!(limit.admit_at(start + Duration::from_secs(second)), Some(0));
        }
    }
}
