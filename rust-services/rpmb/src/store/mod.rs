// SPDX-License-Identifier: Apache-2.0

//! A key, a counter and blocks of data that change together or not at all.
//!
//! ```text
//!  superblock │ record A │ record B │ blocks of data
//! ```
//!
//! A change is written as a record: the whole small state after it, the data it writes, and a
//! checksum of both. Once that is durable the change has happened; then the data goes to its place.
//! Records take turns in two slots. When a record is begun, the one that it replaces is two changes
//! old, and its data was made durable by the wait for the change between them. So whatever a power
//! cut leaves, one slot at least is whole; opening a store does again what the whole ones say, the
//! older first. One wait per change.

#[cfg(test)]
mod crash_tests;
mod file;
mod medium;
mod record;

pub use file::open_file;
pub use medium::Medium;

use std::io;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::key::Key;
use crate::wire::{BLOCK_SIZE, BLOCKS_PER_UNIT, KEY_SIZE, MOST_UNITS};
use record::{Record, Superblock, VERSION};

/// What a store is to be like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Capacity in units of 128 KiB, 1 to 128.
    pub capacity_units: u8,
    /// Most blocks that one change writes, at least 1.
    pub most_written: u16,
}

/// The state that is not data.
#[derive(Clone, Debug)]
pub struct State {
    /// How many changes there were.
    pub sequence: u64,
    /// The write counter.
    pub counter: u32,
    /// The key, once it was programmed.
    pub key: Option<Key>,
    /// The MAC of the last write; zeros before the first.
    pub last_mac: [u8; KEY_SIZE],
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("cannot {what}: {source}")]
    Medium {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// There is something else.
    #[error("what is there is no store of this service; move it away if nothing needs it")]
    Foreign,
    /// It is of another version.
    #[error("the store is of version {0}, this service knows version {VERSION}")]
    Version(u32),
    /// It has another shape than the configuration says.
    #[error(
        "the store was made with a capacity of {units} units of 128 KiB and writes of at most \
         {written} blocks, which cannot change: configure that, or another place"
    )]
    Shape {
        /// Its capacity.
        units: u16,
        /// Its largest write.
        written: u16,
    },
    /// No record is whole.
    #[error(
        "the store is damaged: neither of its records is whole, so neither key nor counter is \
         known; only a new store can follow"
    )]
    Damaged,
    /// Its first block is gone.
    #[error(
        "there is nothing but zeros where the store begins, so neither key nor counter is known; \
         only a new store can follow: move this one away"
    )]
    Erased,
    /// A store is to be made in the middle of another one.
    #[error("these blocks belong to the store that begins at block {0} of the card: choose others")]
    Within(u16),
    /// A store is to be made where something is.
    #[error(
        "block {0} of the place for a new store is not empty: somebody else has these blocks, or had \
         them; choose others, or write zeros there (agl-virtio-rpmb-tool write)"
    )]
    Occupied(u64),
    /// Another process has it.
    #[error("another process uses the store, or a part of it: one service may")]
    InUse,
    /// The medium has failed before.
    #[error("the medium has failed, and what it holds is not known yet")]
    Uncertain,
    /// It is out of range.
    #[error("blocks beyond the store's end")]
    Range,
}

/// Blocks that are looked at at once before a store is made.
const SCANNED_AT_ONCE: usize = 32;

fn medium(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Medium { what, source }
}

/// Where things lie on the medium, in bytes.
#[derive(Clone, Copy, Debug)]
struct Layout {
    slots: [u64; 2],
    data: u64,
    size: u64,
}

impl Layout {
    fn new(shape: &Shape, alignment: u64) -> Self {
        let block = BLOCK_SIZE as u64;
        let aligned = |size: u64| size.next_multiple_of(alignment.max(block));
        let slot =
            aligned(block.saturating_add(u64::from(shape.most_written).saturating_mul(block)));
        let first = aligned(block);
        let second = first.saturating_add(slot);
        let data = second.saturating_add(slot);
        let capacity = u64::from(blocks_of(shape.capacity_units)).saturating_mul(block);
        Self {
            slots: [first, second],
            data,
            size: data.saturating_add(capacity),
        }
    }

