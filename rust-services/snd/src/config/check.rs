// SPDX-License-Identifier: Apache-2.0

//! What can be wrong with a sound device's configuration, and what to write instead.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use agl_virtio_service::config::{Problems, Validate};

use super::{
    BackendConfig, ChmapConfig, FileConfig, MOST_CHMAPS, MOST_JACKS, MOST_STREAMS, SEALED,
    SndConfig, StreamConfig,
};
use crate::backend::channels::Maps;
use crate::backend::file::pattern_fault;
use crate::format::{Format, Rate};
use crate::policy::VOLUME_MAX;
use crate::wire::{CHMAP_MAX_POSITIONS, Direction, position};

impl Validate for SndConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.require(
            (1..=MOST_STREAMS).contains(&self.streams.len()),
            "streams",
            format!(
                "a card has 1 to {MOST_STREAMS} streams, not {}",
                self.streams.len()
            ),
            "[[devices.NAME.streams]] for each; or leave the key out: then there are three",
        );
        problems.length("jacks", self.jacks.len(), 0..=MOST_JACKS);
        problems.length("chmaps", self.chmaps.len(), 0..=MOST_CHMAPS);
        problems.range("realtime_priority", &self.realtime_priority, 0..=99);
        self.check_options(problems);
        self.check_patterns(problems);
        let mut names = HashSet::new();
        for (index, stream) in self.streams.iter().enumerate() {
            let key = format!("streams.{index}");
            problems.part(&key, stream);
            problems.require(
                names.insert((stream.direction, &stream.name)),
                format!("{key}.name"),
                format!(
                    "another stream of this direction is named {:?}",
                    stream.name
                ),
                "a name of its own, for it names the guest's mixer element",
            );
        }
        let mut jacks = HashSet::new();
        for (index, jack) in self.jacks.iter().enumerate() {
            check_name(problems, &format!("jacks.{index}.name"), &jack.name);
            problems.require(
                jacks.insert((jack.device, &jack.name)),
                format!("jacks.{index}.name"),
                format!(
                    "another jack of PCM device {} is named {:?}",
                    jack.device, jack.name
                ),
                "a name of its own",
            );
            let there = self
                .streams
                .iter()
                .any(|stream| stream.device == jack.device);
            self.check_device(
                problems,
                &format!("jacks.{index}.device"),
                jack.device,
                there,
            );
        }
        for (index, chmap) in self.chmaps.iter().enumerate() {
            problems.part(&format!("chmaps.{index}"), chmap);
            let of_it = self.streams.iter().filter(|stream| {
                (stream.device, stream.direction) == (chmap.device, chmap.direction)
            });
            let widest = of_it.map(|stream| stream.channels_max).max();
            let there = widest.is_some();
            let positions = chmap.positions.len();
            problems.require(
                widest.is_none_or(|most| positions <= usize::from(most))
                    || positions > CHMAP_MAX_POSITIONS,
                format!("chmaps.{index}.positions"),
                format!(
                    "{positions} positions, but no stream there has more than {} channels",
                    widest.unwrap_or_default()
                ),
                "as many positions as a stream of that direction and device has channels",
            );
            self.check_device(
                problems,
                &format!("chmaps.{index}.device"),
                chmap.device,
                there,
            );
        }
    }
}

impl SndConfig {
    /// An option that no stream takes is a mistake, not a wish.
    fn check_options(&self, problems: &mut Problems) {
        let takes = |wanted| {
            self.streams.iter().any(|stream| {
                let free = stream.direction == Direction::Output || stream.sources.is_empty();
                matches!(stream.backend, BackendConfig::File(_))
                    && stream.direction == wanted
                    && free
            })
        };
        problems.require(
            !self.said.output || takes(Direction::Output),
            "--output",
            "no output of this card plays into files",
            "backend = { type = \"file\" } for an output, or leave the option away",
        );
        problems.require(
            !self.said.input || takes(Direction::Input),
            "--input",
            "no input of this card records a file by this option",
            "backend = { type = \"file\" } and no sources for an input, or leave the option away",
        );
    }

