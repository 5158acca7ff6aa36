// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::backend::Role;
use crate::format::Rate;

fn params(format: Format) -> Params {
    let rate = Rate::from_hertz(48_000).unwrap();
    Params {
        format,
        rate,
        channels: 2,
        buffer_bytes: 0,
        period_bytes: 0,
        features: 0,
    }
}

fn identity() -> StreamIdentity {
    StreamIdentity {
        guest: "ivi".into(),
        device: "cabin".into(),
        stream: "Music".into(),
        index: 0,
        role: Role::Multimedia,
    }
}

fn backend(folder: &Path, sources: Vec<SourceConfig>) -> FileBackend {
    let path = format!("{}/{{guest}}-{{stream}}-{{n}}.wav", folder.display());
    FileBackend {
        config: FileConfig {
            path,
            ..FileConfig::default()
        },
        sources,
    }
}

fn play(backend: &FileBackend, opening: Opening, format: Format, pieces: &[&[u8]]) {
    let mut output = backend.output(&identity());
    output.open(&params(format), opening).unwrap();
    output.start().unwrap();
    for piece in pieces {
        assert_eq!(output.write(piece).unwrap(), piece.len());
    }
    output.stop().unwrap();
    output.close();
}

fn record(backend: &FileBackend, format: Format, bytes: usize) -> Vec<u8> {
    let mut input = backend.input(&identity());
    input.open(&params(format), Opening::Prepared).unwrap();
    let mut heard = vec![9; bytes];
    assert_eq!(input.read(&mut heard).unwrap(), bytes);
    heard
}

#[test]
fn what_was_played_into_a_file_is_recorded_from_it_in_every_format() {
    for format in Format::ALL {
        let folder = tempfile::tempdir().unwrap();
        let frame = params(format).frame_bytes();
        // Samples that any container can hold: signed ones small and positive.
        let mut bytes = vec![0; frame * 100];
        let width = (format.container_bits() as usize / 8).max(1);
        for (n, sample) in bytes.chunks_mut(width).enumerate() {
            sample[0] = n as u8;
            if width == 1 {
                sample[0] &= 0x7f;
            }
        }
        play(
            &backend(folder.path(), vec![]),
            Opening::Prepared,
            format,
            &[&bytes],
        );
        let file = folder.path().join("ivi-Music-1.wav");
        let source = SourceConfig {
            name: "File".into(),
            input: Some(file),
            tone: None,
        };
        let heard = record(
            &backend(folder.path(), vec![source]),
            format,
            bytes.len() * 2,
        );
        assert_eq!(heard[..bytes.len()], bytes, "{format:?}");
        assert_eq!(
            heard[bytes.len()..],
            bytes,
            "{format:?} again from the beginning"
        );
    }
}

#[test]
fn each_stream_gets_a_new_file_and_a_recovered_one_goes_on_in_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let backend = backend(folder.path(), vec![]);
    play(&backend, Opening::Prepared, Format::S16, &[&[1; 400]]);
    play(&backend, Opening::Prepared, Format::S16, &[&[2; 400]]);
    let second = folder.path().join("ivi-Music-2.wav");
    // The process died in the middle of a frame and before it could count.
    let mut torn = std::fs::read(&second).unwrap();
    torn.extend_from_slice(&[2; 3]);
    torn[76..80].copy_from_slice(&0_u32.to_le_bytes());
    std::fs::write(&second, torn).unwrap();
    play(&backend, Opening::Recovered, Format::S16, &[&[3; 40]]);
    let whole = std::fs::read(&second).unwrap();
    assert_eq!(whole.len(), 80 + 440);
    assert_eq!(whole[80..480], [2; 400]);
    assert_eq!(whole[480..], [3; 40]);
    let contents = Contents::parse(&whole, whole.len() as u64).unwrap();
    assert_eq!(contents.data_bytes, 440);
    // Other samples do not go on in it.
    play(&backend, Opening::Recovered, Format::S32, &[&[4; 80]]);
    assert!(folder.path().join("ivi-Music-3.wav").exists());
}

#[test]
fn a_stream_that_plays_nothing_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    play(
        &backend(folder.path(), vec![]),
        Opening::Prepared,
        Format::S16,
        &[],
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_wrong_or_missing_source_is_silence_and_a_tone_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let mono = folder.path().join("mono.wav");
    let layout = Layout::of(Format::S16).unwrap();
    let one = Params {
        channels: 1,
        ..params(Format::S16)
    };
    let mut bytes = header(layout, &one, 8).to_vec();
    bytes.extend_from_slice(&[5; 8]);
    std::fs::write(&mono, bytes).unwrap();
    let named = |input: Option<PathBuf>, tone| SourceConfig {
        name: "x".into(),
        input,
        tone,
    };
    for source in [
        named(Some(mono), None),
        named(Some("/nowhere".into()), None),
        named(None, None),
    ] {
        let heard = record(&backend(folder.path(), vec![source]), Format::U8, 64);
        assert_eq!(heard, [0x80; 64]);
    }
    let heard = record(
        &backend(folder.path(), vec![named(None, Some(1000.0))]),
        Format::S16,
        192,
    );
    let samples: Vec<i16> = heard
        .chunks(2)
        .map(|two| i16::from_le_bytes([two[0], two[1]]))
        .collect();
    // 48 frames are one turn: the peak of a tenth is after a quarter of it.
    assert_eq!(samples[0], 0);
    assert_eq!(samples[24], 3277);
    assert_eq!(samples[24], samples[25], "both channels");
}

#[test]
fn the_folder_of_a_pattern_is_what_is_fixed_of_it() {
    assert_eq!(
        directory("/var/sound/{guest}/{n}.wav"),
        PathBuf::from("/var/sound")
    );
    assert_eq!(directory("{n}.wav"), PathBuf::from("."));
    assert_eq!(directory("/{n}.wav"), PathBuf::from("/"));
    assert_eq!(directory("out/a.wav"), PathBuf::from("out"));
}

#[test]
fn a_guest_leaves_the_hosts_share_of_the_disk_to_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut output = FileOutput {
        pattern: format!("{}/not/there/{{n}}.wav", folder.path().display()),
        opening: Opening::Prepared,
        params: None,
        writer: None,
        room: Room::none(),
    };
    let params = params(Format::S16);
    let error = output.open(&params, Opening::Prepared).unwrap_err();
    assert!(error.to_string().contains("left on this disk"), "{error}");

    // It fills up while a guest plays: within a second of sound the file ends, in order.
    output.room = Room::default();
    output.open(&params, Opening::Prepared).unwrap();
    let piece = [0; 4 * 4800];
    output.write(&piece).unwrap();
    output.room = Room::none();
    let written = (0..12).take_while(|_| output.write(&piece).is_ok()).count();
    assert!(written < 12, "it is refused");
    output.close();
    let file = std::fs::read(folder.path().join("not/there/1.wav")).unwrap();
    let contents = Contents::parse(&file, file.len() as u64).unwrap();
    assert_eq!(contents.data_bytes, (written as u64 + 1) * 4 * 4800);
}
