// SPDX-License-Identifier: Apache-2.0

//! What pictures a camera gives: formats, sizes, rates.

use std::time::Duration;

use crate::statistics::Work;
use crate::v4l2::format::{COLORSPACE_SMPTE170M, COLORSPACE_SRGB, FIELD_NONE, PRIV_MAGIC};
use crate::v4l2::{FourCc, Fraction, PixFormat};

/// How pixels lie.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize)]
pub enum PixelFormat {
    /// Luma, then pairs of chroma for two by two pixels.
    #[serde(rename = "NV12")]
    Nv12,
    /// Luma, then one chroma and the other, each for two by two pixels.
    #[serde(rename = "YU12")]
    Yu12,
    /// Luma and chroma in turn, chroma for two pixels of a row.
    #[serde(rename = "YUYV")]
    Yuyv,
    /// Red, green, blue.
    #[serde(rename = "RGB3")]
    Rgb3,
}

impl PixelFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nv12, Self::Yu12, Self::Yuyv, Self::Rgb3];

    /// As V4L2 names it.
    #[must_use]
    pub const fn fourcc(self) -> FourCc {
        FourCc::new(match self {
            Self::Nv12 => b"NV12",
            Self::Yu12 => b"YU12",
            Self::Yuyv => b"YUYV",
            Self::Rgb3 => b"RGB3",
        })
    }

    /// As GStreamer names it.
    #[must_use]
    pub const fn gstreamer_name(self) -> &'static str {
        match self {
            Self::Nv12 => "NV12",
            Self::Yu12 => "I420",
            Self::Yuyv => "YUY2",
            Self::Rgb3 => "RGB",
        }
    }

    /// By its four characters.
    #[must_use]
    pub fn from_fourcc(fourcc: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.fourcc().0 == fourcc)
    }
}

/// From one picture to the next: `numerator / denominator` seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interval {
    /// Pictures in a second.
    rate: u32,
}

impl Interval {
    /// So many pictures in a second, one at least.
    #[must_use]
    pub fn per_second(rate: u32) -> Self {
        Self { rate: rate.max(1) }
    }

    /// Pictures in a second.
    #[must_use]
    pub fn rate(self) -> u32 {
        self.rate
    }

    /// In V4L2's words.
    #[must_use]
    pub fn fraction(self) -> Fraction {
        Fraction {
            numerator: 1,
            denominator: self.rate,
        }
    }

    /// How many intervals have passed until `now`, and when the next one ends.
    #[must_use]
    pub fn tick(self, now: Duration) -> (u64, Duration) {
        let second = 1_000_000_000_u128;
        let rate = u128::from(self.rate.max(1));
        let number = now
            .as_nanos()
            .saturating_mul(rate)
            .checked_div(second)
            .unwrap_or(0);
        let next = number.saturating_add(1).saturating_mul(second);
        let next = next.div_ceil(rate);
        let next = Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX));
        (u64::try_from(number).unwrap_or(u64::MAX), next)
    }
}

/// Pixels of a row, and rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// What a stream of pictures is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mode {
    /// How pixels lie.
    pub format: PixelFormat,
    /// Pixels of a row: even.
    pub width: u32,
    /// Rows: even.
    pub height: u32,
    /// From one picture to the next.
    pub interval: Interval,
}

/// Where a plane lies in a picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PlaneLayout {
    /// Its first byte.
    pub offset: usize,
    /// Bytes of a row.
    pub stride: usize,
    /// Rows of it for two rows of pixels.
    pub rows_per_cell: usize,
}

/// Where planes lie in a picture, one right behind the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    /// The planes.
    pub planes: Vec<PlaneLayout>,
    /// Bytes in all.
    pub size: usize,
}

impl Mode {
    /// Where the planes lie.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let width = usize::try_from(self.width).unwrap_or(0);
        let cells = usize::try_from(self.height / 2).unwrap_or(0);
        let half = width / 2;
        let planes: &[(usize, usize)] = match self.format {
            PixelFormat::Nv12 => &[(width, 2), (width, 1)],
            PixelFormat::Yu12 => &[(width, 2), (half, 1), (half, 1)],
            PixelFormat::Yuyv => &[(width.saturating_mul(2), 2)],
            PixelFormat::Rgb3 => &[(width.saturating_mul(3), 2)],
        };
        let mut size = 0_usize;
        let planes = planes.iter().map(|&(stride, rows_per_cell)| {
            let offset = size;
            let rows = cells.saturating_mul(rows_per_cell);
            size = size.saturating_add(stride.saturating_mul(rows));
            PlaneLayout {
                offset,
                stride,
                rows_per_cell,
            }
        });
        Layout {
            planes: planes.collect(),
            size,
        }
    }

    /// As it is told on the bus.
    #[must_use]
    pub fn work(&self) -> Work {
        Work {
            what: self.format.fourcc(),
            width: self.width,
            height: self.height,
            rate: self.interval.rate(),
            process: 0,
        }
    }

    /// In V4L2's words.
    #[must_use]
    pub fn pix(&self) -> PixFormat {
        let layout = self.layout();
        let short = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        PixFormat {
            width: self.width,
            height: self.height,
            pixelformat: self.format.fourcc().0,
            field: FIELD_NONE,
            bytesperline: layout.planes.first().map_or(0, |plane| short(plane.stride)),
            sizeimage: short(layout.size),
            colorspace: match self.format {
                PixelFormat::Rgb3 => COLORSPACE_SRGB,
                _ => COLORSPACE_SMPTE170M,
            },
            priv_: PRIV_MAGIC,
            ..PixFormat::default()
        }
    }
}

