// SPDX-License-Identifier: Apache-2.0

//! A decoded picture, and its way into its owner's memory.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;

use gstreamer as gst;
use gstreamer_video::{VideoConverter, VideoFormat, VideoFrame, VideoInfo, prelude::*};

use crate::coder::StoredPicture;
use crate::layout::{Layout, PixelFormat, Plane, Size};
use crate::ledger::Unit;
use crate::process::Piece;

/// Why a picture could not be written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WriteError<E> {
    /// The owner's memory refused it.
    #[error("{0}")]
    Memory(E),
    /// The layout is for a smaller picture.
    #[error("a picture of {size} does not fit into a layout of {room}")]
    TooSmall {
        /// The picture's.
        size: Size,
        /// The layout's.
        room: Size,
    },
    /// The decoder's memory cannot be read, or its samples not converted.
    #[error("the decoder's picture cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// A picture of another process has no longer side.
const MOST_SIDE: u32 = 16_384;

/// Bytes from a row to the next of a picture of another process, at most: decoders' rows are longer than
/// what is seen of them, but not without end.
fn most_stride(least: usize) -> usize {
    least.saturating_mul(2).saturating_add(4096)
}

/// Bytes that a picture of this size has at most in another process's memory.
pub(crate) fn most_stored(format: PixelFormat, size: Size) -> usize {
    let planes = Layout::packed(format, size, 1).planes();
    planes.iter().fold(0, |sum, plane| {
        sum.saturating_add(most_stride(plane.stride).saturating_mul(plane.rows))
    })
}

/// A decoded picture, in the decoder's memory.
#[derive(Debug)]
pub struct Picture {
    timestamp: u64,
    key: bool,
    size: Size,
    buffer: gst::Buffer,
    info: VideoInfo,
    /// How often it was copied to get here.
    copied: u32,
}

impl Picture {
    pub(crate) fn new(sample: &gst::Sample, unit: Unit) -> Option<Self> {
        let info = VideoInfo::from_caps(sample.caps()?).ok()?;
        Some(Self {
            timestamp: unit.timestamp,
            key: unit.key,
            size: Size::new(info.width(), info.height()),
            buffer: sample.buffer_owned()?,
            info,
            copied: 0,
        })
    }

    /// One that came out of another process's memory. Nothing where it is not what it is said to be.
    pub(crate) fn of_piece(
        mut piece: Piece,
        stored: &StoredPicture,
        timestamp: u64,
        key: bool,
    ) -> Option<Self> {
        let Size { width, height } = stored.size;
        let shape = Layout::packed(stored.format, stored.size, 1);
        if stored.size.pixels() == 0
            || width.max(height) > MOST_SIDE
            || stored.planes.len() != shape.format.planes()
        {
            return None;
        }
        for (plane, (offset, stride)) in shape.planes().iter().zip(&stored.planes) {
            let end = offset.checked_add(stride.checked_mul(plane.rows)?)?;
            if *stride < plane.stride || end > piece.bytes.len() {
                return None;
            }
        }
        let offsets: Vec<usize> = stored.planes.iter().map(|plane| plane.0).collect();
        let strides = stored.planes.iter().map(|plane| i32::try_from(plane.1));
        let strides: Vec<i32> = strides.collect::<Result<_, _>>().ok()?;
        let info = VideoInfo::builder(stored.format.video_format(), width, height)
            .offset(&offsets)
            .stride(&strides)
            .build()
            .ok()?;
        // What it would have with GStreamer's own rows, which may be longer.
        if piece.bytes.len() < info.size() {
            piece.bytes.resize(info.size(), 0);
        }
        Some(Self {
            timestamp,
            key,
            size: stored.size,
            buffer: gst::Buffer::from_slice(piece),
            info,
            copied: 2,
        })
    }

    /// Copies it as it is into a file, from `begin` on and at most `room` bytes.
    pub(crate) fn store(
        &self,
        file: &File,
        begin: u64,
        room: u64,
    ) -> Result<StoredPicture, String> {
        let format = match self.info.format() {
            VideoFormat::Nv12 => PixelFormat::Nv12,
            VideoFormat::I420 => PixelFormat::I420,
            VideoFormat::Yv12 => PixelFormat::Yv12,
            other => return Err(format!("a picture in {other}")),
        };
        let frame = VideoFrame::from_buffer_readable(self.buffer.clone(), &self.info)
            .map_err(|_| "a picture that cannot be mapped".to_owned())?;
        let mut planes = Vec::new();
        let mut bytes = 0_usize;
        let shape = Layout::packed(format, self.size, 1).planes();
        for (plane, least) in (0..frame.n_planes()).zip(&shape) {
            let source = source(&frame, plane).ok_or("a picture without a plane")?;
            let (stride, rows) = source.for_others(least);
            planes.push((bytes, stride));
            let at = begin.saturating_add(bytes as u64);
            bytes = bytes.saturating_add(rows.len());
            if bytes as u64 > room {
                return Err(format!("a picture of {} in too many bytes", self.size));
            }
            file.write_all_at(&rows, at)
                .map_err(|error| error.to_string())?;
        }
        Ok(StoredPicture {
            size: self.size,
            format,
            planes,
            bytes,
        })
    }

