// SPDX-License-Identifier: Apache-2.0

//! Memory that another process has mapped, too: a decoder that draws its pictures there needs nobody to
//! carry them over.

mod pool;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapOptions};

pub(crate) use pool::FramePool;

/// Pieces of one size of a file, which are lent to a decoder and come back by themselves. Clones are the
/// same ones.
#[derive(Clone, Debug)]
pub struct Frames {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Bytes of each: whole pages.
    size: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Which nobody has, and their mappings once they have been used.
    free: Vec<(usize, Option<MmapMut>)>,
    /// Where each is mapped.
    mapped: Vec<Range<usize>>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece of the file.
    #[allow(unsafe_code, reason = "no mapping of a file is safe by its type")]
    fn map(&self, number: usize) -> io::Result<MmapMut> {
        let begin = (number as u64).saturating_mul(self.size as u64);
        let mut options = MmapOptions::new();
        options.offset(begin).len(self.size);
        // SAFETY: the file is in memory, sealed against being cut short. Each piece is mapped once in
        // this process, and whoever has the file in the other process only reads it.
        unsafe { options.map_mut(&self.file) }
    }
}

impl Frames {
    /// The pieces of these numbers, of so many bytes each, of a sealed file in memory that nobody else
    /// writes.
    pub(crate) fn of(file: File, size: usize, numbers: Range<usize>) -> Self {
        let state = State {
            mapped: vec![0..0; numbers.end],
            free: numbers.rev().map(|number| (number, None)).collect(),
        };
        Self {
            inner: Arc::new(Inner {
                file,
                size,
                state: Mutex::new(state),
            }),
        }
    }

    /// The first bytes of a piece that is free; nothing where there is none, or it is too small.
    pub(crate) fn take(&self, bytes: usize) -> Option<Frame> {
        if bytes > self.inner.size {
            return None;
        }
        let (number, mapping) = self.inner.lock().free.pop()?;
        let mapping = match mapping {
            Some(mapping) => mapping,
            None => match self.inner.map(number) {
                Ok(mapping) => mapping,
                Err(error) => {
                    // It is not tried again: its pictures go another way.
                    log::warn!("memory for pictures cannot be mapped: {error}");
                    return None;
                }
            },
        };
        let begin = mapping.as_ptr().addr();
        if let Some(place) = self.inner.lock().mapped.get_mut(number) {
            *place = begin..begin.saturating_add(mapping.len());
        }
        Some(Frame {
            number,
            bytes,
            mapping: Some(mapping),
            home: self.clone(),
        })
    }

    /// In which piece these bytes lie, and where.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let begin = bytes.as_ptr().addr();
        let end = begin.checked_add(bytes.len())?;
        let state = self.inner.lock();
        let holds = |place: &Range<usize>| place.start <= begin && end <= place.end;
        let number = state.mapped.iter().position(holds)?;
        let start = state.mapped.get(number)?.start;
        Some((number, begin.checked_sub(start)?))
    }
}

/// A piece that is lent. It comes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Frame {
    number: usize,
    bytes: usize,
    mapping: Option<MmapMut>,
    home: Frames,
}

impl AsMut<[u8]> for Frame {
    fn as_mut(&mut self) -> &mut [u8] {
        let mapping = self.mapping.as_deref_mut();
        mapping
            .and_then(|mapping| mapping.get_mut(..self.bytes))
            .unwrap_or_default()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mapping = self.mapping.take();
        self.home.inner.lock().free.push((self.number, mapping));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn frames(numbers: Range<usize>) -> (Frames, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * 4096).unwrap();
        (Frames::of(file.try_clone().unwrap(), 4096, numbers), file)
    }

    #[test]
    fn what_is_drawn_in_a_frame_is_in_the_file_at_its_place() {
        let (frames, file) = frames(1..4);
        let mut frame = frames.take(100).unwrap();
        assert_eq!(frame.as_mut().len(), 100);
        frame.as_mut()[7] = 9;
        let (number, at) = frames.find(&frame.as_mut()[7..9]).unwrap();
        assert_eq!((number, at), (1, 7));
        let mut read = [0];
        file.read_exact_at(&mut read, 4096 + 7).unwrap();
        assert_eq!(read, [9]);
        assert!(frames.find(&[0; 4]).is_none(), "somebody else's bytes");
    }

    #[test]
    fn frames_come_back_and_there_are_no_more_than_there_are() {
        let (frames, _file) = frames(1..4);
        assert!(frames.take(4097).is_none(), "too large");
        let all: Vec<Frame> = (0..3).map(|_| frames.take(4096).unwrap()).collect();
        assert!(frames.take(1).is_none());
        drop(all);
        let mut again = frames.take(1).unwrap();
        assert!(frames.find(again.as_mut()).is_some());
        assert!(frames.take(1).is_some() && frames.take(1).is_some());
    }
}
