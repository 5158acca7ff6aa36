// SPDX-License-Identifier: Apache-2.0

//! The service as a process, driven over vhost-user by good drivers and hostile ones, with programs
//! of the host on its bus.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod support;

use std::os::unix::net::UnixStream;
use std::path::Path;

use frontend::clients::can::{
    CONTROL, CanClient, EXTENDED, FD, Heard, NOT_OK, OK, RTR, RX, START, STATUS_BUS_OFF, STOP, TX,
    TX_MESSAGE, frame, message,
};
use frontend::hostile::{Attack, Request, endure};
use frontend::message_bus::{MessageBus, Policy};
use frontend::ring::{Indirect, RingOptions};
use frontend::{Deadline, Guest, Segment};
use support::{Program, client, launch};

/// A service with two guests and a socket for programs.
fn two(directory: &Path) -> (frontend::ServiceUnderTest, CanClient, CanClient) {
    let second = directory.join("second");
    let service = launch(directory)
        .args([
            "--controller".to_owned(),
            format!("other={}", second.display()),
        ])
        .start()
        .unwrap();
    let first = client(&service);
    let stream = UnixStream::connect(second).unwrap();
    let second = CanClient::start(stream, &CanClient::options()).unwrap();
    (service, first, second)
}

fn heard(flags: u32, id: u32, length: u16, data: &[u8]) -> Heard {
    let data = data.to_vec();
    Heard {
        flags,
        id,
        length,
        data,
    }
}

#[test]
fn frames_of_every_kind_go_between_guests_and_programs_of_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let (_service, mut first, mut second) = two(directory.path());
    let program = Program::join(directory.path());
    let table = [
        (0, 0x123, 3, vec![1_u8, 2, 3]),
        (0, 0, 0, vec![]),
        (EXTENDED, 0x1fff_ffff, 8, vec![8; 8]),
        (RTR, 0x7ff, 4, vec![0; 4]),
        (RTR | EXTENDED, 1, 8, vec![0; 8]),
        (FD, 0x55, 64, (0..64).collect()),
        (FD | EXTENDED, 0x55, 48, vec![7; 48]),
    ];
    for (flags, id, length, data) in table {
        let sent = message(TX_MESSAGE, length, flags, id, &data);
        assert_eq!(first.send(&sent).unwrap(), OK);
        let expected = heard(flags, id, length, &data);
        assert_eq!(second.hear(Deadline::patient()).unwrap(), expected);
        // And back, by the host.
        let raw = program.hear();
        program.send(&raw);
        assert_eq!(first.hear(Deadline::patient()).unwrap(), expected);
        assert_eq!(second.hear(Deadline::patient()).unwrap(), expected);
    }
    assert!(first.guest_mut().ring_mut(RX).pop().unwrap().is_none());
}

#[test]
fn a_stopped_controller_neither_sends_nor_hears() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut client = CanClient::connect(stream, &CanClient::options()).unwrap();
    let program = Program::join(directory.path());
    assert_eq!(
        client.send(&frame(0, 1, &[])).unwrap(),
        NOT_OK,
        "it begins stopped"
    );
    assert_eq!(client.control(STOP).unwrap(), OK);
    assert_eq!(client.control(START).unwrap(), OK);
    assert_eq!(
        client.control(START).unwrap(),
        OK,
        "twice is as good as once"
    );
    assert_eq!(client.send(&frame(0, 2, &[])).unwrap(), OK);
    assert_eq!(client.control(0x0203).unwrap(), NOT_OK);
    assert_eq!(client.control(STOP).unwrap(), OK);
    assert_eq!(client.send(&frame(0, 3, &[])).unwrap(), NOT_OK);
    assert_eq!(
        program.hear()[..4],
        2_u32.to_ne_bytes(),
        "only what was sent is on the bus"
    );
    let other = Program::join(directory.path());
    program.send_frame(9, &[]);
    assert_eq!(other.hear()[..4], 9_u32.to_ne_bytes(), "it has passed");
    assert_eq!(client.control(START).unwrap(), OK);
    program.send_frame(10, &[]);
    assert_eq!(client.hear(Deadline::patient()).unwrap().id, 10);
}

