// SPDX-License-Identifier: Apache-2.0

//! Draft v3, which ChromeOS' guests speak: a twin of v5 with other numbers of raw formats, and other
//! structures about resources.

use agl_virtio_codec::PixelFormat;

use super::bytes::{Reader, Writer};
use super::memory::{OfQueue, objects};
use super::numbers::response;
use super::v5::{answer_with, parse, which, write_event};
use super::{
    Answer, Command, Dialect, Event, MAX_PLANES, MemoryOf, MemoryType, Planes, Refusal, Request,
};

/// Flag: the last one.
const END: u32 = 2;
/// Flag: a key picture.
const KEY: u32 = 4;
/// Flag of other pictures.
const PREDICTED: u32 = 8;

/// The dialect.
#[derive(Clone, Copy, Debug)]
pub struct V3;

impl Dialect for V3 {
    fn name(&self) -> &'static str {
        "v3"
    }

    fn parse(&self, bytes: &[u8], memory: MemoryOf<'_>) -> Result<Request, (u32, Refusal)> {
        parse(bytes, memory, create, queue)
    }

    fn answer(&self, stream: u32, answer: &Answer) -> Vec<u8> {
        answer_with(self, stream, answer, |done| {
            let size = done
                .sizes
                .iter()
                .fold(0_u32, |sum, size| sum.saturating_add(*size));
            let end = if done.end { END } else { 0 };
            let kind = match (size, done.key) {
                (0, _) => 0,
                (_, true) => KEY,
                (_, false) => PREDICTED,
            };
            Writer::begin(response::RESOURCE_QUEUE, stream)
                .u64(done.timestamp)
                .u32(end | kind)
                .u32(size)
        })
    }

    fn event(&self, stream: u32, event: Event) -> Vec<u8> {
        write_event(stream, event)
    }

    fn raw(&self, format: PixelFormat) -> Option<u32> {
        Some(match format {
            PixelFormat::Argb => 1,
            PixelFormat::Bgra => 2,
            PixelFormat::Nv12 => 3,
            PixelFormat::I420 => 4,
            PixelFormat::Yv12 => 5,
            PixelFormat::Rgba => return None,
        })
    }
}

/// RESOURCE_CREATE. Offsets of planes are where the layout has them anyway.
fn create(from: &mut Reader<'_>, memory: OfQueue<'_>) -> Result<Command, Refusal> {
    let queue = which(from)?;
    let [id, _layout, num_planes] = from.u32s()?;
    let _offsets: [u32; MAX_PLANES] = from.u32s()?;
    let counts: [u32; MAX_PLANES] = from.u32s()?;
    if num_planes as usize > MAX_PLANES {
        return Err(Refusal::InvalidParameter);
    }
    // A single buffer has its entries once, whatever the number of planes.
    let mut counts = counts
        .iter()
        .take(num_planes as usize)
        .filter(|count| **count > 0);
    let planes = match memory(queue)? {
        MemoryType::GuestPages => Planes::Pages(
            counts
                .map(|count| from.runs(*count))
                .collect::<Result<_, _>>()?,
        ),
        // An object is all the memory that a plane has.
        MemoryType::Objects if counts.all(|count| *count == 1) => Planes::Objects(objects(from)?),
        MemoryType::Objects => return Err(Refusal::InvalidParameter),
    };
    Ok(Command::Attach { queue, id, planes })
}

fn queue(from: &mut Reader<'_>) -> Result<Command, Refusal> {
    let queue = which(from)?;
    let id = from.u32()?;
    let timestamp = from.u64()?;
    let given = from.u32()?;
    let mut sizes: [u32; MAX_PLANES] = from.u32s()?;
    for size in sizes.iter_mut().skip(given as usize) {
        *size = 0;
    }
    Ok(Command::Queue {
        queue,
        id,
        flags: 0,
        timestamp,
        sizes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Done, Queue, Uuid};

    const PAGES: MemoryOf<'static> = &|_, _| Some(MemoryType::GuestPages);

    fn words(list: &[u32]) -> Vec<u8> {
        list.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_resource_of_v3_has_its_counts_before_its_runs() {
        let mut list = vec![0x104, 9, 0x101, 3, 2, 2];
        list.extend([0; 8]);
        list.extend([1, 2, 0, 0, 0, 0, 0, 0]);
        for low in [0x1000, 0x2000, 0x3000] {
            list.extend([low, 1, 64, 0]);
        }
        let Command::Attach { queue, id, planes } = V3.parse(&words(&list), PAGES).unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!((queue, id), (Queue::Output, 3));
        let at = |low: u64| 1_u64 << 32 | low;
        assert_eq!(
            planes,
            Planes::Pages(vec![
                vec![(at(0x1000), 64)],
                vec![(at(0x2000), 64), (at(0x3000), 64)]
            ])
        );
        list.truncate(30);
        let short = V3.parse(&words(&list), PAGES);
        assert_eq!(short, Err((9, Refusal::InvalidParameter)));
    }

    #[test]
    fn an_object_is_all_the_memory_of_a_plane() {
        let mut list = vec![0x104, 9, 0x101, 3, 2, 2];
        list.extend([0; 8]);
        list.extend([1, 1, 0, 0, 0, 0, 0, 0]);
        list.extend([0x0101_0101; 4]);
        list.extend([0x0202_0202; 4]);
        let memory = |stream, queue| match (stream, queue) {
            (9, Queue::Output) => Some(MemoryType::Objects),
            _ => None,
        };
        let parsed = V3.parse(&words(&list), &memory).unwrap().command;
        let planes = Planes::Objects(vec![Uuid([1; 16]), Uuid([2; 16])]);
        let (queue, id) = (Queue::Output, 3);
        assert_eq!(parsed, Command::Attach { queue, id, planes });
        list[14] = 2;
        let two = V3.parse(&words(&list), &memory);
        assert_eq!(two, Err((9, Refusal::InvalidParameter)));
        list[14] = 1;
        list[1] = 8;
        let lost = V3.parse(&words(&list), &memory);
        assert_eq!(lost, Err((8, Refusal::InvalidStream)));
        list[1] = 9;
        list.pop();
        let short = V3.parse(&words(&list), &memory);
        assert_eq!(short, Err((9, Refusal::InvalidParameter)));
    }

    #[test]
    fn a_queued_resource_of_v3_has_no_flags_and_its_answer_one_size() {
        let mut list = vec![0x105, 9, 0x100, 3, 77, 1, 1, 500, 600];
        list.extend([0; 8]);
        let Command::Queue {
            timestamp, sizes, ..
        } = V3.parse(&words(&list), PAGES).unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!((timestamp, sizes[0], sizes[1]), (1 << 32 | 77, 500, 0));
        let done = Done {
            key: true,
            timestamp,
            sizes: [500, 20, 0, 0, 0, 0, 0, 0],
            ..Done::default()
        };
        assert_eq!(
            V3.answer(9, &Answer::Done(done)),
            words(&[0x202, 9, 77, 1, 4, 520])
        );
        let end = Done {
            end: true,
            ..Done::default()
        };
        assert_eq!(
            V3.answer(9, &Answer::Done(end)),
            words(&[0x202, 9, 0, 0, 2, 0])
        );
    }
}
