// SPDX-License-Identifier: Apache-2.0

//! The buffers of one queue, and who has them.

mod offset;
mod slot;

use std::collections::VecDeque;
use std::sync::Arc;

use rustix::io::Errno;
use virtio_device::Pages;

use crate::function::Context;
use crate::memory::{Budget, PlaneMemory};
use crate::outbox::Session;
use crate::payload::{BufferRequest, Input};
use crate::v4l2::buffer::{CAN_BE_ORPHANED, CAN_MMAP, CAN_SHARE_PAGES};
use crate::v4l2::{BufType, Buffer, BufferFlags, Memory, Plane, RequestBuffers};
use slot::{Slot, State, judge_input};

/// Most buffers of a queue (`VIDEO_MAX_FRAME`).
pub const MAX_BUFFERS: u32 = 32;

/// What a queue's buffers must be.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// Bytes that each plane must have room for, in the present format.
    pub sizes: &'a [u32],
    /// Buffers that the device needs.
    pub least: u32,
    /// Bytes that a plane may bring, at most.
    pub most: u32,
    /// Runs of pages that the device may still note.
    pub runs: usize,
}

/// A buffer that the device may fill or read now.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Which one.
    pub index: u32,
    /// Its planes.
    pub planes: Vec<Pages>,
    /// As it was queued.
    pub buffer: Buffer,
    /// Its planes as they were queued.
    pub plane_words: Vec<Plane>,
}

/// What a buffer that comes back says.
#[derive(Clone, Debug, Default)]
pub struct Filled {
    /// Bytes of each plane that mean something.
    pub used: Vec<u32>,
    /// What it is.
    pub flags: BufferFlags,
    /// Which one of its stream.
    pub sequence: u32,
    /// Its time.
    pub seconds: i64,
    /// And its fraction.
    pub microseconds: i64,
    /// V4L2_FIELD_*.
    pub field: u32,
    /// As it came in, where it did.
    pub timecode: [u8; 16],
}

/// A queue of buffers that its driver and the device pass to each other.
#[derive(Debug)]
pub struct Queue {
    type_: BufType,
    /// Where its buffers lie, while there are some.
    memory: Memory,
    /// Who has asked for its buffers.
    owner: Option<Session>,
    slots: Vec<Slot>,
    waiting: VecDeque<u32>,
    /// Runs of pages of those that wait.
    runs: usize,
    streaming: bool,
    clock: BufferFlags,
}

impl Queue {
    /// A queue without buffers, whose timestamps are of `clock`.
    #[must_use]
    pub fn new(type_: BufType, clock: BufferFlags) -> Self {
        Self {
            type_,
            memory: Memory::SharedPages,
            owner: None,
            slots: Vec::new(),
            waiting: VecDeque::new(),
            runs: 0,
            streaming: false,
            clock,
        }
    }

    /// What it carries.
    #[must_use]
    pub fn type_(&self) -> BufType {
        self.type_
    }

