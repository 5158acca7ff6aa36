// SPDX-License-Identifier: Apache-2.0

//! Opening a PCM with a stream's parameters.

use std::fmt::Write as _;

use alsa::pcm::{Access, Chmap, ChmapPosition, Format as AlsaFormat, Frames, HwParams, PCM};
use alsa::{Direction, Error, Output as Text, ValueOr};

use super::super::BackendError;
use super::super::channels::Reorder;
use super::name;
use crate::format::{Format, Params};

/// Shortest period asked of a PCM: a sound server wakes up once for each.
const SHORTEST_PERIOD: u64 = 64;

/// What a PCM's buffer can hold beyond twice the stock, in milliseconds.
const LONGEST_WAY_MS: u32 = 160;

/// An open PCM: parameters set, prepared, not started.
pub(super) struct Opened {
    pub(super) pcm: PCM,
    /// Frames that the PCM holds.
    pub(super) buffer: u64,
    /// Frames after which it looks for more.
    pub(super) period: u64,
    /// Between the stream's order of channels and the PCM's, where they differ: to the PCM for
    /// playback, from it for capture.
    pub(super) reorder: Option<Reorder>,
}

/// Opens `name`, converting only if it must. `stock` is how many frames will usually lie in the
/// PCM's buffer, `positions` the stream's channel map.
pub(super) fn open(
    name: &str,
    direction: Direction,
    params: &Params,
    stock: u64,
    positions: &[u8],
) -> Result<Opened, BackendError> {
    // What alsa-lib has to say about a name goes to a text instead of the terminal.
    let text = Text::local_error_handler().ok();
    let result = attempt(name, direction, params, stock, positions).or_else(|error| {
        // Only where the PCM was there, and one of its parameters was the trouble.
        match (&error, name::converted(name)) {
            (Refused::Parameter { .. }, Some(plug)) => {
                attempt(&plug, direction, params, stock, positions)
            }
            _ => Err(error),
        }
    });
    result.map_err(|refused| {
        let mut reason = refused.to_string();
        let said = text
            .map(|text| text.borrow().to_string())
            .unwrap_or_default();
        // The first line is the cause, the others are who called whom.
        if let Some(line) = said.lines().next() {
            reason = format!("{reason} ({line})");
        }
        BackendError::Device {
            device: device(name),
            reason,
        }
    })
}

/// How a PCM is named in messages.
pub(super) fn device(name: &str) -> String {
    format!("ALSA PCM \"{name}\"")
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("cannot be opened: {}", said(*.0))]
    Open(Error),
    #[error("does not take {what}: {}", said(*.error))]
    Parameter { what: String, error: Error },
}

/// What an error number means, without the name of the C function.
pub(super) fn said(error: Error) -> String {
    std::io::Error::from_raw_os_error(error.errno()).to_string()
}

fn attempt(
    name: &str,
    direction: Direction,
    params: &Params,
    stock: u64,
    positions: &[u8],
) -> Result<Opened, Refused> {
    let pcm = PCM::new(name, direction, true).map_err(Refused::Open)?;
    let (buffer, period) = set_hardware(&pcm, params, stock)?;
    let software = |error| Refused::Parameter {
        what: "its wake-up level".into(),
        error,
    };
    {
        let sw = pcm.sw_params_current().map_err(software)?;
        sw.set_avail_min(frames(period)).map_err(software)?;
        // It starts when told to, with the whole stock in it: never by itself.
        let never = sw.get_boundary().map_err(software)?;
        sw.set_start_threshold(never).map_err(software)?;
        pcm.sw_params(&sw).map_err(software)?;
    }
    let reorder = order(&pcm, direction, positions);
    Ok(Opened {
        pcm,
        buffer,
        period,
        reorder,
    })
}

/// Sets format, rate, channels and sizes; returns the frames of the buffer and of a period.
fn set_hardware(pcm: &PCM, params: &Params, stock: u64) -> Result<(u64, u64), Refused> {
    let hertz = params.rate.hertz();
    let channels = u32::from(params.channels);
    let refused = |what: String| move |error| Refused::Parameter { what, error };

    let hw = HwParams::any(pcm).map_err(refused("any parameters".into()))?;
    hw.set_access(Access::RWInterleaved)
        .map_err(refused("interleaved frames".into()))?;
    hw.set_format(format(params.format))
        .map_err(refused(format!("format {:?}", params.format)))?;
    hw.set_channels(channels)
        .map_err(refused(format!("{channels} channels")))?;
    hw.set_rate(hertz, ValueOr::Nearest)
        .map_err(refused(format!("{hertz} Hz")))?;
    // PipeWire's plugin hands over no more than a few periods at a time, however large the bites are
    // that the server wants: shorter ones would starve it.
    let period = (stock / 2).max(SHORTEST_PERIOD);
    let period = hw
        .set_period_size_near(frames(period), ValueOr::Nearest)
        .map_err(refused(format!("periods of {period} frames")))?;
    // Room for the stock with the largest reserve, and for pieces that come late and two at once.
    let buffer = stock
        .saturating_mul(2)
        .saturating_add(params.frames_in(LONGEST_WAY_MS));
    let buffer = hw
        .set_buffer_size_near(frames(buffer))
        .map_err(refused(format!("a buffer of {buffer} frames")))?;
    pcm.hw_params(&hw)
        .map_err(refused("these parameters together".into()))?;
    Ok((count(buffer), count(period)))
}

