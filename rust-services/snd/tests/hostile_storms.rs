// SPDX-License-Identifier: Apache-2.0

//! A driver that breaks no rule and is hostile all the same: it asks without end. The service stays
//! as large as it was, leaves the host a part of its processor, and still plays.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::snd::wire::{self, Params, request, status};
use frontend::clients::snd::{CONTROL, SndClient, TX};
use frontend::ring::{Indirect, Segment};
use frontend::service_under_test::{Footprint, Launch, ServiceUnderTest};

/// Real-time threads of other tests may have the machine for a long time.
const LONG: Duration = Duration::from_secs(300);
const OUTPUT: u32 = 0;
const INPUT: u32 = 2;
/// The element that selects the source of the recording, in the default card.
const SOURCE: u32 = 6;

/// A service that plays into files of the directory, unless there are `args`.
fn launch(directory: &Path, args: &[&str]) -> ServiceUnderTest {
    let out = format!("--output={}", directory.join("out").display());
    let args = if args.is_empty() {
        &[out.as_str()]
    } else {
        args
    };
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-snd"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", "none"])
    .args(args)
    .start()
    .unwrap()
}

fn client(service: &ServiceUnderTest) -> SndClient {
    let stream = service.connect(Deadline::patient()).unwrap();
    SndClient::start(stream, &SndClient::options()).unwrap()
}

/// Sends all of these requests again and again, as fast as the device takes them.
fn storm(client: &mut SndClient, requests: &[Vec<u8>], rounds: usize) {
    let prepared: Vec<_> = requests
        .iter()
        .map(|request| client.prepare(request, 0).unwrap())
        .collect();
    for _ in 0..rounds {
        let ring = client.guest_mut().ring_mut(CONTROL);
        for message in &prepared {
            ring.add(message.segments()).unwrap();
        }
        ring.kick().unwrap();
        ring.wait_all(Deadline::after(LONG)).unwrap();
    }
    for message in &prepared {
        client.discard(message);
    }
}

fn plays(client: &mut SndClient) {
    let params = Params::CD_LIKE;
    assert_eq!(client.set_params(OUTPUT, &params).unwrap(), status::OK);
    for step in [request::PCM_PREPARE, request::PCM_START] {
        assert_eq!(client.pcm(step, OUTPUT).unwrap(), status::OK);
    }
    client.play(OUTPUT, &[0; 1920]).unwrap();
    client.kick(TX).unwrap();
    let played = client.played(Deadline::patient()).unwrap();
    assert_eq!(played.status, status::OK);
    for step in [request::PCM_STOP, request::PCM_RELEASE] {
        assert_eq!(client.pcm(step, OUTPUT).unwrap(), status::OK);
    }
}

fn assert_no_growth(before: Footprint, after: Footprint) {
    let grown = after.private_kib.saturating_sub(before.private_kib);
    assert!(grown < 16 * 1024, "{before:?} became {after:?}");
    assert!(
        after.mappings < before.mappings + 64,
        "{before:?} {after:?}"
    );
    assert!(
        after.descriptors <= before.descriptors + 4 && after.threads == before.threads,
        "{before:?} became {after:?}"
    );
}

#[test]
fn preparing_and_turning_knobs_without_end_makes_the_service_no_larger() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), &[]);
    let mut client = client(&service);
    plays(&mut client);
    let params = Params::CD_LIKE;
    let flap = |stream| {
        let steps = [
            request::PCM_PREPARE,
            request::PCM_START,
            request::PCM_STOP,
            request::PCM_RELEASE,
        ];
        let mut all = vec![params.request(stream)];
        all.extend(steps.map(|step| wire::pcm(step, stream)));
        all
    };
    let turn = |value: u32| wire::ctl(request::CTL_WRITE, SOURCE, &value.to_le_bytes());
    let mut requests = flap(OUTPUT);
    requests.extend(flap(INPUT));
    for value in [0, 1, 0, 1] {
        requests.push(turn(value));
    }
    storm(&mut client, &requests, 50);
    let before = service.footprint().unwrap();
    storm(&mut client, &requests, 300);
    assert_no_growth(before, service.footprint().unwrap());
    plays(&mut client);
}

#[test]
fn a_buffer_of_hours_holds_up_no_other_request_where_nothing_keeps_time() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), &["--null", "fast"]);
    let mut client = client(&service);
    assert_eq!(
        client.set_params(OUTPUT, &Params::CD_LIKE).unwrap(),
        status::OK
    );
    assert_eq!(
        client.pcm(request::PCM_PREPARE, OUTPUT).unwrap(),
        status::OK
    );
    // The same 2 MiB, a thousand times.
    let memory = std::sync::Arc::clone(client.guest().memory());
    let header = memory.alloc(4, 1).unwrap();
    memory.write(header.addr, &OUTPUT.to_le_bytes()).unwrap();
    let sound = memory.alloc(2 << 20, 1).unwrap();
    let answer = memory.alloc(8, 1).unwrap();
    let mut segments = vec![Segment::Readable(header)];
    segments.extend(std::iter::repeat_n(Segment::Readable(sound), 1000));
    segments.push(Segment::Writable(answer));
    let ring = client.guest_mut().ring_mut(TX);
    ring.set_indirect(Indirect::Always);
    ring.add(&segments).unwrap();
    ring.kick().unwrap();
    assert_eq!(client.pcm(request::PCM_START, OUTPUT).unwrap(), status::OK);
    assert_eq!(client.pcm(request::PCM_STOP, OUTPUT).unwrap(), status::OK);
    let ring = client.guest_mut().ring_mut(TX);
    assert_eq!(
        ring.used_idx().unwrap(),
        0,
        "STOP waited for hours of sound"
    );
    assert_eq!(
        client.pcm(request::PCM_RELEASE, OUTPUT).unwrap(),
        status::OK
    );
    client
        .guest_mut()
        .ring_mut(TX)
        .wait(Deadline::patient())
        .unwrap();
}

/// USER_HZ, which is the same on all processors that AGL runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time that the queue thread has taken, in ticks of the system's clock.
fn ticks_of_the_queue_thread(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let times = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (name, fields) = stat.split_once("(")?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let time = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        (name == "snd").then_some(time)
    });
    times.max().expect("the service has a thread of this name")
}

#[test]
fn a_storm_of_kicks_leaves_a_part_of_the_processor_to_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), &[]);
    let mut client = client(&service);
    plays(&mut client);
    let pid = service.service_pid().unwrap();
    let (began, taken) = (Instant::now(), ticks_of_the_queue_thread(pid));
    while began.elapsed() < Duration::from_secs(3) {
        client.guest_mut().ring_mut(CONTROL).kick_always().unwrap();
    }
    let ticks = ticks_of_the_queue_thread(pid) - taken;
    // A busy machine makes the share smaller, never larger. A fifth of a second for what is not
    // slept for, and for rounding.
    let most = began.elapsed().as_secs_f64() * 0.75 + 0.2;
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let worked = ticks as f64 / TICKS_PER_SECOND;
    eprintln!(
        "the queue thread worked {worked} s of {:?}",
        began.elapsed()
    );
    assert!(worked <= most, "{worked} s of {:?}", began.elapsed());
    plays(&mut client);
}
