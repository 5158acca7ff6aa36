// SPDX-License-Identifier: Apache-2.0

//! The CAN controllers: any messages on two buses with gateways between them, an interface whose
//! frames are acknowledged in any order, errors, stops, resets, and time that passes or does not.
//! Every frame that was taken is answered once, what is heard is a frame, and time is always ahead.

#![no_main]

use std::collections::HashSet;
use std::time::Duration;

use agl_virtio_can::identifiers::IdSet;
use agl_virtio_can::network::policy::{Limit, Policy};
use agl_virtio_can::network::{
    Acknowledge, BusId, Controller, ControllerId, Link, Medium, Network, Station,
};
use agl_virtio_can::raw::{self, Heard};
use agl_virtio_can::timing::Rates;
use agl_virtio_can::wire::{FEATURES, Mode, Outcome, parse_tx, rx_message};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Deed {
    /// A message that could be one.
    Plausible { of: u8, flags: u8, length: u8, id: u32, data: Vec<u8> },
    /// Any bytes.
    Any { of: u8, bytes: Vec<u8> },
    /// A request on the control queue.
    Control { of: u8, code: [u8; 2] },
    /// A driver resets.
    Reset(u8),
    /// Microseconds.
    Pass(u16),
    /// Frames of a controller meet errors.
    Errors { of: u8, count: u8 },
    /// A controller leaves its bus.
    Leave(u8),
    /// A packet from a program of the host, or the interface.
    Packet { interface: bool, bytes: Vec<u8> },
    /// The interface takes a frame.
    Write { refuse: u8 },
    /// The interface acknowledges one of those it has taken.
    Acknowledge(u8),
    /// The interface changes.
    Link(u8),
    /// The service dies, and another one goes on.
    Die(u8),
}

const CONTROLLERS: usize = 4;
const INTERFACE: BusId = BusId(1);
const PROGRAM: u64 = 9;

fn network() -> Network {
    let rates = Rates { nominal: 1_000_000, data: 8_000_000 };
    let mut network = Network::default();
    let first = network.add_bus("a".into(), Medium::Virtual { rates, acknowledge: Acknowledge::Bus });
    let second = network.add_bus("b".into(), Medium::Interface("can0".into(), rates));
    let policy = Policy {
        send: IdSet::parse(&["0-6ff", "extended"]).unwrap(),
        urgent: IdSet::parse(&["0-f"]).unwrap(),
        limits: vec![Limit::new(IdSet::parse(&["80-ff"]).unwrap(), 1000, 5)],
        ..Policy::default()
    };
    for place in 0..CONTROLLERS {
        let bus = if place < 3 { first } else { second };
        let id = network.add_controller(Controller::new(place.to_string(), bus, policy.clone(), 16));
        network.attend(id, FEATURES, None);
    }
    network.add_gateway(first, second, IdSet::parse(&["any"]).unwrap());
    network.add_gateway(second, first, IdSet::parse(&["standard"]).unwrap());
    network.add_host(PROGRAM, first, Duration::ZERO);
    network
}

/// Marks that are out, per controller.
type Out = [HashSet<u16>; CONTROLLERS];

fn transmit(network: &mut Network, out: &mut Out, mark: u16, of: u8, bytes: &[u8], now: Duration) {
    let place = usize::from(of) % CONTROLLERS;
    match parse_tx(bytes, FEATURES) {
        Ok(frame) => {
            if network.transmit(ControllerId(place), frame, mark, now).is_ok() {
                out[place].insert(mark);
            }
        }
        Err(_) => network.malformed(ControllerId(place)),
    }
}

fn collect(network: &mut Network, out: &mut Out) {
    for (place, out) in out.iter_mut().enumerate() {
        let id = ControllerId(place);
        while let Some((mark, _)) = network.take_done(id) {
            assert!(out.remove(&mark), "{mark} was answered and is not out");
        }
        while let Some(frame) = network.take_frame(id) {
            let (message, len) = rx_message(&frame);
            assert_eq!(len, 16 + usize::from(frame.len()));
            let mut sent = message;
            sent[1] = 0;
            assert_eq!(parse_tx(&sent[..len], FEATURES), Ok(frame));
        }
    }
    while let Some(frame) = network.take_unread(PROGRAM) {
        let (packet, size) = raw::bytes(&frame);
        assert_eq!(raw::parse(&packet[..size]), Some(Heard::Frame(frame)));
    }
}

