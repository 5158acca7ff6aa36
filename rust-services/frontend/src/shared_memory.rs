// SPDX-License-Identifier: Apache-2.0
//! Shared memory regions as a VMM has them: it maps what the back end hands it, by the rules that
//! QEMU 11 has, and the guest reads and writes there.
use std::collections::BTreeMap;
use std::fs::File;

use rustix::fs::fstat;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use crate::connection::Message;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::protocol::{backend_request, header, protocol_feature, request};
use crate::session::{BackendChannel, Session};

const PAGE: u64 = 4096;
/// Most regions of a device, and so sizes in the answer to GET_SHMEM_CONFIG.
const MAX_REGIONS: usize = 256;
/// The mapping is to be written too.
const WRITABLE: u64 = 1;

/// A mapping that the back end has asked for.
#[derive(Debug)]
pub struct Mapping {
    /// Bytes.
    pub len: u64,
    /// Whether the guest may write there.
    pub writable: bool,
    /// The host's memory behind it.
    pub memory: MmapRegion,
}

/// The regions of one device.
#[derive(Debug, Default)]
pub struct SharedMemory {
    sizes: Vec<u64>,
    mapped: BTreeMap<(u8, u64), Mapping>,
}

/// What `struct VhostUserMMap` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    region: u8,
    file_offset: u64,
    offset: u64,
    len: u64,
    writable: bool,
}

impl SharedMemory {
    /// Ask the back end what regions there are (GET_SHMEM_CONFIG).
    ///
    /// # Errors
    /// [`Error::NotNegotiated`] without SHMEM; as [`Session::ask`] otherwise.
    pub fn ask(session: &Session) -> Result<Self> {
        if !session.has(protocol_feature::SHMEM) {
            return Err(Error::NotNegotiated("SHMEM"));
        }
        let number = request::GET_SHMEM_CONFIG;
        let answer = session.ask(number, &[], &[])?;
        let bad = |problem: String| Error::BadReply {
            request: number,
            problem,
        };
        let words: Vec<u64> = answer
            .payload
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        if answer.payload.len() != 8 * (1 + MAX_REGIONS) {
            return Err(bad(format!("{} bytes", answer.payload.len())));
        }
        let mut sizes = words[1..].to_vec();
        let regions = sizes.iter().filter(|&&size| size > 0).count();
        if words[0] != regions as u64 || sizes.iter().any(|size| size % PAGE != 0) {
            return Err(bad(format!("{} regions: {sizes:?}", words[0])));
        }
        while sizes.last() == Some(&0) {
            sizes.pop();
        }
        Ok(Self {
            sizes,
            mapped: BTreeMap::new(),
        })
    }

    /// Bytes of each region by its id.
    #[must_use]
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// What is mapped, by region and offset.
    #[must_use]
    pub fn mapped(&self) -> &BTreeMap<(u8, u64), Mapping> {
        &self.mapped
    }

    /// Take back all mappings, as a VMM does with a reset of the device.
    pub fn reset(&mut self) {
        self.mapped.clear();
    }

