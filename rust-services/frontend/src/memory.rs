// SPDX-License-Identifier: Apache-2.0
//! Guest memory: memfd regions with gaps between them, and an allocator of buffers.
//!
//! A byte of guest memory has three numbers: its guest-physical address, its address in the front
//! end's own address space (which only SET_VRING_ADDR uses), and its offset in the shared file.
//! Here the three never agree and are ordered differently, so that a back end which mixes them up
//! fails at once. The "user" addresses are made up: the protocol never asks for true ones.
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{AtomicAccess, Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::error::{Error, Result};

/// Where one region of guest memory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// The guest-physical address of its first byte; a multiple of 4096.
    pub guest_base: u64,
    /// Its size in bytes; a multiple of 4096.
    pub size: u64,
    /// Where it begins in the shared file; a multiple of 4096.
    pub file_offset: u64,
}

/// The regions of guest memory.
#[derive(Debug, Clone)]
pub struct MemoryLayout {
    /// The regions, in order of their guest addresses, with or without gaps between them.
    pub regions: Vec<RegionSpec>,
    /// Whether one file holds all regions, as QEMU's memory back end around the PCI hole does;
    /// else each has its own.
    pub one_file: bool,
}

impl MemoryLayout {
    /// Three regions with gaps, one of them above 4 GiB: 16 MiB altogether.
    #[must_use]
    pub fn scattered() -> Self {
        let mib = 1 << 20;
        Self {
            regions: vec![
                RegionSpec {
                    guest_base: mib,
                    size: 4 * mib,
                    file_offset: 0x1000,
                },
                RegionSpec {
                    guest_base: 0x4000_0000,
                    size: 4 * mib,
                    file_offset: 2 * mib,
                },
                RegionSpec {
                    guest_base: 0x1_0000_0000,
                    size: 8 * mib,
                    file_offset: 0x3000,
                },
            ],
            one_file: false,
        }
    }

    /// One region of `size` bytes (a multiple of 4096).
    #[must_use]
    pub fn single(size: u64) -> Self {
        Self {
            regions: vec![RegionSpec {
                guest_base: 0x8000_0000,
                size,
                file_offset: 0x1000,
            }],
            one_file: false,
        }
    }

    /// [`Self::scattered`] in one file, its parts in reverse order there.
    #[must_use]
    pub fn one_file() -> Self {
        let mut layout = Self::scattered();
        let mut offset = 0x5000;
        for region in layout.regions.iter_mut().rev() {
            region.file_offset = offset;
            offset += region.size;
        }
        layout.one_file = true;
        layout
    }
}

/// One region as the back end is told of it.
#[derive(Debug)]
pub struct Region {
    /// Where it lies.
    pub spec: RegionSpec,
    /// Its made-up address in the front end.
    pub user_base: u64,
    file: Arc<File>,
    free: Mutex<BTreeMap<u64, u64>>,
}

impl Region {
    /// The shared file.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The region in the words of SET_MEM_TABLE and ADD_MEM_REG.
    #[must_use]
    pub fn descriptor(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let words = [
            self.spec.guest_base,
            self.spec.size,
            self.user_base,
            self.spec.file_offset,
        ];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The first guest-physical address after it.
    #[must_use]
    pub fn guest_end(&self) -> u64 {
        self.spec.guest_base + self.spec.size
    }
}

/// A piece of guest memory that the allocator gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Its guest-physical address.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// Guest memory, shared by the rings and buffers of one guest.
#[derive(Debug)]
pub struct Memory {
    regions: Vec<Region>,
    map: GuestMemoryMmap,
    turn: AtomicUsize,
}

impl Memory {
    /// Create the regions.
    ///
    /// # Errors
    /// Where the system has no memory for it, or the layout overlaps.
    pub fn new(layout: &MemoryLayout) -> Result<Arc<Self>> {
        let mut regions: Vec<Region> = Vec::new();
        for (index, &spec) in layout.regions.iter().enumerate() {
            let file = match regions.first() {
                Some(first) if layout.one_file => Arc::clone(&first.file),
                _ => Arc::new(File::from(
                    memfd_create("guest-memory", MemfdFlags::CLOEXEC)
                        .map_err(|source| Error::io("create guest memory", source))?,
                )),
            };
            let end = spec.file_offset + spec.size;
            let now = file
                .metadata()
                .map_err(|source| Error::io("measure guest memory", source))?;
            if now.len() < end {
                file.set_len(end)
                    .map_err(|source| Error::io("size guest memory", source))?;
            }
            regions.push(Region {
                spec,
                // Descending while guest addresses ascend, and off by an odd number of pages.
                user_base: 0x5a00_0000_7000 - 0x100_0000_0000 * index as u64,
                file,
                free: Mutex::new(BTreeMap::from([(spec.guest_base, spec.size)])),
            });
        }
        let map = GuestMemoryMmap::from_ranges_with_files(regions.iter().map(|region| {
            (
                GuestAddress(region.spec.guest_base),
                region.spec.size as usize,
                Some(FileOffset::from_arc(
                    Arc::clone(&region.file),
                    region.spec.file_offset,
                )),
            )
        }))
        .map_err(|source| Error::Memory(format!("cannot map the regions: {source}")))?;
        Ok(Arc::new(Self {
            regions,
            map,
            turn: AtomicUsize::new(0),
        }))
    }

