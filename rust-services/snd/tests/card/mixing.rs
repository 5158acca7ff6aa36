// SPDX-License-Identifier: Apache-2.0

//! Who is heard how loud, measured in what comes out.

use frontend::Deadline;
use frontend::clients::snd::TX;
use frontend::clients::snd::wire::{Params, request, status};

use crate::support::{Card, EMERGENCY, MULTIMEDIA};

/// A constant, so that each sample shows the gain that it got.
const LEVEL: i16 = 20_000;

fn flat(bytes: usize) -> Vec<u8> {
    LEVEL.to_le_bytes().repeat(bytes / 2)
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes
        .chunks(2)
        .map(|two| i16::from_le_bytes([two[0], two[1]]))
        .collect()
}

/// Gives streams further periods whenever one comes back, `count` times.
fn keep_playing(card: &mut Card, streams: &[u32], count: usize) {
    let mut played = 0;
    while played < count {
        let transfer = card.client().played(Deadline::patient()).unwrap();
        assert_eq!(transfer.status, status::OK);
        if !streams.contains(&transfer.stream) {
            // Given back by a release.
            continue;
        }
        played += 1;
        card.client().play(transfer.stream, &flat(1920)).unwrap();
        card.client().kick(TX).unwrap();
    }
}

fn begin(card: &mut Card, stream: u32) {
    card.prepare(stream, &Params::CD_LIKE);
    for _ in 0..8 {
        card.client().play(stream, &flat(1920)).unwrap();
    }
    card.client().kick(TX).unwrap();
    card.pcm(request::PCM_START, stream);
}

fn end(card: &mut Card, stream: u32) {
    card.pcm(request::PCM_STOP, stream);
    card.pcm(request::PCM_RELEASE, stream);
}

#[test]
fn music_steps_back_for_an_emergency_without_a_click_and_comes_back_whole() {
    let mut card = Card::new();
    begin(&mut card, MULTIMEDIA);
    keep_playing(&mut card, &[MULTIMEDIA], 5);
    begin(&mut card, EMERGENCY);
    keep_playing(&mut card, &[MULTIMEDIA, EMERGENCY], 30);
    end(&mut card, EMERGENCY);
    keep_playing(&mut card, &[MULTIMEDIA], 15);
    end(&mut card, MULTIMEDIA);
    let music = samples(&card.file("Multimedia-1.wav", 1920 * 30));
    assert_eq!(
        (music[0], *music.last().unwrap()),
        (LEVEL, LEVEL),
        "unity before and after"
    );
    assert!(music.contains(&(LEVEL / 10)), "20 dB down meanwhile");
    // A ramp of 10 ms: 18000 in 480 frames, 37.5 a frame, and rounding.
    let steepest = music.windows(3).map(|w| (w[0] - w[2]).abs()).max().unwrap();
    assert!(steepest <= 39, "{steepest}");
    let down = music.iter().position(|sample| *sample != LEVEL).unwrap();
    let there = music
        .iter()
        .position(|sample| *sample == LEVEL / 10)
        .unwrap();
    assert!(there - down < 2 * 480 * 2, "down within 10 ms");
    let chime = samples(&card.file("Emergency-1.wav", 1920));
    assert!(
        chime.iter().all(|sample| *sample == LEVEL),
        "nobody speaks over it"
    );
}

#[test]
fn volume_and_mute_are_heard_while_it_plays() {
    let mut card = Card::new();
    begin(&mut card, MULTIMEDIA);
    keep_playing(&mut card, &[MULTIMEDIA], 3);
    // 80 steps of half a decibel are 40 dB.
    assert_eq!(
        card.client().ctl_write(0, &20_u32.to_le_bytes()).unwrap(),
        status::OK
    );
    keep_playing(&mut card, &[MULTIMEDIA], 12);
    card.panel.stream(0).unwrap().set_mute(true);
    card.panel.host_turned();
    keep_playing(&mut card, &[MULTIMEDIA], 12);
    end(&mut card, MULTIMEDIA);
    let music = samples(&card.file("Multimedia-1.wav", 1920 * 20));
    assert_eq!(music[0], LEVEL);
    assert!(music.contains(&(LEVEL / 100)));
    assert_eq!(*music.last().unwrap(), 0);
}

#[test]
fn nobody_steps_back_for_a_stream_that_has_run_dry() {
    let mut card = Card::new();
    // Started, and no buffer at all: it has nothing to say yet.
    card.prepare(EMERGENCY, &Params::CD_LIKE);
    card.pcm(request::PCM_START, EMERGENCY);
    begin(&mut card, MULTIMEDIA);
    keep_playing(&mut card, &[MULTIMEDIA], 5);
    let whole = samples(&card.file("Multimedia-1.wav", 1920 * 5));
    assert!(whole.iter().all(|sample| *sample == LEVEL));
    // It speaks for 150 ms, and then no more.
    for _ in 0..15 {
        card.client().play(EMERGENCY, &flat(1920)).unwrap();
    }
    card.client().kick(TX).unwrap();
    let mut chimes = 0;
    while chimes < 15 {
        let transfer = card.client().played(Deadline::patient()).unwrap();
        assert_eq!(transfer.status, status::OK);
        if transfer.stream == EMERGENCY {
            chimes += 1;
            continue;
        }
        card.client().play(MULTIMEDIA, &flat(1920)).unwrap();
        card.client().kick(TX).unwrap();
    }
    keep_playing(&mut card, &[MULTIMEDIA], 15);
    end(&mut card, MULTIMEDIA);
    let music = samples(&card.file("Multimedia-1.wav", 1920 * 25));
    assert!(music.contains(&(LEVEL / 10)), "20 dB down meanwhile");
    assert_eq!(*music.last().unwrap(), LEVEL, "back although it is started");
    end(&mut card, EMERGENCY);
}
