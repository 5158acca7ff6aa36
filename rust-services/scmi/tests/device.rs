// SPDX-License-Identifier: Apache-2.0

//! The service as a process, driven over vhost-user: by good drivers, by hostile ones, and through
//! its own death.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use frontend::clients::scmi::{COMMANDS, EVENTS, F_P2A_CHANNELS, MESSAGE_SIZE, ScmiClient, header};
use frontend::hostile::{Attack, Request, endure};
use frontend::ring::{Indirect, RingOptions};
use frontend::service_under_test::{Launch, ServiceUnderTest, built_program};
use frontend::{Deadline, Segment};

const BASE: u8 = 0x10;
const POWER: u8 = 0x11;
const PERFORMANCE: u8 = 0x13;
const CLOCK: u8 = 0x14;
const SENSOR: u8 = 0x15;
const DENIED: i32 = -3;
const BUSY: i32 = -6;

fn launch(directory: &Path) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-scmi"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", "none"])
}

fn client(service: &ServiceUnderTest) -> ScmiClient {
    let stream = service.connect(Deadline::patient()).unwrap();
    ScmiClient::start(stream, &ScmiClient::options()).unwrap()
}

/// The version of the base protocol, as any driver asks first.
fn answers(client: &mut ScmiClient) {
    let reply = client.command(BASE, 0, &[]).unwrap();
    assert_eq!((reply.status, reply.word(0)), (0, 0x2_0001));
}

#[test]
fn a_driver_reads_a_sensor_and_hears_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut client = client(&service);
    answers(&mut client);
    let reading = client.command(SENSOR, 6, &[0, 0]).unwrap();
    assert_eq!((reading.status, reading.body.len()), (0, 16));
    // Every 100 ms.
    assert_eq!(client.command(SENSOR, 0xb, &[0, 1]).unwrap().status, 0);
    let mut last = 0;
    for _ in 0..3 {
        let event = client.event(Deadline::patient()).unwrap();
        assert_eq!((event.kind(), event.word(1), event.body.len()), (3, 0, 24));
        let nanos = u64::from(event.word(4)) | u64::from(event.word(5)) << 32;
        assert!(nanos > last, "time goes on");
        last = nanos;
    }
    // A reading that takes its time comes as a delayed response.
    assert_eq!(client.command(SENSOR, 0xb, &[0, 0]).unwrap().status, 0);
    assert_eq!(client.command(SENSOR, 6, &[4, 1]).unwrap().status, 0);
    let delayed = std::iter::from_fn(|| client.event(Deadline::patient()).ok());
    let delayed = delayed.into_iter().find(|event| event.kind() == 2).unwrap();
    assert_eq!((delayed.word(0), delayed.word(1)), (0, 4));
}

#[test]
fn delayed_responses_wait_for_buffers_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let stream = service.connect(Deadline::patient()).unwrap();
    let guest = frontend::Guest::connect(stream, &ScmiClient::options()).unwrap();
    let mut client = ScmiClient::over(guest);
    client.guest_mut().start().unwrap();
    // No event buffers yet: commands succeed all the same.
    for _ in 0..20 {
        assert_eq!(client.command(SENSOR, 6, &[4, 1]).unwrap().status, 0);
    }
    client.fill_events(4).unwrap();
    let tokens: HashSet<u32> = (0..20)
        .map(|_| client.event(Deadline::patient()).unwrap().header >> 18)
        .collect();
    assert_eq!(tokens.len(), 20);
}

#[test]
fn a_driver_without_an_event_queue_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut options = ScmiClient::options();
    options.wishes.features &= !F_P2A_CHANNELS;
    let mut client = ScmiClient::over(frontend::Guest::connect(stream, &options).unwrap());
    client.guest_mut().start().unwrap();
    answers(&mut client);
    assert_eq!(client.command(SENSOR, 2, &[0xb]).unwrap().status, -4);
    assert_eq!(client.command(SENSOR, 6, &[4, 1]).unwrap().status, -1);
    assert_eq!(client.command(SENSOR, 6, &[4, 0]).unwrap().status, 0);
}