fuzz_target!(|deeds: Vec<Deed>| {
    let mut network = network();
    let mut out: Out = Default::default();
    let mut written = Vec::new();
    let mut now = Duration::from_secs(1);
    for (mark, deed) in (0_u16..1000).zip(deeds) {
        match deed {
            Deed::Plausible { of, flags, length, id, data } => {
                let mut bytes = vec![1, 0, length % 70, 0, 0, 0, 0, 0, 0, flags & 0xe0, 0, 0];
                let mask = if flags & 0x80 != 0 { 0x1fff_ffff } else { 0x7ff };
                bytes.extend((id & mask).to_le_bytes());
                bytes.extend(&data);
                bytes.resize(16 + 70, 0);
                transmit(&mut network, &mut out, mark, of, &bytes, now);
            }
            Deed::Any { of, bytes } => transmit(&mut network, &mut out, mark, of, &bytes, now),
            Deed::Control { of, code } => {
                let id = ControllerId(usize::from(of) % CONTROLLERS);
                // Any code is read; most are to start, for nothing happens before.
                let mode = Mode::parse(code).unwrap_or(Mode::Start);
                if mode == Mode::Stop {
                    network.stop(id, now);
                    collect(&mut network, &mut out);
                    assert!(out[id.0].is_empty(), "a stop gives everything back");
                } else if network.start(id, now) == Outcome::Ok {
                    assert!(!network.saved(id).bus_off);
                }
            }
            Deed::Reset(of) => {
                let id = ControllerId(usize::from(of) % CONTROLLERS);
                network.reset(id, now);
                out[id.0].clear();
                assert_eq!(network.take_done(id), None);
                network.attend(id, FEATURES, None);
            }
            Deed::Pass(micros) => now += Duration::from_micros(micros.into()),
            Deed::Errors { of, count } => {
                network.inject_errors(ControllerId(usize::from(of) % CONTROLLERS), count.into());
            }
            Deed::Leave(of) => network.leave_bus(ControllerId(usize::from(of) % CONTROLLERS), now),
            Deed::Packet { interface, bytes } => {
                if let Some(Heard::Frame(frame)) = raw::parse(&bytes) {
                    if interface {
                        network.heard(INTERFACE, frame, now);
                    } else {
                        network.send(BusId(0), Station::Host(PROGRAM), frame, now);
                    }
                }
            }
            Deed::Write { refuse } => {
                if let Some(frame) = network.write(INTERFACE) {
                    match refuse {
                        0 => network.unwrite(INTERFACE),
                        1 => network.refused(INTERFACE),
                        _ => written.push(frame),
                    }
                }
            }
            Deed::Acknowledge(which) => {
                if !written.is_empty() {
                    let frame = written.swap_remove(usize::from(which) % written.len());
                    network.acknowledged(INTERFACE, &frame, now);
                }
            }
            Deed::Link(link) => {
                let link = [Link::Up, Link::Up, Link::Down, Link::BusOff][usize::from(link) % 4];
                network.set_link(INTERFACE, link, now);
            }
            Deed::Die(of) => {
                let id = ControllerId(usize::from(of) % CONTROLLERS);
                let saved = network.saved(id);
                network.restore(id, saved, now);
                assert_eq!(network.saved(id), saved);
            }
        }
        network.advance(now);
        assert!(network.next_event().is_none_or(|at| at > now));
        collect(&mut network, &mut out);
    }
    // With time, everything on the bus of this process passes.
    network.advance(now + Duration::from_secs(10));
    collect(&mut network, &mut out);
    for place in 0..3 {
        assert!(out[place].is_empty(), "controller {place} waits for ever");
    }
});