    /// Have something mapped there that the back end knows nothing of.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn occupy(&mut self, region: u8, offset: u64, len: u64) -> Result<()> {
        let memory = MmapRegion::new(len as usize)
            .map_err(|error| Error::Memory(format!("cannot map {len} bytes: {error}")))?;
        let mapping = Mapping {
            len,
            writable: false,
            memory,
        };
        self.mapped.insert((region, offset), mapping);
        Ok(())
    }

    /// Do the back end's next request before the deadline, and say whether it was done. Requests
    /// about other things are an error.
    ///
    /// # Errors
    /// Where none comes, or another one.
    pub fn serve(&mut self, channel: &BackendChannel, deadline: Deadline) -> Result<bool> {
        let message = channel.connection().receive_by(deadline)?;
        let done = self.obey(&message)?;
        if message.needs_reply() {
            let flags = header::VERSION | header::REPLY;
            let status = u64::from(!done).to_le_bytes();
            channel
                .connection()
                .send(message.request, flags, &status, &[])?;
        }
        Ok(done)
    }

    fn obey(&mut self, message: &Message) -> Result<bool> {
        let wanted = Wanted::parse(message)?;
        let size = usize::from(wanted.region);
        let size = self.sizes.get(size).copied().unwrap_or(0);
        let end = wanted.offset.saturating_add(wanted.len);
        if wanted.len == 0 || end > size || (wanted.offset | wanted.len) % PAGE != 0 {
            return Ok(false);
        }
        let at = (wanted.region, wanted.offset);
        if message.request == backend_request::SHMEM_UNMAP {
            let whole = self.mapped.get(&at).is_some_and(|it| it.len == wanted.len);
            return Ok(whole && self.mapped.remove(&at).is_some());
        }
        let overlaps = self.mapped.iter().any(|(&(region, offset), mapping)| {
            region == wanted.region && offset < end && wanted.offset < offset + mapping.len
        });
        let [fd] = message.fds.as_slice() else {
            return Ok(false);
        };
        // Memory beyond the end of the file would end the VMM at the first access.
        let covered = fstat(fd).is_ok_and(|stat| {
            u64::try_from(stat.st_size)
                .is_ok_and(|size| size >= wanted.file_offset.saturating_add(wanted.len))
        });
        if overlaps || !covered {
            return Ok(false);
        }
        let file = fd
            .try_clone()
            .map_err(|source| Error::io("duplicate a descriptor", source))?;
        let file = FileOffset::new(File::from(file), wanted.file_offset);
        let Ok(memory) = MmapRegion::from_file(file, wanted.len as usize) else {
            return Ok(false);
        };
        let mapping = Mapping {
            len: wanted.len,
            writable: wanted.writable,
            memory,
        };
        self.mapped.insert(at, mapping);
        Ok(true)
    }

    /// What the guest reads at `offset` of a region.
    ///
    /// # Errors
    /// [`Error::Memory`] where that much is not mapped.
    pub fn read(&self, region: u8, offset: u64, len: usize) -> Result<Vec<u8>> {
        let (mapping, at) = self.find(region, offset)?;
        let mut bytes = vec![0; len];
        let slice = mapping.memory.get_slice(at, len).map_err(not_mapped)?;
        slice.copy_to(bytes.as_mut_slice());
        Ok(bytes)
    }

    /// The guest writes at `offset` of a region.
    ///
    /// # Errors
    /// [`Error::Memory`] where that much is not mapped, or not to be written.
    pub fn write(&self, region: u8, offset: u64, bytes: &[u8]) -> Result<()> {
        let (mapping, at) = self.find(region, offset)?;
        if !mapping.writable {
            return Err(Error::Memory("the mapping is not to be written".into()));
        }
        let slice = mapping.memory.get_slice(at, bytes.len());
        slice.map_err(not_mapped)?.copy_from(bytes);
        Ok(())
    }

    fn find(&self, region: u8, offset: u64) -> Result<(&Mapping, usize)> {
        let before = self
            .mapped
            .range((region, 0)..=(region, offset))
            .next_back();
        let (&(_, start), mapping) = before.ok_or_else(|| {
            Error::Memory(format!(
                "nothing is mapped at {offset:#x} of region {region}"
            ))
        })?;
        Ok((mapping, (offset - start) as usize))
    }
}

fn not_mapped(error: impl std::fmt::Display) -> Error {
    Error::Memory(format!("beyond the mapping: {error}"))
}

impl Wanted {
    fn parse(message: &Message) -> Result<Self> {
        let asks = [backend_request::SHMEM_MAP, backend_request::SHMEM_UNMAP];
        let words: Vec<u64> = message
            .payload
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let &[region, file_offset, offset, len, flags] = words.as_slice() else {
            return Err(unexpected(message));
        };
        if !asks.contains(&message.request) || flags & !WRITABLE != 0 {
            return Err(unexpected(message));
        }
        Ok(Self {
            region: region as u8,
            file_offset,
            offset,
            len,
            writable: flags & WRITABLE != 0,
        })
    }
}

fn unexpected(message: &Message) -> Error {
    Error::BadReply {
        request: message.request,
        problem: "neither SHMEM_MAP nor SHMEM_UNMAP as vhost-user has them".into(),
    }
}
