// SPDX-License-Identifier: Apache-2.0
//! The SCMI device's guest driver, reduced to its messages (VIRTIO 1.4, 5.17; SCMI 3.2, 4.1).
use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::guest::{Guest, GuestOptions};
use crate::memory::Buffer;
use crate::ring::{ChainId, Completion, Segment};

/// The queue of commands.
pub const COMMANDS: u16 = 0;
/// The queue of events.
pub const EVENTS: u16 = 1;
/// VIRTIO_SCMI_F_P2A_CHANNELS: the device has an event queue.
pub const F_P2A_CHANNELS: u64 = 1;
/// Bytes that Linux gives a message: header, status, and 128.
pub const MESSAGE_SIZE: u32 = 136;

/// A message header: message 7:0, type 9:8, protocol 17:10, token 27:18.
#[must_use]
pub fn header(protocol: u8, message: u8, token: u16) -> u32 {
    u32::from(message) | u32::from(protocol) << 10 | u32::from(token & 0x3ff) << 18
}

/// What came back for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its header.
    pub header: u32,
    /// 0 or why it was refused.
    pub status: i32,
    /// What follows.
    pub body: Vec<u8>,
}

impl Reply {
    /// The word at a place of the body; 0 beyond its end.
    #[must_use]
    pub fn word(&self, place: usize) -> u32 {
        word(&self.body, place)
    }
}

/// The word at a place of some bytes; 0 beyond their end.
#[must_use]
pub fn word(bytes: &[u8], place: usize) -> u32 {
    let bytes = bytes.get(place * 4..place * 4 + 4);
    bytes.map_or(0, |bytes| {
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    })
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its header.
    pub header: u32,
    /// What follows.
    pub body: Vec<u8>,
}

impl Event {
    /// 2 for a delayed response, 3 for a notification.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.header >> 8 & 3
    }

    /// The word at a place of the body.
    #[must_use]
    pub fn word(&self, place: usize) -> u32 {
        word(&self.body, place)
    }
}

/// A command in guest memory, to be sent again and again: benchmarks.
#[derive(Debug, Clone)]
pub struct Prepared {
    segments: Vec<Segment>,
    request: Buffer,
    response: Buffer,
}

/// A guest with an SCMI device.
#[derive(Debug)]
pub struct ScmiClient {
    guest: Guest,
    events: HashMap<ChainId, Buffer>,
    token: u16,
}

impl ScmiClient {
    /// What such a guest is made of.
    #[must_use]
    pub fn options() -> GuestOptions {
        GuestOptions::new(2)
    }

    /// Connect, negotiate, start, and fill the event queue.
    ///
    /// # Errors
    /// As [`Guest::connect`] and [`Guest::start`].
    pub fn start(stream: UnixStream, options: &GuestOptions) -> Result<Self> {
        let mut client = Self::over(Guest::connect(stream, options)?);
        client.guest.start()?;
        client.fill_events(16)?;
        Ok(client)
    }

    /// A client over a guest in any state.
    #[must_use]
    pub fn over(guest: Guest) -> Self {
        Self {
            guest,
            events: HashMap::new(),
            token: 0,
        }
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
        for (_, buffer) in self.events.drain() {
            self.guest.memory().free(buffer);
        }
        self.guest.start()?;
        self.fill_events(16)
    }

