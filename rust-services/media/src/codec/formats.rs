// SPDX-License-Identifier: Apache-2.0

//! Formats of both queues: what there is, and what a wish comes to.

use agl_virtio_codec::{Codec, Layout, PixelFormat, Position, Size};

use super::{Offer, Way};
use crate::rate::Rate;
use crate::v4l2::format::{COLORSPACE_REC709, FIELD_NONE};
use crate::v4l2::{FourCc, Fraction, PixFormatMplane};

/// Rows of pictures are a multiple of so many bytes.
const ROW_ALIGN: u32 = 16;
/// A buffer for coded bytes has at least so many.
const LEAST_CODED: u32 = 64 << 10;
/// And at most; more than that in one is refused, wherever it lies.
pub const MOST_CODED: u32 = 32 << 20;
const PAGE: u32 = 4096;
/// The size before anybody has said one.
const FIRST_SIZE: Size = Size::new(640, 480);

/// A format of pictures as V4L2 names them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Raw {
    /// Its four characters.
    pub fourcc: FourCc,
    /// The order of samples.
    pub format: PixelFormat,
    /// Whether each plane has a buffer of its own.
    pub apart: bool,
}

const fn raw(text: &[u8; 4], format: PixelFormat, apart: bool) -> Raw {
    Raw {
        fourcc: FourCc::new(text),
        format,
        apart,
    }
}

/// All of them, the preferred one first.
pub const RAW: [Raw; 9] = [
    raw(b"NV12", PixelFormat::Nv12, false),
    raw(b"NM12", PixelFormat::Nv12, true),
    raw(b"YU12", PixelFormat::I420, false),
    raw(b"YM12", PixelFormat::I420, true),
    raw(b"YV12", PixelFormat::Yv12, false),
    raw(b"YM21", PixelFormat::Yv12, true),
    raw(b"BA24", PixelFormat::Argb, false),
    raw(b"AR24", PixelFormat::Bgra, false),
    raw(b"AB24", PixelFormat::Rgba, false),
];

/// As V4L2 names it.
#[must_use]
pub const fn fourcc(codec: Codec) -> FourCc {
    FourCc::new(match codec {
        Codec::H264 => b"H264",
        Codec::Hevc => b"HEVC",
        Codec::Vp8 => b"VP80",
        Codec::Vp9 => b"VP90",
        Codec::Av1 => b"AV01",
        Codec::Mpeg2 => b"MPG2",
        Codec::Mpeg4 => b"MPG4",
    })
}

/// Colours are the program's business: what it says of one queue is told of the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Colours {
    colorspace: u32,
    ycbcr_enc: u8,
    quantization: u8,
    xfer_func: u8,
}

impl Colours {
    const UNKNOWN: Self = Self {
        colorspace: COLORSPACE_REC709,
        ycbcr_enc: 0,
        quantization: 0,
        xfer_func: 0,
    };

    /// Those of a format, if V4L2 knows such ones.
    fn of(pix: &PixFormatMplane) -> Self {
        let known = (1..=12).contains(&{ pix.colorspace })
            && pix.ycbcr_enc <= 8
            && pix.quantization <= 2
            && pix.xfer_func <= 7;
        if !known {
            return Self::UNKNOWN;
        }
        Self {
            colorspace: pix.colorspace,
            ycbcr_enc: pix.ycbcr_enc,
            quantization: pix.quantization,
            xfer_func: pix.xfer_func,
        }
    }
}

/// What a session has chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    way: Way,
    /// The coded format.
    pub codec: Codec,
    /// What a decoder's program says of the stream's size.
    said: Size,
    /// Bytes of a buffer for coded bytes.
    coded_size: u32,
    /// The raw format.
    pub raw: Raw,
    /// How pictures lie.
    pub layout: Layout,
    /// What is seen of them, from the layout's origin on.
    pub visible: Size,
    colours: Colours,
    /// Pictures in a second; an encoder's program says it.
    pub rate: Rate,
}

impl Chosen {
    /// At first.
    #[must_use]
    pub fn new(offer: &Offer) -> Self {
        let visible = offer.limits.clamp(FIRST_SIZE);
        let first = RAW[0];
        Self {
            way: offer.way,
            codec: offer.codecs.first().copied().unwrap_or(Codec::H264),
            said: visible,
            coded_size: coded_bytes(visible, 0),
            raw: first,
            layout: Layout::packed(first.format, visible.even(), ROW_ALIGN),
            visible,
            colours: Colours::UNKNOWN,
            rate: Rate::USUAL,
        }
    }

    /// What an encoder's program wants; what is none becomes the usual.
    pub fn set_interval(&mut self, wish: Fraction) {
        let rate = Rate::of_interval(wish).unwrap_or(Rate::USUAL);
        self.rate = rate.max(Rate::LEAST).min(Rate::MOST);
    }

    /// Pictures have this size from now on.
    pub fn resize(&mut self, visible: Size) {
        self.visible = visible;
        self.lay_out(visible.even());
        if self.way == Way::Encode {
            self.coded_size = coded_bytes(visible, self.coded_size);
        }
    }

