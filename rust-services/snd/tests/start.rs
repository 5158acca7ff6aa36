// SPDX-License-Identifier: Apache-2.0

//! How the service starts, or does not: what it says, and with which code it ends.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use virtio_device::Record;

const PROGRAM: &str = env!("CARGO_BIN_EXE_agl-virtio-snd");
/// Virtio device id of a sound device.
const SOUND: u32 = 25;

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    let socket = folder.join("a.sock");
    command
        .args(["--bus", "none", "--socket"])
        .arg(socket)
        .args(words);
    command
}

#[test]
fn what_cannot_work_is_said_with_its_code_by_the_check_and_by_the_first_start() {
    let folder = tempfile::tempdir().unwrap();
    let letter = folder.path().join("letter");
    std::fs::write(&letter, "dear reader").unwrap();
    let letter = letter.to_str().unwrap();
    for (words, code, said) in [
        (["--output", letter], 73, "error: --output: "),
        (["--input", letter], 65, "error: --input: "),
        (
            ["--input", "/no/such.wav"],
            66,
            "error: --input: there is no file /no/such.wav",
        ),
    ] {
        for more in [&["--check"][..], &[]] {
            let output = command(folder.path(), &words).args(more).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{words:?} {more:?}: {text}"
            );
            assert!(text.starts_with(said), "{words:?} {more:?}: {text}");
            assert_eq!(text.matches("error:").count(), 1, "{text}");
        }
    }
    assert!(!folder.path().join("a.sock").exists());
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        ["--null", "fast", "--output", "/tmp"],
        ["--null", "paced", "--input", "a"],
    ] {
        let output = command(folder.path(), &words).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{words:?}");
    }
}

#[test]
fn every_configuration_of_the_document_is_in_order() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sound.md");
    let document = std::fs::read_to_string(document).expect("run this test in a whole checkout");
    let code: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let first = code
        .iter()
        .position(|line| line.starts_with("[devices."))
        .unwrap();
    // The card's own lines go up to the last of its tables; each further back end stands alone.
    let end = code
        .iter()
        .rposition(|line| line.starts_with("positions = "))
        .unwrap();
    let mut texts = vec![code[first..=end].join("\n")];
    texts.extend(
        code[end..]
            .iter()
            .filter(|line| line.starts_with("backend = "))
            .map(|line| {
                format!("[devices.a]\ntype = \"snd\"\n[[devices.a.streams]]\nname = \"A\"\n{line}")
            }),
    );
    assert!(texts.len() >= 5, "{texts:#?}");
    let folder = tempfile::tempdir().unwrap();
    for text in texts {
        let text = text.replace("/tmp/played", folder.path().to_str().unwrap());
        let file = folder.path().join("car.toml");
        std::fs::write(&file, &text).unwrap();
        let words = ["--check", "--config", file.to_str().unwrap()];
        let output = command(folder.path(), &words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{said}");
    }
}

#[test]
fn an_option_that_no_stream_takes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("car.toml");
    let nowhere = "[devices.a]\ntype = \"snd\"\nstreams = [{ name = \"Music\", backend = { type = \"null\" } }]\n";
    std::fs::write(&file, nowhere).unwrap();
    for option in ["--output", "--input"] {
        let words = [
            "--check",
            "--config",
            file.to_str().unwrap(),
            option,
            "/tmp",
        ];
        let output = command(folder.path(), &words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.starts_with(&format!("error: {option}: no ")), "{text}");
    }
}

#[test]
fn who_comes_and_goes_is_said_without_a_keeper_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), &["--null", "paced"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    let mut says = |text: &str| lines.any(|line| line.contains(text));
    assert!(says("listens on"));
    let mut stranger = UnixStream::connect(folder.path().join("a.sock")).unwrap();
    assert!(says("a VMM has connected"));
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(says("the VMM's session is over: "));
    drop(UnixStream::connect(folder.path().join("a.sock")).unwrap());
    assert!(says("a VMM has connected"));
    assert!(says("the VMM closed the connection"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_vmm_that_comes_and_goes_without_end_fills_no_journal_and_what_was_left_out_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mut child = command(folder.path(), &["--null", "paced"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listens on")));
    let socket = folder.path().join("a.sock");
    let enough = AtomicBool::new(false);
    let connected = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                drop(UnixStream::connect(&socket));
            }
        });
        let mut connected = lines.filter(|line| line.contains("a VMM has connected"));
        let before = connected.position(|line| line.contains(" like it were left out)"));
        enough.store(true, Ordering::Relaxed);
        before.expect("the count of what was left out")
    });
    // Five in ten seconds.
    let most = 5 * (begin.elapsed().as_secs() / 10 + 1);
    assert!(u64::try_from(connected).unwrap() <= most, "{connected}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_service_that_takes_over_a_guest_only_warns_of_what_the_host_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let record = Record::create().unwrap();
    record.set_device(SOUND);
    // Without close-on-exec, as the keeper leaves it.
    let inherited = rustix::io::dup(record.file().as_fd()).unwrap();
    let number = inherited.as_raw_fd().to_string();
    let mut child = command(folder.path(), &["--record-fd", &number])
        .args(["--input", "/no/such.wav", "--output"])
        .arg(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut warned = false;
    let listens = stderr.lines().map_while(Result::ok).any(|line| {
        warned |= line.contains("the guest goes on, but");
        line.contains("listens on") && line.contains("2 outputs, 1 input, 2 jacks")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(warned && listens);
}
