// SPDX-License-Identifier: Apache-2.0
//! The video device's guest driver, reduced to its messages: virtio-video, draft v5.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::guest::{Guest, GuestOptions};
use crate::memory::Buffer;
use crate::ring::{ChainId, Completion, RingOptions, Segment};
use crate::shared_objects::Uuid;

/// The queue of commands.
pub const COMMANDS: u16 = 0;
/// The queue of events.
pub const EVENTS: u16 = 1;

/// A stream's queue of what is to be coded.
pub const INPUT: u32 = 0x100;
/// A stream's queue of what has been.
pub const OUTPUT: u32 = 0x101;

/// Answer: done.
pub const OK: u32 = 0x200;
/// Answer about a resource.
pub const DONE: u32 = 0x202;
/// Answer: not now.
pub const INVALID_OPERATION: u32 = 0x300;
/// Answer: no more.
pub const OUT_OF_MEMORY: u32 = 0x301;
/// Answer: no such stream.
pub const INVALID_STREAM_ID: u32 = 0x302;
/// Answer: no such resource.
pub const INVALID_RESOURCE_ID: u32 = 0x303;
/// Answer: a value makes no sense.
pub const INVALID_PARAMETER: u32 = 0x304;
/// Answer: no such control.
pub const UNSUPPORTED_CONTROL: u32 = 0x305;

/// Event: the stream has failed.
pub const ERROR: u32 = 0x100;
/// Event: pictures have another size.
pub const RESOLUTION_CHANGED: u32 = 0x200;

/// Flag of a resource: the last one.
pub const EOS: u32 = 1;
/// Flag of a resource: a key picture.
pub const KEY: u32 = 2;

/// Bytes of an answer about a resource.
pub const DONE_SIZE: u32 = 56;
/// Bytes of the format of a queue.
pub const PARAMS_SIZE: usize = 112;
/// Bytes for any other answer.
const ANSWER_SIZE: u32 = 8192;
/// Bytes of the largest request.
const REQUEST_SIZE: u32 = 64 * 1024;

/// Words of a request after its header.
#[must_use]
pub fn request(kind: u32, stream: u32, words: &[u32]) -> Vec<u8> {
    let all = [kind, stream].into_iter().chain(words.iter().copied());
    all.flat_map(u32::to_le_bytes).collect()
}

/// The little-endian word at an offset; 0 beyond the end.
#[must_use]
pub fn word(bytes: &[u8], offset: usize) -> u32 {
    let four = bytes.get(offset..offset.saturating_add(4));
    four.and_then(|four| four.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// An answer about a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Answer or refusal.
    pub kind: u32,
    /// Its flags.
    pub flags: u32,
    /// Its timestamp.
    pub timestamp: u64,
    /// Bytes in each plane.
    pub sizes: [u32; 8],
}

/// The format of a queue, as far as tests look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params(pub Vec<u32>);

impl Params {
    /// All zero but the queue and the format.
    #[must_use]
    pub fn new(queue: u32, format: u32, width: u32, height: u32) -> Self {
        let mut words = vec![0; PARAMS_SIZE / 4];
        words[..4].copy_from_slice(&[queue, format, width, height]);
        words[11] = 1;
        Self(words)
    }

    /// Width and height of the memory.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.0[2], self.0[3])
    }

    /// Width and height of what is seen.
    #[must_use]
    pub fn crop(&self) -> (u32, u32) {
        (self.0[8], self.0[9])
    }

    /// Bytes and stride of a plane.
    #[must_use]
    pub fn plane(&self, plane: usize) -> (u32, u32) {
        (self.0[12 + 2 * plane], self.0[13 + 2 * plane])
    }
}

/// Which draft of virtio-video a guest speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Draft {
    /// As AGL's guests.
    #[default]
    V5,
    /// As ChromeOS' guests. Answers about resources are given to the caller as those of v5.
    V3,
}

impl Draft {
    /// The number of a raw format whose number in v5 this is.
    #[must_use]
    pub fn raw(self, of_v5: u32) -> u32 {
        match (self, of_v5) {
            // v3 has no RGBA8888.
            (Self::V3, 4..) => of_v5 - 1,
            _ => of_v5,
        }
    }

