// SPDX-License-Identifier: Apache-2.0

use agl_virtio_service::config::{Problems, Selection, Validate, read};

use super::*;

fn parse(text: &str) -> Result<SndConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ivi.toml");
    std::fs::write(&file, text).unwrap();
    let selection = Selection {
        device_type: "snd",
        device: None,
    };
    let (table, config) = read::<SndConfig>(&file, selection).map_err(|error| error.to_string())?;
    table.check(&config).map_err(|error| error.to_string())?;
    Ok(config)
}

fn problems(config: &SndConfig) -> Vec<String> {
    let mut problems = Problems::new();
    config.validate(&mut problems);
    problems
        .into_list()
        .into_iter()
        .map(|problem| problem.key)
        .collect()
}

#[test]
fn nothing_said_is_a_whole_device() {
    let config = SndConfig::default();
    assert_eq!(problems(&config), Vec::<String>::new());
    assert_eq!(config.streams.len(), 3);
    assert_eq!(config.streams[1].priority(), 40);
    assert_eq!(config.streams[2].source_list().len(), 2);
    assert_eq!(config.streams[0].duck_centibels(), -2000);
    assert!(
        config.streams[0]
            .rate_set()
            .all(|rate| rate.hertz() <= 96_000)
    );
}

#[test]
fn a_file_describes_a_device() {
    let config = parse(
        r#"
        [devices.cabin]
        type = "snd"
        polling = true
        chmaps = [{ positions = ["FL", "FR", "LFE"] }]
        jacks = [{ name = "Line", kind = "linein", connected = true }]
        [[devices.cabin.streams]]
        name = "Announcements"
        role = "navigation"
        step_back = "silence"
        formats = ["s16", "s24_3", "iec958_subframe"]
        rates = [48000, 24000]
        backend = { type = "null", pace = false }
        [[devices.cabin.streams]]
        name = "Announcements"
        direction = "input"
        sources = [{ name = "Speech", input = "/dev/null" }]
        backend = { type = "file", repeat = false }
        "#,
    )
    .unwrap();
    let stream = &config.streams[0];
    assert_eq!(stream.format_bits(u64::MAX), 1 << 5 | 1 << 11 | 1 << 24);
    assert_eq!(stream.rate_bits(), 1 << 7 | 1 << 15);
    assert_eq!(stream.priority(), 20);
    assert_eq!(
        stream.backend,
        BackendConfig::Null(NullConfig { pace: false })
    );
    assert_eq!(config.streams[1].source_list()[0].name, "Speech");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_remedy() {
    let head = "[devices.cabin]\ntype = \"snd\"\n";
    let stream = "[[devices.cabin.streams]]\nname = \"A\"\n";
    let table = [
        ("rates = [44000]", "44000 Hz is no rate", "44100"),
        (
            "backend = { type = \"file\", repeat = false }",
            "backend.repeat: an output repeats nothing",
            "no repeat",
        ),
        (
            "direction = \"input\"\nbackend = { type = \"file\", path = \"/tmp/{n}.wav\" }",
            "backend.path: an input writes no files",
            "input = ",
        ),
        (
            "direction = \"input\"\nsources = [{ name = \"x\", tone = 440.0 }]\n\
             backend = { type = \"file\", input = \"/x.wav\" }",
            "each of the sources names its own file",
            "input of one of the sources",
        ),
        (
            "direction = \"input\"\nsources = [{ name = \"x\", tone = 440.0 }]\n\
             backend = { type = \"alsa\", pcm = \"null\" }",
            "sources.0.tone: the alsa back end takes no tone",
            "pcms = [",
        ),
        (
            "direction = \"input\"\nsources = [{ name = \"x\", input = \"/no.wav\" }]\n\
             backend = { type = \"null\" }",
            "sources.0.input: the null back end takes no input",
            "type = \"file\"",
        ),
        (
            "direction = \"input\"\nsources = [{ name = \"x\" }, { name = \"y\" }]\n\
             backend = { type = \"alsa\", pcm = \"null\" }",
            "backend.pcm: there is one pcm for 2 sources",
            "one for each source",
        ),
        (
            "channels_min = 3\nchannels_max = 3\nformats = [\"s16\", \"ima_adpcm\"]",
            "formats.1: ima_adpcm cannot have 3 channels",
            "even number",
        ),
        ("rates = [12000]", "refuse the whole card", "48000"),
        ("channels_max = 9", "9 is out of range", "1 to 8"),
        (
            "channels_min = 3\nchannels_max = 2",
            "2 is out of range",
            "3 to 8",
        ),
        ("duck_level = 3.0", "3 is out of range", "-60 to 0"),
        ("role = \"musik\"", "musik", "multimedia"),
        ("formats = [\"s17\"]", "s17", "s16"),
        (
            "sources = [{ name = \"x\" }]",
            "an output has no sources",
            "input",
        ),
        (
            "backend = { type = \"file\", path = \"/tmp/\" }",
            "no file",
            "{stream}",
        ),
        ("backend = { type = \"fiel\" }", "fiel", "file"),
        ("volum = 3", "volum", "volume"),
        (
            "volume = 0.5",
            "floating point",
            "a whole number from 0 to 100",
        ),
        (
            "priority = 4294967296",
            "priority: invalid",
            "a whole number from 1 to 1000",
        ),
        (
            "rates = []",
            "rates: this list has 0 entries",
            "without the key",
        ),
        (
            "formats = []",
            "formats: this list has 0 entries",
            "without the key",
        ),
        (
            "backend = { type = \"file\", pcm = \"null\" }",
            "unknown field `pcm` of the file back end",
            "one of path, input, repeat",
        ),
        (
            "backend = { type = \"alsa\", pcm = \"null\", pcms = [\"null\"] }",
            "unknown field `pcm` beside pcms",
            "pcms",
        ),
        (
            "backend = { path = \"x\" }",
            "missing field `type`",
            "type = one of file, null, alsa, gstreamer",
        ),
        (
            "backend = { type = \"file\", path = \"/a/{foo}.wav\" }",
            "{foo} is replaced by nothing",
            "{guest}, {device}, {stream} and {n}",
        ),
        (
            "backend = { type = \"file\", input = \"/a.wav\" }",
            "an output records nothing",
            "direction = \"input\"",
        ),
        (
            "backend = { type = \"file\", path = \"/a-{n}.wav\" }\n\
             [[devices.cabin.streams]]\nname = \"B\"\n\
             backend = { type = \"file\", path = \"/a-{n}.wav\" }",
            "streams.1.backend.path: the stream \"A\" writes the same files",
            "{stream}",
        ),
        (
            "backend = { type = \"file\", path = \"/b/./a-{n}.wav\" }\n\
             [[devices.cabin.streams]]\nname = \"B\"\n\
             backend = { type = \"file\", path = \"/b/a-{n}.wav\" }",
            "streams.1.backend.path: the stream \"A\" writes the same files",
            "{stream}",
        ),
        (
            "[[devices.cabin.streams]]\nname = \"M\"\ndirection = \"input\"\n\
             sources = [{ name = \"T\", tone = 440.0 }, { name = \"T\" }]",
            "streams.1.sources.1.name: another source of this input is named \"T\"",
            "a name of its own",
        ),
        (
            "[[devices.cabin.chmaps]]\npositions = []",
            "chmaps.0.positions: this list has 0 entries",
            "a list of 1 to 18",
        ),
        (
            "channels_max = 2\n[[devices.cabin.chmaps]]\npositions = [\"FL\", \"FR\", \"LFE\"]",
            "3 positions, but no stream there has more than 2 channels",
            "as many positions",
        ),
        (
            "[[devices.cabin.jacks]]\nname = \"H\"\nkind = \"headphone\"\n\
             [[devices.cabin.jacks]]\nname = \"H\"\nkind = \"headphone\"",
            "jacks.1.name: another jack of PCM device 0 is named \"H\"",
            "a name of its own",
        ),
        ("volume = 101", "101 is out of range", "0 to 100"),
        (
            "volume = 1\nvolume = 2",
            "duplicate key",
            "one of the two only",
        ),
        ("direction = \"playback\"", "playback", "output, input"),
        ("priority = 0", "0 is out of range", "1 to 1000"),
        (
            "backend = \"alsa\"",
            "a table such as",
            "{ type = \"alsa\" }",
        ),
        (
            "backend = { type = \"alsa\", pcm = \"\" }",
            "streams.0.backend.pcm",
            "aplay -L",
        ),
        (
            "backend = { type = \"gstreamer\", pipeline = \"nosuchsink\" }",
            "no element nosuchsink",
            "gst-launch-1.0",
        ),
        (
            "backend = { type = \"file\", pth = \"x\" }",
            "unknown field `pth`",
            "path (nearest to pth)",
        ),
        (
            "direction = \"input\"\nsources = [{ name = \"Tone\", tone = 0.0 }]",
            "0 is out of range",
            "1 to 24000",
        ),
        (
            "[[devices.cabin.jacks]]\nname = \"H\"\nkind = \"headphone\"\ndevice = 7",
            "no stream of that direction is on PCM device 7",
            "the device of a stream: 0",
        ),
        (
            "[[devices.cabin.jacks]]\nname = \"H\"\nkind = \"headphones\"",
            "headphones",
            "headphone (nearest to headphones)",
        ),
        (
            "[[devices.cabin.chmaps]]\ndirection = \"input\"\npositions = [\"FL\"]",
            "no stream of that direction is on PCM device 0",
            "the device of a stream: 0",
        ),
        (
            "[[devices.cabin.chmaps]]\npositions = [\"FL\", \"FL\"]",
            "FL is there twice",
            "another position",
        ),
        (
            "[[devices.cabin.streams]]\nname = \"A\"",
            "another stream",
            "a name of its own",
        ),
        (
            "[[devices.cabin.streams]]\nname = \"A/B\"",
            "cannot be a name",
            "letters",
        ),
    ];
    for (line, wrong, remedy) in table {
        let error = parse(&format!("{head}{stream}{line}\n")).unwrap_err();
        assert!(
            error.contains(wrong) && error.contains(remedy),
            "{line}:\n{error}"
        );
        assert!(error.contains("ivi.toml:"), "{line}:\n{error}");
    }
    let error = parse(&format!("{head}streams = []\n")).unwrap_err();
    assert!(error.contains("1 to 64 streams, not 0"), "{error}");
    let error = parse(&format!("{head}[devices.cabin.streams]\nname = \"A\"\n")).unwrap_err();
    assert!(
        error.contains("[[devices.…]] in double brackets"),
        "{error}"
    );
    let error = parse(&format!("{head}chmaps = [{{ positions = [\"XX\"] }}]\n")).unwrap_err();
    assert!(
        error.contains("no channel position") && error.contains("LFE"),
        "{error}"
    );
}

#[test]
fn several_mistakes_are_told_at_once_each_at_its_own_line() {
    let error = parse(
        "[devices.cabin]\ntype = \"snd\"\npolling = \"yes\"\nrealtime_priority = 200\n\
         [[devices.cabin.streams]]\nname = \"A\"\nrole = \"radio\"\npriority = -1\n\
         [devices.cabin.streams.backend]\ntype = \"file\"\npath = 3\nrepaet = true\n",
    )
    .unwrap_err();
    let mut last = 0;
    for (line, words) in [
        (3, "error: polling: invalid type"),
        (7, "error: streams.0.role: unknown variant `radio`"),
        (8, "error: streams.0.priority: invalid value"),
        (11, "error: streams.0.backend.path: invalid type"),
        (12, "error: unknown field `repaet`"),
    ] {
        let at = error
            .find(words)
            .unwrap_or_else(|| panic!("{words}:\n{error}"));
        assert!(at >= last, "{words} is out of order:\n{error}");
        assert!(
            error
                .get(at..)
                .unwrap()
                .split("error:")
                .nth(1)
                .unwrap()
                .contains(&format!("ivi.toml:{line}:")),
            "{words}:\n{error}"
        );
        last = at;
    }
}
