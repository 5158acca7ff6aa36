// SPDX-License-Identifier: Apache-2.0

//! Polling, pause of the VM, reset: what happens around the streams.

use std::time::Duration;

use frontend::Deadline;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{RX, TX};

use crate::support::{Card, MICROPHONE, MULTIMEDIA, noise};

const POLLING: u32 = 1 << 2;

#[test]
fn a_driver_that_never_kicks_is_served() {
    let mut card = Card::with(|config, _| config.polling = true);
    assert_eq!(
        card.client().pcm_info(0..1).unwrap()[0].features,
        1 << 4 | POLLING
    );
    let params = Params {
        features: POLLING,
        ..Params::CD_LIKE
    };
    let data = noise(1920 * 12);
    card.prepare(MULTIMEDIA, &params);
    card.prepare(MICROPHONE, &params);
    card.pcm(request::PCM_START, MULTIMEDIA);
    card.pcm(request::PCM_START, MICROPHONE);
    for (index, period) in data.chunks(1920).enumerate() {
        card.client().play(MULTIMEDIA, period).unwrap();
        card.client().record(MICROPHONE, 1920).unwrap();
        if index >= 8 {
            let transfer = card.client().played(Deadline::patient()).unwrap();
            assert_eq!(transfer.status, status::OK);
        }
    }
    for _ in 0..8 {
        card.client().played(Deadline::patient()).unwrap();
    }
    for _ in 0..12 {
        let transfer = card.client().recorded(Deadline::patient()).unwrap();
        assert_eq!((transfer.status, transfer.written), (status::OK, 1928));
    }
    card.pcm(request::PCM_STOP, MULTIMEDIA);
    card.pcm(request::PCM_RELEASE, MULTIMEDIA);
    assert_eq!(card.file("Multimedia-1.wav", data.len()), data);
}

#[test]
fn polling_that_was_not_offered_cannot_be_selected() {
    let mut card = Card::new();
    let params = Params {
        features: POLLING,
        ..Params::CD_LIKE
    };
    assert_eq!(
        card.client().set_params(MULTIMEDIA, &params).unwrap(),
        status::NOT_SUPP
    );
}

#[test]
fn a_paused_vm_loses_and_repeats_nothing() {
    let mut card = Card::new();
    let data = noise(1920 * 12);
    card.prepare(MULTIMEDIA, &Params::CD_LIKE);
    let sent: Vec<_> = data
        .chunks(1920)
        .map(|period| card.client().play(MULTIMEDIA, period).unwrap())
        .collect();
    card.client().kick(TX).unwrap();
    card.pcm(request::PCM_START, MULTIMEDIA);
    let mut back = vec![card.client().played(Deadline::patient()).unwrap().chain];
    for _ in 0..3 {
        card.client().guest_mut().pause().unwrap();
        let there = card.client().guest_mut().ring_mut(TX).pop_all().unwrap();
        back.extend(there.iter().map(|completion| completion.chain));
        let quiet = card
            .client()
            .played(Deadline::after(Duration::from_millis(30)));
        assert!(quiet.is_err(), "a paused guest's memory is left alone");
        card.client().guest_mut().resume().unwrap();
        back.push(card.client().played(Deadline::patient()).unwrap().chain);
    }
    while back.len() < sent.len() {
        back.push(card.client().played(Deadline::patient()).unwrap().chain);
    }
    assert_eq!(back, sent);
    card.pcm(request::PCM_STOP, MULTIMEDIA);
    card.pcm(request::PCM_RELEASE, MULTIMEDIA);
    assert_eq!(card.file("Multimedia-1.wav", data.len()), data);
}

#[test]
fn a_reset_at_any_moment_leaves_a_card_as_new() {
    let mut card = Card::new();
    for steps in 0..4 {
        card.prepare(MULTIMEDIA, &Params::CD_LIKE);
        card.prepare(MICROPHONE, &Params::CD_LIKE);
        for _ in 0..4 {
            card.client().play(MULTIMEDIA, &noise(1920)).unwrap();
            card.client().record(MICROPHONE, 1920).unwrap();
        }
        card.client().kick(TX).unwrap();
        card.client().kick(RX).unwrap();
        if steps > 0 {
            card.pcm(request::PCM_START, MULTIMEDIA);
            card.pcm(request::PCM_START, MICROPHONE);
        }
        if steps > 1 {
            card.client().played(Deadline::patient()).unwrap();
        }
        if steps > 2 {
            card.pcm(request::PCM_STOP, MULTIMEDIA);
        }
        card.client().reset().unwrap();
        assert_eq!(
            card.client().pcm(request::PCM_PREPARE, MULTIMEDIA).unwrap(),
            status::BAD_MSG
        );
    }
    let data = noise(1920 * 4);
    card.prepare(MULTIMEDIA, &Params::CD_LIKE);
    card.play(MULTIMEDIA, &Params::CD_LIKE, &data);
}
