// SPDX-License-Identifier: Apache-2.0
//! The sound device's guest driver, reduced to its messages (VIRTIO 1.4, 5.14).
pub mod wire;

use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::guest::{Guest, GuestOptions};
use crate::memory::Buffer;
use crate::ring::{ChainId, Completion, Segment};
use wire::{
    CHMAP_INFO_SIZE, ChmapInfo, CtlInfo, EVENT_SIZE, JACK_INFO_SIZE, JackInfo, PCM_INFO_SIZE,
    PCM_STATUS_SIZE, Params, PcmInfo, request, u32_at,
};

/// The control queue.
pub const CONTROL: u16 = 0;
/// The event queue.
pub const EVENT: u16 = 1;
/// Playback.
pub const TX: u16 = 2;
/// Capture.
pub const RX: u16 = 3;

/// VIRTIO_SND_F_CTLS: the device has control elements.
pub const F_CTLS: u64 = 1;

/// How messages are cut into descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cut {
    /// Header, data and status in one descriptor each, as Linux does with small buffers.
    #[default]
    Parts,
    /// No descriptor longer than this many bytes, parts aside.
    Pieces(u32),
}

/// The number of things that the device says it has (its configuration space).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Jacks.
    pub jacks: u32,
    /// PCM streams.
    pub streams: u32,
    /// Channel maps.
    pub chmaps: u32,
    /// Control elements; read only with [`F_CTLS`].
    pub controls: u32,
}

/// The answer to a control request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status ([`wire::status`]).
    pub status: u32,
    /// What the device wrote after it.
    pub body: Vec<u8>,
    /// used.len.
    pub written: u32,
}

/// A transfer that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Which chain.
    pub chain: ChainId,
    /// Its stream.
    pub stream: u32,
    /// The status ([`wire::status`]).
    pub status: u32,
    /// latency_bytes.
    pub latency_bytes: u32,
    /// used.len.
    pub written: u32,
    /// Captured bytes: `written` without the status. Empty for playback.
    pub data: Vec<u8>,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// [`wire::event`].
    pub code: u32,
    /// Jack, stream, or control in the lower and mask in the upper half.
    pub data: u32,
}

/// A message that stays in guest memory, to be sent again and again without set-up: benchmarks.
#[derive(Debug, Clone)]
pub struct Prepared {
    segments: Vec<Segment>,
    request: Buffer,
    response: Buffer,
}

impl Prepared {
    /// Its buffers.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where the answer comes.
    #[must_use]
    pub fn response(&self) -> Buffer {
        self.response
    }
}

/// A transfer that is out.
#[derive(Debug)]
struct Out {
    stream: u32,
    header: Buffer,
    data: Buffer,
    status: Buffer,
}

/// A guest with a sound device.
#[derive(Debug)]
pub struct SndClient {
    guest: Guest,
    cut: Cut,
    transfers: HashMap<(u16, ChainId), Out>,
    events: HashMap<ChainId, Buffer>,
}

impl SndClient {
    /// What such a guest is made of.
    #[must_use]
    pub fn options() -> GuestOptions {
        GuestOptions::new(4)
    }

