// SPDX-License-Identifier: Apache-2.0
//! The driver's side of a split virtqueue (VIRTIO 1.4, 2.7), with the notify suppression of
//! Linux's `virtio_ring.c` and a check of all that the device does.
mod layout;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Misbehaviour, Result};
use crate::event::{Blocking, Event};
use crate::memory::{Buffer, Memory};
use crate::protocol::feature;

use layout::{AVAIL_NO_INTERRUPT, USED_NO_NOTIFY};
pub use layout::{Descriptor, Layout, descriptor_flag};

/// One buffer of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The device reads it.
    Readable(Buffer),
    /// The device may write it.
    Writable(Buffer),
}

impl Segment {
    fn descriptor(self, more: bool, next: u16) -> Descriptor {
        let (buffer, write) = match self {
            Self::Readable(buffer) => (buffer, 0),
            Self::Writable(buffer) => (buffer, descriptor_flag::WRITE),
        };
        Descriptor {
            addr: buffer.addr,
            len: buffer.len,
            flags: write | if more { descriptor_flag::NEXT } else { 0 },
            next: if more { next } else { 0 },
        }
    }
}

/// When a chain is put into a table of its own. Only where INDIRECT_DESC was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Indirect {
    /// Never.
    Never,
    /// Also a chain of one buffer.
    Always,
    /// A chain of more than one, as Linux does.
    #[default]
    LongChains,
}

/// How the driver waits for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallWait {
    /// poll(2), then read(2): keeps deadlines.
    #[default]
    Poll,
    /// In read(2) of a blocking eventfd ([`Event::wait_in_read`]): for measurements.
    Read,
}

/// How a ring is made.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Descriptors: a power of two up to 32768.
    pub size: u16,
    /// When tables are used.
    pub indirect: Indirect,
    /// The mode of the kick eventfd.
    pub kick: Blocking,
    /// How calls are waited for.
    pub call: CallWait,
    /// The region that holds the ring; without one its parts are spread over the regions.
    pub region: Option<usize>,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            size: 256,
            indirect: Indirect::default(),
            kick: Blocking::default(),
            call: CallWait::default(),
            region: None,
        }
    }
}

/// Names one chain for the life of its ring: heads are used again, this number is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(pub u64);

/// A chain that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Which chain.
    pub chain: ChainId,
    /// The head that it had.
    pub head: u16,
    /// used.len: bytes that the device says it wrote.
    pub written: u32,
}

/// What a head stands for at present.
#[derive(Debug, Clone, Copy)]
enum Slot {
    /// Never made available.
    Unused,
    /// With the device.
    Out {
        chain: ChainId,
        descriptors: u16,
        writable: u64,
    },
    /// Given back; the chain that had it last.
    Back { chain: ChainId },
}

/// Counts of what passed, for tests of suppression and for measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Kicks written.
    pub kicks: u64,
    /// Kicks that the device had asked to be spared.
    pub kicks_spared: u64,
    /// Times that the call eventfd was found signalled.
    pub calls: u64,
    /// Chains that came back.
    pub completions: u64,
}

/// The driver's side of one split virtqueue.
#[derive(Debug)]
pub struct Ring {
    index: u16,
    memory: Arc<Memory>,
    layout: Layout,
    options: RingOptions,
    event_idx: bool,
    indirect_allowed: bool,
    slots: Vec<Slot>,
    tables: Vec<Option<Buffer>>,
    /// The free descriptors as a list through `next_free`, its order that of Linux: last freed,
    /// first used.
    next_free: Vec<u16>,
    free_head: u16,
    free_count: u16,
    outstanding: usize,
    next_chain: u64,
    avail_idx: u16,
    kicked_idx: u16,
    used_seen: u16,
    calls_wanted: bool,
    kick: Event,
    call: Event,
    error: Event,
    counts: Counts,
}

