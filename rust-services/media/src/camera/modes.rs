// SPDX-License-Identifier: Apache-2.0

//! What pictures a camera gives: formats, sizes, rates.

use super::source::Source;
use crate::rate::{Rate, Rates};
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

/// Pixels of a row, and rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Where nobody has said one.
const USUAL_SIZE: Size = Size {
    width: 640,
    height: 480,
};

/// What a stream of pictures is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mode {
    /// How pixels lie.
    pub format: PixelFormat,
    /// Pixels of a row: even.
    pub width: u32,
    /// Rows: even.
    pub height: u32,
    /// Pictures in a second.
    pub rate: Rate,
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
            rate: self.rate.as_f64(),
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

/// A size, and how often there are pictures of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offered {
    /// The size.
    pub size: Size,
    /// Pictures in a second.
    pub rates: Rates,
}

impl Offered {
    /// Pixels in a second, at most.
    #[must_use]
    pub fn pixel_rate(&self) -> u64 {
        let Size { width, height } = self.size;
        u64::from(width)
            .saturating_mul(height.into())
            .saturating_mul(self.rates.most().ceil().into())
    }
}

/// All modes of a camera: each format in each size, at each rate of that size.
#[derive(Clone, Debug)]
pub struct Modes {
    /// The first one is the one at first.
    pub formats: Vec<PixelFormat>,
    /// The first one is the one at first.
    pub sizes: Vec<Offered>,
}

impl Modes {
    /// Takes over the rates that a camera says of its own, as far as they keep to so many pixels in a
    /// second.
    #[must_use]
    pub fn at_rates_of(mut self, source: &mut dyn Source, max_pixel_rate: u64) -> Self {
        for offered in &mut self.sizes {
            let Size { width, height } = offered.size;
            let pixels = u64::from(width).saturating_mul(height.into());
            let most = max_pixel_rate.checked_div(pixels).unwrap_or(0);
            let most = Rate::per_second(u32::try_from(most).unwrap_or(u32::MAX));
            let own = source.rates(offered.size);
            if let Some(rates) = own.and_then(|rates| rates.up_to(most)) {
                offered.rates = rates;
            }
        }
        self
    }

    /// The mode that a camera starts in.
    #[must_use]
    pub fn first(&self) -> Mode {
        let (size, rate) = match self.sizes.first() {
            Some(offered) => (offered.size, offered.rates.first()),
            None => (USUAL_SIZE, Rate::USUAL),
        };
        Mode {
            format: self.formats.first().copied().unwrap_or(PixelFormat::Nv12),
            width: size.width,
            height: size.height,
            rate,
        }
    }

    /// The mode that comes nearest to a wish.
    #[must_use]
    pub fn nearest(&self, wish: &PixFormat, now: Mode) -> Mode {
        let format = PixelFormat::from_fourcc(wish.pixelformat)
            .filter(|format| self.formats.contains(format))
            .unwrap_or(self.first().format);
        let far = |offered: &&Offered| {
            let Size { width, height } = offered.size;
            u64::from(width.abs_diff(wish.width))
                .saturating_add(height.abs_diff(wish.height).into())
        };
        let Some(offered) = self.sizes.iter().min_by_key(far) else {
            return Mode { format, ..now };
        };
        Mode {
            format,
            width: offered.size.width,
            height: offered.size.height,
            rate: offered.rates.nearest(now.rate),
        }
    }

    /// At which rates there are pictures of this size.
    #[must_use]
    pub fn rates(&self, size: Size) -> Option<&Rates> {
        let found = self.sizes.iter().find(|offered| offered.size == size);
        found.map(|offered| &offered.rates)
    }

    /// The mode with the rate that comes nearest to a wish; with the one at first for a wish that is
    /// none.
    #[must_use]
    pub fn at_rate(&self, now: Mode, wish: Fraction) -> Mode {
        let size = Size {
            width: now.width,
            height: now.height,
        };
        let rate = self
            .rates(size)
            .map_or(Rate::USUAL, |rates| match Rate::of_interval(wish) {
                Some(wish) => rates.nearest(wish),
                None => rates.first(),
            });
        Mode { rate, ..now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes() -> Modes {
        let rate = |text: &str| text.parse().unwrap();
        let offered = |width, height, rates| Offered {
            size: Size { width, height },
            rates,
        };
        Modes {
            formats: vec![PixelFormat::Yuyv, PixelFormat::Nv12],
            sizes: vec![
                offered(
                    640,
                    480,
                    Rates::List(vec![rate("30"), rate("30000/1001"), rate("15")]),
                ),
                offered(1280, 720, Rates::Range(rate("5"), rate("25/2"))),
            ],
        }
    }

    #[test]
    fn a_wish_gets_the_nearest_size_and_a_rate_that_the_size_has() {
        let modes = modes();
        let now = modes.first();
        let wish = |width, height, pixelformat: FourCc| PixFormat {
            width,
            height,
            pixelformat: pixelformat.0,
            ..PixFormat::default()
        };
        let got = modes.nearest(&wish(u32::MAX, u32::MAX, FourCc::new(b"NV12")), now);
        assert_eq!(
            (got.width, got.height, got.format, got.rate.to_string()),
            (1280, 720, PixelFormat::Nv12, "25/2".into())
        );
        let got = modes.nearest(&wish(0, 0, FourCc::new(b"RGB3")), now);
        assert_eq!(
            (got.width, got.height, got.format, got.rate),
            (640, 480, PixelFormat::Yuyv, Rate::USUAL)
        );
    }

    #[test]
    fn a_wish_gets_the_nearest_rate() {
        let modes = modes();
        let rate = |numerator, denominator| {
            let wish = Fraction {
                numerator,
                denominator,
            };
            modes.at_rate(modes.first(), wish).rate.to_string()
        };
        assert_eq!([rate(1, 16), rate(1, 1000)], ["15", "30"]);
        assert_eq!([rate(0, 0), rate(0, 7), rate(7, 0)], ["30", "30", "30"]);
        assert_eq!(rate(1001, 30000), "30000/1001");
    }
}
