// SPDX-License-Identifier: Apache-2.0

//! A bus in this process: who may send next, and when the frame has passed.
//!
//! Time is what the caller says it is. A bus that is looked at late has lost nothing: frames follow
//! one another without a gap as long as any wait, each decided among those that waited when the one
//! before it ended.

use std::time::Duration;

use super::Station;
use super::outbox::{Outbox, Waiting, arbitration};
use crate::frame::Frame;
use crate::timing::{Rates, broken_frame_time, frame_time};

/// Who acknowledges a frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// The bus, as if somebody listened always.
    #[default]
    Bus,
    /// Another station, as on a real bus: a frame that nobody hears waits for somebody.
    Stations,
}

/// What has happened on the bus.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame has passed and was acknowledged.
    Passed(Station, Waiting),
    /// An error has ended a frame; it is sent again.
    Broken(Station, Frame),
}

#[derive(Debug)]
struct Queue {
    outbox: Outbox,
    /// It takes part in the bus.
    live: bool,
    /// So many of its next frames meet an error.
    errors: u32,
}

#[derive(Debug)]
struct Sending {
    station: Station,
    broken: bool,
    ends: Duration,
}

/// A bus with its stations.
#[derive(Debug)]
pub(super) struct VirtualBus {
    pub(super) rates: Rates,
    acknowledge: Acknowledge,
    queues: Vec<Queue>,
    sending: Option<Sending>,
    /// When the last frame ended: none begins before, however late its sender was.
    free_at: Duration,
}

impl VirtualBus {
    pub(super) fn new(rates: Rates, acknowledge: Acknowledge) -> Self {
        Self {
            rates,
            acknowledge,
            queues: Vec::new(),
            sending: None,
            free_at: Duration::ZERO,
        }
    }

    fn queue(&mut self, station: Station) -> Option<&mut Queue> {
        self.queues
            .iter_mut()
            .find(|queue| queue.outbox.station == station)
    }

    pub(super) fn attach(&mut self, station: Station) {
        self.queues.push(Queue {
            outbox: Outbox::new(station),
            // A gateway is there as long as its buses are.
            live: matches!(station, Station::Gateway(_)),
            errors: 0,
        });
    }

    pub(super) fn detach(&mut self, station: Station, now: Duration) {
        self.withdraw(station, now);
        self.queues.retain(|queue| queue.outbox.station != station);
    }

    /// A station begins or ends to take part: to hear, and so to acknowledge.
    pub(super) fn set_live(&mut self, station: Station, live: bool, now: Duration) {
        if let Some(queue) = self.queue(station) {
            queue.live = live;
        }
        self.begin(now);
    }

    /// The next `count` frames of a station meet an error.
    pub(super) fn inject_errors(&mut self, station: Station, count: u32) {
        if let Some(queue) = self.queue(station) {
            queue.errors = queue.errors.saturating_add(count);
        }
    }

    /// How many frames of a station wait.
    pub(super) fn waiting(&self, station: Station) -> usize {
        let queue = self
            .queues
            .iter()
            .find(|queue| queue.outbox.station == station);
        queue.map_or(0, |queue| queue.outbox.len())
    }

    pub(super) fn submit(&mut self, station: Station, waiting: Waiting, now: Duration) {
        let on_the_bus = self.is_sending(station);
        if let Some(queue) = self.queue(station) {
            queue.outbox.push(waiting, on_the_bus);
        }
        self.begin(now);
    }

    /// A station whose frames are too many gives up one that would go after this one.
    pub(super) fn make_way(&mut self, station: Station, frame: &Frame) -> bool {
        let on_the_bus = self.is_sending(station);
        self.queue(station)
            .filter(|queue| queue.outbox.len() > usize::from(on_the_bus))
            .is_some_and(|queue| queue.outbox.make_way(frame))
    }

    fn is_sending(&self, station: Station) -> bool {
        let sending = self.sending.as_ref();
        sending.is_some_and(|of| of.station == station)
    }

    /// Takes back all frames of a station, one that is on the bus included. How many there were.
    pub(super) fn withdraw(&mut self, station: Station, now: Duration) -> usize {
        let Some(queue) = self.queue(station) else {
            return 0;
        };
        let count = queue.outbox.len();
        queue.outbox.clear();
        queue.errors = 0;
        if self.is_sending(station) {
            self.sending = None;
            self.begin(now);
        }
        count
    }

