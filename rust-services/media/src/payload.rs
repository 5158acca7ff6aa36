// SPDX-License-Identifier: Apache-2.0

//! The payload of an ioctl: what follows the command, and what follows the answer's header
//! (VIRTIO 1.4, 5.22.6.1.4).

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::v4l2::{BufType, Buffer, Memory, Plane};
use crate::wire::{MAX_PLANES, SgEntry};

/// Most bytes of one plane: above the largest picture that there is, below what would need a list
/// of pages that fills no request.
pub const MAX_PLANE_BYTES: u32 = 64 << 20;
/// Most runs of pages in one request: a picture of 64 MiB in single pages.
const MAX_RUNS: usize = 16 * 1024;

/// What a driver has sent, read from its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All that follows the command.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What was not taken yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next value.
    ///
    /// # Errors
    /// EINVAL where it is cut off.
    pub fn take<T: FromBytes>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// The next values.
    ///
    /// # Errors
    /// EINVAL where they are cut off.
    pub fn take_all<T: FromBytes>(&mut self, count: usize) -> Result<Vec<T>, Errno> {
        // Before memory is reserved for what cannot be there.
        let need = count.checked_mul(size_of::<T>()).ok_or(Errno::INVAL)?;
        if need > self.0.len() {
            return Err(Errno::INVAL);
        }
        (0..count).map(|_| self.take()).collect()
    }

    /// The runs of guest pages that hold `len` bytes; what the last one has beyond is cut off.
    ///
    /// # Errors
    /// EINVAL where the list ends before, or has too many runs.
    fn take_pages(&mut self, len: u32) -> Result<Vec<(u64, u32)>, Errno> {
        let mut left = len;
        let mut runs = Vec::new();
        while left > 0 {
            let entry: SgEntry = self.take()?;
            if entry.len == 0 || runs.len() >= MAX_RUNS {
                return Err(Errno::INVAL);
            }
            let now = entry.len.min(left);
            runs.push((entry.start, now));
            left = left.saturating_sub(now);
        }
        Ok(runs)
    }
}

/// A buffer as a driver describes it.
#[derive(Clone, Debug)]
pub struct BufferRequest {
    /// Its own words.
    pub buffer: Buffer,
    /// Of which queue.
    pub type_: BufType,
    /// Its planes: none in the queue of a single-planar device.
    pub planes: Vec<Plane>,
}

impl BufferRequest {
    /// Reads all but the pages.
    ///
    /// # Errors
    /// EINVAL for what cannot be.
    pub fn take(input: &mut Input<'_>) -> Result<Self, Errno> {
        let buffer: Buffer = input.take()?;
        let type_ = BufType::parse(buffer.type_)?;
        let planes = if type_.is_mplane() {
            let count = usize::try_from(buffer.length).unwrap_or(usize::MAX);
            if count == 0 || count > MAX_PLANES {
                return Err(Errno::INVAL);
            }
            input.take_all(count)?
        } else {
            Vec::new()
        };
        Ok(Self {
            buffer,
            type_,
            planes,
        })
    }

    /// Reads the pages of each plane, which follow.
    ///
    /// # Errors
    /// EINVAL for a plane that is too large or not covered.
    pub fn take_pages(&self, input: &mut Input<'_>) -> Result<Vec<Vec<(u64, u32)>>, Errno> {
        if Memory::parse(self.buffer.memory)? != Memory::SharedPages {
            return Err(Errno::INVAL);
        }
        let lengths: Vec<u32> = if self.type_.is_mplane() {
            self.planes.iter().map(|plane| plane.length).collect()
        } else {
            vec![self.buffer.length]
        };
        lengths
            .into_iter()
            .map(|len| match len {
                1..=MAX_PLANE_BYTES => input.take_pages(len),
                _ => Err(Errno::INVAL),
            })
            .collect()
    }

    /// As it is told back.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let mut answer = Answer::with(&self.buffer);
        for plane in &self.planes {
            answer = answer.and(plane);
        }
        answer
    }
}

