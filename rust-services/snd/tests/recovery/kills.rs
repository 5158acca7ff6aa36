// SPDX-License-Identifier: Apache-2.0

//! The service is killed again and again under its keeper, and the guest hears of nothing but a gap.

use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{RX, SndClient, TX};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Counted, INPUT, OUTPUT, PERIOD, all_back, card, driver, keeper, kept_card, kill, lost_of, pcm,
    played, prepare,
};

const KILLS: usize = 12;
/// Completions between two kills.
const BETWEEN: usize = 13;

#[test]
fn every_buffer_comes_back_once_no_frame_is_repeated_and_the_sound_is_soon_back() {
    let folder = tempfile::tempdir().unwrap();
    let service = kept_card(folder.path());
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut client = SndClient::start(stream, &SndClient::options()).unwrap();
    prepare(&mut client, OUTPUT);
    prepare(&mut client, INPUT);
    let mut counted = Counted(0);
    for _ in 0..16 {
        client.play(OUTPUT, &counted.period()).unwrap();
        client.record(INPUT, PERIOD as u32).unwrap();
    }
    client.kick(TX).unwrap();
    client.kick(RX).unwrap();
    pcm(&mut client, request::PCM_START, OUTPUT);
    pcm(&mut client, request::PCM_START, INPUT);
    let mut gaps = Vec::new();
    for round in 0..KILLS {
        for _ in 0..BETWEEN {
            // The ring itself says when a buffer comes back twice, or one that was not out.
            let transfer = client.played(Deadline::patient()).unwrap();
            assert_eq!(transfer.status, status::OK, "round {round}");
            client.play(OUTPUT, &counted.period()).unwrap();
            client.kick(TX).unwrap();
            let heard = client.recorded(Deadline::patient()).unwrap();
            assert_eq!((heard.status, heard.data.len()), (status::OK, PERIOD));
            client.record(INPUT, PERIOD as u32).unwrap();
            client.kick(RX).unwrap();
        }
        let dead = kill(&service);
        let begin = Instant::now();
        // Two buffers: the first may have been completed before the end.
        for _ in 0..2 {
            client.played(Deadline::patient()).unwrap();
            client.play(OUTPUT, &counted.period()).unwrap();
        }
        gaps.push(begin.elapsed());
        client.kick(TX).unwrap();
        service
            .wait_service_pid(Some(dead), Deadline::patient())
            .unwrap();
        // The control queue answers the successor's guest as before.
        let volume = (round as u32).to_le_bytes();
        assert_eq!(client.ctl_write(2, &volume).unwrap(), status::OK);
        assert_eq!(client.ctl_read(2, 4).unwrap(), volume);
    }
    pcm(&mut client, request::PCM_STOP, OUTPUT);
    pcm(&mut client, request::PCM_RELEASE, OUTPUT);
    all_back(&mut client, TX);

    let frames = played(folder.path(), counted.0 as usize / 2);
    let lost = lost_of(&frames, frames.last().unwrap() + 1);
    // What a dead process had taken and not written yet: at most two looks of its thread, and the
    // piece in hand, each time.
    assert!(
        lost <= 48 * 100 * KILLS as u32,
        "{lost} frames were lost by {KILLS} kills"
    );
    gaps.sort();
    println!(
        "lost {lost} of {} frames by {KILLS} kills; gaps {gaps:?}",
        counted.0
    );
}

#[test]
fn a_release_that_finds_its_service_dead_gives_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let service = kept_card(folder.path());
    let mut client = driver(&service, true);
    let mut counted = Counted(0);
    for _ in 0..5 {
        prepare(&mut client, OUTPUT);
        for _ in 0..16 {
            client.play(OUTPUT, &counted.period()).unwrap();
        }
        client.kick(TX).unwrap();
        pcm(&mut client, request::PCM_START, OUTPUT);
        client.played(Deadline::patient()).unwrap();
        pcm(&mut client, request::PCM_STOP, OUTPUT);
        kill(&service);
        pcm(&mut client, request::PCM_RELEASE, OUTPUT);
        all_back(&mut client, TX);
    }
}

#[test]
fn a_recording_advances_although_no_process_lives_for_a_period() {
    const LONG: u32 = 100 * 192;
    let folder = tempfile::tempdir().unwrap();
    let service = kept_card(folder.path());
    let mut client = driver(&service, true);
    let params = Params {
        buffer_bytes: 16 * LONG,
        period_bytes: LONG,
        ..Params::CD_LIKE
    };
    assert_eq!(client.set_params(INPUT, &params).unwrap(), status::OK);
    pcm(&mut client, request::PCM_PREPARE, INPUT);
    for _ in 0..100 {
        client.record(INPUT, LONG).unwrap();
    }
    client.kick(RX).unwrap();
    pcm(&mut client, request::PCM_START, INPUT);
    client.recorded(Deadline::patient()).unwrap();
    // Each process is killed as soon as all of its queues run: it has had a turn, and not 100 ms. Linux
    // gives a recording up when nothing comes for 1.1 times its buffer.
    let (begin, mut periods, mut kills, mut short) = (Instant::now(), 0, 0, 0);
    while periods < 4 || short < 10 {
        let born = Instant::now();
        client.guest().session().unwrap().synchronise().unwrap();
        let dead = kill(&service);
        kills += 1;
        short += u32::from(born.elapsed() < Duration::from_millis(100));
        service
            .wait_service_pid(Some(dead), Deadline::patient())
            .unwrap();
        for completion in client.guest_mut().ring_mut(RX).pop_all().unwrap() {
            let heard = client.settle(RX, completion).unwrap();
            assert_eq!(
                (heard.status, heard.data.len()),
                (status::OK, LONG as usize)
            );
            periods += 1;
        }
        let rounds = begin.elapsed();
        assert!(
            rounds < Duration::from_secs(60),
            "{periods} periods by {kills} kills"
        );
    }
    println!(
        "{periods} periods of 100 ms in {:?}, {kills} kills",
        begin.elapsed()
    );
}

#[test]
fn a_service_that_hangs_is_replaced_and_the_guest_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let service = card(folder.path())
        .below_keeper(keeper())
        .keeper_args(["--watchdog", "2s"])
        .start()
        .unwrap();
    let mut client = driver(&service, true);
    prepare(&mut client, OUTPUT);
    // It has said that it is ready by now; from here on it says nothing.
    let hung = service.wait_service_pid(None, Deadline::patient()).unwrap();
    let pid = Pid::from_raw(i32::try_from(hung).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    service
        .wait_service_pid(Some(hung), Deadline::patient())
        .unwrap();
    pcm(&mut client, request::PCM_START, OUTPUT);
}
