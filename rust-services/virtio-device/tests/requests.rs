// SPDX-License-Identifier: Apache-2.0

//! Chains however they are cut, and what happens to those that make no sense.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod echo;

use echo::{ECHO, HOLD, Service, ask, hold, release};
use frontend::ring::{Descriptor, Indirect, RingOptions, descriptor_flag};
use frontend::session::Wishes;
use frontend::{Deadline, Guest, GuestOptions};

const EVENT_IDX: u64 = 1 << 29;

#[test]
fn a_request_is_the_same_however_its_driver_cut_it() {
    let service = Service::start();
    for indirect in [Indirect::Never, Indirect::LongChains, Indirect::Always] {
        for event_idx in [true, false] {
            let mut options = GuestOptions::new(2);
            options.queues = vec![
                RingOptions {
                    indirect,
                    ..RingOptions::default()
                };
                2
            ];
            if !event_idx {
                options.wishes = Wishes {
                    features: !EVENT_IDX,
                    ..Wishes::default()
                };
            }
            let mut guest = service.guest_with(&options);
            for cut in [1, 2, 3, 7, 64] {
                assert_eq!(
                    ask(&mut guest, b"the same however it is cut, in pieces", cut),
                    *b"the same however it is cut, in pieces"
                );
            }
        }
    }
}

#[test]
fn a_ring_goes_round_many_times() {
    let service = Service::start();
    let mut guest = service.guest();
    for round in 0..70_000_u32 {
        assert_eq!(
            ask(&mut guest, &round.to_le_bytes(), 4),
            round.to_le_bytes()
        );
    }
    let stats = service.server.stats();
    let queue = stats.queue(0).unwrap();
    assert_eq!(
        (queue.requests.get(), queue.completed.get()),
        (70_000, 70_000)
    );
    assert_eq!(queue.bytes_read.get(), 280_000);
}

#[test]
fn a_buffer_that_runs_from_one_region_into_the_next_is_one_buffer() {
    let service = Service::start();
    let mut guest = service.guest();
    let regions: Vec<(u64, u64)> = guest
        .memory()
        .regions()
        .iter()
        .map(|r| (r.guest_end(), r.guest_end()))
        .collect();
    // Only where two regions touch; the scattered layout has gaps, so this one must fail cleanly.
    let (end, _) = regions[0];
    let slots = guest.ring_mut(ECHO).reserve(1).unwrap();
    let descriptor = Descriptor {
        addr: end - 4,
        len: 8,
        flags: 0,
        next: 0,
    };
    guest
        .ring_mut(ECHO)
        .write_descriptor(slots[0], descriptor)
        .unwrap();
    guest.ring_mut(ECHO).publish(slots[0], 1, 0).unwrap();
    guest.ring_mut(ECHO).kick().unwrap();
    let done = guest.ring_mut(ECHO).wait(Deadline::patient()).unwrap();
    assert_eq!(done.written, 0);
    assert_eq!(service.errors(ECHO), 1);
    assert_eq!(ask(&mut guest, b"still here", 3), b"still here");
}

/// A chain of one descriptor table entry each, as raw as a driver can write it.
fn raw(guest: &mut Guest, make: impl Fn(&[u16]) -> Vec<Descriptor>, count: usize) {
    let ring = guest.ring_mut(ECHO);
    let slots = ring.reserve(count).unwrap();
    for (slot, descriptor) in slots.iter().zip(make(&slots)) {
        ring.write_descriptor(*slot, descriptor).unwrap();
    }
    ring.publish(slots[0], count as u16, 0).unwrap();
    ring.kick().unwrap();
    let done = ring.wait(Deadline::patient()).unwrap();
    assert_eq!(done.written, 0);
}

