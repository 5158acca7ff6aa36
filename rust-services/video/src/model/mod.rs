// SPDX-License-Identifier: Apache-2.0

//! What the device does: requests and what the codecs say in, answers and events out.
//!
//! Knows no virtqueues, only [`Ticket`]s for requests that wait; no guest memory, only a [`Guest`]
//! that has it; no GStreamer, only [`Codecs`].

mod controls;
mod format;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agl_virtio_codec::Codec;

pub use agl_virtio_codec::Limits;
pub use format::Formats;
pub use stream::Stream;

use crate::coder::Codecs;
use crate::statistics::{Session, Statistics};
use crate::wire::{
    Answer, Command, Dialect, Event, MemoryType, Planes, Queue, Refusal, Request, Uuid,
};

/// Which way the device codes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Pictures out of coded streams.
    #[default]
    Decoder,
    /// Coded streams out of pictures.
    Encoder,
}

/// A request that is answered later.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// What is done with a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

/// The guest's memory.
pub trait Guest {
    /// One plane of a resource.
    type Buffer;

    /// The buffer made of these runs; nothing where they are not the guest's.
    fn buffer(&self, runs: &[(u64, u32)]) -> Option<Self::Buffer>;
    /// Its bytes.
    fn len(&self, buffer: &Self::Buffer) -> usize;
    /// Bytes of it are about to be read, or written: once for many of them. False where they cannot be
    /// now; then there is no end.
    fn begin(&self, buffer: &Self::Buffer, access: Access) -> bool {
        let _ = (buffer, access);
        true
    }
    /// They have been.
    fn end(&self, buffer: &Self::Buffer, access: Access) {
        let _ = (buffer, access);
    }
    /// Copies bytes out of it.
    fn read(&self, buffer: &Self::Buffer, offset: usize, bytes: &mut [u8]) -> bool;
    /// Copies bytes into it.
    fn write(&self, buffer: &Self::Buffer, offset: usize, bytes: &[u8]) -> bool;
}

/// What is to be told to the driver, in this order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Answers to requests: the ticket, the stream, the answer.
    pub answers: Vec<(Ticket, u32, Answer)>,
    /// Events, after these answers.
    pub events: Vec<(u32, Event)>,
    /// Objects that are to be looked up, each for [`Model::found`].
    pub wanted: Vec<Wanted>,
}

/// An object that a resource's plane lies in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// The request that waits for it.
    pub ticket: Ticket,
    /// Of which plane it is.
    pub plane: usize,
    /// Which one.
    pub object: Uuid,
}

impl Outbox {
    fn answer(&mut self, ticket: Ticket, stream: u32, answer: Answer) {
        self.answers.push((ticket, stream, answer));
    }

    fn refuse(&mut self, ticket: Ticket, stream: u32, refusal: Refusal) {
        self.answer(ticket, stream, Answer::Refused(refusal));
    }
}

/// What all streams of a device share.
pub struct Shared {
    /// Which way it codes.
    pub function: Function,
    /// The formats' numbers.
    pub dialect: Arc<dyn Dialect>,
    /// What is offered.
    pub formats: Formats,
    /// What is counted.
    pub statistics: Arc<Statistics>,
}

/// Streams that a driver may have, those that have failed included: a bound for what it can make the
/// host remember.
const MOST_STREAMS: usize = 256;
/// Objects that a driver may have at once: each is a descriptor of the host.
const MOST_OBJECTS: usize = 256;

/// The device.
pub struct Model<G: Guest> {
    shared: Shared,
    codecs: Box<dyn Codecs>,
    streams: BTreeMap<u32, Stream<G>>,
    /// Whether objects of other devices can be looked up.
    imports: bool,
}

impl<G: Guest> Model<G> {
    /// A device without streams.
    pub fn new(shared: Shared, codecs: Box<dyn Codecs>) -> Self {
        Self {
            shared,
            codecs,
            streams: BTreeMap::new(),
            imports: false,
        }
    }

    /// Says whether objects of other devices can be looked up; they cannot before.
    pub fn set_imports(&mut self, imports: bool) {
        self.imports = imports;
    }

    /// Where the resources of a stream's queue lie; nothing where there is no such stream.
    #[must_use]
    pub fn memory(&self, stream: u32, queue: Queue) -> Option<MemoryType> {
        let stream = self.streams.get(&stream).filter(|stream| stream.lives());
        Some(stream?.memory(queue))
    }

