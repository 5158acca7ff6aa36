// SPDX-License-Identifier: Apache-2.0

//! What a device can know of how far its driver has come.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod echo;

use echo::{ECHO, Service, ask};
use frontend::ring::RingOptions;
use frontend::{Deadline, Guest, GuestOptions, Segment};
use virtio_device::Seen;

const EVENT_IDX: u64 = 1 << 29;
const SIZE: u16 = 16;

fn options() -> GuestOptions {
    let mut options = GuestOptions::new(2);
    options.queues[0] = RingOptions {
        size: SIZE,
        ..RingOptions::default()
    };
    options
}

/// Sends `request` and leaves the answer in the used ring, where the device has put it on return.
fn ask_and_leave(guest: &mut Guest, request: &[u8]) {
    let memory = std::sync::Arc::clone(guest.memory());
    let buffer = memory.alloc(request.len() as u32, 1).unwrap();
    memory.write(buffer.addr, request).unwrap();
    let ring = guest.ring_mut(ECHO);
    let before = ring.used_idx().unwrap();
    ring.add(&[Segment::Readable(buffer)]).unwrap();
    ring.kick().unwrap();
    let deadline = Deadline::patient();
    while ring.used_idx().unwrap() == before {
        assert!(!deadline.passed(), "no answer");
        std::thread::yield_now();
    }
}

fn marked(service: &Service) -> Seen {
    *service.seen.lock().unwrap().marked.last().unwrap()
}

#[test]
fn a_driver_tells_by_the_interrupt_that_it_wants_next() {
    let service = Service::start();
    let mut guest = service.guest_with(&options());
    for round in 0..3 {
        ask_and_leave(&mut guest, b"mark");
        ask_and_leave(&mut guest, b"seen");
        assert_eq!(marked(&service), Seen::NotYet, "round {round}");
        let ring = guest.ring_mut(ECHO);
        assert_eq!(ring.pop_all().unwrap().len(), 2);
        ask(&mut guest, b"seen", 4);
        assert_eq!(marked(&service), Seen::Yes, "round {round}");
    }
}

#[test]
fn a_driver_that_polls_has_seen_what_it_must_have_used_again() {
    for event_idx in [true, false] {
        let service = Service::start();
        let mut options = options();
        if !event_idx {
            options.wishes.features &= !EVENT_IDX;
        }
        let mut guest = service.guest_with(&options);
        guest.ring_mut(ECHO).disable_calls().unwrap();
        ask_and_leave(&mut guest, b"mark");
        for since in 0..=SIZE {
            guest.ring_mut(ECHO).pop_all().unwrap();
            ask_and_leave(&mut guest, b"seen");
            let expected = match (since, event_idx) {
                (SIZE, _) => Seen::Yes,
                (_, true) => Seen::NotYet,
                (_, false) => Seen::Untold,
            };
            assert_eq!(marked(&service), expected, "{since} later");
        }
    }
}

#[test]
fn a_mark_is_good_across_a_pause() {
    let service = Service::start();
    let mut guest = service.guest_with(&options());
    ask_and_leave(&mut guest, b"mark");
    guest.pause().unwrap();
    guest.resume().unwrap();
    ask_and_leave(&mut guest, b"seen");
    assert_eq!(marked(&service), Seen::NotYet);
    guest.ring_mut(ECHO).pop_all().unwrap();
    ask(&mut guest, b"seen", 4);
    assert_eq!(marked(&service), Seen::Yes);
}
