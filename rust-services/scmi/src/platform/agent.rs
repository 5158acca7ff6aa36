// SPDX-License-Identifier: Apache-2.0

//! One agent: a guest, with what waits for its event queue.

use std::collections::VecDeque;

use crate::backend::Ticket;
use crate::platform::system::SystemRight;
use crate::wire::{Event, Status};

/// Notifications that wait for an agent at most; more are dropped, as SCMI allows.
const MOST_NOTIFICATIONS: usize = 256;
/// Agents of one platform at most: they are bits of a word.
pub const MOST_AGENTS: usize = 16;

/// Which agent, by its place in the configuration.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AgentId(u8);

impl AgentId {
    /// The agent at `index`, below [`MOST_AGENTS`].
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self(u8::try_from(index).unwrap_or(u8::MAX))
    }

    /// Place in the configuration.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// The number on the wire: 0 is the platform itself.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from(self.0).wrapping_add(1)
    }

    /// Its bit in a set of agents.
    #[must_use]
    pub fn bit(self) -> u64 {
        1_u64.checked_shl(self.0.into()).unwrap_or(0)
    }
}

/// What was counted of an agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentStatistics {
    /// Messages that were handled.
    pub messages: u64,
    /// Of these, refused with any status.
    pub refused: u64,
    /// Of these, denied by policy.
    pub denied: u64,
    /// Refused because of the rate limit.
    pub limited: u64,
    /// Notifications dropped because the agent gave no buffers.
    pub dropped: u64,
}

/// An agent.
pub struct Agent {
    /// Its name, as BASE_DISCOVER_AGENT tells it.
    pub name: String,
    /// Whether it may change the rights of others.
    pub trusted: bool,
    /// Messages a second that it may send; 0 for any number.
    pub rate_limit: u32,
    /// What it may do about the whole system.
    pub system: SystemRight,
    /// Whether it has an event queue (F_P2A_CHANNELS).
    pub p2a: bool,
    /// Wants to hear of system power requests.
    pub system_notify: bool,
    /// Wants to hear of errors.
    pub error_notify: bool,
    /// Counters.
    pub statistics: AgentStatistics,
    /// Answers to commands that were held for the back end.
    pub answers: VecDeque<(Ticket, Result<Vec<u8>, Status>)>,
    responses: VecDeque<Event>,
    notifications: VecDeque<Event>,
    window_start: u64,
    in_window: u32,
}

/// What a driver waits for.
#[derive(Default)]
pub(super) struct Owed {
    answers: VecDeque<(Ticket, Result<Vec<u8>, Status>)>,
    responses: VecDeque<Event>,
}

impl Agent {
    /// An agent that has said nothing yet.
    #[must_use]
    pub fn new(name: String, trusted: bool, rate_limit: u32, system: SystemRight) -> Self {
        Self {
            name,
            trusted,
            rate_limit,
            system,
            p2a: false,
            system_notify: false,
            error_notify: false,
            statistics: AgentStatistics::default(),
            answers: VecDeque::new(),
            responses: VecDeque::new(),
            notifications: VecDeque::new(),
            window_start: 0,
            in_window: 0,
        }
    }