/// All modes of a camera: each format in each size at each rate.
#[derive(Clone, Debug)]
pub struct Modes {
    /// The first one is the one at first.
    pub formats: Vec<PixelFormat>,
    /// The first one is the one at first.
    pub sizes: Vec<Size>,
    /// Pictures in a second. The first one is the one at first.
    pub rates: Vec<u32>,
}

impl Modes {
    /// The mode that a camera starts in.
    #[must_use]
    pub fn first(&self) -> Mode {
        let size = self.sizes.first().copied();
        let size = size.unwrap_or(Size {
            width: 640,
            height: 480,
        });
        Mode {
            format: self.formats.first().copied().unwrap_or(PixelFormat::Nv12),
            width: size.width,
            height: size.height,
            interval: Interval::per_second(self.rates.first().copied().unwrap_or(30)),
        }
    }

    /// The mode that comes nearest to a wish.
    #[must_use]
    pub fn nearest(&self, wish: &PixFormat, now: Mode) -> Mode {
        let format = PixelFormat::from_fourcc(wish.pixelformat)
            .filter(|format| self.formats.contains(format))
            .unwrap_or(self.first().format);
        let far = |size: &Size| {
            u64::from(size.width.abs_diff(wish.width))
                .saturating_add(size.height.abs_diff(wish.height).into())
        };
        let size = self.sizes.iter().copied().min_by_key(far);
        let size = size.unwrap_or(Size {
            width: now.width,
            height: now.height,
        });
        Mode {
            format,
            width: size.width,
            height: size.height,
            interval: now.interval,
        }
    }

    /// The rate that comes nearest to a wish; the one at first for a wish that is none.
    #[must_use]
    pub fn nearest_rate(&self, wish: Fraction) -> Interval {
        let Some(rate) = wish
            .denominator
            .checked_div(wish.numerator)
            .filter(|_| wish.denominator > 0)
        else {
            return self.first().interval;
        };
        let nearest = self.rates.iter().min_by_key(|known| known.abs_diff(rate));
        Interval::per_second(nearest.copied().unwrap_or(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_come_at_the_same_instants_for_everybody() {
        let interval = Interval::per_second(30);
        let (number, next) = interval.tick(Duration::from_millis(1010));
        assert_eq!(number, 30);
        assert_eq!(
            interval.tick(next),
            (31, Duration::from_nanos(1_066_666_667))
        );
        let (again, _) = interval.tick(next.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(again, 30);
    }

    #[test]
    fn a_wish_gets_the_nearest_size_and_rate() {
        let modes = Modes {
            formats: vec![PixelFormat::Yuyv, PixelFormat::Nv12],
            sizes: [(640, 480), (1280, 720)]
                .map(|(width, height)| Size { width, height })
                .into(),
            rates: vec![30, 15],
        };
        let now = modes.first();
        let wish = |width, height, pixelformat: FourCc| PixFormat {
            width,
            height,
            pixelformat: pixelformat.0,
            ..PixFormat::default()
        };
        let got = modes.nearest(&wish(u32::MAX, u32::MAX, FourCc::new(b"NV12")), now);
        assert_eq!(
            (got.width, got.height, got.format),
            (1280, 720, PixelFormat::Nv12)
        );
        let got = modes.nearest(&wish(0, 0, FourCc::new(b"RGB3")), now);
        assert_eq!(
            (got.width, got.height, got.format),
            (640, 480, PixelFormat::Yuyv)
        );
        let rate = |numerator, denominator| {
            modes
                .nearest_rate(Fraction {
                    numerator,
                    denominator,
                })
                .rate()
        };
        assert_eq!(
            (rate(1, 16), rate(1, 1000), rate(0, 0), rate(0, 7)),
            (15, 30, 30, 30)
        );
    }
}
