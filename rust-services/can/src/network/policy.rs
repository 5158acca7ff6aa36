// SPDX-License-Identifier: Apache-2.0

//! What a guest may send and hear.

use std::time::Duration;

use crate::frame::Id;
use crate::identifiers::IdSet;

/// A limit on frames of some identifiers, as a bucket that fills with time.
#[derive(Clone, Debug)]
pub struct Limit {
    ids: IdSet,
    /// Time that one frame is worth.
    interval: Duration,
    /// How much the bucket holds.
    depth: Duration,
    /// When the bucket is full again.
    full_at: Duration,
}

impl Limit {
    /// At most `per_second` frames of `ids` in the long run, and `burst` at once.
    #[must_use]
    pub fn new(ids: IdSet, per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1)
            .checked_div(per_second)
            .unwrap_or(Duration::from_secs(1));
        Self {
            ids,
            interval,
            depth: interval.saturating_mul(burst),
            full_at: Duration::ZERO,
        }
    }

    /// When a frame taken now would leave the bucket full again; `None` if there is none to take.
    fn take(&self, now: Duration) -> Option<Duration> {
        let full_at = self.full_at.max(now).saturating_add(self.interval);
        (full_at.saturating_sub(now) <= self.depth).then_some(full_at)
    }
}

/// Why a frame is not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The guest may not send this identifier.
    Denied,
    /// It sends too many of this identifier.
    Limited,
}

/// The policy of a controller.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What its guest may send.
    pub send: IdSet,
    /// What it may hear.
    pub receive: IdSet,
    /// What it is told first, and what takes the place of other frames when it is slow.
    pub urgent: IdSet,
    /// How often it may send what.
    pub limits: Vec<Limit>,
}

impl Default for Policy {
    /// Everything is allowed, and nothing is urgent.
    fn default() -> Self {
        Self {
            send: IdSet::any(),
            receive: IdSet::any(),
            urgent: IdSet::default(),
            limits: Vec::new(),
        }
    }
}

impl Policy {
    /// Lets a frame pass, or not: then nothing is counted against its limits.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&mut self, id: Id, now: Duration) -> Result<(), Refusal> {
        if !self.send.contains(id) {
            return Err(Refusal::Denied);
        }
        let applies = |limit: &&mut Limit| limit.ids.contains(id);
        let limits = self.limits.iter();
        if limits
            .clone()
            .any(|limit| limit.ids.contains(id) && limit.take(now).is_none())
        {
            return Err(Refusal::Limited);
        }
        for limit in self.limits.iter_mut().filter(applies) {
            if let Some(full_at) = limit.take(now) {
                limit.full_at = full_at;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Id {
        Id::new(number, false).unwrap()
    }

    #[test]
    fn a_limit_admits_its_burst_then_its_rate() {
        let ids = IdSet::parse(&["100-1ff"]).unwrap();
        let mut policy = Policy {
            limits: vec![Limit::new(ids, 100, 3)],
            ..Policy::default()
        };
        let start = Duration::from_secs(5);
        let admitted = |policy: &mut Policy, now| {
            (0..10)
                .filter(|_| policy.admit(id(0x123), now).is_ok())
                .count()
        };
        assert_eq!(admitted(&mut policy, start), 3);
        assert_eq!(admitted(&mut policy, start + Duration::from_millis(9)), 0);
        assert_eq!(admitted(&mut policy, start + Duration::from_millis(10)), 1);
        assert_eq!(admitted(&mut policy, start + Duration::from_secs(9)), 3);
        assert_eq!(
            policy.admit(id(0x123), start + Duration::from_secs(9)),
            Err(Refusal::Limited)
        );
        assert_eq!(
            policy.admit(id(0x200), start + Duration::from_secs(9)),
            Ok(())
        );
    }

    #[test]
    fn what_one_limit_refuses_is_not_counted_by_another() {
        let wide = Limit::new(IdSet::any(), 1, 2);
        let narrow = Limit::new(IdSet::parse(&["100"]).unwrap(), 1, 1);
        let mut policy = Policy {
            limits: vec![wide, narrow],
            ..Policy::default()
        };
        assert_eq!(policy.admit(id(0x100), Duration::ZERO), Ok(()));
        assert_eq!(
            policy.admit(id(0x100), Duration::ZERO),
            Err(Refusal::Limited)
        );
        assert_eq!(policy.admit(id(0x101), Duration::ZERO), Ok(()));
        assert_eq!(
            policy.admit(id(0x101), Duration::ZERO),
            Err(Refusal::Limited)
        );
    }

    #[test]
    fn what_may_not_be_sent_is_denied() {
        let mut policy = Policy {
            send: IdSet::parse(&["100-1ff"]).unwrap(),
            ..Policy::default()
        };
        assert_eq!(
            policy.admit(id(0x200), Duration::ZERO),
            Err(Refusal::Denied)
        );
        assert_eq!(policy.admit(id(0x1ff), Duration::ZERO), Ok(()));
    }
}
