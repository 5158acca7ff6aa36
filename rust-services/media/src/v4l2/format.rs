// SPDX-License-Identifier: Apache-2.0

//! Buffer types and formats.

use rustix::io::Errno;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What a queue carries.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum BufType {
    /// Pictures of a camera, in one plane.
    Capture,
    /// What a codec has made.
    CaptureMplane,
    /// What a codec is given.
    OutputMplane,
}

impl BufType {
    /// From the wire.
    ///
    /// # Errors
    /// EINVAL for what no device of ours has.
    pub fn parse(code: u32) -> Result<Self, Errno> {
        match code {
            1 => Ok(Self::Capture),
            9 => Ok(Self::CaptureMplane),
            10 => Ok(Self::OutputMplane),
            _ => Err(Errno::INVAL),
        }
    }

    /// As V4L2 writes it.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Capture => 1,
            Self::CaptureMplane => 9,
            Self::OutputMplane => 10,
        }
    }

    /// Whether buffers have a list of planes.
    #[must_use]
    pub fn is_mplane(self) -> bool {
        self != Self::Capture
    }

    /// Whether the driver fills the buffers.
    #[must_use]
    pub fn is_output(self) -> bool {
        self == Self::OutputMplane
    }
}

/// A format's four characters.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FourCc(pub u32);

impl FourCc {
    /// From the characters.
    #[must_use]
    pub const fn new(text: &[u8; 4]) -> Self {
        Self(u32::from_le_bytes(*text))
    }
}

impl std::fmt::Display for FourCc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.to_le_bytes().escape_ascii())
    }
}

impl std::fmt::Debug for FourCc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// `V4L2_FIELD_NONE`: whole pictures, never half ones.
pub const FIELD_NONE: u32 = 1;
/// `V4L2_COLORSPACE_SMPTE170M`.
pub const COLORSPACE_SMPTE170M: u32 = 1;
/// `V4L2_COLORSPACE_REC709`.
pub const COLORSPACE_REC709: u32 = 3;
/// `V4L2_COLORSPACE_SRGB`.
pub const COLORSPACE_SRGB: u32 = 8;
/// `V4L2_PIX_FMT_PRIV_MAGIC`: the fields behind `priv_` are set.
pub const PRIV_MAGIC: u32 = 0xfeed_cafe;

/// `struct v4l2_format`.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(8))]
pub struct Format {
    /// Of which queue.
    pub type_: u32,
    padding: u32,
    fmt: [u8; 200],
}

impl Format {
    /// In one plane.
    #[must_use]
    pub fn single(pix: &PixFormat) -> Self {
        Self::with(BufType::Capture, pix.as_bytes())
    }

    /// In several planes.
    #[must_use]
    pub fn multi(type_: BufType, pix: &PixFormatMplane) -> Self {
        Self::with(type_, pix.as_bytes())
    }

    fn with(type_: BufType, pix: &[u8]) -> Self {
        let mut format = Self::new_zeroed();
        format.type_ = type_.code();
        for (to, from) in format.fmt.iter_mut().zip(pix) {
            *to = *from;
        }
        format
    }

    /// As a format in one plane.
    #[must_use]
    pub fn pix(&self) -> PixFormat {
        read(&self.fmt)
    }

    /// As a format in several planes.
    #[must_use]
    pub fn pix_mplane(&self) -> PixFormatMplane {
        read(&self.fmt)
    }
}

fn read<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_prefix(bytes).map_or_else(|_| T::new_zeroed(), |(value, _)| value)
}

/// `struct v4l2_pix_format`.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct PixFormat {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Its four characters.
    pub pixelformat: u32,
    /// See [`FIELD_NONE`].
    pub field: u32,
    /// Of the first plane.
    pub bytesperline: u32,
    /// Of the whole picture.
    pub sizeimage: u32,
    /// V4L2_COLORSPACE_*.
    pub colorspace: u32,
    /// See [`PRIV_MAGIC`].
    pub priv_: u32,
    /// V4L2_PIX_FMT_FLAG_*.
    pub flags: u32,
    /// V4L2_YCBCR_ENC_*.
    pub ycbcr_enc: u32,
    /// V4L2_QUANTIZATION_*.
    pub quantization: u32,
    /// V4L2_XFER_FUNC_*.
    pub xfer_func: u32,
}

/// `struct v4l2_plane_pix_format`.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C, packed)]
pub struct PlaneFormat {
    /// Bytes of the plane.
    pub sizeimage: u32,
    /// Bytes of a row.
    pub bytesperline: u32,
    /// Zero.
    pub reserved: [u16; 6],
}

/// `struct v4l2_pix_format_mplane`.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C, packed)]
pub struct PixFormatMplane {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Its four characters.
    pub pixelformat: u32,
    /// See [`FIELD_NONE`].
    pub field: u32,
    /// V4L2_COLORSPACE_*.
    pub colorspace: u32,
    /// The planes.
    pub planes: [PlaneFormat; 8],
    /// How many of them are used.
    pub num_planes: u8,
    /// V4L2_PIX_FMT_FLAG_*.
    pub flags: u8,
    /// V4L2_YCBCR_ENC_*.
    pub ycbcr_enc: u8,
    /// V4L2_QUANTIZATION_*.
    pub quantization: u8,
    /// V4L2_XFER_FUNC_*.
    pub xfer_func: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// `struct v4l2_fmtdesc`.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct FormatDescription {
    /// Which one.
    pub index: u32,
    /// Of which queue.
    pub type_: u32,
    /// V4L2_FMT_FLAG_*.
    pub flags: u32,
    /// For people.
    pub description: [u8; 32],
    /// Its four characters.
    pub pixelformat: u32,
    /// Zero for a device without a media controller.
    pub mbus_code: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

const _: () = {
    assert!(size_of::<Format>() == 208);
    assert!(size_of::<PixFormat>() == 48);
    assert!(size_of::<PixFormatMplane>() == 192);
    assert!(size_of::<FormatDescription>() == 64);
};