impl Ring {
    /// Make queue `index` of a device in `memory`.
    ///
    /// # Errors
    /// Where memory or eventfds run out.
    pub fn new(memory: &Arc<Memory>, index: u16, options: RingOptions) -> Result<Self> {
        let layout = Layout::allocate(memory, options.size, options.region)?;
        let call = match options.call {
            CallWait::Poll => Blocking::No,
            CallWait::Read => Blocking::Yes,
        };
        let mut ring = Self {
            index,
            memory: Arc::clone(memory),
            layout,
            options,
            event_idx: false,
            indirect_allowed: false,
            slots: Vec::new(),
            tables: vec![None; options.size.into()],
            next_free: Vec::new(),
            free_head: 0,
            free_count: 0,
            outstanding: 0,
            next_chain: 0,
            avail_idx: 0,
            kicked_idx: 0,
            used_seen: 0,
            calls_wanted: true,
            kick: Event::new(options.kick)?,
            call: Event::new(call)?,
            error: Event::new(Blocking::No)?,
            counts: Counts::default(),
        };
        ring.reset()?;
        Ok(ring)
    }

    /// Back to a new ring, zeroes in memory: what a driver does after a device reset. Chains that
    /// were out are forgotten; their numbers are returned.
    ///
    /// # Errors
    /// Where the ring's memory is gone.
    pub fn reset(&mut self) -> Result<Vec<ChainId>> {
        let out = self.outstanding_chains();
        self.layout.zero(&self.memory)?;
        let size = self.layout.size;
        self.slots = vec![Slot::Unused; size.into()];
        self.next_free = (1..=size).collect();
        self.free_head = 0;
        self.free_count = size;
        self.outstanding = 0;
        self.avail_idx = 0;
        self.kicked_idx = 0;
        self.used_seen = 0;
        self.calls_wanted = true;
        self.call.take()?;
        Ok(out)
    }

    /// Take over what was negotiated.
    pub fn set_features(&mut self, features: u64) {
        self.event_idx = features & feature::EVENT_IDX != 0;
        self.indirect_allowed = features & feature::INDIRECT_DESC != 0;
    }

    /// Change when tables are used.
    pub fn set_indirect(&mut self, indirect: Indirect) {
        self.options.indirect = indirect;
    }

    /// The queue's index.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Where it lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory it lies in.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The eventfd that the device is kicked with.
    #[must_use]
    pub fn kick_event(&self) -> &Event {
        &self.kick
    }

    /// The eventfd that the device calls with.
    #[must_use]
    pub fn call_event(&self) -> &Event {
        &self.call
    }

    /// The eventfd that the device reports a broken ring with.
    #[must_use]
    pub fn error_event(&self) -> &Event {
        &self.error
    }

    /// What passed so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether EVENT_IDX is in force.
    #[must_use]
    pub fn event_idx(&self) -> bool {
        self.event_idx
    }

    /// The index that the next chain gets.
    #[must_use]
    pub fn avail_idx(&self) -> u16 {
        self.avail_idx
    }

    /// How far used elements were taken.
    #[must_use]
    pub fn used_seen(&self) -> u16 {
        self.used_seen
    }

