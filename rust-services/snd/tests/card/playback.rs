// SPDX-License-Identifier: Apache-2.0

//! What is played arrives, bit by bit and in time.

use std::time::Duration;

use frontend::Deadline;
use frontend::clients::snd::TX;
use frontend::clients::snd::wire::{Params, event, request, status};

use crate::support::{Card, EMERGENCY, MULTIMEDIA, noise};

const FRAME: u32 = 4;

#[test]
fn what_is_played_is_in_the_file_bit_by_bit_and_took_its_time() {
    let mut card = Card::new();
    let params = Params::CD_LIKE;
    let data = noise(params.period_bytes as usize * 25);
    card.prepare(MULTIMEDIA, &params);
    let took = card.play(MULTIMEDIA, &params, &data);
    assert!(
        took >= Duration::from_millis(250),
        "{took:?} for 250 ms of sound"
    );
    assert_eq!(card.file("Multimedia-1.wav", data.len()), data);
    let knobs = card.panel.stream(0).unwrap();
    // Not the under-runs: a busy machine may stop the stream a period after its last buffer.
    assert_eq!((knobs.frames(), knobs.latency_us()), (12_000, 0));
}

#[test]
fn formats_channels_and_rates_of_every_kind_arrive() {
    let mut card = Card::new();
    // Format, bytes of a sample that survive any container, channels, rate.
    let table = [
        (4, 1, 1, 6),
        (17, 4, 6, 7),
        (19, 4, 8, 10),
        (20, 8, 2, 6),
        (11, 3, 2, 10),
        (1, 1, 2, 1),
    ];
    for (number, (format, width, channels, rate)) in (1..).zip(table) {
        let frame = width * u32::from(channels);
        let period_bytes = frame * 100;
        let params = Params {
            buffer_bytes: period_bytes * 4,
            period_bytes,
            features: 0,
            channels,
            format,
            rate,
        };
        let data = noise(period_bytes as usize * 6);
        card.client().reset().unwrap();
        card.prepare(EMERGENCY, &params);
        card.play(EMERGENCY, &params, &data);
        let name = format!("Emergency-{number}.wav");
        assert_eq!(card.file(&name, data.len()), data, "format {format}");
    }
}

#[test]
fn a_pause_keeps_the_buffers_and_their_order() {
    let mut card = Card::new();
    let params = Params::CD_LIKE;
    let data = noise(params.period_bytes as usize * 8);
    card.prepare(MULTIMEDIA, &params);
    let sent: Vec<_> = data
        .chunks(params.period_bytes as usize)
        .map(|period| card.client().play(MULTIMEDIA, period).unwrap())
        .collect();
    card.client().kick(TX).unwrap();
    card.pcm(request::PCM_START, MULTIMEDIA);
    let first = card.client().played(Deadline::patient()).unwrap();
    card.pcm(request::PCM_STOP, MULTIMEDIA);
    let mut back = vec![first.chain];
    back.extend(
        card.client()
            .guest_mut()
            .ring_mut(TX)
            .pop_all()
            .unwrap()
            .iter()
            .map(|c| c.chain),
    );
    let quiet = card
        .client()
        .played(Deadline::after(Duration::from_millis(50)));
    assert!(quiet.is_err(), "nothing is consumed while the clock stands");
    card.pcm(request::PCM_START, MULTIMEDIA);
    while back.len() < sent.len() {
        back.push(card.client().played(Deadline::patient()).unwrap().chain);
    }
    assert_eq!(back, sent);
    card.pcm(request::PCM_STOP, MULTIMEDIA);
    card.pcm(request::PCM_RELEASE, MULTIMEDIA);
    assert_eq!(card.file("Multimedia-1.wav", data.len()), data);
}

#[test]
fn a_release_gives_every_buffer_back_before_it_is_answered() {
    let mut card = Card::new();
    let params = Params::CD_LIKE;
    card.prepare(MULTIMEDIA, &params);
    for _ in 0..16 {
        card.client().play(MULTIMEDIA, &noise(1920)).unwrap();
    }
    // Not even kicked for: they were there before the request.
    card.pcm(request::PCM_RELEASE, MULTIMEDIA);
    assert_eq!(
        card.client()
            .guest_mut()
            .ring_mut(TX)
            .pop_all()
            .unwrap()
            .len(),
        16
    );
}

#[test]
fn buffers_that_no_stream_takes_are_errors_at_once() {
    let mut card = Card::new();
    let refused = |card: &mut Card, stream, len| {
        card.client().play(stream, &noise(len)).unwrap();
        card.client().kick(TX).unwrap();
        let transfer = card.client().played(Deadline::patient()).unwrap();
        assert_eq!(
            (transfer.status, transfer.written),
            (status::IO_ERR, 8),
            "{stream} {len}"
        );
    };
    refused(&mut card, MULTIMEDIA, 1920);
    card.prepare(MULTIMEDIA, &Params::CD_LIKE);
    refused(&mut card, MULTIMEDIA, 1922);
    refused(&mut card, EMERGENCY, 1920);
    refused(&mut card, 2, 1920);
    refused(&mut card, 77, 1920);
}

#[test]
fn an_underrun_is_told_and_the_stream_goes_on() {
    let mut card = Card::new();
    let params = Params {
        features: 1 << 4,
        ..Params::CD_LIKE
    };
    let data = noise(3840);
    card.prepare(MULTIMEDIA, &params);
    for period in data.chunks(1920) {
        card.client().play(MULTIMEDIA, period).unwrap();
        card.client().kick(TX).unwrap();
        if card.panel.stream(0).unwrap().xruns() == 0 {
            card.pcm(request::PCM_START, MULTIMEDIA);
        }
        card.client().played(Deadline::patient()).unwrap();
        let told = card.client().event(Deadline::patient()).unwrap();
        assert_eq!((told.code, told.data), (event::PCM_XRUN, MULTIMEDIA));
    }
    assert_eq!(card.panel.stream(0).unwrap().xruns(), 2);
    card.pcm(request::PCM_STOP, MULTIMEDIA);
    card.pcm(request::PCM_RELEASE, MULTIMEDIA);
    assert_eq!(card.file("Multimedia-1.wav", data.len()), data);
}

#[test]
fn the_end_of_a_song_is_no_underrun() {
    let mut card = Card::new();
    let period_bytes = 480 * FRAME * 8;
    let params = Params {
        period_bytes,
        buffer_bytes: period_bytes * 2,
        features: 1 << 4,
        ..Params::CD_LIKE
    };
    card.prepare(MULTIMEDIA, &params);
    card.play(MULTIMEDIA, &params, &noise(period_bytes as usize * 2));
    // The STOP came within a period of the last frame, unless this machine was very slow.
    let xruns = card.panel.stream(0).unwrap().xruns();
    let told = card
        .client()
        .guest_mut()
        .ring_mut(1)
        .pop_all()
        .unwrap()
        .len();
    assert_eq!(told as u64, xruns);
}
