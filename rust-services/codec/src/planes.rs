// SPDX-License-Identifier: Apache-2.0

//! Planes of a decoded picture, and their way into their owner's memory.
//!
//! What another process has mapped, too, is looked at through a buffer of our own, a few rows at a time:
//! a byte may change there at any moment.

use std::borrow::Cow;

use vm_memory::VolatileSlice;

use crate::layout::{Layout, PixelFormat, Plane, Size};

/// Bytes that are looked at at a time where rows follow each other without a gap.
const AT_A_TIME: usize = 16 << 10;

/// A picture of another process has no longer side.
pub(crate) const MOST_SIDE: u32 = 16_384;

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

/// Where rows lie.
#[derive(Clone, Copy, Debug)]
enum Memory<'a> {
    Own(&'a [u8]),
    /// Another process has it, too.
    Shared(VolatileSlice<'a>),
}

/// A plane: rows at equal distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    memory: Memory<'a>,
    /// Bytes from a row to the next.
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    /// In memory of this process alone.
    pub(crate) fn own(bytes: &'a [u8], stride: usize) -> Self {
        Self {
            memory: Memory::Own(bytes),
            stride,
        }
    }

    /// In memory that another process has, too.
    pub(crate) fn shared(bytes: VolatileSlice<'a>, stride: usize) -> Self {
        Self {
            memory: Memory::Shared(bytes),
            stride,
        }
    }

    /// Bytes of a row.
    fn row<'r>(&'r self, number: usize, len: usize, room: &'r mut Vec<u8>) -> &'r [u8] {
        self.run(number.saturating_mul(self.stride), len, room)
    }

    fn run<'r>(&'r self, begin: usize, len: usize, room: &'r mut Vec<u8>) -> &'r [u8] {
        match self.memory {
            Memory::Own(bytes) => bytes
                .get(begin..begin.saturating_add(len))
                .unwrap_or_default(),
            Memory::Shared(bytes) => {
                room.resize(len, 0);
                match bytes.subslice(begin, len) {
                    Ok(run) => {
                        run.copy_to(room.as_mut_slice());
                        room
                    }
                    Err(_) => &[],
                }
            }
        }
    }

    /// Copies the first `rows` rows of `len` bytes to where they are seen in a plane: all at once where
    /// they lie alike and have nothing between them.
    pub(crate) fn copy<E>(
        &self,
        plane: usize,
        target: &Plane,
        (len, rows): (usize, u32),
        put: &mut impl FnMut(usize, usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (rows, mut room) = (rows as usize, Vec::new());
        if self.stride != target.stride || len != target.stride {
            return (0..rows)
                .try_for_each(|row| put(plane, target.row(row), self.row(row, len, &mut room)));
        }
        let all = len.saturating_mul(rows);
        let step = match self.memory {
            Memory::Own(_) => all,
            Memory::Shared(_) => AT_A_TIME,
        };
        (0..all).step_by(step.max(1)).try_for_each(|begin| {
            let run = self.run(begin, step.min(all.saturating_sub(begin)), &mut room);
            put(plane, target.seen.saturating_add(begin), run)
        })
    }

    /// Bytes from a row to the next, and the rows, with no more around them than another process takes.
    /// Of memory of this process alone.
    pub(crate) fn for_others(&self, least: &Plane) -> (usize, Cow<'a, [u8]>) {
        let Memory::Own(bytes) = self.memory else {
            return (self.stride, Cow::Borrowed(&[]));
        };
        if self.stride <= most_stride(least.stride) {
            let end = self.stride.saturating_mul(least.rows);
            let rows = bytes.get(..end).unwrap_or(bytes);
            return (self.stride, Cow::Borrowed(rows));
        }
        let rows = bytes.chunks(self.stride).take(least.rows);
        let packed = rows.flat_map(|row| row.iter().take(least.stride).copied());
        (least.stride, Cow::Owned(packed.collect()))
    }
}

/// Where chroma samples are.
enum Chroma<'p, 'a> {
    /// Blue and red in turn.
    Paired(&'p Rows<'a>),
    /// Blue, red.
    Apart(&'p Rows<'a>, &'p Rows<'a>),
}

/// A picture whose chroma has half the resolution.
#[derive(Debug)]
pub(crate) struct Planes<'a> {
    /// The order of its samples.
    pub(crate) format: PixelFormat,
    /// In memory's order.
    pub(crate) planes: Vec<Rows<'a>>,
}