    /// The words of `RESOURCE_ATTACH`, or of v3's `RESOURCE_CREATE`.
    fn attach(self, queue: u32, id: u32, planes: &[&[Buffer]]) -> Vec<u32> {
        let mut words = vec![queue, id];
        if self == Self::V3 {
            // One buffer, or one for each plane.
            let layout = if planes.len() == 1 { 1 } else { 2 };
            words.extend([layout, planes.len() as u32]);
            words.extend([0; 8]);
            words.extend((0..8).map(|plane| planes.get(plane).map_or(0, |runs| runs.len() as u32)));
        }
        for plane in planes {
            if self == Self::V5 {
                words.extend([plane.len() as u32, 0]);
            }
            for run in *plane {
                words.extend([run.addr as u32, (run.addr >> 32) as u32, run.len, 0]);
            }
        }
        words
    }

    /// The same of objects.
    fn attach_objects(self, queue: u32, id: u32, objects: &[Uuid]) -> Vec<u32> {
        let mut words = vec![queue, id];
        if self == Self::V3 {
            let layout = if objects.len() == 1 { 1 } else { 2 };
            words.extend([layout, objects.len() as u32]);
            words.extend([0; 8]);
            words.extend((0..8).map(|plane| u32::from(plane < objects.len())));
        }
        for object in objects {
            words.extend([0, 4, 8, 12].map(|at| word(object, at)));
        }
        words
    }

    /// The words of `RESOURCE_QUEUE`.
    fn queue(self, queue: u32, id: u32, timestamp: u64, bytes: u32) -> Vec<u32> {
        let (low, high) = (timestamp as u32, (timestamp >> 32) as u32);
        let mut words = match self {
            Self::V5 => vec![queue, id, 0, 0, low, high, bytes],
            Self::V3 => vec![queue, id, low, high, 1, bytes],
        };
        // Of eight planes one is used.
        words.resize(words.len() + 7, 0);
        words
    }

    /// An answer as v5 has it.
    fn answer(self, bytes: Vec<u8>) -> Vec<u8> {
        if self == Self::V5 || word(&bytes, 0) != DONE {
            return bytes;
        }
        let flags = word(&bytes, 16);
        let flags = if flags & 2 != 0 { EOS } else { 0 } | if flags & 4 != 0 { KEY } else { 0 };
        let mut words = vec![
            flags,
            0,
            word(&bytes, 8),
            word(&bytes, 12),
            word(&bytes, 20),
        ];
        words.resize(4 + 8, 0);
        request(DONE, word(&bytes, 4), &words)
    }
}

/// What a request that is on its way has.
#[derive(Debug)]
struct Posted {
    request: Buffer,
    answer: Buffer,
}

/// A guest with a video device.
#[derive(Debug)]
pub struct VideoClient {
    guest: Guest,
    draft: Draft,
    posted: HashMap<ChainId, Posted>,
    /// Answers that came while another one was waited for.
    early: HashMap<ChainId, Vec<u8>>,
    events: HashMap<ChainId, Buffer>,
}

impl VideoClient {
    /// What such a guest is made of.
    #[must_use]
    pub fn options() -> GuestOptions {
        let mut options = GuestOptions::new(2);
        options.queues = vec![
            RingOptions {
                size: 256,
                ..RingOptions::default()
            };
            2
        ];
        options
    }

    /// Connect, negotiate, start, and give buffers for events.
    ///
    /// # Errors
    /// As [`Guest::connect`] and [`Guest::start`].
    pub fn start(stream: UnixStream, options: &GuestOptions) -> Result<Self> {
        let mut client = Self {
            guest: Guest::connect(stream, options)?,
            draft: Draft::default(),
            posted: HashMap::new(),
            early: HashMap::new(),
            events: HashMap::new(),
        };
        client.guest.start()?;
        client.listen(16)?;
        Ok(client)
    }

    /// Speak this draft from now on.
    #[must_use]
    pub fn speaking(mut self, draft: Draft) -> Self {
        self.draft = draft;
        self
    }

