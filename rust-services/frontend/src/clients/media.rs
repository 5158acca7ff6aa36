// SPDX-License-Identifier: Apache-2.0
//! The media device's guest driver, reduced to bytes (VIRTIO 1.4, 5.22).
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::guest::{Guest, GuestOptions};
use crate::memory::Buffer;
use crate::ring::{ChainId, Segment};

/// Commands go out here.
pub const COMMANDS: u16 = 0;
/// Events come in here.
pub const EVENTS: u16 = 1;
/// Bytes of the largest event.
const EVENT_SIZE: u32 = 608;
/// How long an event may take: a codec's process has plugins to load first.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command that is on its way.
#[derive(Debug)]
pub struct Posted {
    chain: ChainId,
    request: Buffer,
    answer: Option<Buffer>,
}

/// A guest with a media device.
#[derive(Debug)]
pub struct MediaClient {
    guest: Guest,
    events: Vec<(ChainId, Buffer)>,
}

impl MediaClient {
    /// What such a guest is made of.
    #[must_use]
    pub fn options() -> GuestOptions {
        GuestOptions::new(2)
    }

    /// Connect, negotiate and start, with room for `events` events.
    ///
    /// # Errors
    /// As [`Guest::connect`] and [`Guest::start`].
    pub fn start(stream: UnixStream, options: &GuestOptions, events: usize) -> Result<Self> {
        let mut guest = Guest::connect(stream, options)?;
        guest.start()?;
        let mut client = Self {
            guest,
            events: Vec::new(),
        };
        for _ in 0..events {
            client.offer_event()?;
        }
        Ok(client)
    }

    /// The guest.
    pub fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Give the device room for one more event.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn offer_event(&mut self) -> Result<()> {
        let buffer = self.guest.memory().alloc(EVENT_SIZE, 8)?;
        let ring = self.guest.ring_mut(EVENTS);
        let chain = ring.add(&[Segment::Writable(buffer)])?;
        ring.kick()?;
        self.events.push((chain, buffer));
        Ok(())
    }

    /// Wait for the next event: its bytes. The room is not given again.
    ///
    /// # Errors
    /// Where none comes.
    pub fn event(&mut self) -> Result<Vec<u8>> {
        let deadline = Deadline::after(PATIENCE);
        let completion = self.guest.ring_mut(EVENTS).wait(deadline)?;
        let place = self
            .events
            .iter()
            .position(|(chain, _)| *chain == completion.chain);
        let Some(place) = place else {
            return Err(Error::Memory(format!("{completion:?} was not offered")));
        };
        let (_, buffer) = self.events.swap_remove(place);
        let mut bytes = vec![0; completion.written.min(buffer.len) as usize];
        let memory = self.guest.memory();
        memory.read(buffer.addr, &mut bytes)?;
        memory.free(buffer);
        Ok(bytes)
    }

    /// Make a command available, with `room` bytes for its answer, and kick.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn post(&mut self, command: &[u8], room: u32) -> Result<Posted> {
        let memory = self.guest.memory();
        let len = u32::try_from(command.len()).unwrap_or(u32::MAX);
        let request = memory.alloc(len, 8)?;
        memory.write(request.addr, command)?;
        let mut segments = vec![Segment::Readable(request)];
        let answer = (room > 0).then(|| memory.alloc(room, 8)).transpose()?;
        segments.extend(answer.map(Segment::Writable));
        let ring = self.guest.ring_mut(COMMANDS);
        let chain = ring.add(&segments)?;
        ring.kick()?;
        Ok(Posted {
            chain,
            request,
            answer,
        })
    }

    /// Wait for the answer to the command that was posted first: the bytes that were written.
    ///
    /// # Errors
    /// Where none comes, or another one.
    pub fn finish(&mut self, posted: Posted) -> Result<Vec<u8>> {
        let completion = self.guest.ring_mut(COMMANDS).wait(Deadline::patient())?;
        if completion.chain != posted.chain {
            return Err(Error::Memory(format!(
                "{:?} was sent, {completion:?} came back",
                posted.chain
            )));
        }
        let memory = self.guest.memory();
        let mut bytes = vec![0; completion.written as usize];
        if let Some(answer) = posted.answer {
            memory.read(answer.addr, &mut bytes)?;
            memory.free(answer);
        }
        memory.free(posted.request);
        Ok(bytes)
    }

    /// Send a command and wait for its answer.
    ///
    /// # Errors
    /// As [`Self::post`] and [`Self::finish`].
    pub fn exchange(&mut self, command: &[u8], room: u32) -> Result<Vec<u8>> {
        let posted = self.post(command, room)?;
        self.finish(posted)
    }
}
