// SPDX-License-Identifier: Apache-2.0

//! Streams that cover what codecs can do, made by the host's encoders from `streams.txt`.

use std::collections::HashMap;

use agl_virtio_codec::{Codec, PixelFormat, Size};

use super::{Clip, encode, pictures_of};

/// Where a piece begins in time, in nanoseconds behind the one before.
const PIECE: u64 = 1 << 40;
/// H.264 as a device wants it.
const START_CODES: &str = "video/x-h264,stream-format=byte-stream,alignment=au";
/// An encoder that wants to have seen the pictures before.
const LAST_PASS: &str = "multipass-mode=last-pass";

/// A stream, and what is in it.
pub(crate) struct Stream {
    pub(crate) name: String,
    codec: Codec,
    pub(crate) clip: Clip,
}

impl Stream {
    /// What differs between pictures and what the host's own decoder makes of the stream: the sums of
    /// what is seen of them in NV12, and the units in which they came.
    pub(crate) fn differences(&self, sums: &[u64], units: &[u64]) -> Vec<String> {
        let numbers: HashMap<u64, u64> = self.clip.shown.iter().copied().zip(0..).collect();
        let expected = pictures_of(self.codec, &self.clip, PixelFormat::Nv12);
        assert!(
            expected.len() > 2,
            "{}: the host decodes nothing",
            self.name
        );
        let mut wrong = Vec::new();
        let differ = |at: &usize| expected.get(*at).map(|picture| &picture.0) != sums.get(*at);
        let differ: Vec<_> = (0..expected.len().max(sums.len())).filter(differ).collect();
        if !differ.is_empty() {
            let (here, there) = (sums.len(), expected.len());
            wrong.push(format!(
                "{here} pictures, {there} on the host, these differ: {differ:?}"
            ));
        }
        let unit_of = |shown: Option<u64>| shown.and_then(|shown| numbers.get(&shown).copied());
        let expected: Vec<_> = expected.iter().map(|picture| unit_of(picture.1)).collect();
        let came: Vec<_> = units.iter().copied().map(Some).collect();
        let same = match self.codec {
            // The host's parsers of MPEG invent times: there each unit has to come once.
            Codec::Mpeg2 | Codec::Mpeg4 => {
                let mut sorted = units.to_vec();
                sorted.sort_unstable();
                sorted == (0..self.clip.units.len() as u64).collect::<Vec<_>>()
            }
            _ => came == expected,
        };
        if !same {
            wrong.push(format!(
                "pictures of the units {came:?}, on the host {expected:?}"
            ));
        }
        wrong
            .into_iter()
            .map(|what| format!("{}: {what}", self.name))
            .collect()
    }
}

/// All streams of a codec.
pub(crate) fn of(codec: Codec) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    let mut wanted = false;
    for line in include_str!("streams.txt").lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let Some(piece) = line.strip_prefix("    ") else {
            let (head, _) = line.split_once(": ").unwrap();
            let (name, of) = head.split_once(' ').unwrap();
            wanted = of == codec.name();
            if wanted {
                streams.push(Stream {
                    name: name.to_owned(),
                    codec,
                    clip: Clip {
                        units: Vec::new(),
                        shown: Vec::new(),
                    },
                });
            }
            continue;
        };
        if let Some(stream) = streams.last_mut().filter(|_| wanted) {
            append(&mut stream.clip, codec, piece);
        }
    }
    streams
}

/// Codes a piece and puts it behind the others.
fn append(clip: &mut Clip, codec: Codec, piece: &str) {
    let mut words = piece.splitn(3, ' ');
    let (width, height) = words.next().unwrap().split_once('x').unwrap();
    let size = Size::new(width.parse().unwrap(), height.parse().unwrap());
    let pictures = words.next().unwrap().parse().unwrap();
    let rest = words.next().unwrap();
    let (dropped, encoder) = match rest.strip_prefix("drop ") {
        None => (0, rest),
        Some(rest) => {
            let (count, encoder) = rest.split_once(' ').unwrap();
            (count.parse().unwrap(), encoder)
        }
    };
    let more = coded(codec, encoder, size, pictures);
    let first = more.shown.iter().min().copied().unwrap();
    let base = clip.shown.iter().max().map_or(0, |last| last + PIECE);
    let shown = more.shown.iter().map(|shown| base + (shown - first));
    clip.shown.extend(shown.skip(dropped));
    clip.units.extend(more.units.into_iter().skip(dropped));
}

/// What an encoder gives, as start codes where there are such.
fn coded(codec: Codec, encoder: &str, size: Size, pictures: u32) -> Clip {
    let folder = tempfile::tempdir().unwrap();
    let mut encoder = match codec {
        // A filter may stand at the end already, and two are none.
        Codec::H264 => format!("{encoder} ! identity ! {START_CODES}"),
        _ => encoder.to_owned(),
    };
    if encoder.contains(LAST_PASS) {
        let cache = folder.path().join("passes");
        let with_cache = |pass| format!("{pass} multipass-cache-file={}", cache.display());
        let first = encoder.replace(LAST_PASS, &with_cache("multipass-mode=first-pass"));
        encode(&first, size, pictures);
        encoder = encoder.replace(LAST_PASS, &with_cache(LAST_PASS));
    }
    encode(&encoder, size, pictures)
}
