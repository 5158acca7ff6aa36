// SPDX-License-Identifier: Apache-2.0

//! One stream: its resources, what waits, and its codec.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use agl_virtio_codec::{Codec, EncoderSettings, Event as Told, Size};

use super::format::{Chosen, MOST_BUFFERS, is_coded};
use super::{Function, Guest, Outbox, Shared, Ticket, controls};
use crate::coder::{Codecs, Coder, InputNote, Job, Output, PutError};
use crate::statistics::Session;
use crate::wire::{Answer, Command, Done, Event, MAX_PLANES, Params, Queue, Refusal, flag};

/// Coded bytes in one buffer, at most.
const MOST_CODED: usize = 64 << 20;
/// Pictures per second that a stream is reckoned to have when nobody says.
const USUAL_RATE: u32 = 30;

/// Memory of a resource.
struct Resource<B> {
    planes: Vec<B>,
    queued: bool,
}

/// What waits in a queue.
enum Waiting {
    Resource {
        ticket: Ticket,
        id: u32,
        timestamp: u64,
        bytes: u32,
    },
    /// Of the input only: what came before is to come out, then an end.
    Drain,
}

struct Side<B> {
    resources: BTreeMap<u32, Resource<B>>,
    waiting: VecDeque<Waiting>,
}

impl<B> Default for Side<B> {
    fn default() -> Self {
        Self {
            resources: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }
}

impl<B> Side<B> {
    fn has_queued(&self) -> bool {
        self.resources.values().any(|resource| resource.queued)
    }

    /// Takes the first one; a resource is no longer queued then.
    fn take(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        if let Waiting::Resource { id, .. } = first {
            if let Some(resource) = self.resources.get_mut(&id) {
                resource.queued = false;
            }
        }
        Some(first)
    }
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Drain {
    /// There is none.
    None,
    /// The codec is at it.
    Codec,
    /// All has come out; the driver is to be told with the next resource.
    End,
}

/// A stream.
pub struct Stream<G: Guest> {
    id: u32,
    function: Function,
    chosen: Chosen,
    settings: EncoderSettings,
    input: Side<G::Buffer>,
    output: Side<G::Buffer>,
    coder: Option<Box<dyn Coder>>,
    /// Came out, and waits for a resource.
    ready: Option<Box<dyn Output>>,
    drain: Drain,
    /// Requests that are answered once the codec has forgotten all.
    flushing: Vec<Ticket>,
    /// The size of pictures, once it is known.
    size: Option<Size>,
    /// The driver was told of a size, and has not asked for it yet.
    untold: bool,
    force_key: bool,
    failed: bool,
    session: Arc<Session>,
}

impl<G: Guest> Stream<G> {
    /// A stream of this codec.
    #[must_use]
    pub fn new(id: u32, codec: Codec, tag: &str, shared: &Shared) -> Self {
        Self {
            id,
            function: shared.function,
            chosen: Chosen::new(codec, &shared.formats),
            settings: EncoderSettings::default(),
            input: Side::default(),
            output: Side::default(),
            coder: None,
            ready: None,
            drain: Drain::None,
            flushing: Vec::new(),
            size: None,
            untold: false,
            force_key: false,
            failed: false,
            session: super::session(shared, id, codec, tag),
        }
    }

    /// Whether it has not failed.
    #[must_use]
    pub fn lives(&self) -> bool {
        !self.failed
    }

    /// As [`Coder::look_after`].
    #[must_use]
    pub fn look_after(&self) -> Option<Duration> {
        self.coder.as_ref()?.look_after()
    }

    fn side(&mut self, queue: Queue) -> &mut Side<G::Buffer> {
        match queue {
            Queue::Input => &mut self.input,
            Queue::Output => &mut self.output,
        }
    }

