// SPDX-License-Identifier: Apache-2.0

//! How an encoder's element is told what it is asked for.

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

use super::{BitrateMode, EncoderSettings, H264Tools, Tier, hevc};
use crate::codec::Codec;
use crate::layout::Size;

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
        if element.current_state() == gst::State::Null {
            self.begin(element, &factory);
        }
    }

    /// What an element is told before it starts, and takes then only.
    fn begin(&self, element: &gst::Element, factory: &str) {
        if factory == "x265enc" {
            return add_options(element, &self.x265_options());
        }
        // What nobody asks for is as the configuration has it.
        if self.b_pictures > 0 {
            let names: &[&str] = &["bframes", "b-frames", "max-bframes"];
            set_number(element, names, self.b_pictures);
        }
        if let Some((finest, coarsest)) = self.quantizers {
            set_number(element, &["qp-min", "min-qp", "min-quantizer"], finest);
            set_number(element, &["qp-max", "max-qp", "max-quantizer"], coarsest);
        }
        let H264Tools {
            arithmetic,
            large_transform,
        } = self.tools;
        if !arithmetic {
            forbid(element, "cabac");
            set_text(element, &["entropy-mode"], &["cavlc", "CAVLC"]);
        }
        if !large_transform {
            forbid(element, "dct8x8");
        }
    }

    /// As x265 writes options. Its level is one that will do ([`Self::fitting`]): it ends over another.
    fn x265_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.b_pictures > 0 {
            // Tuned for no latency it would not look ahead, and so end.
            let ahead = self.b_pictures.saturating_add(1);
            options.push(format!("bframes={}:rc-lookahead={ahead}", self.b_pictures));
        }
        if let Some((finest, coarsest)) = self.quantizers {
            options.push(format!("qpmin={finest}:qpmax={coarsest}"));
        }
        options.extend(self.level.map(|level| format!("level-idc={level}")));
        let most = self.level.and_then(hevc::high_tier_rate);
        if let (Tier::High, Some(most)) = (self.tier, most) {
            // The tier is high only where so many bits are allowed.
            options.push(format!("high-tier=1:vbv-maxrate={most}:vbv-bufsize={most}"));
        }
        options
    }

    /// With a level that will do for pictures of this size, where the codec's encoders end over another:
    /// HEVC's, whose tier it says as well. What was asked for is the least; without that, and of the main
    /// tier, it is left to the encoder.
    #[must_use]
    pub(crate) fn fitting(self, codec: Codec, size: Size) -> Self {
        if codec != Codec::Hevc || (self.level.is_none() && self.tier == Tier::Main) {
            return self;
        }
        let level = hevc::level(size, &self);
        Self { level, ..self }
    }

    /// The caps' part of the settings, for these elements.
    pub(crate) fn caps(&self, caps: gst::Caps, elements: &str) -> gst::Caps {
        let mut caps = caps;
        let writable = caps.make_mut();
        if let Some(profile) = self.profile {
            writable.set("profile", profile.caps_name());
        }
        if elements.contains("x265enc") {
            // It is told by options, and its caps say what has come of it.
            return caps;
        }
        if self.tier == Tier::High {
            writable.set("tier", "high");
        }
        if let Some(level) = self.level {
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

/// Sets the first of these properties that the element has.
fn set_number(element: &gst::Element, names: &[&str], value: u32) {
    let found = names
        .iter()
        .find_map(|name| element.find_property(name).map(|spec| (*name, spec)));
    let Some((name, spec)) = found else { return };
    let signed = i32::try_from(value).unwrap_or(i32::MAX);
    // A property that is given more than it takes would end the process.
    let value: glib::Value = if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        value.max(spec.minimum()).min(spec.maximum()).to_value()
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecInt>() {
        signed.max(spec.minimum()).min(spec.maximum()).to_value()
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt64>() {
        let value = u64::from(value).max(spec.minimum());
        value.min(spec.maximum()).to_value()
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecInt64>() {
        let value = i64::from(value).max(spec.minimum());
        value.min(spec.maximum()).to_value()
    } else {
        return;
    };
    element.set_property_from_value(name, &value);
}

/// Sets a property that is on or off to off, if the element has it.
fn forbid(element: &gst::Element, name: &str) {
    let spec = element.find_property(name);
    if spec.is_some_and(|spec| spec.value_type() == bool::static_type()) {
        element.set_property(name, false);
    }
}

/// Adds options to those that the configuration has.
fn add_options(element: &gst::Element, options: &[String]) {
    let had: Option<String> = element.property("option-string");
    let all = had.into_iter().filter(|had| !had.is_empty());
    let all: Vec<String> = all.chain(options.iter().cloned()).collect();
    element.set_property("option-string", all.join(":"));
}

/// Sets the first of these properties to the first of these nicknames that it knows.
fn set_text(element: &gst::Element, names: &[&str], values: &[&str]) {
    for name in names {
        let Some(spec) = element.find_property(name) else {
            continue;
        };
        let Some(class) = glib::EnumClass::with_type(spec.value_type()) else {
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
    fn level_and_tier_are_asked_for_by_caps_but_of_x265_by_options() {
        gst::init().unwrap();
        let settings = EncoderSettings {
            level: Some(41),
            tier: Tier::High,
            ..EncoderSettings::default()
        };
        let caps = |elements| settings.caps(gst::Caps::new_empty_simple("video/x-h265"), elements);
        let of_x265 = caps("x265enc tune=zerolatency").to_string();
        assert!(!of_x265.contains("level") && !of_x265.contains("tier"));
        let of_others = caps("omxh265enc").to_string();
        assert!(of_others.contains("level=(string)4.1"));
        assert!(of_others.contains("tier=(string)high"));
        let options = settings.x265_options().join(":");
        let wanted = "level-idc=41:high-tier=1:vbv-maxrate=50000:vbv-bufsize=50000";
        assert_eq!(options, wanted);
    }

    #[test]
    fn numbers_beyond_what_a_property_takes_become_the_last_that_it_takes() {
        gst::init().unwrap();
        let element = gst::ElementFactory::make("x264enc").build().unwrap();
        let settings = EncoderSettings {
            bitrate: u32::MAX,
            b_pictures: u32::MAX,
            quantizers: Some((u32::MAX, u32::MAX)),
            ..EncoderSettings::default()
        };
        settings.apply(&element);
        assert_eq!(element.property::<u32>("bitrate"), 2_048_000);
        assert_eq!(element.property::<u32>("bframes"), 16);
    }

    #[test]
    fn options_of_the_configuration_stay() {
        gst::init().unwrap();
        let make = gst::ElementFactory::make("x265enc").property("option-string", "aq-mode=0");
        let element = make.build().unwrap();
        let options = |settings: EncoderSettings| -> String {
            settings.apply(&element);
            element.property("option-string")
        };
        assert_eq!(options(EncoderSettings::default()), "aq-mode=0");
        let settings = EncoderSettings {
            b_pictures: 2,
            quantizers: Some((20, 40)),
            ..EncoderSettings::default()
        };
        assert_eq!(
            options(settings),
            "aq-mode=0:bframes=2:rc-lookahead=3:qpmin=20:qpmax=40"
        );
    }
}
