// SPDX-License-Identifier: Apache-2.0

//! Which GStreamer elements are behind the codecs, and which of them are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use gst::prelude::*;
use gstreamer as gst;
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::error::CodecError;

/// Sessions that were given up may hang in an element; no more of them than this are left behind.
const MOST_HANGING: usize = 8;
/// What every pipeline has beside its codec.
const AROUND: &str = "appsrc ! videoconvert ! capsfilter ! appsink";

/// The elements of each codec, as a piece of a pipeline: parser and codec with their properties,
/// `h264parse ! omxh264dec` for example.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Elements {
    /// Decoders. A codec that is not named is not offered.
    pub decoders: BTreeMap<Codec, String>,
    /// Encoders.
    pub encoders: BTreeMap<Codec, String>,
}

impl Default for Elements {
    /// Codecs in software, as Debian and OE-core package them.
    fn default() -> Self {
        let map = |list: &[(Codec, &str)]| {
            list.iter()
                .map(|(codec, text)| (*codec, (*text).to_owned()))
                .collect()
        };
        Self {
            decoders: map(&[
                (Codec::Mpeg2, "mpegvideoparse ! avdec_mpeg2video"),
                (Codec::Mpeg4, "mpeg4videoparse ! avdec_mpeg4"),
                // One picture at a time: threads over several would keep some back.
                (Codec::H264, "h264parse ! avdec_h264 thread-type=slice"),
                (Codec::Hevc, "h265parse ! avdec_h265 thread-type=slice"),
                (Codec::Vp8, "vp8dec"),
                (Codec::Vp9, "vp9parse ! vp9dec"),
                (Codec::Av1, "av1parse ! av1dec"),
            ]),
            encoders: map(&[
                (
                    Codec::H264,
                    "x264enc tune=zerolatency speed-preset=veryfast key-int-max=250",
                ),
                (
                    Codec::Hevc,
                    "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=250",
                ),
                (
                    Codec::Vp8,
                    "vp8enc deadline=1 cpu-used=8 error-resilient=default lag-in-frames=0",
                ),
                (Codec::Vp9, "vp9enc deadline=1 cpu-used=8 lag-in-frames=0"),
            ]),
        }
    }
}

impl Elements {
    /// Those of a device that only decodes, and only these codecs; without a list, all.
    #[must_use]
    pub fn of_decoder(&self, codecs: Option<&[Codec]>) -> Self {
        Self {
            decoders: only(&self.decoders, codecs),
            encoders: BTreeMap::new(),
        }
    }

    /// The same for one that only encodes.
    #[must_use]
    pub fn of_encoder(&self, codecs: Option<&[Codec]>) -> Self {
        Self {
            decoders: BTreeMap::new(),
            encoders: only(&self.encoders, codecs),
        }
    }
}

fn only(all: &BTreeMap<Codec, String>, codecs: Option<&[Codec]>) -> BTreeMap<Codec, String> {
    let mut wanted = all.clone();
    wanted.retain(|codec, _| codecs.is_none_or(|codecs| codecs.contains(codec)));
    wanted
}

/// The codecs that can be used.
#[derive(Clone, Debug)]
pub struct Library {
    decoders: BTreeMap<Codec, String>,
    encoders: BTreeMap<Codec, String>,
    /// Held by the thread of every session.
    sessions: Arc<()>,
    closed: Arc<()>,
}

impl Library {
    /// Starts GStreamer and makes each element once, which also loads its plug-in: call it before the
    /// sandbox. A codec whose elements cannot be made is left out, and the log says why.
    ///
    /// # Errors
    /// GStreamer does not start.
    pub fn load(elements: &Elements) -> Result<Self, CodecError> {
        gst::init().map_err(|error| CodecError::Library {
            reason: error.to_string(),
        })?;
        Ok(Self {
            decoders: present("decoder", &elements.decoders),
            encoders: present("encoder", &elements.encoders),
            sessions: Arc::default(),
            closed: Arc::default(),
        })
    }

    /// What can be decoded.
    pub fn decoders(&self) -> impl Iterator<Item = Codec> + '_ {
        self.decoders.keys().copied()
    }

    /// What can be encoded.
    pub fn encoders(&self) -> impl Iterator<Item = Codec> + '_ {
        self.encoders.keys().copied()
    }

    pub(crate) fn decoder(&self, codec: Codec) -> Result<&str, CodecError> {
        let found = self.decoders.get(&codec).map(String::as_str);
        found.ok_or(CodecError::NotOffered { codec })
    }

    pub(crate) fn encoder(&self, codec: Codec) -> Result<&str, CodecError> {
        let found = self.encoders.get(&codec).map(String::as_str);
        found.ok_or(CodecError::NotOffered { codec })
    }

    /// Two places: one is held while a session's thread lives, the other while its owner does. Refused
    /// when too many threads have outlived their owners.
    pub(crate) fn admit(&self) -> Result<(Arc<()>, Arc<()>), CodecError> {
        let threads = Arc::strong_count(&self.sessions);
        let owners = Arc::strong_count(&self.closed);
        let hanging = threads.saturating_sub(owners);
        if hanging > MOST_HANGING {
            return Err(CodecError::TooManyHang { hanging });
        }
        Ok((Arc::clone(&self.sessions), Arc::clone(&self.closed)))
    }
}

fn present(kind: &str, configured: &BTreeMap<Codec, String>) -> BTreeMap<Codec, String> {
    let mut found = BTreeMap::new();
    for (codec, text) in configured {
        match check(text) {
            Ok(()) => {
                found.insert(*codec, text.clone());
            }
            Err(reason) => log::warn!("no {kind} for {codec}: \"{text}\": {reason}"),
        }
    }
    found
}

/// Makes the elements of a description and gives them back.
fn check(text: &str) -> Result<(), String> {
    // What every pipeline has beside its codec is to be loaded as well.
    drop(gst::parse::launch(AROUND).map_err(|error| error.to_string())?);
    let bin = gst::parse::bin_from_description(text, false).map_err(|error| error.to_string())?;
    codec_element(&bin).map(|_| ())
}

/// The element that codes: the one whose class says so.
pub(crate) fn codec_element(bin: &impl IsA<gst::Bin>) -> Result<gst::Element, String> {
    bin.iterate_elements()
        .into_iter()
        .filter_map(Result::ok)
        .find(|element| {
            element
                .factory()
                .and_then(|factory| factory.metadata("klass").map(|klass| klass.to_string()))
                .is_some_and(|klass| klass.contains("Decoder") || klass.contains("Encoder"))
        })
        .ok_or_else(|| "none of these elements is a decoder or an encoder".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_only_the_elements_of_what_it_does() {
        let all = Elements::default();
        let decoder = all.of_decoder(Some(&[Codec::Vp8, Codec::Av1]));
        assert!(decoder.encoders.is_empty());
        let names: Vec<_> = decoder.decoders.keys().collect();
        assert_eq!(names, [&Codec::Vp8, &Codec::Av1]);
        let encoder = all.of_encoder(None);
        assert!(encoder.decoders.is_empty());
        assert_eq!(encoder.encoders, all.encoders);
    }
}
