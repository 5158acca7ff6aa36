// SPDX-License-Identifier: Apache-2.0

//! With alsa-lib's `null` PCM, which needs no card. What a real server does is tested beside
//! PipeWire (tests/pipewire).

use super::super::{Opening, Role};
use super::*;
use crate::format::{Params, Rate};

fn stream() -> StreamIdentity {
    StreamIdentity {
        guest: "ivi".into(),
        device: "sound".into(),
        stream: "music".into(),
        index: 0,
        role: Role::Multimedia,
    }
}

fn params(format: Format, channels: u8) -> Params {
    let mut params = Params {
        format,
        rate: Rate::from_hertz(48_000).unwrap(),
        channels,
        buffer_bytes: 0,
        period_bytes: 0,
        features: 0,
    };
    params.period_bytes = u32::try_from(params.bytes(480)).unwrap();
    params.buffer_bytes = params.period_bytes * 4;
    params
}

fn alsa(pcm: &str) -> Alsa {
    Alsa::new(vec![pcm.to_owned()], DEFAULT_TARGET_MS, Maps::default()).unwrap()
}

#[test]
fn every_offered_format_is_played_and_recorded() {
    let alsa = alsa("null");
    for format in Format::ALL {
        if alsa.formats() & format.bit() == 0 {
            continue;
        }
        let params = params(format, 2);
        let mut piece = vec![0; params.bytes(480)];
        params.fill_silence(&mut piece);

        let mut output = alsa.output(&stream());
        output.open(&params, Opening::Prepared).unwrap();
        output.start().unwrap();
        assert_eq!(output.write(&piece).unwrap(), piece.len(), "{format:?}");
        output.stop().unwrap();
        output.start().unwrap();
        output.close();

        let mut input = alsa.input(&stream());
        input.open(&params, Opening::Prepared).unwrap();
        input.start().unwrap();
        assert_eq!(input.read(&mut piece).unwrap(), piece.len(), "{format:?}");
        input.stop().unwrap();
        input.close();
    }
}

#[test]
fn only_a_bare_card_is_offered_what_cannot_be_converted() {
    let converting = alsa("default").formats();
    assert_eq!(converting & Format::DsdU32.bit(), 0);
    assert_ne!(converting & Format::MuLaw.bit(), 0);
    assert_ne!(alsa("hw:0").formats() & Format::DsdU32.bit(), 0);
}

#[test]
fn a_pcm_that_is_not_there_is_named_in_the_error() {
    let mut output = alsa("no-such-pcm").output(&stream());
    let error = output
        .open(&params(Format::S16, 2), Opening::Prepared)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("ALSA PCM \"no-such-pcm\": cannot be opened: "),
        "{error}"
    );
    // And it can be asked for again.
    assert!(
        output
            .open(&params(Format::S16, 2), Opening::Again)
            .is_err()
    );
    assert!(output.write(&[0; 4]).is_err());
    output.close();
}

#[test]
fn another_source_is_opened_when_it_is_selected() {
    let alsa = Alsa::new(
        vec!["null".into(), "no-such-pcm".into()],
        DEFAULT_TARGET_MS,
        Maps::default(),
    )
    .unwrap();
    let mut input = alsa.input(&stream());
    let mut piece = [1; 1920];
    input
        .open(&params(Format::S16, 2), Opening::Prepared)
        .unwrap();
    input.start().unwrap();
    assert_eq!(input.read(&mut piece).unwrap(), piece.len());
    input.select(1);
    let error = input.read(&mut piece).unwrap_err();
    assert!(error.to_string().contains("no-such-pcm"), "{error}");
    input.select(0);
    assert_eq!(input.read(&mut piece).unwrap(), piece.len());
    input.close();
}

#[test]
fn a_name_that_can_be_none_is_refused_at_once() {
    assert!(Alsa::new(vec![], 20, Maps::default()).is_err());
    assert!(Alsa::new(vec!["two\nlines".into()], 20, Maps::default()).is_err());
}