    /// What it speaks.
    #[must_use]
    pub fn draft(&self) -> Draft {
        self.draft
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
        for (_, posted) in self.posted.drain() {
            self.guest.memory().free(posted.request);
            self.guest.memory().free(posted.answer);
        }
        for (_, buffer) in self.events.drain() {
            self.guest.memory().free(buffer);
        }
        self.early.clear();
        self.guest.start()?;
        self.listen(16)
    }

    fn listen(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let buffer = self.guest.memory().alloc(8, 8)?;
            let ring = self.guest.ring_mut(EVENTS);
            let chain = ring.add(&[Segment::Writable(buffer)])?;
            self.events.insert(chain, buffer);
        }
        self.guest.ring_mut(EVENTS).kick()?;
        Ok(())
    }

    /// The next event: its type and stream.
    ///
    /// # Errors
    /// Where none comes.
    pub fn event(&mut self, deadline: Deadline) -> Result<(u32, u32)> {
        let completion = self.guest.ring_mut(EVENTS).wait(deadline)?;
        self.heard(completion)
    }

    /// An event that has come already.
    ///
    /// # Errors
    /// Where the ring makes no sense.
    pub fn heard_event(&mut self) -> Result<Option<(u32, u32)>> {
        match self.guest.ring_mut(EVENTS).pop()? {
            Some(completion) => self.heard(completion).map(Some),
            None => Ok(None),
        }
    }

    fn heard(&mut self, completion: Completion) -> Result<(u32, u32)> {
        let buffer = self.events.remove(&completion.chain);
        let buffer =
            buffer.ok_or_else(|| Error::Memory(format!("{completion:?} was not asked")))?;
        let bytes = self.guest.memory().bytes(buffer.addr, 8)?;
        self.guest.memory().free(buffer);
        self.listen(1)?;
        Ok((word(&bytes, 0), word(&bytes, 4)))
    }

    /// Send a request with room for an answer of so many bytes.
    ///
    /// # Errors
    /// Where the ring or memory is full.
    pub fn post(&mut self, request: &[u8], room: u32) -> Result<ChainId> {
        let memory = self.guest.memory();
        let len = u32::try_from(request.len()).unwrap_or(REQUEST_SIZE);
        let buffer = memory.alloc(len, 8)?;
        memory.write(buffer.addr, request)?;
        let answer = memory.alloc(room, 8)?;
        memory.fill(answer.addr, room, 0xee)?;
        let ring = self.guest.ring_mut(COMMANDS);
        let chain = ring.add(&[Segment::Readable(buffer), Segment::Writable(answer)])?;
        ring.kick()?;
        let posted = Posted {
            request: buffer,
            answer,
        };
        self.posted.insert(chain, posted);
        Ok(chain)
    }

    fn take(&mut self, completion: Completion) -> Result<(ChainId, Vec<u8>)> {
        let posted = self.posted.remove(&completion.chain);
        let posted = posted.ok_or_else(|| Error::Memory(format!("{completion:?} was not sent")))?;
        let memory = self.guest.memory();
        let written = completion.written.min(posted.answer.len);
        let bytes = self
            .draft
            .answer(memory.bytes(posted.answer.addr, written)?);
        memory.free(posted.request);
        memory.free(posted.answer);
        Ok((completion.chain, bytes))
    }

    /// Wait for the answer to a request.
    ///
    /// # Errors
    /// Where none comes.
    pub fn finish(&mut self, chain: ChainId) -> Result<Vec<u8>> {
        loop {
            if let Some(bytes) = self.early.remove(&chain) {
                return Ok(bytes);
            }
            let completion = self.guest.ring_mut(COMMANDS).wait(Deadline::patient())?;
            let (other, bytes) = self.take(completion)?;
            self.early.insert(other, bytes);
        }
    }

    /// Wait for the next answer to whichever request, of those that nobody waited for.
    ///
    /// # Errors
    /// Where none comes.
    pub fn next(&mut self, deadline: Deadline) -> Result<(ChainId, Vec<u8>)> {
        let early = self.early.keys().min().copied();
        if let Some((chain, bytes)) = early.and_then(|chain| self.early.remove_entry(&chain)) {
            return Ok((chain, bytes));
        }
        let completion = self.guest.ring_mut(COMMANDS).wait(deadline)?;
        self.take(completion)
    }

    /// Send a request and wait for its answer.
    ///
    /// # Errors
    /// As [`Self::post`] and [`Self::finish`].
    pub fn ask(&mut self, kind: u32, stream: u32, words: &[u32]) -> Result<Vec<u8>> {
        let chain = self.post(&request(kind, stream, words), ANSWER_SIZE)?;
        self.finish(chain)
    }

    /// The type of the answer to a request.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn command(&mut self, kind: u32, stream: u32, words: &[u32]) -> Result<u32> {
        Ok(word(&self.ask(kind, stream, words)?, 0))
    }

    /// `STREAM_CREATE` in guest pages.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn create(&mut self, stream: u32, coded: u32) -> Result<u32> {
        self.create_in(stream, coded, [0, 0])
    }

    /// `STREAM_CREATE` in memory of these types: 0 the guest's pages, 1 objects.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn create_in(&mut self, stream: u32, coded: u32, memory: [u32; 2]) -> Result<u32> {
        let [input, output] = memory;
        let mut words = vec![input, output, coded, 0, u32::from_le_bytes(*b"test")];
        words.resize(4 + 16, 0);
        self.command(0x101, stream, &words)
    }

    /// `RESOURCE_ATTACH` of objects, one for each plane; not waited for, because the VMM has to find them.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub fn attach_objects(
        &mut self,
        stream: u32,
        queue: u32,
        id: u32,
        objects: &[Uuid],
    ) -> Result<ChainId> {
        let words = self.draft.attach_objects(queue, id, objects);
        self.post(&request(0x104, stream, &words), ANSWER_SIZE)
    }

    /// `STREAM_DESTROY`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn destroy(&mut self, stream: u32) -> Result<u32> {
        self.command(0x102, stream, &[])
    }

    /// `STREAM_DRAIN`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn drain(&mut self, stream: u32) -> Result<u32> {
        self.command(0x103, stream, &[])
    }

    /// `RESOURCE_ATTACH` of these runs of memory, one list for each plane.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn attach(
        &mut self,
        stream: u32,
        queue: u32,
        id: u32,
        planes: &[&[Buffer]],
    ) -> Result<u32> {
        let words = self.draft.attach(queue, id, planes);
        self.command(0x104, stream, &words)
    }

    /// `RESOURCE_QUEUE`, not waited for.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub fn queue(
        &mut self,
        stream: u32,
        queue: u32,
        id: u32,
        timestamp: u64,
        bytes: u32,
    ) -> Result<ChainId> {
        let words = self.draft.queue(queue, id, timestamp, bytes);
        self.post(&request(0x105, stream, &words), DONE_SIZE)
    }

    /// `QUEUE_DETACH_RESOURCES`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn detach(&mut self, stream: u32, queue: u32) -> Result<u32> {
        self.command(0x106, stream, &[queue, 0])
    }

    /// `QUEUE_CLEAR`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn clear(&mut self, stream: u32, queue: u32) -> Result<u32> {
        self.command(0x107, stream, &[queue, 0])
    }

    /// `GET_PARAMS`.
    ///
    /// # Errors
    /// As [`Self::ask`], or where it is refused.
    pub fn params(&mut self, stream: u32, queue: u32) -> Result<Params> {
        let answer = self.ask(0x108, stream, &[queue, 0])?;
        if word(&answer, 0) != 0x203 || answer.len() != 8 + PARAMS_SIZE {
            return Err(Error::Memory(format!("no parameters: {answer:x?}")));
        }
        let words = (8..answer.len()).step_by(4).map(|at| word(&answer, at));
        Ok(Params(words.collect()))
    }

    /// `SET_PARAMS`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn set_params(&mut self, stream: u32, params: &Params) -> Result<u32> {
        self.command(0x109, stream, &params.0)
    }
}

/// Reads the answer about a resource.
#[must_use]
pub fn done(bytes: &[u8]) -> Done {
    let mut sizes = [0; 8];
    for (number, size) in sizes.iter_mut().enumerate() {
        *size = word(bytes, 24 + 4 * number);
    }
    Done {
        kind: word(bytes, 0),
        flags: word(bytes, 8),
        timestamp: u64::from(word(bytes, 16)) | u64::from(word(bytes, 20)) << 32,
        sizes,
    }
}
