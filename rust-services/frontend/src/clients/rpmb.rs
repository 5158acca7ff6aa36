// SPDX-License-Identifier: Apache-2.0
//! The RPMB device's guest driver, reduced to frames (VIRTIO 1.4, 5.12).
use std::os::unix::net::UnixStream;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::guest::{Guest, GuestOptions};
use crate::memory::Buffer;
use crate::ring::{ChainId, Segment};

/// The only queue.
pub const REQUESTS: u16 = 0;
/// Bytes of a frame.
pub const FRAME_SIZE: u32 = 512;

/// A request that is on its way.
#[derive(Debug)]
pub struct Posted {
    /// Its chain.
    pub chain: ChainId,
    request: Vec<Buffer>,
    answer: Vec<Buffer>,
}

/// A guest with an RPMB device.
#[derive(Debug)]
pub struct RpmbClient {
    guest: Guest,
}

impl RpmbClient {
    /// What such a guest is made of.
    #[must_use]
    pub fn options() -> GuestOptions {
        GuestOptions::new(1)
    }

    /// Connect, negotiate and start.
    ///
    /// # Errors
    /// As [`Guest::connect`] and [`Guest::start`].
    pub fn start(stream: UnixStream, options: &GuestOptions) -> Result<Self> {
        let mut guest = Guest::connect(stream, options)?;
        guest.start()?;
        Ok(Self { guest })
    }

    /// The guest.
    pub fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Reset the device and start anew.
    ///
    /// # Errors
    /// As [`Guest::reset`] and [`Guest::start`].
    pub fn reset(&mut self) -> Result<()> {
        self.guest.reset()?;
        self.guest.start()
    }

    /// Make frames available, one buffer each, with buffers for `answers` frames behind them, and
    /// kick.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn post(&mut self, frames: &[[u8; FRAME_SIZE as usize]], answers: usize) -> Result<Posted> {
        let memory = self.guest.memory();
        let mut request = Vec::new();
        for frame in frames {
            let buffer = memory.alloc(FRAME_SIZE, 1)?;
            memory.write(buffer.addr, frame)?;
            request.push(buffer);
        }
        let mut answer = Vec::new();
        for _ in 0..answers {
            let buffer = memory.alloc(FRAME_SIZE, 1)?;
            memory.fill(buffer.addr, buffer.len, 0xee)?;
            answer.push(buffer);
        }
        let segments: Vec<Segment> = request
            .iter()
            .map(|buffer| Segment::Readable(*buffer))
            .chain(answer.iter().map(|buffer| Segment::Writable(*buffer)))
            .collect();
        let ring = self.guest.ring_mut(REQUESTS);
        let chain = ring.add(&segments)?;
        ring.kick()?;
        Ok(Posted {
            chain,
            request,
            answer,
        })
    }

    /// Wait for the answer to the request that was posted first: the frames that were written.
    ///
    /// # Errors
    /// Where none comes, or another one.
    pub fn finish(&mut self, posted: Posted) -> Result<Vec<[u8; FRAME_SIZE as usize]>> {
        let completion = self.guest.ring_mut(REQUESTS).wait(Deadline::patient())?;
        if completion.chain != posted.chain {
            return Err(crate::error::Error::Memory(format!(
                "{:?} was sent, {completion:?} came back",
                posted.chain
            )));
        }
        let memory = self.guest.memory();
        let mut frames = Vec::new();
        for buffer in posted
            .answer
            .iter()
            .take((completion.written / FRAME_SIZE) as usize)
        {
            let mut frame = [0; FRAME_SIZE as usize];
            memory.read(buffer.addr, &mut frame)?;
            frames.push(frame);
        }
        for buffer in posted.request.into_iter().chain(posted.answer) {
            memory.free(buffer);
        }
        Ok(frames)
    }

    /// Send frames and wait for the answer.
    ///
    /// # Errors
    /// As [`Self::post`] and [`Self::finish`].
    pub fn exchange(
        &mut self,
        frames: &[[u8; FRAME_SIZE as usize]],
        answers: usize,
    ) -> Result<Vec<[u8; FRAME_SIZE as usize]>> {
        let posted = self.post(frames, answers)?;
        self.finish(posted)
    }
}
