// SPDX-License-Identifier: Apache-2.0

//! Sound cards, with ALSA's own programs.

use std::path::PathBuf;
use std::time::Duration;

use super::{Outcome, devices};
use crate::options::Options;
use crate::system::{System, file_name, run};
use crate::tone;

/// What is played.
const PITCH: u32 = 440;
/// A device that keeps no time has played a second in no time. What is in its buffer at the end makes it a little faster.
const LEAST: Duration = Duration::from_millis(600);
/// A busy machine drops some of what is recorded.
const TOLERANCE: f64 = 0.05;

/// A card of the guest that is a virtio device.
struct Card {
    /// As ALSA numbers it.
    number: String,
    id: String,
    /// Its PCM devices, as sysfs names them: `pcmC0D0p`.
    pcms: Vec<String>,
}

impl Card {
    /// The first PCM device in a direction, as ALSA's programs want it, with conversion of formats.
    fn first(&self, direction: char) -> Option<String> {
        let pcm = self.pcms.iter().find(|pcm| pcm.ends_with(direction))?;
        let device = pcm.rsplit('D').next()?.trim_end_matches(direction);
        Some(format!("plughw:{},{device}", self.number))
    }
}

fn card(system: &System) -> Result<Card, Outcome> {
    devices::of_type(system, "snd")?;
    let folders = system.entries(&system.path("sys/class/sound"));
    let is_card = |folder: &&PathBuf| {
        let name = file_name(folder);
        name.starts_with("card") && system.virtio_parent(folder).is_some()
    };
    let Some(folder) = folders.iter().find(is_card) else {
        return Err(Outcome::failed(
            "the driver has made no card: see the kernel's log",
        ));
    };
    let number = file_name(folder).trim_start_matches("card").to_owned();
    let names = folders.iter().map(file_name);
    Ok(Card {
        id: system.read(&folder.join("id")).unwrap_or_default(),
        pcms: names
            .filter(|name| name.starts_with(&format!("pcmC{number}D")))
            .collect(),
        number,
    })
}

/// Whether the card has streams.
pub(super) fn listed(system: &System, _: &Options) -> Outcome {
    match card(system) {
        Err(outcome) => outcome,
        Ok(card) if card.pcms.is_empty() => {
            Outcome::failed(format!("card {} has no PCM device", card.number))
        }
        Ok(card) => Outcome::passed(format!(
            "card {} ({}): {}",
            card.number,
            card.id,
            card.pcms.join(", ")
        )),
    }
}

/// Whether playback keeps time.
pub(super) fn plays(system: &System, _: &Options) -> Outcome {
    let card = match card(system) {
        Ok(card) => card,
        Err(outcome) => return outcome,
    };
    let Some(device) = card.first('p') else {
        return Outcome::skipped("the card has no playback");
    };
    let rate = tone::RATE.to_string();
    let words = [
        "-q", "-D", &device, "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", &rate,
    ];
    match run("aplay", &words, &tone::second(PITCH)) {
        Err(error) => error.into(),
        Ok((_, took)) if took < LEAST => {
            Outcome::failed(format!("it took {took:.2?}: the device keeps no time"))
        }
        Ok((_, took)) => Outcome::passed(format!("{device} took {took:.2?}")),
    }
}

/// Whether what is recorded is what it should be.
pub(super) fn records(system: &System, options: &Options) -> Outcome {
    let card = match card(system) {
        Ok(card) => card,
        Err(outcome) => return outcome,
    };
    let Some(device) = card.first('c') else {
        return Outcome::skipped("the card has no capture");
    };
    let rate = tone::RATE.to_string();
    let words = [
        "-q", "-D", &device, "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", &rate, "-d", "1",
    ];
    let (bytes, _) = match run("arecord", &words, &[]) {
        Ok(recorded) => recorded,
        Err(error) => return error.into(),
    };
    let measured = tone::measure(&bytes);
    let seen = format!(
        "{device}: {} frames, level {:.3} of full scale, {:.0} Hz",
        measured.frames, measured.level, measured.hertz
    );
    let enough = usize::try_from(tone::RATE).is_ok_and(|second| measured.frames >= second);
    let right = options.tone.is_none_or(|hertz| {
        let hertz = f64::from(hertz);
        (measured.hertz - hertz).abs() <= hertz * TOLERANCE
    });
    if enough && right {
        Outcome::passed(seen)
    } else {
        Outcome::failed(seen)
    }
}
