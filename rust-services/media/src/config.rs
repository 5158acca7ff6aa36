// SPDX-License-Identifier: Apache-2.0

//! What a guest's file says about a camera.

use std::path::PathBuf;

use agl_virtio_service::config::{Problems, Validate};
use serde::Deserialize;

use crate::camera::modes::{Modes, PixelFormat, Size};

/// Most pixels of a row or of a column.
const MOST: u32 = 7680;
/// Most pictures in a second.
const MOST_RATE: u32 = 240;

/// Where pictures come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// The built-in moving test picture.
    #[default]
    TestPicture,
    /// A GStreamer pipeline.
    Gstreamer,
}

/// The device's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The camera's name, as the guest sees it.
    pub card: String,
    /// Where pictures come from.
    pub source: SourceKind,
    /// The pipeline's beginning, up to raw video: `v4l2src device=/dev/video0`.
    pub pipeline: String,
    /// What the pipeline needs of the file system, such as `/dev/video0`.
    pub paths: Vec<PathBuf>,
    /// Formats, the first one at first.
    pub formats: Vec<PixelFormat>,
    /// Sizes as `WIDTHxHEIGHT`, the first one at first.
    pub sizes: Vec<String>,
    /// Pictures in a second, the first one at first.
    pub rates: Vec<u32>,
    /// Sessions that the guest may have at a time.
    pub max_sessions: usize,
    /// Pixels in a second, at most, over all that the guest may choose.
    pub max_pixel_rate: u64,
    /// Which camera goes first when there is not time for all: 0 for none, or the real-time
    /// priority of its thread (1 to 99). The rear view camera should have the highest.
    pub priority: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            card: "AGL virtual camera".to_owned(),
            source: SourceKind::TestPicture,
            pipeline: String::new(),
            paths: Vec::new(),
            formats: PixelFormat::ALL.to_vec(),
            sizes: ["640x480", "320x240", "1280x720", "1920x1080"]
                .map(str::to_owned)
                .into(),
            rates: vec![30, 60, 25, 15, 10, 5],
            max_sessions: 128,
            max_pixel_rate: 1920 * 1080 * 60,
            priority: 0,
        }
    }
}

/// A size as it is written.
fn size(text: &str) -> Option<Size> {
    let (width, height) = text.split_once('x')?;
    let number = |text: &str, least: u32, step: u32| {
        let number: u32 = text.parse().ok()?;
        (number >= least && number <= MOST && number.checked_rem(step) == Some(0)).then_some(number)
    };
    Some(Size {
        width: number(width, 64, 8)?,
        height: number(height, 16, 2)?,
    })
}

impl Config {
    /// What the guest may choose from.
    #[must_use]
    pub fn modes(&self) -> Modes {
        Modes {
            formats: self.formats.clone(),
            sizes: self.sizes.iter().filter_map(|text| size(text)).collect(),
            rates: self.rates.clone(),
        }
    }
}

impl Config {
    /// Whether a running guest finds its camera in that of `other`: what its programs were told once.
    /// Where the pictures come from may change.
    pub(crate) fn is_same_device(&self, other: &Self) -> bool {
        let told = |of: &Self| {
            (
                of.card.clone(),
                of.formats.clone(),
                of.sizes.clone(),
                of.rates.clone(),
            )
        };
        told(self) == told(other)
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        let some = |problems: &mut Problems, is_empty: bool, key: &str| {
            problems.require(!is_empty, key, "is empty", "one at least");
        };
        some(problems, self.formats.is_empty(), "formats");
        some(problems, self.sizes.is_empty(), "sizes");
        some(problems, self.rates.is_empty(), "rates");
        for text in &self.sizes {
            problems.require(
                size(text).is_some(),
                "sizes",
                format!("{text} is no size"),
                format!("WIDTHxHEIGHT, such as 640x480: the width a multiple of 8 from 64, the height even, both up to {MOST}"),
            );
        }
        for rate in &self.rates {
            problems.range("rates", rate, 1..=MOST_RATE);
        }
        problems.range("max_sessions", &self.max_sessions, 1..=1024);
        problems.range("priority", &self.priority, 0..=99);
        problems.require(
            !self.card.is_empty() && self.card.len() < 32,
            "card",
            "is no name",
            "1 to 31 bytes",
        );
        let modes = self.modes();
        let largest = modes.sizes.iter().map(|size| {
            let pixels = u64::from(size.width).saturating_mul(size.height.into());
            let rate = self.rates.iter().copied().max().unwrap_or(0);
            pixels.saturating_mul(rate.into())
        });
        let largest = largest.max().unwrap_or(0);
        problems.require(
            largest <= self.max_pixel_rate,
            "max_pixel_rate",
            format!("is less than the {largest} pixels per second that sizes and rates allow"),
            "a larger one, or smaller sizes or rates",
        );
        problems.require(
            (self.source == SourceKind::Gstreamer) != self.pipeline.trim().is_empty(),
            "pipeline",
            "belongs to source = \"gstreamer\", and that needs one",
            "the pipeline's beginning, such as \"v4l2src device=/dev/video0\"",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl Fn(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        let mut problems = Problems::new();
        config.validate(&mut problems);
        let list = problems.into_list();
        list.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_default_needs_no_file() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(Config::default().modes().sizes.len(), 4);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for wrong in ["640", "63x48", "640x481", "100000x100", "x", "-8x-8"] {
            assert_eq!(
                problems(|config| config.sizes = vec![wrong.into()]),
                ["sizes"],
                "{wrong}"
            );
        }
        assert_eq!(problems(|config| config.rates = vec![0]), ["rates"]);
        assert_eq!(problems(|config| config.formats.clear()), ["formats"]);
        assert_eq!(
            problems(|config| config.max_pixel_rate = 1),
            ["max_pixel_rate"]
        );
        assert_eq!(
            problems(|config| config.source = SourceKind::Gstreamer),
            ["pipeline"]
        );
        assert_eq!(
            problems(|config| config.pipeline = "v4l2src".into()),
            ["pipeline"]
        );
        assert_eq!(problems(|config| config.card.clear()), ["card"]);
        assert_eq!(problems(|config| config.priority = 100), ["priority"]);
    }

    #[test]
    fn a_running_guest_may_have_another_source_but_not_another_camera() {
        let config = Config::default();
        let pipeline = "videotestsrc".to_owned();
        assert!(config.is_same_device(&Config {
            pipeline,
            ..Config::default()
        }));
        let sizes = vec!["320x240".to_owned()];
        assert!(!config.is_same_device(&Config {
            sizes,
            ..Config::default()
        }));
    }
}
