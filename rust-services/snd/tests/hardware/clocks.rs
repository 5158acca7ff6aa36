// SPDX-License-Identifier: Apache-2.0

//! Cards whose clocks differ from the host's.

use crate::driver::Driver;
use crate::host::{Program, Recording, Substream, said};
use crate::sound::{self, USUAL};
use frontend::clients::snd::{RX, TX};

/// By how much a card is faster or slower, in parts per million: nearly as much as a stream's clock
/// may be steered.
const PPM: i64 = 900;
/// What is watched, in milliseconds.
const LENGTH: u64 = 100_000;
/// From when on a stream is in step with its card, in milliseconds: without steering, a stock would be
/// 54 ms further away at the end.
const IN_STEP: u64 = 40_000;
/// By how much a stock may differ meanwhile, in milliseconds.
const AWAY: u64 = 40;
/// How long a period is, in milliseconds.
const PERIOD: u64 = 20;
/// How far the frames per second may be from those of the card, in parts per million: the position
/// of these cards moves in leaps of 10 ms, and so does what is seen of their stock.
const TOLERANCE: f64 = 200.0;

/// "PCM Rate Shift 100000" of a substream: how long the card takes for what should take 100000.
fn set_rate(substream: u32, ppm: i64) {
    let shift = 100_000 * 1_000_000 / (1_000_000 + ppm);
    let control = format!("iface=PCM,name='PCM Rate Shift 100000',device=1,subdevice={substream}");
    said(&[
        "amixer",
        "-q",
        "-c",
        "Loopback",
        "cset",
        &control,
        &shift.to_string(),
    ]);
}

/// By how many parts per million a stream's buffers come back faster than the host's clock says.
fn rate(driver: &mut Driver, stream: usize) -> f64 {
    let times = driver.times(stream);
    let (first, last) = ((IN_STEP / PERIOD) as usize, (LENGTH / PERIOD) as usize - 1);
    let passed = (times[last] - times[first]).as_secs_f64();
    let played = (last - first) as f64 * PERIOD as f64 / 1000.0;
    (played / passed - 1.0) * 1e6
}

/// Between which times a stream's stock was while it was in step, in milliseconds.
fn stock(latencies: &[u64]) -> (u64, u64) {
    let in_step = &latencies[(IN_STEP / PERIOD) as usize..(LENGTH / PERIOD) as usize];
    let (least, most) = (in_step.iter().min(), in_step.iter().max());
    (least.unwrap() / 1000, most.unwrap() / 1000)
}

/// Whether nothing was said of a card that ran dry, fell behind or was read too late.
fn was_quiet(driver: &Driver) -> bool {
    let log = driver.log();
    !["ran dry", "fell behind", "too late"]
        .iter()
        .any(|word| log.contains(word))
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn a_guest_keeps_pace_with_cards_that_play_faster_and_slower_than_the_host() {
    let cards = [(4, PPM), (5, -PPM)];
    let mut driver = Driver::start(&cards.map(|(substream, _)| {
        format!(
            "backend = {{ type = \"alsa\", pcm = \"hw:Loopback,0,{substream}\", target_ms = 100 }}"
        )
    }));
    let recordings = cards.map(|(substream, ppm)| {
        set_rate(substream, ppm);
        let file = driver.path(&format!("heard-{substream}"));
        Recording::start(substream, &USUAL, &file)
    });
    for stream in 0..cards.len() {
        driver.play(stream, &USUAL, None);
    }
    while driver.time(1) < LENGTH {
        driver.settle(TX);
    }
    let mut good = was_quiet(&driver);
    for (stream, (recording, (_, ppm))) in recordings.into_iter().zip(cards).enumerate() {
        let rate = rate(&mut driver, stream);
        let heard = recording.heard() as u64 / 48;
        let (least, most) = stock(&driver.end(stream, TX));
        println!(
            "a card at {ppm:+} ppm: the guest at {rate:+.0} ppm, {least} to {most} ms to be played, \
             {heard} ms heard without a fault"
        );
        good &= most - least < AWAY;
        good &= (rate - ppm as f64).abs() < TOLERANCE && heard > LENGTH - 1000;
    }
    assert!(good, "{}", driver.log());
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn a_guest_keeps_pace_with_cards_that_record_faster_and_slower_than_the_host() {
    let cards = [(6, PPM), (7, -PPM)];
    let mut driver = Driver::start(&cards.map(|(substream, _)| {
        format!(
            "direction = \"input\"\n\
             backend = {{ type = \"alsa\", pcm = \"hw:Loopback,1,{substream}\", target_ms = 20 }}"
        )
    }));
    let file = driver.path("said");
    let length = USUAL.bytes(LENGTH as u32 + 10_000);
    std::fs::write(&file, sound::bytes(0, length)).unwrap();
    let playing = cards.map(|(substream, ppm)| {
        set_rate(substream, ppm);
        let program = Program::play(&format!("hw:Loopback,0,{substream}"), &USUAL, &file);
        Substream::new(&format!("Loopback/pcm0p/sub{substream}")).wait_until_running();
        program
    });
    for stream in 0..cards.len() {
        driver.record(stream, &USUAL);
    }
    while driver.time(1) < LENGTH {
        driver.settle(RX);
    }
    let mut good = was_quiet(&driver);
    for (stream, (_, ppm)) in cards.into_iter().enumerate() {
        let rate = rate(&mut driver, stream);
        let heard = sound::longest(driver.recorded(stream), &USUAL) as u64 / 48;
        let (least, most) = stock(&driver.end(stream, RX));
        println!(
            "a card at {ppm:+} ppm: the guest at {rate:+.0} ppm, {least} to {most} ms recorded and \
             not taken, {heard} ms recorded without a fault"
        );
        good &= most - least < AWAY;
        good &= (rate - ppm as f64).abs() < TOLERANCE && heard > LENGTH - 1000;
    }
    drop(playing);
    assert!(good, "{}", driver.log());
}
