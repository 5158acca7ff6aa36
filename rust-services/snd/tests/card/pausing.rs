// SPDX-License-Identifier: Apache-2.0

//! A stream that is paused for one of higher priority, and goes on where it was.

use agl_virtio_snd::policy::StepBack;
use frontend::Deadline;
use frontend::clients::snd::TX;
use frontend::clients::snd::wire::{Params, request, status};

use crate::support::{Card, EMERGENCY, MULTIMEDIA, until};

/// Frames of a period of a quarter of a second.
const PERIOD: usize = 12_000;
/// Half a minute: however slow the machine is, nothing runs dry.
const PERIODS: usize = 120;
const SLOW: Params = Params {
    period_bytes: 4 * PERIOD as u32,
    buffer_bytes: 4 * (PERIOD * PERIODS) as u32,
    ..Params::CD_LIKE
};

/// A sound of which each frame says where it belongs, loud enough to show the gain that it got.
fn sample(frame: usize) -> i16 {
    10_000 + (frame * 7 % 19_997) as i16
}

fn period(number: usize) -> Vec<u8> {
    let frames = number * PERIOD..(number + 1) * PERIOD;
    frames
        .flat_map(|frame| sample(frame).to_le_bytes().repeat(2))
        .collect()
}

/// The card, whose music waits for others.
fn card() -> Card {
    Card::with(|config, _| config.streams[0].step_back = StepBack::Pause)
}

/// Starts a stream with so many periods, all of which the device has at once.
fn begin(card: &mut Card, stream: u32, periods: usize) {
    card.prepare(stream, &SLOW);
    for number in 0..periods {
        card.client().play(stream, &period(number)).unwrap();
    }
    card.client().kick(TX).unwrap();
    card.pcm(request::PCM_START, stream);
}

/// The next buffer that comes back, whose stream it is.
fn next(card: &mut Card) -> u32 {
    let transfer = card.client().played(Deadline::patient()).unwrap();
    assert_eq!(transfer.status, status::OK);
    transfer.stream
}

/// Waits until so many buffers of the music have come back.
fn play_on(card: &mut Card, mut periods: usize) {
    while periods > 0 {
        periods -= usize::from(next(card) == MULTIMEDIA);
    }
}

fn end(card: &mut Card, stream: u32) {
    card.pcm(request::PCM_STOP, stream);
    card.pcm(request::PCM_RELEASE, stream);
}

/// What the host is told of the music's state; 3 is running, 6 paused.
fn state(card: &Card) -> u8 {
    card.panel.stream(MULTIMEDIA as usize).unwrap().state()
}

fn frames(bytes: &[u8]) -> Vec<i16> {
    let frames = bytes.chunks_exact(4);
    frames
        .map(|four| i16::from_le_bytes([four[0], four[1]]))
        .collect()
}

#[test]
fn music_that_waits_for_an_emergency_fades_and_goes_on_with_the_very_next_frame() {
    let mut card = card();
    begin(&mut card, MULTIMEDIA, PERIODS);
    assert_eq!(next(&mut card), MULTIMEDIA);
    begin(&mut card, EMERGENCY, 8);
    while next(&mut card) != EMERGENCY {}
    assert_eq!(state(&card), 6, "paused");
    let position = |card: &Card| card.panel.stream(MULTIMEDIA as usize).unwrap().frames();
    let there = position(&card);
    // The queue keeps the order: while the other one played, no buffer came back.
    for _ in 1..8 {
        assert_eq!(next(&mut card), EMERGENCY);
        assert_eq!(position(&card), there);
    }
    end(&mut card, EMERGENCY);
    play_on(&mut card, 4);
    assert_eq!(state(&card), 3, "running");
    assert_eq!(card.panel.stream(MULTIMEDIA as usize).unwrap().xruns(), 0);
    end(&mut card, MULTIMEDIA);

    let music = frames(&card.file("Multimedia-1.wav", 4 * PERIOD * 5));
    let gain = |frame: usize| f64::from(music[frame]) / f64::from(sample(frame));
    let touched: Vec<usize> = (0..music.len())
        .filter(|frame| music[*frame] != sample(*frame))
        .collect();
    // Two ramps of 10 ms; each ends at a gain that changes nothing.
    let (first, last) = (touched[0], *touched.last().unwrap());
    assert!(touched.len() > 900 && last - first < 960, "{first} {last}");
    let steepest = (first..=last).map(|frame| (gain(frame) - gain(frame - 1)).abs());
    let steepest = steepest.fold(0.0, f64::max);
    assert!(steepest < 1.0 / 480.0 + 0.0003, "{steepest}");
    let softest = (first..=last).map(gain).fold(1.0, f64::min);
    assert!(softest < 0.0001, "{softest}");
}

#[test]
fn music_that_is_started_stopped_and_started_under_an_emergency_waits_for_its_end() {
    let mut card = card();
    begin(&mut card, EMERGENCY, PERIODS);
    begin(&mut card, MULTIMEDIA, PERIODS);
    until("it is paused", || state(&card) == 6);
    for _ in 0..2 {
        card.pcm(request::PCM_STOP, MULTIMEDIA);
        assert_eq!(state(&card), 4, "stopped");
        card.pcm(request::PCM_START, MULTIMEDIA);
        until("it is paused", || state(&card) == 6);
    }
    for _ in 0..3 {
        assert_eq!(next(&mut card), EMERGENCY);
    }
    end(&mut card, EMERGENCY);
    play_on(&mut card, 2);
    end(&mut card, MULTIMEDIA);
    let music = frames(&card.file("Multimedia-1.wav", 4 * PERIOD * 2));
    // It was heard from its first frame on, after a ramp.
    assert!(music[0].abs() < 100, "{}", music[0]);
    assert!((480..music.len()).all(|frame| music[frame] == sample(frame)));
}

#[test]
fn music_that_waits_can_be_given_up_and_begun_anew() {
    let mut card = card();
    begin(&mut card, EMERGENCY, PERIODS);
    begin(&mut card, MULTIMEDIA, 8);
    until("it is paused", || state(&card) == 6);
    end(&mut card, MULTIMEDIA);
    play_on(&mut card, 8);
    begin(&mut card, MULTIMEDIA, 8);
    until("it is paused", || state(&card) == 6);
    card.client().reset().unwrap();
    begin(&mut card, MULTIMEDIA, 8);
    assert_eq!(next(&mut card), MULTIMEDIA);
    assert_eq!(state(&card), 3, "running");
}

#[test]
fn a_vm_that_is_paused_and_continued_while_music_waits_loses_nothing() {
    let mut card = card();
    begin(&mut card, MULTIMEDIA, PERIODS);
    assert_eq!(next(&mut card), MULTIMEDIA);
    begin(&mut card, EMERGENCY, 8);
    while next(&mut card) != EMERGENCY {}
    assert_eq!(state(&card), 6, "paused");
    for _ in 0..3 {
        card.client().guest_mut().pause().unwrap();
        assert_eq!(state(&card), 3, "running, as far as the guest knows");
        card.client().guest_mut().resume().unwrap();
        until("it is paused again", || state(&card) == 6);
    }
    end(&mut card, EMERGENCY);
    play_on(&mut card, 3);
    end(&mut card, MULTIMEDIA);
    let music = frames(&card.file("Multimedia-1.wav", 4 * PERIOD * 4));
    let touched: Vec<usize> = (0..music.len())
        .filter(|frame| music[*frame] != sample(*frame))
        .collect();
    assert!(touched.last().unwrap() - touched[0] < 960, "{touched:?}");
}
