// SPDX-License-Identifier: Apache-2.0

//! How a raw picture lies in its owner's memory.

use gstreamer_video::VideoFormat;
use serde::{Deserialize, Serialize};

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Deserialize, Serialize)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// A size.
    #[must_use]
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// The least size with even sides that holds this one.
    #[must_use]
    pub fn even(self) -> Self {
        Self::new(
            self.width.saturating_add(self.width & 1),
            self.height.saturating_add(self.height & 1),
        )
    }

    /// Its pixels.
    #[must_use]
    pub fn pixels(self) -> u64 {
        u64::from(self.width).saturating_mul(self.height.into())
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A place in a picture, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Deserialize, Serialize)]
pub struct Position {
    /// Pixels to the left of it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
}

impl Position {
    /// A place.
    #[must_use]
    pub const fn new(left: u32, top: u32) -> Self {
        Self { left, top }
    }
}

/// Sizes that a guest may ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The smallest picture.
    pub least: Size,
    /// The largest.
    pub most: Size,
}

impl Limits {
    /// Whether a picture of this size is allowed.
    #[must_use]
    pub fn allow(&self, size: Size) -> bool {
        size.pixels() > 0 && size.width <= self.most.width && size.height <= self.most.height
    }

    /// The nearest size that is allowed.
    #[must_use]
    pub fn clamp(&self, size: Size) -> Size {
        Size::new(
            size.width.clamp(self.least.width, self.most.width),
            size.height.clamp(self.least.height, self.most.height),
        )
    }
}

/// The order of samples.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub enum PixelFormat {
    /// Luma, then pairs of chroma (blue, red) for two by two pixels.
    Nv12,
    /// Luma, then blue chroma, then red chroma for two by two pixels.
    I420,
    /// As I420, red chroma first.
    Yv12,
    /// Bytes alpha, red, green, blue.
    Argb,
    /// Bytes blue, green, red, alpha.
    Bgra,
    /// Bytes red, green, blue, alpha.
    Rgba,
}

impl PixelFormat {
    /// All of them, the preferred one first.
    pub const ALL: [Self; 6] = [
        Self::Nv12,
        Self::I420,
        Self::Yv12,
        Self::Argb,
        Self::Bgra,
        Self::Rgba,
    ];

    pub(crate) const fn video_format(self) -> VideoFormat {
        match self {
            Self::Nv12 => VideoFormat::Nv12,
            Self::I420 => VideoFormat::I420,
            Self::Yv12 => VideoFormat::Yv12,
            Self::Argb => VideoFormat::Argb,
            Self::Bgra => VideoFormat::Bgra,
            Self::Rgba => VideoFormat::Rgba,
        }
    }

    /// Whether chroma has half the resolution.
    pub(crate) const fn is_subsampled(self) -> bool {
        matches!(self, Self::Nv12 | Self::I420 | Self::Yv12)
    }

    /// Planes of a picture.
    #[must_use]
    pub const fn planes(self) -> usize {
        match self {
            Self::Nv12 => 2,
            Self::I420 | Self::Yv12 => 3,
            Self::Argb | Self::Bgra | Self::Rgba => 1,
        }
    }

    /// The least bytes from a row to the next of the first plane.
    #[must_use]
    pub fn least_stride(self, width: u32) -> u32 {
        match self {
            Self::Nv12 | Self::I420 | Self::Yv12 => width.saturating_add(width & 1),
            Self::Argb | Self::Bgra | Self::Rgba => width.saturating_mul(4),
        }
    }
}

/// One plane of a [`Layout`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Plane {
    /// Where it begins when the planes follow each other without a gap, in bytes.
    pub offset: usize,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Its rows.
    pub rows: usize,
    /// Where in it what is seen begins, in bytes.
    pub seen: usize,
}

impl Plane {
    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.stride.saturating_mul(self.rows)
    }

    /// Where in it a row of what is seen begins, in bytes.
    #[must_use]
    pub fn row(&self, number: usize) -> usize {
        number.saturating_mul(self.stride).saturating_add(self.seen)
    }
}

/// A picture in memory: planes of rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Layout {
    /// The order of samples.
    pub format: PixelFormat,
    /// The size of the memory, not of what is seen: even for subsampled formats.
    pub size: Size,
    /// Bytes from a row to the next of the first plane; for three planes, twice that of the others.
    pub stride: u32,
    /// Where what is seen begins. Subsampled formats have whole samples there: of an odd place, the even
    /// one before it counts.
    pub origin: Position,
}

impl Layout {
    /// The layout whose rows are a multiple of `align` bytes long (at least 1).
    #[must_use]
    pub fn packed(format: PixelFormat, size: Size, align: u32) -> Self {
        let size = if format.is_subsampled() {
            size.even()
        } else {
            size
        };
        let least = format.least_stride(size.width);
        Self {
            format,
            size,
            stride: least
                .checked_next_multiple_of(align.max(1))
                .unwrap_or(least),
            origin: Position::default(),
        }
    }