    /// Changes of odd numbers have the second slot.
    fn slot(&self, sequence: u64) -> u64 {
        let [even, odd] = self.slots;
        if sequence % 2 == 0 { even } else { odd }
    }

    fn block(&self, number: u16) -> u64 {
        let offset = u64::from(number).saturating_mul(BLOCK_SIZE as u64);
        self.data.saturating_add(offset)
    }
}

/// Blocks in so many units of capacity.
#[must_use]
pub fn blocks_of(units: u8) -> u32 {
    u32::from(units.min(MOST_UNITS)).saturating_mul(BLOCKS_PER_UNIT)
}

/// Bytes that a store of this shape needs on a medium of this alignment.
#[must_use]
pub fn size_of_store(shape: &Shape, alignment: u64) -> u64 {
    Layout::new(shape, alignment).size
}

/// How many blocks of 256 bytes the store has that begins with this one; `None` where none does.
#[must_use]
pub fn blocks_of_store(first: &[u8]) -> Option<u64> {
    let block = Superblock::read_from_bytes(first).ok()?;
    let shape = Shape {
        capacity_units: u8::try_from(block.capacity_units.get()).ok()?,
        most_written: block.most_written.get(),
    };
    let size = size_of_store(&shape, BLOCK_SIZE as u64);
    block.is_valid().then(|| size.div_ceil(BLOCK_SIZE as u64))
}

/// A store on its medium.
pub struct Store {
    medium: Box<dyn Medium>,
    layout: Layout,
    shape: Shape,
    state: State,
    cover: Option<Key>,
    /// The medium has failed since the store was opened: what it holds is not known.
    uncertain: bool,
}

impl Store {
    /// Opens the store on a medium, or makes one where the medium has nothing but zeros. `cover`
    /// hides the guest's key where others can read the medium.
    ///
    /// # Errors
    /// When there is something else, or another shape, or the medium fails. Nothing is ever made
    /// anew over what was a store.
    pub fn open(
        medium: Box<dyn Medium>,
        shape: &Shape,
        cover: Option<Key>,
    ) -> Result<Self, StoreError> {
        Self::find_or(medium, shape, cover, Self::make)
    }

    /// Opens the store that is on a medium.
    ///
    /// # Errors
    /// As [`Store::open`], and where there is none.
    pub fn open_made(
        medium: Box<dyn Medium>,
        shape: &Shape,
        cover: Option<Key>,
    ) -> Result<Self, StoreError> {
        Self::find_or(medium, shape, cover, |_| Err(StoreError::Erased))
    }

    fn find_or(
        mut medium_of: Box<dyn Medium>,
        shape: &Shape,
        cover: Option<Key>,
        make: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let layout = Layout::new(shape, medium_of.alignment());
        let mut block = Superblock::new_zeroed();
        medium_of
            .read(0, block.as_mut_bytes())
            .map_err(medium("read the store's first block"))?;
        let empty = block.as_bytes().iter().all(|byte| *byte == 0);
        if !empty && !block.is_valid() {
            return Err(StoreError::Foreign);
        }
        if !empty && block.version.get() != VERSION {
            return Err(StoreError::Version(block.version.get()));
        }
        let (units, written) = (block.capacity_units.get(), block.most_written.get());
        if !empty && (units != u16::from(shape.capacity_units) || written != shape.most_written) {
            return Err(StoreError::Shape { units, written });
        }
        let mut store = Self {
            medium: medium_of,
            layout,
            shape: shape.clone(),
            state: State {
                sequence: 0,
                counter: 0,
                key: None,
                last_mac: [0; KEY_SIZE],
            },
            cover,
            uncertain: false,
        };
        if empty {
            make(&mut store)?;
        } else {
            store.recover()?;
        }
        Ok(store)
    }

