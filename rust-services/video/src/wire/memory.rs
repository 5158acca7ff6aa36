// SPDX-License-Identifier: Apache-2.0

//! Where the memory of a resource lies, as a driver says it.

use std::fmt;

use super::bytes::Reader;
use super::{MAX_PLANES, MemoryType, Queue, Refusal};

/// What a stream's queue was made with; nothing where there is no such stream.
pub type MemoryOf<'a> = &'a dyn Fn(u32, Queue) -> Option<MemoryType>;
/// The same of the stream that a request is for.
pub(super) type OfQueue<'a> = &'a dyn Fn(Queue) -> Result<MemoryType, Refusal>;

/// The name of an object that a device has exported (VIRTIO 1.4, section 2.11), as RFC 4122 writes
/// its bytes.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                to.write_str("-")?;
            }
            write!(to, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

/// The planes of a resource.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Planes {
    /// For each plane runs of the guest's memory: address, bytes.
    Pages(Vec<Vec<(u64, u32)>>),
    /// For each plane the object in which it lies, from its beginning.
    Objects(Vec<Uuid>),
}

impl Planes {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Pages(planes) => planes.len(),
            Self::Objects(planes) => planes.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Names up to the end of a request, or of as many planes as there may be.
pub(super) fn objects(from: &mut Reader<'_>) -> Result<Vec<Uuid>, Refusal> {
    let mut objects = Vec::new();
    while !from.is_empty() && objects.len() < MAX_PLANES {
        objects.push(Uuid(from.array()?));
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_everybody_writes_it() {
        let mut bytes = [0; 16];
        for (at, byte) in (0..).zip(&mut bytes) {
            *byte = at * 17;
        }
        let name = Uuid(bytes).to_string();
        assert_eq!(name, "00112233-4455-6677-8899-aabbccddeeff");
    }
}