#[test]
fn a_stop_gives_all_pending_frames_back_unsent_before_it_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody else is on the bus to acknowledge: frames wait.
    let service = support::launch_with(directory.path(), "acknowledge = \"stations\"", "");
    let mut client = client(&service);
    for id in 0..50 {
        client.post(&frame(0, id, &[1])).unwrap();
    }
    client.kick().unwrap();
    assert_eq!(client.control(STOP).unwrap(), OK);
    for _ in 0..50 {
        assert_eq!(client.answered(Deadline::patient()).unwrap().1, NOT_OK);
    }
    assert_eq!(client.control(START).unwrap(), OK);
    client.post(&frame(0, 77, &[1])).unwrap();
    client.kick().unwrap();
    let program = Program::join(directory.path());
    assert_eq!(client.answered(Deadline::patient()).unwrap().1, OK);
    assert_eq!(program.hear()[..4], 77_u32.to_ne_bytes());
}

#[test]
fn what_a_program_of_the_host_does_not_read_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let bus_folder = tempfile::tempdir().unwrap();
    let message_bus = MessageBus::start(bus_folder.path(), &Policy::Open).unwrap();
    let bus = message_bus.address();
    let service = support::launch_on(directory.path(), &bus).start().unwrap();
    let mut client = client(&service);
    let _program = Program::join(directory.path());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while support::property(&bus, "ProgramsLost").trim() == "t 0" {
        assert!(std::time::Instant::now() < end, "nothing was lost");
        for _ in 0..100 {
            client.post(&frame(0, 1, &[])).unwrap();
        }
        client.kick().unwrap();
        for _ in 0..100 {
            assert_eq!(client.answered(Deadline::patient()).unwrap().1, OK);
        }
    }
}

#[test]
fn bus_off_is_told_by_the_configuration_and_ends_with_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let bus_folder = tempfile::tempdir().unwrap();
    let message_bus = MessageBus::start(bus_folder.path(), &Policy::Open).unwrap();
    let bus = message_bus.address();
    let service = support::launch_on(directory.path(), &bus).start().unwrap();
    let mut client = client(&service);
    let program = Program::join(directory.path());
    for round in 0..3 {
        assert_eq!(client.status().unwrap(), 0);
        support::call(&bus, "InjectErrors", &["s", "guest", "u", "32"]);
        for id in 0..5 {
            client.post(&frame(0, id, &[1])).unwrap();
        }
        client.kick().unwrap();
        for _ in 0..5 {
            assert_eq!(client.answered(Deadline::patient()).unwrap().1, NOT_OK);
        }
        let channel = client.guest_mut().session().unwrap().channel().unwrap();
        channel.wait_config_change(Deadline::patient()).unwrap();
        assert_eq!(client.status().unwrap(), STATUS_BUS_OFF);
        assert_eq!(
            client.send(&frame(0, 6, &[])).unwrap(),
            NOT_OK,
            "round {round}"
        );
        assert_eq!(client.control(START).unwrap(), OK);
        assert_eq!(client.status().unwrap(), 0);
        assert_eq!(client.send(&frame(0, 7, &[])).unwrap(), OK);
        assert_eq!(program.hear()[..4], 7_u32.to_ne_bytes());
    }
    // And by command; a driver that goes away takes it along.
    support::call(&bus, "InjectBusOff", &["s", "guest"]);
    let channel = client.guest_mut().session().unwrap().channel().unwrap();
    channel.wait_config_change(Deadline::patient()).unwrap();
    assert_eq!(client.status().unwrap(), STATUS_BUS_OFF);
    client.reset().unwrap();
    assert_eq!(client.status().unwrap(), 0);
    let counted = support::call(&bus, "Statistics", &["s", "guest"]);
    assert!(counted.contains("\"bus_offs\" 4"), "{counted}");
}