#[test]
fn every_attack_is_endured_on_both_queues_and_the_device_answers_after_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let pid = service.service_pid();
    let honest = Request {
        readable: header(BASE, 0, 1).to_le_bytes().to_vec(),
        writable: MESSAGE_SIZE,
    };
    for attack in Attack::ALL {
        let mut client = client(&service);
        let guest = client.guest_mut();
        match endure(guest, COMMANDS, *attack, &honest, Deadline::patient()) {
            Ok(_) => {}
            // Each time the head was with the driver again: this device answers at once.
            Err(error) if *attack == Attack::SameHeadTwice && error.misbehaviour().is_some() => {}
            Err(error) => panic!("{attack:?}: {error}"),
        }
        client.reset().unwrap();
        answers(&mut client);
        // A buffer of the event queue is taken when there is an event.
        let ring = client.guest_mut().ring_mut(EVENTS);
        let buffer = Request {
            readable: Vec::new(),
            writable: MESSAGE_SIZE,
        };
        attack.launch(ring, &buffer).unwrap();
        assert_eq!(client.command(SENSOR, 6, &[4, 1]).unwrap().status, 0);
        answers(&mut client);
        client.reset().unwrap();
        answers(&mut client);
    }
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn a_thousand_and_twenty_four_commands_are_in_flight_and_all_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut options = ScmiClient::options();
    let indirect = Indirect::Always;
    options.queues = vec![
        RingOptions {
            size: 1024,
            indirect,
            ..RingOptions::default()
        };
        2
    ];
    let mut client = ScmiClient::start(stream, &options).unwrap();
    for round in 0..4_u16 {
        let mut chains = HashSet::new();
        for number in 0..1024 {
            let message = header(CLOCK, 6, number + round);
            let bytes = [message.to_le_bytes(), 3_u32.to_le_bytes()].concat();
            let prepared = client.prepare(&bytes, 16).unwrap();
            chains.insert(client.post(&prepared).unwrap());
        }
        client.guest_mut().ring_mut(COMMANDS).kick().unwrap();
        for _ in 0..1024 {
            let ring = client.guest_mut().ring_mut(COMMANDS);
            let completion = ring.wait(Deadline::patient()).unwrap();
            assert_eq!(completion.written, 16);
            assert!(chains.remove(&completion.chain));
        }
        // In the last round the driver goes away in the middle of them.
        if round == 2 {
            client.reset().unwrap();
        }
    }
    answers(&mut client);
}

#[test]
fn a_reset_in_the_middle_of_asynchronous_commands_forgets_them() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut client = client(&service);
    for _ in 0..20 {
        assert_eq!(client.command(CLOCK, 7, &[3, 1, 0]).unwrap().status, 0);
        assert_eq!(client.command(SENSOR, 6, &[4, 1]).unwrap().status, 0);
        client.reset().unwrap();
        let state = client.command(CLOCK, 0xb, &[3, 0]).unwrap();
        assert_eq!(state.word(1), 0, "what the driver wanted ended with it");
    }
    let ring = client.guest_mut().ring_mut(EVENTS);
    assert_eq!(
        ring.pop().unwrap(),
        None,
        "no response to a command of before"
    );
}

