// SPDX-License-Identifier: Apache-2.0

//! The device's side of a split virtqueue (VIRTIO 1.4, section 2.7).
//!
//! The driver writes descriptors and the available ring whenever it likes and whatever it likes. A
//! chain that makes no sense is given back; a ring that makes no sense is set aside until its next
//! start, because nothing more that it says can be told from noise.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::desc::split::Descriptor;
use vm_memory::ByteValued;

use crate::chain::{Chain, MAX_SEGMENTS, Segment};
use crate::crash::{CrashPoint, pass};
use crate::inflight::{Inflight, Lost};
use crate::memory::Memory;
use crate::seen::{Mark, Seen, judge};
use crate::window::Window;

const DESCRIPTOR_SIZE: usize = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;
const AVAIL_NO_INTERRUPT: u16 = 1;

const INDEX_AT: usize = 2;
const AVAIL_RING_AT: usize = 4;
const USED_RING_AT: usize = 4;
const USED_ELEMENT_SIZE: usize = 8;

/// Where the driver put a ring, and how far the VMM says it had come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) event_idx: bool,
}

/// What is wrong with a ring as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the ring of {size} descriptors is not in guest memory, or not aligned")]
    NotInMemory { size: u16 },
    #[error("the available index {index} is more than the ring's size ahead of {next}")]
    Index { index: u16, next: u16 },
    #[error("the available ring names descriptor {head} of {size}")]
    Head { head: u16, size: u16 },
    #[error("the available ring names descriptor {head}, which the device has already")]
    Twice { head: u16 },
}

/// What came out of the available ring.
pub(crate) enum Popped {
    /// A request.
    Chain(Chain),
    /// A chain that makes no sense, to be given back unread.
    Malformed(Chain),
    /// Nothing.
    Empty,
}

/// A running split ring.
pub(crate) struct Ring {
    layout: Layout,
    descriptors: Window,
    available: Window,
    used: Window,
    next_avail: u16,
    /// The driver's index as last read: the ring is only asked again when this is used up.
    seen_avail: u16,
    next_used: u16,
    /// The used index at the last interrupt.
    signalled: u16,
    /// Chains a former process had taken, in reverse order.
    lost: Vec<Lost>,
    /// The record says that a chain is being worked on.
    at_work: bool,
    /// Segment lists of completed chains, to be filled again.
    spare: Vec<Vec<Segment>>,
    pub(crate) inflight: Inflight,
}

impl Ring {
    /// Maps a ring. `next_avail` is where the next chain is read.
    pub(crate) fn new(
        memory: &Memory,
        layout: Layout,
        next_avail: u16,
        inflight: Inflight,
    ) -> Result<Self, Broken> {
        let (descriptors, available, used) = map(memory, &layout)?;
        let next_used = used.load(INDEX_AT, Ordering::Acquire);
        Ok(Self {
            layout,
            descriptors,
            available,
            used,
            next_avail,
            seen_avail: next_avail,
            next_used,
            signalled: next_used,
            lost: Vec::new(),
            at_work: false,
            spare: Vec::new(),
            inflight,
        })
    }

