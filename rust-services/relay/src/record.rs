// SPDX-License-Identifier: Apache-2.0

//! The record: the memory in which a device service's progress outlives the service.
//!
//! The keeper creates it as a memfd and hands it to every service it starts; a VMM that negotiates
//! `INFLIGHT_SHMFD` holds the same descriptor, so that the record outlives the keeper too. Nothing
//! in it is written by a guest, but a service that died may have left any prefix of a change: each
//! field is either one aligned atomic word or kept twice and switched over.
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | [`Header`](HEADER_SIZE): magic, version, phase, geometry |
//! | 4 KiB | settings of the device: two slots switched by one word, then atomic words |
//! | behind them | per queue, which chain is in hand |
//! | 64 KiB | one queue record per queue: vhost-user's inflight layout for split rings |

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};
use vm_memory::{FileOffset, GuestMemoryError, MmapRegion, VolatileMemory, VolatileSlice};

/// "AGLVIREC", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"AGLVIREC");
/// Version of everything in the record. A service that meets another one refuses to take over.
pub const VERSION: u32 = 1;

/// Most queues a device may have.
pub const MAX_QUEUES: usize = 64;
/// Most descriptors a queue may have: the largest size QEMU offers.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Bytes of the header page.
pub const HEADER_SIZE: usize = 0x1000;
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 8;
const PHASE_AT: usize = 12;
const DEVICE_AT: usize = 16;
const RESTARTS_AT: usize = 20;
const OBJECT_FEATURES_AT: usize = 24;

/// Bytes one slot of device settings holds, at most.
pub const SETTINGS_SIZE: usize = 24 * 1024 - 8;
const SETTINGS_AT: usize = HEADER_SIZE;
const SLOT_STRIDE: usize = 24 * 1024;
/// Which slot is valid: 0 none, 1 the first, 2 the second.
const SLOT_VALID_AT: usize = SETTINGS_AT + 2 * SLOT_STRIDE;
const WORDS_AT: usize = SLOT_VALID_AT + 8;
/// How many atomic words a device has for what changes with every request.
pub const WORDS: usize = 1024;
const HANDS_AT: usize = WORDS_AT + 8 * WORDS;

const QUEUES_AT: usize = 0x10000;
const QUEUE_HEADER_SIZE: usize = 16;
const DESCRIPTOR_SIZE: usize = 16;
/// Bytes from one queue's record to the next, aligned as vhost-user asks (64).
const QUEUE_STRIDE: usize = 16448;
/// Bytes of the whole record; sparse, so that untouched queues cost nothing.
pub const RECORD_SIZE: usize = QUEUES_AT + MAX_QUEUES * QUEUE_STRIDE;

/// Where the part that a VMM holds (`GET_INFLIGHT_FD`) begins: the queues' records. The header and
/// the settings are not in it, because QEMU fills what it holds with zeroes when the guest resets.
pub const INFLIGHT_OFFSET: u64 = QUEUES_AT as u64;
/// Bytes of the part that a VMM holds.
pub const INFLIGHT_SIZE: u64 = (MAX_QUEUES * QUEUE_STRIDE) as u64;

