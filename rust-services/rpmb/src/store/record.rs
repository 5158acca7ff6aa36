// SPDX-License-Identifier: Apache-2.0

//! What the store writes about itself: its first block, and records of changes.

use sha2::{Digest, Sha256};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::key::Key;
use crate::store::State;
use crate::wire::{BLOCK_SIZE, KEY_SIZE};

const SUPERBLOCK_MAGIC: [u8; 8] = *b"AGLRPMB\0";
const RECORD_MAGIC: [u8; 8] = *b"AGLRPMBr";
/// Changes when a store of before cannot be read any more.
pub(super) const VERSION: u32 = 1;
const HAS_KEY: u32 = 1;

/// The first block: how the rest is laid out. Written last when a store is made, and never again.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Superblock {
    magic: [u8; 8],
    pub(super) version: U32,
    pub(super) capacity_units: U16,
    pub(super) most_written: U16,
    reserved: [u8; 16],
    checksum: [u8; 32],
    padding: [u8; 192],
}

impl Superblock {
    pub(super) fn new(capacity_units: u8, most_written: u16) -> Self {
        let mut block = Self {
            magic: SUPERBLOCK_MAGIC,
            version: U32::new(VERSION),
            capacity_units: U16::new(capacity_units.into()),
            most_written: U16::new(most_written),
            reserved: [0; 16],
            checksum: [0; 32],
            padding: [0; 192],
        };
        block.checksum = block.sum();
        block
    }

    fn sum(&self) -> [u8; 32] {
        let mut bare = *self;
        bare.checksum = [0; 32];
        Sha256::digest(bare.as_bytes()).into()
    }

    pub(super) fn is_valid(&self) -> bool {
        self.magic == SUPERBLOCK_MAGIC && self.checksum == self.sum()
    }
}

/// The beginning of a record: the whole small state after a change. The blocks that the change
/// writes follow it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Record {
    magic: [u8; 8],
    sequence: U64,
    counter: U32,
    address: U16,
    blocks: U16,
    flags: U32,
    reserved: [u8; 4],
    key: [u8; KEY_SIZE],
    last_mac: [u8; KEY_SIZE],
    checksum: [u8; 32],
    padding: [u8; 128],
}

const _: () = assert!(size_of::<Superblock>() == BLOCK_SIZE && size_of::<Record>() == BLOCK_SIZE);

impl Record {
    /// The record of a change to `state` that writes `data` at block `address`. `cover` hides the
    /// key where others can read the medium.
    pub(super) fn new(state: &State, address: u16, data: &[u8], cover: Option<&Key>) -> Self {
        let blocks = u16::try_from(data.len().checked_div(BLOCK_SIZE).unwrap_or(0));
        let mut record = Self {
            magic: RECORD_MAGIC,
            sequence: U64::new(state.sequence),
            counter: U32::new(state.counter),
            address: U16::new(address),
            blocks: U16::new(blocks.unwrap_or(0)),
            flags: U32::new(if state.key.is_some() { HAS_KEY } else { 0 }),
            reserved: [0; 4],
            key: covered(state.key.as_ref(), cover),
            last_mac: state.last_mac,
            checksum: [0; 32],
            padding: [0; 128],
        };
        record.checksum = record.sum(data);
        record
    }

    fn sum(&self, data: &[u8]) -> [u8; 32] {
        let mut bare = *self;
        bare.checksum = [0; 32];
        let mut hash = Sha256::new();
        hash.update(bare.as_bytes());
        hash.update(data);
        hash.finalize().into()
    }

    /// Whether it may be one: worth reading its data.
    pub(super) fn is_plausible(&self) -> bool {
        self.magic == RECORD_MAGIC
    }

    pub(super) fn is_valid(&self, data: &[u8]) -> bool {
        self.is_plausible() && self.checksum == self.sum(data)
    }

    pub(super) fn address(&self) -> u16 {
        self.address.get()
    }

    pub(super) fn blocks(&self) -> u16 {
        self.blocks.get()
    }

    pub(super) fn state(&self, cover: Option<&Key>) -> State {
        let has_key = self.flags.get() & HAS_KEY != 0;
        let stored = Key::new(self.key);
        State {
            sequence: self.sequence.get(),
            counter: self.counter.get(),
            key: has_key.then(|| Key::new(covered(Some(&stored), cover))),
            last_mac: self.last_mac,
        }
    }
}

/// The key's bytes with the cover on or off. Each region has a cover of its own, and one key for
/// ever: nothing is covered twice by the same bytes.
fn covered(key: Option<&Key>, cover: Option<&Key>) -> [u8; KEY_SIZE] {
    let Some(key) = key else {
        return [0; KEY_SIZE];
    };
    let mut bytes = *key.bytes();
    if let Some(cover) = cover {
        for (byte, over) in bytes.iter_mut().zip(cover.bytes()) {
            *byte ^= over;
        }
    }
    bytes
}