impl<'a> Planes<'a> {
    fn parts(&self) -> Option<(&Rows<'a>, Chroma<'_, 'a>)> {
        Some(match (self.format, self.planes.as_slice()) {
            (PixelFormat::Nv12, [luma, pairs]) => (luma, Chroma::Paired(pairs)),
            (PixelFormat::I420, [luma, blue, red]) | (PixelFormat::Yv12, [luma, red, blue]) => {
                (luma, Chroma::Apart(blue, red))
            }
            _ => return None,
        })
    }

    /// Puts what is seen of it where this layout has it, and its samples in the layout's order. The
    /// layout has room, and chroma of half the resolution, too.
    pub(crate) fn write<E>(
        &self,
        layout: &Layout,
        size: Size,
        put: &mut impl FnMut(usize, usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some((luma, chroma)) = self.parts() else {
            return Ok(());
        };
        let planes = layout.planes();
        let plane = |index: usize| planes.get(index).copied().unwrap_or_default();
        let width = size.width as usize;
        luma.copy(0, &plane(0), (width, size.height), put)?;
        let (half, rows) = (width.div_ceil(2), size.height.div_ceil(2));
        let (mut room, mut other) = (Vec::new(), Vec::new());
        // Which plane is blue and which is red.
        let (blue, red) = if layout.format == PixelFormat::Yv12 {
            (2, 1)
        } else {
            (1, 2)
        };
        match (chroma, layout.format) {
            (Chroma::Paired(pairs), PixelFormat::Nv12) => {
                pairs.copy(1, &plane(1), (half.saturating_mul(2), rows), put)
            }
            (Chroma::Apart(first, second), PixelFormat::Nv12) => {
                let mut row_of_pairs = Vec::with_capacity(half.saturating_mul(2));
                (0..rows as usize).try_for_each(|row| {
                    row_of_pairs.clear();
                    let blue = first.row(row, half, &mut room);
                    let both = blue.iter().zip(second.row(row, half, &mut other));
                    row_of_pairs.extend(both.flat_map(|(blue, red)| [*blue, *red]));
                    put(1, plane(1).row(row), &row_of_pairs)
                })
            }
            (Chroma::Apart(first, second), _) => {
                first.copy(blue, &plane(blue), (half, rows), put)?;
                second.copy(red, &plane(red), (half, rows), put)
            }
            (Chroma::Paired(pairs), _) => (0..rows as usize).try_for_each(|row| {
                let pairs = pairs.row(row, half.saturating_mul(2), &mut room);
                let one =
                    |at: usize| -> Vec<u8> { pairs.iter().skip(at).step_by(2).copied().collect() };
                put(blue, plane(blue).row(row), &one(0))?;
                put(red, plane(red).row(row), &one(1))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(stride: usize, rows: usize, seen: usize) -> Plane {
        Plane {
            offset: 0,
            stride,
            rows,
            seen,
        }
    }

    #[test]
    fn rows_with_much_around_them_are_stored_without_it() {
        let least = plane(2, 2, 0);
        let mut bytes = vec![0; 10_000];
        bytes[..2].copy_from_slice(&[1, 2]);
        bytes[5000..5002].copy_from_slice(&[3, 4]);
        let (stride, rows) = Rows::own(&bytes, 5000).for_others(&least);
        assert_eq!((stride, &*rows), (2, &[1, 2, 3, 4][..]));
        let (stride, rows) = Rows::own(&bytes, 64).for_others(&least);
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

    #[test]
    fn shared_memory_gives_the_same_rows_as_our_own() {
        let mut bytes: Vec<u8> = (0..=255).cycle().take(60_000).collect();
        let own = bytes.clone();
        let shared = VolatileSlice::from(bytes.as_mut_slice());
        // Alike and without a gap; longer rows; into a place with something around it.
        for (stride, len, target) in [
            (200, 200, plane(200, 300, 0)),
            (200, 150, plane(160, 300, 0)),
            (200, 200, plane(400, 300, 808)),
        ] {
            let copied = |rows: Rows<'_>| {
                let mut copied = vec![0; target.size() + 1000];
                let copy = rows.copy(2, &target, (len, 300), &mut |plane, at, run| {
                    assert_eq!(plane, 2);
                    copied[at..at + run.len()].copy_from_slice(run);
                    Ok::<(), ()>(())
                });
                copy.unwrap();
                copied
            };
            assert_eq!(
                copied(Rows::shared(shared, stride)),
                copied(Rows::own(&own, stride))
            );
        }
    }
}
