// SPDX-License-Identifier: Apache-2.0

//! Resources in the guest's memory, and in objects of other devices.

use std::os::fd::OwnedFd;

use virtio_device::{Memory, Object, ObjectAccess, ObjectError, Pages, limited};

use crate::model::{Access, Guest};

/// Bytes of a plane, at most.
const MOST_BYTES: usize = 256 << 20;
/// Runs of a plane, at most.
const MOST_RUNS: usize = 1 << 17;

/// Memory of a plane.
#[derive(Debug)]
pub enum Buffer {
    /// In the guest's.
    Pages(Pages),
    /// In another device's.
    Object(Object),
}

impl Buffer {
    /// The memory of an object that was found.
    ///
    /// # Errors
    /// As [`Object::new`].
    pub(crate) fn of_object(found: OwnedFd) -> Result<Self, ObjectError> {
        Object::new(found, MOST_BYTES).map(Self::Object)
    }
}

impl From<Access> for ObjectAccess {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }
}

impl Guest for Memory {
    type Buffer = Buffer;

    fn buffer(&self, runs: &[(u64, u32)]) -> Option<Buffer> {
        if runs.len() > MOST_RUNS {
            return None;
        }
        let pages = Pages::new(self, joined(runs)).ok()?;
        let fits = !pages.is_empty() && pages.len() <= MOST_BYTES;
        fits.then_some(Buffer::Pages(pages))
    }

    fn len(&self, buffer: &Buffer) -> usize {
        match buffer {
            Buffer::Pages(pages) => pages.len(),
            Buffer::Object(object) => object.len(),
        }
    }

    fn begin(&self, buffer: &Buffer, access: Access) -> bool {
        let Buffer::Object(object) = buffer else {
            return true;
        };
        let begun = object.begin(access.into());
        if let Err(error) = &begun {
            limited!(log::Level::Warn, "an object cannot be used now: {error}");
        }
        begun.is_ok()
    }

    fn end(&self, buffer: &Buffer, access: Access) {
        if let Buffer::Object(object) = buffer {
            object.end(access.into());
        }
    }

    fn read(&self, buffer: &Buffer, offset: usize, bytes: &mut [u8]) -> bool {
        match buffer {
            Buffer::Pages(pages) => pages.read(self, offset, bytes).is_ok(),
            Buffer::Object(object) => object.read(offset, bytes).is_ok(),
        }
    }

    fn write(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> bool {
        match buffer {
            Buffer::Pages(pages) => pages.write(self, offset, bytes).is_ok(),
            Buffer::Object(object) => object.write(offset, bytes).is_ok(),
        }
    }
}

/// Runs that follow each other become one: each access looks for its run from the first.
fn joined(runs: &[(u64, u32)]) -> Vec<(u64, u32)> {
    let mut joined: Vec<(u64, u32)> = Vec::with_capacity(runs.len());
    for (address, len) in runs {
        let grown = joined.last().and_then(|(last, so_far)| {
            let end = last.checked_add((*so_far).into())?;
            (end == *address)
                .then(|| so_far.checked_add(*len))
                .flatten()
        });
        match (grown, joined.last_mut()) {
            (Some(len), Some(last)) => last.1 = len,
            _ => joined.push((*address, *len)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_follow_each_other_become_one() {
        let runs = [(0x1000, 0x1000), (0x2000, 16), (0x3000, 1), (0x3001, 2)];
        assert_eq!(joined(&runs), [(0x1000, 0x1010), (0x3000, 3)]);
        assert_eq!(joined(&[(u64::MAX, 1), (0, 1)]), [(u64::MAX, 1), (0, 1)]);
        let long = [(0, u32::MAX), (u64::from(u32::MAX), 1)];
        assert_eq!(joined(&long), long);
    }
}
