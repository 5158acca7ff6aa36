// SPDX-License-Identifier: Apache-2.0

//! The service dies at chosen instructions, each life at another one.

use std::path::{Path, PathBuf};

use frontend::Deadline;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{RX, SndClient, TX};
use frontend::service_under_test::ServiceUnderTest;

use crate::support::{
    Counted, INPUT, OUTPUT, PERIOD, all_back, card, driver, keeper, kill, lost_of, pcm, played,
    prepare,
};

/// Takes the first line of the plan for the crash point of the life that begins.
const LIFE: &str = r#"
plan=$0
AGL_VIRTIO_CRASH=$(head -n 1 "$plan")
export AGL_VIRTIO_CRASH
sed -i 1d "$plan"
exec "$@"
"#;

/// How the lives of a service end; those after the last line do not.
struct Plan(PathBuf);

impl Plan {
    fn new(folder: &Path, points: &[&str]) -> Self {
        let plan = Self(folder.join("plan"));
        plan.add(points);
        plan
    }

    fn add(&self, points: &[&str]) {
        let lines: String = points.iter().map(|point| format!("{point}\n")).collect();
        std::fs::write(&self.0, lines).unwrap();
    }

    /// Whether the life of the last line has begun.
    fn is_over(&self) -> bool {
        std::fs::read(&self.0).unwrap().is_empty()
    }

    fn start(&self, folder: &Path) -> ServiceUnderTest {
        let plan = self.0.to_str().unwrap();
        // The sandbox lets nothing kill, not even itself.
        card(folder)
            .args(["--no-sandbox"])
            .below_keeper(keeper())
            .each_life(["sh", "-c", LIFE, plan])
            .start()
            .unwrap()
    }
}

/// A guest that plays and records, and counts what comes back.
struct Duplex {
    client: SndClient,
    counted: Counted,
    /// Chains over which the service died twice, and which are refused for that.
    suspected: u32,
}

impl Duplex {
    fn start(service: &ServiceUnderTest, event_idx: bool) -> Self {
        let mut client = driver(service, event_idx);
        client.fill_events(16).unwrap();
        let mut counted = Counted(0);
        prepare(&mut client, OUTPUT);
        prepare(&mut client, INPUT);
        for _ in 0..16 {
            client.play(OUTPUT, &counted.period()).unwrap();
            client.record(INPUT, PERIOD as u32).unwrap();
        }
        client.kick(TX).unwrap();
        client.kick(RX).unwrap();
        pcm(&mut client, request::PCM_START, OUTPUT);
        pcm(&mut client, request::PCM_START, INPUT);
        Self {
            client,
            counted,
            suspected: 0,
        }
    }

    /// One period each way, and one control message. The ring itself says when a buffer comes back
    /// twice, or one that was not out.
    fn go_on(&mut self, round: u32) {
        let client = &mut self.client;
        let transfer = client.played(Deadline::patient()).unwrap();
        if transfer.status == status::IO_ERR {
            self.suspected += 1;
        } else {
            assert_eq!(transfer.status, status::OK, "round {round}");
        }
        client.play(OUTPUT, &self.counted.period()).unwrap();
        client.kick(TX).unwrap();
        let heard = client.recorded(Deadline::patient()).unwrap();
        if heard.status == status::IO_ERR {
            self.suspected += 1;
        } else {
            assert_eq!((heard.status, heard.data.len()), (status::OK, PERIOD));
        }
        client.record(INPUT, PERIOD as u32).unwrap();
        client.kick(RX).unwrap();
        let volume = (round % 1000).to_le_bytes();
        assert_eq!(client.ctl_write(2, &volume).unwrap(), status::OK);
        assert_eq!(client.ctl_read(2, 4).unwrap(), volume);
    }

    fn end(mut self) -> u32 {
        for (stream, queue) in [(OUTPUT, TX), (INPUT, RX)] {
            pcm(&mut self.client, request::PCM_STOP, stream);
            pcm(&mut self.client, request::PCM_RELEASE, stream);
            all_back(&mut self.client, queue);
        }
        self.counted.0
    }
}

/// Neighbours end over different chains, for one over which the service dies twice is a suspect. On a
/// slow machine the queues' order is another, and two may meet.
const POINTS: [&str; 24] = [
    "popped:1",
    "ring-start:1",
    "before-used:1",
    "ring-start:2",
    "after-used:1",
    "before-call:1",
    "ring-start:3",
    "popped:2",
    "before-used:2",
    "ring-start:4",
    "after-used:2",
    "popped:3",
    "before-call:2",
    "before-used:3",
    "after-used:3",
    "popped:5",
    "before-call:3",
    "before-used:6",
    "after-used:7",
    "popped:11",
    "before-call:8",
    "before-used:17",
    "after-used:19",
    "popped:20",
];

/// How many of them may meet.
const MEETINGS: u32 = 3;

