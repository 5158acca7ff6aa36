// SPDX-License-Identifier: Apache-2.0

//! What the card has, as the driver is told: streams, jacks, channel maps. It does not change while
//! the service runs.

use zerocopy::little_endian::{U32, U64};

use crate::backend::channels::Maps;
use crate::config::{JackConfig, JackKind, SndConfig, StreamConfig};
use crate::controls::{Control, controls};
use crate::wire::{ChmapInfo, Config, Direction, JackInfo, PcmInfo, feature, position};

/// Numbers of channels that get a usual map.
const MAPPED: [u8; 5] = [1, 2, 4, 6, 8];

/// A stream as offered, for the formats that its back end can do.
#[must_use]
pub fn pcm_info(stream: &StreamConfig, possible: u64, polling: bool) -> PcmInfo {
    let polling = if polling { feature::MSG_POLLING } else { 0 };
    PcmInfo {
        hda_fn_nid: U32::new(stream.device),
        features: U32::new(feature::EVT_XRUNS | polling),
        formats: U64::new(stream.format_bits(possible)),
        rates: U64::new(stream.rate_bits()),
        direction: stream.direction as u8,
        channels_min: stream.channels_min,
        channels_max: stream.channels_max,
        padding: [0; 5],
    }
}

/// A jack as the driver is told of it; `index` is its place among the jacks.
#[must_use]
pub fn jack_info(jack: &JackConfig, index: usize, connected: bool) -> JackInfo {
    // HDA 7.3.3.31: default device, connection type, and what is driven or sensed (7.3.4.9).
    const EIGHTH_INCH: u32 = 1;
    const OPTICAL: u32 = 5;
    const CAN_DETECT: u32 = 1 << 2;
    const HEADPHONE_DRIVE: u32 = 1 << 3;
    const OUTPUT: u32 = 1 << 4;
    const INPUT: u32 = 1 << 5;
    let (device, plug, caps) = match jack.kind {
        JackKind::Lineout => (0x0, EIGHTH_INCH, OUTPUT),
        JackKind::Speaker => (0x1, EIGHTH_INCH, OUTPUT),
        JackKind::Headphone => (0x2, EIGHTH_INCH, OUTPUT | HEADPHONE_DRIVE),
        JackKind::Spdif => (0x4, OPTICAL, OUTPUT),
        JackKind::Linein => (0x8, EIGHTH_INCH, INPUT),
        JackKind::Microphone => (0xa, EIGHTH_INCH, INPUT),
    };
    // Associations are 1 to 15, and lead to streams of the same PCM device; sequences tell jacks
    // of one apart.
    let association = jack.device.min(14).saturating_add(1);
    let sequence = u32::try_from(index).unwrap_or(0) & 0xf;
    JackInfo {
        hda_fn_nid: U32::new(jack.device),
        features: U32::new(0),
        hda_reg_defconf: U32::new(device << 20 | plug << 16 | association << 4 | sequence),
        hda_reg_caps: U32::new(caps | CAN_DETECT),
        connected: u8::from(connected),
        padding: [0; 7],
    }
}

/// The channel maps: those configured, or the usual ones.
#[must_use]
pub fn chmap_infos(config: &SndConfig) -> Vec<ChmapInfo> {
    if config.chmaps.is_empty() {
        return usual_maps(&config.streams);
    }
    let maps = config.chmaps.iter();
    maps.map(|map| {
        chmap(
            map.device,
            map.direction,
            map.positions.iter().map(String::as_str),
        )
    })
    .collect()
}

fn usual_maps(streams: &[StreamConfig]) -> Vec<ChmapInfo> {
    let mut seen: Vec<(u32, Direction, u8)> = Vec::new();
    let mut maps = Vec::new();
    for stream in streams {
        for channels in MAPPED {
            let key = (stream.device, stream.direction, channels);
            let offered = (stream.channels_min..=stream.channels_max).contains(&channels);
            if offered && !seen.contains(&key) {
                seen.push(key);
                let positions = position::standard(channels).iter().copied();
                maps.push(chmap(stream.device, stream.direction, positions));
            }
        }
    }
    maps
}

