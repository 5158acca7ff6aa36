// SPDX-License-Identifier: Apache-2.0

//! What can be chosen, and what a choice comes to.

use agl_virtio_codec::{Codec, Layout, Limits, PixelFormat, Size};

use super::Function;
use crate::wire::{
    Description, Dialect, Format, MAX_PLANES, Params, PlaneFormat, Queue, RAW_ALIGN, Range, Rect,
};

/// Resources of a queue, at most: what V4L2 has.
pub(super) const MOST_BUFFERS: u32 = 32;
/// Resources that a queue needs: one at the codec, one at the application.
pub(super) const LEAST_BUFFERS: u32 = 2;
/// A buffer for coded bytes is at least so large.
const LEAST_CODED: u32 = 64 * 1024;
/// And at most.
const MOST_CODED: u32 = 64 << 20;
/// Pictures per second that a driver may name.
const RATES: Range = Range {
    min: 1,
    max: 240,
    step: 1,
};

/// The formats of a device.
#[derive(Clone, Debug)]
pub struct Formats {
    codecs: Vec<Codec>,
    raw: Vec<PixelFormat>,
    limits: Limits,
}

impl Formats {
    /// Those of these codecs which the dialect knows.
    pub fn new(codecs: impl Iterator<Item = Codec>, limits: Limits, dialect: &dyn Dialect) -> Self {
        let known = |codec: &Codec| dialect.number(Format::Coded(*codec)).is_some();
        Self {
            codecs: codecs.filter(known).collect(),
            raw: PixelFormat::ALL
                .into_iter()
                .filter(|format| dialect.raw(*format).is_some())
                .collect(),
            limits,
        }
    }

    /// Coded formats.
    #[must_use]
    pub fn codecs(&self) -> &[Codec] {
        &self.codecs
    }

    /// Sizes.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What QUERY_CAPABILITY says.
    #[must_use]
    pub fn describe(&self, function: Function, queue: Queue) -> Vec<Description> {
        let all = |count: usize| {
            u32::try_from(count)
                .ok()
                .and_then(|count| 1_u64.checked_shl(count))
                .map_or(u64::MAX, |bit| bit.wrapping_sub(1))
        };
        // A stream has pictures of any size, of which all is to be seen, though they lie in memory with
        // whole samples of their colours. An encoder is given such ones only.
        let step = match function {
            Function::Decoder => 1,
            Function::Encoder => 2,
        };
        let side = |least, most| Range {
            min: least,
            max: most,
            step,
        };
        let one = |format, mask| Description {
            mask,
            format,
            width: side(self.limits.least.width, self.limits.most.width),
            height: side(self.limits.least.height, self.limits.most.height),
            rate: RATES,
        };
        if is_coded(function, queue) {
            let mask = all(self.raw.len());
            self.codecs
                .iter()
                .map(|codec| one(Format::Coded(*codec), mask))
                .collect()
        } else {
            let mask = all(self.codecs.len());
            self.raw
                .iter()
                .map(|raw| one(Format::Raw(*raw), mask))
                .collect()
        }
    }

    /// A raw format by its number, the preferred one where that is none.
    pub(super) fn raw_of(&self, number: u32, dialect: &dyn Dialect) -> PixelFormat {
        dialect
            .raw_format(number)
            .filter(|format| self.raw.contains(format))
            .or_else(|| self.raw.first().copied())
            .unwrap_or(PixelFormat::Nv12)
    }
}

/// Whether a queue has coded bytes.
pub(super) fn is_coded(function: Function, queue: Queue) -> bool {
    matches!(
        (function, queue),
        (Function::Decoder, Queue::Input) | (Function::Encoder, Queue::Output)
    )
}

/// The formats of a stream's queues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Chosen {
    pub(super) codec: Codec,
    /// Bytes of a buffer for coded bytes.
    pub(super) coded_size: u32,
    pub(super) layout: Layout,
    /// What is seen of a picture.
    pub(super) visible: Size,
    /// A buffer for each plane.
    pub(super) per_plane: bool,
    pub(super) frame_rate: u32,
}