    /// Obeys a request.
    pub fn request(&mut self, guest: &G, ticket: Ticket, request: Request, out: &mut Outbox) {
        let Request {
            stream: id,
            command,
        } = request;
        match command {
            Command::QueryCapability(queue) => {
                let list = self.shared.formats.describe(self.shared.function, queue);
                out.answer(ticket, id, Answer::Capability(list));
            }
            Command::QueryControl { control, format } => {
                let answer = controls::query(&self.shared, control, format);
                out.answer(
                    ticket,
                    id,
                    answer.map_or_else(Answer::Refused, Answer::Values),
                );
            }
            Command::Create {
                input,
                output,
                coded,
                tag,
            } => {
                let created = self.create(id, [input, output], coded, tag);
                out.answer(
                    ticket,
                    id,
                    created.map_or_else(Answer::Refused, |()| Answer::Ok),
                );
            }
            Command::Destroy => self.destroy(ticket, id, out),
            Command::Attach {
                queue,
                id: resource,
                planes: Planes::Objects(objects),
            } => {
                let answer = self.import(ticket, id, (queue, resource), &objects, out);
                if let Err(refusal) = answer {
                    out.refuse(ticket, id, refusal);
                }
            }
            command => {
                let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.lives()) else {
                    return out.refuse(ticket, id, Refusal::InvalidStream);
                };
                stream.request(&self.shared, guest, ticket, command, out);
                stream.turn(&self.shared, &mut *self.codecs, guest, out);
            }
        }
    }

    fn create(
        &mut self,
        id: u32,
        memory: [u32; 2],
        coded: u32,
        tag: String,
    ) -> Result<(), Refusal> {
        if self.streams.get(&id).is_some_and(Stream::lives) {
            return Err(Refusal::InvalidStream);
        }
        let [input, output] = memory.map(MemoryType::from_code);
        let memory = [
            input.ok_or(Refusal::InvalidParameter)?,
            output.ok_or(Refusal::InvalidParameter)?,
        ];
        if memory.contains(&MemoryType::Objects) && !self.imports {
            return Err(Refusal::InvalidParameter);
        }
        let codec = self.shared.dialect.codec(coded);
        let codec = codec.filter(|codec| self.shared.formats.codecs().contains(codec));
        let codec = codec.ok_or(Refusal::InvalidParameter)?;
        let living = self
            .streams
            .values()
            .filter(|stream| stream.lives())
            .count();
        if living >= self.shared.statistics.max_sessions() || self.streams.len() >= MOST_STREAMS {
            log::info!("no more streams for \"{tag}\": there are {living}");
            self.shared.statistics.refused();
            return Err(Refusal::OutOfMemory);
        }
        let stream = Stream::new(id, codec, memory, &tag, &self.shared);
        self.streams.insert(id, stream);
        Ok(())
    }

    fn destroy(&mut self, ticket: Ticket, id: u32, out: &mut Outbox) {
        match self.streams.remove(&id) {
            Some(mut stream) => {
                stream.end(out);
                out.answer(ticket, id, Answer::Ok);
            }
            // One that was lost with a former process is gone as well as one can be.
            None => out.answer(ticket, id, Answer::Ok),
        }
    }

    /// Asks for the objects of a resource. Answered when all have been found, or one has not.
    fn import(
        &mut self,
        ticket: Ticket,
        stream: u32,
        (queue, id): (Queue, u32),
        objects: &[Uuid],
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let held = self.streams.values().map(Stream::objects);
        let held = held.fold(0, usize::saturating_add);
        let stream = self.streams.get_mut(&stream);
        let stream = stream.filter(|stream| stream.lives());
        let stream = stream.ok_or(Refusal::InvalidStream)?;
        if held.saturating_add(objects.len()) > MOST_OBJECTS {
            return Err(Refusal::OutOfMemory);
        }
        stream.import(ticket, (queue, id), objects)?;
        let wanted = objects.iter().enumerate().map(|(plane, object)| Wanted {
            ticket,
            plane,
            object: *object,
        });
        out.wanted.extend(wanted);
        Ok(())
    }

    /// An object that was wanted has been found, or why not. Of one that nobody waits for any more
    /// nothing is kept.
    pub fn found(
        &mut self,
        ticket: Ticket,
        plane: usize,
        found: Result<G::Buffer, Refusal>,
        out: &mut Outbox,
    ) {
        let mut streams = self.streams.values_mut();
        if let Some(stream) = streams.find(|stream| stream.waits_for(ticket)) {
            stream.found(ticket, plane, found, out);
        }
    }

    /// Looks at what the codecs have done.
    pub fn turn(&mut self, guest: &G, out: &mut Outbox) {
        for id in self.shared.statistics.to_terminate() {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.lives()) {
                stream.fail("it was terminated over D-Bus", out);
            }
        }
        for stream in self.streams.values_mut().filter(|stream| stream.lives()) {
            stream.turn(&self.shared, &mut *self.codecs, guest, out);
        }
    }

    /// Whether a codec is at work that has to be looked at from time to time, and how soon.
    #[must_use]
    pub fn look_after(&self) -> Option<Duration> {
        self.streams.values().filter_map(Stream::look_after).min()
    }

    /// The streams that a driver has.
    pub fn living(&self) -> impl Iterator<Item = u32> + '_ {
        let living = self.streams.iter().filter(|(_, stream)| stream.lives());
        living.map(|(id, _)| *id)
    }

    /// Forgets all streams, without a word: their driver has.
    pub fn reset(&mut self) {
        self.streams.clear();
    }
}

/// What a stream tells about itself on the bus.
fn session(shared: &Shared, id: u32, codec: Codec, tag: &str) -> Arc<Session> {
    shared.statistics.open(id, codec, tag)
}

#[cfg(test)]
mod tests;