    /// Chains that the device holds.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// The chains that the device holds, oldest first.
    #[must_use]
    pub fn outstanding_chains(&self) -> Vec<ChainId> {
        let mut out: Vec<_> = self
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Out { chain, .. } => Some(*chain),
                _ => None,
            })
            .collect();
        out.sort_unstable();
        out
    }

    /// Descriptors that are free.
    #[must_use]
    pub fn free_descriptors(&self) -> usize {
        self.free_count.into()
    }

    /// Make a chain available. The device is told by [`Self::kick`].
    ///
    /// # Errors
    /// Where the ring has too few free descriptors, or memory for a table runs out.
    pub fn add(&mut self, segments: &[Segment]) -> Result<ChainId> {
        let writable = segments
            .iter()
            .map(|segment| match segment {
                Segment::Readable(_) => 0,
                Segment::Writable(buffer) => u64::from(buffer.len),
            })
            .sum();
        let table = self.indirect_allowed
            && match self.options.indirect {
                Indirect::Never => false,
                Indirect::Always => true,
                Indirect::LongChains => segments.len() > 1,
            };
        let taken = self.reserve(if table { 1 } else { segments.len() })?;
        let head = taken[0];
        if table {
            let mut bytes = Vec::with_capacity(16 * segments.len());
            for (at, segment) in segments.iter().enumerate() {
                let more = at + 1 < segments.len();
                bytes.extend_from_slice(&segment.descriptor(more, at as u16 + 1).to_bytes());
            }
            let buffer = self.table(head, bytes.len() as u32)?;
            self.memory.write(buffer.addr, &bytes)?;
            self.write_descriptor(
                head,
                Descriptor {
                    addr: buffer.addr,
                    len: bytes.len() as u32,
                    flags: descriptor_flag::INDIRECT,
                    next: 0,
                },
            )?;
        } else {
            for (at, segment) in segments.iter().enumerate() {
                let next = taken.get(at + 1);
                let descriptor = segment.descriptor(next.is_some(), next.copied().unwrap_or(0));
                self.write_descriptor(taken[at], descriptor)?;
            }
        }
        self.publish(head, taken.len() as u16, writable)
    }

    /// Take `count` free descriptors out of the free list without using them: the raw material
    /// of a hostile chain. What they hold is up to the caller ([`Self::write_descriptor`]); the
    /// first becomes the head in [`Self::publish`].
    ///
    /// # Errors
    /// Where there are not as many (or none is asked for).
    pub fn reserve(&mut self, count: usize) -> Result<Vec<u16>> {
        if count == 0 || count > self.free_descriptors() {
            return Err(Error::RingFull {
                ring: self.index,
                free: self.free_descriptors(),
                needed: count,
            });
        }
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            taken.push(self.free_head);
            self.free_head = self.next_free[usize::from(self.free_head)];
        }
        self.free_count -= count as u16;
        Ok(taken)
    }

    /// Write a slot of the descriptor table, whatever it says.
    ///
    /// # Errors
    /// Where the slot is beyond guest memory.
    pub fn write_descriptor(&self, slot: u16, descriptor: Descriptor) -> Result<()> {
        self.memory
            .write(self.layout.descriptor(slot), &descriptor.to_bytes())
    }

    /// Make the chain at a reserved `head` available. `descriptors` come free when it returns,
    /// and used.len may then be at most `writable`.
    ///
    /// # Errors
    /// Where the ring's memory is gone.
    pub fn publish(&mut self, head: u16, descriptors: u16, writable: u64) -> Result<ChainId> {
        let chain = ChainId(self.next_chain);
        self.next_chain += 1;
        self.slots[usize::from(head)] = Slot::Out {
            chain,
            descriptors,
            writable,
        };
        self.outstanding += 1;
        self.publish_unrecorded(head)?;
        Ok(chain)
    }

    /// Make any number available as a head, without a record of it: a head out of range, or one
    /// that is out already.
    ///
    /// # Errors
    /// Where the ring's memory is gone.
    pub fn publish_unrecorded(&mut self, head: u16) -> Result<()> {
        self.memory.store(
            self.layout.avail_element(self.avail_idx),
            head.to_le(),
            Ordering::Relaxed,
        )?;
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.store_avail_idx(self.avail_idx)
    }

    /// Write avail.idx, whatever it says; this driver's own count stays as it is.
    ///
    /// # Errors
    /// Where the ring's memory is gone.
    pub fn store_avail_idx(&self, idx: u16) -> Result<()> {
        self.memory
            .store(self.layout.avail_idx(), idx.to_le(), Ordering::Release)
    }

    /// Kick the device if it wants to be, by the rules of Linux's `virtqueue_kick_prepare`:
    /// whether it was.
    ///
    /// # Errors
    /// Where the ring's memory is gone or the eventfd fails.
    pub fn kick(&mut self) -> Result<bool> {
        // The device must see the new avail.idx before we see whether it wants to be kicked.
        fence(Ordering::SeqCst);
        let (old, new) = (self.kicked_idx, self.avail_idx);
        self.kicked_idx = new;
        let wanted = if self.event_idx {
            let event: u16 = self
                .memory
                .load(self.layout.avail_event(), Ordering::Relaxed)?;
            passed(u16::from_le(event), new, old)
        } else {
            let flags: u16 = self
                .memory
                .load(self.layout.used_flags(), Ordering::Relaxed)?;
            u16::from_le(flags) & USED_NO_NOTIFY == 0
        };
        if wanted {
            self.kick_always()?;
        } else {
            self.counts.kicks_spared += 1;
        }
        Ok(wanted)
    }

    /// Kick the device whether it wants to be or not.
    ///
    /// # Errors
    /// Where the eventfd fails.
    pub fn kick_always(&mut self) -> Result<()> {
        self.counts.kicks += 1;
        self.kick.signal()
    }

    /// used.idx as it stands in memory.
    ///
    /// # Errors
    /// Where the ring's memory is gone.
    pub fn used_idx(&self) -> Result<u16> {
        self.memory
            .load(self.layout.used_idx(), Ordering::Acquire)
            .map(u16::from_le)
    }

    /// The next chain that the device gave back, checked; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Device`] where the device broke a rule.
    pub fn pop(&mut self) -> Result<Option<Completion>> {
        let used_idx = self.used_idx()?;
        let ready = used_idx.wrapping_sub(self.used_seen);
        if ready == 0 {
            return Ok(None);
        }
        if usize::from(ready) > self.outstanding {
            return Err(self.misbehaved(Misbehaviour::UsedIndexJumped {
                used_idx,
                seen: self.used_seen,
                outstanding: self.outstanding,
            }));
        }
        let mut element = [0u8; 8];
        self.memory
            .read(self.layout.used_element(self.used_seen), &mut element)?;
        let id = u32::from_le_bytes([element[0], element[1], element[2], element[3]]);
        let written = u32::from_le_bytes([element[4], element[5], element[6], element[7]]);
        let size = self.layout.size;
        let Some(head) = u16::try_from(id).ok().filter(|&head| head < size) else {
            return Err(self.misbehaved(Misbehaviour::HeadOutOfRange { id, size }));
        };
        let (chain, descriptors, writable) = match self.slots[usize::from(head)] {
            Slot::Out {
                chain,
                descriptors,
                writable,
            } => (chain, descriptors, writable),
            Slot::Back { chain } => {
                return Err(self.misbehaved(Misbehaviour::ReturnedTwice { head, chain }));
            }
            Slot::Unused => return Err(self.misbehaved(Misbehaviour::NeverAvailable(head))),
        };
        if u64::from(written) > writable {
            return Err(self.misbehaved(Misbehaviour::WroteTooMuch {
                head,
                written,
                writable,
            }));
        }
        self.slots[usize::from(head)] = Slot::Back { chain };
        self.release(head, descriptors);
        self.outstanding -= 1;
        self.used_seen = self.used_seen.wrapping_add(1);
        self.counts.completions += 1;
        if self.calls_wanted && self.event_idx {
            self.store_used_event(self.used_seen)?;
        }
        Ok(Some(Completion {
            chain,
            head,
            written,
        }))
    }

    /// All chains that the device has given back by now.
    ///
    /// # Errors
    /// [`Error::Device`] where the device broke a rule.
    pub fn pop_all(&mut self) -> Result<Vec<Completion>> {
        std::iter::from_fn(|| self.pop().transpose()).collect()
    }

    /// Wait for the next chain that the device gives back.
    ///
    /// # Errors
    /// [`Error::TimedOut`] where none comes, [`Error::Device`] where the device broke a rule: also
    /// [`Misbehaviour::CallMissing`] where a chain came without the call that was due.
    pub fn wait(&mut self, deadline: Deadline) -> Result<Completion> {
        loop {
            if let Some(completion) = self.pop()? {
                return Ok(completion);
            }
            if self.enable_calls()? {
                continue;
            }
            if !self.wait_call(deadline)? {
                return Err(self.overdue()?);
            }
        }
    }

    /// Check that a call is there when chains have come back that were not taken yet. For when the
    /// device cannot be about to call any more: after a stop, or long enough.
    ///
    /// # Errors
    /// [`Misbehaviour::CallMissing`].
    pub fn check_called(&mut self) -> Result<()> {
        if self.used_idx()? == self.used_seen || self.wait_call(Deadline::after(Duration::ZERO))? {
            return Ok(());
        }
        Err(self.overdue()?)
    }

    /// What it means that no call came in time: nothing came back, or the call was forgotten.
    fn overdue(&self) -> Result<Error> {
        let used_idx = self.used_idx()?;
        Ok(if used_idx == self.used_seen {
            Error::TimedOut(format!(
                "a chain of ring {} ({} outstanding)",
                self.index, self.outstanding
            ))
        } else {
            self.misbehaved(Misbehaviour::CallMissing { used_idx })
        })
    }

    /// Wait until nothing is outstanding: all chains in the order in which they came back.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_all(&mut self, deadline: Deadline) -> Result<Vec<Completion>> {
        let mut all = Vec::with_capacity(self.outstanding);
        while self.outstanding > 0 {
            all.push(self.wait(deadline)?);
        }
        Ok(all)
    }

    /// Wait for a call alone: whether one came before the deadline.
    ///
    /// # Errors
    /// Where the eventfd fails.
    pub fn wait_call(&mut self, deadline: Deadline) -> Result<bool> {
        let came = match self.options.call {
            CallWait::Poll => self.call.wait(deadline)?.is_some(),
            CallWait::Read => {
                self.call.wait_in_read()?;
                !deadline.passed()
            }
        };
        if came {
            self.counts.calls += 1;
        }
        Ok(came)
    }

    /// Ask the device not to call (`virtqueue_disable_cb`). Only a hint: it may call still.
    ///
    /// # Errors
    /// Where the ring's memory is gone.
    pub fn disable_calls(&mut self) -> Result<()> {
        self.calls_wanted = false;
        if self.event_idx {
            // An index half the circle away is not passed for a long time.
            self.store_used_event(self.used_seen.wrapping_sub(0x8000))
        } else {
            self.store_avail_flags(AVAIL_NO_INTERRUPT)
        }
    }

    /// Ask the device to call when it gives the next chain back (`virtqueue_enable_cb`): whether
    /// it has given one back meanwhile, for which no call may come.
    ///
    /// # Errors
    /// Where the ring's memory is gone.
    pub fn enable_calls(&mut self) -> Result<bool> {
        if self.event_idx {
            self.store_used_event(self.used_seen)?;
        } else if !self.calls_wanted {
            self.store_avail_flags(0)?;
        }
        self.calls_wanted = true;
        // The device must see our wish before we look whether it came too late.
        fence(Ordering::SeqCst);
        Ok(self.used_idx()? != self.used_seen)
    }

    /// Ask for a call only when `count` more chains have come back (EVENT_IDX only): whether they
    /// have by now.
    ///
    /// # Errors
    /// [`Error::NotNegotiated`] without EVENT_IDX.
    pub fn enable_calls_after(&mut self, count: u16) -> Result<bool> {
        if !self.event_idx {
            return Err(Error::NotNegotiated("EVENT_IDX"));
        }
        self.calls_wanted = true;
        self.store_used_event(self.used_seen.wrapping_add(count.saturating_sub(1)))?;
        fence(Ordering::SeqCst);
        Ok(self.used_idx()?.wrapping_sub(self.used_seen) >= count)
    }

    /// Check that the device left the available ring alone: its flags, index and the elements of
    /// all chains.
    ///
    /// # Errors
    /// [`Misbehaviour::DriverAreaChanged`] where it did not.
    pub fn check_available_untouched(&self) -> Result<()> {
        let idx: u16 = self
            .memory
            .load(self.layout.avail_idx(), Ordering::Acquire)?;
        let flags: u16 = self
            .memory
            .load(self.layout.avail_flags(), Ordering::Acquire)?;
        let expected = if self.calls_wanted || self.event_idx {
            0
        } else {
            AVAIL_NO_INTERRUPT
        };
        let wrong = if u16::from_le(flags) != expected {
            Some(0)
        } else if u16::from_le(idx) != self.avail_idx {
            Some(2)
        } else {
            None
        };
        wrong.map_or(Ok(()), |offset| {
            Err(self.misbehaved(Misbehaviour::DriverAreaChanged {
                area: "available ring",
                offset,
            }))
        })
    }

    fn store_used_event(&self, idx: u16) -> Result<()> {
        self.memory
            .store(self.layout.used_event(), idx.to_le(), Ordering::Release)
    }

    fn store_avail_flags(&self, flags: u16) -> Result<()> {
        self.memory
            .store(self.layout.avail_flags(), flags.to_le(), Ordering::Release)
    }

    /// The table of a head, made larger where it must be.
    fn table(&mut self, head: u16, len: u32) -> Result<Buffer> {
        let table = &mut self.tables[usize::from(head)];
        match *table {
            Some(buffer) if buffer.len >= len => Ok(buffer),
            old => {
                if let Some(buffer) = old {
                    self.memory.free(buffer);
                }
                let buffer = self.memory.alloc(len.next_power_of_two(), 16)?;
                *table = Some(buffer);
                Ok(buffer)
            }
        }
    }

    /// Put the descriptors of a chain back: `next_free` still leads through them in the order in
    /// which they were reserved.
    fn release(&mut self, head: u16, descriptors: u16) {
        let mut last = head;
        for _ in 1..descriptors {
            last = self.next_free[usize::from(last)];
        }
        self.next_free[usize::from(last)] = self.free_head;
        self.free_head = head;
        self.free_count += descriptors;
    }

    fn misbehaved(&self, what: Misbehaviour) -> Error {
        Error::Device {
            ring: self.index,
            what,
        }
    }
}

