// SPDX-License-Identifier: Apache-2.0

//! A stream's parameters in GStreamer's words.

use gstreamer as gst;

use super::super::channels::Reorder;
use crate::format::{Format, Params};

/// Whether GStreamer has such a format.
pub(super) const fn is_known(format: Format) -> bool {
    matches!(format, Format::MuLaw | Format::ALaw) || raw(format).is_some()
}

/// GStreamer's name of a linear format. It calls packed what VIRTIO calls `_3`; samples of 20 bits
/// in a container of 32 it does not know before 1.28.
const fn raw(format: Format) -> Option<&'static str> {
    Some(match format {
        Format::S8 => "S8",
        Format::U8 => "U8",
        Format::S16 => "S16LE",
        Format::U16 => "U16LE",
        Format::S18Packed => "S18LE",
        Format::U18Packed => "U18LE",
        Format::S20Packed => "S20LE",
        Format::U20Packed => "U20LE",
        Format::S24Packed => "S24LE",
        Format::U24Packed => "U24LE",
        Format::S24 => "S24_32LE",
        Format::U24 => "U24_32LE",
        Format::S32 => "S32LE",
        Format::U32 => "U32LE",
        Format::Float => "F32LE",
        Format::Float64 => "F64LE",
        _ => return None,
    })
}

/// How frames of a stream lie in GStreamer's buffers.
pub(super) struct Layout {
    /// The type of the buffers.
    pub(super) caps: gst::Caps,
    /// The positions in the order that GStreamer wants, empty where there are none.
    order: Vec<u8>,
}

impl Layout {
    /// `None` for a format that GStreamer does not have.
    pub(super) fn new(params: &Params, positions: &[u8]) -> Option<Self> {
        let rate = i32::try_from(params.rate.hertz()).ok()?;
        let channels = i32::from(params.channels);
        let name = match params.format {
            Format::MuLaw => "audio/x-mulaw",
            Format::ALaw => "audio/x-alaw",
            _ => "audio/x-raw",
        };
        let mut caps = gst::Caps::builder(name)
            .field("rate", rate)
            .field("channels", channels);
        let (mask, order) = mask(params.channels, positions);
        if let Some(format) = raw(params.format) {
            caps = caps.field("format", format).field("layout", "interleaved");
            if params.channels > 1 {
                caps = caps.field("channel-mask", gst::Bitmask::new(mask));
            }
        } else if !is_known(params.format) {
            return None;
        }
        Some(Self {
            caps: caps.build(),
            order,
        })
    }

    /// What leads from the stream's order to GStreamer's, if they differ.
    pub(super) fn towards(&self, positions: &[u8]) -> Option<Reorder> {
        Reorder::between(positions, &self.order).filter(|reorder| !reorder.is_identity())
    }

    /// What leads from GStreamer's order to the stream's, if they differ.
    pub(super) fn back(&self, positions: &[u8]) -> Option<Reorder> {
        Reorder::between(&self.order, positions).filter(|reorder| !reorder.is_identity())
    }
}

/// The mask of channels, and the stream's positions in the order of its bits. Without positions, two
/// channels are left and right, and any other number is channels without a place (mask 0).
fn mask(channels: u8, positions: &[u8]) -> (u64, Vec<u8>) {
    let bits: Option<Vec<(u32, u8)>> = positions
        .iter()
        .map(|&position| bit(position).map(|bit| (bit, position)))
        .collect();
    let usable = bits.filter(|bits| {
        bits.len() == usize::from(channels)
            && Reorder::between(positions, positions).is_some()
            && channels > 1
    });
    match usable {
        Some(mut bits) => {
            bits.sort_unstable();
            let mask = bits.iter().fold(0, |mask, (bit, _)| mask | 1_u64 << bit);
            (
                mask,
                bits.into_iter().map(|(_, position)| position).collect(),
            )
        }
        None if channels == 2 && positions.is_empty() => (0b11, Vec::new()),
        None => (0, Vec::new()),
    }
}

/// The bit of a position (`VIRTIO_SND_CHMAP_*`) in GStreamer's mask. It has no heights in front, nor
/// two sub-woofers by side.
const fn bit(position: u8) -> Option<u32> {
    Some(match position {
        3 => 0,   // front left
        4 => 1,   // front right
        7 => 2,   // front centre
        8 => 3,   // low frequencies
        5 => 4,   // rear left
        6 => 5,   // rear right
        12 => 6,  // front left of centre
        13 => 7,  // front right of centre
        11 => 8,  // rear centre
        9 => 10,  // side left
        10 => 11, // side right
        22 => 12, // top front left
        23 => 13, // top front right
        24 => 14, // top front centre
        21 => 15, // top centre
        25 => 16, // top rear left
        26 => 17, // top rear right
        30 => 18, // top side left
        31 => 19, // top side right
        27 => 20, // top rear centre
        34 => 21, // bottom centre
        16 => 24, // front left wide
        17 => 25, // front right wide
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_one_goes_in_the_order_of_the_mask() {
        let alsa = [3, 4, 5, 6, 7, 8];
        let (bits, order) = mask(6, &alsa);
        assert_eq!(bits, 0x3f);
        assert_eq!(order, [3, 4, 7, 8, 5, 6]);
    }

    #[test]
    fn channels_without_known_places_have_no_mask() {
        assert_eq!(mask(2, &[]), (3, vec![]));
        assert_eq!(mask(4, &[]), (0, vec![]));
        assert_eq!(mask(2, &[18, 20]), (0, vec![]));
        assert_eq!(mask(2, &[3, 3]), (0, vec![]));
        assert_eq!(mask(1, &[2]), (0, vec![]));
    }
}
