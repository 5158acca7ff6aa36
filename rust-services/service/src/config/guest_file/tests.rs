// SPDX-License-Identifier: Apache-2.0
//! Every fault of a guest's file: where it is shown and what is advised.

use super::*;
use crate::{Exit, ExitReason};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sound {
    rate: u32,
    streams: Vec<Stream>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    channels: u8,
    #[serde(default)]
    role: Role,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
enum Role {
    #[default]
    Multimedia,
    Navigation,
}

impl Validate for Stream {
    fn validate(&self, problems: &mut Problems) {
        problems.range("channels", &self.channels, 1..=8);
    }
}

impl Validate for Sound {
    fn validate(&self, problems: &mut Problems) {
        problems.require(
            matches!(self.rate, 44_100 | 48_000),
            "rate",
            format!("{} Hz is no rate of virtio-snd", self.rate),
            "44100 or 48000",
        );
        for (index, stream) in self.streams.iter().enumerate() {
            problems.part(&format!("streams.{index}"), stream);
        }
    }
}

const SOUND: Selection<'_> = Selection {
    device_type: "snd",
    device: None,
};

fn parsed(source: &str, selection: Selection<'_>) -> Result<(DeviceTable, Sound), ConfigError> {
    let (table, sound) = parse(
        Path::new("/etc/agl-virtio/ivi.toml"),
        source.to_owned(),
        selection,
    )?;
    table.check(&sound)?;
    Ok((table, sound))
}

fn fault(source: &str) -> String {
    parsed(source, SOUND).unwrap_err().to_string()
}

#[test]
fn a_good_file_is_read_with_names_socket_and_values() {
    let (table, sound) = parsed(
        r#"
        [guest]
        autostart = true
        [devices.cabin]
        type = "snd"
        socket = "/run/ivi-cabin.sock"
        rate = 48000
        streams = [ { channels = 2 }, { channels = 1, role = "Navigation" } ]
        [devices.bus]
        type = "can"
        bitrate = 500000
        "#,
        SOUND,
    )
    .unwrap();
    assert_eq!(
        (table.guest.as_str(), table.device.as_str()),
        ("ivi", "cabin")
    );
    assert_eq!(table.socket.unwrap().as_os_str(), "/run/ivi-cabin.sock");
    assert_eq!(sound.rate, 48_000);
    assert_eq!(sound.streams[1].role, Role::Navigation);
}

#[test]
fn a_wrong_value_is_shown_with_line_column_and_range() {
    let source = "[devices.cabin]\ntype = \"snd\"\nrate = 48000\nstreams = [ { channels = 11 } ]\n";
    assert_eq!(
        fault(source),
        "error: streams.0.channels: 11 is out of range\n\
         \x20--> /etc/agl-virtio/ivi.toml:4:26\n\
         \x20\x20|\n\
         4 | streams = [ { channels = 11 } ]\n\
         \x20\x20|                          ^^\n\
         \x20\x20= write: a number from 1 to 8"
    );
}

#[test]
fn an_unknown_key_gets_the_nearest_known_one() {
    let text = fault("[devices.cabin]\ntype = \"snd\"\nratte = 48000\n");
    assert_eq!(
        text,
        "error: unknown field `ratte`, expected `rate` or `streams`\n\
         \x20--> /etc/agl-virtio/ivi.toml:3:1\n\
         \x20\x20|\n\
         3 | ratte = 48000\n\
         \x20\x20| ^^^^^\n\
         \x20\x20= write: rate (nearest to ratte)"
    );
}

#[test]
fn all_wrong_values_are_shown_at_once() {
    let error = parsed(
        "[devices.cabin]\ntype = \"snd\"\nrate = 1\n[[devices.cabin.streams]]\nchannels = 0\n\
         [[devices.cabin.streams]]\nchannels = 9\n",
        SOUND,
    )
    .unwrap_err();
    let ConfigError::Faulty(faults) = &error else {
        panic!("{error}");
    };
    let places: Vec<_> = faults
        .iter()
        .map(|fault| fault.place.as_ref().map(|place| (place.line, place.column)))
        .collect();
    assert_eq!(places, [Some((3, 8)), Some((5, 12)), Some((7, 12))]);
    assert_eq!(error.exit(), Exit::Config);
}

