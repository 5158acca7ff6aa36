// SPDX-License-Identifier: Apache-2.0

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::super::Opening;
use super::*;
use crate::format::{Params, Rate};

fn stream() -> StreamIdentity {
    StreamIdentity {
        guest: "ivi".into(),
        device: "sound".into(),
        stream: "music".into(),
        index: 0,
        role: Role::Navigation,
    }
}

fn params(format: Format, channels: u8) -> Params {
    Params {
        format,
        rate: Rate::from_hertz(48_000).unwrap(),
        channels,
        buffer_bytes: 0,
        period_bytes: 0,
        features: 0,
    }
}

fn output(description: &str, maps: Maps) -> Box<dyn Output> {
    Gstreamer::new(
        vec![description.to_owned()],
        Direction::Output,
        DEFAULT_LATENCY_MS,
        maps,
    )
    .unwrap()
    .output(&stream())
}

fn input(descriptions: &[&str]) -> Box<dyn Input> {
    let descriptions = descriptions.iter().map(|text| (*text).to_owned()).collect();
    Gstreamer::new(
        descriptions,
        Direction::Input,
        DEFAULT_LATENCY_MS,
        Maps::default(),
    )
    .unwrap()
    .input(&stream())
}

/// Plays all of it; a pipeline takes it in its own time.
fn play(output: &mut dyn Output, mut bytes: &[u8]) {
    let end = Instant::now() + Duration::from_secs(30);
    while !bytes.is_empty() {
        let taken = output.write(bytes).unwrap();
        bytes = &bytes[taken..];
        assert!(Instant::now() < end, "the pipeline takes nothing");
    }
}

/// Records until `bytes` is full.
fn record(input: &mut dyn Input, bytes: &mut [u8]) {
    let end = Instant::now() + Duration::from_secs(30);
    let mut there = 0;
    while there < bytes.len() {
        there += input.read(&mut bytes[there..]).unwrap();
        assert!(Instant::now() < end, "the pipeline gives nothing");
    }
}

#[test]
fn what_is_played_arrives_bit_exact_in_every_format_that_wav_has() {
    let folder = tempfile::tempdir().unwrap();
    for format in [
        Format::U8,
        Format::S16,
        Format::S24Packed,
        Format::S32,
        Format::Float,
    ] {
        let params = params(format, 2);
        let file = folder
            .path()
            .join(format!("ivi-music-Navigation-{format:?}.wav"));
        let template = format!(
            "{}/{{guest}}-{{stream}}-{{role}}-{format:?}.wav",
            folder.path().display()
        );
        let mut output = output(
            &format!("wavenc ! filesink location=\"{template}\""),
            Maps::default(),
        );
        // Of floats only numbers between -1 and 1 are unchanged.
        let bytes: Vec<u8> = if format == Format::Float {
            (0..9600_i16)
                .flat_map(|n| (f32::from(n) / 9600.0).to_le_bytes())
                .collect()
        } else {
            (0..params.bytes(4800)).map(|n| (n % 251) as u8).collect()
        };
        output.open(&params, Opening::Prepared).unwrap();
        output.start().unwrap();
        play(&mut *output, &bytes);
        output.stop().unwrap();
        output.close();
        let written = std::fs::read(&file).unwrap();
        assert!(written.starts_with(b"RIFF"), "{format:?}");
        let data = written.windows(4).position(|word| word == b"data").unwrap() + 8;
        assert_eq!(&written[data..data + bytes.len()], &bytes[..], "{format:?}");
    }
}

#[test]
fn every_offered_format_is_played_and_recorded() {
    let all = Gstreamer::new(
        vec!["fakesink".into()],
        Direction::Output,
        20,
        Maps::default(),
    )
    .unwrap()
    .formats();
    for format in Format::ALL {
        if all & format.bit() == 0 {
            continue;
        }
        let params = params(format, 2);
        let mut piece = vec![0; params.bytes(480)];
        params.fill_silence(&mut piece);
        let mut output = output("fakesink sync=true", Maps::default());
        output.open(&params, Opening::Prepared).unwrap();
        play(&mut *output, &piece);
        output.close();

        let mut input = input(&["audiotestsrc is-live=true wave=silence"]);
        input.open(&params, Opening::Prepared).unwrap();
        input.start().unwrap();
        let mut recorded = vec![1; piece.len()];
        record(&mut *input, &mut recorded);
        if !matches!(format, Format::MuLaw | Format::ALaw) {
            assert_eq!(recorded, piece, "{format:?}");
        }
        input.close();
    }
}

#[test]
fn five_one_lands_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.wav");
    let params = params(Format::S16, 6);
    let description = format!("wavenc ! filesink location=\"{}\"", file.display());
    let mut output = output(&description, Maps::default());
    output.open(&params, Opening::Prepared).unwrap();
    let frames: Vec<u8> = (0..4800)
        .flat_map(|_| (1..=6_i16).flat_map(i16::to_le_bytes))
        .collect();
    play(&mut *output, &frames);
    output.close();
    let written = std::fs::read(&file).unwrap();
    let data = written.windows(4).position(|word| word == b"data").unwrap() + 8;
    // A WAV file has centre and sub-woofer before the rear channels.
    assert_eq!(
        &written[data..data + 12],
        &[1, 0, 2, 0, 5, 0, 6, 0, 3, 0, 4, 0]
    );
}