    /// The state after the last change.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How many blocks it has.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        blocks_of(self.shape.capacity_units)
    }

    /// Whether the medium has failed, and nothing has gone well since.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Reads whole blocks from `address` on.
    ///
    /// # Errors
    /// Out of range, or when the medium fails.
    pub fn read(&mut self, address: u16, data: &mut [u8]) -> Result<(), StoreError> {
        self.check(address, data.len())?;
        if self.uncertain {
            return Err(StoreError::Uncertain);
        }
        let at = self.layout.block(address);
        self.medium.read(at, data).map_err(medium("read blocks"))
    }

    /// Programs the key. Whether there is one already is for the caller to see.
    ///
    /// # Errors
    /// When the medium fails: whether the key is programmed is found out by [`Store::settle`].
    pub fn program(&mut self, key: Key) -> Result<(), StoreError> {
        let next = State {
            key: Some(key),
            ..self.state.clone()
        };
        self.commit(next, 0, &[])
    }

    /// Writes whole blocks from `address` on and counts, up to the counter's end.
    ///
    /// # Errors
    /// Out of range, or when the medium fails: whether it was written is found out by
    /// [`Store::settle`].
    pub fn write(
        &mut self,
        address: u16,
        data: &[u8],
        mac: [u8; KEY_SIZE],
    ) -> Result<(), StoreError> {
        self.check(address, data.len())?;
        let next = State {
            counter: self.state.counter.saturating_add(1),
            last_mac: mac,
            ..self.state.clone()
        };
        self.commit(next, address, data)
    }

    /// Puts a counter in place that nobody could write up to.
    #[cfg(test)]
    pub(crate) fn set_counter(&mut self, counter: u32) {
        let state = State {
            counter,
            ..self.state.clone()
        };
        assert!(self.commit(state, 0, &[]).is_ok());
    }

    fn check(&self, address: u16, len: usize) -> Result<(), StoreError> {
        let blocks = len.checked_div(BLOCK_SIZE).unwrap_or(0);
        let end = usize::from(address).saturating_add(blocks);
        if len % BLOCK_SIZE == 0 && u32::try_from(end).is_ok_and(|end| end <= self.blocks()) {
            Ok(())
        } else {
            Err(StoreError::Range)
        }
    }

    /// Where the medium has failed, finds out what it holds: a change that was said to have failed
    /// may be there. To be called before anything is decided by [`Store::state`].
    ///
    /// # Errors
    /// When the medium still fails.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        if self.uncertain {
            self.recover()
        } else {
            Ok(())
        }
    }

    fn commit(&mut self, mut next: State, address: u16, data: &[u8]) -> Result<(), StoreError> {
        if self.uncertain {
            return Err(StoreError::Uncertain);
        }
        next.sequence = self.state.sequence.saturating_add(1);
        self.uncertain = true;
        self.record(&next, address, data)?;
        self.medium.sync().map_err(medium("wait for a record"))?;
        self.state = next;
        if !data.is_empty() {
            let at = self.layout.block(address);
            if let Err(error) = self.medium.write(at, data) {
                // It has happened all the same: the record is durable, and to settle does this
                // again.
                log::error!("blocks do not get to their place, only into the record: {error}");
                return Ok(());
            }
        }
        self.uncertain = false;
        Ok(())
    }

    fn record(&mut self, state: &State, address: u16, data: &[u8]) -> Result<(), StoreError> {
        let record = Record::new(state, address, data, self.cover.as_ref());
        let mut bytes = Vec::with_capacity(BLOCK_SIZE.saturating_add(data.len()));
        bytes.extend_from_slice(record.as_bytes());
        bytes.extend_from_slice(data);
        let at = self.layout.slot(state.sequence);
        self.medium
            .write(at, &bytes)
            .map_err(medium("write a record"))
    }

    /// Makes a store: the first block last, so that a store is whole or not there.
    fn make(&mut self) -> Result<(), StoreError> {
        let state = self.state.clone();
        self.expect_nothing()?;
        self.record(&state, 0, &[])?;
        self.medium
            .sync()
            .map_err(medium("wait for the first record"))?;
        let block = Superblock::new(self.shape.capacity_units, self.shape.most_written);
        self.medium
            .write(0, block.as_bytes())
            .map_err(medium("write the store's first block"))?;
        self.medium
            .sync()
            .map_err(medium("wait for the store's first block"))
    }

    /// Nothing is made over what somebody else may need. Of a store that was being made here there is
    /// its first record at most.
    fn expect_nothing(&mut self) -> Result<(), StoreError> {
        let begun = self.layout.slot(0);
        let is_begun = matches!(
            self.find(begun)?,
            Some((State { sequence: 0, counter: 0, key: None, .. }, 0, data)) if data.is_empty()
        );
        let block = BLOCK_SIZE as u64;
        let mut found = vec![0; BLOCK_SIZE.saturating_mul(SCANNED_AT_ONCE)];
        let mut at = block;
        while at < self.layout.size {
            let left = self.layout.size.saturating_sub(at);
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(found.len());
            let part = found.get_mut(..len).unwrap_or_default();
            self.medium
                .read(at, part)
                .map_err(medium("read what lies there"))?;
            for (number, bytes) in (0_u64..).zip(part.chunks(BLOCK_SIZE)) {
                let here = at.saturating_add(number.saturating_mul(block));
                let ours = is_begun && here == begun;
                if !ours && bytes.iter().any(|byte| *byte != 0) {
                    return Err(StoreError::Occupied(here.checked_div(block).unwrap_or(0)));
                }
            }
            at = at.saturating_add(len as u64);
        }
        Ok(())
    }

    /// Does again what the records say, and waits until it is durable: a record that could be read
    /// need not be, after the end of a process or a failed wait.
    fn recover(&mut self) -> Result<(), StoreError> {
        self.uncertain = true;
        let mut found = Vec::new();
        for slot in self.layout.slots {
            if let Some(change) = self.find(slot)? {
                found.push(change);
            }
        }
        found.sort_by_key(|(state, _, _)| state.sequence);
        let in_place = self.medium.keeps_what_is_read() && self.is_in_place(&found)?;
        if !in_place {
            for (state, address, data) in &found {
                self.record(state, *address, data)?;
                self.put(*address, data)?;
            }
        }
        self.medium
            .sync()
            .map_err(medium("wait for what was recovered"))?;
        let (newest, _, _) = found.pop().ok_or(StoreError::Damaged)?;
        self.state = newest;
        self.uncertain = false;
        Ok(())
    }

    fn put(&mut self, address: u16, data: &[u8]) -> Result<(), StoreError> {
        if data.is_empty() {
            return Ok(());
        }
        let at = self.layout.block(address);
        self.medium.write(at, data).map_err(medium("write blocks"))
    }

    /// Whether what the newer of two changes says lies where it belongs. The older one's did when the
    /// newer one was begun.
    fn is_in_place(&mut self, found: &[(State, u16, Vec<u8>)]) -> Result<bool, StoreError> {
        let Some((_, address, data)) = found.last() else {
            return Ok(true);
        };
        let mut there = vec![0; data.len()];
        if !data.is_empty() {
            let at = self.layout.block(*address);
            self.medium
                .read(at, &mut there)
                .map_err(medium("read blocks"))?;
        }
        Ok(there == *data)
    }

    /// The record in a slot, if it is whole and belongs there.
    fn find(&mut self, slot: u64) -> Result<Option<(State, u16, Vec<u8>)>, StoreError> {
        let mut record = Record::new_zeroed();
        self.medium
            .read(slot, record.as_mut_bytes())
            .map_err(medium("read a record"))?;
        if !record.is_plausible() || record.blocks() > self.shape.most_written {
            return Ok(None);
        }
        let mut data = vec![0; usize::from(record.blocks()).saturating_mul(BLOCK_SIZE)];
        let at = slot.saturating_add(BLOCK_SIZE as u64);
        self.medium
            .read(at, &mut data)
            .map_err(medium("read a record's blocks"))?;
        let state = record.state(self.cover.as_ref());
        let belongs = record.is_valid(&data)
            && self.layout.slot(state.sequence) == slot
            && self.check(record.address(), data.len()).is_ok();
        Ok(belongs.then(|| (state, record.address(), data)))
    }
}