#[test]
fn every_fault_has_a_place_and_a_remedy() {
    let table = [
        (
            "[devices.a]\ntype = \"snd\"\nrate = \"fast\"\n",
            "ivi.toml:3:8",
            "44100 or 48000",
        ),
        (
            "[devices.a]\ntype = \"snd\"\nrate = -1\n",
            "ivi.toml:3:8",
            "44100 or 48000",
        ),
        (
            "[devices.a]\ntype = \"snd\"\nrate = \n",
            "ivi.toml:3:",
            "key = value",
        ),
        (
            "[devices.a]\ntype = \"snd\"\nstreams = [{}]\n",
            "ivi.toml:3:12",
            "channels = a whole number from 0 up",
        ),
        (
            "[devices.a]\ntype = \"snd\"\nstreams = [{channels = 1, role = \"navigation\"}]\n",
            "ivi.toml:3:34",
            "Navigation (nearest to navigation)",
        ),
        (
            "[devices.a]\ntype = \"snd\"\nrate = 1\nrate = 2\n",
            "ivi.toml:4:1",
            "one of the two only",
        ),
        (
            "[device.a]\ntype = \"snd\"\n",
            "ivi.toml:1:2",
            "devices (nearest to device)",
        ),
        ("devices = 1\n", "ivi.toml:1:1", "[devices.NAME]"),
        ("", "ivi.toml:1:1", "[devices.NAME]"),
        ("[devices]\na = 1\n", "ivi.toml:2:1", "[devices.a]"),
        (
            "[devices.\"a b\"]\ntype = \"snd\"\n",
            "ivi.toml:1:10",
            "1 to 64 letters",
        ),
        ("[devices.a]\n", "ivi.toml:1:10", "type = \"snd\""),
        ("[devices.a]\ntype = 5\n", "ivi.toml:2:8", "type = \"snd\""),
        (
            "[devices.a]\ntype = \"can\"\n",
            "ivi.toml:1:1",
            "[devices.NAME] with type = \"snd\"",
        ),
        (
            "[devices.a]\ntype = \"snd\"\n[devices.b]\ntype = \"snd\"\n",
            "ivi.toml:3:10",
            "which one on the command line, such as --device b",
        ),
        (
            "[devices.a]\ntype = \"snd\"\nsocket = \"here\"\n",
            "ivi.toml:3:10",
            "a path such as",
        ),
    ];
    for (source, place, remedy) in table {
        let text = fault(source);
        assert!(text.contains(place), "{place} is missing from:\n{text}");
        assert!(
            text.contains(&format!("= write: {remedy}")),
            "{remedy} is missing from:\n{text}"
        );
    }
}

