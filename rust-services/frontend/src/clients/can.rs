// SPDX-License-Identifier: Apache-2.0
//! The CAN device's guest driver, reduced to its messages (VIRTIO 1.4, CAN Device).
use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::guest::{Guest, GuestOptions};
use crate::memory::Buffer;
use crate::ring::{ChainId, Completion, Segment};

/// The queue of frames to be sent.
pub const TX: u16 = 0;
/// The queue of buffers for frames that are heard.
pub const RX: u16 = 1;
/// The queue of requests to start and stop.
pub const CONTROL: u16 = 2;

/// Request: take part in the bus.
pub const START: u16 = 0x0201;
/// Request: leave the bus.
pub const STOP: u16 = 0x0202;
/// Message type of a frame to be sent.
pub const TX_MESSAGE: u16 = 0x0001;
/// Message type of a frame that was heard.
pub const RX_MESSAGE: u16 = 0x0101;

/// Flag: the identifier has 29 bits.
pub const EXTENDED: u32 = 0x8000;
/// Flag: the frame is an FD frame.
pub const FD: u32 = 0x4000;
/// Flag: the frame asks for another one.
pub const RTR: u32 = 0x2000;

/// Answer: done.
pub const OK: u8 = 0;
/// Answer: not done.
pub const NOT_OK: u8 = 1;
/// Bit of the configuration's status: the controller has left its bus.
pub const STATUS_BUS_OFF: u16 = 1;

/// Bytes before the data.
pub const HEADER_SIZE: u32 = 16;
/// Bytes that Linux gives a buffer for frames that are heard.
pub const RX_SIZE: u32 = 16 + 64;

/// A message: a frame with any type, length, flags and identifier, true or not.
#[must_use]
pub fn message(kind: u16, length: u16, flags: u32, id: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + data.len());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(flags.to_le_bytes());
    bytes.extend(id.to_le_bytes());
    bytes.extend(data);
    bytes
}

/// A frame to be sent.
#[must_use]
pub fn frame(flags: u32, id: u32, data: &[u8]) -> Vec<u8> {
    message(TX_MESSAGE, data.len() as u16, flags, id, data)
}

/// A frame that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its flags.
    pub flags: u32,
    /// Its identifier.
    pub id: u32,
    /// The length that it states.
    pub length: u16,
    /// The bytes behind the header.
    pub data: Vec<u8>,
}

/// A guest with a CAN device.
#[derive(Debug)]
pub struct CanClient {
    guest: Guest,
    heard: HashMap<ChainId, Buffer>,
    sent: HashMap<ChainId, (Buffer, Buffer)>,
}

impl CanClient {
    /// What such a guest is made of.
    #[must_use]
    pub fn options() -> GuestOptions {
        GuestOptions::new(3)
    }

    /// Connect, negotiate, start the queues, and fill that of frames to be heard.
    ///
    /// # Errors
    /// As [`Guest::connect`] and [`Guest::start`].
    pub fn connect(stream: UnixStream, options: &GuestOptions) -> Result<Self> {
        let mut client = Self::over(Guest::connect(stream, options)?);
        client.guest.start()?;
        let room = options.queues.get(usize::from(RX)).map_or(0, |of| of.size);
        client.fill(usize::from(room.min(128)))?;
        Ok(client)
    }

    /// [`Self::connect`], and start the controller.
    ///
    /// # Errors
    /// As [`Self::connect`] and [`Self::control`], or where the device does not start.
    pub fn start(stream: UnixStream, options: &GuestOptions) -> Result<Self> {
        let mut client = Self::connect(stream, options)?;
        match client.control(START)? {
            OK => Ok(client),
            result => Err(Error::Memory(format!("START was answered by {result}"))),
        }
    }

    /// A client over a guest in any state.
    #[must_use]
    pub fn over(guest: Guest) -> Self {
        Self {
            guest,
            heard: HashMap::new(),
            sent: HashMap::new(),
        }
    }

    /// The guest.
    pub fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Reset the device and start its queues anew; the controller is stopped.
    ///
    /// # Errors
    /// As [`Guest::reset`] and [`Guest::start`].
    pub fn reset(&mut self) -> Result<()> {
        self.guest.reset()?;
        let sent = self.sent.drain().flat_map(|(_, (out, back))| [out, back]);
        for buffer in sent.chain(self.heard.drain().map(|(_, buffer)| buffer)) {
            self.guest.memory().free(buffer);
        }
        self.guest.start()?;
        self.fill(128)
    }

