// SPDX-License-Identifier: Apache-2.0

//! Controls of decoders and encoders, and what they come to.

use agl_virtio_codec::{
    BitrateMode, Codec, EncoderSettings, FrameRate, H264Profile, H264Tools, Profile, Tier,
    Vp8Profile,
};

use super::formats::Chosen;
use super::{Offer, Way};
use crate::controls::{Controls, Kind, Spec};

/// `V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME`.
pub const FORCE_KEY_FRAME: u32 = 0x0099_09e5;
const USER_CLASS: u32 = 0x0098_0001;
const MIN_BUFFERS_FOR_CAPTURE: u32 = 0x0098_0927;
const MIN_BUFFERS_FOR_OUTPUT: u32 = 0x0098_0928;
const CODEC_CLASS: u32 = 0x0099_0001;
const B_FRAMES: u32 = 0x0099_09ca;
const GOP_SIZE: u32 = 0x0099_09cb;
const BITRATE_MODE: u32 = 0x0099_09ce;
const BITRATE: u32 = 0x0099_09cf;
const H264_MIN_QP: u32 = 0x0099_0a61;
const H264_MAX_QP: u32 = 0x0099_0a62;
const H264_8X8_TRANSFORM: u32 = 0x0099_0a63;
const H264_ENTROPY_MODE: u32 = 0x0099_0a65;
const H264_LEVEL: u32 = 0x0099_0a67;
const H264_PROFILE: u32 = 0x0099_0a6b;
const VPX_MIN_QP: u32 = 0x0099_0afb;
const VPX_MAX_QP: u32 = 0x0099_0afc;
const VP8_PROFILE: u32 = 0x0099_0aff;
const VP9_PROFILE: u32 = 0x0099_0b00;
const HEVC_MIN_QP: u32 = 0x0099_0b58;
const HEVC_MAX_QP: u32 = 0x0099_0b59;
const HEVC_PROFILE: u32 = 0x0099_0b67;
const HEVC_LEVEL: u32 = 0x0099_0b68;
const HEVC_TIER: u32 = 0x0099_0b6a;

const H264_PROFILES: &[&str] = &["Baseline", "Constrained Baseline", "Main", "", "High"];
/// Where no profile was asked for, the encoder takes the highest.
const H264_HIGH: i32 = 4;
const H264_LEVELS: &[&str] = &[
    "1", "", "1.1", "1.2", "1.3", "2", "2.1", "2.2", "3", "3.1", "3.2", "4", "4.1", "4.2", "5",
    "5.1",
];
/// The levels times ten, in that order.
const H264_NUMBERS: [u8; 16] = [
    10, 9, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51,
];
const HEVC_LEVELS: &[&str] = &[
    "1", "2", "2.1", "3", "3.1", "4", "4.1", "5", "5.1", "5.2", "6", "6.1", "6.2",
];
const HEVC_NUMBERS: [u8; 13] = [10, 20, 21, 30, 31, 40, 41, 50, 51, 52, 60, 61, 62];
/// Both are level 4. Where no level was asked for, the encoder takes the least that will do.
const ANY_H264_LEVEL: i32 = 11;
const ANY_HEVC_LEVEL: i32 = 5;

const HEVC_PROFILES: &[&str] = &["Main", "Main Still Picture"];
const VP8_PROFILES: &[&str] = &["0", "1"];
/// Others have more bits than the raw formats.
const VP9_PROFILES: &[&str] = &["0"];

const DECODER: [Spec; 7] = [
    Spec::class(USER_CLASS, "User Controls"),
    least_buffers(MIN_BUFFERS_FOR_CAPTURE, "Min Number of Capture Buffers", 2),
    Spec::class(CODEC_CLASS, "Codec Controls"),
    // What is decoded is the stream's to say; the menus tell what can be.
    can_be_decoded(H264_PROFILE, "H264 Profile", H264_PROFILES, H264_HIGH),
    can_be_decoded(VP8_PROFILE, "VP8 Profile", &["0", "1", "2", "3"], 0),
    can_be_decoded(VP9_PROFILE, "VP9 Profile", VP9_PROFILES, 0),
    can_be_decoded(HEVC_PROFILE, "HEVC Profile", HEVC_PROFILES, 0),
];

