// SPDX-License-Identifier: Apache-2.0

//! Every request, over the wire.

use frontend::clients::snd::wire::{self, Params, direction, request, status};

use crate::support::{Card, EMERGENCY, MICROPHONE, MULTIMEDIA};

#[test]
fn the_card_has_what_its_configuration_space_says() {
    let mut card = Card::new();
    let client = card.client();
    let config = client.config().unwrap();
    assert_eq!(
        (config.jacks, config.streams, config.chmaps, config.controls),
        (2, 3, 15, 7)
    );
    let streams = client.pcm_info(0..3).unwrap();
    let directions: Vec<u8> = streams.iter().map(|stream| stream.direction).collect();
    assert_eq!(
        directions,
        [direction::OUTPUT, direction::OUTPUT, direction::INPUT]
    );
    assert!(
        streams
            .iter()
            .all(|s| s.features == 1 << 4 && s.rates >> 14 == 0)
    );
    assert!(
        streams
            .iter()
            .all(|s| (s.channels_min, s.channels_max) == (1, 8))
    );
    let jacks = client.jack_info(0..2).unwrap();
    assert_eq!((jacks[0].connected, jacks[1].connected), (false, true));
    assert_eq!(client.chmap_info(0..15).unwrap().len(), 15);
    // Part of a list is a part of it.
    assert_eq!(client.pcm_info(2..3).unwrap()[0], streams[2]);
}

#[test]
fn an_item_takes_the_bytes_that_the_driver_says_it_does() {
    let mut card = Card::new();
    let client = card.client();
    let mut ask = |size: u32| {
        let reply = client
            .control(&wire::query_info(request::PCM_INFO, 0, 2, size), 2 * size)
            .unwrap();
        assert_eq!((reply.status, reply.written), (status::OK, 4 + 2 * size));
        reply.body
    };
    let exact = ask(32);
    let longer = ask(40);
    assert_eq!(longer[..32], exact[..32]);
    assert_eq!(longer[32..40], [0; 8]);
    assert_eq!(longer[40..72], exact[32..]);
    let shorter = ask(24);
    assert_eq!(shorter[24..], exact[32..56]);
}

#[test]
fn an_element_is_laid_out_as_the_text_has_it_or_as_linux_compiles_it() {
    let mut card = Card::new();
    let client = card.client();
    for size in [92, 96] {
        let reply = client
            .control(&wire::query_info(request::CTL_INFO, 0, 1, size), size)
            .unwrap();
        assert_eq!(reply.status, status::OK);
        let value = if size == 92 { 68 } else { 72 };
        assert_eq!(
            wire::u32_at(&reply.body, value + 4),
            100,
            "the maximum, at size {size}"
        );
        assert_eq!(&reply.body[24..51], b"Multimedia Playback Volume\0");
    }
}

#[test]
fn items_that_do_not_exist_and_rooms_that_are_too_small_are_bad_messages() {
    let mut card = Card::new();
    let client = card.client();
    let table = [
        (request::PCM_INFO, 0, 4, 32, 128),
        (request::PCM_INFO, 3, 1, 32, 32),
        (request::PCM_INFO, u32::MAX, 2, 32, 64),
        (request::PCM_INFO, 0, 3, 32, 95),
        (request::PCM_INFO, 0, 1, 0, 64),
        (request::PCM_INFO, 0, 1, u32::MAX, 64),
        (request::JACK_INFO, 2, 1, 24, 24),
        (request::CHMAP_INFO, 15, 1, 24, 24),
        (request::CTL_INFO, 7, 1, 96, 96),
        (request::CTL_INFO, 0, 1, 24, 24),
    ];
    for (code, start, count, size, room) in table {
        let reply = client
            .control(&wire::query_info(code, start, count, size), room)
            .unwrap();
        assert_eq!(
            (reply.status, reply.written),
            (status::BAD_MSG, 4),
            "{code:#x} {start}"
        );
    }
    let remap = wire::words(&[request::JACK_REMAP, 0, 1, 0]);
    assert_eq!(client.control(&remap, 0).unwrap().status, status::NOT_SUPP);
    let nowhere = wire::words(&[request::JACK_REMAP, 2, 1, 0]);
    assert_eq!(client.control(&nowhere, 0).unwrap().status, status::BAD_MSG);
    assert_eq!(
        client.control(&wire::words(&[0x999, 0]), 0).unwrap().status,
        status::NOT_SUPP
    );
    assert_eq!(
        client.pcm(request::PCM_PREPARE, 3).unwrap(),
        status::BAD_MSG
    );
}

/// One row per state: the requests that lead there, and those that are allowed then.
#[test]
fn every_request_in_every_state_is_answered_as_the_lifecycle_says() {
    use request::{
        PCM_PREPARE as PREPARE, PCM_RELEASE as RELEASE, PCM_SET_PARAMS as SET, PCM_START as START,
        PCM_STOP as STOP,
    };
    let all = [SET, PREPARE, START, STOP, RELEASE];
    let states: [(&[u32], &[u32]); 6] = [
        (&[], &[SET]),
        (&[SET], &[SET, PREPARE]),
        (&[SET, PREPARE], &[SET, PREPARE, START, RELEASE]),
        (&[SET, PREPARE, START], &[STOP]),
        (&[SET, PREPARE, START, STOP], &[START, RELEASE]),
        (&[SET, PREPARE, RELEASE], &[SET, PREPARE]),
    ];
    let mut card = Card::new();
    for stream in [MULTIMEDIA, EMERGENCY, MICROPHONE] {
        for (path, allowed) in states {
            for code in all {
                card.client().reset().unwrap();
                let mut send = |code| match code {
                    SET => card.client().set_params(stream, &Params::CD_LIKE).unwrap(),
                    code => card.client().pcm(code, stream).unwrap(),
                };
                for step in path {
                    assert_eq!(send(*step), status::OK, "{step:#x} of {path:x?}");
                }
                let expected = if allowed.contains(&code) {
                    status::OK
                } else {
                    status::BAD_MSG
                };
                assert_eq!(send(code), expected, "{code:#x} after {path:x?}");
            }
        }
    }
}
