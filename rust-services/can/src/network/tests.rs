// SPDX-License-Identifier: Apache-2.0

//! The network under a clock of the test's own.

use super::policy::{Limit, Policy};
use super::*;
use crate::frame::{Id, Kind};
use crate::timing::Rates;
use crate::timing::frame_time;
use crate::wire::{F_CAN_CLASSIC, FEATURES};

pub(super) const RATES: Rates = Rates {
    nominal: 500_000,
    data: 2_000_000,
};

pub(super) fn frame(id: u32) -> Frame {
    Frame::new(Id::new(id, false).unwrap(), Kind::Data, &[1, 2, 3]).unwrap()
}

pub(super) fn medium() -> Medium {
    Medium::Virtual {
        rates: RATES,
        acknowledge: Acknowledge::Bus,
    }
}

pub(super) fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A bus with `count` started controllers.
fn network(count: usize) -> (Network, Vec<ControllerId>) {
    let mut network = Network::default();
    let bus = network.add_bus("bus".into(), medium());
    let ids: Vec<_> = (0..count)
        .map(|place| add(&mut network, bus, place))
        .collect();
    (network, ids)
}

pub(super) fn add(network: &mut Network, bus: BusId, place: usize) -> ControllerId {
    let controller = Controller::new(format!("guest{place}"), bus, Policy::default(), 8);
    let id = network.add_controller(controller);
    network.attend(id, FEATURES, None);
    assert_eq!(network.start(id, Duration::ZERO), Outcome::Ok);
    id
}

pub(super) fn heard(network: &mut Network, id: ControllerId) -> Vec<u32> {
    std::iter::from_fn(|| network.take_frame(id))
        .map(|frame| frame.id().number())
        .collect()
}

pub(super) fn done(network: &mut Network, id: ControllerId) -> Vec<(u16, Outcome)> {
    std::iter::from_fn(|| network.take_done(id)).collect()
}

#[test]
fn a_frame_is_done_when_it_has_passed_and_all_but_its_sender_hear_it() {
    let (mut network, ids) = network(3);
    network.transmit(ids[0], frame(5), 7, at(0)).unwrap();
    assert_eq!(network.take_done(ids[0]), None, "it is on the bus");
    let end = network.next_event().unwrap();
    network.advance(end - Duration::from_nanos(1));
    assert_eq!(network.take_done(ids[0]), None);
    network.advance(end);
    assert_eq!(done(&mut network, ids[0]), [(7, Outcome::Ok)]);
    assert!(heard(&mut network, ids[0]).is_empty());
    assert_eq!(heard(&mut network, ids[1]), [5]);
    assert_eq!(heard(&mut network, ids[2]), [5]);
    assert_eq!(network.take_news().controllers, 0b111);
}

#[test]
fn a_stop_gives_back_what_was_not_sent_and_refuses_more() {
    let (mut network, ids) = network(2);
    for mark in 0..3 {
        network.transmit(ids[0], frame(5), mark, at(0)).unwrap();
    }
    network.stop(ids[0], at(0));
    let expected = [0, 1, 2].map(|mark| (mark, Outcome::NotOk));
    assert_eq!(done(&mut network, ids[0]), expected);
    assert_eq!(
        network.transmit(ids[0], frame(5), 0, at(1)),
        Err(Refused::Stopped)
    );
    network.advance(at(10));
    assert!(heard(&mut network, ids[1]).is_empty(), "nothing was sent");
    network.transmit(ids[1], frame(6), 0, at(11)).unwrap();
    network.advance(at(20));
    assert!(
        heard(&mut network, ids[0]).is_empty(),
        "a stopped controller is deaf"
    );
    assert_eq!(network.controllers[0].counters.unsent, 4);
}

#[test]
fn thirty_two_errors_in_a_row_are_bus_off_until_the_next_start() {
    let (mut network, ids) = network(2);
    network.inject_errors(ids[0], 31);
    network.transmit(ids[0], frame(5), 0, at(0)).unwrap();
    network.advance(at(100));
    assert_eq!(network.controllers[0].state(), State::Passive);
    assert_eq!(network.controllers[0].errors(), 31 * 8 - 1);
    assert_eq!(done(&mut network, ids[0]), [(0, Outcome::Ok)]);
    assert!(!network.take_status_change(ids[0]));

    network.inject_errors(ids[0], 2);
    network.transmit(ids[0], frame(5), 1, at(100)).unwrap();
    network.transmit(ids[0], frame(5), 2, at(100)).unwrap();
    network.advance(at(200));
    assert_eq!(network.controllers[0].state(), State::BusOff);
    assert!(network.take_status_change(ids[0]));
    let expected = [(1, Outcome::NotOk), (2, Outcome::NotOk)];
    assert_eq!(done(&mut network, ids[0]), expected);
    assert_eq!(
        network.transmit(ids[0], frame(5), 3, at(200)),
        Err(Refused::Stopped)
    );
    assert_eq!(network.start(ids[0], at(201)), Outcome::Ok);
    assert_eq!(network.controllers[0].state(), State::Active);
    network.transmit(ids[0], frame(9), 3, at(201)).unwrap();
    network.advance(at(300));
    assert_eq!(done(&mut network, ids[0]), [(3, Outcome::Ok)]);
    assert_eq!(heard(&mut network, ids[1]), [5, 9]);
}