    /// Connect, negotiate, start, and fill the event queue (without a kick, as Linux does).
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
            cut: Cut::default(),
            transfers: HashMap::new(),
            events: HashMap::new(),
        }
    }

    /// The guest.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The guest, to do with it as one likes.
    pub fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Cut messages like this from now on.
    pub fn set_cut(&mut self, cut: Cut) {
        self.cut = cut;
    }

    /// Reset the device as a driver does and start anew: what was out is forgotten, the event
    /// queue is filled again.
    ///
    /// # Errors
    /// As [`Guest::reset`] and [`Guest::start`].
    pub fn reset(&mut self) -> Result<()> {
        self.guest.reset()?;
        let memory = self.guest.memory();
        for (_, out) in self.transfers.drain() {
            for buffer in [out.header, out.data, out.status] {
                memory.free(buffer);
            }
        }
        for (_, buffer) in self.events.drain() {
            memory.free(buffer);
        }
        self.guest.start()?;
        self.fill_events(16)
    }

    /// The configuration space.
    ///
    /// # Errors
    /// As [`crate::session::Session::config`].
    pub fn config(&self) -> Result<Config> {
        let session = self.guest.session()?;
        let size = if session.features() & F_CTLS == 0 {
            12
        } else {
            16
        };
        let bytes = session.config(0, size)?;
        Ok(Config {
            jacks: u32_at(&bytes, 0),
            streams: u32_at(&bytes, 4),
            chmaps: u32_at(&bytes, 8),
            controls: u32_at(&bytes, 12),
        })
    }

    /// Send a control request with room for `body` bytes after the status, and wait for the
    /// answer.
    ///
    /// # Errors
    /// Where none comes, or one shorter than a status.
    pub fn control(&mut self, request: &[u8], body: u32) -> Result<Reply> {
        let prepared = self.prepare(request, body)?;
        let completion = self.exchange(&prepared, Deadline::patient())?;
        let bytes = self
            .guest
            .memory()
            .bytes(prepared.response.addr, completion.written)?;
        self.discard(&prepared);
        if bytes.len() < 4 {
            return Err(Error::Memory(format!(
                "a control answer of {} bytes",
                bytes.len()
            )));
        }
        Ok(Reply {
            status: u32_at(&bytes, 0),
            body: bytes[4..].to_vec(),
            written: completion.written,
        })
    }

    /// Put a control request into guest memory, with room for `body` bytes after the status.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn prepare(&self, request: &[u8], body: u32) -> Result<Prepared> {
        let memory = self.guest.memory();
        let message = memory.alloc(request.len() as u32, 1)?;
        memory.write(message.addr, request)?;
        let response = memory.alloc(4 + body, 1)?;
        memory.fill(response.addr, response.len, 0xee)?;
        let mut segments = self.cut(message, Segment::Readable);
        let status = Buffer { len: 4, ..response };
        segments.extend(self.cut(status, Segment::Writable));
        if body > 0 {
            let rest = Buffer {
                addr: response.addr + 4,
                len: body,
            };
            segments.extend(self.cut(rest, Segment::Writable));
        }
        Ok(Prepared {
            segments,
            request: message,
            response,
        })
    }

    /// Send a prepared control request, and wait until it comes back.
    ///
    /// # Errors
    /// As [`crate::ring::Ring::wait`].
    pub fn exchange(&mut self, prepared: &Prepared, deadline: Deadline) -> Result<Completion> {
        let ring = self.guest.ring_mut(CONTROL);
        let chain = ring.add(&prepared.segments)?;
        ring.kick()?;
        let completion = ring.wait(deadline)?;
        if completion.chain != chain {
            return Err(Error::Memory(format!(
                "{chain:?} was sent, {completion:?} came back"
            )));
        }
        Ok(completion)
    }

    /// Give the memory of a prepared request back.
    pub fn discard(&self, prepared: &Prepared) {
        let memory = self.guest.memory();
        memory.free(prepared.request);
        memory.free(prepared.response);
    }

    fn query<T>(
        &mut self,
        number: u32,
        range: std::ops::Range<u32>,
        size: u32,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let count = range.end - range.start;
        let request = wire::query_info(number, range.start, count, size);
        let reply = self.control(&request, count * size)?;
        if reply.status != wire::status::OK {
            return Err(Error::Refused {
                request: number,
                status: reply.status.into(),
            });
        }
        reply
            .body
            .chunks(size as usize)
            .map(|item| {
                parse(item).ok_or_else(|| Error::BadReply {
                    request: number,
                    problem: format!("an item of {item:02x?}"),
                })
            })
            .collect()
    }

    /// PCM_INFO.
    ///
    /// # Errors
    /// Where the device refuses, or answers what is none.
    pub fn pcm_info(&mut self, range: std::ops::Range<u32>) -> Result<Vec<PcmInfo>> {
        self.query(request::PCM_INFO, range, PCM_INFO_SIZE, PcmInfo::parse)
    }

    /// JACK_INFO.
    ///
    /// # Errors
    /// Where the device refuses, or answers what is none.
    pub fn jack_info(&mut self, range: std::ops::Range<u32>) -> Result<Vec<JackInfo>> {
        self.query(request::JACK_INFO, range, JACK_INFO_SIZE, JackInfo::parse)
    }

    /// CHMAP_INFO.
    ///
    /// # Errors
    /// Where the device refuses, or answers what is none.
    pub fn chmap_info(&mut self, range: std::ops::Range<u32>) -> Result<Vec<ChmapInfo>> {
        self.query(
            request::CHMAP_INFO,
            range,
            CHMAP_INFO_SIZE,
            ChmapInfo::parse,
        )
    }

    /// CTL_INFO with items of `size` bytes: 92 by the text, 96 as Linux asks.
    ///
    /// # Errors
    /// Where the device refuses, or answers what is none.
    pub fn ctl_info(&mut self, range: std::ops::Range<u32>, size: u32) -> Result<Vec<CtlInfo>> {
        self.query(request::CTL_INFO, range, size, CtlInfo::parse)
    }

    /// A PCM request about one stream without parameters: PREPARE, START, STOP, RELEASE. The
    /// status that came.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub fn pcm(&mut self, number: u32, stream: u32) -> Result<u32> {
        self.control(&wire::pcm(number, stream), 0)
            .map(|reply| reply.status)
    }

    /// SET_PARAMS: the status that came.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub fn set_params(&mut self, stream: u32, params: &Params) -> Result<u32> {
        self.control(&params.request(stream), 0)
            .map(|reply| reply.status)
    }

    /// CTL_READ: the first `len` bytes of the value.
    ///
    /// # Errors
    /// Where the device refuses.
    pub fn ctl_read(&mut self, control: u32, len: u32) -> Result<Vec<u8>> {
        let reply = self.control(&wire::ctl(request::CTL_READ, control, &[]), len)?;
        match reply.status {
            wire::status::OK => Ok(reply.body),
            status => Err(Error::Refused {
                request: request::CTL_READ,
                status: status.into(),
            }),
        }
    }

    /// CTL_WRITE: the status that came.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub fn ctl_write(&mut self, control: u32, value: &[u8]) -> Result<u32> {
        let request = wire::ctl(request::CTL_WRITE, control, value);
        self.control(&request, 0).map(|reply| reply.status)
    }

    /// Make a playback buffer available, without a kick.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn play(&mut self, stream: u32, data: &[u8]) -> Result<ChainId> {
        let memory = self.guest.memory();
        let buffer = memory.alloc(data.len() as u32, 1)?;
        memory.write(buffer.addr, data)?;
        self.transfer(TX, stream, buffer, Segment::Readable)
    }

    /// Make a capture buffer of `len` bytes available, without a kick.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn record(&mut self, stream: u32, len: u32) -> Result<ChainId> {
        let memory = self.guest.memory();
        let buffer = memory.alloc(len, 1)?;
        memory.fill(buffer.addr, len, 0xee)?;
        self.transfer(RX, stream, buffer, Segment::Writable)
    }

    fn transfer(
        &mut self,
        queue: u16,
        stream: u32,
        data: Buffer,
        kind: fn(Buffer) -> Segment,
    ) -> Result<ChainId> {
        let memory = self.guest.memory();
        let header = memory.alloc(4, 1)?;
        memory.write(header.addr, &stream.to_le_bytes())?;
        let status = memory.alloc(PCM_STATUS_SIZE, 1)?;
        memory.fill(status.addr, status.len, 0xee)?;
        let mut segments = self.cut(header, Segment::Readable);
        segments.extend(self.cut(data, kind));
        segments.extend(self.cut(status, Segment::Writable));
        match self.guest.ring_mut(queue).add(&segments) {
            Ok(chain) => {
                let out = Out {
                    stream,
                    header,
                    data,
                    status,
                };
                self.transfers.insert((queue, chain), out);
                Ok(chain)
            }
            Err(full) => {
                let memory = self.guest.memory();
                for buffer in [header, data, status] {
                    memory.free(buffer);
                }
                Err(full)
            }
        }
    }

    /// Kick a queue if the device wants to be.
    ///
    /// # Errors
    /// As [`crate::ring::Ring::kick`].
    pub fn kick(&mut self, queue: u16) -> Result<bool> {
        self.guest.ring_mut(queue).kick()
    }

    /// Wait for the next playback buffer that comes back.
    ///
    /// # Errors
    /// As [`crate::ring::Ring::wait`].
    pub fn played(&mut self, deadline: Deadline) -> Result<Transfer> {
        self.finished(TX, deadline)
    }

    /// Wait for the next capture buffer that comes back.
    ///
    /// # Errors
    /// As [`crate::ring::Ring::wait`].
    pub fn recorded(&mut self, deadline: Deadline) -> Result<Transfer> {
        self.finished(RX, deadline)
    }

    fn finished(&mut self, queue: u16, deadline: Deadline) -> Result<Transfer> {
        let completion = self.guest.ring_mut(queue).wait(deadline)?;
        self.settle(queue, completion)
    }

    /// What a completion of the tx or rx queue was: for those who pop the ring themselves. One of
    /// a capture that was cut short has its status after the data that was written.
    ///
    /// # Errors
    /// Where the chain is none of this client's.
    pub fn settle(&mut self, queue: u16, completion: Completion) -> Result<Transfer> {
        let Completion { chain, written, .. } = completion;
        let out = self
            .transfers
            .remove(&(queue, chain))
            .ok_or_else(|| Error::Memory(format!("{chain:?} is no transfer of queue {queue}")))?;
        let memory = self.guest.memory();
        let status = memory.bytes(out.status.addr, out.status.len)?;
        let data = if queue == RX {
            let len = written.saturating_sub(PCM_STATUS_SIZE).min(out.data.len);
            memory.bytes(out.data.addr, len)?
        } else {
            Vec::new()
        };
        for buffer in [out.header, out.data, out.status] {
            memory.free(buffer);
        }
        Ok(Transfer {
            chain,
            stream: out.stream,
            status: u32_at(&status, 0),
            latency_bytes: u32_at(&status, 4),
            written,
            data,
        })
    }

    /// Make `count` more event buffers available, without a kick.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn fill_events(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let buffer = self.guest.memory().alloc(EVENT_SIZE, 1)?;
            let chain = self
                .guest
                .ring_mut(EVENT)
                .add(&[Segment::Writable(buffer)])?;
            self.events.insert(chain, buffer);
        }
        Ok(())
    }

    /// Wait for the next event; its buffer is made available again, with a kick if one is wanted.
    ///
    /// # Errors
    /// Where none comes, or one that is not 8 bytes long.
    pub fn event(&mut self, deadline: Deadline) -> Result<Event> {
        let completion = self.guest.ring_mut(EVENT).wait(deadline)?;
        let buffer = self
            .events
            .remove(&completion.chain)
            .ok_or_else(|| Error::Memory(format!("{completion:?} is no event buffer")))?;
        let bytes = self.guest.memory().bytes(buffer.addr, buffer.len)?;
        self.guest.memory().free(buffer);
        self.fill_events(1)?;
        self.kick(EVENT)?;
        if completion.written != EVENT_SIZE {
            return Err(Error::Memory(format!(
                "an event of {} bytes",
                completion.written
            )));
        }
        Ok(Event {
            code: u32_at(&bytes, 0),
            data: u32_at(&bytes, 4),
        })
    }

    fn cut(&self, buffer: Buffer, kind: fn(Buffer) -> Segment) -> Vec<Segment> {
        let Cut::Pieces(len) = self.cut else {
            return vec![kind(buffer)];
        };
        let step = len.max(1);
        (0..buffer.len)
            .step_by(step as usize)
            .map(|at| {
                let addr = buffer.addr + u64::from(at);
                kind(Buffer {
                    addr,
                    len: step.min(buffer.len - at),
                })
            })
            .collect()
    }
}