    /// Counts a message at `millis` since any point in time; whether it is within the rate limit.
    pub fn admit(&mut self, millis: u64) -> bool {
        if self.rate_limit == 0 {
            return true;
        }
        if millis.saturating_sub(self.window_start) >= 1000 {
            self.window_start = millis;
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
        let admitted = self.in_window <= self.rate_limit;
        if !admitted {
            self.statistics.limited = self.statistics.limited.saturating_add(1);
        }
        admitted
    }

    pub(super) fn post(&mut self, event: Event) -> bool {
        if !self.p2a {
            return false;
        }
        if self.notifications.len() >= MOST_NOTIFICATIONS {
            self.statistics.dropped = self.statistics.dropped.saturating_add(1);
            return false;
        }
        self.notifications.push_back(event);
        true
    }

    /// Forgets what waits of the same kind about the same resource: header and second word.
    pub(super) fn forget_outdated(&mut self, event: &Event) {
        fn subject(event: &Event) -> Option<(&[u8], &[u8])> {
            let bytes = event.as_bytes();
            bytes.get(..4).zip(bytes.get(8..12))
        }
        self.notifications
            .retain(|of| subject(of) != subject(event));
    }

    /// Whether this very notification waits already.
    pub(super) fn is_waiting(&self, event: &Event) -> bool {
        let mut waiting = self.notifications.iter();
        waiting.any(|other| other.as_bytes() == event.as_bytes())
    }

    pub(super) fn respond(&mut self, event: Event) {
        self.responses.push_back(event);
    }

    pub(super) fn waiting_responses(&self) -> usize {
        self.responses.len()
    }

    pub(super) fn has_event(&self, waits: impl Fn(&Event) -> bool) -> bool {
        !self.notifications.is_empty() || self.responses.iter().any(|event| !waits(event))
    }

    pub(super) fn take_event(&mut self, waits: impl Fn(&Event) -> bool) -> Option<Event> {
        let ready = self.responses.iter().position(|event| !waits(event));
        ready
            .and_then(|place| self.responses.remove(place))
            .or_else(|| self.notifications.pop_front())
    }

    /// Saves the responses that were not sent, or replaces them by what was saved.
    pub(super) fn exchange_responses(
        &mut self,
        mut exchange: impl FnMut(Option<Event>) -> Option<Event>,
        most: u64,
    ) -> Option<()> {
        // An event without bytes ends the list.
        let mut old = std::mem::take(&mut self.responses).into_iter();
        for _ in 0..most {
            let event = exchange(old.next())?;
            if event.as_bytes().is_empty() {
                return Some(());
            }
            self.responses.push_back(event);
        }
        Some(())
    }

    pub(super) fn return_event(&mut self, event: Event) {
        self.responses.push_front(event);
    }

    /// Takes what the agent's driver waits for: answers to held commands, and delayed responses.
    pub(super) fn take_owed(&mut self) -> Owed {
        Owed {
            answers: std::mem::take(&mut self.answers),
            responses: std::mem::take(&mut self.responses),
        }
    }

    /// Puts back what [`Agent::take_owed`] took.
    pub(super) fn owe(&mut self, owed: Owed) {
        self.answers = owed.answers;
        self.responses = owed.responses;
    }

    /// Forgets all that a driver has set. What was counted stays.
    pub(super) fn reset(&mut self) {
        self.system_notify = false;
        self.error_notify = false;
        self.answers.clear();
        self.responses.clear();
        self.notifications.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_send_its_number_of_messages_in_each_second() {
        let mut agent = Agent::new("a".into(), false, 2, SystemRight::None);
        let admitted: Vec<bool> = [0, 1, 2, 999, 1000, 1001, 1002]
            .map(|at| agent.admit(at))
            .to_vec();
        assert_eq!(admitted, [true, true, false, false, true, true, false]);
        assert_eq!(agent.statistics.limited, 3);
    }

    #[test]
    fn responses_come_before_notifications_and_are_never_dropped() {
        let mut agent = Agent::new("a".into(), false, 0, SystemRight::None);
        agent.p2a = true;
        for word in 0..1000 {
            agent.post(Event::notification(1, 1, &[word]));
        }
        let response = Event::notification(2, 2, &[7]);
        agent.respond(response.clone());
        assert_eq!(agent.statistics.dropped, 1000 - 256);
        let first = agent.take_event(|_| false).unwrap();
        assert_eq!(first.as_bytes(), response.as_bytes());
    }

    #[test]
    fn a_response_that_must_wait_is_passed_by_others_and_stays() {
        let mut agent = Agent::new("a".into(), false, 0, SystemRight::None);
        agent.p2a = true;
        let [first, second] = [1, 2].map(|word| Event::notification(2, 2, &[word]));
        let told = Event::notification(1, 1, &[3]);
        agent.respond(first.clone());
        agent.respond(second.clone());
        let waits = |event: &Event| event.as_bytes() == first.as_bytes();
        assert!(agent.post(told.clone()));
        for next in [&second, &told] {
            assert!(agent.has_event(waits));
            assert_eq!(agent.take_event(waits).unwrap().as_bytes(), next.as_bytes());
        }
        assert!(!agent.has_event(waits) && agent.take_event(waits).is_none());
        let last = agent.take_event(|_| false).unwrap();
        assert_eq!(last.as_bytes(), first.as_bytes());
    }
}