    /// Whether there are buffers: the format stays as it is meanwhile.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Whether it streams.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.streaming
    }

    /// The session that has it.
    #[must_use]
    pub fn owner(&self) -> Option<Session> {
        self.owner
    }

    /// Buffers that there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(MAX_BUFFERS)
    }

    /// Whether there is no buffer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Buffers that wait for the device.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Runs of pages that are noted of them.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// # Errors
    /// EBUSY where another session has it.
    pub fn claim(&self, session: Session) -> Result<(), Errno> {
        match self.owner {
            Some(owner) if owner != session => Err(Errno::BUSY),
            _ => Ok(()),
        }
    }

    /// Where its buffers lie.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// V4L2_BUF_CAP_*: with a budget, memory of the device can be had.
    #[must_use]
    pub fn capabilities(budget: Option<&Budget>) -> u32 {
        CAN_SHARE_PAGES | budget.map_or(0, |_| CAN_MMAP | CAN_BE_ORPHANED)
    }

    /// The plane that QUERYBUF told to be at `offset`.
    #[must_use]
    pub fn memory_at(&self, session: Session, offset: u32) -> Option<Arc<PlaneMemory>> {
        if self.owner != Some(session) {
            return None;
        }
        let (index, plane) = offset::parse(self.type_, offset)?;
        self.slots.get(index)?.own.get(plane).cloned()
    }

    /// REQBUFS: all buffers anew, `least` at least.
    ///
    /// # Errors
    /// EINVAL for memory that cannot be had, EBUSY where it streams or is another's.
    pub fn request(
        &mut self,
        session: Session,
        request: &mut RequestBuffers,
        wants: Wants<'_>,
        budget: Option<&Budget>,
    ) -> Result<(), Errno> {
        self.claim(session)?;
        request.capabilities = Self::capabilities(budget);
        request.flags = 0;
        let memory = may_lie(request.memory, budget)?;
        if self.streaming {
            return Err(Errno::BUSY);
        }
        self.slots.clear();
        self.waiting.clear();
        self.runs = 0;
        self.owner = None;
        if request.count > 0 {
            let least = wants.least.max(1);
            self.memory = memory;
            self.add(request.count.clamp(least, MAX_BUFFERS), wants.sizes, budget);
            if self.len() < least {
                self.slots.clear();
                return Err(Errno::NOMEM);
            }
            request.count = self.len();
            self.owner = Some(session);
        }
        Ok(())
    }

    /// CREATE_BUFS: more buffers. Returns the first new one and how many there are.
    ///
    /// # Errors
    /// As [`Queue::request`]; ENOBUFS where there are as many as may be.
    pub fn create(
        &mut self,
        session: Session,
        memory: u32,
        count: u32,
        sizes: &[u32],
        budget: Option<&Budget>,
    ) -> Result<(u32, u32), Errno> {
        self.claim(session)?;
        let memory = may_lie(memory, budget)?;
        if !self.slots.is_empty() && memory != self.memory {
            return Err(Errno::INVAL);
        }
        let first = self.len();
        let count = count.min(MAX_BUFFERS.saturating_sub(first));
        if count > 0 {
            self.memory = memory;
            self.add(count, sizes, budget);
            if self.len() == first {
                return Err(Errno::NOMEM);
            }
            self.owner = Some(session);
        }
        Ok((first, self.len().saturating_sub(first)))
    }

    /// Adds so many buffers, or as many as there is memory for.
    fn add(&mut self, count: u32, sizes: &[u32], budget: Option<&Budget>) {
        for _ in 0..count {
            let own = match (self.memory, budget) {
                (Memory::Mmap, Some(budget)) => {
                    sizes.iter().map(|&size| budget.allocate(size)).collect()
                }
                (Memory::Mmap, None) => Err(Errno::NOMEM),
                (Memory::SharedPages, _) => Ok(Vec::new()),
            };
            let Ok(own) = own else {
                return;
            };
            let slot = Slot::new(self.type_, self.memory, self.len(), own);
            self.slots.push(slot);
        }
    }

    fn slot(&mut self, index: u32) -> Result<&mut Slot, Errno> {
        let index = usize::try_from(index).map_err(|_| Errno::INVAL)?;
        self.slots.get_mut(index).ok_or(Errno::INVAL)
    }

    /// QUERYBUF: how a buffer stands.
    ///
    /// # Errors
    /// EINVAL where there is no such buffer.
    pub fn query(&mut self, request: &mut BufferRequest) -> Result<(), Errno> {
        let clock = self.clock;
        let type_ = self.type_;
        let slot = self.slot(request.buffer.index)?;
        let pointer = request.buffer.m;
        let mut buffer = slot.buffer;
        buffer.flags = clock.0 | slot.state.flags().0;
        if !slot.own.is_empty() {
            if request.planes.len() < slot.plane_words.len() {
                return Err(Errno::INVAL);
            }
            if slot.own.iter().any(|plane| plane.is_mapped()) {
                buffer.flags |= BufferFlags::MAPPED.0;
            }
            if type_.is_mplane() {
                buffer.m = pointer;
            }
            request.buffer = buffer;
            for (to, from) in request.planes.iter_mut().zip(&slot.plane_words) {
                *to = *from;
            }
            return Ok(());
        }
        buffer.m = pointer;
        if type_.is_mplane() {
            buffer.length = request.buffer.length;
        }
        request.buffer = buffer;
        for (to, from) in request.planes.iter_mut().zip(&slot.plane_words) {
            let pointer = to.m;
            *to = *from;
            to.m = pointer;
        }
        Ok(())
    }

    /// PREPARE_BUF: of pages there is nothing to prepare, for they come with QBUF. What a driver says of
    /// an input in memory of the device is judged and kept.
    ///
    /// # Errors
    /// EINVAL where there is no such buffer, it is not the driver's any more, or brings more than may
    /// be; EBUSY where it is another session's.
    pub fn prepare(
        &mut self,
        session: Session,
        request: &mut BufferRequest,
        most: u32,
    ) -> Result<(), Errno> {
        self.claim(session)?;
        let type_ = self.type_;
        let slot = self.slot(request.buffer.index)?;
        if slot.own.is_empty() {
            return Ok(());
        }
        if slot.state != State::Free || request.buffer.memory != slot.buffer.memory {
            return Err(Errno::INVAL);
        }
        let pages = slot.own_pages(request, type_)?;
        // As Linux has it, a buffer has a time from QBUF on.
        (request.buffer.seconds, request.buffer.microseconds) = (0, 0);
        if type_.is_output() {
            judge_input(request, &pages, most)?;
            slot.take_words(request, type_);
        }
        slot.state = State::Prepared;
        Ok(())
    }

    /// QBUF: the buffer is the device's. What each plane must have room for is no wish of a queue that
    /// the driver fills.
    ///
    /// # Errors
    /// EINVAL for a buffer that is not the driver's, too small, or brings more than may be; EFAULT for
    /// one that is not in guest memory; ENOMEM for one in more pieces than the device may note.
    pub fn queue(
        &mut self,
        session: Session,
        request: &mut BufferRequest,
        input: &mut Input<'_>,
        context: &Context<'_>,
        wants: Wants<'_>,
    ) -> Result<(), Errno> {
        self.claim(session)?;
        let (clock, type_) = (self.clock, self.type_);
        let is_output = self.type_.is_output();
        if self.slot(request.buffer.index)?.state == State::Queued {
            return Err(Errno::INVAL);
        }
        let planes = match Memory::parse(request.buffer.memory)? {
            memory if memory != self.memory => return Err(Errno::INVAL),
            Memory::Mmap => self.slot(request.buffer.index)?.own_pages(request, type_)?,
            Memory::SharedPages => guest_pages(request, input, context, wants.runs)?,
        };
        if planes.len() != wants.sizes.len() {
            return Err(Errno::INVAL);
        }
        let noted: usize = planes.iter().map(Pages::runs).sum();
        for (pages, &size) in planes.iter().zip(wants.sizes) {
            if !is_output && pages.len() < usize::try_from(size).unwrap_or(usize::MAX) {
                return Err(Errno::INVAL);
            }
        }
        if is_output {
            self.slot(request.buffer.index)?.recall_words(request);
            judge_input(request, &planes, wants.most)?;
        }
        let kept = request.buffer.flags & BufferFlags::KEPT.0;
        request.buffer.flags = clock.0 | BufferFlags::QUEUED.0 | kept;
        let index = request.buffer.index;
        let slot = self.slot(index)?;
        slot.state = State::Queued;
        slot.planes = planes;
        slot.take_words(request, type_);
        self.waiting.push_back(index);
        self.runs = self.runs.saturating_add(noted);
        Ok(())
    }

    /// STREAMON.
    ///
    /// # Errors
    /// EINVAL without buffers, EBUSY where it is another's.
    pub fn start(&mut self, session: Session) -> Result<(), Errno> {
        self.claim(session)?;
        if self.slots.is_empty() {
            return Err(Errno::INVAL);
        }
        self.streaming = true;
        Ok(())
    }

    /// STREAMOFF: all buffers are the driver's.
    ///
    /// # Errors
    /// EBUSY where it is another's.
    pub fn stop(&mut self, session: Session) -> Result<(), Errno> {
        self.claim(session)?;
        self.streaming = false;
        self.waiting.clear();
        self.runs = 0;
        for slot in &mut self.slots {
            slot.state = State::Free;
            // From here on these pages are nobody's that the device knows.
            slot.planes.clear();
        }
        Ok(())
    }

    /// The session has ended: no buffers.
    pub fn release(&mut self) {
        *self = Self::new(self.type_, self.clock);
    }

    /// Takes the next buffer out of those that wait; [`Queue::give_back`] follows.
    pub fn take(&mut self) -> Option<Queued> {
        let index = self.waiting.pop_front()?;
        let slot = self.slot(index).ok()?;
        let queued = Queued {
            index,
            planes: std::mem::take(&mut slot.planes),
            buffer: slot.buffer,
            plane_words: slot.plane_words.clone(),
        };
        let noted = queued.planes.iter().map(Pages::runs).sum();
        self.runs = self.runs.saturating_sub(noted);
        Some(queued)
    }

    /// The device is done with a buffer: what to tell the driver. `None` where it is the driver's
    /// already.
    pub fn give_back(&mut self, index: u32, filled: &Filled) -> Option<(Buffer, Vec<Plane>)> {
        let clock = self.clock;
        let is_mplane = self.type_.is_mplane();
        let slot = self.slot(index).ok()?;
        if slot.state != State::Queued {
            return None;
        }
        slot.state = State::Free;
        slot.planes.clear();
        let buffer = &mut slot.buffer;
        buffer.flags = clock.0 | filled.flags.0;
        buffer.sequence = filled.sequence;
        buffer.field = filled.field;
        buffer.seconds = filled.seconds;
        buffer.microseconds = filled.microseconds;
        buffer.timecode = filled.timecode;
        if !is_mplane {
            buffer.bytesused = filled.used.first().copied().unwrap_or(0);
        }
        for (plane, &used) in slot.plane_words.iter_mut().zip(&filled.used) {
            plane.bytesused = used;
            plane.data_offset = 0;
        }
        let mut told = slot.buffer;
        told.flags |= BufferFlags::DONE.0;
        let mut planes = slot.plane_words.clone();
        if slot.own.is_empty() || is_mplane {
            // An address would mean nothing in the event's place.
            told.m = 0;
        }
        if slot.own.is_empty() {
            planes.iter_mut().for_each(|plane| plane.m = 0);
        } else if slot.own.iter().any(|plane| plane.is_mapped()) {
            told.flags |= BufferFlags::MAPPED.0;
        }
        Some((told, planes))
    }
}

/// Reads the lists of pages that follow a buffer, which may be of so many runs in all.
fn guest_pages(
    request: &BufferRequest,
    input: &mut Input<'_>,
    context: &Context<'_>,
    most: usize,
) -> Result<Vec<Pages>, Errno> {
    let runs = request.take_pages(input)?;
    if runs.iter().map(Vec::len).sum::<usize>() > most {
        return Err(Errno::NOMEM);
    }
    let pages = |runs| Pages::new(context.memory, runs).map_err(|_| Errno::FAULT);
    runs.into_iter().map(pages).collect()
}

/// Where buffers may lie: in the device's memory only where the guest can have it.
fn may_lie(memory: u32, budget: Option<&Budget>) -> Result<Memory, Errno> {
    match Memory::parse(memory)? {
        Memory::Mmap if budget.is_none() => Err(Errno::INVAL),
        memory => Ok(memory),
    }
}