#[test]
fn bus_off_and_errors_survive_a_death_and_end_with_the_driver() {
    let (mut network, ids) = network(1);
    network.leave_bus(ids[0], at(0));
    let saved = network.saved(ids[0]);
    assert!(saved.bus_off && !saved.started);
    let (mut successor, ids) = self::network(1);
    successor.restore(ids[0], saved, at(0));
    assert_eq!(successor.controllers[0].state(), State::BusOff);
    assert!(
        successor.take_status_change(ids[0]),
        "the driver is told again"
    );
    successor.reset(ids[0], at(1));
    assert_eq!(successor.controllers[0].state(), State::Stopped);
}

#[test]
fn a_slow_guest_loses_ordinary_frames_before_urgent_ones_and_hears_urgent_ones_first() {
    let (mut network, ids) = network(2);
    network.controllers[1].policy.urgent = IdSet::parse(&["010-01f"]).unwrap();
    for (mark, id) in (0..).zip([
        0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x108,
    ]) {
        network.transmit(ids[0], frame(id), mark, at(0)).unwrap();
    }
    network.transmit(ids[0], frame(0x10), 20, at(0)).unwrap();
    network.transmit(ids[0], frame(0x11), 21, at(0)).unwrap();
    network.advance(at(100));
    let expected = [0x10, 0x11, 0x100, 0x101, 0x102, 0x103, 0x104, 0x105];
    assert_eq!(heard(&mut network, ids[1]), expected);
    let counters = network.controllers[1].counters;
    assert_eq!((counters.lost, counters.lost_urgent), (3, 0));
    for mark in 0..9 {
        network
            .transmit(ids[0], frame(0x12), mark, at(200))
            .unwrap();
    }
    network.advance(at(300));
    assert_eq!(heard(&mut network, ids[1]).len(), 8);
    assert_eq!(network.controllers[1].counters.lost_urgent, 1);
}

#[test]
fn a_guest_hears_what_it_may_and_what_it_has_negotiated() {
    let (mut network, ids) = network(2);
    network.controllers[1].policy.receive = IdSet::parse(&["100-1ff"]).unwrap();
    network.attend(ids[1], F_CAN_CLASSIC, None);
    let id = Id::new(0x101, false).unwrap();
    let frames = [
        frame(0x100),
        frame(0x200),
        Frame::new(id, Kind::Fd, &[0; 64]).unwrap(),
        Frame::remote(id, 0).unwrap(),
    ];
    for (mark, frame) in (0..).zip(frames) {
        network.transmit(ids[0], frame, mark, at(0)).unwrap();
    }
    network.advance(at(100));
    assert_eq!(heard(&mut network, ids[1]), [0x100]);
    assert_eq!(network.controllers[1].counters.filtered, 3);
}

#[test]
fn policy_refuses_and_counts() {
    let (mut network, ids) = network(2);
    let policy = &mut network.controllers[0].policy;
    policy.send = IdSet::parse(&["100-1ff"]).unwrap();
    policy.limits = vec![Limit::new(IdSet::any(), 10, 1)];
    assert_eq!(
        network.transmit(ids[0], frame(0x200), 0, at(0)),
        Err(Refused::Policy(Refusal::Denied))
    );
    assert_eq!(network.transmit(ids[0], frame(0x100), 0, at(0)), Ok(()));
    assert_eq!(
        network.transmit(ids[0], frame(0x100), 1, at(50)),
        Err(Refused::Policy(Refusal::Limited))
    );
    assert_eq!(network.transmit(ids[0], frame(0x100), 1, at(101)), Ok(()));
    network.advance(at(200));
    let counters = network.controllers[0].counters;
    assert_eq!(
        (counters.sent, counters.denied, counters.limited),
        (2, 1, 1)
    );
}

