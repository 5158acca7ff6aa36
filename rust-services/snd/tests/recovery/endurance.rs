// SPDX-License-Identifier: Apache-2.0

//! VMMs come and go, and nothing of them stays behind in the service or in its keeper.
//! `AGL_TEST_RECONNECTS=10000` lets more of them come.

use std::time::Instant;

use frontend::clients::snd::wire::request;
use frontend::clients::snd::{RX, SndClient, TX};
use frontend::service_under_test::{Footprint, ServiceUnderTest};
use frontend::{Deadline, Guest};

use crate::support::{Counted, INPUT, OUTPUT, PERIOD, card, driver, kept_card, pcm, prepare};

const VISITS: usize = 1000;
/// After so many everything has been used once.
const WARM: usize = 100;
/// What memory may grow by, in KiB, however many visits there are: a page lost by each of a thousand
/// is four times as much.
const GROWTH: u64 = 1024;

fn visits() -> usize {
    let asked = std::env::var("AGL_TEST_RECONNECTS").ok();
    asked.map_or(VISITS, |number| {
        number.parse().expect("AGL_TEST_RECONNECTS is a number")
    })
}

/// Starts to play or record, with buffers in flight.
fn run_stream(client: &mut SndClient, stream: u32) {
    prepare(client, stream);
    let mut counted = Counted(0);
    for _ in 0..4 {
        if stream == INPUT {
            client.record(stream, PERIOD as u32).unwrap();
        } else {
            client.play(stream, &counted.period()).unwrap();
        }
    }
    client.kick(if stream == INPUT { RX } else { TX }).unwrap();
    pcm(client, request::PCM_START, stream);
}

/// A VMM comes, does one thing or another, and hangs up in the middle of it.
fn visit(service: &ServiceUnderTest, round: usize) {
    if round % 8 == 0 {
        let stream = service.connect(Deadline::patient()).unwrap();
        drop(Guest::connect(stream, &SndClient::options()).unwrap());
        return;
    }
    let mut client = driver(service, round % 2 == 0);
    match round % 8 {
        1 => run_stream(&mut client, OUTPUT),
        2 => run_stream(&mut client, INPUT),
        3 => {
            run_stream(&mut client, OUTPUT);
            client.guest_mut().pause().unwrap();
        }
        4 => {
            run_stream(&mut client, INPUT);
            client.reset().unwrap();
        }
        5 => {
            run_stream(&mut client, OUTPUT);
            pcm(&mut client, request::PCM_STOP, OUTPUT);
            pcm(&mut client, request::PCM_RELEASE, OUTPUT);
        }
        6 => {
            // Its end may come in the middle of a request.
            let _ = client.fill_events(4);
        }
        _ => {}
    }
}

/// What a process holds when its last visitor is gone: it learns of that when it does.
fn settled(pid: u32, fits: impl Fn(&Footprint) -> bool) -> Footprint {
    let deadline = Deadline::patient();
    loop {
        let now = Footprint::of(pid).unwrap();
        if fits(&now) || deadline.passed() {
            return now;
        }
        std::thread::yield_now();
    }
}

fn come_and_go(service: &ServiceUnderTest, watched: &[u32]) {
    (0..WARM).for_each(|round| visit(service, round));
    // A session that still ends holds more than one that has ended.
    let before: Vec<Footprint> = watched
        .iter()
        .map(|pid| {
            let mut least = Footprint::of(*pid).unwrap();
            let begin = Instant::now();
            while begin.elapsed() < std::time::Duration::from_secs(1) {
                let now = Footprint::of(*pid).unwrap();
                if now.descriptors < least.descriptors || now.threads < least.threads {
                    least = now;
                }
                std::thread::yield_now();
            }
            least
        })
        .collect();
    let visits = visits();
    let begin = Instant::now();
    (0..visits).for_each(|round| visit(service, round));
    println!("{visits} visits in {:?}", begin.elapsed());
    for (pid, before) in watched.iter().zip(before) {
        let fits = |now: &Footprint| {
            now.descriptors <= before.descriptors
                && now.threads <= before.threads
                && now.mappings <= before.mappings + 16
                && now.dirty_kib <= before.dirty_kib + GROWTH
        };
        let after = settled(*pid, fits);
        println!("process {pid}: {before:?} -> {after:?}");
        assert!(fits(&after), "process {pid} grew: {before:?} -> {after:?}");
    }
}

#[test]
fn vmms_come_and_go_and_the_service_keeps_nothing_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let service = card(folder.path()).start().unwrap();
    come_and_go(&service, &[service.pid()]);
}

#[test]
fn vmms_come_and_go_and_the_keeper_keeps_nothing_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let service = kept_card(folder.path());
    let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
    come_and_go(&service, &[service.pid(), pid]);
}