#[test]
fn a_device_that_is_not_there_or_of_another_type_is_named() {
    let source = "[devices.cabin]\ntype = \"snd\"\nrate = 48000\n[devices.bus]\ntype = \"can\"\n";
    let with = |device| {
        let selection = Selection {
            device: Some(device),
            ..SOUND
        };
        parsed(source, selection).map_err(|error| error.to_string())
    };
    assert!(with("cabin").is_ok());
    assert!(
        with("cabim")
            .unwrap_err()
            .contains("--device with cabin (nearest to cabim)")
    );
    let text = with("bus").unwrap_err();
    assert!(
        text.contains("ivi.toml:5:8") && text.contains("start agl-virtio-can"),
        "{text}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_no_input_and_a_huge_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| read::<Sound>(&folder.path().join(name), SOUND).unwrap_err();
    assert_eq!(read("ivi.toml").exit(), Exit::NoInput);
    std::fs::create_dir(folder.path().join("folder.toml")).unwrap();
    let error = read("folder.toml");
    assert_eq!(error.exit(), Exit::NoInput);
    assert!(error.to_string().contains("directory"), "{error}");
    std::fs::write(folder.path().join("big.toml"), "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(matches!(read("big.toml"), ConfigError::TooLarge(_)));
    std::fs::write(folder.path().join("b c.toml"), "").unwrap();
    assert!(read("b c.toml").to_string().contains("such as ivi.toml"));
}

/// Line, column and remedy of every fault.
fn faults(source: &str) -> Vec<(usize, usize, String)> {
    let Err(ConfigError::Faulty(faults)) = parsed(source, SOUND) else {
        panic!("{source} has no faults");
    };
    faults
        .into_iter()
        .map(|fault| {
            let place = fault.place.unwrap();
            (place.line, place.column, fault.remedy)
        })
        .collect()
}

#[test]
fn all_values_of_a_wrong_type_are_shown_at_once_in_the_order_of_the_file() {
    let found = faults(
        "[devices.a]\ntype = \"snd\"\nsteams = 1\nrate = true\n\
         [[devices.a.streams]]\nrole = 7\nchannels = \"two\"\n\
         [[devices.a.streams]]\nchannels = 900\n\
         [[devices.a.streams]]\nrole = \"Navigation\"\n",
    );
    let places: Vec<_> = found
        .iter()
        .map(|(line, column, _)| (*line, *column))
        .collect();
    assert_eq!(places, [(3, 1), (4, 8), (6, 8), (7, 12), (9, 12), (10, 1)]);
    assert_eq!(found[0].2, "streams (nearest to steams)");
    assert_eq!(found[4].2, "a whole number from 1 to 8");
    assert_eq!(found[5].2, "channels = a whole number from 0 up");
}

#[test]
fn values_out_of_range_are_shown_beside_those_of_a_wrong_type() {
    let found = faults(
        "[devices.a]\ntype = \"snd\"\n\
         [[devices.a.streams]]\nchannels = \"two\"\n\
         [[devices.a.streams]]\nrole = \"Navi\"\nchannels = 9\n\
         [[devices.a.streams]]\nchannels = 2\n",
    );
    let remedies = [
        "a whole number from 1 to 8",
        "one of Multimedia, Navigation",
        "a number from 1 to 8",
    ];
    let places = [(4, 12), (6, 8), (7, 12)];
    let expected = places.iter().zip(remedies);
    let expected: Vec<_> = expected
        .map(|(at, remedy)| (at.0, at.1, remedy.to_owned()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_field_that_is_missing_is_told_once_with_the_values_it_can_have() {
    #[derive(Debug, serde::Deserialize)]
    struct Plugs {
        #[serde(rename = "plugs")]
        _plugs: Vec<Plug>,
    }
    #[derive(Debug, serde::Deserialize)]
    struct Plug {
        #[serde(rename = "kind")]
        _kind: Role,
        #[serde(rename = "name")]
        _name: String,
    }
    impl Validate for Plugs {
        fn validate(&self, _problems: &mut Problems) {}
    }
    let head = "[devices.a]\ntype = \"snd\"\n";
    let told = |source: &str| {
        let error = parse::<Plugs>(Path::new("/etc/ivi.toml"), format!("{head}{source}"), SOUND);
        error.unwrap_err().to_string()
    };
    let plug = "[[devices.a.plugs]]\n";
    let text = told(&format!(
        "{plug}name = \"x\"\n{plug}kind = \"Navigation\"\n"
    ));
    assert!(
        text.contains("write: kind = one of Multimedia, Navigation\n\n"),
        "{text}"
    );
    assert!(text.ends_with("write: name = text in \"quotes\""), "{text}");
    // What is there and wrong is not missing, and hides nothing of what follows.
    let text = told(&format!(
        "{plug}name = \"x\"\nkind = \"y\"\n{plug}name = \"z\"\nkind = 3\n"
    ));
    assert!(!text.contains("missing"), "{text}");
    assert!(text.contains(":5:8\n") && text.contains(":8:8\n"), "{text}");
}

#[test]
fn a_value_of_a_wrong_type_is_named_by_its_key() {
    let text = fault("[devices.a]\ntype = \"snd\"\nstreams = [{ channels = true }]\n");
    assert!(
        text.starts_with("error: streams.0.channels: invalid type"),
        "{text}"
    );
    assert!(text.contains("ivi.toml:3:25"), "{text}");
}

#[test]
fn what_a_table_has_too_much_is_underlined_and_not_the_whole_table() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(try_from = "Written")]
    struct Narrow;
    #[derive(serde::Deserialize)]
    struct Written {
        #[serde(default)]
        wide: bool,
    }
    impl TryFrom<Written> for Narrow {
        type Error = String;
        fn try_from(written: Written) -> Result<Self, String> {
            match written.wide {
                true => Err("unknown field `wide`, there are no fields".to_owned()),
                false => Ok(Self),
            }
        }
    }
    #[derive(Debug, serde::Deserialize)]
    struct Way {
        #[serde(rename = "lane")]
        _lane: Narrow,
    }
    impl Validate for Way {
        fn validate(&self, _problems: &mut Problems) {}
    }
    let source = "[devices.a]\ntype = \"snd\"\n[devices.a.lane]\nwide = true\n";
    let text = parse::<Way>(Path::new("/etc/ivi.toml"), source.to_owned(), SOUND)
        .unwrap_err()
        .to_string();
    assert!(text.contains("ivi.toml:4:1\n"), "{text}");
}

#[test]
fn a_file_that_is_no_utf_8_is_shown_with_the_line_of_the_first_wrong_byte() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ivi.toml");
    std::fs::write(&file, b"[devices.a]\ntype = \"snd\"\n# f\xfcr\n").unwrap();
    let error = read::<Sound>(&file, SOUND).unwrap_err();
    assert_eq!(error.exit(), Exit::Config);
    let text = error.to_string();
    assert!(
        text.contains("ivi.toml:3:4") && text.contains("UTF-8"),
        "{text}"
    );
}

#[test]
fn what_the_host_lacks_ends_with_its_own_code_and_a_mistake_in_the_file_goes_before_it() {
    let source = "[devices.a]\ntype = \"snd\"\nrate = 48000\n";
    let (table, _) = parsed(source, SOUND).unwrap();
    let mut problems = Problems::new();
    problems.lacking(Exit::CannotCreate, "rate", "no folder", "a folder");
    let error = explain_problems(Some(&table), problems).unwrap_err();
    assert_eq!(error.exit(), Exit::CannotCreate);
    assert!(error.to_string().contains("ivi.toml:3:8"), "{error}");
    let mut problems = Problems::new();
    problems.lacking(Exit::NoInput, "--input", "there is no file a", "a file");
    problems.add("rate", "wrong", "right");
    let error = explain_problems(Some(&table), problems).unwrap_err();
    assert_eq!(error.exit(), Exit::Config);
    let text = error.to_string();
    assert!(
        text.starts_with("error: --input: there is no file a\n  = write: a file"),
        "{text}"
    );
    assert!(explain_problems(None, Problems::new()).is_ok());
}