fn survive_the_points(event_idx: bool) {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(folder.path(), &[]);
    let service = plan.start(folder.path());
    let mut duplex = Duplex::start(&service, event_idx);
    plan.add(&POINTS);
    kill(&service);
    let mut round = 0;
    let deadline = Deadline::after(std::time::Duration::from_secs(300));
    // A life without a crash point is the proof that the last one was reached.
    while !plan.is_over() || !lives_on(&service) {
        assert!(!deadline.passed(), "the points are not reached");
        duplex.go_on(round);
        round += 1;
    }
    for more in 0..20 {
        duplex.go_on(round + more);
    }
    assert!(
        duplex.suspected <= MEETINGS,
        "{} chains were refused",
        duplex.suspected
    );
    let sent = duplex.end();
    let frames = played(folder.path(), sent as usize / 3);
    let lost = lost_of(&frames, frames.last().unwrap() + 1);
    println!(
        "{} deaths in {round} rounds; {lost} of {sent} frames lost",
        POINTS.len()
    );
}

/// Whether the running service has no crash point.
fn lives_on(service: &ServiceUnderTest) -> bool {
    let environment = service
        .service_pid()
        .and_then(|pid| std::fs::read(format!("/proc/{pid}/environ")).ok());
    environment.is_some_and(|bytes| {
        bytes
            .split(|byte| *byte == 0)
            .any(|variable| variable == b"AGL_VIRTIO_CRASH=")
    })
}

#[test]
fn nothing_is_lost_or_repeated_wherever_the_service_dies() {
    survive_the_points(true);
}

#[test]
fn nothing_is_lost_or_repeated_wherever_the_service_dies_without_event_idx() {
    survive_the_points(false);
}

/// Points within a request that gives back what is left of six buffers before it is answered.
const IN_A_REQUEST: [&str; 11] = [
    "popped:1",
    "before-used:1",
    "after-used:1",
    "before-used:3",
    "after-used:3",
    "before-used:5",
    "after-used:5",
    "before-used:6",
    "after-used:6",
    "before-call:1",
    "before-call:2",
];

/// Plays a little, and stops where `request` is to follow, with five buffers or more out, in a life
/// that ends at `point`.
fn stop_before_a_death(
    plan: &Plan,
    service: &ServiceUnderTest,
    client: &mut SndClient,
    point: &str,
) -> u32 {
    let mut counted = Counted(0);
    prepare(client, OUTPUT);
    for _ in 0..6 {
        client.play(OUTPUT, &counted.period()).unwrap();
    }
    // In PREPARED both SET_PARAMS and RELEASE give buffers back.
    client.kick(TX).unwrap();
    assert_eq!(client.ctl_read(2, 4).unwrap().len(), 4);
    plan.add(&[point]);
    let dead = kill(service);
    let pid = service
        .wait_service_pid(Some(dead), Deadline::patient())
        .unwrap();
    client.guest().session().unwrap().synchronise().unwrap();
    pid
}

fn survive_in(event_idx: bool, ask: impl Fn(&mut SndClient) -> u32) {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(folder.path(), &[]);
    let service = plan.start(folder.path());
    let mut client = driver(&service, event_idx);
    for point in IN_A_REQUEST {
        let victim = stop_before_a_death(&plan, &service, &mut client, point);
        assert_eq!(ask(&mut client), status::OK, "{point}");
        service
            .wait_service_pid(Some(victim), Deadline::patient())
            .unwrap();
        assert!(plan.is_over(), "{point}");
        all_back(&mut client, TX);
    }
}

#[test]
fn a_death_within_a_release_gives_every_buffer_back_once() {
    for event_idx in [true, false] {
        survive_in(event_idx, |client| {
            client.pcm(request::PCM_RELEASE, OUTPUT).unwrap()
        });
    }
}

#[test]
fn a_death_within_new_parameters_gives_every_buffer_back_once() {
    for event_idx in [true, false] {
        survive_in(event_idx, |client| {
            client.set_params(OUTPUT, &Params::CD_LIKE).unwrap()
        });
    }
}

#[test]
fn a_request_over_which_the_service_dies_twice_is_refused_and_the_next_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(folder.path(), &["before-used:1", "before-used:1"]);
    let service = plan.start(folder.path());
    let mut client = driver(&service, true);
    let params = &Params::CD_LIKE;
    assert_eq!(client.set_params(OUTPUT, params).unwrap(), status::IO_ERR);
    assert_eq!(client.set_params(OUTPUT, params).unwrap(), status::OK);
}

#[test]
fn a_buffer_that_waits_while_the_service_dies_again_and_again_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let service = card(folder.path()).below_keeper(keeper()).start().unwrap();
    let mut client = driver(&service, true);
    let mut counted = Counted(0);
    for stream in [OUTPUT, INPUT] {
        prepare(&mut client, stream);
    }
    for _ in 0..4 {
        client.play(OUTPUT, &counted.period()).unwrap();
        client.record(INPUT, PERIOD as u32).unwrap();
    }
    client.kick(TX).unwrap();
    client.kick(RX).unwrap();
    for _ in 0..4 {
        // The answer says that the buffers are with this process.
        client.ctl_read(2, 4).unwrap();
        client.guest().session().unwrap().synchronise().unwrap();
        let dead = kill(&service);
        service
            .wait_service_pid(Some(dead), Deadline::patient())
            .unwrap();
    }
    pcm(&mut client, request::PCM_START, OUTPUT);
    pcm(&mut client, request::PCM_START, INPUT);
    for _ in 0..4 {
        let transfer = client.played(Deadline::patient()).unwrap();
        assert_eq!(transfer.status, status::OK);
        let heard = client.recorded(Deadline::patient()).unwrap();
        assert_eq!((heard.status, heard.data.len()), (status::OK, PERIOD));
    }
}
