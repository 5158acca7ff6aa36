// SPDX-License-Identifier: Apache-2.0

//! Resources in objects of other devices, while those are looked up.
//!
//! Somebody else answers, so the driver's request waits; no other request does.

use super::Stream;
use super::resources::Resource;
use crate::model::{Guest, Outbox, Ticket};
use crate::wire::{Answer, MemoryType, Queue, Refusal, Uuid};

/// A resource of which not all objects have been found.
struct Import<B> {
    ticket: Ticket,
    queue: Queue,
    id: u32,
    planes: Vec<Option<B>>,
}

/// Those of a stream.
pub(super) struct Imports<B>(Vec<Import<B>>);

impl<B> Default for Imports<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B> Imports<B> {
    /// How many are on their way to a queue.
    pub(super) fn of(&self, queue: Queue) -> usize {
        self.0.iter().filter(|one| one.queue == queue).count()
    }

    /// Forgets all. The requests that waited for them.
    pub(super) fn give_up(&mut self) -> Vec<Ticket> {
        self.0.drain(..).map(|one| one.ticket).collect()
    }

    fn position(&self, ticket: Ticket) -> Option<usize> {
        self.0.iter().position(|one| one.ticket == ticket)
    }
}

impl<G: Guest> Stream<G> {
    /// Where the resources of a queue lie.
    pub(in crate::model) fn memory(&self, queue: Queue) -> MemoryType {
        match queue {
            Queue::Input => self.input.memory,
            Queue::Output => self.output.memory,
        }
    }

    /// Objects that it has or waits for.
    pub(in crate::model) fn objects(&self) -> usize {
        let coming = self.imports.0.iter().map(|one| one.planes.len());
        let held = [self.input.objects(), self.output.objects()];
        coming.chain(held).fold(0, usize::saturating_add)
    }

    /// Begins to attach a resource.
    pub(in crate::model) fn import(
        &mut self,
        ticket: Ticket,
        (queue, id): (Queue, u32),
        objects: &[Uuid],
    ) -> Result<(), Refusal> {
        let known = |one: &Import<_>| one.queue == queue && one.id == id;
        if self.imports.0.iter().any(known) {
            return Err(Refusal::InvalidOperation);
        }
        self.may_attach(queue, id, objects.len())?;
        // What it was before is not to be written into meanwhile.
        self.side(queue).resources.remove(&id);
        self.imports.0.push(Import {
            ticket,
            queue,
            id,
            planes: objects.iter().map(|_| None).collect(),
        });
        Ok(())
    }

    pub(in crate::model) fn waits_for(&self, ticket: Ticket) -> bool {
        self.imports.position(ticket).is_some()
    }

    /// The object of a plane was found, or was not.
    pub(in crate::model) fn found(
        &mut self,
        ticket: Ticket,
        plane: usize,
        found: Result<G::Buffer, Refusal>,
        out: &mut Outbox,
    ) {
        let Some(at) = self.imports.position(ticket) else {
            return;
        };
        let Some(import) = self.imports.0.get_mut(at) else {
            return;
        };
        match (found, import.planes.get_mut(plane)) {
            (Ok(buffer), Some(place)) => *place = Some(buffer),
            (Ok(_), None) => return,
            (Err(refusal), _) => {
                self.imports.0.swap_remove(at);
                return out.refuse(ticket, self.id, refusal);
            }
        }
        if import.planes.iter().any(Option::is_none) {
            return;
        }
        let import = self.imports.0.swap_remove(at);
        let resource = Resource {
            planes: import.planes.into_iter().flatten().collect(),
            queued: false,
        };
        let side = self.side(import.queue);
        side.resources.insert(import.id, resource);
        out.answer(ticket, self.id, Answer::Ok);
    }
}
