// SPDX-License-Identifier: Apache-2.0

//! What a media device does: a camera, a codec. The device itself knows commands, sessions and
//! events, and nothing of pictures.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use virtio_device::{Memory, Waker};

use crate::memory::{Budget, PlaneMemory};
use crate::outbox::{Outbox, Session};
use crate::payload::{Answer, Input};
use crate::v4l2::Ioctl;

/// What a function works with during one call.
pub struct Context<'a> {
    /// Guest memory as it is now. No function keeps it.
    pub memory: &'a Memory,
    /// What MMAP buffers may have; nothing where the VMM cannot show them to the guest.
    pub budget: Option<&'a Budget>,
    /// The host's monotonic clock.
    pub now: Duration,
    /// Where events go.
    pub outbox: &'a mut Outbox,
}

/// A camera or a codec. All calls come from the queue thread.
pub trait Function: Send {
    /// V4L2_CAP_*.
    fn capabilities(&self) -> u32;

    /// May wake the queue thread, which then calls [`Function::turn`].
    fn attach(&mut self, waker: Waker);

    /// A session has begun.
    ///
    /// # Errors
    /// Why it may not.
    fn open(&mut self, session: Session) -> Result<(), Errno>;

    /// A session has ended: what it had is free.
    fn close(&mut self, session: Session, context: &mut Context<'_>);

    /// Runs an ioctl of a session.
    fn ioctl(
        &mut self,
        session: Session,
        ioctl: Ioctl,
        input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Answer;

    /// The plane of an MMAP buffer of this session that QUERYBUF told to be at `offset`.
    fn memory_at(&self, session: Session, offset: u32) -> Option<Arc<PlaneMemory>>;

    /// Does what is due: pictures that are ready or late. Sessions that cannot go on are returned.
    fn turn(&mut self, context: &mut Context<'_>) -> Vec<(Session, Errno)>;

    /// When [`Function::turn`] is to be called again, if nobody wakes the thread before.
    fn due(&self, now: Duration) -> Option<Duration>;

    /// What a successor of this process is to know.
    fn saved(&self) -> Vec<u8>;

    /// What a predecessor has saved; what makes no sense is ignored.
    fn restore(&mut self, saved: &[u8]);

    /// As after the start of the process.
    fn reset(&mut self);
}