    /// Obeys a request to this stream.
    pub(super) fn request(
        &mut self,
        shared: &Shared,
        guest: &G,
        ticket: Ticket,
        command: Command,
        out: &mut Outbox,
    ) {
        let answer = match command {
            Command::Attach { queue, id, planes } => self.attach(guest, queue, id, &planes),
            Command::Queue {
                queue,
                id,
                flags,
                timestamp,
                sizes,
            } => match self.queue(guest, ticket, (queue, id), (flags, timestamp), &sizes) {
                // Answered when it is done.
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Command::Detach(queue) => self.detach(queue),
            Command::Clear(queue) => match self.clear(ticket, queue, out) {
                Some(answer) => Ok(answer),
                None => return,
            },
            Command::Drain => self.ask_drain(),
            Command::GetParams(queue) => {
                if self.function == Function::Decoder && queue == Queue::Output {
                    self.untold = false;
                }
                let params = self.chosen.params(self.function, queue, &*shared.dialect);
                Ok(Answer::Params(params))
            }
            Command::SetParams(params) => self.set_params(shared, &params),
            Command::GetControl(control) if self.function == Function::Encoder => {
                controls::get(self.chosen.codec, &self.settings, control).map(Answer::Value)
            }
            Command::SetControl(control, value) if self.function == Function::Encoder => {
                self.set_control(control, value)
            }
            Command::GetControl(_) | Command::SetControl(..) => Err(Refusal::UnsupportedControl),
            // The device has seen to these.
            Command::QueryCapability(_)
            | Command::QueryControl { .. }
            | Command::Create { .. }
            | Command::Destroy => Err(Refusal::InvalidOperation),
        };
        out.answer(ticket, self.id, answer.unwrap_or_else(Answer::Refused));
    }

    fn attach(
        &mut self,
        guest: &G,
        queue: Queue,
        id: u32,
        planes: &[Vec<(u64, u32)>],
    ) -> Result<Answer, Refusal> {
        let side = self.side(queue);
        if side.resources.get(&id).is_some_and(|old| old.queued) {
            return Err(Refusal::InvalidOperation);
        }
        if side.resources.len() >= MOST_BUFFERS as usize && !side.resources.contains_key(&id) {
            return Err(Refusal::OutOfMemory);
        }
        if planes.is_empty() || planes.len() > MAX_PLANES {
            return Err(Refusal::InvalidParameter);
        }
        let buffers: Option<Vec<G::Buffer>> =
            planes.iter().map(|runs| guest.buffer(runs)).collect();
        let planes = buffers.ok_or(Refusal::InvalidParameter)?;
        side.resources.insert(
            id,
            Resource {
                planes,
                queued: false,
            },
        );
        Ok(Answer::Ok)
    }

    fn queue(
        &mut self,
        guest: &G,
        ticket: Ticket,
        (queue, id): (Queue, u32),
        (flags, timestamp): (u32, u64),
        sizes: &[u32; MAX_PLANES],
    ) -> Result<(), Refusal> {
        let coded = is_coded(self.function, queue);
        let layout = self.chosen.layout;
        let per_plane = self.chosen.per_plane;
        // Of a decoder's output it is only known which size is needed once the driver has been told.
        let fits_later = queue == Queue::Output && (coded || self.size.is_none() || self.untold);
        let side = self.side(queue);
        let resource = side
            .resources
            .get_mut(&id)
            .ok_or(Refusal::InvalidResource)?;
        if resource.queued {
            return Err(Refusal::InvalidOperation);
        }
        let bytes = sizes.first().copied().unwrap_or(0);
        let fits = if coded {
            let room = resource.planes.first().map_or(0, |plane| guest.len(plane));
            queue == Queue::Output || bytes as usize <= room.min(MOST_CODED)
        } else {
            fits_later || has_room(guest, &resource.planes, &layout, per_plane)
        };
        if !fits {
            return Err(Refusal::InvalidParameter);
        }
        resource.queued = true;
        side.waiting.push_back(Waiting::Resource {
            ticket,
            id,
            timestamp,
            bytes,
        });
        if queue == Queue::Input && flags & flag::END != 0 && !self.is_draining() {
            self.input.waiting.push_back(Waiting::Drain);
        }
        Ok(())
    }

    fn is_draining(&self) -> bool {
        self.drain != Drain::None
            || self
                .input
                .waiting
                .iter()
                .any(|one| matches!(one, Waiting::Drain))
    }

    fn ask_drain(&mut self) -> Result<Answer, Refusal> {
        if self.is_draining() {
            return Err(Refusal::InvalidOperation);
        }
        self.input.waiting.push_back(Waiting::Drain);
        Ok(Answer::Ok)
    }

    fn detach(&mut self, queue: Queue) -> Result<Answer, Refusal> {
        let side = self.side(queue);
        if side.has_queued() {
            return Err(Refusal::InvalidOperation);
        }
        side.resources.clear();
        Ok(Answer::Ok)
    }

    /// Gives all resources of a queue back as they are. The drains among them are counted.
    fn give_back(&mut self, queue: Queue, answer: &Answer, out: &mut Outbox) -> bool {
        let id = self.id;
        let mut drains = false;
        let side = self.side(queue);
        while let Some(waiting) = side.take() {
            match waiting {
                Waiting::Resource { ticket, .. } => out.answer(ticket, id, answer.clone()),
                Waiting::Drain => drains = true,
            }
        }
        drains
    }

    fn clear(&mut self, ticket: Ticket, queue: Queue, out: &mut Outbox) -> Option<Answer> {
        let drains = self.give_back(queue, &Answer::Done(Done::default()), out);
        if queue == Queue::Output && self.function == Function::Decoder {
            return Some(Answer::Ok);
        }
        self.drain = match (queue, self.drain) {
            // The input is emptied: what was to be drained is gone, and its end comes at once.
            (Queue::Input, Drain::None) if !drains => Drain::None,
            (Queue::Input, _) => Drain::End,
            // Nobody waits for an encoder's end any more.
            (Queue::Output, _) => Drain::None,
        };
        self.ready = None;
        let Some(coder) = &mut self.coder else {
            return Some(Answer::Ok);
        };
        coder.flush();
        self.flushing.push(ticket);
        None
    }

    fn set_params(&mut self, shared: &Shared, params: &Params) -> Result<Answer, Refusal> {
        let queue = Queue::from_code(params.queue).ok_or(Refusal::InvalidParameter)?;
        let decodes = self.function == Function::Decoder;
        if is_coded(self.function, queue) {
            self.chosen.set_coded(params);
            let size = Size::new(params.width, params.height);
            if decodes && self.size.is_none() && shared.formats.limits().allow(size) {
                // Until a header says it, pictures have the size that the driver supposes.
                self.chosen.resize(size);
            }
            return self.rate_allowed(shared);
        }
        let mut chosen = self.chosen;
        let follow = !decodes || self.size.is_none();
        chosen.set_raw(params, &shared.formats, &*shared.dialect, follow);
        let same = (chosen.layout, chosen.visible, chosen.per_plane)
            == (
                self.chosen.layout,
                self.chosen.visible,
                self.chosen.per_plane,
            );
        if !same && self.side(queue).has_queued() {
            return Err(Refusal::InvalidOperation);
        }
        self.chosen = chosen;
        if !decodes && !same {
            // The next picture begins a new coded stream.
            self.restart();
        }
        self.rate_allowed(shared)
    }

    fn rate_allowed(&mut self, shared: &Shared) -> Result<Answer, Refusal> {
        if self.reckon(shared) {
            Ok(Answer::Ok)
        } else {
            Err(Refusal::OutOfMemory)
        }
    }

    /// Whether the guest may have pictures of this size and rate as well.
    fn reckon(&mut self, shared: &Shared) -> bool {
        let rate = if self.chosen.frame_rate == 0 {
            USUAL_RATE
        } else {
            self.chosen.frame_rate
        };
        let pixels = self.chosen.visible.pixels().saturating_mul(rate.into());
        self.session
            .describe(self.chosen.visible, self.chosen.frame_rate, pixels);
        shared.statistics.is_within_pixel_rate()
    }

    fn restart(&mut self) {
        self.note_counters();
        self.coder = None;
        self.ready = None;
    }

    fn set_control(&mut self, control: u32, value: u32) -> Result<Answer, Refusal> {
        let change = controls::set(self.chosen.codec, &mut self.settings, control, value)?;
        match change {
            controls::Change::Adjust => {
                if let Some(coder) = &mut self.coder {
                    coder.adjust(self.settings);
                }
            }
            controls::Change::Restart if self.coder.is_some() => {
                return Err(Refusal::InvalidOperation);
            }
            controls::Change::ForceKey => self.force_key = true,
            controls::Change::Restart | controls::Change::None => {}
        }
        Ok(Answer::Ok)
    }

    /// Goes on as far as it gets.
    pub(super) fn turn(
        &mut self,
        shared: &Shared,
        codecs: &mut dyn Codecs,
        guest: &G,
        out: &mut Outbox,
    ) {
        // What came out may make room for what goes in, and the other way round.
        while self.lives() && (self.take_out(shared, guest, out) | self.put_in(codecs, guest, out))
        {
        }
        self.note_counters();
    }

    fn note_counters(&self) {
        if let Some(coder) = &self.coder {
            self.session.count(&coder.counters());
        }
    }

    /// Hands the first input to the codec. Whether there was one that could be.
    fn put_in(&mut self, codecs: &mut dyn Codecs, guest: &G, out: &mut Outbox) -> bool {
        if self.failed || self.drain != Drain::None || !self.flushing.is_empty() {
            return false;
        }
        match self.input.waiting.front() {
            None => return false,
            Some(Waiting::Drain) => {
                self.input.waiting.pop_front();
                self.drain = match &mut self.coder {
                    Some(coder) => {
                        coder.drain();
                        Drain::Codec
                    }
                    // Nothing in, nothing out.
                    None => Drain::End,
                };
                return true;
            }
            Some(Waiting::Resource { .. }) => {}
        }
        if self.coder.is_none() {
            match codecs.open(&self.job()) {
                Ok(coder) => self.coder = Some(coder),
                Err(error) => {
                    self.fail(&error.to_string(), out);
                    return false;
                }
            }
        }
        if !self.coder.as_ref().is_some_and(|coder| coder.room()) {
            return false;
        }
        let Some(Waiting::Resource {
            ticket,
            id,
            timestamp,
            bytes,
        }) = self.input.take()
        else {
            return false;
        };
        let read = self.fetch(guest, id, bytes);
        let answer = match read {
            None => Answer::Refused(Refusal::InvalidParameter),
            Some(read) => {
                let note = InputNote {
                    timestamp,
                    force_key: std::mem::take(&mut self.force_key),
                };
                self.session.copied_in(read.len());
                if let (Some(coder), false) = (&mut self.coder, read.is_empty()) {
                    coder.push(read, note);
                }
                Answer::Done(Done {
                    timestamp,
                    ..Done::default()
                })
            }
        };
        out.answer(ticket, self.id, answer);
        true
    }

    fn job(&self) -> Job {
        match self.function {
            Function::Decoder => Job::Decode(self.chosen.codec),
            Function::Encoder => Job::Encode(
                self.chosen.codec,
                self.chosen.layout,
                self.chosen.visible,
                EncoderSettings {
                    frame_rate: match self.chosen.frame_rate {
                        0 => USUAL_RATE,
                        rate => rate,
                    },
                    ..self.settings
                },
            ),
        }
    }

    /// Copies an input out of the guest's memory.
    fn fetch(&self, guest: &G, id: u32, bytes: u32) -> Option<Vec<u8>> {
        let planes = &self.input.resources.get(&id)?.planes;
        let first = planes.first()?;
        if self.function == Function::Decoder {
            let mut read = vec![0; bytes as usize];
            return guest.read(first, 0, &mut read).then_some(read);
        }
        let layout = &self.chosen.layout;
        let mut read = vec![0; layout.bytes()];
        if !self.chosen.per_plane {
            return guest.read(first, 0, &mut read).then_some(read);
        }
        for (buffer, plane) in planes.iter().zip(layout.planes()) {
            let end = plane.offset.checked_add(plane.size())?;
            let room = read.get_mut(plane.offset..end)?;
            if !guest.read(buffer, 0, room) {
                return None;
            }
        }
        Some(read)
    }

    /// Gives what came out to the driver. Whether there was something that could be.
    fn take_out(&mut self, shared: &Shared, guest: &G, out: &mut Outbox) -> bool {
        if self.failed {
            return false;
        }
        if self.flushing.is_empty() {
            if self.untold {
                return false;
            }
            if self.ready.is_some() {
                return self.deliver(guest, out);
            }
            if self.drain == Drain::End {
                return self.deliver_end(out);
            }
        }
        let Some(event) = self.coder.as_mut().and_then(|coder| coder.poll()) else {
            return false;
        };
        match event {
            Told::Size(size) => self.resized(size, shared, out),
            Told::Output(output) => self.ready = Some(output),
            Told::Drained => self.drain = Drain::End,
            Told::Flushed => {
                for ticket in std::mem::take(&mut self.flushing) {
                    out.answer(ticket, self.id, Answer::Ok);
                }
            }
            Told::Failed(error) => self.fail(&error.to_string(), out),
        }
        true
    }

    fn resized(&mut self, size: Size, shared: &Shared, out: &mut Outbox) {
        if !shared.formats.limits().allow(size) {
            return self.fail(
                &format!("its pictures of {size} are larger than allowed"),
                out,
            );
        }
        self.size = Some(size);
        self.chosen.resize(size);
        if !self.reckon(shared) {
            let reason = format!("with its pictures of {size} the guest has too many pixels");
            return self.fail(&reason, out);
        }
        self.untold = true;
        out.events.push((self.id, Event::ResolutionChanged));
    }

    fn deliver(&mut self, guest: &G, out: &mut Outbox) -> bool {
        let Some(Waiting::Resource { ticket, id, .. }) = self.output.take() else {
            return false;
        };
        let Some(output) = self.ready.take() else {
            return false;
        };
        let planes = self
            .output
            .resources
            .get(&id)
            .map(|resource| &resource.planes);
        let planes = planes.map_or(&[][..], Vec::as_slice);
        let written = self.write(guest, planes, &*output);
        let answer = match written {
            Ok(Some(done)) => Answer::Done(done),
            Ok(None) => {
                // Another resource may be large enough.
                self.ready = Some(output);
                Answer::Refused(Refusal::InvalidParameter)
            }
            Err(reason) => {
                out.answer(ticket, self.id, Answer::Refused(Refusal::InvalidOperation));
                self.fail(&reason, out);
                return true;
            }
        };
        out.answer(ticket, self.id, answer);
        true
    }

    /// Writes an output. Nothing where the memory is too small for it or not there any more.
    fn write(
        &self,
        guest: &G,
        planes: &[G::Buffer],
        output: &dyn Output,
    ) -> Result<Option<Done>, String> {
        let (layout, per_plane) = (&self.chosen.layout, self.chosen.per_plane);
        let coded = self.function == Function::Encoder;
        let bytes = output.sizes(layout);
        let total = bytes
            .iter()
            .fold(0_usize, |sum, one| sum.saturating_add(*one));
        let fits = if coded {
            planes
                .first()
                .is_some_and(|plane| guest.len(plane) >= total)
        } else {
            has_room(guest, planes, layout, per_plane)
        };
        if !fits {
            return Ok(None);
        }
        let offsets: Vec<usize> = layout.planes().iter().map(|plane| plane.offset).collect();
        let written = output.write(layout, &mut |plane, offset, bytes| {
            let (buffer, offset) = if coded {
                (planes.first(), offset)
            } else if per_plane {
                (planes.get(plane), offset)
            } else {
                let begin = offsets.get(plane).copied().unwrap_or(usize::MAX);
                (planes.first(), begin.saturating_add(offset))
            };
            let buffer = buffer.ok_or(PutError::Memory)?;
            if guest.write(buffer, offset, bytes) {
                Ok(())
            } else {
                Err(PutError::Memory)
            }
        });
        let copies = match written {
            Ok(copies) => copies,
            Err(PutError::Memory) => return Ok(None),
            Err(PutError::Codec(reason)) => return Err(reason),
        };
        self.session.delivered(copies);
        let mut done = Done {
            end: false,
            key: output.is_key(),
            timestamp: output.timestamp(),
            sizes: [0; MAX_PLANES],
        };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        if per_plane && !coded {
            for (size, bytes) in done.sizes.iter_mut().zip(bytes) {
                *size = small(bytes);
            }
        } else if let Some(size) = done.sizes.first_mut() {
            *size = small(total);
        }
        Ok(Some(done))
    }

    fn deliver_end(&mut self, out: &mut Outbox) -> bool {
        let Some(Waiting::Resource { ticket, .. }) = self.output.take() else {
            return false;
        };
        self.drain = Drain::None;
        let done = Done {
            end: true,
            ..Done::default()
        };
        out.answer(ticket, self.id, Answer::Done(done));
        true
    }

    /// Ends it by its driver's wish.
    pub(super) fn end(&mut self, out: &mut Outbox) {
        self.note_counters();
        self.close(&Answer::Done(Done::default()), Answer::Ok, out);
    }

    /// Ends it with an error.
    pub(super) fn fail(&mut self, reason: &str, out: &mut Outbox) {
        log::warn!("stream {} has failed: {reason}", self.id);
        self.failed = true;
        self.note_counters();
        self.session.failed(reason);
        let refused = Answer::Refused(Refusal::InvalidOperation);
        self.close(&refused, refused.clone(), out);
        self.input.resources.clear();
        self.output.resources.clear();
        out.events.push((self.id, Event::Error));
    }

    fn close(&mut self, resource: &Answer, flush: Answer, out: &mut Outbox) {
        for queue in Queue::BOTH {
            self.give_back(queue, resource, out);
        }
        for ticket in std::mem::take(&mut self.flushing) {
            out.answer(ticket, self.id, flush.clone());
        }
        self.coder = None;
        self.ready = None;
    }
}

/// Whether a picture fits.
fn has_room<G: Guest>(
    guest: &G,
    planes: &[G::Buffer],
    layout: &agl_virtio_codec::Layout,
    per_plane: bool,
) -> bool {
    if !per_plane {
        return planes
            .first()
            .is_some_and(|plane| guest.len(plane) >= layout.bytes());
    }
    let needed = layout.planes();
    planes.len() >= needed.len()
        && planes
            .iter()
            .zip(&needed)
            .all(|(buffer, plane)| guest.len(buffer) >= plane.size())
}

impl<G: Guest> Drop for Stream<G> {
    fn drop(&mut self) {
        self.session.close();
    }
}
