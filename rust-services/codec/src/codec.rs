// SPDX-License-Identifier: Apache-2.0

//! The coded formats.

use gstreamer as gst;
use serde::{Deserialize, Serialize};

/// A coded format. In the order in which they are offered: a program that chooses none gets the first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// H.264 with start codes (Annex B).
    H264,
    /// HEVC with start codes (Annex B).
    Hevc,
    /// VP8, one frame at a time.
    Vp8,
    /// VP9, one frame or superframe at a time.
    Vp9,
    /// AV1, one temporal unit of open bitstream units at a time.
    Av1,
    /// MPEG-2 video, a byte stream.
    Mpeg2,
    /// MPEG-4 part 2, a byte stream.
    Mpeg4,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::H264,
        Self::Hevc,
        Self::Vp8,
        Self::Vp9,
        Self::Av1,
        Self::Mpeg2,
        Self::Mpeg4,
    ];

    /// As a person calls it, and the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mpeg2 => "mpeg2",
            Self::Mpeg4 => "mpeg4",
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
        }
    }

    /// Whether the bytes may be cut anywhere; else each piece is one frame.
    #[must_use]
    pub const fn is_byte_stream(self) -> bool {
        matches!(self, Self::Mpeg2 | Self::Mpeg4 | Self::H264 | Self::Hevc)
    }

    /// Bytes of which nothing more is known than the format.
    pub(crate) fn input_caps(self) -> gst::Caps {
        match self {
            Self::Mpeg2 => gst::Caps::builder("video/mpeg")
                .field("mpegversion", 2)
                .field("systemstream", false)
                .build(),
            Self::Mpeg4 => gst::Caps::builder("video/mpeg")
                .field("mpegversion", 4)
                .field("systemstream", false)
                .build(),
            // One access unit in each buffer, as V4L2 has it: a parser that may not rely on that sees a
            // unit's end only where the next one begins.
            Self::H264 => access_units("video/x-h264"),
            Self::Hevc => access_units("video/x-h265"),
            Self::Vp8 => gst::Caps::new_empty_simple("video/x-vp8"),
            Self::Vp9 => gst::Caps::builder("video/x-vp9")
                .field("alignment", "frame")
                .build(),
            Self::Av1 => gst::Caps::builder("video/x-av1")
                .field("stream-format", "obu-stream")
                .field("alignment", "tu")
                .build(),
        }
    }

    /// What an encoder is to give: access units, with their headers in the stream.
    pub(crate) fn output_caps(self) -> gst::Caps {
        match self {
            Self::Vp9 => gst::Caps::new_empty_simple("video/x-vp9"),
            _ => self.input_caps(),
        }
    }
}

fn access_units(name: &str) -> gst::Caps {
    gst::Caps::builder(name)
        .field("stream-format", "byte-stream")
        .field("alignment", "au")
        .build()
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
