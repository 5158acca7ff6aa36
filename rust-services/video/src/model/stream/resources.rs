// SPDX-License-Identifier: Apache-2.0

//! The memory that a driver has given to a queue, and what waits there.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{Access, Guest, Ticket};
use crate::wire::MemoryType;

/// Memory of a resource.
pub(super) struct Resource<B> {
    pub(super) planes: Vec<B>,
    pub(super) queued: bool,
}

/// What waits in a queue.
pub(super) enum Waiting {
    Resource {
        ticket: Ticket,
        id: u32,
        timestamp: u64,
        bytes: u32,
    },
    /// Of the input only: what came before is to come out, then an end.
    Drain,
}

pub(super) struct Side<B> {
    pub(super) memory: MemoryType,
    pub(super) resources: BTreeMap<u32, Resource<B>>,
    pub(super) waiting: VecDeque<Waiting>,
}

impl<B> Side<B> {
    pub(super) fn new(memory: MemoryType) -> Self {
        Self {
            memory,
            resources: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Planes that lie in objects.
    pub(super) fn objects(&self) -> usize {
        match self.memory {
            MemoryType::GuestPages => 0,
            MemoryType::Objects => {
                let planes = self.resources.values().map(|one| one.planes.len());
                planes.fold(0, usize::saturating_add)
            }
        }
    }

    pub(super) fn has_queued(&self) -> bool {
        self.resources.values().any(|resource| resource.queued)
    }

    /// Takes the first one; a resource is no longer queued then.
    pub(super) fn take(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        if let Waiting::Resource { id, .. } = first {
            if let Some(resource) = self.resources.get_mut(&id) {
                resource.queued = false;
            }
        }
        Some(first)
    }
}

/// Does what touches these planes: some memory is told before and after. Nothing where one of them cannot be
/// touched now.
pub(super) fn touching<G: Guest, T>(
    guest: &G,
    planes: &[G::Buffer],
    access: Access,
    work: impl FnOnce() -> T,
) -> Option<T> {
    let begun = planes.iter().take_while(|plane| guest.begin(plane, access));
    let begun = begun.count();
    let done = (begun == planes.len()).then(work);
    for plane in planes.iter().take(begun) {
        guest.end(plane, access);
    }
    done
}

/// Whether a picture fits.
pub(super) fn has_room<G: Guest>(
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
