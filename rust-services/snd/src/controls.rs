// SPDX-License-Identifier: Apache-2.0

//! Control elements: the guest's knobs (VIRTIO 1.4, 5.14.6.9), each bound to one on the panel.

use crate::config::SndConfig;
use crate::panel::{Change, Panel};
use crate::policy::{VOLUME_MAX, VOLUME_MIN_CB, VOLUME_STEP_CB};
use crate::wire::{CtlInfo, CtlRange, CtlRole, Direction, access, tlv};

/// A knob of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Knob {
    Volume,
    /// As ALSA has it: a switch that is on lets sound through.
    Switch,
    Source,
}

/// A control element.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Control {
    stream: usize,
    knob: Knob,
    info: CtlInfo,
    items: Vec<String>,
}

/// The elements of a device: for each stream its volume and its switch, and for inputs with a choice
/// the source. A volume is an integer with a scale in decibels and silence at 0.
#[must_use]
pub fn controls(config: &SndConfig) -> Vec<Control> {
    let mut all = Vec::new();
    for (index, stream) in config
        .streams
        .iter()
        .enumerate()
        .filter(|(_, s)| s.controls)
    {
        let direction = match stream.direction {
            Direction::Output => "Playback",
            Direction::Input => "Capture",
        };
        let mut add = |knob, what: &str, role, range, more, items| {
            all.push(Control {
                stream: index,
                knob,
                info: CtlInfo {
                    hda_fn_nid: stream.device,
                    role,
                    direction: stream.direction,
                    range,
                    access: access::READ | access::WRITE | more,
                    index: 0,
                    name: format!("{} {direction} {what}", stream.name),
                },
                items,
            });
        };
        let volume = CtlRange::Integer {
            min: 0,
            max: VOLUME_MAX,
        };
        add(
            Knob::Volume,
            "Volume",
            CtlRole::Volume,
            volume,
            access::TLV_READ,
            Vec::new(),
        );
        add(
            Knob::Switch,
            "Switch",
            CtlRole::Mute,
            CtlRange::Boolean,
            0,
            Vec::new(),
        );
        let items: Vec<String> = stream.source_list().into_iter().map(|s| s.name).collect();
        if items.len() > 1 {
            let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
            let range = CtlRange::Enumerated { items: count };
            add(Knob::Source, "Source", CtlRole::Undefined, range, 0, items);
        }
    }
    all
}

impl Control {
    /// What the driver is told.
    #[must_use]
    pub fn info(&self) -> &CtlInfo {
        &self.info
    }

    /// Names of the items of an enumeration.
    #[must_use]
    pub fn items(&self) -> &[String] {
        &self.items
    }

    /// The stream it acts on.
    #[must_use]
    pub fn stream(&self) -> usize {
        self.stream
    }

    /// Whether it selects a source.
    #[must_use]
    pub fn is_source(&self) -> bool {
        self.knob == Knob::Source
    }

    /// Metadata, where there is some.
    #[must_use]
    pub fn metadata(&self) -> Option<Vec<u8>> {
        (self.knob == Knob::Volume).then(|| tlv::decibel_scale(VOLUME_MIN_CB, VOLUME_STEP_CB))
    }

    /// The value now.
    #[must_use]
    pub fn read(&self, panel: &Panel) -> u32 {
        let Some(stream) = panel.stream(self.stream) else {
            return 0;
        };
        match self.knob {
            Knob::Volume => stream.volume(),
            Knob::Switch => u32::from(!stream.mute()),
            Knob::Source => stream.source(),
        }
    }

    /// Turns the knob, with a value in range, and tells the host's side.
    pub fn write(&self, panel: &Panel, value: u32) {
        let Some(stream) = panel.stream(self.stream) else {
            return;
        };
        match self.knob {
            Knob::Volume => {
                stream.set_volume(value);
                panel.tell(Change::Volume(self.stream));
            }
            Knob::Switch => {
                stream.set_mute(value == 0);
                panel.tell(Change::Mute(self.stream));
            }
            Knob::Source => {
                stream.set_source(value);
                panel.tell(Change::Source(self.stream));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_stream_has_its_elements_under_names_of_their_own() {
        let all = controls(&SndConfig::default());
        let names: Vec<&str> = all
            .iter()
            .map(|control| control.info.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "Multimedia Playback Volume",
                "Multimedia Playback Switch",
                "Emergency Playback Volume",
                "Emergency Playback Switch",
                "Microphone Capture Volume",
                "Microphone Capture Switch",
                "Microphone Capture Source",
            ]
        );
        let unique: HashSet<&&str> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        assert!(names.iter().all(|name| name.len() < 44));
        assert_eq!(all[6].items, ["Microphone", "Tone"]);
    }

    #[test]
    fn a_switch_that_is_off_mutes() {
        let config = SndConfig::default();
        let all = controls(&config);
        let panel = crate::device::panel(&config);
        assert_eq!(all[1].read(&panel), 1);
        all[1].write(&panel, 0);
        assert!(panel.stream(0).unwrap().mute());
        all[0].write(&panel, 42);
        assert_eq!(all[0].read(&panel), 42);
        assert_eq!(panel.stream(0).unwrap().volume(), 42);
    }
}
