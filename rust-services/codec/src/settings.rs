// SPDX-License-Identifier: Apache-2.0

//! What an encoder can be asked for, and how its element is told.

use gst::prelude::*;
use gstreamer as gst;
use serde::{Deserialize, Serialize};

/// Profiles of H.264 that encoders are asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum H264Profile {
    /// Constrained baseline is what encoders understand by it.
    Baseline,
    /// Main.
    Main,
    /// High.
    High,
}

/// Profiles of HEVC that encoders are asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HevcProfile {
    /// Main, 8 bit.
    Main,
    /// Main still picture.
    MainStillPicture,
}

/// Profiles of VP8, which its format calls versions, that encoders are asked for. There are four, but
/// `vp8enc` takes the other two for those of more than 8 bits, as they are in VP9, and refuses them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Vp8Profile {
    /// Bicubic reconstruction, the normal loop filter.
    Zero,
    /// Bilinear reconstruction, the simple loop filter: less for a decoder to do.
    One,
}

/// A profile of whichever codec.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Profile {
    /// Of H.264.
    H264(H264Profile),
    /// Of HEVC.
    Hevc(HevcProfile),
    /// Of VP8.
    Vp8(Vp8Profile),
}

impl Profile {
    pub(crate) const fn caps_name(self) -> &'static str {
        match self {
            Self::H264(H264Profile::Baseline) => "constrained-baseline",
            Self::H264(H264Profile::Main) => "main",
            Self::H264(H264Profile::High) => "high",
            Self::Hevc(HevcProfile::Main) => "main",
            Self::Hevc(HevcProfile::MainStillPicture) => "main-still-picture",
            Self::Vp8(Vp8Profile::Zero) => "0",
            Self::Vp8(Vp8Profile::One) => "1",
        }
    }
}

/// Whether the bit rate may vary.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum BitrateMode {
    /// More bits where there is more to see.
    #[default]
    Variable,
    /// The same all the time.
    Constant,
}

/// Pictures in a second, as a fraction: 30000/1001 is none that is whole.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FrameRate {
    pictures: u32,
    seconds: u32,
}

impl FrameRate {
    /// So many in one second, one at least.
    #[must_use]
    pub const fn per_second(pictures: u32) -> Self {
        Self::new(pictures, 1)
    }

    /// So many in so many seconds, one of either at least.
    #[must_use]
    pub const fn new(pictures: u32, seconds: u32) -> Self {
        // What caps and elements can say.
        const MOST: u32 = i32::MAX.unsigned_abs();
        const fn term(number: u32) -> u32 {
            match number {
                0 => 1,
                number if number > MOST => MOST,
                number => number,
            }
        }
        Self {
            pictures: term(pictures),
            seconds: term(seconds),
        }
    }

    /// When a picture begins, in nanoseconds after the first one, whose number is 0.
    pub(crate) fn begin_of(self, number: u64) -> u64 {
        let nanoseconds = u128::from(number)
            .saturating_mul(self.seconds.into())
            .saturating_mul(1_000_000_000)
            .checked_div(self.pictures.into());
        u64::try_from(nanoseconds.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    pub(crate) fn fraction(self) -> gst::Fraction {
        let term = |number: u32| i32::try_from(number).unwrap_or(i32::MAX).max(1);
        gst::Fraction::new(term(self.pictures), term(self.seconds))
    }
}

/// How to encode.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EncoderSettings {
    /// Bits per second.
    pub bitrate: u32,
    /// Whether that may vary.
    pub mode: BitrateMode,
    /// Pictures per second: what the bit rate is reckoned with, and the stream's header says.
    pub frame_rate: FrameRate,
    /// At most so many pictures from a key picture to the next; 0 for only where asked.
    pub key_interval: u32,
    /// The profile, or what the encoder likes best.
    pub profile: Option<Profile>,
    /// The level times ten (31 is 3.1), or the least that will do.
    pub level: Option<u8>,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self {
            bitrate: 2_000_000,
            mode: BitrateMode::default(),
            frame_rate: FrameRate::per_second(30),
            key_interval: 250,
            profile: None,
            level: None,
        }
    }
}

/// Where no key picture is wanted by itself. Also what every element's number takes.
const FAR: u32 = 32_767;

