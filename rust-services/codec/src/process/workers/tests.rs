// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use super::super::message::{Command, Report, Wait, pair, receive, send};
use super::super::setup::Setup;
use super::*;
use crate::Elements;

const JOB: Job = Job::Decode(Codec::Vp8);

/// Workers of a nursery that the test plays, with a spare one; its end, and the nursery's.
fn workers() -> (Workers, OwnedFd, OwnedFd) {
    gstreamer::init().unwrap();
    let setup = Setup {
        elements: Elements::default(),
        paths: Vec::new(),
        patience: Duration::from_secs(60),
        memory: 1 << 30,
        pixels: 64 * 64,
        sessions: 4,
        sandbox: false,
        log: "off".to_owned(),
    };
    let (nursery, asked) = Nursery::scripted(setup).unwrap();
    let (ours, its) = pair().unwrap();
    let host = Host {
        notify: Arc::new(|| ()),
        prepare: Arc::new(|| ()),
        patience: Duration::from_secs(60),
    };
    let pool = Arc::new(Pool::new(nursery, host));
    *pool.spare() = Some(Spare::Hired(ours));
    let workers = Workers {
        pool,
        decoders: vec![Codec::Vp8],
        encoders: Vec::new(),
    };
    (workers, its, asked)
}

/// The end of the next worker that the nursery is asked for.
fn hired(asked: &OwnedFd) -> Option<OwnedFd> {
    let asked = receive::<()>(asked, Wait::No).ok()?;
    asked.and_then(|(_, mut fds)| fds.pop())
}

#[test]
fn a_spare_that_has_died_is_replaced_and_not_given_to_a_stream() {
    let (mut workers, its, asked) = workers();
    // Nobody has seen yet that it is gone.
    shutdown(&its, Shutdown::Read).unwrap();
    assert!(workers.open(&JOB).is_ok());
    let its = hired(&asked).unwrap();
    let first = receive::<Command>(&its, Wait::Yes).unwrap().unwrap();
    assert!(matches!(first.0, Command::Open { .. }));
}

fn is_ready(its: &OwnedFd) {
    let ready = Report::Ready {
        decoders: vec![Codec::Vp8],
        encoders: Vec::new(),
    };
    send(its, &ready, &[], Wait::Yes).unwrap();
}

/// Waits for the worker that is ahead.
fn ahead(asked: &OwnedFd) -> OwnedFd {
    receive::<()>(asked, Wait::Yes)
        .unwrap()
        .unwrap()
        .1
        .remove(0)
}

#[test]
fn no_worker_is_had_ahead_while_one_loads() {
    let (mut workers, first, asked) = workers();
    let _first_stream = workers.open(&JOB).unwrap();
    assert!(hired(&asked).is_none(), "the first one loads");
    let second_stream = workers.open(&JOB).unwrap();
    let second = hired(&asked).unwrap();
    assert!(hired(&asked).is_none());
    is_ready(&first);
    is_ready(&second);
    let third = ahead(&asked);
    // It is used, and the next one is asked for once it has loaded.
    drop(second_stream);
    let _third_stream = workers.open(&JOB).unwrap();
    assert!(hired(&asked).is_none());
    is_ready(&third);
    let _ahead = ahead(&asked);
    assert!(hired(&asked).is_none());
    // No thread of one worker has started one for another.
    let spare = workers.pool.spare();
    assert!(matches!(*spare, Some(Spare::Hired(_))));
}

#[test]
fn streams_that_come_and_go_have_one_worker_each_and_none_ahead() {
    let (mut workers, first, asked) = workers();
    drop(workers.open(&JOB).unwrap());
    let mut ends = vec![first];
    for _ in 0..10 {
        let stream = workers.open(&JOB).unwrap();
        ends.push(hired(&asked).unwrap());
        assert!(hired(&asked).is_none());
        drop(stream);
    }
    assert!(ends.iter().all(|end| {
        let first = receive::<Command>(end, Wait::Yes);
        matches!(first, Ok(Some((Command::Open { .. }, _))))
    }));
}