#[test]
fn two_guests_have_their_own_rights_and_their_votes_add_up() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ivi.toml");
    let second = directory.path().join("second");
    let text = format!(
        r#"
        [devices.soc]
        type = "scmi"
        [[devices.soc.agents]]
        name = "ivi"
        [[devices.soc.agents]]
        name = "cluster"
        socket = "{}"
        access = {{ "clock:lcd" = "read" }}
        [[devices.soc.clocks]]
        name = "lcd"
        rates = [1000, 2000]
        [[devices.soc.performance]]
        name = "cpu"
        levels = [{{ level = 1 }}, {{ level = 2 }}, {{ level = 3 }}]
        [[devices.soc.power]]
        name = "gpu"
        "#,
        second.display()
    );
    std::fs::write(&config, text).unwrap();
    let service = launch(directory.path())
        .args([Path::new("--config"), &config])
        .start()
        .unwrap();
    let mut ivi = client(&service);
    let stream = std::os::unix::net::UnixStream::connect(&second).unwrap();
    let mut cluster = ScmiClient::start(stream, &ScmiClient::options()).unwrap();
    assert_eq!(ivi.command(CLOCK, 7, &[0, 1, 0]).unwrap().status, 0);
    assert_eq!(
        cluster.command(CLOCK, 7, &[0, 0, 0]).unwrap().status,
        DENIED
    );
    assert_eq!(cluster.command(CLOCK, 0xb, &[0, 0]).unwrap().word(1), 1);
    // Both want the GPU; one goes, it stays on; the other goes, it is off.
    assert_eq!(cluster.command(POWER, 6, &[0, 1]).unwrap().status, 0);
    assert_eq!(ivi.command(POWER, 4, &[0, 0, 0]).unwrap().status, 0);
    let event = cluster.event(Deadline::patient()).unwrap();
    assert_eq!((event.kind(), event.word(0), event.word(2)), (3, 1, 0));
    assert_eq!(cluster.command(POWER, 4, &[0, 0, 0]).unwrap().status, 0);
    assert_eq!(cluster.command(PERFORMANCE, 7, &[0, 2]).unwrap().status, 0);
    assert_eq!(ivi.command(PERFORMANCE, 7, &[0, 3]).unwrap().status, 0);
    assert_eq!(
        cluster.command(PERFORMANCE, 0xa, &[0, 1]).unwrap().status,
        0
    );
    drop(ivi);
    // The guest that died wanted level 3: the other hears of level 2.
    let event = cluster.event(Deadline::patient()).unwrap();
    assert_eq!((event.kind(), event.word(0), event.word(2)), (3, 1, 2));
    assert_eq!(
        cluster.command(POWER, 5, &[0]).unwrap().word(0),
        0,
        "still on"
    );
    assert_eq!(
        cluster.command(CLOCK, 0xb, &[0, 0]).unwrap().word(1),
        0,
        "nobody's any more"
    );
}

#[test]
fn a_new_configuration_changes_what_a_running_guest_may_do() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ivi.toml");
    let write = |access: &str| {
        let text = format!(
            "[devices.soc]\ntype = \"scmi\"\n\
             [[devices.soc.agents]]\nname = \"ivi\"\naccess = {{ \"clock:lcd\" = \"{access}\" }}\n\
             [[devices.soc.clocks]]\nname = \"lcd\"\nrates = [1000]\n"
        );
        std::fs::write(&config, text).unwrap();
    };
    write("read");
    let service = launch(directory.path())
        .args([Path::new("--config"), &config])
        .start()
        .unwrap();
    let mut client = client(&service);
    let mut switch_on = || client.command(CLOCK, 7, &[0, 1, 0]).unwrap().status;
    assert_eq!(switch_on(), DENIED);
    for (access, status) in [("set", 0), ("read", DENIED), ("exclusive", 0)] {
        write(access);
        service.signal(rustix::process::Signal::HUP).unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while switch_on() != status {
            assert!(Instant::now() < patience, "{access} is not taken over");
        }
    }
}

#[test]
fn over_its_rate_limit_a_guest_is_told_to_come_back_and_is_served_when_it_does() {
    const LIMIT: usize = 10;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ivi.toml");
    let text = format!(
        "[devices.soc]\ntype = \"scmi\"\n\
         [[devices.soc.agents]]\nname = \"ivi\"\nrate_limit = {LIMIT}\n\
         [[devices.soc.clocks]]\nname = \"lcd\"\nrates = [1000]\n"
    );
    std::fs::write(&config, text).unwrap();
    let service = launch(directory.path())
        .args([Path::new("--config"), &config])
        .start()
        .unwrap();
    let mut client = client(&service);
    let began = Instant::now();
    let mut refused = false;
    let mut answered = 0;
    while !refused {
        assert!(began.elapsed() < Duration::from_secs(60), "never BUSY");
        match client.command(BASE, 0, &[]).unwrap().status {
            0 => answered += 1,
            BUSY => refused = true,
            other => panic!("status {other}"),
        }
    }
    if began.elapsed() < Duration::from_millis(900) {
        assert_eq!(answered, LIMIT);
    } else {
        // A slow machine: so many in each second that has begun.
        let seconds = began.elapsed().as_secs() as usize + 2;
        assert!((LIMIT..=seconds * LIMIT).contains(&answered), "{answered}");
    }
    let patience = Instant::now() + Duration::from_secs(60);
    while client.command(BASE, 0, &[]).unwrap().status != 0 {
        assert!(Instant::now() < patience, "BUSY for ever");
    }
}