    /// When the frame that is on the bus ends.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.sending.as_ref().map(|sending| sending.ends)
    }

    /// What ends at or before `now`, one at a time.
    pub(super) fn advance(&mut self, now: Duration) -> Option<Event> {
        let sending = self.sending.take_if(|sending| sending.ends <= now)?;
        self.free_at = sending.ends;
        let queue = self.queue(sending.station)?;
        let event = if sending.broken {
            Event::Broken(sending.station, queue.outbox.front()?.frame)
        } else {
            Event::Passed(sending.station, queue.outbox.pop()?)
        };
        self.begin(sending.ends);
        Some(event)
    }

    /// Arbitration: of the frames that wait at an instant, the one whose first differing bit is
    /// dominant; where none waits yet, at the instant when one does.
    fn begin(&mut self, at: Duration) {
        if self.sending.is_some() {
            return;
        }
        let live = self.queues.iter().filter(|queue| queue.live).count();
        let by_stations = self.acknowledge == Acknowledge::Stations;
        // No station acknowledges its own frames.
        let heard = |queue: &Queue| !by_stations || live > usize::from(queue.live);
        let waiting = self.queues.iter().filter(|queue| heard(queue));
        let heads = waiting.filter_map(|queue| queue.outbox.front());
        let Some(first) = heads.map(|head| head.since).min() else {
            return;
        };
        let at = at.max(first).max(self.free_at);
        // Who has waited longest goes first among equals, which a real bus does not have.
        let rank = |queue: &Queue| {
            let head = queue.outbox.front().filter(|head| head.since <= at);
            head.map(|head| (arbitration(&head.frame), head.since))
        };
        let taking_part = self.queues.iter_mut();
        let taking_part = taking_part.filter(|queue| heard(queue) && rank(queue).is_some());
        let Some(queue) = taking_part.min_by_key(|queue| rank(queue)) else {
            return;
        };
        let Some(waiting) = queue.outbox.front() else {
            return;
        };
        let broken = queue.errors > 0;
        queue.errors = queue.errors.saturating_sub(1);
        let time = if broken {
            broken_frame_time(&waiting.frame, self.rates)
        } else {
            frame_time(&waiting.frame, self.rates)
        };
        self.sending = Some(Sending {
            station: queue.outbox.station,
            broken,
            ends: at.saturating_add(time),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Id, Kind};

    const RATES: Rates = Rates {
        nominal: 1_000_000,
        data: 4_000_000,
    };

    fn waiting(id: u32, extended: bool) -> Waiting {
        let id = Id::new(id, extended).unwrap();
        Waiting {
            frame: Frame::new(id, Kind::Data, &[0x55; 4]).unwrap(),
            mark: 0,
            forwarded: false,
            since: Duration::ZERO,
        }
    }

    fn bus(stations: usize, acknowledge: Acknowledge) -> VirtualBus {
        let mut bus = VirtualBus::new(RATES, acknowledge);
        for station in 0..stations {
            bus.attach(Station::Controller(station));
            bus.set_live(Station::Controller(station), true, Duration::ZERO);
        }
        bus
    }

    fn drain(bus: &mut VirtualBus) -> Vec<(Station, String)> {
        let mut passed = Vec::new();
        while let Some(event) = bus.advance(Duration::from_secs(1)) {
            if let Event::Passed(station, waiting) = event {
                passed.push((station, waiting.frame.id().to_string()));
            }
        }
        passed
    }

    #[test]
    fn the_lowest_identifier_wins_and_a_standard_one_beats_its_extension() {
        let mut bus = bus(6, Acknowledge::Bus);
        let frames = [
            waiting(0x7ff, false),
            waiting(0x100 << 18, true),
            waiting(0x101, false),
            waiting(0x100, false),
            waiting(0x100 << 18 | 1, true),
        ];
        for (station, frame) in frames.into_iter().enumerate() {
            bus.submit(Station::Controller(station), frame, Duration::ZERO);
        }
        let id = Id::new(0x100, false).unwrap();
        let remote = Waiting {
            frame: Frame::remote(id, 0).unwrap(),
            ..waiting(0, false)
        };
        bus.submit(Station::Controller(5), remote, Duration::ZERO);
        let order: Vec<_> = drain(&mut bus).into_iter().map(|(at, _)| at).collect();
        // The first one found the bus idle; the others were decided when it ended.
        let expected = [0, 3, 5, 1, 4, 2].map(Station::Controller);
        assert_eq!(order, expected);
    }

    #[test]
    fn a_station_keeps_the_order_of_its_own_frames() {
        let mut bus = bus(1, Acknowledge::Bus);
        for id in [5, 3, 4] {
            bus.submit(Station::Controller(0), waiting(id, false), Duration::ZERO);
        }
        let order: Vec<_> = drain(&mut bus).into_iter().map(|(_, id)| id).collect();
        assert_eq!(order, ["005", "003", "004"]);
    }

    #[test]
    fn frames_follow_one_another_without_a_gap_however_late_one_looks() {
        let mut bus = bus(1, Acknowledge::Bus);
        let frame = waiting(0x123, false);
        let time = frame_time(&frame.frame, RATES);
        for _ in 0..100 {
            bus.submit(Station::Controller(0), frame, Duration::ZERO);
        }
        assert_eq!(bus.next_event(), Some(time));
        let just_before = time.saturating_mul(100) - Duration::from_nanos(1);
        let mut count = 0;
        while bus.advance(just_before).is_some() {
            count += 1;
        }
        assert_eq!(count, 99);
        assert_eq!(bus.next_event(), Some(time.saturating_mul(100)));
    }

    #[test]
    fn a_frame_takes_no_part_in_what_was_decided_before_it_came() {
        let mut bus = bus(3, Acknowledge::Bus);
        let time = frame_time(&waiting(2, false).frame, RATES);
        let late = Waiting {
            since: time + time / 2,
            ..waiting(1, false)
        };
        bus.submit(Station::Controller(0), waiting(2, false), Duration::ZERO);
        bus.submit(Station::Controller(1), waiting(2, false), Duration::ZERO);
        // Nobody has looked at the bus for a while.
        bus.submit(Station::Controller(2), late, late.since);
        let order: Vec<_> = drain(&mut bus).into_iter().map(|(_, id)| id).collect();
        assert_eq!(order, ["002", "002", "001"]);
        let idle = Waiting {
            since: time * 10,
            ..waiting(1, false)
        };
        bus.submit(Station::Controller(0), idle, time * 10);
        assert!(bus.next_event().is_some_and(|at| at > time * 10));
    }

    #[test]
    fn a_frame_that_nobody_hears_waits_for_somebody() {
        let mut bus = bus(1, Acknowledge::Stations);
        bus.submit(Station::Controller(0), waiting(1, false), Duration::ZERO);
        assert_eq!(bus.next_event(), None);
        let later = Duration::from_millis(5);
        bus.attach(Station::Host(7));
        bus.set_live(Station::Host(7), true, later);
        assert!(bus.next_event().is_some_and(|at| at > later));
    }

    #[test]
    fn who_sends_without_listening_is_acknowledged_by_the_only_one_who_does() {
        let mut bus = bus(1, Acknowledge::Stations);
        bus.attach(Station::Injector);
        bus.submit(Station::Controller(0), waiting(1, false), Duration::ZERO);
        bus.submit(Station::Injector, waiting(2, false), Duration::ZERO);
        assert_eq!(drain(&mut bus), [(Station::Injector, "002".to_owned())]);
    }

    #[test]
    fn a_bus_that_was_busy_is_not_used_twice_by_who_comes_late() {
        let mut bus = bus(2, Acknowledge::Bus);
        let time = frame_time(&waiting(1, false).frame, RATES);
        bus.submit(Station::Controller(0), waiting(1, false), Duration::ZERO);
        assert!(bus.advance(time).is_some());
        // It looked at the clock before the other frame had passed, and was held up since.
        bus.submit(Station::Controller(1), waiting(1, false), time / 4);
        assert_eq!(bus.next_event(), Some(time * 2));
    }

    #[test]
    fn equals_take_turns() {
        let mut bus = bus(2, Acknowledge::Bus);
        for at in 0..3_u64 {
            for station in 0..2 {
                let since = Duration::from_nanos(at);
                let frame = Waiting {
                    since,
                    ..waiting(1, false)
                };
                bus.submit(Station::Controller(station), frame, since);
            }
        }
        let order: Vec<_> = drain(&mut bus).into_iter().map(|(at, _)| at).collect();
        assert_eq!(order, [0, 1, 0, 1, 0, 1].map(Station::Controller));
    }

    #[test]
    fn an_error_ends_a_frame_which_is_sent_again() {
        let mut bus = bus(1, Acknowledge::Bus);
        bus.inject_errors(Station::Controller(0), 2);
        bus.submit(Station::Controller(0), waiting(1, false), Duration::ZERO);
        let end = Duration::from_secs(1);
        assert!(matches!(bus.advance(end), Some(Event::Broken(..))));
        assert!(matches!(bus.advance(end), Some(Event::Broken(..))));
        assert!(matches!(bus.advance(end), Some(Event::Passed(..))));
        assert!(bus.advance(end).is_none());
    }

    #[test]
    fn what_is_withdrawn_gives_way_at_once() {
        let mut bus = bus(2, Acknowledge::Bus);
        bus.submit(Station::Controller(0), waiting(1, false), Duration::ZERO);
        bus.submit(Station::Controller(0), waiting(1, false), Duration::ZERO);
        bus.submit(Station::Controller(1), waiting(2, false), Duration::ZERO);
        let now = Duration::from_micros(10);
        assert_eq!(bus.withdraw(Station::Controller(0), now), 2);
        let time = frame_time(&waiting(2, false).frame, RATES);
        assert_eq!(bus.next_event(), Some(now + time));
        assert_eq!(drain(&mut bus).len(), 1);
    }
}
