// SPDX-License-Identifier: Apache-2.0

//! The service is killed again and again under its keeper, and the guest hears of nothing but a gap.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{RX, SndClient, TX};
use frontend::service_under_test::{Launch, ServiceUnderTest};
use rustix::process::{Pid, Signal, kill_process};

const OUTPUT: u32 = 0;
const INPUT: u32 = 2;
const PERIOD: usize = 1920;
const FRAME: usize = 4;
/// Bytes before the samples in the files that the service writes.
const HEADER: usize = 80;
const KILLS: usize = 12;
/// Completions between two kills.
const BETWEEN: usize = 13;

/// The keeper beside our service; built where it is not there, because only the sound service's tests
/// were asked for.
fn keeper() -> PathBuf {
    let service = Path::new(env!("CARGO_BIN_EXE_agl-virtio-snd"));
    let keeper = service.with_file_name("agl-virtio-keeper");
    if keeper.exists() {
        return keeper;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "agl-virtio-keeper"]);
    let folder = service.parent().unwrap();
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(
        build.status().unwrap().success(),
        "the keeper does not build"
    );
    keeper
}

fn launch(folder: &Path) -> ServiceUnderTest {
    Launch::new(env!("CARGO_BIN_EXE_agl-virtio-snd"), folder.join("socket"))
        .args(["--log", "warn", "--bus", "none", "--output"])
        .args([folder.join("out")])
        .below_keeper(keeper())
        .start()
        .unwrap()
}

fn kill(service: &ServiceUnderTest) -> u32 {
    let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
    kill_process(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    pid
}

/// Each frame is its own number, so that what is missing or twice in a file shows.
struct Counted(u32);

impl Counted {
    fn period(&mut self) -> Vec<u8> {
        let frames = (PERIOD / FRAME) as u32;
        let numbers = self.0..self.0 + frames;
        self.0 += frames;
        numbers.flat_map(u32::to_le_bytes).collect()
    }
}

fn prepare(client: &mut SndClient, stream: u32) {
    assert_eq!(
        client.set_params(stream, &Params::CD_LIKE).unwrap(),
        status::OK
    );
    assert_eq!(
        client.pcm(request::PCM_PREPARE, stream).unwrap(),
        status::OK
    );
}

fn played(folder: &Path, frames: usize) -> Vec<u32> {
    let path = folder.join("out/Multimedia-1.wav");
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let content = std::fs::read(&path).unwrap_or_default();
        let samples = content.get(HEADER..).unwrap_or_default();
        if samples.len() >= frames * FRAME || Instant::now() > end {
            let words = samples.chunks_exact(FRAME);
            return words
                .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
                .collect();
        }
        std::thread::yield_now();
    }
}

#[test]
fn every_buffer_comes_back_once_no_frame_is_repeated_and_the_sound_is_soon_back() {
    let folder = tempfile::tempdir().unwrap();
    let service = launch(folder.path());
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
    assert_eq!(client.pcm(request::PCM_START, OUTPUT).unwrap(), status::OK);
    assert_eq!(client.pcm(request::PCM_START, INPUT).unwrap(), status::OK);
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
    assert_eq!(client.pcm(request::PCM_STOP, OUTPUT).unwrap(), status::OK);
    assert_eq!(
        client.pcm(request::PCM_RELEASE, OUTPUT).unwrap(),
        status::OK
    );
    let left = client.guest_mut().ring_mut(TX).pop_all().unwrap().len();
    assert_eq!(
        client.guest().ring(TX).outstanding(),
        0,
        "{left} came with the release"
    );

    let sent = counted.0 as usize;
    let frames = played(folder.path(), sent / 2);
    let repeated = frames.windows(2).find(|pair| pair[1] <= pair[0]);
    assert_eq!(repeated, None, "a frame was repeated");
    let lost = frames.last().unwrap() + 1 - frames.len() as u32;
    // What a dead process had taken and not written yet: at most two looks of its thread, and the
    // piece in hand, each time.
    assert!(
        lost <= 48 * 100 * KILLS as u32,
        "{lost} frames were lost by {KILLS} kills"
    );
    gaps.sort();
    println!("lost {lost} of {sent} frames by {KILLS} kills; gaps {gaps:?}");
}

#[test]
fn a_release_that_finds_its_service_dead_gives_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let service = launch(folder.path());
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut client = SndClient::start(stream, &SndClient::options()).unwrap();
    let mut counted = Counted(0);
    for _ in 0..5 {
        prepare(&mut client, OUTPUT);
        for _ in 0..16 {
            client.play(OUTPUT, &counted.period()).unwrap();
        }
        client.kick(TX).unwrap();
        assert_eq!(client.pcm(request::PCM_START, OUTPUT).unwrap(), status::OK);
        client.played(Deadline::patient()).unwrap();
        assert_eq!(client.pcm(request::PCM_STOP, OUTPUT).unwrap(), status::OK);
        kill(&service);
        assert_eq!(
            client.pcm(request::PCM_RELEASE, OUTPUT).unwrap(),
            status::OK
        );
        client.guest_mut().ring_mut(TX).pop_all().unwrap();
        assert_eq!(client.guest().ring(TX).outstanding(), 0);
    }
}