fn chmap<'a>(
    device: u32,
    direction: Direction,
    positions: impl Iterator<Item = &'a str>,
) -> ChmapInfo {
    let mut info = ChmapInfo {
        hda_fn_nid: U32::new(device),
        direction: direction as u8,
        ..ChmapInfo::default()
    };
    for (to, name) in info.positions.iter_mut().zip(positions) {
        *to = position::from_name(name).unwrap_or(0);
        info.channels = info.channels.saturating_add(1);
    }
    info
}

/// All that a driver is told of a card when it comes: a card that tells the same is the same card.
#[derive(Debug, Eq, PartialEq)]
pub struct Told {
    streams: Vec<PcmInfo>,
    jacks: Vec<JackInfo>,
    chmaps: Vec<ChmapInfo>,
    controls: Vec<Control>,
}

/// What a card of this configuration tells its driver.
#[must_use]
pub fn told(config: &SndConfig) -> Told {
    let stream = |stream: &StreamConfig| {
        // A back end that cannot be made is the next one's to complain of.
        let made = crate::device::backend(stream, &Maps::default());
        let possible = made.ok().flatten().map_or(u64::MAX, |made| made.formats());
        pcm_info(stream, possible, config.polling)
    };
    let jacks = config.jacks.iter().enumerate();
    Told {
        streams: config.streams.iter().map(stream).collect(),
        jacks: jacks
            .map(|(index, jack)| jack_info(jack, index, false))
            .collect(),
        chmaps: chmap_infos(config),
        controls: controls(config),
    }
}

/// The configuration space.
#[must_use]
pub fn config_space(jacks: usize, streams: usize, chmaps: usize, controls: usize) -> Config {
    let count = |n: usize| U32::new(u32::try_from(n).unwrap_or(u32::MAX));
    Config {
        jacks: count(jacks),
        streams: count(streams),
        chmaps: count(chmaps),
        controls: count(controls),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_the_same_while_its_driver_is_told_the_same() {
        let card = SndConfig::default();
        let mut other = card.clone();
        other.streams[0].volume = 50;
        other.streams[0].role = crate::backend::Role::Navigation;
        other.jacks[0].connected = !other.jacks[0].connected;
        assert_eq!(told(&card), told(&other), "knobs are not the card");

        let changes: [fn(&mut SndConfig); 6] = [
            |card| card.streams[0].channels_max = 1,
            |card| card.streams[0].name.push('x'),
            |card| card.streams[1].rates = vec![44_100],
            |card| card.polling = true,
            |card| card.jacks.truncate(1),
            |card| card.streams[2].device = 7,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = card.clone();
            change(&mut other);
            assert_ne!(told(&card), told(&other), "change {number}");
        }
    }

    #[test]
    fn jacks_are_what_linux_names_them_by() {
        let config = SndConfig::default();
        let headphone = jack_info(&config.jacks[0], 0, false);
        assert_eq!(headphone.hda_reg_defconf.get() >> 20 & 0xf, 2);
        assert_eq!(headphone.connected, 0);
        let microphone = jack_info(&config.jacks[1], 1, true);
        assert_eq!(microphone.hda_reg_defconf.get() >> 20 & 0xf, 0xa);
        assert_eq!((microphone.connected, microphone.padding), (1, [0; 7]));
    }

    #[test]
    fn each_device_and_direction_has_its_maps_once() {
        let config = SndConfig::default();
        let maps = chmap_infos(&config);
        // Device 0 out, device 1 out, device 0 in, of 1, 2, 4, 6 and 8 channels.
        assert_eq!(maps.len(), 15);
        let six = maps.iter().find(|map| map.channels == 6).unwrap();
        assert_eq!(six.positions[..7], [3, 4, 5, 6, 7, 8, 0]);
        let twice = SndConfig {
            streams: vec![config.streams[0].clone(); 2],
            ..config
        };
        assert_eq!(chmap_infos(&twice).len(), 5);
    }
}