impl EncoderSettings {
    /// Tells the element. What it has no property for is left as it is.
    pub(crate) fn apply(&self, element: &gst::Element) {
        let factory = element
            .factory()
            .map(|factory| factory.name().to_string())
            .unwrap_or_default();
        // x264, x265, va and aom count in kbit/s by "bitrate"; vpx and omx in bit/s by
        // "target-bitrate", OpenH264 and libav in bit/s by "bitrate".
        let in_bits = ["vp8", "vp9", "omx", "openh264", "avenc", "v4l2"]
            .iter()
            .any(|prefix| factory.starts_with(prefix));
        let rate = if in_bits {
            self.bitrate.max(1000)
        } else {
            (self.bitrate / 1000).max(1)
        };
        let interval = if self.key_interval == 0 {
            FAR
        } else {
            self.key_interval.min(FAR)
        };
        set_number(element, &["target-bitrate", "bitrate"], rate);
        set_number(
            element,
            &[
                "key-int-max",
                "keyframe-max-dist",
                "gop-size",
                "interval-intraframes",
            ],
            interval,
        );
        let constant = self.mode == BitrateMode::Constant;
        // What vp9enc calls variable spends a third less than it is told to, in one pass.
        let by_a_buffer = constant || factory == "vp9enc";
        set_text(
            element,
            &["end-usage", "rate-control", "control-rate"],
            if by_a_buffer {
                &["cbr", "constant", "bitrate"]
            } else {
                &["vbr", "variable", "quality"]
            },
        );
        if factory.starts_with("vp") {
            // In milliseconds: how much of the rate may be saved up, and is; so much there is at first.
            let (most, usual) = if constant { (1000, 600) } else { (6000, 5000) };
            set_number(element, &["buffer-size"], most);
            set_number(element, &["buffer-optimal-size"], usual);
            set_number(element, &["buffer-initial-size"], usual);
        }
        // x264 keeps to a constant rate by a small buffer.
        set_number(
            element,
            &["vbv-buf-capacity"],
            if constant { 600 } else { 2000 },
        );
    }

    /// The caps' part of the settings, for these elements.
    pub(crate) fn caps(&self, caps: gst::Caps, elements: &str) -> gst::Caps {
        let mut caps = caps;
        let writable = caps.make_mut();
        if let Some(profile) = self.profile {
            writable.set("profile", profile.caps_name());
        }
        if let (Some(level), false) = (self.level, finds_its_level(elements)) {
            let (whole, part) = (level / 10, level % 10);
            let text = if part == 0 {
                whole.to_string()
            } else {
                format!("{whole}.{part}")
            };
            writable.set("level", text);
        }
        caps
    }
}

/// Whether one of these elements takes the least level that will do, whatever it is asked for, and writes
/// that into its caps: another one there would refuse it. (A level as an option of x265 ends the encoder
/// where it will not do.)
fn finds_its_level(elements: &str) -> bool {
    elements.contains("x265enc")
}

/// Sets the first of these properties that the element has.
fn set_number(element: &gst::Element, names: &[&str], value: u32) {
    let found = names
        .iter()
        .find_map(|name| element.find_property(name).map(|spec| (*name, spec)));
    let Some((name, spec)) = found else { return };
    let signed = i32::try_from(value).unwrap_or(i32::MAX);
    let value: gst::glib::Value = match spec.value_type() {
        kind if kind == u32::static_type() => value.to_value(),
        kind if kind == i32::static_type() => signed.to_value(),
        kind if kind == u64::static_type() => u64::from(value).to_value(),
        kind if kind == i64::static_type() => i64::from(value).to_value(),
        _ => return,
    };
    element.set_property_from_value(name, &value);
}

/// Sets the first of these properties to the first of these nicknames that it knows.
fn set_text(element: &gst::Element, names: &[&str], values: &[&str]) {
    for name in names {
        let Some(spec) = element.find_property(name) else {
            continue;
        };
        let Some(class) = gst::glib::EnumClass::with_type(spec.value_type()) else {
            continue;
        };
        let known = values
            .iter()
            .find(|value| class.value_by_nick(value).is_some());
        if let Some(value) = known {
            element.set_property_from_str(name, value);
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_broken_rate_do_not_drift() {
        let rate = FrameRate::new(30_000, 1001);
        assert_eq!(rate.begin_of(0), 0);
        assert_eq!(rate.begin_of(1), 33_366_666);
        assert_eq!(rate.begin_of(30_000), 1_001_000_000_000);
        assert_eq!(FrameRate::new(0, 0).begin_of(1), 1_000_000_000);
        let extreme = FrameRate::new(1, u32::MAX);
        assert_eq!(extreme.begin_of(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_level_is_asked_for_by_caps_but_not_of_x265() {
        gst::init().unwrap();
        let settings = EncoderSettings {
            level: Some(41),
            ..EncoderSettings::default()
        };
        let caps = |elements| settings.caps(gst::Caps::new_empty_simple("video/x-h265"), elements);
        assert!(
            !caps("x265enc tune=zerolatency")
                .to_string()
                .contains("level")
        );
        assert!(caps("omxh265enc").to_string().contains("level=(string)4.1"));
    }
}