const ENCODER: [Spec; 23] = [
    Spec::class(USER_CLASS, "User Controls"),
    least_buffers(MIN_BUFFERS_FOR_OUTPUT, "Min Number of Output Buffers", 1),
    Spec::class(CODEC_CLASS, "Codec Controls"),
    Spec::new(B_FRAMES, "Video B Frames", Kind::Integer(0, 3, 1), 0),
    Spec::new(GOP_SIZE, "Video GOP Size", Kind::Integer(0, 10_000, 1), 60),
    Spec::new(
        BITRATE_MODE,
        "Video Bitrate Mode",
        Kind::Menu(&["Variable Bitrate", "Constant Bitrate"]),
        0,
    ),
    Spec::new(
        BITRATE,
        "Video Bitrate",
        Kind::Integer(16_000, 200_000_000, 1),
        2_000_000,
    ),
    Spec::new(FORCE_KEY_FRAME, "Force Key Frame", Kind::Button, 0),
    // The first values are those that the usual elements have of themselves.
    finest(H264_MIN_QP, "H264 Minimum QP Value", 51, 10),
    coarsest(H264_MAX_QP, "H264 Maximum QP Value", 51),
    Spec::new(
        H264_8X8_TRANSFORM,
        "H264 8x8 Transform Enable",
        Kind::Boolean,
        1,
    ),
    Spec::new(
        H264_ENTROPY_MODE,
        "H264 Entropy Mode",
        Kind::Menu(&["CAVLC", "CABAC"]),
        1,
    ),
    Spec::new(
        H264_LEVEL,
        "H264 Level",
        Kind::Menu(H264_LEVELS),
        ANY_H264_LEVEL,
    ),
    Spec::new(
        H264_PROFILE,
        "H264 Profile",
        Kind::Menu(H264_PROFILES),
        H264_HIGH,
    ),
    finest(VPX_MIN_QP, "VPX Minimum QP Value", 63, 4),
    coarsest(VPX_MAX_QP, "VPX Maximum QP Value", 63),
    Spec::new(VP8_PROFILE, "VP8 Profile", Kind::Menu(VP8_PROFILES), 0),
    Spec::new(VP9_PROFILE, "VP9 Profile", Kind::Menu(VP9_PROFILES), 0),
    finest(HEVC_MIN_QP, "HEVC Minimum QP Value", 51, 0),
    coarsest(HEVC_MAX_QP, "HEVC Maximum QP Value", 51),
    Spec::new(HEVC_PROFILE, "HEVC Profile", Kind::Menu(&["Main"]), 0),
    // GStreamer's v4l2h265enc does not negotiate without it.
    Spec::new(
        HEVC_LEVEL,
        "HEVC Level",
        Kind::Menu(HEVC_LEVELS),
        ANY_HEVC_LEVEL,
    ),
    Spec::new(HEVC_TIER, "HEVC Tier", Kind::Menu(&["Main", "High"]), 0),
];

const fn finest(id: u32, name: &'static str, most: i32, default: i32) -> Spec {
    Spec::new(id, name, Kind::Integer(0, most, 1), default)
}

const fn coarsest(id: u32, name: &'static str, most: i32) -> Spec {
    Spec::new(id, name, Kind::Integer(0, most, 1), most)
}

const fn can_be_decoded(
    id: u32,
    name: &'static str,
    profiles: &'static [&'static str],
    default: i32,
) -> Spec {
    Spec {
        id,
        name,
        kind: Kind::Menu(profiles),
        default,
        read_only: true,
    }
}

const fn least_buffers(id: u32, name: &'static str, value: i32) -> Spec {
    Spec {
        id,
        name,
        kind: Kind::Integer(1, 32, 1),
        default: value,
        read_only: true,
    }
}

/// Of which codecs alone a control is; nothing for one that is of all.
fn codecs_of(id: u32) -> &'static [Codec] {
    match id {
        B_FRAMES => &[Codec::H264, Codec::Hevc],
        H264_MIN_QP | H264_MAX_QP | H264_8X8_TRANSFORM | H264_ENTROPY_MODE | H264_LEVEL
        | H264_PROFILE => &[Codec::H264],
        VPX_MIN_QP | VPX_MAX_QP => &[Codec::Vp8, Codec::Vp9],
        VP8_PROFILE => &[Codec::Vp8],
        VP9_PROFILE => &[Codec::Vp9],
        HEVC_MIN_QP | HEVC_MAX_QP | HEVC_PROFILE | HEVC_LEVEL | HEVC_TIER => &[Codec::Hevc],
        _ => &[],
    }
}