#[test]
fn a_file_is_recorded_at_the_pace_of_time_and_then_there_is_silence() {
    let mut input = input(&["audiotestsrc num-buffers=10 samplesperbuffer=480 wave=square"]);
    let params = params(Format::S16, 1);
    input.open(&params, Opening::Prepared).unwrap();
    let begin = Instant::now();
    input.start().unwrap();
    let mut bytes = vec![0; params.bytes(4800)];
    record(&mut *input, &mut bytes);
    assert!(
        begin.elapsed() >= Duration::from_millis(85),
        "faster than time"
    );
    assert!(bytes.iter().any(|byte| *byte != 0));
    assert_eq!(
        input.read(&mut bytes).unwrap(),
        0,
        "no error, just nothing more"
    );
    input.close();
}

#[test]
fn another_source_is_opened_when_it_is_selected() {
    let mut input = input(&[
        "audiotestsrc is-live=true wave=silence",
        "audiotestsrc is-live=true wave=square",
    ]);
    let params = params(Format::S16, 2);
    let mut bytes = vec![0; params.bytes(480)];
    input.open(&params, Opening::Prepared).unwrap();
    input.start().unwrap();
    record(&mut *input, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0));
    input.select(1);
    record(&mut *input, &mut bytes);
    assert!(bytes.iter().any(|byte| *byte != 0));
}

#[test]
fn a_wrong_text_is_refused_in_words() {
    let refused = |text: &str| {
        Gstreamer::new(
            vec![text.to_owned()],
            Direction::Output,
            20,
            Maps::default(),
        )
        .unwrap_err()
        .to_string()
    };
    assert!(
        refused("nosuchsink").contains("no element nosuchsink: install"),
        "{}",
        refused("nosuchsink")
    );
    assert!(refused("fakesink nosuch=1").contains("no property \"nosuch\""));
    assert!(
        refused("! ! fakesink").contains("syntax error"),
        "{}",
        refused("! ! fakesink")
    );
    assert!(refused("  ").contains("a pipeline is needed"));
    assert!(
        Gstreamer::new(vec![], Direction::Input, 20, Maps::default()).is_err(),
        "no pipeline at all"
    );
}

#[test]
fn an_error_in_the_pipeline_is_an_error_of_the_next_write() {
    let mut output = output("filesink location=/dev/full", Maps::default());
    let params = params(Format::S16, 2);
    let piece = vec![0; params.bytes(48_000)];
    output.open(&params, Opening::Prepared).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let error = loop {
        match output.write(&piece) {
            Ok(_) => assert!(Instant::now() < end, "no error came"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("GStreamer pipeline"), "{error}");
    output.close();
}

#[test]
fn the_delay_is_what_was_handed_over_and_is_not_due_yet() {
    let mut output = output("fakesink sync=true", Maps::default());
    let params = params(Format::S16, 2);
    output.open(&params, Opening::Prepared).unwrap();
    assert_eq!(
        output.write(&vec![0; params.bytes(2400)]).unwrap(),
        params.bytes(2400)
    );
    // 50 ms of frames and at least the 20 ms that they may come late.
    let delay = output.delay();
    assert!(delay > 0 && delay <= 2400 + 4800, "{delay}");
    output.close();
}

/// Somebody who has a fifo open to read, and does not read.
fn reader(fifo: &Path) -> std::fs::File {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(fifo)
        .unwrap()
}

#[test]
fn a_pipeline_that_hangs_is_left_behind_once_and_not_once_per_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut output = output(
        &format!("filesink location={}", fifo.display()),
        Maps::default(),
    );
    let params = params(Format::S16, 2);
    // A server that takes what its socket holds, and nothing more.
    let mut server = reader(&fifo);
    output.open(&params, Opening::Prepared).unwrap();
    play(output.as_mut(), &vec![0; params.bytes(24_000)]);
    let end = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        // Open again: the pipeline before is closed for that, as long as it has not come to hang.
        match output.open(&params, Opening::Prepared) {
            Ok(()) => assert!(Instant::now() < end, "it never hangs"),
            Err(error) => break error,
        }
        play(output.as_mut(), &vec![0; params.bytes(24_000)]);
    };
    assert!(refused.to_string().contains("has not closed"), "{refused}");
    output.open(&params, Opening::Prepared).unwrap_err();

    // The server comes to life.
    let mut heard = vec![0; 65_536];
    while let Err(error) = output.open(&params, Opening::Prepared) {
        assert!(Instant::now() < end, "{error}");
        let _ = server.read(&mut heard);
    }
    output.close();
}
