// SPDX-License-Identifier: Apache-2.0

//! The other side of the protocol: who has the key.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::key::Key;
use crate::mmc::{Card, result_read};
use crate::wire::{BLOCK_SIZE, COUNTER_EXPIRED, Frame, OpResult, RequestType};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the device does not answer: {0}")]
    Device(#[from] io::Error),
    #[error("the device refuses: {0}")]
    Refused(String),
    #[error("the answer is not to be trusted: {0}")]
    Untrusted(&'static str),
    #[error("there is no room for {0}")]
    Range(String),
}

/// Blocks that an address of 16 bits can name.
const ADDRESSES: usize = 1 << 16;

/// Speaks to a device.
pub(super) struct Client {
    card: Box<dyn Card>,
}

fn refusal(result: u16) -> String {
    let word = OpResult::of(result).map_or("an unknown result", OpResult::word);
    let expired = if result & COUNTER_EXPIRED == 0 {
        ""
    } else {
        ", the write counter has expired"
    };
    format!("{word} ({result:#06x}){expired}")
}

impl Client {
    pub(super) fn new(card: Box<dyn Card>) -> Self {
        Self { card }
    }

    /// Sends frames as they are.
    pub(super) fn send(
        &mut self,
        request: &[Frame],
        answers: usize,
    ) -> Result<Vec<Frame>, ClientError> {
        let kind = request.first().map(|frame| frame.req_resp.get());
        let changes = matches!(
            kind.and_then(RequestType::of),
            Some(RequestType::DataWrite | RequestType::ProgramKey)
        );
        let mut answer = vec![Frame::default(); answers];
        let wish = result_read();
        self.card
            .exchange(request, changes.then_some(&wish), &mut answer)?;
        Ok(answer)
    }

    fn ask(
        &mut self,
        kind: RequestType,
        request: &[Frame],
        key: Option<&Key>,
        answers: usize,
    ) -> Result<Vec<Frame>, ClientError> {
        let changes = matches!(kind, RequestType::DataWrite | RequestType::ProgramKey);
        let answer = self.send(request, answers)?;
        for frame in &answer {
            let result = frame.result.get();
            if OpResult::of(result) != Some(OpResult::Ok) {
                return Err(ClientError::Refused(refusal(result)));
            }
            if frame.req_resp.get() != kind.response() {
                return Err(ClientError::Untrusted("it is to another request"));
            }
        }
        if key.is_some_and(|key| !key.verifies(&answer)) {
            return Err(ClientError::Untrusted("it is not signed with this key"));
        }
        let nonce = request.first().map(|frame| frame.nonce);
        if !changes && answer.iter().any(|frame| Some(frame.nonce) != nonce) {
            return Err(ClientError::Untrusted("it has another nonce: a replay"));
        }
        Ok(answer)
    }

    pub(super) fn program_key(&mut self, key: &Key) -> Result<(), ClientError> {
        let mut frame = Frame::of(RequestType::ProgramKey.code());
        frame.key_mac = *key.bytes();
        frame.block_count.set(1);
        // An eMMC need not sign this answer.
        self.ask(RequestType::ProgramKey, &[frame], None, 1)
            .map(drop)
    }

    pub(super) fn counter(&mut self, key: Option<&Key>) -> Result<u32, ClientError> {
        let mut frame = Frame::of(RequestType::GetWriteCounter.code());
        frame.nonce = random()?;
        frame.block_count.set(1);
        let answer = self.ask(RequestType::GetWriteCounter, &[frame], key, 1)?;
        Ok(answer.first().map_or(0, |frame| frame.write_counter.get()))
    }

    pub(super) fn read(
        &mut self,
        key: Option<&Key>,
        address: u16,
        blocks: u16,
        nonce: Option<[u8; 16]>,
    ) -> Result<Vec<u8>, ClientError> {
        let mut frame = Frame::of(RequestType::DataRead.code());
        frame.nonce = match nonce {
            Some(nonce) => nonce,
            None => random()?,
        };
        frame.address.set(address);
        frame.block_count.set(blocks);
        let answer = self.ask(RequestType::DataRead, &[frame], key, blocks.into())?;
        if answer.iter().any(|frame| frame.address.get() != address) {
            return Err(ClientError::Untrusted("it is of other blocks"));
        }
        Ok(answer.iter().flat_map(|frame| frame.data).collect())
    }

    /// Writes, and returns the counter after it.
    pub(super) fn write(
        &mut self,
        key: &Key,
        address: u16,
        data: &[u8],
        at_once: u16,
    ) -> Result<u32, ClientError> {
        let blocks = data.len().checked_div(BLOCK_SIZE).unwrap_or(0);
        if usize::from(address).saturating_add(blocks) > ADDRESSES {
            let what = format!(
                "{blocks} blocks from {address} on: the last block is {}",
                u16::MAX
            );
            return Err(ClientError::Range(what));
        }
        let mut counter = self.counter(Some(key))?;
        let mut address = address;
        for part in data.chunks(BLOCK_SIZE.saturating_mul(at_once.into())) {
            let count = part.len().checked_div(BLOCK_SIZE).unwrap_or(0);
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            let frame = |block: &[u8]| {
                let mut frame = Frame::of(RequestType::DataWrite.code());
                frame.data = block.try_into().unwrap_or([0; BLOCK_SIZE]);
                frame.write_counter.set(counter);
                frame.address.set(address);
                frame.block_count.set(count);
                frame
            };
            let mut frames: Vec<Frame> = part.chunks_exact(BLOCK_SIZE).map(frame).collect();
            let mac = key.sign(&frames);
            if let Some(last) = frames.last_mut() {
                last.key_mac = mac;
            }
            let answer = self.ask(RequestType::DataWrite, &frames, Some(key), 1)?;
            let now = answer.first().map(|frame| frame.write_counter.get());
            if now != counter.checked_add(1) {
                return Err(ClientError::Untrusted("its counter is not the next one"));
            }
            counter = now.unwrap_or(counter);
            address = address.saturating_add(count);
        }
        Ok(counter)
    }
}

fn random() -> Result<[u8; 16], ClientError> {
    let mut nonce = [0; 16];
    getrandom(&mut nonce, GetRandomFlags::empty()).map_err(io::Error::from)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card that takes everything.
    struct Agreeable(Key);

    impl Card for Agreeable {
        fn exchange(
            &mut self,
            request: &[Frame],
            _: Option<&Frame>,
            answer: &mut [Frame],
        ) -> io::Result<()> {
            let asked = request.first().copied().unwrap_or_default();
            let mut frame = Frame::of(crate::wire::response_to(asked.req_resp.get()));
            frame.nonce = asked.nonce;
            frame.address = asked.address;
            frame.block_count = asked.block_count;
            let counter = asked.write_counter.get();
            let writes = asked.req_resp.get() == RequestType::DataWrite.code();
            frame
                .write_counter
                .set(counter.saturating_add(writes.into()));
            frame.key_mac = self.0.sign([&frame]);
            answer.fill(frame);
            Ok(())
        }

        fn lock(&mut self, _: bool) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_last_address() {
        let key = Key::new([1; 32]);
        let mut client = Client::new(Box::new(Agreeable(key.clone())));
        let written = client.write(&key, u16::MAX, &[0; BLOCK_SIZE], 1);
        assert!(matches!(written, Ok(1)));
        let refused = client.write(&key, u16::MAX, &[0; 2 * BLOCK_SIZE], 1);
        assert!(matches!(refused, Err(ClientError::Range(_))));
    }
}
