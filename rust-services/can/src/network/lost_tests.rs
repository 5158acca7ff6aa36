// SPDX-License-Identifier: Apache-2.0

//! What is lost, and whose: gateways that are too slow, interfaces that leave their bus.

use super::tests::{RATES, add, at, done, frame, heard, medium};
use super::*;
use crate::timing::Rates;

/// A bus in the process, one behind an interface, a gateway from the one to the other, and a guest on
/// each.
fn gateway_to_an_interface() -> (Network, BusId, [ControllerId; 2]) {
    let mut network = Network::default();
    let inside = network.add_bus("inside".into(), medium());
    let outside = network.add_bus("can0".into(), Medium::Interface("can0".into(), RATES));
    network.set_link(outside, Link::Up, at(0));
    network.add_gateway(inside, outside, IdSet::any());
    let guests = [add(&mut network, inside, 0), add(&mut network, outside, 1)];
    (network, outside, guests)
}

/// The guest sends so many frames, which all have passed at `end`.
fn pass(network: &mut Network, guest: ControllerId, frames: u16, begin: Duration, end: Duration) {
    for mark in 0..frames {
        network.transmit(guest, frame(5), mark, begin).unwrap();
    }
    network.advance(end);
    assert_eq!(done(network, guest).len(), usize::from(frames));
}

#[test]
fn a_gateway_works_on_after_its_interface_has_lost_more_frames_than_may_wait() {
    let (mut network, outside, [inside, _]) = gateway_to_an_interface();
    for round in 0..6 {
        let begin = at(round * 1000);
        pass(&mut network, inside, 100, begin, begin + at(500));
        while network.write(outside).is_some() {}
        // The kernel had them, and none was on the bus.
        network.set_link(outside, Link::BusOff, begin + at(600));
        pass(&mut network, inside, 5, begin + at(600), begin + at(700));
        assert_eq!(
            network.write(outside),
            None,
            "the kernel would throw it away"
        );
        network.set_link(outside, Link::Up, begin + at(800));
        assert_eq!(network.write(outside), None, "that is news of another time");
    }
    let gateway = &network.gateways[0];
    assert_eq!((gateway.forwarded, gateway.lost), (0, 630));
    pass(&mut network, inside, 1, at(9000), at(9100));
    assert_eq!(network.write(outside), Some(frame(5)));
    assert_eq!(
        (network.gateways[0].forwarded, network.gateways[0].lost),
        (1, 630)
    );
}

#[test]
fn who_sends_from_the_host_waits_for_an_interface_and_is_not_locked_out_by_what_it_lost() {
    let (mut network, outside, _) = gateway_to_an_interface();
    network.add_host(1, outside, at(0));
    for _ in 0..MOST_WAITING {
        for station in [Station::Host(1), Station::Injector] {
            assert!(network.send(outside, station, frame(7), at(0)));
            assert!(network.write(outside).is_some());
        }
    }
    assert!(!network.send(outside, Station::Host(1), frame(7), at(0)));
    network.set_link(outside, Link::Down, at(1));
    assert!(!network.send(outside, Station::Injector, frame(7), at(1)));
    network.set_link(outside, Link::Up, at(2));
    for station in [Station::Host(1), Station::Injector] {
        assert!(network.send(outside, station, frame(7), at(2)));
    }
}

#[test]
fn a_frame_that_was_lost_with_its_interface_takes_no_acknowledgement_of_another_one() {
    let (mut network, outside, [inside, guest]) = gateway_to_an_interface();
    pass(&mut network, inside, 1, at(0), at(10));
    assert_eq!(network.write(outside), Some(frame(5)));
    network.set_link(outside, Link::BusOff, at(20));
    network.set_link(outside, Link::Up, at(30));
    assert_eq!(network.start(guest, at(30)), Outcome::Ok);
    network.transmit(guest, frame(5), 9, at(40)).unwrap();
    assert_eq!(network.write(outside), Some(frame(5)));
    network.acknowledged(outside, &frame(5), at(41));
    assert_eq!(done(&mut network, guest), [(9, Outcome::Ok)]);
}

