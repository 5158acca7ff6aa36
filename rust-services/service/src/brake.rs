// SPDX-License-Identifier: Apache-2.0

//! How much of a processor a guest can make a real-time thread take.
//!
//! Such a thread goes before everything that is not real-time. A guest that kicks without end, asks
//! without end or sends the smallest buffers there are would have a processor of the host for
//! itself. So the thread counts what it takes, and sleeps when that is too much: what suffers is
//! this guest's device. A sound card with eight streams takes a few hundredths of what is allowed.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Over so long the share is measured: a burst that is shorter is not slowed down.
const WINDOW: Duration = Duration::from_millis(100);
/// What a thread may work at most, in hundredths of the time, where nothing else is said.
const SHARE: u32 = 75;

/// Measures one thread, and slows it down.
#[derive(Debug)]
pub struct Brake {
    share: u32,
    since: Option<(Instant, Duration)>,
}

/// See [`Brake::pause`].
#[derive(Debug)]
pub struct Pause(Duration);

impl Default for Brake {
    fn default() -> Self {
        Self::at(SHARE)
    }
}

impl Brake {
    /// Lets the thread work for `share` hundredths of the time (1 to 100).
    #[must_use]
    pub const fn at(share: u32) -> Self {
        Self { share, since: None }
    }

    /// What the thread takes until [`Brake::resume`] is not of this guest's asking, and not counted.
    #[must_use]
    pub fn pause() -> Pause {
        Pause(thread_time())
    }

    /// From now on it is counted again.
    pub fn resume(&mut self, pause: &Pause) {
        if let Some((_, taken)) = &mut self.since {
            *taken = taken.saturating_add(thread_time().saturating_sub(pause.0));
        }
    }

    /// Looks at what the calling thread took since the last window began, and sleeps if that was too
    /// much. Costs a look at the clock, and a system call per window.
    pub fn look(&mut self) {
        let now = Instant::now();
        match self.since {
            Some((began, _)) if now.saturating_duration_since(began) < WINDOW => return,
            Some((began, taken)) => {
                let worked = thread_time().saturating_sub(taken);
                let rest = rest(now.saturating_duration_since(began), worked, self.share);
                if !rest.is_zero() {
                    std::thread::sleep(rest);
                }
            }
            None => {}
        }
        self.since = Some((Instant::now(), thread_time()));
    }
}

/// How long to sleep after `worked` within `passed`, to have worked for `share` hundredths.
fn rest(passed: Duration, worked: Duration, share: u32) -> Duration {
    let within = |worked: Duration| {
        let wanted = worked.saturating_mul(100).checked_div(share);
        wanted.unwrap_or_default()
    };
    // A turn may have been long; the sleep is not, for the guest would notice.
    let most = within(WINDOW);
    within(worked).saturating_sub(passed).min(most)
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_little_never_sleeps_and_who_works_always_sleeps_a_quarter() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(100), ms(5), SHARE), Duration::ZERO);
        assert_eq!(rest(ms(100), ms(75), SHARE), Duration::ZERO);
        assert_eq!(rest(ms(120), ms(120), SHARE), ms(40));
        assert_eq!(rest(ms(100), ms(50), 25), ms(100));
        assert_eq!(rest(ms(9000), ms(9000), 25), ms(400));
    }

    #[test]
    fn what_others_ask_for_is_not_counted() {
        let mut brake = Brake::at(1);
        brake.look();
        let taken = |brake: &Brake| brake.since.map(|(_, taken)| taken).unwrap();
        let (before, pause) = (taken(&brake), Brake::pause());
        while thread_time() < pause.0 + Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        brake.resume(&pause);
        assert!(taken(&brake) >= before + Duration::from_millis(20));
        assert!(taken(&brake) <= thread_time(), "no more than it was");
    }

    #[test]
    fn a_thread_that_never_waits_is_held_to_its_share() {
        let (began, taken) = (Instant::now(), thread_time());
        let mut brake = Brake::default();
        while began.elapsed() < Duration::from_secs(1) {
            brake.look();
        }
        let (passed, worked) = (began.elapsed(), thread_time() - taken);
        // A busy machine only makes the share smaller. The last window is not slept for.
        assert!(
            worked <= passed * 3 / 4 + WINDOW,
            "{worked:?} of {passed:?}"
        );
    }
}
