// SPDX-License-Identifier: Apache-2.0
//! Where the three parts of a split ring lie, and the descriptors in it (VIRTIO 1.4, 2.7).
use crate::error::Result;
use crate::memory::Memory;

/// Bits of a descriptor's flags (2.7.5).
pub mod descriptor_flag {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes this buffer.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// avail.flags: the device need not call (2.7.6); without EVENT_IDX.
pub(crate) const AVAIL_NO_INTERRUPT: u16 = 1;
/// used.flags: the driver need not kick (2.7.8); without EVENT_IDX.
pub(crate) const USED_NO_NOTIFY: u16 = 1;

/// A descriptor as it lies in a table, honest or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Guest-physical address of the buffer.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// [`descriptor_flag`]s.
    pub flags: u16,
    /// The next slot, where NEXT is set.
    pub next: u16,
}

impl Descriptor {
    /// Bytes of one.
    pub const SIZE: u32 = 16;

    /// Its sixteen bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// The guest-physical addresses of a ring's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The number of descriptors.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring (driver area).
    pub available: u64,
    /// The used ring (device area).
    pub used: u64,
}

impl Layout {
    /// Allocate the parts, from `region` or, without one, from the regions in turn.
    pub(crate) fn allocate(memory: &Memory, size: u16, region: Option<usize>) -> Result<Self> {
        let part = |len: u32, align: u64| {
            match region {
                Some(region) => memory.alloc_in(region, len, align),
                None => memory.alloc(len, align),
            }
            .map(|buffer| buffer.addr)
        };
        Ok(Self {
            size,
            descriptors: part(Descriptor::SIZE * u32::from(size), 16)?,
            available: part(Self::available_len(size), 2)?,
            used: part(6 + 8 * u32::from(size), 4)?,
        })
    }

    pub(crate) fn available_len(size: u16) -> u32 {
        6 + 2 * u32::from(size)
    }

    /// Zero all three parts, as a driver does before it hands a ring over.
    ///
    /// # Errors
    /// Where the parts are not in guest memory.
    pub fn zero(&self, memory: &Memory) -> Result<()> {
        memory.fill(self.descriptors, Descriptor::SIZE * u32::from(self.size), 0)?;
        memory.fill(self.available, Self::available_len(self.size), 0)?;
        memory.fill(self.used, 6 + 8 * u32::from(self.size), 0)
    }

    /// Address of a slot of the descriptor table.
    #[must_use]
    pub fn descriptor(&self, slot: u16) -> u64 {
        self.descriptors + 16 * u64::from(slot)
    }

    /// Address of avail.flags.
    #[must_use]
    pub fn avail_flags(&self) -> u64 {
        self.available
    }

    /// Address of avail.idx.
    #[must_use]
    pub fn avail_idx(&self) -> u64 {
        self.available + 2
    }

    /// Address of the element of the available ring that index `idx` falls on.
    #[must_use]
    pub fn avail_element(&self, idx: u16) -> u64 {
        self.available + 4 + 2 * u64::from(idx % self.size)
    }

    /// Address of used_event, at the end of the available ring.
    #[must_use]
    pub fn used_event(&self) -> u64 {
        self.available + 4 + 2 * u64::from(self.size)
    }

    /// Address of used.flags.
    #[must_use]
    pub fn used_flags(&self) -> u64 {
        self.used
    }

    /// Address of used.idx.
    #[must_use]
    pub fn used_idx(&self) -> u64 {
        self.used + 2
    }

    /// Address of the element of the used ring that index `idx` falls on.
    #[must_use]
    pub fn used_element(&self, idx: u16) -> u64 {
        self.used + 4 + 8 * u64::from(idx % self.size)
    }

    /// Address of avail_event, at the end of the used ring.
    #[must_use]
    pub fn avail_event(&self) -> u64 {
        self.used + 4 + 8 * u64::from(self.size)
    }
}