#[test]
fn others_hear_what_was_on_the_bus_whatever_its_sender_did_meanwhile() {
    let mut network = Network::default();
    let bus = network.add_bus("can0".into(), Medium::Interface("can0".into(), RATES));
    network.set_link(bus, Link::Up, at(0));
    let [sender, listener] = [0, 1].map(|place| add(&mut network, bus, place));
    for round in 0..1000 {
        network.transmit(sender, frame(3), 0, at(round)).unwrap();
        assert_eq!(network.write(bus), Some(frame(3)));
        network.reset(sender, at(round));
        network.attend(sender, crate::wire::FEATURES, None);
        assert_eq!(network.start(sender, at(round)), Outcome::Ok);
    }
    for _ in 0..8 {
        network.acknowledged(bus, &frame(3), at(2000));
    }
    assert_eq!(heard(&mut network, listener), [3; 8]);
    assert!(heard(&mut network, sender).is_empty(), "it is its own");
    assert!(done(&mut network, sender).is_empty(), "it waits for none");
}

#[test]
fn what_waits_for_an_interface_goes_by_priority_and_no_guest_is_behind_another_ones_frames() {
    let mut network = Network::default();
    let bus = network.add_bus("can0".into(), Medium::Interface("can0".into(), RATES));
    network.set_link(bus, Link::Up, at(0));
    let [busy, calm] = [0, 1].map(|place| add(&mut network, bus, place));
    for mark in 0..100 {
        network.transmit(busy, frame(0x700), mark, at(0)).unwrap();
    }
    assert_eq!(network.write(bus), Some(frame(0x700)));
    network.transmit(calm, frame(0x10), 0, at(1)).unwrap();
    network.transmit(calm, frame(0x700), 1, at(1)).unwrap();
    assert_eq!(network.write(bus), Some(frame(0x10)));
    network.unwrite(bus);
    assert_eq!(network.write(bus), Some(frame(0x10)), "the kernel was full");
    for _ in 0..99 {
        assert_eq!(network.write(bus), Some(frame(0x700)));
        network.acknowledged(bus, &frame(0x700), at(2));
    }
    assert_eq!(done(&mut network, busy).len(), 99);
}

#[test]
fn a_gateway_that_is_too_slow_loses_what_matters_least() {
    let slow = Medium::Virtual {
        rates: Rates {
            nominal: 10_000,
            data: 10_000,
        },
        acknowledge: Acknowledge::Bus,
    };
    let mut network = Network::default();
    let fast = network.add_bus("fast".into(), medium());
    let slow = network.add_bus("slow".into(), slow);
    network.add_gateway(fast, slow, IdSet::any());
    let [busy, calm] = [0, 1].map(|place| add(&mut network, fast, place));
    let listener = add(&mut network, slow, 2);
    for mark in 0..1000 {
        network.transmit(busy, frame(0x700), mark, at(0)).unwrap();
    }
    network.advance(at(130));
    let lost = network.gateways[0].lost;
    assert!(lost > 400, "{lost}: the gateway keeps up");
    heard(&mut network, listener);
    for mark in 0..4 {
        network.transmit(calm, frame(0x10), mark, at(130)).unwrap();
    }
    // A frame takes 7 ms there, and 256 of the other guest wait.
    network.advance(at(180));
    let soon = heard(&mut network, listener);
    let urgent = soon.iter().filter(|id| **id == 0x10).count();
    assert_eq!(urgent, 4, "{soon:x?}");
    network.advance(at(1000));
    let gateway = &network.gateways[0];
    assert_eq!(gateway.forwarded + gateway.lost, 1004);
}

#[test]
fn a_gateway_acknowledges_on_both_of_its_buses() {
    let lonely = || Medium::Virtual {
        rates: RATES,
        acknowledge: Acknowledge::Stations,
    };
    let mut network = Network::default();
    let [one, two] = ["one", "two"].map(|name| network.add_bus(name.into(), lonely()));
    network.add_gateway(one, two, IdSet::any());
    let [sender, listener] = [(one, 0), (two, 1)].map(|(bus, place)| add(&mut network, bus, place));
    network.transmit(sender, frame(1), 0, at(0)).unwrap();
    network.transmit(listener, frame(2), 0, at(0)).unwrap();
    network.advance(at(10));
    assert_eq!(done(&mut network, sender), [(0, Outcome::Ok)]);
    assert_eq!(done(&mut network, listener), [(0, Outcome::Ok)]);
    assert_eq!(heard(&mut network, listener), [1]);
}