    /// Two streams never write the same files.
    fn check_patterns(&self, problems: &mut Problems) {
        let mut patterns = HashMap::new();
        for (index, stream) in self.streams.iter().enumerate() {
            let (BackendConfig::File(file), false) = (&stream.backend, stream.is_input()) else {
                continue;
            };
            let pattern = file.path.replace("{stream}", &stream.name);
            // without what names the same folder once more
            let pattern: PathBuf = Path::new(&pattern).components().collect();
            if let Some(other) = patterns.insert(pattern, &stream.name) {
                problems.add(
                    format!("streams.{index}.backend.path"),
                    format!("the stream {other:?} writes the same files"),
                    "another path, or one with {stream} in it",
                );
            }
        }
    }

    /// What belongs to a PCM device needs a stream there.
    fn check_device(&self, problems: &mut Problems, key: &str, device: u32, there: bool) {
        let mut devices: Vec<u32> = self.streams.iter().map(|stream| stream.device).collect();
        devices.sort_unstable();
        devices.dedup();
        let devices: Vec<String> = devices.iter().map(u32::to_string).collect();
        problems.require(
            there,
            key,
            format!("no stream of that direction is on PCM device {device}"),
            format!("the device of a stream: {}", devices.join(", ")),
        );
    }
}

impl Validate for StreamConfig {
    fn validate(&self, problems: &mut Problems) {
        check_name(problems, "name", &self.name);
        problems.range("channels_min", &self.channels_min, 1..=8);
        problems.range(
            "channels_max",
            &self.channels_max,
            self.channels_min.max(1)..=8,
        );
        problems.range("volume", &self.volume, 0..=VOLUME_MAX);
        problems.range("duck_level", &self.duck_level, -60.0..=0.0);
        if let Some(priority) = &self.priority {
            problems.range("priority", priority, 1..=1000);
        }
        for (key, empty) in [
            ("rates", self.rates.is_empty()),
            ("formats", self.formats.is_empty()),
        ] {
            let remedy =
                "a list of at least 1, or nothing: without the key there are the usual ones";
            problems.require(!empty, key, "this list has 0 entries", remedy);
        }
        for (index, hertz) in self.rates.iter().enumerate() {
            problems.require(
                Rate::from_hertz(*hertz).is_some(),
                format!("rates.{index}"),
                format!("{hertz} Hz is no rate of the specification"),
                Rate::all()
                    .map(|rate| rate.hertz().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            );
        }
        // Two of its samples share a byte, and a frame has whole bytes.
        let odd = self.channels_min == self.channels_max && self.channels_min % 2 == 1;
        let adpcm = self
            .formats
            .iter()
            .position(|format| *format == Format::ImaAdpcm);
        if let Some(index) = adpcm.filter(|_| odd) {
            problems.add(
                format!("formats.{index}"),
                format!("ima_adpcm cannot have {} channels", self.channels_max),
                "another format, or an even number of channels",
            );
        }
        let known = self.rates.is_empty()
            || self.rate_set().any(Rate::known_before_1_4)
            || self.rate_set().next().is_none();
        problems.require(
            known,
            "rates",
            "Linux 7.3 knows neither 12000 nor 24000 Hz and would refuse the whole card",
            "one more rate beside them, such as 48000",
        );
        problems.require(
            self.direction == Direction::Input || self.sources.is_empty(),
            "sources",
            "an output has no sources",
            "direction = \"input\", or no sources",
        );
        for (index, source) in self.sources.iter().enumerate() {
            let key = format!("sources.{index}.name");
            check_name(problems, &key, &source.name);
            let before = self.sources.get(..index).unwrap_or_default();
            problems.require(
                before.iter().all(|other| other.name != source.name),
                key,
                format!("another source of this input is named {:?}", source.name),
                "a name of its own, by which it is chosen",
            );
            problems.require(
                source.tone.is_none() || source.input.is_none(),
                format!("sources.{index}.tone"),
                "a source is a file or a tone",
                "either input or tone",
            );
            let (name, remedy) = self.sources_elsewhere();
            for (field, there) in [
                ("input", source.input.is_some()),
                ("tone", source.tone.is_some()),
            ] {
                problems.require(
                    !there || matches!(self.backend, BackendConfig::File(_)),
                    format!("sources.{index}.{field}"),
                    format!("the {name} back end takes no {field}"),
                    remedy,
                );
            }
            if let Some(hertz) = &source.tone {
                problems.range(format!("sources.{index}.tone"), hertz, 1.0..=24_000.0);
            }
        }
        self.check_backend(problems);
    }
}

impl StreamConfig {
    fn check_backend(&self, problems: &mut Problems) {
        // A wrong PCM name or pipeline is known before anything is started.
        let sealed = SEALED.load(Ordering::Relaxed);
        let made = (!sealed).then(|| crate::device::backend(self, &Maps::default()));
        let mut refused = |key: &str, remedy: &str| {
            if let Some(Err(error)) = &made {
                problems.add(key, error.to_string(), remedy);
            }
        };
        match &self.backend {
            BackendConfig::Alsa(alsa) => {
                let key = if alsa.pcms.is_empty() {
                    "backend.pcm"
                } else {
                    "backend.pcms"
                };
                refused(key, "a name that aplay -L lists");
                alsa.validate(self.sources.len(), problems);
            }
            BackendConfig::Gstreamer(pipes) => {
                let one = pipes.pipelines.is_empty();
                let key = if one {
                    "backend.pipeline"
                } else {
                    "backend.pipelines"
                };
                refused(key, "a pipeline that gst-launch-1.0 takes");
                pipes.validate(self.sources.len(), problems);
            }
            BackendConfig::File(file) => {
                if let Some(fault) = pattern_fault(&file.path) {
                    problems.add(
                        "backend.path",
                        fault,
                        "a pattern such as \"/var/lib/sound/{guest}-{stream}-{n}.wav\"; \
                         {guest}, {device}, {stream} and {n} are replaced",
                    );
                }
                self.check_file(file, problems);
            }
            BackendConfig::Null(_) => {}
        }
    }

