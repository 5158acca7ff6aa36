// SPDX-License-Identifier: Apache-2.0

//! A decoded picture, and its way into its owner's memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use gstreamer as gst;
use gstreamer_video::{VideoConverter, VideoFormat, VideoFrame, VideoInfo, prelude::*};

use crate::coder::StoredPicture;
use crate::frames::Frames;
use crate::layout::{Layout, PixelFormat, Size};
use crate::ledger::Unit;
use crate::planes::{Planes, Rows};

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

    /// One whose planes lie in these bytes, which were copied so often. Nothing where they do not.
    pub(crate) fn of_bytes(
        mut bytes: Vec<u8>,
        stored: &StoredPicture,
        (timestamp, key): (u64, bool),
        copied: u32,
    ) -> Option<Self> {
        let offsets: Vec<usize> = stored.planes.iter().map(|plane| plane.0).collect();
        let strides = stored.planes.iter().map(|plane| i32::try_from(plane.1));
        let strides: Vec<i32> = strides.collect::<Result<_, _>>().ok()?;
        let Size { width, height } = stored.size;
        let info = VideoInfo::builder(stored.format.video_format(), width, height)
            .offset(&offsets)
            .stride(&strides)
            .build()
            .ok()?;
        // What it would have with GStreamer's own rows, which may be longer.
        if bytes.len() < info.size() {
            bytes.resize(info.size(), 0);
        }
        Some(Self {
            timestamp,
            key,
            size: stored.size,
            buffer: gst::Buffer::from_slice(bytes),
            info,
            copied,
        })
    }

    fn readable(&self) -> Result<Readable, &'static str> {
        VideoFrame::from_buffer_readable(self.buffer.clone(), &self.info)
            .map_err(|_| "a picture that cannot be mapped")
    }

    /// In which of these frames it lies as the decoder has drawn it, if it does.
    pub(crate) fn lies_in(&self, frames: &Frames) -> Option<(usize, StoredPicture)> {
        let frame = self.readable().ok()?;
        let format = format_of(&frame)?;
        let (mut number, mut planes, mut bytes) = (None, Vec::new(), 0);
        for (plane, shape) in (0..).zip(Layout::packed(format, self.size, 1).planes()) {
            let (rows, stride) = rows(&frame, plane)?;
            let len = stride.checked_mul(shape.rows)?;
            let (of, at) = frames.find(rows.get(..len)?)?;
            if *number.get_or_insert(of) != of {
                return None;
            }
            planes.push((at, stride));
            bytes = at.checked_add(len)?.max(bytes);
        }
        let stored = StoredPicture {
            size: self.size,
            format,
            planes,
            bytes,
        };
        Some((number?, stored))
    }

    /// Copies it as it is into a file, from `begin` on and at most `room` bytes.
    pub(crate) fn store(
        &self,
        file: &File,
        begin: u64,
        room: u64,
    ) -> Result<StoredPicture, String> {
        let frame = self.readable()?;
        let format = format_of(&frame).ok_or_else(|| format!("a picture in {}", frame.format()))?;
        let mut planes = Vec::new();
        let mut bytes = 0_usize;
        let shape = Layout::packed(format, self.size, 1).planes();
        for (plane, least) in (0..frame.n_planes()).zip(&shape) {
            let (bytes_of, stride) = rows(&frame, plane).ok_or("a picture without a plane")?;
            let (stride, rows) = Rows::own(bytes_of, stride).for_others(least);
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

    /// Writes it in this layout, from its origin on: `put(plane, offset, bytes)` is called with runs of
    /// one plane, from above to below; what lies around the picture is left as it is. Each byte is copied once,
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
        if !layout.holds(self.size) {
            return Err(WriteError::TooSmall {
                size: self.size,
                room: layout.size,
            });
        }
        let frame = self.readable().map_err(unreadable)?;
        if layout.format.is_subsampled() {
            let planes = planes(&frame).ok_or_else(|| unreadable("its samples are not 4:2:0"))?;
            let written = planes.write(layout, self.size, &mut put);
            written.map_err(WriteError::Memory)?;
            return Ok(self.copied.saturating_add(1));
        }
        let converted = convert(frame, layout.format).map_err(|reason| unreadable(&reason))?;
        let plane = layout.planes().first().copied().unwrap_or_default();
        let (bytes, stride) = rows(&converted, 0).ok_or_else(|| unreadable("it has no plane"))?;
        let shape = (
            (self.size.width as usize).saturating_mul(4),
            self.size.height,
        );
        let copied = Rows::own(bytes, stride).copy(0, &plane, shape, &mut put);
        copied.map_err(WriteError::Memory)?;
        Ok(self.copied.saturating_add(2))
    }
}

pub(crate) fn unreadable<E>(reason: &str) -> WriteError<E> {
    WriteError::Unreadable {
        reason: reason.to_owned(),
    }
}

type Readable = VideoFrame<gstreamer_video::video_frame::Readable>;

fn format_of(frame: &Readable) -> Option<PixelFormat> {
    match frame.format() {
        VideoFormat::Nv12 => Some(PixelFormat::Nv12),
        VideoFormat::I420 => Some(PixelFormat::I420),
        VideoFormat::Yv12 => Some(PixelFormat::Yv12),
        _ => None,
    }
}

fn planes(frame: &Readable) -> Option<Planes<'_>> {
    let format = format_of(frame)?;
    let each = (0..frame.n_planes()).map(|plane| rows(frame, plane));
    let each = each.map(|rows| rows.map(|(bytes, stride)| Rows::own(bytes, stride)));
    Some(Planes {
        format,
        planes: each.collect::<Option<_>>()?,
    })
}

/// A plane's bytes, and those from a row to the next.
fn rows(frame: &Readable, plane: u32) -> Option<(&[u8], usize)> {
    let stride = frame.plane_stride().get(plane as usize).copied()?;
    let bytes = frame.plane_data(plane).ok()?;
    Some((bytes, usize::try_from(stride).ok()?))
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