/// What the keeper is doing with the service that maps the record.
///
/// A service reads it when a ring starts: while it is [`Phase::Replaying`], the ring ran before and
/// goes on from its record; else it begins at the VMM's BASE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// No service has ever been alive on this record.
    Fresh,
    /// A service died (or the VMM brought the record); rings that ran before are being started.
    Replaying,
    /// The service speaks with the VMM.
    Live,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel refused the memory file.
    #[error("cannot create or map the record: {0}")]
    Io(#[from] io::Error),
    /// The mapping failed.
    #[error("cannot map the record: {0}")]
    Map(String),
    /// The file is something else.
    #[error("not a record: {0}; start the service by the keeper of the same release")]
    Foreign(&'static str),
    /// Written by another release.
    #[error(
        "the record has version {found}, this release reads {VERSION}; stop the guest's device, then start it with the new release"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// The settings are larger than a slot.
    #[error("{0} bytes of settings do not fit a slot of {SETTINGS_SIZE}")]
    TooLarge(usize),
}

impl From<GuestMemoryError> for RecordError {
    fn from(error: GuestMemoryError) -> Self {
        Self::Map(error.to_string())
    }
}

/// A mapped record.
pub struct Record {
    file: File,
    region: MmapRegion,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("phase", &self.phase())
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}

impl Record {
    /// Creates an empty record of the kind that the keeper hands out.
    ///
    /// # Errors
    /// When the kernel has no memory files or no memory.
    pub fn create() -> Result<Self, RecordError> {
        let fd = memfd_create(
            "agl-virtio-record",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )
        .map_err(io::Error::from)?;
        ftruncate(&fd, RECORD_SIZE as u64).map_err(io::Error::from)?;
        // Neither side can shrink it under the other's feet.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(io::Error::from)?;
        let record = Self::map(File::from(fd))?;
        record.store_u64(MAGIC_AT, MAGIC);
        record.store_u32(VERSION_AT, VERSION);
        Ok(record)
    }

    /// Maps a record that somebody else created.
    ///
    /// # Errors
    /// When the file is not a record of [`VERSION`].
    pub fn open(file: File) -> Result<Self, RecordError> {
        let stat = fstat(&file).map_err(io::Error::from)?;
        if u64::try_from(stat.st_size) != Ok(RECORD_SIZE as u64) {
            return Err(RecordError::Foreign("it has another size"));
        }
        // What can shrink can end this process by SIGBUS at any access.
        let seals = fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::SHRINK) {
            return Err(RecordError::Foreign("it is not sealed against shrinking"));
        }
        let record = Self::map(file)?;
        if record.load_u64(MAGIC_AT) != MAGIC {
            return Err(RecordError::Foreign("the magic number is missing"));
        }
        match record.load_u32(VERSION_AT) {
            VERSION => Ok(record),
            found => Err(RecordError::Version { found }),
        }
    }

    fn map(file: File) -> Result<Self, RecordError> {
        let offset = FileOffset::new(file.try_clone()?, 0);
        let region = MmapRegion::from_file(offset, RECORD_SIZE)
            .map_err(|e| RecordError::Map(e.to_string()))?;
        Ok(Self { file, region })
    }

    /// The memory file, to hand to a service or a VMM.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the keeper is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.load_u32(PHASE_AT) {
            0 => Phase::Fresh,
            1 => Phase::Replaying,
            _ => Phase::Live,
        }
    }

    /// Says what the keeper is doing.
    pub fn set_phase(&self, phase: Phase) {
        self.store_u32(
            PHASE_AT,
            match phase {
                Phase::Fresh => 0,
                Phase::Replaying => 1,
                Phase::Live => 2,
            },
        );
    }

    /// The virtio device id the record was written for; 0 when nobody has said.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.load_u32(DEVICE_AT)
    }

    /// Claims the record for a device type.
    pub fn set_device(&self, id: u32) {
        self.store_u32(DEVICE_AT, id);
    }

    /// Features of the device that are of use only to a VMM with `SHARED_OBJECT`: no other one is
    /// offered them. The first 32 bits.
    #[must_use]
    pub fn object_features(&self) -> u32 {
        self.load_u32(OBJECT_FEATURES_AT)
    }

    /// Says which features these are, for who speaks with the VMM.
    pub fn set_object_features(&self, features: u32) {
        self.store_u32(OBJECT_FEATURES_AT, features);
    }

    /// How often a service has taken over from another one.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.load_u32(RESTARTS_AT)
    }

    /// Counts a service that takes over.
    pub fn count_restart(&self) {
        self.store_u32(RESTARTS_AT, self.restarts().saturating_add(1));
    }

    /// The settings that a service saved last, whole; `None` when none ever did.
    #[must_use]
    pub fn settings(&self) -> Option<Vec<u8>> {
        let slot = usize::try_from(self.load_u64(SLOT_VALID_AT))
            .ok()?
            .checked_sub(1)?;
        if slot > 1 {
            return None;
        }
        let at = slot_offset(slot);
        let len = usize::try_from(self.load_u64(at)).ok()?;
        if len > SETTINGS_SIZE {
            return None;
        }
        let mut bytes = vec![0; len];
        self.slice(at.saturating_add(8), len)?
            .copy_to(bytes.as_mut_slice());
        Some(bytes)
    }

    /// Saves settings. A death at any point leaves the old or the new ones, never a mixture.
    ///
    /// # Errors
    /// When they do not fit [`SETTINGS_SIZE`].
    pub fn save_settings(&self, bytes: &[u8]) -> Result<(), RecordError> {
        if bytes.len() > SETTINGS_SIZE {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let slot = usize::from(self.load_u64(SLOT_VALID_AT) == 1);
        let at = slot_offset(slot);
        self.store_u64(at, bytes.len() as u64);
        if let Some(slice) = self.slice(at.saturating_add(8), bytes.len()) {
            slice.copy_from(bytes);
        }
        self.store_u64(SLOT_VALID_AT, if slot == 0 { 1 } else { 2 });
        Ok(())
    }

    /// One atomic word of device progress; `index` below [`WORDS`], else 0.
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        if index < WORDS {
            self.load_u64(word_offset(index))
        } else {
            0
        }
    }

    /// Sets one atomic word of device progress; an `index` of [`WORDS`] or more is ignored.
    pub fn set_word(&self, index: usize, value: u64) {
        if index < WORDS {
            self.store_u64(word_offset(index), value);
        }
    }

    /// The descriptor head of the chain of `queue` that a service was working on, so that whoever
    /// finds the service dead knows what to suspect. `None` when it was not at work on any.
    #[must_use]
    pub fn in_hand(&self, queue: usize) -> Option<u16> {
        let word = self.load_u32(hand_offset(queue)?);
        u16::try_from(word.checked_sub(1)?).ok()
    }

    /// Says which chain of `queue` is being worked on from now on. A queue of [`MAX_QUEUES`] or more
    /// is ignored.
    #[inline]
    pub fn set_in_hand(&self, queue: usize, head: Option<u16>) {
        if let Some(at) = hand_offset(queue) {
            self.store_u32(at, head.map_or(0, |head| u32::from(head).saturating_add(1)));
        }
    }

    /// The inflight record of a queue: header and [`MAX_QUEUE_SIZE`] descriptor states.
    /// `None` for a queue of [`MAX_QUEUES`] or more.
    #[must_use]
    pub fn queue(&self, index: usize) -> Option<VolatileSlice<'_>> {
        if index >= MAX_QUEUES {
            return None;
        }
        let size =
            QUEUE_HEADER_SIZE.saturating_add(DESCRIPTOR_SIZE.saturating_mul(MAX_QUEUE_SIZE.into()));
        self.slice(
            QUEUES_AT.saturating_add(index.saturating_mul(QUEUE_STRIDE)),
            size,
        )
    }

    /// Forgets what was in flight in all queues: a guest begins that the record knows nothing of.
    /// No ring may run.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear_queues(&self) -> Result<(), RecordError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, flags, INFLIGHT_OFFSET, INFLIGHT_SIZE).map_err(io::Error::from)?;
        Ok(())
    }

    /// Whether a file is this very record.
    ///
    /// # Errors
    /// When the file cannot be asked.
    pub fn is_same_file(&self, file: impl AsFd) -> Result<bool, RecordError> {
        let ours = fstat(&self.file).map_err(io::Error::from)?;
        let other = fstat(file).map_err(io::Error::from)?;
        Ok((ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino))
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        self.region.get_slice(offset, len).ok()
    }

    // The offsets below are constants of this file inside a mapping of fixed size: a failure
    // cannot happen, and reads as zero.
    fn load_u32(&self, offset: usize) -> u32 {
        self.slice(0, RECORD_SIZE).map_or(0, |s| {
            vm_memory::Bytes::load(&s, offset, Ordering::Acquire).unwrap_or(0)
        })
    }

    fn load_u64(&self, offset: usize) -> u64 {
        self.slice(0, RECORD_SIZE).map_or(0, |s| {
            vm_memory::Bytes::load(&s, offset, Ordering::Acquire).unwrap_or(0)
        })
    }

    fn store_u32(&self, offset: usize, value: u32) {
        if let Some(slice) = self.slice(0, RECORD_SIZE) {
            let _ = vm_memory::Bytes::store(&slice, value, offset, Ordering::Release);
        }
    }

    fn store_u64(&self, offset: usize, value: u64) {
        if let Some(slice) = self.slice(0, RECORD_SIZE) {
            let _ = vm_memory::Bytes::store(&slice, value, offset, Ordering::Release);
        }
    }
}

