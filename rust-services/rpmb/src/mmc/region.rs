// SPDX-License-Identifier: Apache-2.0

//! A part of a partition as the medium of a store. The host's key signs what goes to the card; the
//! guest's key, counter and data lie in the store, and no guest can say anything to the card.

use std::io;

use super::{Card, result_read};
use crate::key::Key;
use crate::store::Medium;
use crate::wire::{BLOCK_SIZE, Frame, OpResult, RequestType};

/// Blocks that are read at once.
const READ_AT_ONCE: usize = 32;
/// How often a write is tried again after somebody else has counted meanwhile.
const TRIES: u32 = 16;

/// A region of a card.
pub struct Region {
    card: Box<dyn Card>,
    host_key: Key,
    first_block: u16,
    blocks: u16,
    /// The card's counter, as it was last heard of.
    counter: Option<u32>,
}

impl Region {
    /// `blocks` blocks from `first_block` on.
    #[must_use]
    pub fn new(card: Box<dyn Card>, host_key: Key, first_block: u16, blocks: u16) -> Self {
        Self {
            card,
            host_key,
            first_block,
            blocks,
            counter: None,
        }
    }

    /// The card's numbers of blocks, for a range of bytes.
    fn range(&self, at: u64, len: usize) -> io::Result<u16> {
        let size = BLOCK_SIZE as u64;
        let end = at.saturating_add(len as u64);
        let whole = at.checked_rem(size) == Some(0) && len % BLOCK_SIZE == 0;
        if !whole || end > u64::from(self.blocks).saturating_mul(size) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "beyond the region's end",
            ));
        }
        let block = u16::try_from(at.checked_div(size).unwrap_or(0)).map_err(io::Error::other)?;
        Ok(self.first_block.saturating_add(block))
    }

    /// Sends a request; its answer must be of this type, signed by the host's key, and fresh where
    /// it can be.
    fn ask(
        &mut self,
        request: &Frame,
        kind: RequestType,
        answers: usize,
    ) -> io::Result<(u16, Vec<Frame>)> {
        let mut answer = vec![Frame::default(); answers];
        let wish = result_read();
        let changes = kind == RequestType::DataWrite;
        self.card.exchange(
            std::slice::from_ref(request),
            changes.then_some(&wish),
            &mut answer,
        )?;
        let last = answer.last().copied().unwrap_or_default();
        let forged = |what: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the card's answer {what}"),
            )
        };
        if last.result.get() == OpResult::NoAuthKey.code() {
            return Err(forged(
                "says that it has no key: program the host's key first",
            ));
        }
        if !self.host_key.verifies(&answer) {
            return Err(forged("is not signed with the host's key"));
        }
        if last.req_resp.get() != kind.response() || (!changes && last.nonce != request.nonce) {
            return Err(forged("is not to what was asked"));
        }
        Ok((last.result.get(), answer))
    }

    fn request(kind: RequestType) -> io::Result<Frame> {
        let mut frame = Frame::of(kind.code());
        if kind != RequestType::DataWrite {
            rustix::rand::getrandom(&mut frame.nonce, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(frame)
    }

    fn counter(&mut self) -> io::Result<u32> {
        if let Some(counter) = self.counter {
            return Ok(counter);
        }
        let request = Self::request(RequestType::GetWriteCounter)?;
        let (result, answer) = self.ask(&request, RequestType::GetWriteCounter, 1)?;
        expect(result)?;
        let counter = answer.first().map(|frame| frame.write_counter.get());
        self.counter = counter;
        Ok(counter.unwrap_or_default())
    }

    /// Writes one block: what a card does whole or not at all.
    fn write_block(&mut self, block: u16, data: &[u8; BLOCK_SIZE]) -> io::Result<()> {
        for _ in 0..TRIES {
            let mut request = Self::request(RequestType::DataWrite)?;
            request.data = *data;
            request.address.set(block);
            request.block_count.set(1);
            request.write_counter.set(self.counter()?);
            request.key_mac = self.host_key.sign([&request]);
            // Whatever comes of it, the counter may have moved.
            self.counter = None;
            let (result, answer) = self.ask(&request, RequestType::DataWrite, 1)?;
            // Another process of the host, with a region of its own, was faster.
            if OpResult::of(result) == Some(OpResult::CountFailure) {
                continue;
            }
            expect(result)?;
            // The answer to a write has no nonce: it is ours by its counter and address.
            let counter = answer.first().map(|frame| frame.write_counter.get());
            let address = answer.first().map(|frame| frame.address.get());
            if counter != request.write_counter.get().checked_add(1) || address != Some(block) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the card's answer is to another write",
                ));
            }
            self.counter = counter;
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "others write to the card all the time",
        ))
    }
}

fn expect(result: u16) -> io::Result<()> {
    match OpResult::of(result) {
        Some(OpResult::Ok) => Ok(()),
        Some(other) => Err(io::Error::other(format!("the card says {}", other.word()))),
        None => Err(io::Error::other(format!("the card says {result:#06x}"))),
    }
}

impl Medium for Region {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut block = self.range(at, buffer.len())?;
        for part in buffer.chunks_mut(BLOCK_SIZE.saturating_mul(READ_AT_ONCE)) {
            let count = part.len().checked_div(BLOCK_SIZE).unwrap_or(0);
            let mut request = Self::request(RequestType::DataRead)?;
            request.address.set(block);
            // How many is what a card is told by the length of the answer.
            let (result, answer) = self.ask(&request, RequestType::DataRead, count)?;
            expect(result)?;
            if answer.iter().any(|frame| frame.address.get() != block) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the card's answer is of other blocks",
                ));
            }
            for (out, frame) in part.chunks_mut(BLOCK_SIZE).zip(&answer) {
                out.copy_from_slice(&frame.data);
            }
            block = block.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
        }
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let first = self.range(at, bytes.len())?;
        self.card.lock(true)?;
        let mut result = Ok(());
        for (block, data) in (first..).zip(bytes.chunks(BLOCK_SIZE)) {
            let Ok(data) = data.try_into() else { break };
            result = self.write_block(block, data);
            if result.is_err() {
                break;
            }
        }
        let unlocked = self.card.lock(false);
        result.and(unlocked)
    }

    fn sync(&mut self) -> io::Result<()> {
        // A card answers an authenticated write when it is done for good.
        Ok(())
    }

    fn keeps_what_is_read(&self) -> bool {
        // And each write wears the card, and brings its counter nearer to its end.
        true
    }

    fn alignment(&self) -> u64 {
        BLOCK_SIZE as u64
    }
}