    fn lay_out(&mut self, size: Size) {
        self.layout = Layout::packed(self.raw.format, size, ROW_ALIGN);
    }

    /// A stream's header says that its pictures have this size. A program that has supposed it keeps
    /// its buffers, and the place of pictures in them.
    pub fn learn(&mut self, visible: Size) {
        if visible != self.visible {
            self.resize(visible);
        }
    }

    /// Bytes of a buffer for coded bytes follow what is seen of an encoder's pictures.
    pub fn see(&mut self, origin: Position, visible: Size) {
        self.layout.origin = origin;
        if self.visible != visible {
            self.visible = visible;
            self.coded_size = coded_bytes(visible, self.coded_size);
        }
    }

    /// A wish for the queue of coded bytes: another codec, the size of the stream, of buffers.
    /// `follow`: pictures are to have the size that is said.
    pub fn wish_coded(&mut self, pix: &PixFormatMplane, offer: &Offer, follow: bool) {
        let wanted = FourCc(pix.pixelformat);
        let found = offer.codecs.iter().find(|codec| fourcc(**codec) == wanted);
        self.codec = found
            .or(offer.codecs.first())
            .copied()
            .unwrap_or(self.codec);
        let size = match self.way {
            Way::Decode => {
                self.colours = Colours::of(pix);
                self.said = offer.limits.clamp(Size::new(pix.width, pix.height));
                if follow {
                    self.resize(self.said);
                }
                self.said
            }
            Way::Encode => self.visible,
        };
        let [plane, ..] = pix.planes;
        let wanted = if pix.num_planes > 0 {
            plane.sizeimage
        } else {
            0
        };
        self.coded_size = coded_bytes(size, wanted);
    }

    /// A wish for the queue of pictures.
    pub fn wish_raw(&mut self, pix: &PixFormatMplane, offer: &Offer) {
        let wanted = FourCc(pix.pixelformat);
        let found = RAW.iter().find(|raw| raw.fourcc == wanted);
        self.raw = found.copied().unwrap_or(RAW[0]);
        let size = offer.limits.clamp(Size::new(pix.width, pix.height)).even();
        match self.way {
            // The stream has its size, and lies at the beginning of what may be larger.
            Way::Decode => {
                let least = self.visible.even();
                self.lay_out(Size::new(
                    size.width.max(least.width),
                    size.height.max(least.height),
                ));
            }
            Way::Encode => {
                self.colours = Colours::of(pix);
                self.resize(size);
            }
        }
    }

    fn pix(&self, fourcc: FourCc, size: Size) -> PixFormatMplane {
        PixFormatMplane {
            width: size.width,
            height: size.height,
            pixelformat: fourcc.0,
            field: FIELD_NONE,
            colorspace: self.colours.colorspace,
            ycbcr_enc: self.colours.ycbcr_enc,
            quantization: self.colours.quantization,
            xfer_func: self.colours.xfer_func,
            ..PixFormatMplane::default()
        }
    }

    /// The format of the queue of coded bytes.
    #[must_use]
    pub fn coded_pix(&self) -> PixFormatMplane {
        let size = match self.way {
            Way::Decode => self.said,
            Way::Encode => self.visible,
        };
        let mut pix = self.pix(fourcc(self.codec), size);
        pix.num_planes = 1;
        let mut planes = pix.planes;
        if let Some(first) = planes.first_mut() {
            first.sizeimage = self.coded_size;
        }
        pix.planes = planes;
        pix
    }

    /// The format of the queue of pictures.
    #[must_use]
    pub fn raw_pix(&self) -> PixFormatMplane {
        let mut pix = self.pix(self.raw.fourcc, self.layout.size);
        let sizes = self.raw_sizes();
        let mut planes = pix.planes;
        let strides = self.layout.planes();
        for ((to, size), plane) in planes.iter_mut().zip(&sizes).zip(&strides) {
            to.sizeimage = *size;
            to.bytesperline = short(plane.stride);
        }
        pix.planes = planes;
        pix.num_planes = u8::try_from(sizes.len()).unwrap_or(1);
        pix
    }

    /// Bytes of each buffer of a picture.
    #[must_use]
    pub fn raw_sizes(&self) -> Vec<u32> {
        if self.raw.apart {
            let planes = self.layout.planes();
            planes.iter().map(|plane| short(plane.size())).collect()
        } else {
            vec![short(self.layout.bytes())]
        }
    }

    /// Bytes of the buffer of coded bytes.
    #[must_use]
    pub fn coded_sizes(&self) -> Vec<u32> {
        vec![self.coded_size]
    }
}

fn short(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A buffer for coded pictures of this size: of so many bytes as are wanted, if that is enough.
fn coded_bytes(size: Size, wanted: u32) -> u32 {
    let pixels = u32::try_from(size.pixels()).unwrap_or(MOST_CODED);
    let least = pixels.clamp(LEAST_CODED, MOST_CODED);
    let bytes = wanted.clamp(least, MOST_CODED);
    bytes.checked_next_multiple_of(PAGE).unwrap_or(MOST_CODED)
}