fn slot_offset(slot: usize) -> usize {
    SETTINGS_AT.saturating_add(slot.saturating_mul(SLOT_STRIDE))
}

fn hand_offset(queue: usize) -> Option<usize> {
    (queue < MAX_QUEUES).then(|| HANDS_AT.saturating_add(queue.saturating_mul(4)))
}

fn word_offset(index: usize) -> usize {
    WORDS_AT.saturating_add(index.saturating_mul(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_were_saved_last() {
        let record = Record::create().unwrap();
        assert_eq!(record.settings(), None);
        record.save_settings(b"first").unwrap();
        record.save_settings(b"second one").unwrap();
        record.save_settings(b"third").unwrap();
        let again = Record::open(record.file().try_clone().unwrap()).unwrap();
        assert_eq!(again.settings().unwrap(), b"third");
    }

    #[test]
    fn restarts_are_counted_beside_the_device() {
        let record = Record::create().unwrap();
        record.set_device(25);
        record.count_restart();
        record.count_restart();
        let again = Record::open(record.file().try_clone().unwrap()).unwrap();
        assert_eq!((again.restarts(), again.device()), (2, 25));
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_and_the_old_ones_stay() {
        let record = Record::create().unwrap();
        record.save_settings(b"kept").unwrap();
        assert!(record.save_settings(&vec![0; SETTINGS_SIZE + 1]).is_err());
        assert_eq!(record.settings().unwrap(), b"kept");
    }

    #[test]
    fn clearing_the_queues_leaves_the_settings() {
        let record = Record::create().unwrap();
        record.save_settings(b"kept").unwrap();
        let queue = record.queue(MAX_QUEUES - 1).unwrap();
        queue.copy_from(&[0xff_u8; 64]);
        record.clear_queues().unwrap();
        let mut bytes = [1_u8; 64];
        queue.copy_to(&mut bytes[..]);
        assert_eq!(bytes, [0; 64]);
        assert_eq!(record.settings().unwrap(), b"kept");
    }

    #[test]
    fn a_file_that_could_shrink_is_no_record() {
        let record = Record::create().unwrap();
        let fd = memfd_create("copy", MemfdFlags::CLOEXEC).unwrap();
        let mut copy = File::from(fd);
        let mut original = record.file().try_clone().unwrap();
        io::copy(&mut original, &mut copy).unwrap();
        assert!(matches!(Record::open(copy), Err(RecordError::Foreign(_))));
    }

    #[test]
    fn words_and_queues_do_not_overlap() {
        let record = Record::create().unwrap();
        for index in 0..WORDS {
            record.set_word(index, u64::MAX);
        }
        assert_eq!(record.in_hand(0), None, "no word is there");
        for queue in 0..=MAX_QUEUES {
            record.set_in_hand(queue, Some(u16::MAX));
        }
        assert_eq!(record.in_hand(MAX_QUEUES - 1), Some(u16::MAX));
        assert_eq!(record.in_hand(MAX_QUEUES), None);
        assert_eq!(record.word(WORDS - 1), u64::MAX);
        let queue = record.queue(0).unwrap();
        let mut bytes = vec![1_u8; queue.len()];
        queue.copy_to(bytes.as_mut_slice());
        assert_eq!(bytes.iter().position(|byte| *byte != 0), None);
        assert!(record.queue(MAX_QUEUES).is_none());
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_name() {
        let record = Record::create().unwrap();
        record.store_u32(VERSION_AT, VERSION + 1);
        let file = record.file().try_clone().unwrap();
        assert!(
            matches!(Record::open(file), Err(RecordError::Version { found }) if found == VERSION + 1)
        );
    }
}
