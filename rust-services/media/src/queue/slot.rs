// SPDX-License-Identifier: Apache-2.0

//! One buffer of a queue: whose it is, and what was said of it.

use std::sync::Arc;

use rustix::io::Errno;
use virtio_device::Pages;
use zerocopy::FromZeros;

use super::offset;
use crate::memory::PlaneMemory;
use crate::payload::BufferRequest;
use crate::v4l2::buffer::FIELD_ANY;
use crate::v4l2::format::FIELD_NONE;
use crate::v4l2::{BufType, Buffer, BufferFlags, Memory, Plane};

/// What became of a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// The driver's.
    Free,
    /// The driver's, which has said PREPARE_BUF.
    Prepared,
    /// The device's.
    Queued,
}

impl State {
    /// V4L2_BUF_FLAG_* of it.
    pub(super) fn flags(self) -> BufferFlags {
        match self {
            Self::Free => BufferFlags::default(),
            Self::Prepared => BufferFlags::PREPARED,
            Self::Queued => BufferFlags::QUEUED,
        }
    }
}

/// A buffer.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    /// One list of pages for each plane, while the device has it.
    pub(super) planes: Vec<Pages>,
    /// As it was queued.
    pub(super) buffer: Buffer,
    pub(super) plane_words: Vec<Plane>,
    /// The memory of each plane, where it is the device's.
    pub(super) own: Vec<Arc<PlaneMemory>>,
}

impl Slot {
    /// One that its driver has, in this memory.
    pub(super) fn new(
        type_: BufType,
        memory: Memory,
        index: u32,
        own: Vec<Arc<PlaneMemory>>,
    ) -> Self {
        let mut buffer = Buffer::new_zeroed();
        buffer.index = index;
        buffer.type_ = type_.code();
        buffer.memory = memory.code();
        let planes = if type_.is_mplane() { own.len() } else { 0 };
        let mut slot = Self {
            state: State::Free,
            planes: Vec::new(),
            buffer,
            plane_words: vec![Plane::new_zeroed(); planes],
            own,
        };
        slot.place(type_);
        slot
    }

    /// Keeps what the driver says of it.
    pub(super) fn take_words(&mut self, request: &BufferRequest, type_: BufType) {
        self.buffer = request.buffer;
        self.plane_words.clone_from(&request.planes);
        if !self.own.is_empty() {
            self.plane_words.truncate(self.own.len());
            self.place(type_);
        }
    }

    /// Says where the planes of its own memory lie, and how long they are.
    fn place(&mut self, type_: BufType) {
        let index = self.buffer.index;
        let told = |plane: usize| offset::told(type_, index, plane);
        for (at, (plane, own)) in self.plane_words.iter_mut().zip(&self.own).enumerate() {
            (plane.m, plane.length) = (told(at), own.len());
        }
        match self.own.first() {
            None => {}
            Some(_) if type_.is_mplane() => {
                self.buffer.length = u32::try_from(self.own.len()).unwrap_or(0);
            }
            Some(own) => (self.buffer.m, self.buffer.length) = (told(0), own.len()),
        }
    }

    /// QBUF of its own memory: the pages, and the request as it is to be answered.
    pub(super) fn own_pages(
        &self,
        request: &mut BufferRequest,
        type_: BufType,
    ) -> Result<Vec<Pages>, Errno> {
        if type_.is_mplane() && request.planes.len() < self.own.len() {
            return Err(Errno::INVAL);
        }
        for (at, (plane, own)) in request.planes.iter_mut().zip(&self.own).enumerate() {
            plane.m = offset::told(type_, self.buffer.index, at);
            plane.length = own.len();
        }
        if !type_.is_mplane() {
            (request.buffer.m, request.buffer.length) = (self.buffer.m, self.buffer.length);
        }
        Ok(self.own.iter().map(|own| own.pages()).collect())
    }

    /// QBUF of an input that was prepared: as Linux has it, what was said of its bytes then counts, and not
    /// what is said now.
    pub(super) fn recall_words(&self, request: &mut BufferRequest) {
        if self.state == State::Prepared {
            for (plane, kept) in request.planes.iter_mut().zip(&self.plane_words) {
                (plane.bytesused, plane.data_offset) = (kept.bytesused, kept.data_offset);
            }
        }
    }
}

/// Judges what a driver says of an input: of so many bytes a plane, at most.
pub(super) fn judge_input(
    request: &mut BufferRequest,
    pages: &[Pages],
    most: u32,
) -> Result<(), Errno> {
    for (pages, plane) in pages.iter().zip(&request.planes) {
        let used = usize::try_from(plane.bytesused).unwrap_or(usize::MAX);
        let bytes = plane.bytesused.checked_sub(plane.data_offset);
        // As Linux has it: what begins anywhere does not end there.
        let is_void = plane.data_offset > 0 && bytes == Some(0);
        if used > pages.len() || is_void || bytes.is_none_or(|bytes| bytes > most) {
            return Err(Errno::INVAL);
        }
    }
    if request.buffer.field == FIELD_ANY {
        // Whole pictures are all that goes in, and a driver is told what it left open.
        request.buffer.field = FIELD_NONE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    /// An input of one plane that brings these bytes.
    fn input(bytesused: u32, data_offset: u32) -> BufferRequest {
        let plane = Plane {
            bytesused,
            data_offset,
            ..Plane::new_zeroed()
        };
        BufferRequest {
            buffer: Buffer::new_zeroed(),
            type_: BufType::OutputMplane,
            planes: vec![plane],
        }
    }

    #[test]
    fn what_was_said_of_an_input_when_it_was_prepared_counts_when_it_is_queued() {
        let memory = Budget::new(1 << 20).allocate(1000).unwrap();
        let mut slot = Slot::new(BufType::OutputMplane, Memory::Mmap, 0, vec![memory]);
        slot.take_words(&input(100, 10), BufType::OutputMplane);
        for (state, used) in [(State::Free, (5000, 6000)), (State::Prepared, (100, 10))] {
            slot.state = state;
            let mut request = input(5000, 6000);
            slot.recall_words(&mut request);
            let plane = request.planes[0];
            assert_eq!((plane.bytesused, plane.data_offset), used, "{state:?}");
        }
    }

    #[test]
    fn an_input_lies_in_its_plane_and_brings_no_more_than_may_be() {
        let memory = Budget::new(1 << 20).allocate(1000).unwrap();
        let judged = |(bytesused, data_offset)| {
            let mut request = input(bytesused, data_offset);
            judge_input(&mut request, &[memory.pages()], 900).map(|()| request.buffer.field)
        };
        for good in [(0, 0), (900, 0), (1000, 100), (1000, 999)] {
            assert_eq!(judged(good), Ok(FIELD_NONE), "{good:?}");
        }
        for bad in [(1000, 0), (1001, 500), (500, 501), (500, 500), (0, 1)] {
            assert_eq!(judged(bad), Err(Errno::INVAL), "{bad:?}");
        }
    }
}
