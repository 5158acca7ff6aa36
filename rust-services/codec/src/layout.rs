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
}

impl Plane {
    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.stride.saturating_mul(self.rows)
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
        }
    }

    /// Its planes, in memory's order.
    #[must_use]
    pub fn planes(&self) -> Vec<Plane> {
        let (stride, rows) = (self.stride as usize, self.size.height as usize);
        let half_rows = rows.div_ceil(2);
        let shapes: &[(usize, usize)] = match self.format {
            PixelFormat::Nv12 => &[(stride, rows), (stride, half_rows)],
            PixelFormat::I420 | PixelFormat::Yv12 => {
                let half = stride / 2;
                &[(stride, rows), (half, half_rows), (half, half_rows)]
            }
            PixelFormat::Argb | PixelFormat::Bgra | PixelFormat::Rgba => &[(stride, rows)],
        };
        let mut offset = 0_usize;
        shapes
            .iter()
            .map(|(stride, rows)| {
                let plane = Plane {
                    offset,
                    stride: *stride,
                    rows: *rows,
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
    fn rgb_has_one_plane_and_may_be_odd() {
        let layout = Layout::packed(PixelFormat::Argb, Size::new(175, 143), 16);
        assert_eq!((layout.size, layout.stride), (Size::new(175, 143), 704));
        assert_eq!(layout.bytes(), 704 * 143);
    }
}
