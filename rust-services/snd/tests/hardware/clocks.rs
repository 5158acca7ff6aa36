// SPDX-License-Identifier: Apache-2.0

//! Cards whose clocks differ from the host's.

use crate::driver::Driver;
use crate::host::{Recording, said};
use crate::sound::USUAL;
use frontend::clients::snd::TX;

/// By how much a card is faster or slower, in parts per million: nearly as much as a stream's clock
/// may be steered.
const PPM: i64 = 900;
/// What is watched, in milliseconds: without steering, a card's stock would be 36 ms away at the end.
const LENGTH: u64 = 42_000;
/// What of it is judged at its beginning and its end.
const PART: u64 = 6_000;
/// How often: a machine that stands still for long makes a card run dry, and all begins anew.
const ATTEMPTS: usize = 3;

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

/// The usual latency of a part, in microseconds.
fn usual(latencies: &[u64], from: u64) -> i64 {
    let period = 20;
    let part = latencies.iter().skip((from / period) as usize);
    let mut part: Vec<u64> = part.take((PART / period) as usize).copied().collect();
    part.sort_unstable();
    part[part.len() / 2] as i64
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn a_guest_keeps_pace_with_cards_that_are_faster_and_slower_than_the_host() {
    let cards = [(4, PPM), (5, -PPM)];
    let mut driver = Driver::start(&cards.map(|(substream, _)| {
        format!(
            "backend = {{ type = \"alsa\", pcm = \"hw:Loopback,0,{substream}\", target_ms = 200 }}"
        )
    }));
    let mut faults = Vec::new();
    for _ in 0..ATTEMPTS {
        match keep_pace(&mut driver, cards) {
            Ok(verdict) => return println!("{verdict}"),
            Err(fault) => faults.push(fault),
        }
    }
    panic!("{faults:?}\n{}", driver.log());
}

fn keep_pace(driver: &mut Driver, cards: [(u32, i64); 2]) -> Result<String, String> {
    let recordings = cards.map(|(substream, ppm)| {
        set_rate(substream, ppm);
        let file = driver.path(&format!("heard-{substream}"));
        Recording::start(substream, &USUAL, &file)
    });
    for stream in 0..cards.len() {
        driver.play(stream, &USUAL, None);
    }
    while driver.time(0) < LENGTH {
        driver.settle(TX);
    }
    let ahead = driver.time(0) as i64 - driver.time(1) as i64;
    let mut verdict = format!("the fast card is {ahead} ms ahead of the slow one");
    let mut good = ahead >= 30;
    for (stream, recording) in recordings.into_iter().enumerate() {
        let heard = recording.heard() / 48;
        let latencies = driver.end(stream, TX);
        let [early, late] = [2000, LENGTH - PART - 1000].map(|from| usual(&latencies, from) / 1000);
        verdict += &format!("; {early} ms were to be played at first and {late} ms at last");
        verdict += &format!(", {heard} ms in their order");
        good &= (late - early).abs() < 18 && heard > LENGTH as usize * 9 / 10;
    }
    if good { Ok(verdict) } else { Err(verdict) }
}