impl Chosen {
    pub(super) fn new(codec: Codec, formats: &Formats) -> Self {
        let visible = formats.limits.clamp(Size::new(640, 480));
        let raw = formats.raw.first().copied().unwrap_or(PixelFormat::Nv12);
        let mut chosen = Self {
            codec,
            coded_size: LEAST_CODED,
            layout: Layout::packed(raw, visible, RAW_ALIGN),
            visible,
            per_plane: false,
            frame_rate: 0,
        };
        chosen.coded_size = chosen.advised();
        chosen
    }

    /// A coded picture hardly ever has more bytes.
    fn advised(&self) -> u32 {
        let pixels = u32::try_from(self.visible.pixels()).unwrap_or(u32::MAX);
        (pixels / 2)
            .saturating_add(LEAST_CODED)
            .clamp(LEAST_CODED, MOST_CODED)
    }

    /// Pictures have this size from now on.
    pub(super) fn resize(&mut self, visible: Size) {
        self.visible = visible;
        self.layout = Layout::packed(self.layout.format, visible.even(), RAW_ALIGN);
    }

    /// What a driver wants for coded bytes.
    pub(super) fn set_coded(&mut self, params: &Params) {
        let wanted = params.planes.first().map_or(0, |plane| plane.size);
        self.coded_size = if wanted == 0 {
            self.advised()
        } else {
            wanted.clamp(LEAST_CODED, MOST_CODED)
        };
        self.frame_rate = params.frame_rate.min(RATES.max);
    }

    /// What a driver wants for pictures: the nearest that can be. `follow` where the size is the
    /// driver's to choose.
    pub(super) fn set_raw(
        &mut self,
        params: &Params,
        formats: &Formats,
        dialect: &dyn Dialect,
        follow: bool,
    ) {
        let format = formats.raw_of(params.format, dialect);
        if follow {
            let asked = formats.limits.clamp(Size::new(params.width, params.height));
            let Rect { width, height, .. } = params.crop;
            let seen = |wanted: u32, most: u32| {
                if wanted == 0 { most } else { wanted.min(most) }
            };
            self.visible = Size::new(seen(width, asked.width), seen(height, asked.height));
            self.layout = Layout::packed(format, asked.even(), RAW_ALIGN);
        } else {
            self.layout = Layout::packed(format, self.layout.size, RAW_ALIGN);
        }
        let stride = params.planes.first().map_or(0, |plane| plane.stride);
        let most = self.layout.stride.saturating_mul(4);
        if stride > self.layout.stride && stride <= most && stride % RAW_ALIGN == 0 {
            self.layout.stride = stride;
        }
        self.per_plane = params.num_planes > 1;
        self.frame_rate = params.frame_rate.min(RATES.max);
    }

    /// What GET_PARAMS says.
    pub(super) fn params(&self, function: Function, queue: Queue, dialect: &dyn Dialect) -> Params {
        let mut params = Params {
            queue: queue.code(),
            width: self.layout.size.width,
            height: self.layout.size.height,
            min_buffers: LEAST_BUFFERS,
            max_buffers: MOST_BUFFERS,
            crop: Rect {
                left: 0,
                top: 0,
                width: self.visible.width,
                height: self.visible.height,
            },
            frame_rate: self.frame_rate,
            num_planes: 1,
            ..Params::default()
        };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        if is_coded(function, queue) {
            params.format = dialect.number(Format::Coded(self.codec)).unwrap_or(0);
            params.min_buffers = 1;
            params.planes = planes(&[PlaneFormat {
                size: self.coded_size,
                stride: 0,
            }]);
            return params;
        }
        params.format = dialect.raw(self.layout.format).unwrap_or(0);
        let list: Vec<PlaneFormat> = if self.per_plane {
            let of = self.layout.planes();
            of.iter()
                .map(|plane| PlaneFormat {
                    size: small(plane.size()),
                    stride: small(plane.stride),
                })
                .collect()
        } else {
            vec![PlaneFormat {
                size: small(self.layout.bytes()),
                stride: self.layout.stride,
            }]
        };
        params.num_planes = small(list.len());
        params.planes = planes(&list);
        params
    }
}

fn planes(list: &[PlaneFormat]) -> [PlaneFormat; MAX_PLANES] {
    let mut planes = [PlaneFormat::default(); MAX_PLANES];
    for (to, from) in planes.iter_mut().zip(list) {
        *to = *from;
    }
    planes
}
