// SPDX-License-Identifier: Apache-2.0

//! What a worker's outputs are made of: the memory they lie in, looked at with the distrust that a worker
//! deserves.

use std::sync::Arc;

use vm_memory::MmapRegion;

use super::link::Mouth;
use super::memory::{PLACES, Places};
use super::picture::{Lease, Place, RemotePicture};
use crate::Size;
use crate::coder::{Output, Stored};
use crate::encoder::AccessUnit;
use crate::planes::most_stored;

/// The outputs of a session.
pub(super) struct Outputs {
    pub(super) places: Places,
    mouth: Mouth,
    /// All places, once there was a picture in one.
    mapped: Option<Arc<MmapRegion>>,
}

impl Outputs {
    /// In these places, of the worker that is spoken to so.
    pub(super) fn new(places: Places, mouth: Mouth) -> Self {
        Self {
            places,
            mouth,
            mapped: None,
        }
    }

    /// What lies in a place, with its timestamp and whether it is a key; its worker may use the place again
    /// when that is dropped. Nothing where it makes no sense, or is a picture of another size than was
    /// `announced`.
    pub(super) fn fetch(
        &mut self,
        place: usize,
        stored: &Stored,
        announced: Option<Size>,
        (timestamp, key): (u64, bool),
    ) -> Option<Box<dyn Output>> {
        let lease = Lease {
            mouth: self.mouth.clone(),
            place,
        };
        Some(match stored {
            Stored::Unit { bytes } => {
                let read = self.places.read(place, *bytes).ok()?;
                Box::new(AccessUnit::of_bytes(read, timestamp, key))
            }
            Stored::Picture(stored) => {
                // The owner has seen to that size, and so to how much is to be read.
                let is_such = announced == Some(stored.size);
                if !is_such || stored.bytes > most_stored(stored.format, stored.size) {
                    return None;
                }
                let copied = u32::from(place < PLACES);
                let place = Place {
                    begin: usize::try_from(self.places.begin(place)?).ok()?,
                    size: usize::try_from(self.places.size()).ok()?,
                    memory: self.mapped()?,
                    _lease: lease,
                };
                Box::new(RemotePicture::new(place, stored, (timestamp, key), copied)?)
            }
        })
    }

    fn mapped(&mut self) -> Option<Arc<MmapRegion>> {
        if self.mapped.is_none() {
            self.mapped = self.places.map().ok().map(Arc::new);
        }
        self.mapped.clone()
    }
}