/// The controls of a device, those of codecs that it does not have left out, and headings without any.
#[must_use]
pub fn specs(offer: &Offer) -> Vec<Spec> {
    let all: &[Spec] = match offer.way {
        Way::Decode => &DECODER,
        Way::Encode => &ENCODER,
    };
    let offered = |spec: &&Spec| {
        let codecs = codecs_of(spec.id);
        codecs.is_empty() || codecs.iter().any(|codec| offer.codecs.contains(codec))
    };
    let mut specs: Vec<Spec> = all.iter().filter(offered).copied().collect();
    if specs.last().is_some_and(|last| last.kind == Kind::Class) {
        specs.pop();
    }
    specs
}

fn number(controls: &Controls, id: u32) -> u32 {
    u32::try_from(controls.value(id)).unwrap_or(0)
}

/// The level that was asked for, times ten.
fn level(value: i32, any: i32, numbers: &[u8]) -> Option<u8> {
    let at = usize::try_from(value).ok().filter(|_| value != any)?;
    numbers.get(at).copied()
}

/// What was asked for of quantizers; nothing where they are as they were at first.
fn quantizers(controls: &Controls, codec: Codec) -> Option<(u32, u32)> {
    let (finest, coarsest) = match codec {
        Codec::H264 => (H264_MIN_QP, H264_MAX_QP),
        Codec::Hevc => (HEVC_MIN_QP, HEVC_MAX_QP),
        Codec::Vp8 | Codec::Vp9 => (VPX_MIN_QP, VPX_MAX_QP),
        _ => return None,
    };
    if !controls
        .changed()
        .any(|(id, _)| id == finest || id == coarsest)
    {
        return None;
    }
    let (finest, coarsest) = (number(controls, finest), number(controls, coarsest));
    // Encoders end over none between them.
    Some((finest, coarsest.max(finest)))
}

/// How an encoder is to encode.
#[must_use]
pub fn settings(controls: &Controls, chosen: &Chosen) -> EncoderSettings {
    let (profile, level) = match chosen.codec {
        Codec::H264 => (
            match controls.value(H264_PROFILE) {
                0 | 1 => Some(Profile::H264(H264Profile::Baseline)),
                2 => Some(Profile::H264(H264Profile::Main)),
                _ => None,
            },
            level(controls.value(H264_LEVEL), ANY_H264_LEVEL, &H264_NUMBERS),
        ),
        Codec::Hevc => {
            let value = controls.value(HEVC_LEVEL);
            (None, level(value, ANY_HEVC_LEVEL, &HEVC_NUMBERS))
        }
        Codec::Vp8 => match controls.value(VP8_PROFILE) {
            1 => (Some(Profile::Vp8(Vp8Profile::One)), None),
            // What encoders take by themselves.
            _ => (None, None),
        },
        _ => (None, None),
    };
    EncoderSettings {
        bitrate: number(controls, BITRATE),
        mode: match controls.value(BITRATE_MODE) {
            1 => BitrateMode::Constant,
            _ => BitrateMode::Variable,
        },
        frame_rate: FrameRate::new(chosen.rate.pictures(), chosen.rate.seconds()),
        key_interval: number(controls, GOP_SIZE),
        profile,
        level,
        tier: match controls.value(HEVC_TIER) {
            1 => Tier::High,
            _ => Tier::Main,
        },
        tools: H264Tools {
            arithmetic: controls.value(H264_ENTROPY_MODE) != 0,
            large_transform: controls.value(H264_8X8_TRANSFORM) != 0,
        },
        b_pictures: number(controls, B_FRAMES),
        quantizers: quantizers(controls, chosen.codec),
    }
}

#[cfg(test)]
mod tests {
    use agl_virtio_codec::{Limits, Size};

    use super::*;

    fn offer(way: Way, codecs: &[Codec]) -> Offer {
        Offer {
            way,
            codecs: codecs.to_vec(),
            limits: Limits {
                least: Size::new(16, 16),
                most: Size::new(512, 512),
            },
            max_streams: 1,
            max_pixel_rate: 1,
            max_input_bytes: 1,
            max_runs: 1,
        }
    }

    #[test]
    fn a_decoder_tells_the_profiles_of_its_codecs_and_lets_none_be_set() {
        let all = specs(&offer(Way::Decode, &Codec::ALL));
        assert_eq!(all, DECODER);
        assert!(all.is_sorted_by_key(|spec| spec.id));
        assert!(all.iter().all(|spec| spec.read_only));
        let few = specs(&offer(Way::Decode, &[Codec::Vp8, Codec::Mpeg2]));
        let ids: Vec<u32> = few.iter().map(|spec| spec.id).collect();
        let wanted = [
            USER_CLASS,
            MIN_BUFFERS_FOR_CAPTURE,
            CODEC_CLASS,
            VP8_PROFILE,
        ];
        assert_eq!(ids, wanted);
        let none = specs(&offer(Way::Decode, &[Codec::Mpeg2]));
        assert_eq!(none, DECODER[..2], "no heading of nothing");
    }