#[test]
fn what_a_guest_wants_survives_a_kill_of_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path())
        .below_keeper(built_program("agl-virtio-keeper").unwrap())
        .start()
        .unwrap();
    let mut client = client(&service);
    assert_eq!(client.command(CLOCK, 7, &[3, 1, 0]).unwrap().status, 0);
    assert_eq!(
        client.command(PERFORMANCE, 7, &[0, 1500]).unwrap().status,
        0
    );
    assert_eq!(client.command(SENSOR, 0xb, &[0, 1]).unwrap().status, 0);
    for round in 0..20_u32 {
        let old = service.kill_service().unwrap();
        // Asked while nobody is there: answered when somebody is.
        let level = client.command(PERFORMANCE, 8, &[0]).unwrap();
        assert_eq!((level.status, level.word(0)), (0, 1500), "round {round}");
        assert_eq!(client.command(CLOCK, 0xb, &[3, 0]).unwrap().word(1), 1);
        let new = service
            .wait_service_pid(Some(old), Deadline::patient())
            .unwrap();
        assert_ne!(old, new);
        let event = client.event(Deadline::patient()).unwrap();
        assert_eq!((event.kind(), event.word(1)), (3, 0), "reports go on");
    }
}

#[test]
fn a_further_guest_with_a_keeper_of_its_own_notices_a_pause_too() {
    let directory = tempfile::tempdir().unwrap();
    let seat = directory.path().join("seat");
    let service = launch(directory.path())
        .args([format!("--agent=cluster={}", seat.display())])
        .below_keeper(built_program("agl-virtio-keeper").unwrap())
        .start()
        .unwrap();
    let keeper = built_program("agl-virtio-keeper").unwrap();
    let attached = Launch::new(keeper, directory.path().join("cluster"))
        .args(["--grace", "60s", "--log", "error", "--attach"])
        .args([seat])
        .start()
        .unwrap();
    let (mut first, mut second) = (client(&service), client(&attached));
    // The level of a performance domain, the second guest's own wish.
    let levels = [0, 1].map(|place| level(&mut second, place));
    for round in 0..10 {
        let wanted = levels[round % 2];
        let set = second.command(PERFORMANCE, 7, &[0, wanted]).unwrap();
        assert_eq!(set.status, 0, "round {round}");
        service.kill_service().unwrap();
        assert_eq!(level_now(&mut second), wanted, "round {round}");
        answers(&mut first);
    }
}

/// One of the levels of the first performance domain.
fn level(client: &mut ScmiClient, place: usize) -> u32 {
    let reply = client.command(PERFORMANCE, 4, &[0, 0]).unwrap();
    assert_eq!(reply.status, 0);
    // After the counts, each level has three words, and an index and a value of its own.
    reply.word(1 + place * 5)
}

/// The level that the first performance domain has.
fn level_now(client: &mut ScmiClient) -> u32 {
    let reply = client.command(PERFORMANCE, 8, &[0]).unwrap();
    assert_eq!(reply.status, 0);
    reply.word(0)
}

/// A service below a keeper or not, of the host's sensors `slow` and `fast`, and the fifo that the
/// slow one is: it is read when somebody writes, as slow as the test wants.
fn with_a_slow_sensor(directory: &Path, keeper: Option<PathBuf>) -> (ServiceUnderTest, PathBuf) {
    let sysfs = directory.join("sys");
    std::fs::create_dir(&sysfs).unwrap();
    let slow = sysfs.join("slow");
    assert!(
        Command::new("mkfifo")
            .arg(&slow)
            .status()
            .unwrap()
            .success()
    );
    std::fs::write(sysfs.join("fast"), "25000\n").unwrap();
    let config = directory.join("ivi.toml");
    let text = format!(
        r#"
        [devices.soc]
        type = "scmi"
        backend = "linux"
        sysfs = "{}"
        [[devices.soc.sensors]]
        name = "slow"
        file = "slow"
        [[devices.soc.sensors]]
        name = "fast"
        file = "fast"
        "#,
        sysfs.display()
    );
    std::fs::write(&config, text).unwrap();
    let launch = launch(directory).args([Path::new("--config"), &config]);
    let launch = match keeper {
        Some(keeper) => launch.below_keeper(keeper),
        None => launch,
    };
    (launch.start().unwrap(), slow)
}