    /// Whether a picture of this size is all in it, from the origin on.
    #[must_use]
    pub fn holds(&self, seen: Size) -> bool {
        let fits =
            |begin: u32, len: u32, all: u32| begin.checked_add(len).is_some_and(|end| end <= all);
        fits(self.origin.left, seen.width, self.size.width)
            && fits(self.origin.top, seen.height, self.size.height)
    }

    /// Its planes, in memory's order.
    #[must_use]
    pub fn planes(&self) -> Vec<Plane> {
        let (stride, rows) = (self.stride as usize, self.size.height as usize);
        let half_rows = rows.div_ceil(2);
        // Of each plane: bytes of a row, rows, and the bytes and rows before what is seen.
        let (left, top) = (self.origin.left as usize, self.origin.top as usize);
        let (pairs, half_top) = (left / 2, top / 2);
        let whole = (pairs.saturating_mul(2), half_top.saturating_mul(2));
        let luma = (stride, rows, whole);
        let shapes: &[(usize, usize, (usize, usize))] = match self.format {
            PixelFormat::Nv12 => &[luma, (stride, half_rows, (whole.0, half_top))],
            PixelFormat::I420 | PixelFormat::Yv12 => {
                let chroma = (stride / 2, half_rows, (pairs, half_top));
                &[luma, chroma, chroma]
            }
            PixelFormat::Argb | PixelFormat::Bgra | PixelFormat::Rgba => {
                &[(stride, rows, (left.saturating_mul(4), top))]
            }
        };
        let mut offset = 0_usize;
        shapes
            .iter()
            .map(|(stride, rows, (before, above))| {
                let plane = Plane {
                    offset,
                    stride: *stride,
                    rows: *rows,
                    seen: above.saturating_mul(*stride).saturating_add(*before),
                };
                offset = offset.saturating_add(plane.size());
                plane
            })
            .collect()
    }

    /// Bytes of the whole picture.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.planes()
            .iter()
            .fold(0, |sum, plane| sum.saturating_add(plane.size()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_follow_each_other_without_a_gap() {
        let layout = Layout::packed(PixelFormat::Nv12, Size::new(175, 143), 16);
        assert_eq!((layout.size, layout.stride), (Size::new(176, 144), 176));
        let planes = layout.planes();
        assert_eq!(planes[1].offset, 176 * 144);
        assert_eq!(layout.bytes(), 176 * 144 * 3 / 2);
        let layout = Layout::packed(PixelFormat::I420, Size::new(178, 144), 16);
        assert_eq!(layout.stride, 192);
        assert_eq!(layout.planes()[2].offset, 192 * 144 + 96 * 72);
        assert_eq!(layout.bytes(), 192 * 144 * 3 / 2);
    }

    #[test]
    fn what_is_seen_begins_at_a_whole_sample_of_each_plane() {
        let at = |format, left, top| {
            let mut layout = Layout::packed(format, Size::new(64, 48), 16);
            layout.origin = Position::new(left, top);
            let planes = layout.planes();
            planes.iter().map(|plane| plane.seen).collect::<Vec<_>>()
        };
        assert_eq!(at(PixelFormat::Nv12, 0, 0), [0, 0]);
        assert_eq!(at(PixelFormat::Nv12, 6, 4), [64 * 4 + 6, 64 * 2 + 6]);
        assert_eq!(at(PixelFormat::Nv12, 7, 5), at(PixelFormat::Nv12, 6, 4));
        let chroma = 32 * 2 + 3;
        assert_eq!(at(PixelFormat::I420, 6, 4), [64 * 4 + 6, chroma, chroma]);
        assert_eq!(at(PixelFormat::Rgba, 7, 5), [256 * 5 + 28]);
    }

    #[test]
    fn a_picture_is_held_only_where_all_of_it_lies_in_memory() {
        let mut layout = Layout::packed(PixelFormat::Nv12, Size::new(64, 48), 16);
        assert!(layout.holds(Size::new(64, 48)));
        layout.origin = Position::new(4, 2);
        assert!(layout.holds(Size::new(60, 46)));
        assert!(!layout.holds(Size::new(61, 46)));
        assert!(!layout.holds(Size::new(60, 47)));
        layout.origin = Position::new(u32::MAX, u32::MAX);
        assert!(!layout.holds(Size::new(2, 2)));
        // Nothing is calculated beyond what numbers can say.
        assert_eq!(layout.planes().len(), 2);
    }

    #[test]
    fn rgb_has_one_plane_and_may_be_odd() {
        let layout = Layout::packed(PixelFormat::Argb, Size::new(175, 143), 16);
        assert_eq!((layout.size, layout.stride), (Size::new(175, 143), 704));
        assert_eq!(layout.bytes(), 704 * 143);
    }
}