/// Settles in which order the channels go, and what must be reordered for that.
fn order(pcm: &PCM, direction: Direction, wanted: &[u8]) -> Option<Reorder> {
    if wanted.len() < 2 {
        return None;
    }
    let there = pcm
        .get_chmap()
        .map_or_else(|_| Vec::new(), |map| numbers(&map));
    let reorder = match direction {
        Direction::Playback => Reorder::between(wanted, &there),
        Direction::Capture => Reorder::between(&there, wanted),
    };
    if let Some(reorder) = reorder {
        return (!reorder.is_identity()).then_some(reorder);
    }
    // Other positions than these: perhaps the PCM can have them.
    let map: Vec<ChmapPosition> = wanted
        .iter()
        .filter_map(|&number| {
            ChmapPosition::all()
                .iter()
                .copied()
                .find(|position| *position as i32 == i32::from(number))
        })
        .collect();
    if map.len() != wanted.len() || pcm.set_chmap(&Chmap::from(map.as_slice())).is_err() {
        agl_virtio_service::limited!(
            log::Level::Info,
            "the channels have no such positions here, they are taken in their order"
        );
    }
    None
}

/// The positions of a map, by their number, which is VIRTIO's too; empty when one has no name. (The
/// conversion that the crate offers ends the thread when a driver has positions of its own.)
fn numbers(map: &Chmap) -> Vec<u8> {
    let mut names = String::new();
    if write!(names, "{map}").is_err() {
        return Vec::new();
    }
    let number = |name: &str| {
        ChmapPosition::all()
            .iter()
            .find(|position| format!("{position:?}") == name)
            .and_then(|position| u8::try_from(*position as i32).ok())
    };
    names
        .split_whitespace()
        .map(number)
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_default()
}

/// A number of frames as alsa-lib has it.
pub(super) fn frames(count: u64) -> Frames {
    Frames::try_from(count).unwrap_or(Frames::MAX)
}

/// A number of frames from alsa-lib, where less than none is none.
pub(super) fn count(frames: Frames) -> u64 {
    u64::try_from(frames).unwrap_or(0)
}

/// The format by alsa-lib's name. Both lay samples out in the same way.
const fn format(format: Format) -> AlsaFormat {
    match format {
        Format::ImaAdpcm => AlsaFormat::ImaAdPCM,
        Format::MuLaw => AlsaFormat::MuLaw,
        Format::ALaw => AlsaFormat::ALaw,
        Format::S8 => AlsaFormat::S8,
        Format::U8 => AlsaFormat::U8,
        Format::S16 => AlsaFormat::S16LE,
        Format::U16 => AlsaFormat::U16LE,
        Format::S18Packed => AlsaFormat::S183LE,
        Format::U18Packed => AlsaFormat::U183LE,
        Format::S20Packed => AlsaFormat::S203LE,
        Format::U20Packed => AlsaFormat::U203LE,
        Format::S24Packed => AlsaFormat::S243LE,
        Format::U24Packed => AlsaFormat::U243LE,
        Format::S20 => AlsaFormat::S20LE,
        Format::U20 => AlsaFormat::U20LE,
        Format::S24 => AlsaFormat::S24LE,
        Format::U24 => AlsaFormat::U24LE,
        Format::S32 => AlsaFormat::S32LE,
        Format::U32 => AlsaFormat::U32LE,
        Format::Float => AlsaFormat::FloatLE,
        Format::Float64 => AlsaFormat::Float64LE,
        Format::DsdU8 => AlsaFormat::DSDU8,
        Format::DsdU16 => AlsaFormat::DSDU16LE,
        Format::DsdU32 => AlsaFormat::DSDU32LE,
        Format::Iec958Subframe => AlsaFormat::IEC958SubframeLE,
    }
}