    /// Send a command of words and wait for the reply.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn command(&mut self, protocol: u8, message: u8, words: &[u32]) -> Result<Reply> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.send(protocol, message, &bytes)
    }

    /// Send a command of any bytes and wait for the reply, whose token must be the command's.
    ///
    /// # Errors
    /// Where none comes, or one that is shorter than header and status or not this command's.
    pub fn send(&mut self, protocol: u8, message: u8, parameters: &[u8]) -> Result<Reply> {
        self.token = (self.token + 1) & 0x3ff;
        let header = header(protocol, message, self.token);
        let reply = self.exchange(&[&header.to_le_bytes(), parameters].concat(), MESSAGE_SIZE)?;
        if reply.header != header {
            return Err(Error::Memory(format!(
                "{header:#x} was asked, {:#x} answered",
                reply.header
            )));
        }
        Ok(reply)
    }

    /// Send any bytes with any room for the reply.
    ///
    /// # Errors
    /// Where none comes, or one shorter than header and status.
    pub fn exchange(&mut self, bytes: &[u8], room: u32) -> Result<Reply> {
        let prepared = self.prepare(bytes, room)?;
        let completion = self.repeat(&prepared)?;
        let reply = self
            .guest
            .memory()
            .bytes(prepared.response.addr, completion.written)?;
        self.guest.memory().free(prepared.request);
        self.guest.memory().free(prepared.response);
        if reply.len() < 8 {
            return Err(Error::Memory(format!("a reply of {} bytes", reply.len())));
        }
        Ok(Reply {
            header: word(&reply, 0),
            status: word(&reply, 1) as i32,
            body: reply[8..].to_vec(),
        })
    }

    /// Put a message into guest memory.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn prepare(&self, bytes: &[u8], room: u32) -> Result<Prepared> {
        let memory = self.guest.memory();
        let request = memory.alloc(bytes.len() as u32, 1)?;
        memory.write(request.addr, bytes)?;
        let response = memory.alloc(room, 1)?;
        memory.fill(response.addr, response.len, 0xee)?;
        let segments = vec![Segment::Readable(request), Segment::Writable(response)];
        Ok(Prepared {
            segments,
            request,
            response,
        })
    }

    /// Send a prepared message, and wait until it comes back.
    ///
    /// # Errors
    /// As [`crate::ring::Ring::wait`].
    pub fn repeat(&mut self, prepared: &Prepared) -> Result<Completion> {
        let ring = self.guest.ring_mut(COMMANDS);
        let chain = ring.add(&prepared.segments)?;
        ring.kick()?;
        let completion = ring.wait(Deadline::patient())?;
        if completion.chain != chain {
            return Err(Error::Memory(format!(
                "{chain:?} was sent, {completion:?} came back"
            )));
        }
        Ok(completion)
    }

    /// The status that a prepared message was answered with, once it has come back.
    ///
    /// # Errors
    /// Where its buffer is not in guest memory, or has no room for a status.
    pub fn status(&self, prepared: &Prepared) -> Result<i32> {
        let reply = self.guest.memory().bytes(prepared.response.addr, 8)?;
        Ok(word(&reply, 1) as i32)
    }

    /// Make a prepared message available without waiting.
    ///
    /// # Errors
    /// Where the ring is full.
    pub fn post(&mut self, prepared: &Prepared) -> Result<ChainId> {
        self.guest.ring_mut(COMMANDS).add(&prepared.segments)
    }

    /// Make `count` more event buffers available, with a kick if one is wanted.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn fill_events(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let buffer = self.guest.memory().alloc(MESSAGE_SIZE, 1)?;
            let chain = self
                .guest
                .ring_mut(EVENTS)
                .add(&[Segment::Writable(buffer)])?;
            self.events.insert(chain, buffer);
        }
        self.guest.ring_mut(EVENTS).kick().map(drop)
    }

    /// Wait for the next event; its buffer is made available again.
    ///
    /// # Errors
    /// Where none comes.
    pub fn event(&mut self, deadline: Deadline) -> Result<Event> {
        let completion = self.guest.ring_mut(EVENTS).wait(deadline)?;
        let buffer = self
            .events
            .remove(&completion.chain)
            .ok_or_else(|| Error::Memory(format!("{completion:?} is no event buffer")))?;
        let bytes = self.guest.memory().bytes(buffer.addr, completion.written)?;
        self.guest.memory().free(buffer);
        self.fill_events(1)?;
        if bytes.len() < 4 {
            return Err(Error::Memory(format!("an event of {} bytes", bytes.len())));
        }
        Ok(Event {
            header: word(&bytes, 0),
            body: bytes[4..].to_vec(),
        })
    }
}
