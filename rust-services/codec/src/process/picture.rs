// SPDX-License-Identifier: Apache-2.0

//! A picture that a worker shows: it stays where the worker has drawn it until it was written to its
//! owner's memory.

use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory};

use super::link::Mouth;
use super::message::Command;
use crate::coder::{Output, Put, PutError, StoredPicture};
use crate::layout::{Layout, Size};
use crate::picture::{Picture, WriteError};
use crate::planes::{MOST_SIDE, Planes, Rows};

/// A worker may use this place for nothing else meanwhile.
pub(super) struct Lease {
    pub(super) mouth: Mouth,
    pub(super) place: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let place = self.place;
        self.mouth.tell(&Command::Free { place });
    }
}

/// Where pictures lie.
pub(super) struct Place {
    /// Of all outputs of the session.
    pub(super) memory: Arc<MmapRegion>,
    /// Where this one's place is in it, and its bytes.
    pub(super) begin: usize,
    pub(super) size: usize,
    pub(super) _lease: Lease,
}

/// A picture of a worker.
pub(super) struct RemotePicture {
    place: Place,
    stored: StoredPicture,
    timestamp: u64,
    key: bool,
    /// How often it was copied to get there.
    copied: u32,
}

impl RemotePicture {
    /// Nothing where it cannot be what it is said to be.
    pub(super) fn new(
        place: Place,
        stored: &StoredPicture,
        (timestamp, key): (u64, bool),
        copied: u32,
    ) -> Option<Self> {
        let Size { width, height } = stored.size;
        let shape = Layout::packed(stored.format, stored.size, 1);
        if stored.size.pixels() == 0
            || width.max(height) > MOST_SIDE
            || stored.planes.len() != shape.format.planes()
            || stored.bytes > place.size
        {
            return None;
        }
        for (plane, (offset, stride)) in shape.planes().iter().zip(&stored.planes) {
            let end = offset.checked_add(stride.checked_mul(plane.rows)?)?;
            if *stride < plane.stride || end > stored.bytes {
                return None;
            }
        }
        Some(Self {
            place,
            stored: stored.clone(),
            timestamp,
            key,
            copied,
        })
    }

    fn planes(&self) -> Option<Planes<'_>> {
        let shape = Layout::packed(self.stored.format, self.stored.size, 1);
        let rows = |(plane, (offset, stride)): (crate::Plane, &(usize, usize))| {
            let begin = self.place.begin.checked_add(*offset)?;
            let len = stride.checked_mul(plane.rows)?;
            let bytes = self.place.memory.get_slice(begin, len).ok()?;
            Some(Rows::shared(bytes, *stride))
        };
        let each = shape.planes().into_iter().zip(&self.stored.planes);
        Some(Planes {
            format: self.stored.format,
            planes: each.map(rows).collect::<Option<_>>()?,
        })
    }

    /// A copy of it in this process, for what is calculated of it.
    fn fetch(&self) -> Option<Picture> {
        let place = self
            .place
            .memory
            .get_slice(self.place.begin, self.stored.bytes);
        let mut bytes = vec![0; self.stored.bytes];
        place.ok()?.copy_to(bytes.as_mut_slice());
        let note = (self.timestamp, self.key);
        Picture::of_bytes(bytes, &self.stored, note, self.copied.saturating_add(1))
    }
}

impl std::fmt::Debug for RemotePicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotePicture")
            .field("stored", &self.stored)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

impl Output for RemotePicture {
    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn is_key(&self) -> bool {
        self.key
    }

    fn sizes(&self, layout: &Layout) -> Vec<usize> {
        layout.planes().iter().map(crate::Plane::size).collect()
    }

    fn write(&self, layout: &Layout, put: &mut Put<'_>) -> Result<u32, PutError> {
        let lost = || PutError::Codec("the codec's picture cannot be read".to_owned());
        if !layout.format.is_subsampled() {
            return Output::write(&self.fetch().ok_or_else(lost)?, layout, put);
        }
        if !layout.holds(self.stored.size) {
            let error = WriteError::<PutError>::TooSmall {
                size: self.stored.size,
                room: layout.size,
            };
            return Err(PutError::Codec(error.to_string()));
        }
        let planes = self.planes().ok_or_else(lost)?;
        planes.write(layout, self.stored.size, &mut |plane, at, run: &[u8]| {
            put(plane, at, run)
        })?;
        Ok(self.copied.saturating_add(1))
    }
}