#[test]
fn a_chain_that_makes_no_sense_is_given_back_and_counted_and_the_next_is_served() {
    const NEXT: u16 = descriptor_flag::NEXT;
    const WRITE: u16 = descriptor_flag::WRITE;
    const INDIRECT: u16 = descriptor_flag::INDIRECT;
    type Make = Box<dyn Fn(&[u16]) -> Vec<Descriptor>>;

    let service = Service::start();
    let mut guest = service.guest();
    let good = guest.memory().alloc(64, 16).unwrap();
    let hole = guest.memory().address_in_gap();
    let table = guest.memory().alloc(64, 16).unwrap();
    let one = move |addr, len, flags, next| Descriptor {
        addr,
        len,
        flags,
        next,
    };
    let cases: Vec<(&str, usize, Make)> = vec![
        (
            "a loop of one",
            1,
            Box::new(move |s| vec![one(good.addr, 8, NEXT, s[0])]),
        ),
        (
            "a loop of two",
            2,
            Box::new(move |s| vec![one(good.addr, 8, NEXT, s[1]), one(good.addr, 8, NEXT, s[0])]),
        ),
        (
            "next out of range",
            1,
            Box::new(move |_| vec![one(good.addr, 8, NEXT, 0xffff)]),
        ),
        (
            "writable before readable",
            2,
            Box::new(move |s| {
                vec![
                    one(good.addr, 8, WRITE | NEXT, s[1]),
                    one(good.addr, 8, 0, 0),
                ]
            }),
        ),
        ("in a hole", 1, Box::new(move |_| vec![one(hole, 8, 0, 0)])),
        (
            "beyond the end of the address space",
            1,
            Box::new(move |_| vec![one(u64::MAX - 3, 8, 0, 0)]),
        ),
        (
            "all of 32 bits long",
            1,
            Box::new(move |_| vec![one(good.addr, u32::MAX, 0, 0)]),
        ),
        (
            "a table with a next",
            2,
            Box::new(move |s| {
                vec![
                    one(table.addr, 32, INDIRECT | NEXT, s[1]),
                    one(good.addr, 8, 0, 0),
                ]
            }),
        ),
        (
            "a table of 17 bytes",
            1,
            Box::new(move |_| vec![one(table.addr, 17, INDIRECT, 0)]),
        ),
        (
            "an empty table",
            1,
            Box::new(move |_| vec![one(table.addr, 0, INDIRECT, 0)]),
        ),
        (
            "a table in a hole",
            1,
            Box::new(move |_| vec![one(hole, 32, INDIRECT, 0)]),
        ),
    ];
    let count = cases.len() as u64;
    for (name, descriptors, make) in cases {
        eprintln!("{name}");
        raw(&mut guest, make, descriptors);
        assert_eq!(ask(&mut guest, b"next", 4), b"next", "after {name}");
    }
    // Inside of a table: another table, a loop, no end.
    for flags in [INDIRECT, NEXT] {
        let inner = one(table.addr, 16, flags, 0).to_bytes();
        guest.memory().write(table.addr, &inner).unwrap();
        raw(
            &mut guest,
            move |_| vec![one(table.addr, 16, INDIRECT, 0)],
            1,
        );
        assert_eq!(ask(&mut guest, b"next", 4), b"next");
    }
    assert_eq!(service.errors(ECHO), count + 2);
    assert_eq!(service.broken(ECHO), 0);
}

#[test]
fn a_corrupt_ring_is_set_aside_alone_and_works_again_after_its_next_start() {
    let service = Service::start();
    for corrupt in [
        (|guest: &mut Guest| guest.ring_mut(ECHO).publish_unrecorded(0xfff0).unwrap())
            as fn(&mut Guest),
        |guest| guest.ring_mut(ECHO).store_avail_idx(0x7000).unwrap(),
    ] {
        let before = service.broken(ECHO);
        let mut guest = service.guest();
        assert_eq!(ask(&mut guest, b"well", 4), b"well");
        let held = hold(&mut guest);
        corrupt(&mut guest);
        guest.ring_mut(ECHO).kick_always().unwrap();
        while service.broken(ECHO) == before {
            std::thread::yield_now();
        }
        // A storm of kicks on it costs nobody anything.
        for _ in 0..1000 {
            guest.ring_mut(ECHO).kick_always().unwrap();
        }
        assert_eq!(service.broken(ECHO), before + 1);
        assert_eq!(guest.ring(HOLD).outstanding_chains(), [held]);
        guest.reset().unwrap();
        guest.start_rings().unwrap();
        assert_eq!(ask(&mut guest, b"well again", 4), b"well again");
        let held = hold(&mut guest);
        assert_eq!(release(&mut guest), [held]);
    }
}

#[test]
fn a_head_that_the_device_still_holds_cannot_be_made_available_again() {
    let service = Service::start();
    let mut guest = service.guest();
    let buffer = guest.memory().alloc(1, 1).unwrap();
    let ring = guest.ring_mut(HOLD);
    let slot = ring.reserve(1).unwrap()[0];
    let flags = descriptor_flag::WRITE;
    let descriptor = Descriptor {
        addr: buffer.addr,
        len: 1,
        flags,
        next: 0,
    };
    ring.write_descriptor(slot, descriptor).unwrap();
    ring.publish_unrecorded(slot).unwrap();
    ring.publish_unrecorded(slot).unwrap();
    ring.kick_always().unwrap();
    while service.broken(HOLD) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(ask(&mut guest, b"still here", 4), b"still here");
    assert_eq!(guest.ring(HOLD).used_idx().unwrap(), 0);
}
