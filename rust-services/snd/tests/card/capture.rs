// SPDX-License-Identifier: Apache-2.0

//! What is recorded is what is there.

use std::time::{Duration, Instant};

use agl_virtio_snd::backend::file::SourceConfig;
use frontend::Deadline;
use frontend::clients::snd::RX;
use frontend::clients::snd::wire::{Params, request, status};

use crate::support::{Card, MICROPHONE, noise};

/// Records `periods` and releases.
fn record(card: &mut Card, params: &Params, periods: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    for _ in 0..4 {
        card.client()
            .record(MICROPHONE, params.period_bytes)
            .unwrap();
    }
    card.client().kick(RX).unwrap();
    card.pcm(request::PCM_START, MICROPHONE);
    for _ in 0..periods {
        let transfer = card.client().recorded(Deadline::patient()).unwrap();
        assert_eq!(
            (transfer.status, transfer.written),
            (status::OK, params.period_bytes + 8)
        );
        heard.extend(transfer.data);
        card.client()
            .record(MICROPHONE, params.period_bytes)
            .unwrap();
        card.client().kick(RX).unwrap();
    }
    card.pcm(request::PCM_STOP, MICROPHONE);
    card.pcm(request::PCM_RELEASE, MICROPHONE);
    // What the release gave back is no part of the recording.
    assert_eq!(
        card.client()
            .guest_mut()
            .ring_mut(RX)
            .pop_all()
            .unwrap()
            .len(),
        4
    );
    heard
}

#[test]
fn a_file_is_recorded_bit_by_bit_at_the_pace_of_the_clock() {
    let data = noise(1920 * 7);
    let samples = data.clone();
    let mut card = Card::with(move |config, folder| {
        let input = folder.join("samples.raw");
        std::fs::write(&input, &samples).unwrap();
        config.streams[2].sources = vec![SourceConfig {
            name: "File".into(),
            input: Some(input),
            tone: None,
        }];
    });
    card.prepare(MICROPHONE, &Params::CD_LIKE);
    let begin = Instant::now();
    let heard = record(&mut card, &Params::CD_LIKE, 21);
    assert!(begin.elapsed() >= Duration::from_millis(210));
    assert_eq!(heard, data.repeat(3));
}

#[test]
fn a_release_gives_back_what_was_recorded_so_far() {
    let mut card = Card::new();
    let params = Params {
        period_bytes: 192_000,
        buffer_bytes: 384_000,
        ..Params::CD_LIKE
    };
    card.prepare(MICROPHONE, &params);
    for _ in 0..2 {
        card.client()
            .record(MICROPHONE, params.period_bytes)
            .unwrap();
    }
    card.pcm(request::PCM_START, MICROPHONE);
    card.pcm(request::PCM_STOP, MICROPHONE);
    card.pcm(request::PCM_RELEASE, MICROPHONE);
    let back = card.client().guest_mut().ring_mut(RX).pop_all().unwrap();
    assert_eq!(back.len(), 2);
    assert!(back.iter().all(|completion| completion.written >= 8));
    assert_eq!(back[1].written, 8);
}

#[test]
fn the_guest_chooses_between_silence_and_a_tone() {
    let mut card = Card::new();
    card.prepare(MICROPHONE, &Params::CD_LIKE);
    assert!(
        record(&mut card, &Params::CD_LIKE, 3)
            .iter()
            .all(|byte| *byte == 0)
    );
    // The last element is the source, its second item the tone.
    assert_eq!(
        card.client().ctl_write(6, &1_u32.to_le_bytes()).unwrap(),
        status::OK
    );
    card.pcm(request::PCM_PREPARE, MICROPHONE);
    let heard = record(&mut card, &Params::CD_LIKE, 3);
    let peak = heard
        .chunks(2)
        .map(|two| i16::from_le_bytes([two[0], two[1]]))
        .max()
        .unwrap();
    assert_eq!(peak, 3277, "1 kHz at -20 dB");
}
