// SPDX-License-Identifier: Apache-2.0

use super::super::{Said, SndConfig};
use super::*;
use crate::backend::file::SourceConfig;
use crate::backend::wav::header;
use crate::format::{Format, Params, Rate};
use crate::wire::Direction;

/// What is told: key, exit code and message.
fn told(config: &SndConfig) -> Vec<(String, u8, String)> {
    let mut problems = Problems::new();
    config.look_at_host(&Place::new("ivi", "cabin"), &mut problems);
    let list = problems.into_list().into_iter();
    list.map(|problem| (problem.key, problem.exit.code(), problem.message))
        .collect()
}

fn plays_into(path: &str) -> SndConfig {
    let mut config = SndConfig::default();
    config.streams.truncate(1);
    config.streams[0].backend = BackendConfig::File(FileConfig {
        path: path.to_owned(),
        ..FileConfig::default()
    });
    config
}

fn records(path: &Path) -> SndConfig {
    let mut config = SndConfig::default();
    config.streams.drain(..2);
    config.streams[0].backend = BackendConfig::File(FileConfig {
        input: Some(path.to_owned()),
        ..FileConfig::default()
    });
    config
}

fn wav(channels: u8) -> Vec<u8> {
    let params = Params {
        format: Format::S16,
        rate: Rate::from_hertz(48_000).unwrap(),
        channels,
        buffer_bytes: 0,
        period_bytes: 0,
        features: 0,
    };
    let mut bytes = header(Layout::of(Format::S16).unwrap(), &params, 400).to_vec();
    bytes.resize(480, 0);
    bytes
}

#[test]
fn a_folder_that_cannot_be_made_and_a_file_that_is_not_ours_are_refused_before_anything_plays() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", folder.path().display());
    std::fs::write(at("letter"), "dear reader").unwrap();
    std::fs::write(at("ours.wav"), wav(2)).unwrap();
    std::fs::write(at("empty.wav"), "").unwrap();
    std::fs::create_dir(at("ivi")).unwrap();
    for good in [
        at("{stream}-{n}.wav"),
        at("new/folders/{n}.wav"),
        at("ours.wav"),
        at("empty.wav"),
        at("{guest}.wav"),
    ] {
        assert_eq!(told(&plays_into(&good)), [], "{good}");
    }
    for (path, reason) in [
        (at("letter/{n}.wav"), "letter is no folder"),
        (at("letter/deep/{stream}.wav"), "letter is no folder"),
        (at("letter"), "a file that this service did not write"),
        (at("{guest}"), "ivi is a folder"),
        ("/dev/null".to_owned(), "/dev/null is no regular file"),
    ] {
        let found = told(&plays_into(&path));
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert_eq!(
            (found[0].0.as_str(), found[0].1),
            ("streams.0.backend.path", 73)
        );
        assert!(found[0].2.contains(reason), "{path}: {found:?}");
    }
    assert_eq!(
        std::fs::read_to_string(at("letter")).unwrap(),
        "dear reader"
    );
    assert!(!folder.path().join("new").exists(), "looking makes nothing");
}

#[test]
fn a_file_to_be_recorded_is_there_is_a_wav_file_and_fits_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("stereo.wav"), wav(2)).unwrap();
    std::fs::write(at("ten.wav"), wav(10)).unwrap();
    std::fs::write(at("none.wav"), &wav(2)[..80]).unwrap();
    std::fs::write(at("letter"), "dear reader").unwrap();
    assert_eq!(told(&records(&at("stereo.wav"))), []);
    for (path, code, reason) in [
        (at("nowhere.wav"), 66, "there is no file"),
        (folder.path().to_owned(), 66, "is a folder"),
        ("/dev/zero".into(), 66, "is no regular file"),
        (at("letter"), 65, "this is not a WAV file"),
        (at("none.wav"), 65, "has no samples"),
        (at("ten.wav"), 78, "has 10 channels at 48000 Hz and 16 bits"),
    ] {
        let found = told(&records(&path));
        assert_eq!(found.len(), 1, "{path:?}: {found:?}");
        assert_eq!(
            (found[0].0.as_str(), found[0].1),
            ("streams.0.backend.input", code)
        );
        assert!(found[0].2.contains(reason), "{path:?}: {found:?}");
    }
    let mut config = records(&at("letter"));
    config.streams[0].formats = vec![Format::DsdU8];
    assert_eq!(
        told(&config),
        [],
        "a format without a header is recorded as it lies"
    );
}

#[test]
fn what_came_from_an_option_is_told_once_and_by_the_name_of_the_option() {
    let mut config = SndConfig {
        said: Said {
            output: true,
            input: true,
        },
        ..SndConfig::default()
    };
    for stream in &mut config.streams {
        let input = (stream.direction == Direction::Input).then(|| "/no/such.wav".into());
        stream.backend = BackendConfig::File(FileConfig {
            path: "/etc/passwd/{stream}-{n}.wav".to_owned(),
            input,
            ..FileConfig::default()
        });
    }
    let found = told(&config);
    let keys: Vec<&str> = found.iter().map(|(key, ..)| key.as_str()).collect();
    assert_eq!(keys, ["--output", "--input"]);
}

#[test]
fn what_a_pipeline_may_write_exists() {
    let mut config = plays_into("x");
    config.streams[0].backend = BackendConfig::Gstreamer(super::super::GstreamerConfig {
        paths: vec!["/".to_owned(), "/no/such/folder".to_owned()],
        ..Default::default()
    });
    let found = told(&config);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, "streams.0.backend.paths.1");
}

#[test]
fn an_input_offers_what_its_only_file_has_and_a_value_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("speech.wav");
    std::fs::write(&file, wav(1)).unwrap();
    let mut config = records(&file);
    config.offer_what_files_have();
    let stream = &config.streams[0];
    assert_eq!((stream.channels_min, stream.channels_max), (1, 1));
    assert_eq!(stream.rates, [48_000]);
    assert_eq!(stream.formats, [Format::S16, Format::U16]);
    assert!(told(&config).is_empty());
    // Named, and another.
    let mut config = records(&file);
    config.streams[0].channels_min = 2;
    let named = config.clone();
    config.offer_what_files_have();
    assert_eq!(config, named);
    let [(key, code, message)] = told(&config).try_into().unwrap();
    assert_eq!((key.as_str(), code), ("streams.0.backend.input", 78));
    assert!(message.contains("1 channels at 48000 Hz"), "{message}");
    // One of two files may have anything.
    let mut config = records(&file);
    let source = |name: &str| SourceConfig {
        name: name.to_owned(),
        input: Some(file.clone()),
        tone: None,
    };
    config.streams[0].sources = vec![source("one"), source("two")];
    let before = config.clone();
    config.offer_what_files_have();
    assert_eq!(config, before);
}