#[test]
fn a_gateway_leads_to_another_bus_and_not_back() {
    let mut network = Network::default();
    let first = network.add_bus("first".into(), medium());
    let second = network.add_bus("second".into(), medium());
    network.add_gateway(first, second, IdSet::parse(&["100-1ff"]).unwrap());
    network.add_gateway(second, first, IdSet::any());
    let ids = [
        add(&mut network, first, 0),
        add(&mut network, first, 1),
        add(&mut network, second, 2),
    ];
    network.transmit(ids[0], frame(0x100), 0, at(0)).unwrap();
    network.transmit(ids[0], frame(0x200), 1, at(0)).unwrap();
    network.advance(at(100));
    assert_eq!(heard(&mut network, ids[1]), [0x100, 0x200]);
    assert_eq!(heard(&mut network, ids[2]), [0x100]);
    assert!(
        heard(&mut network, ids[0]).is_empty(),
        "it did not come back"
    );
    network.transmit(ids[2], frame(0x300), 0, at(100)).unwrap();
    network.advance(at(200));
    assert_eq!(heard(&mut network, ids[0]), [0x300]);
    assert_eq!(network.gateways[0].forwarded, 1);
    assert_eq!(network.gateways[1].forwarded, 1);
}

#[test]
fn the_load_of_a_bus_is_that_of_the_last_whole_second() {
    let (mut network, ids) = network(1);
    let time = frame_time(&frame(1), RATES);
    // A quarter of each second.
    let count = Duration::from_millis(250).as_nanos() / time.as_nanos();
    let count = u16::try_from(count).unwrap();
    for second in 0..3 {
        for mark in 0..count {
            network
                .transmit(ids[0], frame(1), mark, at(second * 1000))
                .unwrap();
        }
        network.advance(at(second * 1000 + 999));
    }
    let load = network.buses[0].load(at(3500));
    assert!((245..=250).contains(&load), "{load}");
    assert_eq!(network.buses[0].load(at(9000)), 0);
}

#[test]
fn programs_of_the_host_are_stations_of_the_bus() {
    let (mut network, ids) = network(1);
    let bus = BusId(0);
    network.add_host(1, bus, at(0));
    assert!(network.send(bus, Station::Host(1), frame(3), at(0)));
    network.transmit(ids[0], frame(4), 0, at(0)).unwrap();
    network.advance(at(10));
    assert_eq!(heard(&mut network, ids[0]), [3]);
    assert_eq!(network.take_unread(1), Some(frame(4)));
    assert_eq!(network.take_unread(1), None);
    for _ in 0..MOST_WAITING {
        assert!(network.send(bus, Station::Host(1), frame(3), at(10)));
    }
    assert!(!network.send(bus, Station::Host(1), frame(3), at(10)));
    network.remove_host(1, at(10));
    network.advance(at(1000));
    assert!(
        heard(&mut network, ids[0]).is_empty(),
        "its frames went with it"
    );
}

#[test]
fn an_interface_acknowledges_what_it_was_given() {
    let mut network = Network::default();
    let bus = network.add_bus("can0".into(), Medium::Interface("can0".into(), RATES));
    let controller = |name: &str| Controller::new(name.into(), bus, Policy::default(), 8);
    let ids = [controller("a"), controller("b")].map(|of| network.add_controller(of));
    for id in ids {
        network.attend(id, FEATURES, None);
        assert_eq!(
            network.start(id, at(0)),
            Outcome::NotOk,
            "the interface is down"
        );
    }
    assert!(network.take_restart(bus));
    network.set_link(bus, Link::Up, at(0));
    for id in ids {
        assert_eq!(network.start(id, at(0)), Outcome::Ok);
    }
    network.transmit(ids[0], frame(1), 0, at(0)).unwrap();
    network.transmit(ids[0], frame(2), 1, at(0)).unwrap();
    assert_eq!(network.write(bus), Some(frame(1)));
    network.unwrite(bus);
    assert_eq!(network.write(bus), Some(frame(1)));
    assert_eq!(network.write(bus), Some(frame(2)));
    assert_eq!(
        network.take_done(ids[0]),
        None,
        "the bus has not acknowledged"
    );
    network.acknowledged(bus, &frame(1), at(1));
    assert_eq!(done(&mut network, ids[0]), [(0, Outcome::Ok)]);
    assert_eq!(
        heard(&mut network, ids[1]),
        [1],
        "the other guest hears it as on one bus"
    );
    network.heard(bus, frame(9), at(2));
    assert_eq!(heard(&mut network, ids[0]), [9]);
    network.set_link(bus, Link::BusOff, at(3));
    assert_eq!(done(&mut network, ids[0]), [(1, Outcome::NotOk)]);
    assert_eq!(network.controllers[1].state(), State::BusOff);
    assert_eq!(network.start(ids[0], at(4)), Outcome::NotOk);
    assert!(network.take_restart(bus));
    network.set_link(bus, Link::Up, at(5));
    assert_eq!(network.start(ids[0], at(5)), Outcome::Ok);
}