    /// Status in the configuration space.
    ///
    /// # Errors
    /// As [`crate::session::Session::config`].
    pub fn status(&self) -> Result<u16> {
        let bytes = self.guest.session()?.config(0, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Send a request on the control queue and wait for the answer.
    ///
    /// # Errors
    /// Where none comes, or none of one byte.
    pub fn control(&mut self, code: u16) -> Result<u8> {
        let memory = self.guest.memory().clone();
        let (out, back) = (memory.alloc(2, 1)?, memory.alloc(1, 1)?);
        memory.write(out.addr, &code.to_le_bytes())?;
        memory.fill(back.addr, 1, 0xee)?;
        let ring = self.guest.ring_mut(CONTROL);
        ring.add(&[Segment::Readable(out), Segment::Writable(back)])?;
        ring.kick()?;
        let completion = ring.wait(Deadline::patient())?;
        if completion.written != 1 {
            return Err(Error::Memory(format!("an answer like {completion:?}")));
        }
        let answer = memory.bytes(back.addr, 1)?[0];
        memory.free(out);
        memory.free(back);
        Ok(answer)
    }

    /// Make a message available on the queue of frames to be sent; [`Self::kick`] follows.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn post(&mut self, message: &[u8]) -> Result<ChainId> {
        let memory = self.guest.memory();
        let out = memory.alloc(message.len() as u32, 1)?;
        memory.write(out.addr, message)?;
        let back = memory.alloc(1, 1)?;
        memory.fill(back.addr, 1, 0xee)?;
        let ring = self.guest.ring_mut(TX);
        let chain = ring.add(&[Segment::Readable(out), Segment::Writable(back)])?;
        self.sent.insert(chain, (out, back));
        Ok(chain)
    }

    /// Kick the queue of frames to be sent, if that is wanted.
    ///
    /// # Errors
    /// As [`crate::ring::Ring::kick`].
    pub fn kick(&mut self) -> Result<()> {
        self.guest.ring_mut(TX).kick().map(drop)
    }

    /// The next message that came back, and its answer.
    ///
    /// # Errors
    /// Where none comes, or one without an answer.
    pub fn answered(&mut self, deadline: Deadline) -> Result<(ChainId, u8)> {
        let completion = self.guest.ring_mut(TX).wait(deadline)?;
        self.answer_of(completion)
    }

    /// A message that has come back already, and its answer.
    ///
    /// # Errors
    /// As [`Self::answered`].
    pub fn answered_already(&mut self) -> Result<Option<(ChainId, u8)>> {
        let completion = self.guest.ring_mut(TX).pop()?;
        completion.map(|of| self.answer_of(of)).transpose()
    }

    fn answer_of(&mut self, completion: Completion) -> Result<(ChainId, u8)> {
        let (out, back) = self
            .sent
            .remove(&completion.chain)
            .ok_or_else(|| Error::Memory(format!("{completion:?} is no message of ours")))?;
        let memory = self.guest.memory();
        let answer = memory.bytes(back.addr, 1)?[0];
        memory.free(out);
        memory.free(back);
        if completion.written != 1 {
            return Err(Error::Memory(format!("an answer like {completion:?}")));
        }
        Ok((completion.chain, answer))
    }

    /// Send a message and wait for its answer.
    ///
    /// # Errors
    /// As [`Self::post`] and [`Self::answered`].
    pub fn send(&mut self, message: &[u8]) -> Result<u8> {
        let chain = self.post(message)?;
        self.kick()?;
        let (other, answer) = self.answered(Deadline::patient())?;
        if chain != other {
            return Err(Error::Memory(format!("{chain:?} was sent, {other:?} came")));
        }
        Ok(answer)
    }

    /// Make `count` more buffers for frames available.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn fill(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let buffer = self.guest.memory().alloc(RX_SIZE, 1)?;
            let ring = self.guest.ring_mut(RX);
            let chain = ring.add(&[Segment::Writable(buffer)])?;
            self.heard.insert(chain, buffer);
        }
        self.guest.ring_mut(RX).kick().map(drop)
    }

    /// Wait for the next frame; its buffer is made available again.
    ///
    /// # Errors
    /// Where none comes, or something that is no frame.
    pub fn hear(&mut self, deadline: Deadline) -> Result<Heard> {
        let completion = self.guest.ring_mut(RX).wait(deadline)?;
        self.frame_of(completion)
    }

    /// A frame that was heard already; its buffer is made available again.
    ///
    /// # Errors
    /// As [`Self::hear`].
    pub fn heard_already(&mut self) -> Result<Option<Heard>> {
        let completion = self.guest.ring_mut(RX).pop()?;
        completion.map(|of| self.frame_of(of)).transpose()
    }

    fn frame_of(&mut self, completion: Completion) -> Result<Heard> {
        let buffer = self
            .heard
            .remove(&completion.chain)
            .ok_or_else(|| Error::Memory(format!("{completion:?} is no buffer of ours")))?;
        let bytes = self.guest.memory().bytes(buffer.addr, completion.written)?;
        self.guest.memory().free(buffer);
        self.fill(1)?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if bytes.len() < 16 || half(0) != RX_MESSAGE {
            return Err(Error::Memory(format!("{bytes:02x?} is no frame")));
        }
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        Ok(Heard {
            flags: word(8),
            id: word(12),
            length: half(2),
            data: bytes[16..].to_vec(),
        })
    }
}
