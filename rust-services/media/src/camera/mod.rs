// SPDX-License-Identifier: Apache-2.0

//! A camera: one stream of pictures, which one session has at a time, as with any camera of Linux.

pub mod controls;
#[cfg(feature = "gstreamer")]
pub mod gstreamer;
mod ioctls;
pub mod modes;
pub mod picture;
mod saved;
pub mod source;

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use virtio_device::{Pages, Waker};

use crate::controls::Controls;
use crate::function::{Context, Function};
use crate::memory::PlaneMemory;
use crate::outbox::{Outbox, Session};
use crate::payload::{Answer, Input};
use crate::queue::{Filled, Queue, Queued};
use crate::statistics::Statistics;
use crate::v4l2::{BufType, BufferFlags, Ioctl};

use modes::{Mode, Modes};
use source::{Source, SourceError, Taken};

/// VIDEO_CAPTURE, EXT_PIX_FORMAT, STREAMING.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0020_0000 | 0x0400_0000;

/// A camera.
pub struct Camera {
    name: String,
    modes: Modes,
    mode: Mode,
    controls: Controls,
    queue: Queue,
    source: Box<dyn Source>,
    /// The number of the first picture of a stream.
    first: Option<u64>,
    statistics: Arc<Statistics>,
}

impl Camera {
    /// A camera of this name that shows what the source has.
    #[must_use]
    pub fn new(
        name: String,
        modes: Modes,
        source: Box<dyn Source>,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self {
            name,
            mode: modes.first(),
            modes,
            controls: Controls::new(source.controls()),
            queue: queue(),
            source,
            first: None,
            statistics,
        }
    }

    fn start(&mut self, session: Session, now: Duration) -> Result<(), Errno> {
        let was = self.queue.streams();
        self.queue.start(session)?;
        if !was {
            self.first = None;
            self.source.start(self.mode, now);
            self.statistics.works(session, Some(self.mode.work()));
        }
        Ok(())
    }

    fn stop(&mut self, session: Session, outbox: &mut Outbox) -> Result<(), Errno> {
        self.queue.stop(session)?;
        outbox.forget_buffers(session, BufType::Capture.code());
        self.source.stop();
        self.statistics.works(session, None);
        Ok(())
    }

    /// Shows the picture that the source has to who streams.
    fn show(&mut self, number: u64, context: &mut Context<'_>) {
        let Some(session) = self.queue.owner() else {
            return;
        };
        let first = *self.first.get_or_insert(number);
        let sequence = u32::try_from(number.wrapping_sub(first) & u64::from(u32::MAX));
        // A driver that does not read events gets no more of them than it has buffers.
        let Some(queued) = self.queue.take() else {
            self.statistics.dropped();
            return;
        };
        let size = self.mode.layout().size;
        let whole = fill(&queued, size, &*self.source, context);
        let mut filled = Filled {
            sequence: sequence.unwrap_or(0),
            seconds: i64::try_from(context.now.as_secs()).unwrap_or(0),
            microseconds: context.now.subsec_micros().into(),
            field: crate::v4l2::format::FIELD_NONE,
            ..Filled::default()
        };
        if whole {
            filled.used = vec![u32::try_from(size).unwrap_or(0)];
            self.statistics.shown(size);
        } else {
            // The guest has taken the memory away, or the source has less than it said.
            filled.flags = BufferFlags::ERROR;
            filled.used = vec![0];
            self.statistics.damaged();
        }
        if let Some((buffer, planes)) = self.queue.give_back(queued.index, &filled) {
            context.outbox.buffer(session, buffer, &planes);
        }
    }
}

fn queue() -> Queue {
    Queue::new(BufType::Capture, BufferFlags::TIMESTAMP_MONOTONIC)
}

/// Copies the source's picture into the guest's pages, once. False where it does not fit.
fn fill(queued: &Queued, size: usize, source: &dyn Source, context: &Context<'_>) -> bool {
    let Some(pages) = queued.planes.first() else {
        return false;
    };
    copy(pages, size, context, |offset| source.run_at(offset))
}

fn copy<'a>(
    pages: &Pages,
    size: usize,
    context: &Context<'_>,
    run_at: impl Fn(usize) -> &'a [u8],
) -> bool {
    let mut at = 0_usize;
    let copied = pages.slices(context.memory, 0, size, |slice| {
        let mut rest = slice;
        while !rest.is_empty() {
            let run = run_at(at);
            let now = run.len().min(rest.len());
            let Ok((head, tail)) = rest.split_at(now) else {
                return;
            };
            if now == 0 {
                return;
            }
            head.copy_from(run);
            at = at.saturating_add(now);
            rest = tail;
        }
    });
    copied.is_ok() && at == size
}

impl Function for Camera {
    fn capabilities(&self) -> u32 {
        CAPABILITIES
    }

    fn attach(&mut self, waker: Waker) {
        self.source.attach(waker);
    }

    fn open(&mut self, _session: Session) -> Result<(), Errno> {
        Ok(())
    }

    fn close(&mut self, session: Session, context: &mut Context<'_>) {
        if self.queue.owner() == Some(session) {
            // Nothing is refused to the owner.
            let _ = self.stop(session, context.outbox);
            self.queue.release();
        }
    }

    fn ioctl(
        &mut self,
        session: Session,
        ioctl: Ioctl,
        input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Answer {
        self.run(session, ioctl, input, context)
    }

    fn memory_at(&self, session: Session, offset: u32) -> Option<Arc<PlaneMemory>> {
        self.queue.memory_at(session, offset)
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Vec<(Session, Errno)> {
        if !self.queue.streams() {
            return Vec::new();
        }
        match self.source.take(context.now, &self.controls) {
            Taken::Nothing => Vec::new(),
            Taken::Picture(number) => {
                self.show(number, context);
                Vec::new()
            }
            Taken::Failed(SourceError(reason)) => {
                log::error!("no more pictures: {reason}");
                self.source.stop();
                let owner = self.queue.owner().into_iter();
                owner.map(|session| (session, Errno::IO)).collect()
            }
        }
    }

    fn due(&self, now: Duration) -> Option<Duration> {
        let streams = self.queue.streams();
        streams.then(|| self.source.due(now)).flatten()
    }

    fn saved(&self) -> Vec<u8> {
        saved::write(self.mode, &self.controls)
    }

    fn restore(&mut self, saved: &[u8]) {
        saved::read(saved, &self.modes, &mut self.mode, &mut self.controls);
    }

    fn reset(&mut self) {
        self.source.stop();
        self.queue = queue();
        self.mode = self.modes.first();
        self.controls = Controls::new(self.source.controls());
    }
}
