// SPDX-License-Identifier: Apache-2.0

//! A delayed response is sent when the driver has seen the reply that it follows.
//!
//! Replies and events have a queue and an interrupt each, and nothing says which of two interrupts a
//! VMM hands on first. A driver tells with EVENT_IDX how far it has come; it need not, so the wait
//! has an end: a response comes late then, and is never lost.

use std::collections::VecDeque;
use std::time::Duration;

use virtio_device::Mark;

use crate::platform::MAX_ASYNC;
use crate::wire::{Event, Header, MessageType};

/// How long a response waits for a driver that tells what it has seen: a guest whose processor has
/// other things to do first. Linux waits two seconds for a response.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// How long it waits for a driver that does not tell.
pub const UNTOLD_PATIENCE: Duration = Duration::from_millis(20);
/// Nobody wakes us when a driver has seen something: we look, first so soon and then less often.
const FIRST_LOOK: Duration = Duration::from_micros(250);
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Replies that the driver may not have seen yet, and whose delayed responses are to come.
#[derive(Debug, Default)]
pub struct Order {
    unseen: VecDeque<Unseen>,
}

#[derive(Debug)]
struct Unseen {
    /// The command; `None` for all that a former process has replied to.
    command: Option<Header>,
    /// What was given back with the reply.
    mark: Mark,
    /// When that was.
    at: Duration,
    /// Whether the driver tells what it has seen.
    told: bool,
}

impl Unseen {
    /// When nobody waits for it any more.
    fn end(&self) -> Duration {
        let patience = if self.told { PATIENCE } else { UNTOLD_PATIENCE };
        self.at.saturating_add(patience)
    }

    fn next_look(&self, now: Duration) -> Duration {
        if !self.told {
            return self.end();
        }
        let age = now.saturating_sub(self.at);
        let look = now.saturating_add(age.clamp(FIRST_LOOK, LAST_LOOK));
        look.min(self.end())
    }
}

impl Order {
    /// The reply to `command` was given back. Without one: whatever was replied to by the process
    /// before this one.
    pub fn given_back(&mut self, command: Option<Header>, mark: Mark, told: bool, now: Duration) {
        // No more can wait for their responses.
        if self.unseen.len() >= MAX_ASYNC.into() {
            self.unseen.pop_front();
        }
        self.unseen.push_back(Unseen {
            command,
            mark,
            at: now,
            told,
        });
    }

    /// Forgets the replies that the driver has seen or had time enough to see.
    pub fn look(&mut self, now: Duration, has_seen: impl Fn(Mark) -> bool) {
        self.unseen
            .retain(|of| now < of.end() && !has_seen(of.mark));
    }

    /// Whether nothing is unseen.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unseen.is_empty()
    }

    /// Whether `event` is a delayed response whose reply the driver may not have seen.
    #[must_use]
    pub fn holds_back(&self, event: &Event) -> bool {
        !self.unseen.is_empty()
            && event.header().kind() == MessageType::DelayedResponse
            && self
                .unseen
                .iter()
                .any(|of| of.command.is_none_or(|of| of.delayed() == event.header()))
    }

    /// When to look again, should something be held back.
    #[must_use]
    pub fn next_look(&self, now: Duration) -> Option<Duration> {
        self.unseen.iter().map(|of| of.next_look(now)).min()
    }

    /// The queues go on after a pause, in which the driver has seen nothing.
    pub fn resume(&mut self, now: Duration) {
        for of in &mut self.unseen {
            of.at = now;
        }
    }

    /// The driver begins anew.
    pub fn clear(&mut self) {
        self.unseen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn command(token: u16) -> Header {
        Header::new(MessageType::Command, 0x15, 6, token)
    }

    fn response(token: u16) -> Event {
        Event::delayed(command(token), Ok(()))
    }

    #[test]
    fn a_response_is_held_back_until_its_own_reply_was_seen() {
        let mut order = Order::default();
        order.given_back(Some(command(1)), Mark(10), true, MILLI);
        order.given_back(Some(command(2)), Mark(11), true, MILLI);
        assert!(order.holds_back(&response(1)) && order.holds_back(&response(2)));
        assert!(!order.holds_back(&response(3)), "another one");
        let notification = Event::notification(0x15, 6, &[]);
        assert!(!order.holds_back(&notification));
        order.look(MILLI * 2, |mark| mark.0 <= 10);
        assert!(!order.holds_back(&response(1)) && order.holds_back(&response(2)));
        order.look(MILLI * 3, |_| true);
        assert!(order.is_settled());
    }

    #[test]
    fn who_never_tells_has_the_response_late() {
        for (told, patience) in [(true, PATIENCE), (false, UNTOLD_PATIENCE)] {
            let mut order = Order::default();
            order.given_back(Some(command(1)), Mark(10), told, MILLI);
            let mut now = MILLI;
            let mut looks = 0;
            while order.holds_back(&response(1)) {
                now = order.next_look(now).unwrap();
                order.look(now, |_| false);
                looks += 1;
            }
            assert_eq!(now, MILLI + patience);
            assert!(looks < 64, "{looks} looks");
        }
    }

    #[test]
    fn a_pause_is_no_time_to_see_anything_in() {
        let mut order = Order::default();
        order.given_back(Some(command(1)), Mark(10), true, MILLI);
        let later = MILLI + PATIENCE * 2;
        order.resume(later);
        order.look(later, |_| false);
        assert!(order.holds_back(&response(1)));
    }

    #[test]
    fn what_a_former_process_has_replied_to_holds_back_all_responses() {
        let mut order = Order::default();
        order.given_back(None, Mark(10), true, MILLI);
        assert!(order.holds_back(&response(1)) && order.holds_back(&response(2)));
        order.clear();
        assert!(!order.holds_back(&response(1)));
    }

    #[test]
    fn so_many_are_remembered_as_can_be_under_way() {
        let mut order = Order::default();
        for token in 0..1000 {
            order.given_back(Some(command(token)), Mark(token), true, MILLI);
        }
        let most = usize::from(MAX_ASYNC);
        assert_eq!(order.unseen.len(), most);
        assert!(order.holds_back(&response(999)));
    }
}