#[test]
fn what_is_no_frame_is_refused_and_the_next_one_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut client = client(&service);
    let program = Program::join(directory.path());
    let wrong = [
        message(0, 0, 0, 1, &[]),
        message(0x0101, 0, 0, 1, &[]),
        message(TX_MESSAGE, 0, 1, 1, &[]),
        message(TX_MESSAGE, 0, 0xffff_ffff, 1, &[]),
        message(TX_MESSAGE, 0, FD | RTR, 1, &[]),
        message(TX_MESSAGE, 0, 0, 0x800, &[]),
        message(TX_MESSAGE, 0, EXTENDED, 0x2000_0000, &[]),
        message(TX_MESSAGE, 9, 0, 1, &[0; 9]),
        message(TX_MESSAGE, 9, RTR, 1, &[0; 9]),
        message(TX_MESSAGE, 65, FD, 1, &[0; 65]),
        message(TX_MESSAGE, 0xffff, FD, 1, &[0; 64]),
        message(TX_MESSAGE, 8, 0, 1, &[0; 7]),
        vec![1],
        vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for message in wrong {
        assert_eq!(client.send(&message).unwrap(), NOT_OK, "{message:?}");
        assert_eq!(client.send(&frame(0, 5, &[])).unwrap(), OK);
        assert_eq!(program.hear()[..4], 5_u32.to_ne_bytes());
    }
}

#[test]
fn kinds_that_were_not_negotiated_are_neither_sent_nor_heard() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut options = CanClient::options();
    // Classic alone.
    options.wishes.features &= !0b1110;
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut client = CanClient::start(stream, &options).unwrap();
    let program = Program::join(directory.path());
    assert_eq!(client.send(&frame(FD, 1, &[])).unwrap(), NOT_OK);
    assert_eq!(client.send(&frame(RTR, 1, &[])).unwrap(), NOT_OK);
    program.send(&support::raw(0x4000_0001, &[], 16));
    program.send(&support::raw(1, &[1; 64], 72));
    program.send_frame(2, &[]);
    assert_eq!(client.hear(Deadline::patient()).unwrap().id, 2);
    assert_eq!(client.send(&frame(0, 1, &[])).unwrap(), OK);
}

#[test]
fn every_attack_on_every_queue_is_endured_and_the_device_works_after_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let pid = service.service_pid();
    for queue in [TX, CONTROL] {
        let honest = Request {
            readable: if queue == TX {
                frame(0, 0x321, &[1, 2, 3, 4])
            } else {
                START.to_le_bytes().to_vec()
            },
            writable: 1,
        };
        for attack in Attack::ALL {
            let mut client = client(&service);
            endure(
                client.guest_mut(),
                queue,
                *attack,
                &honest,
                Deadline::patient(),
            )
            .unwrap_or_else(|error| panic!("{attack:?} on queue {queue}: {error}"));
            client.reset().unwrap();
            assert_eq!(client.control(START).unwrap(), OK);
            assert_eq!(client.send(&frame(0, 1, &[])).unwrap(), OK, "{attack:?}");
        }
    }
    let buffer = Request {
        readable: Vec::new(),
        writable: 80,
    };
    let program = Program::join(directory.path());
    for attack in Attack::ALL {
        let stream = service.connect(Deadline::patient()).unwrap();
        let guest = Guest::connect(stream, &CanClient::options()).unwrap();
        let mut client = CanClient::over(guest);
        client.guest_mut().start().unwrap();
        assert_eq!(client.control(START).unwrap(), OK);
        attack
            .launch(client.guest_mut().ring_mut(RX), &buffer)
            .unwrap();
        program.send_frame(1, &[1]);
        assert_eq!(client.send(&frame(0, 1, &[])).unwrap(), OK, "{attack:?}");
        client.reset().unwrap();
        assert_eq!(client.control(START).unwrap(), OK);
        program.send_frame(2, &[2]);
        // The first one may have passed only after the reset.
        while client.hear(Deadline::patient()).unwrap().id != 2 {}
    }
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn a_buffer_that_is_too_small_is_given_back_and_the_next_one_gets_the_frame() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let stream = service.connect(Deadline::patient()).unwrap();
    let guest = Guest::connect(stream, &CanClient::options()).unwrap();
    let mut client = CanClient::over(guest);
    client.guest_mut().start().unwrap();
    assert_eq!(client.control(START).unwrap(), OK);
    let program = Program::join(directory.path());
    let small = client.guest_mut().memory().alloc(17, 1).unwrap();
    let ring = client.guest_mut().ring_mut(RX);
    ring.add(&[Segment::Writable(small)]).unwrap();
    ring.kick().unwrap();
    program.send_frame(5, &[1, 2]);
    let ring = client.guest_mut().ring_mut(RX);
    assert_eq!(ring.wait(Deadline::patient()).unwrap().written, 0);
    client.fill(1).unwrap();
    assert_eq!(client.hear(Deadline::patient()).unwrap().id, 5);
}

