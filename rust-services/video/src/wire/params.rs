// SPDX-License-Identifier: Apache-2.0

//! The format of a queue, as it lies on the wire in all dialects.

use super::Refusal;
use super::bytes::{Reader, Writer};

/// Planes of a picture, at most.
pub const MAX_PLANES: usize = 8;
/// Bytes of [`Params`].
pub const PARAMS_SIZE: usize = 112;

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub left: u32,
    /// Upper edge.
    pub top: u32,
    /// Pixels.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A plane.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PlaneFormat {
    /// Bytes.
    pub size: u32,
    /// Bytes from a row to the next.
    pub stride: u32,
}

/// The format of a queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Params {
    /// Its number.
    pub queue: u32,
    /// Its format's number.
    pub format: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Resources that are needed.
    pub min_buffers: u32,
    /// Resources that may be.
    pub max_buffers: u32,
    /// What is seen.
    pub crop: Rect,
    /// Pictures per second; 0 where that is not known.
    pub frame_rate: u32,
    /// How many of the following.
    pub num_planes: u32,
    /// Planes.
    pub planes: [PlaneFormat; MAX_PLANES],
}

impl Params {
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Refusal> {
        let [queue, format, width, height, min_buffers, max_buffers] = from.u32s()?;
        let [left, top, crop_width, crop_height, frame_rate, num_planes] = from.u32s()?;
        let mut planes = [PlaneFormat::default(); MAX_PLANES];
        for plane in &mut planes {
            let [size, stride] = from.u32s()?;
            *plane = PlaneFormat { size, stride };
        }
        Ok(Self {
            queue,
            format,
            width,
            height,
            min_buffers,
            max_buffers,
            crop: Rect {
                left,
                top,
                width: crop_width,
                height: crop_height,
            },
            frame_rate,
            num_planes,
            planes,
        })
    }

    pub(super) fn write(&self, to: Writer) -> Writer {
        let Rect {
            left,
            top,
            width,
            height,
        } = self.crop;
        let to = to.u32s(&[
            self.queue,
            self.format,
            self.width,
            self.height,
            self.min_buffers,
            self.max_buffers,
        ]);
        let to = to.u32s(&[left, top, width, height, self.frame_rate, self.num_planes]);
        self.planes
            .iter()
            .fold(to, |to, plane| to.u32s(&[plane.size, plane.stride]))
    }
}