    /// All regions, shared with the back end or not.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The front end's (made-up) address of a guest-physical one, as SET_VRING_ADDR wants it.
    ///
    /// # Errors
    /// Where no region has the address.
    pub fn user_address(&self, guest: u64) -> Result<u64> {
        self.regions
            .iter()
            .find(|region| (region.spec.guest_base..region.guest_end()).contains(&guest))
            .map(|region| guest - region.spec.guest_base + region.user_base)
            .ok_or_else(|| Error::Memory(format!("no region has {guest:#x}")))
    }

    /// A guest-physical address that no region has: in the first gap, or after the end.
    #[must_use]
    pub fn address_in_gap(&self) -> u64 {
        self.regions
            .windows(2)
            .find(|pair| pair[0].guest_end() < pair[1].spec.guest_base)
            .map_or_else(
                || self.regions[self.regions.len() - 1].guest_end(),
                |pair| pair[0].guest_end(),
            )
    }

    /// Allocate `len` bytes, aligned to `align` (a power of two), from the regions in turn: the
    /// parts of one chain come to lie in different regions.
    ///
    /// # Errors
    /// Where no region has as much left.
    pub fn alloc(&self, len: u32, align: u64) -> Result<Buffer> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.regions.len())
            .find_map(|step| {
                self.alloc_in((turn + step) % self.regions.len(), len, align)
                    .ok()
            })
            .ok_or_else(|| Error::Memory(format!("no region has {len} bytes left")))
    }

    /// Allocate from one region.
    ///
    /// # Errors
    /// Where it has not as much left.
    pub fn alloc_in(&self, region: usize, len: u32, align: u64) -> Result<Buffer> {
        let size = u64::from(len.max(1));
        let region = &self.regions[region];
        let mut free = region.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (base, room, addr) = free
            .iter()
            .map(|(&base, &room)| (base, room, base.next_multiple_of(align)))
            .find(|(base, room, addr)| addr - base + size <= *room)
            .ok_or_else(|| Error::Memory(format!("the region has no {len} bytes left")))?;
        free.remove(&base);
        if addr > base {
            free.insert(base, addr - base);
        }
        if addr + size < base + room {
            free.insert(addr + size, base + room - addr - size);
        }
        Ok(Buffer { addr, len })
    }

    /// Give a buffer back.
    pub fn free(&self, buffer: Buffer) {
        let size = u64::from(buffer.len.max(1));
        let Some(region) = self
            .regions
            .iter()
            .find(|region| (region.spec.guest_base..region.guest_end()).contains(&buffer.addr))
        else {
            return;
        };
        let mut free = region.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut base, mut room) = (buffer.addr, size);
        let before = free
            .range(..base)
            .next_back()
            .map(|(&addr, &room)| (addr, room));
        if let Some((addr, its)) = before.filter(|(addr, its)| addr + its == base) {
            free.remove(&addr);
            (base, room) = (addr, its + room);
        }
        if let Some(its) = free.remove(&(buffer.addr + size)) {
            room += its;
        }
        free.insert(base, room);
    }

    /// Copy `bytes` into guest memory.
    ///
    /// # Errors
    /// Where the range is not all there.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        self.map
            .write_slice(bytes, GuestAddress(addr))
            .map_err(|source| Error::Memory(format!("write at {addr:#x}: {source}")))
    }

    /// Copy guest memory into `bytes`.
    ///
    /// # Errors
    /// Where the range is not all there.
    pub fn read(&self, addr: u64, bytes: &mut [u8]) -> Result<()> {
        self.map
            .read_slice(bytes, GuestAddress(addr))
            .map_err(|source| Error::Memory(format!("read at {addr:#x}: {source}")))
    }

    /// `len` bytes of guest memory.
    ///
    /// # Errors
    /// Where the range is not all there.
    pub fn bytes(&self, addr: u64, len: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// Set `len` bytes of guest memory to `value`.
    ///
    /// # Errors
    /// Where the range is not all there.
    pub fn fill(&self, addr: u64, len: u32, value: u8) -> Result<()> {
        self.write(addr, &vec![value; len as usize])
    }

    /// Store one integer atomically.
    ///
    /// # Errors
    /// Where it is not all there or not aligned.
    pub fn store<T: AtomicAccess>(&self, addr: u64, value: T, order: Ordering) -> Result<()> {
        self.map
            .store(value, GuestAddress(addr), order)
            .map_err(|source| Error::Memory(format!("store at {addr:#x}: {source}")))
    }

    /// Load one integer atomically.
    ///
    /// # Errors
    /// Where it is not all there or not aligned.
    pub fn load<T: AtomicAccess>(&self, addr: u64, order: Ordering) -> Result<T> {
        self.map
            .load(GuestAddress(addr), order)
            .map_err(|source| Error::Memory(format!("load at {addr:#x}: {source}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_numbers_of_a_byte_never_agree_and_are_ordered_differently() {
        for layout in [MemoryLayout::scattered(), MemoryLayout::one_file()] {
            let memory = Memory::new(&layout).unwrap();
            for region in memory.regions() {
                let (guest, user, file) = (
                    region.spec.guest_base,
                    region.user_base,
                    region.spec.file_offset,
                );
                assert!(guest != user && user != file && guest != file);
                assert_eq!(memory.user_address(guest + 5).unwrap(), user + 5);
            }
            assert!(memory.regions()[0].user_base > memory.regions()[1].user_base);
        }
    }

    #[test]
    fn regions_of_one_file_do_not_overlap_in_it() {
        let memory = Memory::new(&MemoryLayout::one_file()).unwrap();
        for (number, region) in memory.regions().iter().enumerate() {
            memory
                .fill(
                    region.spec.guest_base,
                    region.spec.size as u32,
                    number as u8,
                )
                .unwrap();
        }
        for (number, region) in memory.regions().iter().enumerate() {
            for addr in [region.spec.guest_base, region.guest_end() - 1] {
                assert_eq!(memory.bytes(addr, 1).unwrap(), [number as u8]);
            }
        }
    }

    #[test]
    fn what_is_freed_can_be_allocated_again_in_one_piece() {
        let memory = Memory::new(&MemoryLayout::single(0x4000)).unwrap();
        for _ in 0..3 {
            let pieces: Vec<_> = (0..4).map(|_| memory.alloc(0x1000, 16).unwrap()).collect();
            assert!(memory.alloc(1, 1).is_err());
            for piece in [2, 0, 3, 1] {
                memory.free(pieces[piece]);
            }
            let whole = memory.alloc(0x4000, 0x1000).unwrap();
            memory.free(whole);
        }
    }

    #[test]
    fn buffers_are_aligned_and_apart() {
        let memory = Memory::new(&MemoryLayout::single(0x4000)).unwrap();
        let odd = memory.alloc(3, 1).unwrap();
        let even = memory.alloc(0x100, 0x100).unwrap();
        assert_eq!(even.addr % 0x100, 0);
        assert!(even.addr >= odd.addr + 3);
    }

    #[test]
    fn an_address_in_a_gap_belongs_to_no_region() {
        let memory = Memory::new(&MemoryLayout::scattered()).unwrap();
        assert!(memory.user_address(memory.address_in_gap()).is_err());
    }
}