    /// Follows the ring to another place: a new memory table, or a resumed queue.
    pub(crate) fn remap(&mut self, memory: &Memory, layout: Layout) -> Result<(), Broken> {
        (self.descriptors, self.available, self.used) = map(memory, &layout)?;
        self.layout = layout;
        // A ring that was set aside before its first chain looks, after a reset, like one that was
        // paused: what was seen of its index then is not the driver's any more.
        self.seen_avail = self.next_avail;
        Ok(())
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn next_avail(&self) -> u16 {
        self.next_avail
    }

    pub(crate) fn next_used(&self) -> u16 {
        self.next_used
    }

    /// The used index that the driver sees.
    pub(crate) fn used_idx_in_memory(memory: &Memory, layout: &Layout) -> Result<u16, Broken> {
        map(memory, layout).map(|(_, _, used)| used.load(INDEX_AT, Ordering::Acquire))
    }

    /// Takes over the chains that a former process had in flight.
    pub(crate) fn recover(&mut self) {
        self.lost = self.inflight.recover(self.layout.size, self.next_used);
        self.lost.reverse();
    }

    /// Takes the next chain. When there is none, the driver has been asked to kick for the next.
    pub(crate) fn pop(
        &mut self,
        memory: &Memory,
        queue: usize,
        generation: u32,
    ) -> Result<Popped, Broken> {
        if let Some(lost) = self.lost.pop() {
            self.work_on(lost.head);
            return Ok(self.chain(memory, queue, generation, lost));
        }
        if self.seen_avail == self.next_avail && !self.look_again()? {
            return Ok(Popped::Empty);
        }
        let slot = usize::from(self.next_avail & self.layout.size.wrapping_sub(1));
        let at = AVAIL_RING_AT.saturating_add(slot.saturating_mul(2));
        let head = self.available.load(at, Ordering::Relaxed);
        if head >= self.layout.size {
            return Err(Broken::Head {
                head,
                size: self.layout.size,
            });
        }
        // Two chains of one head could not be told apart when they are given back.
        if self.inflight.is_taken(head) {
            return Err(Broken::Twice { head });
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        self.inflight.taken(head);
        self.work_on(head);
        pass(CrashPoint::Popped);
        let new = Lost {
            head,
            deaths: 0,
            blame: 0,
        };
        Ok(self.chain(memory, queue, generation, new))
    }

    /// A death from now on is blamed on the chain at `head`.
    #[inline]
    pub(crate) fn work_on(&mut self, head: u16) {
        self.at_work = true;
        self.inflight.in_hand(Some(head));
    }

    /// The turn is over: nothing is being worked on.
    #[inline]
    pub(crate) fn rest(&mut self) {
        if std::mem::take(&mut self.at_work) {
            self.inflight.in_hand(None);
        }
    }

    /// Reads the driver's index, and asks for a kick if there is nothing new. The driver's answer to
    /// that question may already have been "no", so the index is read once more after it.
    fn look_again(&mut self) -> Result<bool, Broken> {
        if self.load_avail_index()? {
            return Ok(true);
        }
        if self.layout.event_idx {
            let at = USED_RING_AT
                .saturating_add(usize::from(self.layout.size).saturating_mul(USED_ELEMENT_SIZE));
            self.used.store(at, self.next_avail, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            return self.load_avail_index();
        }
        Ok(false)
    }

    fn load_avail_index(&mut self) -> Result<bool, Broken> {
        let index = self.available.load(INDEX_AT, Ordering::Acquire);
        if index.wrapping_sub(self.next_avail) > self.layout.size {
            return Err(Broken::Index {
                index,
                next: self.next_avail,
            });
        }
        self.seen_avail = index;
        Ok(index != self.next_avail)
    }

    fn chain(&mut self, memory: &Memory, queue: usize, generation: u32, start: Lost) -> Popped {
        let mut chain = Chain {
            queue,
            head: start.head,
            generation,
            deaths: start.deaths,
            blame: start.blame,
            found: std::time::Duration::ZERO,
            segments: self.spare.pop().unwrap_or_default(),
            readable_segments: 0,
            readable: 0,
            writable: 0,
        };
        if self.collect(memory, &mut chain).is_some() {
            return Popped::Chain(chain);
        }
        chain.segments.clear();
        (chain.readable_segments, chain.readable, chain.writable) = (0, 0, 0);
        Popped::Malformed(chain)
    }

    /// Follows a chain from its head. `None` when it makes no sense.
    fn collect(&self, memory: &Memory, chain: &mut Chain) -> Option<()> {
        let mut index = chain.head;
        // A direct chain longer than the ring has a loop.
        for _ in 0..self.layout.size {
            let at = usize::from(index).saturating_mul(DESCRIPTOR_SIZE);
            let descriptor = parse(self.descriptors.read(at));
            if descriptor.flags() & FLAG_INDIRECT != 0 {
                // "The driver MUST NOT set both VIRTQ_DESC_F_INDIRECT and VIRTQ_DESC_F_NEXT."
                if descriptor.flags() & FLAG_NEXT != 0 {
                    return None;
                }
                return collect_indirect(memory, &descriptor, chain);
            }
            append(chain, &descriptor)?;
            if descriptor.flags() & FLAG_NEXT == 0 {
                return Some(());
            }
            index = descriptor.next();
            if index >= self.layout.size {
                return None;
            }
        }
        None
    }

    /// Gives a chain back with `written` bytes in its writable part.
    pub(crate) fn push(&mut self, mut chain: Chain, written: u32) {
        let head = chain.head;
        let slot = usize::from(self.next_used & self.layout.size.wrapping_sub(1));
        let mut element = [0; USED_ELEMENT_SIZE];
        let (id, len) = element.split_at_mut(4);
        id.copy_from_slice(&u32::from(head).to_le_bytes());
        len.copy_from_slice(&written.to_le_bytes());
        self.used.write(
            USED_RING_AT.saturating_add(slot.saturating_mul(USED_ELEMENT_SIZE)),
            element,
        );
        self.inflight.finishing(head);
        pass(CrashPoint::BeforeUsed);
        self.next_used = self.next_used.wrapping_add(1);
        self.used.store(INDEX_AT, self.next_used, Ordering::Release);
        pass(CrashPoint::AfterUsed);
        self.inflight.finished(head, self.next_used);
        chain.segments.clear();
        self.spare.push(chain.segments);
    }

    /// Whether the driver wants to be told of what was given back since the last time it was.
    pub(crate) fn needs_signal(&mut self) -> bool {
        let old = std::mem::replace(&mut self.signalled, self.next_used);
        if old == self.next_used {
            return false;
        }
        // The used index must be visible before the driver's wish is read (section 2.7.7.2).
        fence(Ordering::SeqCst);
        if self.layout.event_idx {
            let passed = self
                .next_used
                .wrapping_sub(self.used_event())
                .wrapping_sub(1);
            passed < self.next_used.wrapping_sub(old)
        } else {
            self.available.load(0, Ordering::Relaxed) & AVAIL_NO_INTERRUPT == 0
        }
    }

    /// Whether the driver has taken what was given back before `mark`.
    pub(crate) fn has_seen(&self, mark: Mark) -> Seen {
        let used_event = self.layout.event_idx.then(|| self.used_event());
        judge(mark, self.next_used, used_event, self.layout.size)
    }

    /// The used index at which the driver wants its next interrupt.
    fn used_event(&self) -> u16 {
        let at = AVAIL_RING_AT.saturating_add(usize::from(self.layout.size).saturating_mul(2));
        self.available.load(at, Ordering::Relaxed)
    }
}

fn map(memory: &Memory, layout: &Layout) -> Result<(Window, Window, Window), Broken> {
    let broken = Broken::NotInMemory { size: layout.size };
    if !layout.size.is_power_of_two() {
        return Err(broken);
    }
    let size = usize::from(layout.size);
    // Both rings end in the word of EVENT_IDX, negotiated or not.
    let available = size.saturating_mul(2).saturating_add(6);
    let used = size.saturating_mul(USED_ELEMENT_SIZE).saturating_add(6);
    let table = size.saturating_mul(DESCRIPTOR_SIZE);
    Ok((
        Window::new(memory, layout.descriptors, table, 16).ok_or(broken)?,
        Window::new(memory, layout.available, available, 2).ok_or(broken)?,
        Window::new(memory, layout.used, used, 4).ok_or(broken)?,
    ))
}

fn parse(bytes: [u8; DESCRIPTOR_SIZE]) -> Descriptor {
    let mut descriptor = Descriptor::default();
    descriptor.as_mut_slice().copy_from_slice(&bytes);
    descriptor
}

fn collect_indirect(memory: &Memory, table: &Descriptor, chain: &mut Chain) -> Option<()> {
    let count = usize::try_from(table.len()).ok()? / DESCRIPTOR_SIZE;
    if table.len() as usize % DESCRIPTOR_SIZE != 0 {
        return None;
    }
    let mut index = 0_usize;
    for _ in 0..count.min(MAX_SEGMENTS) {
        let offset = index.checked_mul(DESCRIPTOR_SIZE)? as u64;
        let mut bytes = [0; DESCRIPTOR_SIZE];
        let mut filled = 0;
        memory
            .visit(
                table.addr().0.checked_add(offset)?,
                bytes.len() as u64,
                &mut |slice| {
                    if let Some(rest) = bytes.get_mut(filled..) {
                        filled = filled.saturating_add(slice.copy_to(rest));
                    }
                },
            )
            .ok()?;
        let descriptor = parse(bytes);
        // A table inside a table is forbidden (section 2.7.5.3.1).
        if descriptor.flags() & FLAG_INDIRECT != 0 {
            return None;
        }
        append(chain, &descriptor)?;
        if descriptor.flags() & FLAG_NEXT == 0 {
            return Some(());
        }
        index = usize::from(descriptor.next());
        if index >= count {
            return None;
        }
    }
    None
}

/// Adds one buffer. `None` where a readable one follows a writable one, or there are too many.
fn append(chain: &mut Chain, descriptor: &Descriptor) -> Option<()> {
    if chain.segments.len() >= MAX_SEGMENTS {
        return None;
    }
    let len = usize::try_from(descriptor.len()).ok()?;
    if descriptor.flags() & FLAG_WRITE != 0 {
        chain.writable = chain.writable.checked_add(len)?;
    } else if chain.segments.len() > chain.readable_segments {
        return None;
    } else {
        chain.readable = chain.readable.checked_add(len)?;
        chain.readable_segments = chain.readable_segments.saturating_add(1);
    }
    chain.segments.push(Segment {
        address: descriptor.addr().0,
        len: descriptor.len(),
    });
    Some(())
}
