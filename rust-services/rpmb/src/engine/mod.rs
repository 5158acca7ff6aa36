// SPDX-License-Identifier: Apache-2.0

//! What a request does, and what is answered (VIRTIO 1.4, 5.12.6; where that is silent, an eMMC's
//! behaviour by JESD84-B51, 6.6.22). No queues, no files.

mod request;
#[cfg(test)]
mod tests;

pub use request::{Malformed, Request};

use std::sync::Arc;

use zerocopy::{FromBytes, IntoBytes};

use crate::key::Key;
use crate::statistics::Statistics;
use crate::store::Store;
use crate::trouble::Trouble;
use crate::wire::{BLOCK_SIZE, COUNTER_EXPIRED, FRAME_SIZE, Frame, OpResult, RequestType};

/// What a device's configuration space says of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Capacity in units of 128 KiB, at most 128.
    pub capacity_units: u8,
    /// Most blocks of one write; 0 for as many as there are.
    pub most_written: u8,
    /// Most blocks of one read; 0 for as many as there are.
    pub most_read: u8,
}

/// Answers requests.
pub trait Responder: Send {
    /// Answers one request. No frames where the driver did not ask for a result.
    fn answer(&mut self, request: &Request<'_>) -> Vec<Frame>;

    /// The result of the last write or programming, to outlive the process.
    fn register(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over what [`Responder::register`] gave.
    fn restore_register(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }
}

/// The device over a store of its own.
pub struct Engine {
    store: Store,
    limits: Limits,
    /// How the last write or programming went: what RESULT_READ tells.
    register: Option<Frame>,
    statistics: Arc<Statistics>,
    trouble: Trouble,
}

impl Engine {
    /// A device over a store.
    #[must_use]
    pub fn new(store: Store, limits: Limits, statistics: Arc<Statistics>) -> Self {
        let engine = Self {
            store,
            limits,
            register: None,
            statistics,
            trouble: Trouble::default(),
        };
        engine.tell();
        engine
    }

    fn tell(&self) {
        let state = self.store.state();
        let failed = self.store.is_uncertain();
        self.statistics
            .stands(state.key.is_some(), state.counter, failed);
    }

    fn key(&self) -> Option<&Key> {
        self.store.state().key.as_ref()
    }

    /// Programs the key (5.12.6.1.1).
    fn program(&mut self, request: &Request<'_>) -> OpResult {
        let Some(frame) = request
            .single()
            .filter(|frame| frame.block_count.get() == 1)
        else {
            return OpResult::GeneralFailure;
        };
        if self.key().is_some() {
            return OpResult::WriteFailure;
        }
        match self.store.program(Key::new(frame.key_mac)) {
            Ok(()) => OpResult::Ok,
            Err(error) => {
                self.trouble
                    .met(&format_args!("the key was not programmed: {error}"));
                OpResult::WriteFailure
            }
        }
    }

    /// Writes (5.12.6.1.3), in the order of checks that stands there.
    fn write(&mut self, request: &Request<'_>) -> OpResult {
        let first = request.first();
        let Some(key) = self.key() else {
            return OpResult::NoAuthKey;
        };
        let count = first.block_count.get();
        let too_many = self.limits.most_written != 0 && count > u16::from(self.limits.most_written);
        if count == 0 || too_many || usize::from(count) != request.frames().len() {
            return OpResult::GeneralFailure;
        }
        let state = self.store.state();
        if state.counter == u32::MAX {
            // With the bit that says why, 0x85 as an eMMC answers: a bare 0x80 means success to
            // who masks the bit.
            return OpResult::WriteFailure;
        }
        if !self.in_range(first.address.get(), count) {
            return OpResult::AddrFailure;
        }
        if !key.verifies(request.frames()) {
            return OpResult::AuthFailure;
        }
        if first.write_counter.get() != state.counter {
            return OpResult::CountFailure;
        }
        let alike = |frame: &Frame| {
            (
                frame.req_resp,
                frame.address,
                frame.block_count,
                frame.write_counter,
            ) == (
                first.req_resp,
                first.address,
                first.block_count,
                first.write_counter,
            )
        };
        if !request.frames().iter().all(alike) {
            return OpResult::GeneralFailure;
        }
        let data: Vec<u8> = request
            .frames()
            .iter()
            .flat_map(|frame| frame.data)
            .collect();
        match self
            .store
            .write(first.address.get(), &data, request.last().key_mac)
        {
            Ok(()) => {
                self.trouble.over();
                self.statistics.wrote(count.into());
                OpResult::Ok
            }
            Err(error) => {
                self.trouble.met(&format_args!("a write failed: {error}"));
                OpResult::WriteFailure
            }
        }
    }

    /// Whether a request that was in flight when the service died is the last change that was made:
    /// then it is done, and only its answer is owed.
    fn was_done(&self, request: &Request<'_>, kind: RequestType) -> bool {
        let state = self.store.state();
        let Some(key) = state.key.as_ref().filter(|_| request.may_be_repeated()) else {
            return false;
        };
        let first = request.first();
        if kind == RequestType::ProgramKey {
            return state.counter == 0
                && first.block_count.get() == 1
                && request.single().is_some()
                && key.is(&first.key_mac);
        }
        // A write at the counter's end has counted nothing, but then it was not done either.
        request.last().key_mac == state.last_mac
            && state.counter.checked_sub(1) == Some(first.write_counter.get())
            && key.verifies(request.frames())
    }

    fn in_range(&self, address: u16, count: u16) -> bool {
        u32::from(address).saturating_add(u32::from(count)) <= self.store.blocks()
    }

    /// Reads the counter (5.12.6.1.2).
    fn counter(&self, request: &Request<'_>) -> (OpResult, Vec<Frame>) {
        let first = request.first();
        let mut answer = Frame::of(RequestType::GetWriteCounter.response());
        answer.nonce = first.nonce;
        let result = if self.key().is_none() {
            OpResult::NoAuthKey
        } else if first.block_count.get() == 1 && request.single().is_some() {
            answer.write_counter.set(self.store.state().counter);
            OpResult::Ok
        } else {
            OpResult::GeneralFailure
        };
        (result, self.sealed(vec![answer], result))
    }

    /// Reads (5.12.6.1.4).
    fn read(&mut self, request: &Request<'_>) -> (OpResult, Vec<Frame>) {
        let first = request.first();
        let (address, count) = (first.address.get(), first.block_count.get());
        let mut frame = Frame::of(RequestType::DataRead.response());
        frame.nonce = first.nonce;
        frame.address = first.address;
        frame.block_count = first.block_count;
        let too_many = self.limits.most_read != 0 && count > u16::from(self.limits.most_read);
        let wrong_shape = request.single().is_none() || usize::from(count) > request.room();
        let result = if self.key().is_none() {
            OpResult::NoAuthKey
        } else if count == 0 || too_many || wrong_shape {
            OpResult::GeneralFailure
        } else if !self.in_range(address, count) {
            OpResult::AddrFailure
        } else {
            let mut data = vec![0; usize::from(count).saturating_mul(BLOCK_SIZE)];
            match self.store.read(address, &mut data) {
                Ok(()) => {
                    self.statistics.read(count.into());
                    return (
                        OpResult::Ok,
                        self.sealed(with_data(&frame, &data), OpResult::Ok),
                    );
                }
                Err(error) => {
                    self.trouble.met(&format_args!("a read failed: {error}"));
                    OpResult::ReadFailure
                }
            }
        };
        // Each frame says why, for whichever the driver looks at.
        let wanted = if too_many { 1 } else { usize::from(count) };
        let frames = wanted.clamp(1, request.room().max(1));
        let each = self.sealed(vec![frame], result);
        (result, each.into_iter().cycle().take(frames).collect())
    }

    /// Sets the result in frames that belong together, and the MAC of all in the last.
    fn sealed(&self, mut frames: Vec<Frame>, result: OpResult) -> Vec<Frame> {
        let expired = self.store.state().counter == u32::MAX;
        let bit = if expired { COUNTER_EXPIRED } else { 0 };
        for frame in &mut frames {
            frame.result.set(result.code() | bit);
        }
        // Without a key there is nothing to sign with: the MAC stays 0.
        let mac = self.key().map(|key| key.sign(&frames));
        if let (Some(mac), Some(last)) = (mac, frames.last_mut()) {
            last.key_mac = mac;
        }
        frames
    }

    /// The frame that tells how a write or programming went.
    fn outcome(&self, request: &Request<'_>, kind: RequestType, result: OpResult) -> Frame {
        let mut frame = Frame::of(kind.response());
        if kind == RequestType::DataWrite {
            frame.address = request.first().address;
            frame.write_counter.set(self.store.state().counter);
        }
        frame.result.set(result.code());
        frame
    }

    /// The register, as RESULT_READ tells it (5.12.6.1.5).
    fn result_read(&self, ask: &Frame) -> (OpResult, Vec<Frame>) {
        let Some(register) = self.register else {
            let nothing = Frame::default();
            let result = OpResult::GeneralFailure;
            return (result, self.sealed(vec![nothing], result));
        };
        let result = if ask.block_count.get() == 1 {
            OpResult::of(register.result.get()).unwrap_or(OpResult::GeneralFailure)
        } else {
            OpResult::GeneralFailure
        };
        (result, self.sealed(vec![register], result))
    }

    /// What cannot be done at all.
    fn refusal(&self, code: u16) -> (OpResult, Vec<Frame>) {
        let frame = Frame::of(crate::wire::response_to(code));
        let result = OpResult::GeneralFailure;
        (result, self.sealed(vec![frame], result))
    }

    fn change(&mut self, request: &Request<'_>, kind: RequestType) -> (OpResult, Vec<Frame>) {
        let result = if self.was_done(request, kind) {
            self.statistics.repeated();
            OpResult::Ok
        } else if request.is_suspect() {
            OpResult::GeneralFailure
        } else if kind == RequestType::ProgramKey {
            self.program(request)
        } else {
            self.write(request)
        };
        self.register = Some(self.outcome(request, kind, result));
        let frames = request.result_read().map(|ask| self.result_read(ask).1);
        (result, frames.unwrap_or_default())
    }
}

/// A frame for each block, alike but for the data.
fn with_data(frame: &Frame, data: &[u8]) -> Vec<Frame> {
    let block = |block: &[u8]| {
        let data = block.try_into().unwrap_or([0; BLOCK_SIZE]);
        Frame { data, ..*frame }
    };
    data.chunks_exact(BLOCK_SIZE).map(block).collect()
}

impl Responder for Engine {
    fn answer(&mut self, request: &Request<'_>) -> Vec<Frame> {
        if let Err(error) = self.store.settle() {
            // What follows fails by itself and says so to the driver.
            self.trouble.met(&format_args!("the store: {error}"));
        }
        let code = request.first().req_resp.get();
        let kind = RequestType::of(code);
        let (result, frames) = match kind {
            Some(kind @ (RequestType::ProgramKey | RequestType::DataWrite)) => {
                self.change(request, kind)
            }
            _ if request.result_read().is_some() || request.is_suspect() => self.refusal(code),
            Some(RequestType::GetWriteCounter) => self.counter(request),
            Some(RequestType::DataRead) => self.read(request),
            Some(RequestType::ResultRead) if request.single().is_some() => {
                self.result_read(request.first())
            }
            _ => self.refusal(code),
        };
        self.statistics.answered(code, result);
        self.tell();
        frames
    }

    fn register(&self) -> Vec<u8> {
        self.register
            .map(|frame| frame.as_bytes().to_vec())
            .unwrap_or_default()
    }

    fn restore_register(&mut self, bytes: &[u8]) {
        if bytes.len() == FRAME_SIZE {
            self.register = Frame::read_from_bytes(bytes).ok();
        }
    }
}