    /// The timestamp of the input in which it began.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Whether it is a key picture.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.key
    }

    /// What is seen of it.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Writes it in this layout: `put(plane, offset, bytes)` is called with runs of one plane, from
    /// its beginning to its end; what lies beyond the picture is left out. Each byte is copied once,
    /// by `put`. Between subsampled formats samples are put in order on the way; to RGB they are
    /// calculated first, into a picture that is copied then.
    ///
    /// How often the picture was copied.
    ///
    /// # Errors
    /// As [`WriteError`]; part of it may have been written.
    pub fn write<E>(
        &self,
        layout: &Layout,
        mut put: impl FnMut(usize, usize, &[u8]) -> Result<(), E>,
    ) -> Result<u32, WriteError<E>> {
        if self.size.width > layout.size.width || self.size.height > layout.size.height {
            return Err(WriteError::TooSmall {
                size: self.size,
                room: layout.size,
            });
        }
        let frame = VideoFrame::from_buffer_readable(self.buffer.clone(), &self.info)
            .map_err(|_| unreadable("it cannot be mapped"))?;
        if layout.format.is_subsampled() {
            write_subsampled(&frame, layout, self.size, &mut put)?;
            return Ok(self.copied.saturating_add(1));
        }
        let converted = convert(frame, layout.format).map_err(|reason| unreadable(&reason))?;
        let plane = layout.planes().first().copied().unwrap_or_default();
        let source = source(&converted, 0).ok_or_else(|| unreadable("it has no plane"))?;
        copy_rows(
            0,
            &source,
            &plane,
            row_bytes(self.size.width, 4),
            self.size.height,
            &mut put,
        )
        .map_err(WriteError::Memory)?;
        Ok(self.copied.saturating_add(2))
    }
}

fn unreadable<E>(reason: &str) -> WriteError<E> {
    WriteError::Unreadable {
        reason: reason.to_owned(),
    }
}

type Readable = VideoFrame<gstreamer_video::video_frame::Readable>;

/// A plane in the decoder's memory.
struct Source<'a> {
    bytes: &'a [u8],
    stride: usize,
}

impl Source<'_> {
    /// Bytes from a row to the next, and the rows, with no more around them than another process takes.
    fn for_others(&self, least: &Plane) -> (usize, Cow<'_, [u8]>) {
        if self.stride <= most_stride(least.stride) {
            let end = self.stride.saturating_mul(least.rows);
            return (
                self.stride,
                Cow::Borrowed(self.bytes.get(..end).unwrap_or(self.bytes)),
            );
        }
        let rows = 0..least.rows;
        let packed = rows.flat_map(|row| self.row(row, least.stride).iter().copied());
        (least.stride, Cow::Owned(packed.collect()))
    }

    fn row(&self, row: usize, len: usize) -> &[u8] {
        let start = row.saturating_mul(self.stride);
        self.bytes
            .get(start..start.saturating_add(len))
            .unwrap_or_default()
    }
}

fn source(frame: &Readable, plane: u32) -> Option<Source<'_>> {
    let stride = frame.plane_stride().get(plane as usize).copied()?;
    Some(Source {
        bytes: frame.plane_data(plane).ok()?,
        stride: usize::try_from(stride).ok()?,
    })
}

fn row_bytes(width: u32, each: usize) -> usize {
    (width as usize).saturating_mul(each)
}

/// Copies rows of `len` bytes: all at once where they lie alike and have nothing between them.
fn copy_rows<E>(
    plane: usize,
    source: &Source<'_>,
    target: &Plane,
    len: usize,
    rows: u32,
    put: &mut impl FnMut(usize, usize, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let rows = rows as usize;
    if source.stride == target.stride && len == target.stride {
        return put(plane, 0, source.row(0, len.saturating_mul(rows)));
    }
    for row in 0..rows {
        let offset = row.saturating_mul(target.stride);
        put(plane, offset, source.row(row, len))?;
    }
    Ok(())
}

/// Where the chroma samples of a frame are.
enum Chroma<'a> {
    /// Blue and red in turn.
    Paired(Source<'a>),
    /// Blue, red.
    Apart(Source<'a>, Source<'a>),
}

fn chroma(frame: &Readable) -> Option<Chroma<'_>> {
    match frame.format() {
        VideoFormat::Nv12 => Some(Chroma::Paired(source(frame, 1)?)),
        VideoFormat::I420 => Some(Chroma::Apart(source(frame, 1)?, source(frame, 2)?)),
        VideoFormat::Yv12 => Some(Chroma::Apart(source(frame, 2)?, source(frame, 1)?)),
        _ => None,
    }
}

