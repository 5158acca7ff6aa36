// SPDX-License-Identifier: Apache-2.0

//! When a service that died is started again.
//!
//! A service that was killed from outside is back at once, however often. One that dies by itself
//! is back at once the first time, then after 10 ms, 20 ms and so on up to a second. A guest can be
//! the cause, so no number of deaths retires the service: the session is given up, its VMM is hung
//! up on, and the service waits for the next VMM. Only a service that never came up at all ends the
//! keeper.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Deaths are remembered for so long.
const WINDOW: Duration = Duration::from_secs(30);
/// So many within the window end a session.
const DEATHS_OF_A_SESSION: usize = 10;
/// So many in a row, without ever having come up, end the keeper.
const DEATHS_AT_START: usize = 5;
const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// Exit codes that another attempt does not change: usage, an input that is none, no input, an output
/// that cannot be made, permission, configuration.
const HOPELESS: [i32; 6] = [64, 65, 66, 73, 77, 78];
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// A death as the policy judges it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) status: ExitStatus,
    /// The keeper wanted it: an update, or another record.
    pub(crate) asked: bool,
    /// The service had come up: it served a VMM, or lived for a second.
    pub(crate) had_come_up: bool,
    /// A VMM is connected.
    pub(crate) in_session: bool,
}

/// What follows a death.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Start it again after this time.
    Restart(Duration),
    /// Hang up on the VMM, and start it again after this time.
    GiveUpSession(Duration),
    /// It cannot be started: end with this exit code.
    End(u8),
}

/// The memory of deaths.
#[derive(Debug, Default)]
pub(crate) struct RestartPolicy {
    deaths: VecDeque<Instant>,
    ever_came_up: bool,
}

impl RestartPolicy {
    pub(crate) fn judge(&mut self, death: Death, now: Instant) -> Verdict {
        self.ever_came_up |= death.had_come_up;
        let killed = matches!(death.status.signal(), Some(SIGKILL | SIGTERM));
        if death.asked || killed && death.had_come_up {
            return Verdict::Restart(Duration::ZERO);
        }
        if killed {
            // No guest can do that. Whoever does it is not helped by a busy loop.
            return Verdict::Restart(FIRST_DELAY);
        }
        let hopeless = |code: &i32| HOPELESS.contains(code) && !self.ever_came_up;
        if let Some(code) = death.status.code().filter(hopeless) {
            return Verdict::End(u8::try_from(code).unwrap_or(u8::MAX));
        }
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) > WINDOW)
        {
            self.deaths.pop_front();
        }
        let count = self.deaths.len();
        if !self.ever_came_up && count >= DEATHS_AT_START {
            // EX_UNAVAILABLE
            return Verdict::End(69);
        }
        if death.in_session && count >= DEATHS_OF_A_SESSION {
            self.deaths.clear();
            return Verdict::GiveUpSession(LONGEST_DELAY);
        }
        Verdict::Restart(delay(count))
    }
}

/// Before the restart that follows so many deaths.
fn delay(deaths: usize) -> Duration {
    let Some(doublings) = deaths.checked_sub(2) else {
        return Duration::ZERO;
    };
    let factor = u32::try_from(doublings)
        .ok()
        .and_then(|doublings| 1_u32.checked_shl(doublings))
        .unwrap_or(u32::MAX);
    FIRST_DELAY.saturating_mul(factor).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(raw: i32, had_come_up: bool) -> Death {
        Death {
            status: ExitStatus::from_raw(raw),
            asked: false,
            had_come_up,
            in_session: true,
        }
    }
    const SEGFAULT: i32 = 11;
    const PANIC: i32 = 101 << 8;

    #[test]
    fn a_service_killed_from_outside_is_back_at_once_a_thousand_times() {
        let mut policy = RestartPolicy::default();
        let now = Instant::now();
        for _ in 0..1000 {
            let verdict = policy.judge(death(SIGKILL, true), now);
            assert_eq!(verdict, Verdict::Restart(Duration::ZERO));
            let verdict = policy.judge(death(SIGKILL, false), now);
            assert_eq!(verdict, Verdict::Restart(FIRST_DELAY));
        }
    }

    #[test]
    fn a_crash_loop_slows_down_and_ends_the_session_but_not_the_service() {
        let mut policy = RestartPolicy::default();
        let now = Instant::now();
        for _ in 0..3 {
            let delays: Vec<u128> = (0..9)
                .map(|_| match policy.judge(death(SEGFAULT, true), now) {
                    Verdict::Restart(delay) => delay.as_millis(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(delays, [0, 10, 20, 40, 80, 160, 320, 640, 1000]);
            let verdict = policy.judge(death(PANIC, true), now);
            assert_eq!(verdict, Verdict::GiveUpSession(LONGEST_DELAY));
        }
    }

    #[test]
    fn deaths_far_apart_do_not_add_up() {
        let mut policy = RestartPolicy::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            now += WINDOW + Duration::from_secs(1);
            let verdict = policy.judge(death(SEGFAULT, true), now);
            assert_eq!(verdict, Verdict::Restart(Duration::ZERO));
        }
    }

    #[test]
    fn a_service_that_never_comes_up_ends_the_keeper() {
        let mut policy = RestartPolicy::default();
        let now = Instant::now();
        for _ in 0..4 {
            assert!(matches!(
                policy.judge(death(PANIC, false), now),
                Verdict::Restart(_)
            ));
        }
        assert_eq!(policy.judge(death(PANIC, false), now), Verdict::End(69));
        let mut policy = RestartPolicy::default();
        assert_eq!(policy.judge(death(78 << 8, false), now), Verdict::End(78));
    }

    #[test]
    fn a_wrong_configuration_after_it_came_up_once_is_tried_again() {
        let mut policy = RestartPolicy::default();
        let now = Instant::now();
        policy.judge(death(SIGKILL, true), now);
        assert!(matches!(
            policy.judge(death(78 << 8, false), now),
            Verdict::Restart(_)
        ));
    }
}
