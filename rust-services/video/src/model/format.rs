// SPDX-License-Identifier: Apache-2.0

//! What can be chosen, and what a choice comes to.

use agl_virtio_codec::{Codec, Layout, Limits, PixelFormat, Position, Size};

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
    /// What is seen of a picture, from the layout's origin on.
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

    /// Pictures have this size from now on. Where they have it already, they stay where a driver has
    /// put them.
    pub(super) fn resize(&mut self, visible: Size) {
        if visible == self.visible {
            return;
        }
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

    /// What a driver wants for pictures: the nearest that can be. The drafts call its rectangle one for
    /// cropping and for composing: it is what an encoder takes of a picture, and where a decoder puts one.
    /// `follow` where the size is the driver's to choose.
    pub(super) fn set_raw(
        &mut self,
        params: &Params,
        formats: &Formats,
        dialect: &dyn Dialect,
        follow: bool,
    ) {
        let format = formats.raw_of(params.format, dialect);
        let asked = formats.limits.clamp(Size::new(params.width, params.height));
        if follow {
            let Rect { width, height, .. } = params.crop;
            let seen = |wanted: u32, most: u32| {
                if wanted == 0 { most } else { wanted.min(most) }
            };
            self.visible = Size::new(seen(width, asked.width), seen(height, asked.height));
        }
        // A stream that has its size lies somewhere in what is as large at least.
        let size = Size::new(
            asked.width.max(self.visible.width),
            asked.height.max(self.visible.height),
        );
        self.layout = Layout::packed(format, size.even(), RAW_ALIGN);
        self.layout.origin = self.placed(&params.crop);
        let stride = params.planes.first().map_or(0, |plane| plane.stride);
        let most = self.layout.stride.saturating_mul(4);
        if stride > self.layout.stride && stride <= most && stride % RAW_ALIGN == 0 {
            self.layout.stride = stride;
        }
        self.per_plane = params.num_planes > 1;
        self.frame_rate = params.frame_rate.min(RATES.max);
    }

    /// The place nearest to that of a rectangle at which all that is seen lies in the picture.
    fn placed(&self, crop: &Rect) -> Position {
        let along = |begin: u32, seen: u32, all: u32| begin.min(all.saturating_sub(seen)) & !1;
        let (seen, all) = (self.visible, self.layout.size);
        Position::new(
            along(crop.left, seen.width, all.width),
            along(crop.top, seen.height, all.height),
        )
    }

    /// What GET_PARAMS says.
    pub(super) fn params(&self, function: Function, queue: Queue, dialect: &dyn Dialect) -> Params {
        let decodes = function == Function::Decoder;
        let (size, origin) = if is_coded(function, queue) && decodes {
            // What is around a picture is not in the stream.
            (self.visible.even(), Position::default())
        } else if is_coded(function, queue) {
            (self.layout.size, Position::default())
        } else {
            (self.layout.size, self.layout.origin)
        };
        let mut params = Params {
            queue: queue.code(),
            width: size.width,
            height: size.height,
            min_buffers: LEAST_BUFFERS,
            max_buffers: MOST_BUFFERS,
            crop: Rect {
                left: origin.left,
                top: origin.top,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::V5;

    const LIMITS: Limits = Limits {
        least: Size::new(16, 16),
        most: Size::new(512, 512),
    };

    fn wish(size: (u32, u32), crop: (u32, u32, u32, u32)) -> Params {
        let (left, top, width, height) = crop;
        Params {
            format: 4,
            width: size.0,
            height: size.1,
            crop: Rect {
                left,
                top,
                width,
                height,
            },
            num_planes: 1,
            ..Params::default()
        }
    }

    fn set(
        chosen: &mut Chosen,
        params: &Params,
        follow: bool,
    ) -> ((u32, u32), (u32, u32, u32, u32)) {
        let formats = Formats::new([Codec::H264].into_iter(), LIMITS, &V5);
        chosen.set_raw(params, &formats, &V5, follow);
        let (function, queue) = if follow {
            (Function::Encoder, Queue::Input)
        } else {
            (Function::Decoder, Queue::Output)
        };
        assert!(chosen.layout.holds(chosen.visible));
        let told = chosen.params(function, queue, &V5);
        let Rect {
            left,
            top,
            width,
            height,
        } = told.crop;
        ((told.width, told.height), (left, top, width, height))
    }

    fn chosen() -> Chosen {
        let formats = Formats::new([Codec::H264].into_iter(), LIMITS, &V5);
        Chosen::new(Codec::H264, &formats)
    }

    #[test]
    fn what_an_encoder_takes_of_a_picture_lies_in_it() {
        let most = u32::MAX;
        for (size, crop, wanted) in [
            ((64, 48), (0, 0, 0, 0), (0, 0, 64, 48)),
            ((64, 48), (20, 10, 32, 16), (20, 10, 32, 16)),
            ((64, 48), (21, 11, 32, 16), (20, 10, 32, 16)),
            ((64, 48), (60, 47, 32, 16), (32, 32, 32, 16)),
            ((64, 48), (most, most, most, most), (0, 0, 64, 48)),
            ((64, 48), (most, most, 2, 2), (62, 46, 2, 2)),
            ((most, most), (most, 3, 1, most), (510, 0, 1, 512)),
        ] {
            let told = set(&mut chosen(), &wish(size, crop), true);
            assert_eq!(told.1, wanted, "{size:?} {crop:?}");
        }
    }

    #[test]
    fn what_a_decoder_gives_lies_where_it_is_wanted_in_the_size_that_it_has() {
        let most = u32::MAX;
        for (size, crop, wanted) in [
            ((0, 0), (0, 0, 0, 0), ((32, 16), (0, 0, 31, 15))),
            ((64, 48), (0, 0, 8, 8), ((64, 48), (0, 0, 31, 15))),
            ((64, 48), (20, 10, 0, 0), ((64, 48), (20, 10, 31, 15))),
            ((64, 48), (33, 99, 31, 15), ((64, 48), (32, 32, 31, 15))),
            ((20, 48), (9, 9, 31, 15), ((32, 48), (0, 8, 31, 15))),
            (
                (most, most),
                (most, most, most, most),
                ((512, 512), (480, 496, 31, 15)),
            ),
        ] {
            let mut chosen = chosen();
            chosen.resize(Size::new(31, 15));
            let told = set(&mut chosen, &wish(size, crop), false);
            assert_eq!(told, wanted, "{size:?} {crop:?}");
            // The stream has neither that size nor that place.
            let stream = chosen.params(Function::Decoder, Queue::Input, &V5);
            assert_eq!((stream.width, stream.height), (32, 16));
            assert_eq!((stream.crop.left, stream.crop.top), (0, 0));
        }
    }

    #[test]
    fn pictures_of_another_size_lie_at_the_beginning_and_those_of_the_same_stay() {
        let mut chosen = chosen();
        chosen.resize(Size::new(32, 16));
        set(&mut chosen, &wish((64, 48), (20, 10, 32, 16)), false);
        chosen.resize(Size::new(32, 16));
        assert_eq!(chosen.layout.size, Size::new(64, 48));
        assert_eq!(chosen.layout.origin, Position::new(20, 10));
        chosen.resize(Size::new(33, 16));
        assert_eq!(chosen.layout.size, Size::new(34, 16));
        assert_eq!(chosen.layout.origin, Position::default());
    }
}