fn write_subsampled<E>(
    frame: &Readable,
    layout: &Layout,
    size: Size,
    put: &mut impl FnMut(usize, usize, &[u8]) -> Result<(), E>,
) -> Result<(), WriteError<E>> {
    let planes = layout.planes();
    let plane = |index: usize| planes.get(index).copied().unwrap_or_default();
    let luma = source(frame, 0).ok_or_else(|| unreadable("it has no luma"))?;
    let chroma = chroma(frame).ok_or_else(|| unreadable("its samples are not 4:2:0"))?;
    let width = size.width as usize;
    copy_rows(0, &luma, &plane(0), width, size.height, put).map_err(WriteError::Memory)?;
    let (half, rows) = (width.div_ceil(2), size.height.div_ceil(2));
    // Which plane is blue and which is red.
    let (blue, red) = if layout.format == PixelFormat::Yv12 {
        (2, 1)
    } else {
        (1, 2)
    };
    let written = match (&chroma, layout.format) {
        (Chroma::Paired(pairs), PixelFormat::Nv12) => {
            copy_rows(1, pairs, &plane(1), half.saturating_mul(2), rows, put)
        }
        (Chroma::Apart(first, second), PixelFormat::Nv12) => {
            let mut row_of_pairs = Vec::with_capacity(half.saturating_mul(2));
            (0..rows as usize).try_for_each(|row| {
                row_of_pairs.clear();
                let both = first.row(row, half).iter().zip(second.row(row, half));
                row_of_pairs.extend(both.flat_map(|(blue, red)| [*blue, *red]));
                put(1, row.saturating_mul(plane(1).stride), &row_of_pairs)
            })
        }
        (Chroma::Apart(first, second), _) => copy_rows(blue, first, &plane(blue), half, rows, put)
            .and_then(|()| copy_rows(red, second, &plane(red), half, rows, put)),
        (Chroma::Paired(pairs), _) => (0..rows as usize).try_for_each(|row| {
            let pairs = pairs.row(row, half.saturating_mul(2));
            let one =
                |at: usize| -> Vec<u8> { pairs.iter().skip(at).step_by(2).copied().collect() };
            let offset = |plane: Plane| row.saturating_mul(plane.stride);
            put(blue, offset(plane(blue)), &one(0))?;
            put(red, offset(plane(red)), &one(1))
        }),
    };
    written.map_err(WriteError::Memory)
}

fn convert(frame: Readable, format: PixelFormat) -> Result<Readable, String> {
    let from = frame.info().clone();
    let to = VideoInfo::builder(format.video_format(), from.width(), from.height())
        .build()
        .map_err(|error| error.to_string())?;
    let converter = VideoConverter::new(&from, &to, None).map_err(|error| error.to_string())?;
    let room = gst::Buffer::with_size(to.size()).map_err(|error| error.to_string())?;
    let mut target = VideoFrame::from_buffer_writable(room, &to).map_err(|_| "no memory")?;
    converter.frame(&frame, &mut target);
    VideoFrame::from_buffer_readable(target.into_buffer(), &to).map_err(|_| "no memory".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_much_around_them_are_stored_without_it() {
        let least = Plane {
            offset: 0,
            stride: 2,
            rows: 2,
        };
        let mut bytes = vec![0; 10_000];
        bytes[..2].copy_from_slice(&[1, 2]);
        bytes[5000..5002].copy_from_slice(&[3, 4]);
        let wide = Source {
            bytes: &bytes,
            stride: 5000,
        };
        let (stride, rows) = wide.for_others(&least);
        assert_eq!((stride, &*rows), (2, &[1, 2, 3, 4][..]));
        let usual = Source {
            bytes: &bytes,
            stride: 64,
        };
        let (stride, rows) = usual.for_others(&least);
        assert_eq!((stride, rows.len()), (64, 128));
    }

    #[test]
    fn what_a_picture_has_at_most_follows_its_size() {
        let most = most_stored(PixelFormat::Nv12, Size::new(1280, 720));
        // A decoder whose rows are as long as 2560 pixels.
        assert!(most >= 2560 * 1080);
        assert!(most < 6 * 1280 * 1080, "{most}");
        assert_eq!(most_stored(PixelFormat::I420, Size::default()), 0);
        let huge = Size::new(u32::MAX, u32::MAX);
        assert!(most_stored(PixelFormat::I420, huge) > 1 << 60);
    }
}