    #[test]
    fn a_profile_of_vp8_reaches_the_encoder_and_that_of_others_does_not() {
        let offer = offer(Way::Encode, &[Codec::Vp8, Codec::H264]);
        let mut controls = Controls::new(&specs(&offer));
        let mut chosen = Chosen::new(&offer);
        assert_eq!(settings(&controls, &chosen).profile, None);
        controls.put(VP8_PROFILE, 1);
        let profile = settings(&controls, &chosen).profile;
        assert_eq!(profile, Some(Profile::Vp8(Vp8Profile::One)));
        chosen.codec = Codec::H264;
        assert_eq!(settings(&controls, &chosen).profile, None);
    }

    #[test]
    fn what_is_asked_of_an_encoder_reaches_it_and_what_is_not_is_left_to_it() {
        let offer = offer(Way::Encode, &[Codec::H264, Codec::Hevc, Codec::Vp9]);
        let all = specs(&offer);
        assert!(all.is_sorted_by_key(|spec| spec.id));
        let mut controls = Controls::new(&all);
        let mut chosen = Chosen::new(&offer);
        let at_first = settings(&controls, &chosen);
        let usual = EncoderSettings::default();
        assert_eq!(
            (at_first.tier, at_first.tools, at_first.b_pictures),
            (usual.tier, usual.tools, usual.b_pictures)
        );
        assert_eq!(at_first.quantizers, None);
        for (id, value) in [
            (B_FRAMES, 2),
            (H264_MIN_QP, 30),
            (H264_MAX_QP, 20),
            (H264_8X8_TRANSFORM, 0),
            (H264_ENTROPY_MODE, 0),
            (VPX_MAX_QP, 50),
            (HEVC_TIER, 1),
        ] {
            assert!(controls.put(id, value), "{id:x}");
        }
        let asked = settings(&controls, &chosen);
        assert_eq!((asked.b_pictures, asked.tier), (2, Tier::High));
        assert!(!asked.tools.arithmetic && !asked.tools.large_transform);
        assert_eq!(asked.quantizers, Some((30, 30)), "never none between");
        chosen.codec = Codec::Vp9;
        assert_eq!(settings(&controls, &chosen).quantizers, Some((4, 50)));
        chosen.codec = Codec::Hevc;
        assert_eq!(settings(&controls, &chosen).quantizers, None);
    }

    #[test]
    fn controls_of_codecs_that_are_not_there_are_not_told() {
        let ids = |codecs| {
            let all = specs(&offer(Way::Encode, codecs));
            all.iter().map(|spec| spec.id).collect::<Vec<u32>>()
        };
        assert!(ids(&[Codec::Vp8]).contains(&VPX_MIN_QP));
        assert!(!ids(&[Codec::Vp8]).contains(&B_FRAMES));
        assert!(ids(&[Codec::Hevc]).contains(&B_FRAMES));
        assert!(!ids(&[Codec::Hevc]).contains(&H264_ENTROPY_MODE));
    }

    #[test]
    fn a_broken_rate_reaches_the_encoder_as_it_is() {
        let offer = offer(Way::Encode, &[Codec::H264]);
        let mut chosen = Chosen::new(&offer);
        chosen.set_interval(crate::v4l2::Fraction {
            numerator: 1001,
            denominator: 30_000,
        });
        let controls = Controls::new(&specs(&offer));
        let rate = settings(&controls, &chosen).frame_rate;
        assert_eq!(rate, FrameRate::new(30_000, 1001));
    }

    #[test]
    fn levels_in_words_are_those_in_numbers_and_the_usual_one_is_left_to_the_encoder() {
        for (words, numbers, any) in [
            (H264_LEVELS, &H264_NUMBERS[..], ANY_H264_LEVEL),
            (HEVC_LEVELS, &HEVC_NUMBERS[..], ANY_HEVC_LEVEL),
        ] {
            assert_eq!(words.len(), numbers.len());
            for (value, (word, number)) in words.iter().zip(numbers).enumerate() {
                let text = format!("{}.{}", number / 10, number % 10);
                assert!(
                    word.is_empty() || *word == text.trim_end_matches(".0"),
                    "{word} is not {number}"
                );
                let asked = level(i32::try_from(value).unwrap(), any, numbers);
                assert_eq!(asked, (*word != "4").then_some(*number));
            }
        }
    }
}
