// SPDX-License-Identifier: Apache-2.0

//! Sessions that pause, reset, end and begin again, at any moment.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod echo;

use echo::{ECHO, HOLD, Service, ask, hold, release};
use frontend::config::Change;
use frontend::{Deadline, Guest, GuestOptions};
use std::sync::Arc;

use virtio_device::{Options, Record, Server, ServerError, Start};

#[test]
fn a_pause_keeps_what_the_device_holds() {
    let service = Service::start();
    let mut guest = service.guest();
    let chains = [hold(&mut guest), hold(&mut guest), hold(&mut guest)];
    // All three are with the device when the next request has been answered.
    assert_eq!(ask(&mut guest, b"x", 1), b"x");
    let bases = guest.pause().unwrap();
    assert_eq!(bases[usize::from(HOLD)], 3);
    guest.resume().unwrap();
    assert_eq!(release(&mut guest), chains);
    assert_eq!(service.seen.lock().unwrap().resets, 0);
}

#[test]
fn a_reset_voids_what_the_device_holds() {
    let service = Service::start();
    let mut guest = service.guest();
    hold(&mut guest);
    // The chain is with the device when the next request has been answered.
    assert_eq!(ask(&mut guest, b"x", 1), b"x");
    guest.reset().unwrap();
    guest.resume().unwrap();
    let chain = hold(&mut guest);
    assert_eq!(release(&mut guest), [chain]);
    assert!(service.seen.lock().unwrap().resets >= 1);
}

#[test]
fn a_queue_that_was_not_used_works_after_a_reset_that_a_later_queue_tells() {
    let service = Service::start();
    let mut guest = service.guest();
    for _ in 0..3 {
        // The first queue stands where it began: after the reset it looks as after a pause.
        hold(&mut guest);
        guest.reset().unwrap();
        guest.resume().unwrap();
    }
    let chain = hold(&mut guest);
    assert_eq!(ask(&mut guest, b"x", 1), b"x");
    assert_eq!(release(&mut guest), [chain]);
}

#[test]
fn a_reset_by_message_is_a_reset() {
    let service = Service::start();
    let mut guest = service.guest();
    hold(&mut guest);
    guest.reset_by_message().unwrap();
    guest.resume().unwrap();
    let chain = hold(&mut guest);
    assert_eq!(release(&mut guest), [chain]);
}

#[test]
fn the_configuration_space_reads_as_zero_beyond_its_end() {
    let service = Service::start();
    let guest = service.guest();
    assert_eq!(
        guest.session().unwrap().config(0, 10).unwrap(),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    );
    assert_eq!(
        guest.session().unwrap().config(8, 6).unwrap(),
        [9, 10, 0, 0, 0, 0]
    );
    assert_eq!(
        guest.session().unwrap().config(200, 4).unwrap(),
        [0, 0, 0, 0]
    );
    guest
        .session()
        .unwrap()
        .write_config(3, &[7, 8], Change::ByDriver)
        .unwrap();
    assert_eq!(service.seen.lock().unwrap().written, [(3, vec![7, 8])]);
}

#[test]
fn a_change_of_the_configuration_reaches_the_driver() {
    let service = Service::start();
    let mut options = GuestOptions::new(2);
    options.wishes = frontend::session::Wishes::default();
    let guest = service.guest_with(&options);
    let channel = guest
        .session()
        .unwrap()
        .channel()
        .expect("the back-end channel");
    service.config.lock().unwrap()[0] = 99;
    service.server.config_changed();
    channel.wait_config_change(Deadline::patient()).unwrap();
    assert_eq!(guest.session().unwrap().config(0, 1).unwrap(), [99]);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count()
}

#[test]
fn drivers_come_and_go_and_leave_nothing_behind() {
    let service = Service::start();
    let visit = |round: usize| {
        let mut guest = service.guest();
        match round % 4 {
            0 => {}
            1 => {
                hold(&mut guest);
            }
            2 => assert_eq!(ask(&mut guest, b"hello", 2), b"hello"),
            _ => {
                guest.pause().unwrap();
            }
        }
    };
    (0..40).for_each(visit);
    // The service learns of a hang-up when it learns of it: the next visit waits for that.
    let before = (open_files(), threads(), mappings());
    (0..1000).for_each(visit);
    let after = (open_files(), threads(), mappings());
    // Other tests of this process run meanwhile; a leak of one per visit is far above that.
    assert!(
        after.0 < before.0 + 200,
        "descriptors: {before:?} -> {after:?}"
    );
    assert!(after.1 < before.1 + 100, "threads: {before:?} -> {after:?}");
    assert!(
        after.2 < before.2 + 500,
        "mappings: {before:?} -> {after:?}"
    );
}

#[test]
fn a_front_end_that_says_nonsense_is_hung_up_on_and_the_next_is_served() {
    let service = Service::start();
    for bytes in [
        &[0_u8; 12][..],
        &[0xff; 64],
        b"GET / HTTP/1.1\r\n\r\n",
        &[1, 0, 0, 0],
    ] {
        let guest = frontend::session::Session::raw(service.connect());
        // The service may hang up on the first bytes; that the rest cannot be sent is no matter.
        let _ = guest.connection().send_bytes(bytes, &[]);
        drop(guest);
        let mut guest = service.guest();
        assert_eq!(ask(&mut guest, b"still here", 5), b"still here");
    }
}

#[test]
fn chains_in_flight_at_a_death_come_back_once_from_the_next_process() {
    // The VMM keeps the record. A service that stops leaves it as one that was killed does.
    let mut guest = Guest::new(&GuestOptions::new(2)).unwrap();
    let first = Service::start();
    guest.reconnect(first.connect()).unwrap();
    guest.start().unwrap();
    let chains = [hold(&mut guest), hold(&mut guest)];
    assert_eq!(ask(&mut guest, b"x", 1), b"x");
    drop(first);

    let second = Service::start();
    guest.reconnect(second.connect()).unwrap();
    guest.start().unwrap();
    let third = hold(&mut guest);
    assert_eq!(release(&mut guest), [chains[0], chains[1], third]);
    assert_eq!(ask(&mut guest, b"again", 2), b"again");
    let starts = second.seen.lock().unwrap().starts.clone();
    let recovered = |queue| (usize::from(queue), Start::Recovered);
    assert_eq!(starts, [recovered(ECHO), recovered(HOLD)]);
}

#[test]
fn a_record_of_another_device_is_refused() {
    let record = Record::create().unwrap();
    record.set_device(25);
    let device = echo::Echo {
        seen: Arc::default(),
        config: Arc::default(),
    };
    let options = Options {
        record: Some(record),
        ..Options::default()
    };
    let refused = Server::new(Arc::new(device), options);
    assert!(matches!(
        refused,
        Err(ServerError::OtherDevice {
            found: 25,
            expected: 4
        })
    ));
}
