// SPDX-License-Identifier: Apache-2.0
//! The memory in which a back end records the chains it holds (INFLIGHT_SHMFD), and a reader of
//! its split-ring layout, to see from outside what a back end that died had in flight.
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::protocol::{protocol_feature, request};
use crate::session::Session;

/// What GET_INFLIGHT_FD answered: a VMM keeps it over the back end's death.
#[derive(Debug)]
pub struct Inflight {
    description: Vec<u8>,
    queue_size: u16,
    queues: u16,
    size: u64,
    offset: u64,
    file: File,
}

/// What the record says about one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// The used index that the back end believes it wrote.
    pub used_idx: u16,
    /// Heads in flight with their counters, ascending by counter: the order to take them up in.
    pub heads: Vec<(u16, u64)>,
}

impl Inflight {
    /// GET_INFLIGHT_FD for `queues` queues of up to `queue_size` descriptors.
    ///
    /// # Errors
    /// [`Error::NotNegotiated`] without the feature; where the answer is not a usable memory.
    pub fn get(session: &Session, queues: u16, queue_size: u16) -> Result<Self> {
        if !session.has(protocol_feature::INFLIGHT_SHMFD) {
            return Err(Error::NotNegotiated("INFLIGHT_SHMFD"));
        }
        let number = request::GET_INFLIGHT_FD;
        let bad = |problem: &str| Error::BadReply {
            request: number,
            problem: problem.into(),
        };
        let mut answer = session.ask(number, &Self::words(0, 0, queues, queue_size), &[])?;
        let description: [u8; 20] = answer
            .payload
            .get(..20)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| bad("too short"))?;
        let fd = answer
            .fds
            .pop()
            .ok_or_else(|| bad("no descriptor came along"))?;
        let word =
            |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| description[at + byte]));
        let (size, offset) = (word(0), word(8));
        if size == 0 {
            return Err(bad("a size of 0"));
        }
        Ok(Self {
            description: Self::words(size, offset, queues, queue_size),
            queue_size,
            queues,
            size,
            offset,
            file: File::from(fd),
        })
    }

    /// SET_INFLIGHT_FD, on the same or on a later connection.
    ///
    /// # Errors
    /// As [`Session::tell`].
    pub fn set(&self, session: &Session) -> Result<()> {
        session.tell(
            request::SET_INFLIGHT_FD,
            &self.description,
            &[self.file.as_fd()],
        )
    }

    /// The memory's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Read the record of a queue in the split-ring layout (`QueueRegionSplit` of the
    /// vhost-user text). `stride` is the distance from one queue's record to the next, which the
    /// back end chooses: [`Self::packed_stride`] where it leaves no room.
    ///
    /// # Errors
    /// Where the memory is shorter than that.
    pub fn queue(&self, queue: u16, stride: u64) -> Result<QueueRecord> {
        let at = self.offset + stride * u64::from(queue);
        let read = |at: u64, bytes: &mut [u8]| {
            self.file
                .read_exact_at(bytes, at)
                .map_err(|source| Error::io("read the inflight record", source))
        };
        // features u64, version u16, desc_num u16, last_batch_head u16, used_idx u16
        let mut head = [0u8; 16];
        read(at, &mut head)?;
        let mut heads = Vec::new();
        for slot in 0..self.queue_size {
            // inflight u8, padding [u8; 5], next u16, counter u64
            let mut entry = [0u8; 16];
            read(at + 16 + 16 * u64::from(slot), &mut entry)?;
            if entry[0] != 0 {
                let counter = u64::from_le_bytes(std::array::from_fn(|byte| entry[8 + byte]));
                heads.push((slot, counter));
            }
        }
        heads.sort_by_key(|&(_, counter)| counter);
        Ok(QueueRecord {
            used_idx: u16::from_le_bytes([head[14], head[15]]),
            heads,
        })
    }

    /// The smallest distance between two queues' records, rounded up to 64 bytes.
    #[must_use]
    pub fn packed_stride(&self) -> u64 {
        (16 + 16 * u64::from(self.queue_size)).next_multiple_of(64)
    }

    /// How many queues it was made for.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// `VhostUserInflight`: two u64, two u16.
    fn words(size: u64, offset: u64, queues: u16, queue_size: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&queues.to_le_bytes());
        bytes.extend_from_slice(&queue_size.to_le_bytes());
        // The C structure ends in padding, and QEMU sends it whole.
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }
}
