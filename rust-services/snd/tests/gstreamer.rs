// SPDX-License-Identifier: Apache-2.0

//! The `gstreamer` back end in the service: from its TOML, in its sandbox, for a driver.
#![cfg(feature = "gstreamer")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{RX, SndClient, TX};
use frontend::service_under_test::{Launch, ServiceUnderTest};

const PROGRAM: &str = env!("CARGO_BIN_EXE_agl-virtio-snd");
const PERIOD: usize = 1920;

fn configuration(folder: &Path, sink: &str) -> std::path::PathBuf {
    let file = folder.join("ivi.toml");
    let text = format!(
        r#"
        [devices.cabin]
        type = "snd"

        [[devices.cabin.streams]]
        name = "Music"
        [devices.cabin.streams.backend]
        type = "gstreamer"
        pipeline = '{sink}'
        paths = ["{folder}"]

        [[devices.cabin.streams]]
        name = "Microphone"
        direction = "input"
        [devices.cabin.streams.backend]
        type = "gstreamer"
        pipeline = "audiotestsrc is-live=true wave=square volume=0.5"
        "#,
        folder = folder.display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn start(folder: &Path, sink: &str) -> (ServiceUnderTest, SndClient) {
    let service = Launch::new(PROGRAM, folder.join("socket"))
        .args([
            "--bus", "none", "--log", "warn", "--device", "cabin", "--config",
        ])
        .args([configuration(folder, sink)])
        .start()
        .unwrap();
    let stream = service.connect(Deadline::patient()).unwrap();
    let client = SndClient::start(stream, &SndClient::options()).unwrap();
    (service, client)
}

fn begin(client: &mut SndClient, stream: u32) {
    assert_eq!(
        client.set_params(stream, &Params::CD_LIKE).unwrap(),
        status::OK
    );
    for code in [request::PCM_PREPARE, request::PCM_START] {
        assert_eq!(client.pcm(code, stream).unwrap(), status::OK);
    }
}

fn end(client: &mut SndClient, stream: u32) {
    for code in [request::PCM_STOP, request::PCM_RELEASE] {
        assert_eq!(client.pcm(code, stream).unwrap(), status::OK);
    }
}

#[test]
fn what_a_guest_plays_goes_through_the_pipeline_of_its_stream() {
    let folder = tempfile::tempdir().unwrap();
    let sink = format!(
        "wavenc ! filesink location={}/{{guest}}-{{device}}-{{stream}}-{{role}}.wav",
        folder.path().display()
    );
    let (_service, mut client) = start(folder.path(), &sink);
    let sound: Vec<u8> = (0..=250_u8).cycle().take(PERIOD * 50).collect();
    begin(&mut client, 0);
    for period in sound.chunks(PERIOD) {
        client.play(0, period).unwrap();
        client.kick(TX).unwrap();
        let played = client.played(Deadline::patient()).unwrap();
        assert_eq!(played.status, status::OK);
    }
    end(&mut client, 0);

    let file = folder.path().join("ivi-cabin-Music-Multimedia.wav");
    let patience = Instant::now() + Duration::from_secs(30);
    // The header is completed when the pipeline has ended, a moment after RELEASE.
    loop {
        let written = std::fs::read(&file).unwrap_or_default();
        let data = written.windows(4).position(|word| word == b"data");
        let length = data.and_then(|at| written.get(at + 4..at + 8));
        if length == Some(&u32::try_from(sound.len()).unwrap().to_le_bytes()[..]) {
            assert_eq!(written[data.unwrap() + 8..], sound, "bit for bit");
            break;
        }
        assert!(
            Instant::now() < patience,
            "{} bytes, {length:?}",
            written.len()
        );
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_guest_records_from_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, mut client) = start(folder.path(), "fakesink");
    begin(&mut client, 1);
    let patience = Deadline::patient();
    loop {
        client.record(1, u32::try_from(PERIOD).unwrap()).unwrap();
        client.kick(RX).unwrap();
        let recorded = client.recorded(Deadline::patient()).unwrap();
        assert_eq!((recorded.status, recorded.data.len()), (status::OK, PERIOD));
        // A square wave of half of full scale is nothing else, and silence is none.
        let square = recorded.data.chunks_exact(2).all(|sample| {
            let sample = i16::from_le_bytes(sample.try_into().unwrap());
            (16_000..16_800).contains(&sample.unsigned_abs())
        });
        if square {
            break;
        }
        assert!(!patience.passed(), "never a whole period of the wave");
    }
    end(&mut client, 1);
}

#[test]
fn a_pipeline_that_cannot_be_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    for (sink, words) in [
        ("nosuchsink", "GStreamer has no element nosuchsink"),
        ("fakesink nosuch=1", "no property \"nosuch\""),
        ("fakesink ! !", "syntax error"),
    ] {
        let output = Command::new(PROGRAM)
            .args(["--check", "--device", "cabin", "--config"])
            .arg(configuration(folder.path(), sink))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(said.contains("ivi.toml"), "{said}");
    }
}
