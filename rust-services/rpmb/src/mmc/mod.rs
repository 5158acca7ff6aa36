// SPDX-License-Identifier: Apache-2.0

//! The RPMB partition of an eMMC, or anything that takes the same requests: in a guest, the
//! character device of the driver `virtio_rpmb`.

mod ioctl;
pub mod neighbours;
pub mod passthrough;
pub mod region;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

pub use ioctl::MOST_BYTES;

use crate::wire::{Frame, RequestType};

/// What answers sequences of frames.
pub trait Card: Send {
    /// Sends a request, with a wish for its result where there is one, and gets the answer.
    ///
    /// # Errors
    /// The card did not answer.
    fn exchange(
        &mut self,
        request: &[Frame],
        result_read: Option<&Frame>,
        answer: &mut [Frame],
    ) -> io::Result<()>;

    /// Keeps other processes away, as far as they ask.
    ///
    /// # Errors
    /// It cannot be locked.
    fn lock(&mut self, on: bool) -> io::Result<()>;
}

impl Card for File {
    fn exchange(
        &mut self,
        request: &[Frame],
        result_read: Option<&Frame>,
        answer: &mut [Frame],
    ) -> io::Result<()> {
        ioctl::exchange(self.as_fd(), request, result_read, answer)
    }

    fn lock(&mut self, on: bool) -> io::Result<()> {
        use rustix::fs::{FlockOperation, flock};
        let operation = if on {
            FlockOperation::LockExclusive
        } else {
            FlockOperation::Unlock
        };
        flock(self.as_fd(), operation).map_err(io::Error::from)
    }
}

/// The wish for a result, as both an eMMC and a virtio device take it.
#[must_use]
pub fn result_read() -> Frame {
    let mut frame = Frame::of(RequestType::ResultRead.code());
    frame.block_count.set(1);
    frame
}