/// What the driver is told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    /// Why not, where it was not done.
    pub error: Option<Errno>,
    /// The payload, where there is one.
    pub payload: Vec<u8>,
}

impl Answer {
    /// It was done, and that is all there is to say.
    #[must_use]
    pub fn done() -> Self {
        Self::default()
    }

    /// It was done.
    #[must_use]
    pub fn with<T: IntoBytes + Immutable>(value: &T) -> Self {
        Self::default().and(value)
    }

    /// And more of it.
    #[must_use]
    pub fn and<T: IntoBytes + Immutable>(mut self, value: &T) -> Self {
        self.payload.extend_from_slice(value.as_bytes());
        self
    }

    /// It was not done, and the payload says why.
    #[must_use]
    pub fn but(mut self, error: Option<Errno>) -> Self {
        self.error = error;
        self
    }
}

impl From<Errno> for Answer {
    fn from(error: Errno) -> Self {
        Self::default().but(Some(error))
    }
}

impl From<Result<Answer, Errno>> for Answer {
    fn from(result: Result<Answer, Errno>) -> Self {
        result.unwrap_or_else(Self::from)
    }
}

/// Runs an ioctl of the kind that changes its payload.
///
/// # Errors
/// EINVAL where the payload is cut off, or what `run` says.
pub fn change<T: FromBytes + IntoBytes + Immutable>(
    mut input: Input<'_>,
    run: impl FnOnce(&mut T) -> Result<(), Errno>,
) -> Result<Answer, Errno> {
    let mut value: T = input.take()?;
    run(&mut value)?;
    Ok(Answer::with(&value))
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn shared(length: u32, entries: &[(u64, u32)]) -> Vec<u8> {
        let mut buffer = Buffer::new_zeroed();
        (buffer.type_, buffer.memory, buffer.length) = (1, 2, length);
        let mut bytes = buffer.as_bytes().to_vec();
        for &(start, len) in entries {
            let reserved = 0;
            bytes.extend_from_slice(
                SgEntry {
                    start,
                    len,
                    reserved,
                }
                .as_bytes(),
            );
        }
        bytes
    }

    fn pages(bytes: &[u8]) -> Result<Vec<Vec<(u64, u32)>>, Errno> {
        let mut input = Input::new(bytes);
        BufferRequest::take(&mut input)?.take_pages(&mut input)
    }

    #[test]
    fn pages_are_taken_until_they_cover_the_buffer() {
        let bytes = shared(6000, &[(0x1000, 4096), (0x9000, 4096), (7, 7)]);
        assert_eq!(
            pages(&bytes),
            Ok(vec![vec![(0x1000, 4096), (0x9000, 1904)]])
        );
    }

    #[test]
    fn pages_that_do_not_cover_the_buffer_are_refused() {
        assert_eq!(pages(&shared(6000, &[(0, 4096)])), Err(Errno::INVAL));
        assert_eq!(
            pages(&shared(6000, &[(0, 4096), (0, 0)])),
            Err(Errno::INVAL)
        );
        assert_eq!(pages(&shared(0, &[(0, 4096)])), Err(Errno::INVAL));
        assert_eq!(
            pages(&shared(u32::MAX, &[(0, u32::MAX)])),
            Err(Errno::INVAL)
        );
        let single_bytes = vec![(0, 1); MAX_RUNS + 1];
        assert_eq!(pages(&shared(20_000, &single_bytes)), Err(Errno::INVAL));
    }

    #[test]
    fn planes_that_cannot_be_are_refused() {
        for count in [0, 9, u32::MAX] {
            let mut buffer = Buffer::new_zeroed();
            (buffer.type_, buffer.length) = (9, count);
            let bytes = [buffer.as_bytes(), &[0; 1024]].concat();
            assert!(
                BufferRequest::take(&mut Input::new(&bytes)).is_err(),
                "{count}"
            );
        }
    }
}
