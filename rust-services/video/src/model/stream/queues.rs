// SPDX-License-Identifier: Apache-2.0

//! What a driver does with its queues: resources come and go, wait, and are asked back.

use super::resources::{Resource, Side, Waiting, has_room};
use super::{Drain, Stream};
use crate::model::format::{MOST_BUFFERS, is_coded};
use crate::model::{Function, Guest, Outbox, Ticket};
use crate::wire::{Answer, Done, MAX_PLANES, Queue, Refusal, flag};

/// Coded bytes in one buffer, at most.
const MOST_CODED: usize = 64 << 20;

impl<G: Guest> Stream<G> {
    pub(super) fn side(&mut self, queue: Queue) -> &mut Side<G::Buffer> {
        match queue {
            Queue::Input => &mut self.input,
            Queue::Output => &mut self.output,
        }
    }

    /// Whether a resource of so many planes may be attached now.
    pub(super) fn may_attach(
        &mut self,
        queue: Queue,
        id: u32,
        planes: usize,
    ) -> Result<(), Refusal> {
        let coming = self.imports.of(queue);
        let side = self.side(queue);
        if side.resources.get(&id).is_some_and(|old| old.queued) {
            return Err(Refusal::InvalidOperation);
        }
        let known = side.resources.len().saturating_add(coming);
        if known >= MOST_BUFFERS as usize && !side.resources.contains_key(&id) {
            return Err(Refusal::OutOfMemory);
        }
        if planes == 0 || planes > MAX_PLANES {
            return Err(Refusal::InvalidParameter);
        }
        Ok(())
    }

    pub(super) fn attach(
        &mut self,
        guest: &G,
        queue: Queue,
        id: u32,
        planes: &[Vec<(u64, u32)>],
    ) -> Result<Answer, Refusal> {
        self.may_attach(queue, id, planes.len())?;
        let side = self.side(queue);
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

    pub(super) fn queue(
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

    pub(super) fn is_draining(&self) -> bool {
        self.drain != Drain::None
            || self
                .input
                .waiting
                .iter()
                .any(|one| matches!(one, Waiting::Drain))
    }

    pub(super) fn ask_drain(&mut self) -> Result<Answer, Refusal> {
        if self.is_draining() {
            return Err(Refusal::InvalidOperation);
        }
        self.input.waiting.push_back(Waiting::Drain);
        Ok(Answer::Ok)
    }

    pub(super) fn detach(&mut self, queue: Queue) -> Result<Answer, Refusal> {
        let coming = self.imports.of(queue);
        let side = self.side(queue);
        if side.has_queued() || coming > 0 {
            return Err(Refusal::InvalidOperation);
        }
        side.resources.clear();
        Ok(Answer::Ok)
    }

    /// Gives all resources of a queue back as they are. The drains among them are counted.
    pub(super) fn give_back(&mut self, queue: Queue, answer: &Answer, out: &mut Outbox) -> bool {
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

    pub(super) fn clear(
        &mut self,
        ticket: Ticket,
        queue: Queue,
        out: &mut Outbox,
    ) -> Option<Answer> {
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
}
