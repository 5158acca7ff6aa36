// SPDX-License-Identifier: Apache-2.0
//! A service as a process: how it starts, what it gives up, how it ends.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test"
)]

mod support;

use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use support::{Daemon, PATIENCE, echoes, example};

fn socket_argument(folder: &tempfile::TempDir) -> (std::path::PathBuf, String) {
    let path = folder.path().join("idle.sock");
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[test]
fn a_term_signal_drains_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let (path, text) = socket_argument(&folder);
        let mut daemon = Daemon::start(&["--socket", &text, "--bus", "none"]);
        echoes(&path);
        daemon.signal(signal);
        daemon.says("drains");
        assert_eq!(daemon.wait().code(), Some(0));
        daemon.says("ends in order");
        assert!(!path.exists(), "the socket stays behind");
    }
}

#[test]
fn readiness_is_told_when_the_socket_accepts_and_the_watchdog_is_reassured() {
    let folder = tempfile::tempdir().unwrap();
    let (path, text) = socket_argument(&folder);
    let notify = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let receive = || {
        let mut buffer = [0; 512];
        let size = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..size]).into_owned()
    };
    let daemon = Daemon::spawn(
        Command::new(example())
            .args(["--socket", &text, "--bus", "none"])
            .env("NOTIFY_SOCKET", &notify)
            .env("WATCHDOG_USEC", "200000"),
    );
    while receive() != "READY=1" {}
    support::echo(&path).unwrap();
    for _ in 0..3 {
        while receive() != "WATCHDOG=1" {}
    }
    daemon.signal(Signal::TERM);
    while receive() != "STOPPING=1" {}
}

#[test]
fn the_sandbox_is_applied_to_the_process_and_to_each_thread() {
    let folder = tempfile::tempdir().unwrap();
    let (path, text) = socket_argument(&folder);
    let mut daemon = Daemon::start(&["--socket", &text, "--bus", "none"]);
    let report = daemon.says("sandbox:");
    let realtime = daemon.says("queue thread:");
    echoes(&path);
    assert_eq!(daemon.status_field("NoNewPrivs"), "1");
    assert_eq!(daemon.status_field("Seccomp"), "2");
    // CAP_SYS_NICE at most, which is bit 23.
    let left = u64::from_str_radix(&daemon.status_field("CapPrm"), 16).unwrap();
    assert_eq!(left & !(1 << 23), 0);
    // Where that one was there, the queue thread has used it before it was taken.
    assert!(
        left == 0 || realtime.contains("SCHED_FIFO 10"),
        "{realtime}"
    );
    support::until("the narrowing of the queue thread", || {
        // Two of the process, two of the session that started it, two of its own.
        (daemon.thread_field("queue", "Seccomp_filters") == "6").then_some(())
    });
    assert_eq!(daemon.thread_field("session", "Seccomp_filters"), "4");
    assert_eq!(daemon.thread_field("queue", "CapEff"), "0000000000000000");
    assert_eq!(daemon.thread_field("queue", "CapPrm"), "0000000000000000");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"]);
    for measure in ["NoNewPrivileges: yes", "Seccomp: yes", "Capabilities: yes"] {
        assert!(report.contains(measure), "{report}");
    }
    // What this kernel has of landlock is said, whatever it is.
    assert!(report.contains("Landlock: "), "{report}");
}

#[test]
fn a_queue_thread_is_refused_a_file_and_ended_by_the_kernel_for_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = socket_argument(&folder);
    let mut daemon = Daemon::start(&["--socket", &text, "--bus", "none", "--misbehave"]);
    // SIGSYS
    assert_eq!(daemon.wait().signal(), Some(31));
    let said = daemon.said();
    assert!(said.contains("a file is opened: Err"), "{said}");
    assert!(!said.contains("let us have"), "{said}");
}

#[test]
fn without_a_sandbox_nothing_is_given_up_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (path, text) = socket_argument(&folder);
    let arguments = [
        "--socket",
        &text,
        "--bus",
        "none",
        "--no-sandbox",
        "--misbehave",
    ];
    let mut daemon = Daemon::start(&arguments);
    daemon.says("without a sandbox");
    daemon.says("a file is opened: Ok");
    daemon.says("let us have a socket: Ok");
    echoes(&path);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own_seccomp = own.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    assert_eq!(daemon.status_field("Seccomp"), own_seccomp.unwrap().trim());
}

#[test]
fn a_listening_socket_comes_through_a_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = socket_argument(&folder);
    let listener = UnixListener::bind(&path).unwrap();
    // Without close-on-exec, as the keeper leaves it.
    let inherited = rustix::io::dup(listener.as_fd()).unwrap();
    let number = inherited.as_raw_fd().to_string();
    let daemon = Daemon::start(&["--socket-fd", &number, "--bus", "none"]);
    drop((inherited, listener));
    echoes(&path);
    daemon.signal(Signal::TERM);
}

#[test]
fn systemd_hands_over_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = socket_argument(&folder);
    let listener = UnixListener::bind(&path).unwrap();
    // The shell becomes the daemon, so that its own number can be named beforehand.
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" --bus none 3<&0 0</dev/null";
    let _daemon = Daemon::spawn(
        Command::new("sh")
            .args(["-c", script])
            .arg(example())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))),
    );
    echoes(&path);
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (path, text) = socket_argument(&folder);
    let mut daemon = Daemon::start(&["--socket", &text, "--bus", "none"]);
    echoes(&path);
    // A connection that stays open holds up the drain.
    let mut holdup = std::os::unix::net::UnixStream::connect(&path).unwrap();
    holdup.write_all(b"x").unwrap();
    holdup.read_exact(&mut [0]).unwrap();
    daemon.signal(Signal::TERM);
    daemon.says("drains");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(143));
}

#[test]
fn mistakes_end_with_the_code_of_their_kind_and_nothing_half_started() {
    let folder = tempfile::tempdir().unwrap();
    let (path, text) = socket_argument(&folder);
    let wrong = folder.path().join("ivi.toml");
    fs::write(&wrong, "[devices.a]\ntype = \"idle\"\nvolume = 101\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    let table: [(&[&str], i32, &str); 8] = [
        (&["--soket", &text], 64, "--socket"),
        (&[], 64, "--socket PATH"),
        (&["--socket-fd", "77"], 64, "not open"),
        (
            &["--socket", &text, "--bus", "nonsense:"],
            64,
            "no D-Bus address",
        ),
        (&["--socket", &text, "--config", wrong], 78, "ivi.toml:3:10"),
        (
            &["--socket", &text, "--config", wrong, "--check"],
            78,
            "a number from 0 to 100",
        ),
        (
            &["--socket", &text, "--config", "/nowhere.toml"],
            66,
            "/nowhere.toml",
        ),
        (
            &["--socket", &text, "--volume", "200", "--check"],
            78,
            "a number from 0 to 100",
        ),
    ];
    for (arguments, code, text) in table {
        let mut command = Command::new(example());
        if !arguments.contains(&"--bus") {
            command.args(["--bus", "none"]);
        }
        let output = command.args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(text), "{arguments:?}: {said}");
    }
    drop(path);
}

#[test]
fn a_checked_configuration_is_said_to_be_in_order_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ivi.toml");
    fs::write(&file, "[devices.a]\ntype = \"idle\"\nvolume = 10\n").unwrap();
    let output = Command::new(example())
        .args(["--check", "--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ivi/a: the configuration is in order\n"
    );
}
