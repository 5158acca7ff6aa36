// SPDX-License-Identifier: Apache-2.0

//! One stream: its resources, what waits, and its codec.

mod imports;
mod input;
mod output;
mod queues;
mod resources;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use agl_virtio_codec::{Codec, EncoderSettings, Size};
use agl_virtio_service::limited;

use super::format::Chosen;
use super::{Function, Guest, Outbox, Shared, Ticket, controls};
use crate::coder::{Codecs, Coder, Output};
use crate::statistics::Session;
use crate::wire::{Answer, Command, Done, Event, MemoryType, Planes, Queue, Refusal};

use imports::Imports;
use resources::Side;

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
    /// Resources whose objects are being looked up.
    imports: Imports<G::Buffer>,
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
    pub fn new(
        id: u32,
        codec: Codec,
        [input, output]: [MemoryType; 2],
        tag: &str,
        shared: &Shared,
    ) -> Self {
        Self {
            id,
            function: shared.function,
            chosen: Chosen::new(codec, &shared.formats),
            settings: EncoderSettings::default(),
            input: Side::new(input),
            output: Side::new(output),
            imports: Imports::default(),
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
            Command::Attach {
                queue,
                id,
                planes: Planes::Pages(planes),
            } => self.attach(guest, queue, id, &planes),
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
            Command::Attach { .. }
            | Command::QueryCapability(_)
            | Command::QueryControl { .. }
            | Command::Create { .. }
            | Command::Destroy => Err(Refusal::InvalidOperation),
        };
        out.answer(ticket, self.id, answer.unwrap_or_else(Answer::Refused));
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
            self.session.runs_in(coder.process());
        }
    }

    /// Ends it by its driver's wish.
    pub(super) fn end(&mut self, out: &mut Outbox) {
        self.note_counters();
        self.close(&Answer::Done(Done::default()), Answer::Ok, out);
    }

    /// Ends it with an error.
    pub(super) fn fail(&mut self, reason: &str, out: &mut Outbox) {
        limited!(log::Level::Warn, "stream {} has failed: {reason}", self.id);
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
        for ticket in self.imports.give_up() {
            out.refuse(ticket, self.id, Refusal::InvalidOperation);
        }
        self.coder = None;
        self.ready = None;
    }
}

impl<G: Guest> Drop for Stream<G> {
    fn drop(&mut self) {
        self.session.close();
    }
}
