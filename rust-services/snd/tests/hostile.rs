// SPDX-License-Identifier: Apache-2.0

//! A hostile driver on every queue: after each attack the device still plays for an honest one.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::path::Path;

use frontend::Deadline;
use frontend::clients::snd::wire::{self, Params, request, status};
use frontend::clients::snd::{CONTROL, Cut, EVENT, RX, SndClient, TX};
use frontend::hostile::{Attack, Request, endure};
use frontend::service_under_test::{Launch, ServiceUnderTest};

const OUTPUT: u32 = 0;

fn launch(directory: &Path) -> ServiceUnderTest {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-snd"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", "none", "--output"])
    .args([directory.join("out")])
    .start()
    .unwrap()
}

fn client(service: &ServiceUnderTest) -> SndClient {
    let stream = service.connect(Deadline::patient()).unwrap();
    SndClient::start(stream, &SndClient::options()).unwrap()
}

/// A valid request for a queue, for an attack to mutilate.
fn honest(queue: u16) -> Request {
    let transfer = |payload: usize| {
        let mut bytes = OUTPUT.to_le_bytes().to_vec();
        bytes.resize(4 + payload, 0);
        bytes
    };
    match queue {
        CONTROL => Request {
            readable: wire::query_info(request::PCM_INFO, 0, 1, wire::PCM_INFO_SIZE),
            writable: 4 + wire::PCM_INFO_SIZE,
        },
        EVENT => Request {
            readable: Vec::new(),
            writable: wire::EVENT_SIZE,
        },
        TX => Request {
            readable: transfer(1920),
            writable: wire::PCM_STATUS_SIZE,
        },
        _ => Request {
            readable: transfer(0),
            writable: 1920 + wire::PCM_STATUS_SIZE,
        },
    }
}

/// Plays three buffers as a good driver does.
fn plays(client: &mut SndClient) {
    let mut params = Params::CD_LIKE;
    params.period_bytes = 192;
    params.buffer_bytes = 192 * 16;
    assert_eq!(client.set_params(OUTPUT, &params).unwrap(), status::OK);
    assert_eq!(
        client.pcm(request::PCM_PREPARE, OUTPUT).unwrap(),
        status::OK
    );
    for _ in 0..3 {
        client.play(OUTPUT, &[0; 192]).unwrap();
    }
    client.kick(TX).unwrap();
    assert_eq!(client.pcm(request::PCM_START, OUTPUT).unwrap(), status::OK);
    for _ in 0..3 {
        assert_eq!(
            client.played(Deadline::patient()).unwrap().status,
            status::OK
        );
    }
    assert_eq!(client.pcm(request::PCM_STOP, OUTPUT).unwrap(), status::OK);
    assert_eq!(
        client.pcm(request::PCM_RELEASE, OUTPUT).unwrap(),
        status::OK
    );
}

#[test]
fn every_attack_on_control_tx_and_rx_is_endured_and_the_device_still_plays() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path());
    let pid = service.service_pid();
    for queue in [CONTROL, TX, RX] {
        for attack in Attack::ALL {
            let mut client = client(&service);
            let request = honest(queue);
            endure(
                client.guest_mut(),
                queue,
                *attack,
                &request,
                Deadline::patient(),
            )
            .unwrap_or_else(|error| panic!("{attack:?} on queue {queue}: {error}"));
            if queue != CONTROL {
                // Another queue has noticed nothing.
                assert_eq!(
                    client.pcm_info(0..1).unwrap().len(),
                    1,
                    "{attack:?} on {queue}"
                );
            }
            client.reset().unwrap();
            plays(&mut client);
        }
    }
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn every_attack_on_the_event_queue_is_endured_and_events_still_come_after_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path());
    for attack in Attack::ALL {
        let mut client = client(&service);
        let controls = client.config().unwrap().controls;
        assert!(controls > 0, "the default has control elements");
        attack
            .launch(client.guest_mut().ring_mut(EVENT), &honest(EVENT))
            .unwrap();
        // A change of a control element makes the device take a buffer of the event queue.
        for value in [1_u32, 0] {
            let written = client.ctl_write(0, &value.to_le_bytes()).unwrap();
            assert!(
                [status::OK, status::BAD_MSG].contains(&written),
                "{attack:?}: {written:#x}"
            );
        }
        client.reset().unwrap();
        client.fill_events(8).unwrap();
        plays(&mut client);
    }
}

#[test]
fn requests_are_the_same_however_they_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path());
    let mut client = client(&service);
    let whole = client.pcm_info(0..1).unwrap();
    client.set_cut(Cut::Pieces(1));
    assert_eq!(client.pcm_info(0..1).unwrap(), whole);
    plays(&mut client);
    client.set_cut(Cut::Pieces(3));
    plays(&mut client);
}

#[test]
fn requests_that_are_too_short_or_ask_for_too_much_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path());
    let mut client = client(&service);
    for code in (0..0x400).step_by(1).chain([0xffff, u32::MAX]) {
        let reply = client.control(&wire::words(&[code]), 0).unwrap();
        assert_ne!(
            reply.status,
            status::OK,
            "{code:#x} says nothing but its code"
        );
        let reply = client.control(&wire::words(&[code, u32::MAX]), 64).unwrap();
        assert_ne!(
            reply.status,
            status::OK,
            "{code:#x} names nothing that exists"
        );
        let most = wire::query_info(code, u32::MAX, u32::MAX, u32::MAX);
        let reply = client.control(&most, 64).unwrap();
        assert_ne!(reply.status, status::OK, "{code:#x} asks for everything");
    }
    for len in 0..4 {
        // A code that is not even whole: there is room for a status, so there is one.
        let reply = client.control(&vec![0; len], 0);
        assert!(reply.is_ok_and(|reply| reply.status != status::OK) || len == 0);
    }
    plays(&mut client);
}