#[test]
fn a_thousand_frames_are_in_flight_and_arrive_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut options = CanClient::options();
    let indirect = Indirect::Always;
    options.queues = vec![
        RingOptions {
            size: 1024,
            indirect,
            ..RingOptions::default()
        };
        3
    ];
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut client = CanClient::start(stream, &options).unwrap();
    let program = Program::join(directory.path());
    let chains: Vec<_> = (0..1024_u32)
        .map(|number| client.post(&frame(0, 1, &number.to_le_bytes())).unwrap())
        .collect();
    client.kick().unwrap();
    for (number, chain) in (0_u32..).zip(chains) {
        assert_eq!(client.answered(Deadline::patient()).unwrap(), (chain, OK));
        assert_eq!(program.hear()[8..12], number.to_le_bytes());
    }
}

#[test]
fn a_guest_that_is_paused_gets_its_answers_when_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let service = support::launch_with(directory.path(), "acknowledge = \"stations\"", "");
    let mut client = client(&service);
    for id in 0..10 {
        client.post(&frame(0, id, &[])).unwrap();
    }
    client.kick().unwrap();
    client.guest_mut().pause().unwrap();
    let program = Program::join(directory.path());
    for id in 0..10_u32 {
        assert_eq!(program.hear()[..4], id.to_ne_bytes());
    }
    program.send_frame(0x100, &[]);
    client.guest_mut().resume().unwrap();
    for _ in 0..10 {
        assert_eq!(client.answered(Deadline::patient()).unwrap().1, OK);
    }
    assert_eq!(client.hear(Deadline::patient()).unwrap().id, 0x100);
}

#[test]
fn policy_of_a_file_holds() {
    let directory = tempfile::tempdir().unwrap();
    let policy = r#"
        send = ["100-1ff", "extended"]
        receive = ["200-2ff"]
        limits = [{ ids = ["180"], per_second = 1, burst = 2 }]
    "#;
    let service = support::launch_with(directory.path(), "", policy);
    let mut client = client(&service);
    let program = Program::join(directory.path());
    assert_eq!(client.send(&frame(0, 0x200, &[])).unwrap(), NOT_OK);
    assert_eq!(client.send(&frame(0, 0x100, &[])).unwrap(), OK);
    assert_eq!(client.send(&frame(EXTENDED, 0x200, &[])).unwrap(), OK);
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(client.send(&frame(0, 0x180, &[])).unwrap());
    }
    assert_eq!(answers[..2], [OK, OK]);
    program.send_frame(0x300, &[]);
    program.send_frame(0x2ff, &[]);
    assert_eq!(client.hear(Deadline::patient()).unwrap().id, 0x2ff);
}