/// Whether the step from `old` to `new` passed `event` (2.7.10: `vring_need_event`).
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLayout;

    fn ring(size: u16) -> Ring {
        let memory = Memory::new(&MemoryLayout::scattered()).unwrap();
        Ring::new(
            &memory,
            0,
            RingOptions {
                size,
                ..RingOptions::default()
            },
        )
        .unwrap()
    }

    fn chain(ring: &mut Ring, buffers: usize) -> ChainId {
        let buffer = ring.memory().alloc(8, 1).unwrap();
        ring.add(&vec![Segment::Writable(buffer); buffers]).unwrap()
    }

    /// Play the device: give `id` back with `len`.
    fn give_back(ring: &Ring, id: u32, len: u32) {
        let idx = ring.used_idx().unwrap();
        let element: Vec<u8> = [id.to_le_bytes(), len.to_le_bytes()].concat();
        ring.memory()
            .write(ring.layout().used_element(idx), &element)
            .unwrap();
        let next = idx.wrapping_add(1).to_le();
        ring.memory()
            .store(ring.layout().used_idx(), next, Ordering::Release)
            .unwrap();
    }

    fn fault(ring: &mut Ring) -> Misbehaviour {
        ring.pop().unwrap_err().misbehaviour().unwrap().clone()
    }

    #[test]
    fn a_head_returned_twice_is_caught_while_another_chain_is_out() {
        let mut ring = ring(8);
        let first = chain(&mut ring, 1);
        chain(&mut ring, 1);
        give_back(&ring, 0, 8);
        assert_eq!(ring.pop().unwrap().unwrap().chain, first);
        give_back(&ring, 0, 8);
        assert_eq!(
            fault(&mut ring),
            Misbehaviour::ReturnedTwice {
                head: 0,
                chain: first
            }
        );
    }

    #[test]
    fn heads_that_were_never_out_and_heads_beyond_the_table_are_caught() {
        let mut ring = ring(8);
        chain(&mut ring, 1);
        give_back(&ring, 5, 0);
        assert_eq!(fault(&mut ring), Misbehaviour::NeverAvailable(5));
        ring.reset().unwrap();
        chain(&mut ring, 1);
        give_back(&ring, 0x1_0000, 0);
        assert_eq!(
            fault(&mut ring),
            Misbehaviour::HeadOutOfRange {
                id: 0x1_0000,
                size: 8
            }
        );
    }

    #[test]
    fn more_bytes_than_the_writable_part_are_caught() {
        let mut ring = ring(8);
        chain(&mut ring, 2);
        give_back(&ring, 0, 17);
        assert_eq!(
            fault(&mut ring),
            Misbehaviour::WroteTooMuch {
                head: 0,
                written: 17,
                writable: 16
            }
        );
    }

    #[test]
    fn a_used_index_ahead_of_what_is_out_or_behind_is_caught() {
        for wrong in [2u16, u16::MAX] {
            let mut ring = ring(8);
            chain(&mut ring, 1);
            ring.memory()
                .store(ring.layout().used_idx(), wrong.to_le(), Ordering::Release)
                .unwrap();
            assert_eq!(
                fault(&mut ring),
                Misbehaviour::UsedIndexJumped {
                    used_idx: wrong,
                    seen: 0,
                    outstanding: 1
                }
            );
        }
    }

    #[test]
    fn a_chain_that_comes_without_its_call_is_caught() {
        let mut ring = ring(8);
        chain(&mut ring, 1);
        let memory = Arc::clone(ring.memory());
        let layout = *ring.layout();
        assert!(!ring.enable_calls().unwrap());
        assert!(matches!(ring.overdue().unwrap(), Error::TimedOut(_)));
        memory
            .store(layout.used_idx(), 1u16.to_le(), Ordering::Release)
            .unwrap();
        assert_eq!(
            ring.overdue().unwrap().misbehaviour(),
            Some(&Misbehaviour::CallMissing { used_idx: 1 })
        );
    }

    #[test]
    fn all_descriptors_come_back_in_whatever_order_chains_return() {
        let mut ring = ring(16);
        for round in 0..50 {
            let chains: Vec<_> = (1..=4).map(|len| chain(&mut ring, len)).collect();
            assert_eq!(ring.outstanding_chains(), chains);
            assert_eq!(ring.free_descriptors(), 6);
            let mut heads: Vec<u16> = (0..16)
                .filter(|&head| matches!(ring.slots[usize::from(head)], Slot::Out { .. }))
                .collect();
            heads.rotate_left(round % 4);
            for head in heads {
                give_back(&ring, head.into(), 0);
            }
            assert_eq!(ring.pop_all().unwrap().len(), 4);
            assert_eq!(ring.free_descriptors(), 16);
        }
    }

    #[test]
    fn a_full_ring_says_how_much_is_missing() {
        let mut ring = ring(4);
        chain(&mut ring, 3);
        let buffer = ring.memory().alloc(8, 1).unwrap();
        let error = ring.add(&[Segment::Writable(buffer); 2]).unwrap_err();
        assert!(matches!(
            error,
            Error::RingFull {
                ring: 0,
                free: 1,
                needed: 2
            }
        ));
    }

    #[test]
    fn need_event_follows_the_specifications_formula() {
        for (event, new, old, wanted) in [
            (0u16, 1u16, 0u16, true),
            (1, 1, 0, false),
            (0, 1, 1, false),
            (0xffff, 0, 0xffff, true),
            (0xfffe, 0x0001, 0xffff, false),
            (5, 10, 3, true),
            (10, 10, 3, false),
        ] {
            assert_eq!(passed(event, new, old), wanted, "{event} {new} {old}");
        }
    }

    #[test]
    fn writes_of_the_device_to_the_available_ring_are_caught() {
        let mut ring = ring(8);
        chain(&mut ring, 1);
        ring.check_available_untouched().unwrap();
        ring.store_avail_idx(7).unwrap();
        assert!(ring.check_available_untouched().is_err());
    }
}
