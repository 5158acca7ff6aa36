// SPDX-License-Identifier: Apache-2.0

//! Controls: what an encoder can be asked for.

use agl_virtio_codec::{
    BitrateMode, Codec, EncoderSettings, H264Profile, HevcProfile, Profile, Vp8Profile,
};

use super::{Function, Shared};
use crate::wire::{Control, Refusal};

/// Bits per second that can be asked for.
const MOST_BITRATE: u32 = 1_000_000_000;
/// Pictures from a key picture to the next, at most.
const MOST_INTERVAL: u32 = 32_767;
/// Levels of H.264, times ten, in the order of their numbers.
const H264_LEVELS: [u8; 15] = [10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51];
/// The number of the first level.
const FIRST_LEVEL: u32 = 0x100;
/// Where no level was asked for.
const ANY_LEVEL: u32 = FIRST_LEVEL + 10;

/// What decoders decode beside: main still picture of HEVC, profiles 2 and 3 of VP8.
fn profiles_to_decode(codec: Codec) -> &'static [u32] {
    match codec {
        Codec::Hevc => &[0x202],
        Codec::Vp8 => &[0x302, 0x303],
        _ => &[],
    }
}

/// What encoders can be asked for, and decoders decode too. Where nothing was asked for, an encoder
/// takes the last one.
fn profiles(codec: Codec) -> &'static [(u32, Option<Profile>)] {
    match codec {
        Codec::H264 => &[
            (0x100, Some(Profile::H264(H264Profile::Baseline))),
            (0x101, Some(Profile::H264(H264Profile::Main))),
            (0x103, Some(Profile::H264(H264Profile::High))),
        ],
        Codec::Hevc => &[(0x200, Some(Profile::Hevc(HevcProfile::Main)))],
        Codec::Vp8 => &[(0x301, Some(Profile::Vp8(Vp8Profile::One))), (0x300, None)],
        Codec::Vp9 => &[(0x400, None)],
        _ => &[],
    }
}

fn levels() -> impl Iterator<Item = (u32, u8)> {
    (FIRST_LEVEL..).zip(H264_LEVELS)
}

/// The values that a control may have.
pub(super) fn query(shared: &Shared, control: u32, format: u32) -> Result<Vec<u32>, Refusal> {
    let encodes = shared.function == Function::Encoder;
    match Control::from_code(control).ok_or(Refusal::UnsupportedControl)? {
        Control::Profile => {
            let codec = shared.dialect.codec(format);
            let codec = codec.ok_or(Refusal::UnsupportedControl)?;
            let mut list: Vec<u32> = profiles(codec).iter().map(|(number, _)| *number).collect();
            if list.is_empty() {
                return Err(Refusal::UnsupportedControl);
            }
            if !encodes {
                list.extend(profiles_to_decode(codec));
            }
            list.sort_unstable();
            Ok(list)
        }
        Control::Level if shared.dialect.codec(format) == Some(Codec::H264) => {
            Ok(levels().map(|(number, _)| number).collect())
        }
        Control::Level => Err(Refusal::UnsupportedControl),
        Control::BitrateMode if encodes => Ok(vec![0, 1]),
        Control::PrependHeaders if encodes => Ok(vec![1]),
        _ if encodes => Ok(Vec::new()),
        _ => Err(Refusal::UnsupportedControl),
    }
}

/// The value of a control.
pub(super) fn get(codec: Codec, settings: &EncoderSettings, control: u32) -> Result<u32, Refusal> {
    Ok(
        match Control::from_code(control).ok_or(Refusal::UnsupportedControl)? {
            Control::Bitrate => settings.bitrate,
            Control::BitrateMode => u32::from(settings.mode == BitrateMode::Constant),
            Control::ForceKeyframe => 0,
            Control::PrependHeaders => 1,
            Control::KeyframeInterval => settings.key_interval,
            Control::Profile => {
                let list = profiles(codec);
                let set = list
                    .iter()
                    .find(|(_, profile)| *profile == settings.profile);
                set.or(list.last())
                    .map(|(number, _)| *number)
                    .ok_or(Refusal::UnsupportedControl)?
            }
            Control::Level if codec == Codec::H264 => levels()
                .find(|(_, level)| Some(*level) == settings.level)
                .map_or(ANY_LEVEL, |(number, _)| number),
            Control::Level => return Err(Refusal::UnsupportedControl),
        },
    )
}

/// What a new value of a control means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// The encoder goes on with other settings.
    Adjust,
    /// The encoder must begin anew.
    Restart,
    /// The next picture is to be a key picture.
    ForceKey,
    /// Nothing.
    None,
}

/// Gives a control another value.
pub(super) fn set(
    codec: Codec,
    settings: &mut EncoderSettings,
    control: u32,
    value: u32,
) -> Result<Change, Refusal> {
    let before = *settings;
    let change = match Control::from_code(control).ok_or(Refusal::UnsupportedControl)? {
        Control::Bitrate => {
            settings.bitrate = value.clamp(1000, MOST_BITRATE);
            Change::Adjust
        }
        Control::BitrateMode => {
            settings.mode = match value {
                0 => BitrateMode::Variable,
                1 => BitrateMode::Constant,
                _ => return Err(Refusal::InvalidParameter),
            };
            Change::Adjust
        }
        Control::KeyframeInterval => {
            settings.key_interval = value.min(MOST_INTERVAL);
            Change::Adjust
        }
        Control::ForceKeyframe if value == 0 => return Ok(Change::None),
        Control::ForceKeyframe => return Ok(Change::ForceKey),
        // It always does.
        Control::PrependHeaders if value == 1 => return Ok(Change::None),
        Control::PrependHeaders => return Err(Refusal::InvalidParameter),
        Control::Profile => {
            let found = profiles(codec).iter().find(|(number, _)| *number == value);
            settings.profile = found.ok_or(Refusal::InvalidParameter)?.1;
            Change::Restart
        }
        Control::Level if codec == Codec::H264 => {
            let found = levels().find(|(number, _)| *number == value);
            settings.level = Some(found.ok_or(Refusal::InvalidParameter)?.1);
            Change::Restart
        }
        Control::Level => return Err(Refusal::UnsupportedControl),
    };
    Ok(if *settings == before {
        Change::None
    } else {
        change
    })
}
