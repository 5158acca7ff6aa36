// SPDX-License-Identifier: Apache-2.0
//! Starting, watching and killing programs, with a shell in the place of a keeper.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "an integration test")]

use std::os::unix::net::UnixListener;

use frontend::service_under_test::Footprint;
use frontend::{Deadline, Error, Launch, ServiceUnderTest};

/// A shell that runs `script`; its child `sleep` is what counts as the service.
fn sleeper(folder: &tempfile::TempDir, script: &str) -> Launch {
    Launch::new("/bin/sleep", folder.path().join("socket")).wrapped(["sh", "-c", script])
}

/// What the service takes once it has loaded: read from the service and from its process, with the same result.
fn settled_footprint(service: &ServiceUnderTest, pid: u32) -> Footprint {
    let deadline = Deadline::patient();
    loop {
        let footprint = service.footprint().unwrap();
        if footprint.mappings > 3 && footprint == Footprint::of(pid).unwrap() {
            return footprint;
        }
        assert!(!deadline.passed(), "the process never stopped changing");
        std::thread::yield_now();
    }
}

#[test]
fn the_service_below_another_process_is_found_and_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = sleeper(&folder, "sleep 1000; exit 3").start().unwrap();
    let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
    assert_ne!(pid, service.pid());
    let footprint = settled_footprint(&service, pid);
    assert!(footprint.descriptors >= 3 && footprint.mappings > 3 && footprint.private_kib > 0);
    assert_eq!(footprint.threads, 1);
    assert!(service.is_alive().unwrap());
    assert_eq!(service.kill_service().unwrap(), pid);
    assert_eq!(service.wait(Deadline::patient()).unwrap().code(), Some(3));
    assert!(!service.is_alive().unwrap());
}

#[test]
fn a_restarted_service_is_told_from_the_killed_one() {
    let folder = tempfile::tempdir().unwrap();
    let service = sleeper(&folder, "while :; do sleep 1000; done")
        .start()
        .unwrap();
    let mut last = None;
    for _ in 0..5 {
        let pid = service.wait_service_pid(last, Deadline::patient()).unwrap();
        assert_eq!(service.kill_service().unwrap(), pid);
        last = Some(pid);
    }
}

#[test]
fn nothing_is_left_behind_when_the_service_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let service = sleeper(&folder, "sleep 1000; exit 3").start().unwrap();
    let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
    drop(service);
    let deadline = Deadline::patient();
    // It was killed; whoever adopted it has yet to take its exit status.
    while Footprint::of(pid).is_ok_and(|footprint| footprint.mappings > 0) {
        assert!(!deadline.passed());
        std::thread::yield_now();
    }
}

#[test]
fn a_termination_yields_the_exit_code_of_the_handler() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let script = format!(
        "trap 'exit 5' TERM; : > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let mut service = sleeper(&folder, &script).start().unwrap();
    let deadline = Deadline::patient();
    while !ready.exists() {
        assert!(!deadline.passed());
        std::thread::yield_now();
    }
    assert_eq!(service.terminate(Deadline::patient()).unwrap(), 5);
}

#[test]
fn a_connection_waits_for_the_listener() {
    let folder = tempfile::tempdir().unwrap();
    let service = sleeper(&folder, "sleep 1000; exit 3").start().unwrap();
    let socket = service.socket().to_path_buf();
    let listener =
        std::thread::spawn(move || UnixListener::bind(socket).unwrap().accept().unwrap());
    service.connect(Deadline::patient()).unwrap();
    listener.join().unwrap();
}

#[test]
fn a_program_that_ends_before_it_listens_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let service = Launch::new("/bin/cat", folder.path().join("socket"))
        .log(&log)
        .start()
        .unwrap();
    let error = service.connect(Deadline::patient()).unwrap_err();
    assert!(matches!(error, Error::Service(_)), "{error}");
    assert!(std::fs::read_to_string(log).unwrap().contains("--socket"));
}