    /// A key that does nothing is a mistake, not a wish.
    fn check_file(&self, file: &FileConfig, problems: &mut Problems) {
        problems.require(
            self.is_input() || file.input.is_none(),
            "backend.input",
            "an output records nothing",
            "direction = \"input\", or no input",
        );
        problems.require(
            self.is_input() || file.repeat.is_none(),
            "backend.repeat",
            "an output repeats nothing",
            "direction = \"input\", or no repeat",
        );
        problems.require(
            !self.is_input() || file.path == FileConfig::default().path,
            "backend.path",
            "an input writes no files",
            "input = \"…\" for the file that is recorded, or direction = \"output\"",
        );
        problems.require(
            self.sources.is_empty() || file.input.is_none(),
            "backend.input",
            "each of the sources names its own file",
            "the file as input of one of the sources, or no sources",
        );
    }

    /// Where sources come from that are not of the `file` back end: its name, and what to write.
    fn sources_elsewhere(&self) -> (&'static str, &'static str) {
        match &self.backend {
            BackendConfig::File(_) => ("file", ""),
            BackendConfig::Null(_) => (
                "null",
                "a name only, for all is silence; or backend = { type = \"file\" }",
            ),
            BackendConfig::Alsa(_) => (
                "alsa",
                "a name only, and pcms = [ … ] in the back end with the PCM of each source",
            ),
            BackendConfig::Gstreamer(_) => (
                "gstreamer",
                "a name only, and pipelines = [ … ] in the back end with that of each source",
            ),
        }
    }

    fn is_input(&self) -> bool {
        self.direction == Direction::Input
    }
}

impl Validate for ChmapConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.length("positions", self.positions.len(), 1..=CHMAP_MAX_POSITIONS);
        for (index, name) in self.positions.iter().enumerate() {
            problems.require(
                position::from_name(name).is_some(),
                format!("positions.{index}"),
                format!("{name:?} is no channel position"),
                position::names().join(", "),
            );
            let before = self.positions.get(..index).unwrap_or_default();
            problems.require(
                !before.contains(name) || matches!(name.as_str(), "NONE" | "NA"),
                format!("positions.{index}"),
                format!("{name} is there twice"),
                "another position, or NA",
            );
        }
    }
}

fn check_name(problems: &mut Problems, key: &str, name: &str) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
    problems.require(
        (1..=24).contains(&name.len()) && name.chars().all(allowed) && name.trim() == name,
        key,
        format!("{name:?} cannot be a name here"),
        "1 to 24 letters, digits, spaces, - or _",
    );
}
