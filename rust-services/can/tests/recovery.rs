// SPDX-License-Identifier: Apache-2.0

//! The service is killed again and again under its keeper: the guest notices a pause.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod support;

use std::collections::HashMap;
use std::path::Path;

use frontend::Deadline;
use frontend::clients::can::{CanClient, NOT_OK, OK, START, STATUS_BUS_OFF, frame};
use frontend::message_bus::{MessageBus, Policy};
use frontend::service_under_test::{Launch, ServiceUnderTest, built_program};
use support::{Program, client, launch_on, write_config};

const KILLS: usize = 10;
/// Frames in flight at each kill.
const IN_FLIGHT: u32 = 60;

fn kept(directory: &Path, bus: &str) -> ServiceUnderTest {
    // Frames wait until a program is on the bus: none can pass unheard.
    let config = write_config(directory, "acknowledge = \"stations\"", "");
    launch_on(directory, bus)
        .args(["--config".into(), config])
        .below_keeper(built_program("agl-virtio-keeper").unwrap())
        .start()
        .unwrap()
}

#[test]
fn every_frame_is_answered_once_and_heard_at_most_once_and_those_answered_well_were_sent() {
    let directory = tempfile::tempdir().unwrap();
    let service = kept(directory.path(), "none");
    let mut client = client(&service);
    let mut number = 0_u32;
    let mut posted = HashMap::new();
    let mut answers = HashMap::new();
    let mut heard = Vec::new();
    for round in 0..KILLS {
        let program = Program::join(directory.path());
        for _ in 0..IN_FLIGHT {
            let bytes = number.to_le_bytes();
            posted.insert(client.post(&frame(0, 0x100, &bytes)).unwrap(), number);
            number += 1;
        }
        client.kick().unwrap();
        // Some have passed, others wait; how many is up to the moment.
        for _ in 0..IN_FLIGHT / 3 {
            heard.push(program.hear());
        }
        service.kill_service().unwrap();
        // What it had sent when it died is still to be read.
        while let Some(raw) = program.try_hear() {
            heard.push(raw);
        }
        let program = Program::join(directory.path());
        // The ring itself says when a frame comes back twice, or one that was not out.
        while !posted.is_empty() {
            let (chain, answer) = client.answered(Deadline::patient()).unwrap();
            answers.insert(posted.remove(&chain).unwrap(), answer);
        }
        // A frame of the next process that all can hear ends the round.
        assert_eq!(
            client.send(&frame(0, 0x7ff, &[])).unwrap(),
            OK,
            "round {round}"
        );
        loop {
            let raw = program.hear();
            if raw[..4] == 0x7ff_u32.to_ne_bytes() {
                break;
            }
            heard.push(raw);
        }
    }
    let numbers: Vec<u32> = heard
        .iter()
        .map(|raw| u32::from_le_bytes(raw[8..12].try_into().unwrap()))
        .collect();
    let unordered = numbers.windows(2).find(|pair| pair[1] <= pair[0]);
    assert_eq!(
        unordered, None,
        "a frame was sent twice, or before an earlier one"
    );
    assert_eq!(answers.len(), number as usize);
    let well = answers.values().filter(|answer| **answer == OK).count();
    assert_eq!(
        well,
        answers.len(),
        "one death is no reason to refuse a frame"
    );
    // A process may die between the note that a frame passes and its passing: once each time.
    let lost = well - numbers.len();
    assert!(lost <= KILLS, "{lost} frames were lost by {KILLS} kills");
    println!("{number} frames, {KILLS} kills, {lost} lost");
}

#[test]
fn a_controller_stays_as_it_was_when_its_service_dies() {
    let directory = tempfile::tempdir().unwrap();
    let bus_folder = tempfile::tempdir().unwrap();
    let message_bus = MessageBus::start(bus_folder.path(), &Policy::Open).unwrap();
    let bus = message_bus.address();
    let service = kept(directory.path(), &bus);
    let mut client = client(&service);
    for _ in 0..3 {
        let program = Program::join(directory.path());
        support::call(&bus, "InjectBusOff", &["s", "guest"]);
        let deadline = Deadline::patient();
        while client.status().unwrap() != STATUS_BUS_OFF {
            assert!(!deadline.passed(), "the controller does not leave the bus");
        }
        // When the second one is answered, all that the first turn had to do is done.
        for _ in 0..2 {
            assert_eq!(client.send(&frame(0, 1, &[])).unwrap(), NOT_OK);
        }
        let old = service.kill_service().unwrap();
        service
            .wait_service_pid(Some(old), Deadline::patient())
            .unwrap();
        drop(program);
        let program = Program::join(directory.path());
        assert_eq!(client.send(&frame(0, 1, &[])).unwrap(), NOT_OK);
        assert_eq!(client.status().unwrap(), STATUS_BUS_OFF);
        assert_eq!(client.control(START).unwrap(), OK);
        let old = service.kill_service().unwrap();
        service
            .wait_service_pid(Some(old), Deadline::patient())
            .unwrap();
        drop(program);
        let program = Program::join(directory.path());
        // Nobody started it again: it is started.
        assert_eq!(client.send(&frame(0, 2, &[])).unwrap(), OK);
        assert_eq!(program.hear()[..4], 2_u32.to_ne_bytes());
        program.send_frame(3, &[]);
        assert_eq!(client.hear(Deadline::patient()).unwrap().id, 3);
    }
}

/// Answers to all frames that are out, which must be good.
fn all_sent(client: &mut CanClient, frames: usize) {
    for _ in 0..frames {
        let (_, answer) = client.answered(Deadline::patient()).unwrap();
        assert_eq!(answer, OK);
    }
}

/// Sends a frame that nobody else sends, and waits until the other guest has heard it.
fn tell(from: &mut CanClient, to: &mut CanClient, id: u32) {
    assert_eq!(from.send(&frame(0, id, &[])).unwrap(), OK);
    while to.hear(Deadline::patient()).unwrap().id != id {}
}

#[test]
fn a_further_guest_with_a_keeper_of_its_own_notices_a_pause_too() {
    let directory = tempfile::tempdir().unwrap();
    let seat = directory.path().join("seat");
    let second = format!(
        "[[devices.can.controllers]]\nname = \"second\"\nsocket = \"{}\"",
        seat.display()
    );
    let bus = "acknowledge = \"stations\"";
    let config = write_config(
        directory.path(),
        bus,
        &format!("name = \"first\"\n{second}"),
    );
    let service = launch_on(directory.path(), "none")
        .args(["--config".into(), config])
        .below_keeper(built_program("agl-virtio-keeper").unwrap())
        .start()
        .unwrap();
    let keeper = built_program("agl-virtio-keeper").unwrap();
    let attached = Launch::new(keeper, directory.path().join("second"))
        .args(["--grace", "60s", "--log", "error", "--attach"])
        .args([seat])
        .start()
        .unwrap();
    let mut clients = [client(&service), client(&attached)];
    for round in 0..KILLS {
        for (place, client) in clients.iter_mut().enumerate() {
            for _ in 0..IN_FLIGHT {
                let id = 0x100 + place as u32;
                client.post(&frame(0, id, &[round as u8])).unwrap();
            }
            client.kick().unwrap();
        }
        service.kill_service().unwrap();
        for client in &mut clients {
            all_sent(client, IN_FLIGHT as usize);
        }
        let [first, second] = &mut clients;
        tell(first, second, 0x700);
        tell(second, first, 0x701);
    }
}