#[test]
fn commands_that_wait_while_the_service_dies_are_no_suspects() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = built_program("agl-virtio-keeper").unwrap();
    let (service, slow) = with_a_slow_sensor(directory.path(), Some(keeper));
    let mut client = client(&service);
    let message = [header(SENSOR, 6, 7), 0, 0].map(u32::to_le_bytes).concat();
    let held = client.prepare(&message, MESSAGE_SIZE).unwrap();
    let chain = client.post(&held).unwrap();
    client.guest_mut().ring_mut(COMMANDS).kick().unwrap();
    let version = client
        .prepare(&header(BASE, 0, 8).to_le_bytes(), MESSAGE_SIZE)
        .unwrap();
    // More often than would make one that was worked on a suspect.
    for round in 0..4 {
        // Whoever answers this has taken the other one before.
        let completion = client.repeat(&version).unwrap();
        assert_ne!(completion.chain, chain, "round {round}: it still waits");
        let old = service.kill_service().unwrap();
        service
            .wait_service_pid(Some(old), Deadline::patient())
            .unwrap();
    }
    let completion = client.repeat(&version).unwrap();
    assert_ne!(completion.chain, chain, "it still waits");
    std::fs::write(&slow, "-7\n").unwrap();
    let ring = client.guest_mut().ring_mut(COMMANDS);
    let completion = ring.wait(Deadline::patient()).unwrap();
    assert_eq!(
        (completion.chain, completion.written),
        (chain, 24),
        "a reading, not a refusal"
    );
}

#[test]
fn a_slow_sensor_of_the_host_holds_its_command_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (service, slow) = with_a_slow_sensor(directory.path(), None);
    let mut client = client(&service);
    let fast = client.command(SENSOR, 6, &[1, 0]).unwrap();
    assert_eq!((fast.status, fast.word(0)), (0, 25_000));
    let message = [header(SENSOR, 6, 7), 0, 0].map(u32::to_le_bytes).concat();
    let held = client.prepare(&message, MESSAGE_SIZE).unwrap();
    let chain = client.post(&held).unwrap();
    client.guest_mut().ring_mut(COMMANDS).kick().unwrap();
    // Others are answered meanwhile.
    let version = client
        .prepare(&header(BASE, 0, 8).to_le_bytes(), MESSAGE_SIZE)
        .unwrap();
    for _ in 0..100 {
        let completion = client.repeat(&version).unwrap();
        assert_ne!(completion.chain, chain, "the slow one is not ready");
    }
    std::fs::write(&slow, "-7\n").unwrap();
    let ring = client.guest_mut().ring_mut(COMMANDS);
    let completion = ring.wait(Deadline::patient()).unwrap();
    assert_eq!((completion.chain, completion.written), (chain, 24));
    // One that is waiting when the driver resets is forgotten.
    client.post(&held).unwrap();
    client.guest_mut().ring_mut(COMMANDS).kick().unwrap();
    answers_after_reset(&mut client);
    std::fs::write(&slow, "1\n").unwrap();
    let reading = client.command(SENSOR, 6, &[1, 0]).unwrap();
    assert_eq!(reading.word(0), 25_000);
}

fn answers_after_reset(client: &mut ScmiClient) {
    client.reset().unwrap();
    answers(client);
}

#[test]
fn buffers_that_cannot_hold_a_refusal_come_back_empty() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut client = client(&service);
    for room in [1, 7] {
        let prepared = client
            .prepare(&header(BASE, 0, 1).to_le_bytes(), room)
            .unwrap();
        assert_eq!(client.repeat(&prepared).unwrap().written, 0);
    }
    let reply = client
        .exchange(&header(BASE, 0, 1).to_le_bytes(), 8)
        .unwrap();
    assert_eq!(
        reply.status, -10,
        "there is room to say that there is no room"
    );
    // A small event buffer is given back, the next one gets the event.
    client.reset().unwrap();
    let memory = client.guest_mut().memory();
    let small = memory.alloc(3, 1).unwrap();
    let ring = client.guest_mut().ring_mut(EVENTS);
    ring.add(&[Segment::Writable(small)]).unwrap();
    assert_eq!(client.command(SENSOR, 6, &[4, 1]).unwrap().status, 0);
    assert_eq!(client.event(Deadline::patient()).unwrap().kind(), 2);
}
