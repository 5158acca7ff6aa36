// SPDX-License-Identifier: Apache-2.0

//! The order of channels in a frame, where a guest's and a server's differ.

use crate::wire::position;

/// The channel maps that the driver of a stream was told of: positions as `VIRTIO_SND_CHMAP_*`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Maps(Vec<Vec<u8>>);

impl Maps {
    /// These maps, of which the first that fits is taken.
    #[must_use]
    pub fn new(maps: Vec<Vec<u8>>) -> Self {
        Self(maps)
    }

    /// The positions of a stream of so many channels: those of its map, or the usual ones of ALSA,
    /// or none.
    #[must_use]
    pub fn of(&self, channels: u8) -> Vec<u8> {
        let configured = self.0.iter().find(|map| map.len() == usize::from(channels));
        configured.cloned().unwrap_or_else(|| {
            let usual = position::standard(channels).iter();
            usual.filter_map(|name| position::from_name(name)).collect()
        })
    }
}

/// A change of the order of samples in each frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reorder {
    /// For each sample of the new frame, which one of the old it is.
    sources: Vec<usize>,
}

/// Samples are 8 bytes at most, and frames hold 18 of them at most.
const LARGEST_FRAME: usize = 8 * 18;

impl Reorder {
    /// What leads from frames in the order `from` to frames in the order `to` (channel positions as
    /// `VIRTIO_SND_CHMAP_*`). `None` when they do not hold the same positions, each once.
    #[must_use]
    pub fn between(from: &[u8], to: &[u8]) -> Option<Self> {
        let unique = |map: &[u8]| {
            map.iter()
                .all(|position| map.iter().filter(|other| *other == position).count() == 1)
        };
        if from.len() != to.len() || !unique(from) || !unique(to) {
            return None;
        }
        let sources: Option<Vec<usize>> = to
            .iter()
            .map(|wanted| from.iter().position(|there| there == wanted))
            .collect();
        sources.map(|sources| Self { sources })
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.sources.iter().copied().eq(0..self.sources.len())
    }

    /// Reorders whole frames of samples of `width` bytes (1 to 8) in place.
    pub fn apply(&self, frames: &mut [u8], width: usize) {
        let frame_bytes = self.sources.len().saturating_mul(width);
        let mut old = [0_u8; LARGEST_FRAME];
        let (Some(old), 1..) = (old.get_mut(..frame_bytes), width) else {
            return;
        };
        for frame in frames.chunks_exact_mut(frame_bytes.max(1)) {
            old.copy_from_slice(frame);
            for (sample, source) in frame.chunks_exact_mut(width).zip(&self.sources) {
                if let Some(moved) = old.chunks_exact(width).nth(*source) {
                    sample.copy_from_slice(moved);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As Linux orders 5.1, and as WAV files and GStreamer do.
    const ALSA: [u8; 6] = [3, 4, 5, 6, 7, 8];
    const WAV: [u8; 6] = [3, 4, 7, 8, 5, 6];

    #[test]
    fn every_sample_finds_its_place_and_the_way_back() {
        let there = Reorder::between(&ALSA, &WAV).unwrap();
        let back = Reorder::between(&WAV, &ALSA).unwrap();
        assert!(!there.is_identity());
        for width in 1..=8_usize {
            let frames: Vec<u8> = (0..12 * width).map(|n| (n / width) as u8).collect();
            let mut moved = frames.clone();
            there.apply(&mut moved, width);
            let order: Vec<u8> = moved.iter().step_by(width).copied().collect();
            assert_eq!(order, [0, 1, 4, 5, 2, 3, 6, 7, 10, 11, 8, 9]);
            back.apply(&mut moved, width);
            assert_eq!(moved, frames);
        }
    }

    #[test]
    fn a_stream_has_the_map_of_its_channels_or_the_usual_one() {
        let maps = Maps::new(vec![vec![3, 4, 8], vec![4, 3]]);
        assert_eq!(maps.of(3), [3, 4, 8]);
        assert_eq!(maps.of(2), [4, 3]);
        assert_eq!(maps.of(6), ALSA);
        assert_eq!(Maps::default().of(2), [3, 4]);
    }

    #[test]
    fn only_the_same_positions_can_be_reordered() {
        assert!(Reorder::between(&ALSA, &ALSA).unwrap().is_identity());
        assert_eq!(Reorder::between(&[3, 4], &[3, 7]), None);
        assert_eq!(Reorder::between(&[3, 3], &[3, 3]), None);
        assert_eq!(Reorder::between(&[3, 4], &ALSA), None);
    }
}
