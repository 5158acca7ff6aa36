// SPDX-License-Identifier: Apache-2.0

//! A driver meets a delayed response after the reply that it follows, whichever of two interrupts its
//! VMM hands on first.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use agl_virtio_scmi::order::{PATIENCE, UNTOLD_PATIENCE};
use agl_virtio_scmi::platform::MAX_ASYNC;
use frontend::Deadline;
use frontend::clients::scmi::{COMMANDS, MESSAGE_SIZE, Prepared, ScmiClient, header};
use frontend::service_under_test::{Launch, ServiceUnderTest, built_program};

const SENSOR: u8 = 0x15;
/// The built-in platform's sensor that answers later.
const SLOW: u32 = 4;
const EVENT_IDX: u64 = 1 << 29;
const DELAYED: u32 = 2;

fn launch(directory: &Path) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-scmi"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", "none"])
}

fn client(service: &ServiceUnderTest, event_idx: bool) -> ScmiClient {
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut options = ScmiClient::options();
    if !event_idx {
        options.wishes.features &= !EVENT_IDX;
    }
    let client = ScmiClient::start(stream, &options);
    let mut client = client.unwrap();
    assert_eq!(client.guest_mut().ring(COMMANDS).event_idx(), event_idx);
    client
}

fn reading(client: &ScmiClient, token: u16) -> Prepared {
    let words = [header(SENSOR, 6, token), SLOW, 1];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    client.prepare(&bytes, MESSAGE_SIZE).unwrap()
}

/// Makes commands available and waits until all are replied to; the replies stay in the used ring.
fn begin(client: &mut ScmiClient, commands: &[Prepared]) {
    let before = client.guest_mut().ring(COMMANDS).used_idx().unwrap();
    for command in commands {
        client.post(command).unwrap();
    }
    client.guest_mut().ring_mut(COMMANDS).kick().unwrap();
    let deadline = Deadline::patient();
    let all = before.wrapping_add(commands.len() as u16);
    while client.guest_mut().ring(COMMANDS).used_idx().unwrap() != all {
        assert!(!deadline.passed(), "not all were replied to");
        std::thread::yield_now();
    }
}

/// The tokens of that many delayed responses.
fn responses(client: &mut ScmiClient, count: usize) -> HashSet<u32> {
    let mut tokens = HashSet::new();
    for _ in 0..count {
        let event = client.event(Deadline::patient()).unwrap();
        assert_eq!((event.kind(), event.word(0)), (DELAYED, 0));
        tokens.insert(event.header >> 18);
    }
    tokens
}

#[test]
fn delayed_responses_wait_for_a_driver_that_leaves_the_replies_and_come_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    for (event_idx, patience) in [(true, PATIENCE), (false, UNTOLD_PATIENCE)] {
        let mut client = client(&service, event_idx);
        let count = usize::from(MAX_ASYNC);
        let commands: Vec<_> = (0..count)
            .map(|token| reading(&client, token as u16))
            .collect();
        let began = Instant::now();
        begin(&mut client, &commands);
        assert_eq!(responses(&mut client, 1).len(), 1);
        let waited = began.elapsed();
        assert!(waited >= patience, "{event_idx}: after {waited:?}");
        assert_eq!(responses(&mut client, count - 1).len(), count - 1);
        let replies = client.guest_mut().ring_mut(COMMANDS).pop_all().unwrap();
        assert_eq!(replies.len(), count);
        for command in &commands {
            assert_eq!(client.status(command).unwrap(), 0);
        }
    }
}

#[test]
fn who_takes_a_reply_has_its_response_before_others_lose_patience() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut client = client(&service, true);
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let began = Instant::now();
        assert_eq!(client.command(SENSOR, 6, &[SLOW, 1]).unwrap().status, 0);
        assert_eq!(responses(&mut client, 1).len(), 1);
        // A busy machine may need several tries.
        if began.elapsed() < PATIENCE {
            break;
        }
        assert!(Instant::now() < patience, "each response is late");
    }
}

#[test]
fn a_response_waits_for_its_own_reply_and_for_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut client = client(&service, true);
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let commands: Vec<_> = [1, 2].map(|token| reading(&client, token)).into();
        let began = Instant::now();
        begin(&mut client, &commands);
        // The driver sees the first reply and leaves the second.
        let ring = client.guest_mut().ring_mut(COMMANDS);
        assert!(ring.pop().unwrap().is_some());
        assert_eq!(responses(&mut client, 1), HashSet::from([1]));
        let first = began.elapsed();
        assert_eq!(responses(&mut client, 1), HashSet::from([2]));
        assert!(began.elapsed() >= PATIENCE);
        let ring = client.guest_mut().ring_mut(COMMANDS);
        assert!(ring.pop().unwrap().is_some());
        // A busy machine may need several tries.
        if first < PATIENCE {
            break;
        }
        assert!(Instant::now() < patience, "the first waits for the second");
    }
}

#[test]
fn a_response_waits_for_a_reply_that_the_process_before_has_given() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path())
        .below_keeper(built_program("agl-virtio-keeper").unwrap())
        .start()
        .unwrap();
    let mut client = client(&service, true);
    for round in 0..5 {
        let commands = [reading(&client, round)];
        let began = Instant::now();
        begin(&mut client, &commands);
        service.kill_service().unwrap();
        assert_eq!(responses(&mut client, 1), HashSet::from([round.into()]));
        assert!(began.elapsed() >= PATIENCE, "round {round}");
        let replies = client.guest_mut().ring_mut(COMMANDS).pop_all().unwrap();
        assert_eq!(replies.len(), 1);
    }
}
