// SPDX-License-Identifier: Apache-2.0

//! The guest's memory as the VMM has told it: one table, and regions added and removed since.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{FrontendReq, MAX_ATTACHED_FD_ENTRIES};

use crate::message::{Message, u32_at, u64_at};
use crate::request::Refusal;

/// Most regions that vhost-user-backend takes, and answers to `GET_MAX_MEM_SLOTS`.
const MAX_REGIONS: usize = 509;
/// Bytes of one region; Xen adds 8 of flags.
const REGION_SIZE: usize = 32;
const XEN_REGION_SIZE: usize = 40;
/// Bytes of padding before a single region, and of count and padding before a table.
const PREFIX_SIZE: usize = 8;

/// How the VMM told a region, and so how the next service hears of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    InTable,
    Alone,
}

/// One region of guest memory.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    guest: u64,
    size: u64,
    user: u64,
    /// As on the wire, so that what follows the known fields survives.
    bytes: Vec<u8>,
    fd: Arc<OwnedFd>,
    told: Told,
}

impl Region {
    fn parse(bytes: &[u8], fd: &Arc<OwnedFd>, told: Told) -> Result<Self, Refusal> {
        let (guest, size, user, offset) = fields(bytes).ok_or(Refusal::Size)?;
        let fits = |start: u64| start.checked_add(size).is_some();
        if size == 0 || !fits(guest) || !fits(user) || !fits(offset) {
            return Err(Refusal::Memory("a region is empty or wraps around"));
        }
        Ok(Self {
            guest,
            size,
            user,
            bytes: bytes.to_vec(),
            fd: Arc::clone(fd),
            told,
        })
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.guest < other.guest.saturating_add(other.size)
            && other.guest < self.guest.saturating_add(self.size)
    }
}

fn fields(bytes: &[u8]) -> Option<(u64, u64, u64, u64)> {
    matches!(bytes.len(), REGION_SIZE | XEN_REGION_SIZE).then_some(())?;
    Some((
        u64_at(bytes, 0)?,
        u64_at(bytes, 8)?,
        u64_at(bytes, 16)?,
        u64_at(bytes, 24)?,
    ))
}

/// All regions, by guest address: vhost-user-backend refuses a table in another order.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryTable {
    regions: Vec<Region>,
}

impl MemoryTable {
    /// Reads `SET_MEM_TABLE`.
    pub(crate) fn from_table(message: &Message) -> Result<Self, Refusal> {
        let count = u32_at(&message.payload, 0).ok_or(Refusal::Size)?;
        let count = usize::try_from(count).map_err(|_| Refusal::Size)?;
        if count == 0 || count > MAX_ATTACHED_FD_ENTRIES {
            return Err(Refusal::Memory("a table has between 1 and 32 regions"));
        }
        if message.fds.len() != count {
            return Err(Refusal::Descriptors);
        }
        let bytes = message.payload.get(PREFIX_SIZE..).ok_or(Refusal::Size)?;
        let stride = bytes.len().checked_div(count).unwrap_or(0);
        if !matches!(stride, REGION_SIZE | XEN_REGION_SIZE)
            || stride.saturating_mul(count) != bytes.len()
        {
            return Err(Refusal::Size);
        }
        let mut table = Self::default();
        for (bytes, fd) in bytes.chunks_exact(stride).zip(&message.fds) {
            table.insert(Region::parse(bytes, fd, Told::InTable)?)?;
        }
        Ok(table)
    }

    /// Reads `ADD_MEM_REG`: the table as it will be.
    pub(crate) fn with_added(&self, message: &Message) -> Result<Self, Refusal> {
        let [fd] = message.fds.as_slice() else {
            return Err(Refusal::Descriptors);
        };
        let bytes = message.payload.get(PREFIX_SIZE..).ok_or(Refusal::Size)?;
        let mut table = self.clone();
        table.insert(Region::parse(bytes, fd, Told::Alone)?)?;
        Ok(table)
    }

    /// Reads `REM_MEM_REG`: the table as it will be.
    pub(crate) fn with_removed(&self, message: &Message) -> Result<Self, Refusal> {
        let bytes = message.payload.get(PREFIX_SIZE..).ok_or(Refusal::Size)?;
        let (guest, size, ..) = fields(bytes).ok_or(Refusal::Size)?;
        let mut table = self.clone();
        table
            .regions
            .retain(|region| (region.guest, region.size) != (guest, size));
        if table.regions.len() == self.regions.len() {
            return Err(Refusal::Memory("no such region"));
        }
        Ok(table)
    }

    fn insert(&mut self, region: Region) -> Result<(), Refusal> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(Refusal::Memory("more regions than a back end takes"));
        }
        if self.regions.iter().any(|other| other.overlaps(&region)) {
            return Err(Refusal::Memory("two regions overlap"));
        }
        let at = self
            .regions
            .partition_point(|other| other.guest < region.guest);
        self.regions.insert(at, region);
        Ok(())
    }

    /// Whether an address of the VMM lies in the guest's memory.
    pub(crate) fn maps(&self, user: u64) -> bool {
        self.regions.iter().any(|region| {
            user.checked_sub(region.user)
                .is_some_and(|offset| offset < region.size)
        })
    }

    /// The requests that tell a service all of it.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let table: Vec<&Region> = self.told(Told::InTable).collect();
        let mut messages = Vec::new();
        if !table.is_empty() {
            let count = u32::try_from(table.len()).unwrap_or(u32::MAX);
            let mut payload = count.to_ne_bytes().to_vec();
            payload.extend_from_slice(&[0; 4]);
            for region in &table {
                payload.extend_from_slice(&region.bytes);
            }
            let fds = table.iter().map(|region| Arc::clone(&region.fd)).collect();
            messages.push(Message::request(FrontendReq::SET_MEM_TABLE, payload).with_fds(fds));
        }
        for region in self.told(Told::Alone) {
            let mut payload = vec![0; PREFIX_SIZE];
            payload.extend_from_slice(&region.bytes);
            messages.push(
                Message::request(FrontendReq::ADD_MEM_REG, payload)
                    .with_fds(vec![Arc::clone(&region.fd)]),
            );
        }
        messages
    }

    fn told(&self, told: Told) -> impl Iterator<Item = &Region> {
        self.regions
            .iter()
            .filter(move |region| region.told == told)
    }
}
