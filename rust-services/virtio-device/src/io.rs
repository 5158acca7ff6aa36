// SPDX-License-Identifier: Apache-2.0

//! What a [`Handler`](crate::Handler) works with: its queues, guest memory, the clock, wake-ups.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use agl_virtio_relay::record::Record;
use rustix::event::epoll;

use crate::chain::Chain;
use crate::clock::{self, Timer};
use crate::crash::{CrashPoint, pass};
use crate::memory::Memory;
use crate::ring::{Popped, Ring};
use crate::stats::{DeviceStats, QueueStats};
use crate::vmm::{Answer, Asking, Request, Ticket, Vmm};
use crate::waker::Waker;

/// What woke a queue thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Token {
    /// The control side wants something.
    Control,
    /// The handler's deadline has passed.
    Deadline,
    /// A queue was kicked.
    Queue(u32),
    /// One of the handler's own descriptors or wakers.
    Handler(u32),
    /// The VMM has answered.
    Vmm,
}

impl Token {
    fn data(self) -> epoll::EventData {
        let (kind, value) = match self {
            Self::Control => (0, 0),
            Self::Deadline => (1, 0),
            Self::Queue(queue) => (2, queue),
            Self::Handler(token) => (3, token),
            Self::Vmm => (4, 0),
        };
        epoll::EventData::new_u64(u64::from(value) << 8 | kind)
    }

    pub(crate) fn from_data(data: epoll::EventData) -> Self {
        let data = data.u64();
        let value = u32::try_from(data >> 8).unwrap_or(u32::MAX);
        match data & 0xff {
            0 => Self::Control,
            1 => Self::Deadline,
            2 => Self::Queue(value),
            4 => Self::Vmm,
            _ => Self::Handler(value),
        }
    }
}

/// One queue of a thread.
pub(crate) enum Slot {
    /// No driver has set it up.
    Idle,
    /// It runs.
    Running(Active),
    /// Paused; its chains may be held.
    Frozen(Ring),
}

/// A running queue with its two event descriptors.
pub(crate) struct Active {
    pub(crate) ring: Ring,
    pub(crate) kick: OwnedFd,
    pub(crate) call: Option<OwnedFd>,
    /// Set aside until its next start, because its ring is corrupt.
    pub(crate) broken: bool,
    /// Chains that may still be taken in this turn: a busy driver does not starve other queues.
    pub(crate) budget: u16,
    /// Completed something that the driver was not told of yet.
    pub(crate) touched: bool,
}

/// The ground floor as a handler sees it. Lives on the queue thread.
pub struct Io {
    pub(crate) slots: Vec<Slot>,
    pub(crate) memory: Memory,
    pub(crate) generation: u32,
    pub(crate) features: u64,
    pub(crate) stats: DeviceStats,
    pub(crate) epoll: OwnedFd,
    timer: Timer,
    /// When the wake-up came that is being worked on.
    pub(crate) turn: Duration,
    record: Arc<Record>,
    asking: Asking,
    pub(crate) answers: Receiver<(Ticket, Answer)>,
}

impl Io {
    pub(crate) fn new(
        queues: usize,
        stats: DeviceStats,
        record: Arc<Record>,
        vmm: Vmm,
    ) -> io::Result<Self> {
        let (sender, answers) = channel();
        let asking = Asking {
            vmm,
            answers: sender,
            waker: Waker::new()?,
            next: 0,
        };
        let io = Self {
            slots: (0..queues).map(|_| Slot::Idle).collect(),
            memory: Memory::empty(),
            generation: 0,
            features: 0,
            stats,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            timer: Timer::new()?,
            turn: clock::now(),
            record,
            asking,
            answers,
        };
        io.add(&io.timer, Token::Deadline)?;
        io.add(&io.asking.waker, Token::Vmm)?;
        Ok(io)
    }

    /// Watches a descriptor edge triggered: nobody needs to read it to hear of the next event.
    pub(crate) fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, token.data(), flags)?)
    }

    /// Takes the next chain of `queue`, or `None` when there is none now, the queue does not run, or
    /// it has had its turn; then [`Handler::kicked`](crate::Handler::kicked) comes again by itself.
    pub fn pop(&mut self, queue: usize) -> Option<Chain> {
        loop {
            let Some(Slot::Running(active)) = self.slots.get_mut(queue) else {
                return None;
            };
            if active.broken || active.budget == 0 {
                return None;
            }
            let stats = self.stats.queue(queue);
            let popped = active.ring.pop(&self.memory, queue, self.generation);
            match popped {
                Ok(Popped::Chain(mut chain)) => {
                    chain.found = self.turn;
                    active.budget = active.budget.saturating_sub(1);
                    if let Some(stats) = stats {
                        stats.requests.add(1);
                        stats.bytes_read.add(chain.readable as u64);
                    }
                    return Some(chain);
                }
                Ok(Popped::Malformed(mut chain)) => {
                    chain.found = self.turn;
                    active.budget = active.budget.saturating_sub(1);
                    if let Some(stats) = stats {
                        stats.requests.add(1);
                    }
                    self.fail(chain, 0);
                }
                Ok(Popped::Empty) => return None,
                Err(broken) => {
                    active.broken = true;
                    let _ = epoll::delete(&self.epoll, &active.kick);
                    if stats.is_none_or(QueueStats::note_broken) {
                        log::warn!("queue {queue} is set aside until its next start: {broken}");
                    }
                    return None;
                }
            }
        }
    }

    /// Says that a chain which was held is being worked on now, in this turn of the handler: a death
    /// is blamed on it. [`Io::pop`] says it of what it returns.
    pub fn work_on(&mut self, chain: &Chain) {
        if let Some(Slot::Running(active)) = self.slots.get_mut(chain.queue) {
            active.ring.work_on(chain.head);
        }
    }

    /// Says that what was taken of `queue` waits from now on: no death is blamed on it. The end of the
    /// handler's turn says so too.
    pub fn rest(&mut self, queue: usize) {
        if let Some(Slot::Running(active)) = self.slots.get_mut(queue) {
            active.ring.rest();
        }
    }

    /// Gives a chain back with `written` bytes in its writable part. Chains from before a reset are
    /// dropped: they are not the driver's any more.
    pub fn complete(&mut self, chain: Chain, written: u32) {
        self.push(chain, written);
    }

    /// As [`Io::complete`], for a request that was wrong: counted as an error.
    pub fn fail(&mut self, chain: Chain, written: u32) {
        if let Some(stats) = self.stats.queue(chain.queue) {
            stats.errors.add(1);
        }
        self.push(chain, written);
    }

    fn push(&mut self, chain: Chain, written: u32) {
        if chain.generation != self.generation {
            return;
        }
        let (queue, found) = (chain.queue, chain.found);
        // A frozen ring takes nothing: what ends while a VM is paused must be kept by the handler.
        // One that is broken still gets back what was taken before.
        let Some(Slot::Running(active)) = self.slots.get_mut(queue) else {
            log::error!("a chain of queue {queue}, which does not run, was completed");
            return;
        };
        active.ring.push(chain, written);
        active.touched = true;
        if let Some(stats) = self.stats.queue(queue) {
            stats.completed.add(1);
            stats.bytes_written.add(u64::from(written));
            stats.latencies.add(clock::now().saturating_sub(found));
        }
    }

    /// Tells drivers of what was completed, once per queue.
    pub(crate) fn flush(&mut self) {
        // The first queue last: a device answers requests by it, and what belongs before an answer
        // (the notification of what a request has changed) comes by a later one.
        for (queue, slot) in self.slots.iter_mut().enumerate().rev() {
            let Slot::Running(active) = slot else {
                continue;
            };
            active.ring.rest();
            if std::mem::take(&mut active.touched) && active.ring.needs_signal() {
                pass(CrashPoint::BeforeCall);
                active.signal();
                if let Some(stats) = self.stats.queue(queue) {
                    stats.signals.add(1);
                }
            }
        }
    }

    /// Guest memory as it is during this call.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The feature bits that driver and device agreed on.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Whether `queue` runs: chains may be taken and completed.
    #[must_use]
    pub fn running(&self, queue: usize) -> bool {
        matches!(self.slots.get(queue), Some(Slot::Running(_)))
    }

    /// What outlives the service: settings, and words for what changes with every request. It may
    /// become another one before the first queue starts, so it is asked for anew each time.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    pub(crate) fn use_record(&mut self, record: Arc<Record>) {
        self.record = record;
    }

    /// Asks the VMM for something. Returns at once; the answer comes to
    /// [`Handler::answered`](crate::Handler::answered), and says so where there is nobody to ask. What
    /// is asked first is done first.
    pub fn ask(&mut self, request: Request) -> Ticket {
        self.asking.ask(request)
    }

    /// Whether there is a VMM that maps files into the device's shared memory regions.
    #[must_use]
    pub fn vmm_maps(&self) -> bool {
        self.asking.vmm.maps()
    }

    /// `CLOCK_MONOTONIC`, since the host's start.
    #[must_use]
    pub fn now(&self) -> Duration {
        clock::now()
    }

    /// Asks for [`Handler::deadline`](crate::Handler::deadline) at `at` on the clock of
    /// [`Io::now`]; an instant that has passed counts as now, `None` takes the wish back. Costs a
    /// system call when it differs from the last wish.
    pub fn set_deadline(&mut self, at: Option<Duration>) {
        self.timer.set(at);
    }

    /// The deadline has been told to the handler.
    pub(crate) fn deadline_passed(&mut self) {
        self.timer.passed();
    }

    /// A handle for other threads that makes [`Handler::woken`](crate::Handler::woken) run with
    /// `token`.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn waker(&self, token: u32) -> io::Result<Waker> {
        let waker = Waker::new()?;
        self.add(&waker, Token::Handler(token))?;
        Ok(waker)
    }

    /// Makes [`Handler::woken`](crate::Handler::woken) run with `token` when `fd` becomes readable:
    /// edge triggered, so read until it would block. Closing `fd` ends it.
    ///
    /// # Errors
    /// When `fd` cannot be polled or is watched already.
    pub fn watch(&self, fd: impl AsFd, token: u32) -> io::Result<()> {
        self.add(fd, Token::Handler(token))
    }

    /// Takes back [`Io::watch`].
    ///
    /// # Errors
    /// When `fd` is not watched.
    pub fn unwatch(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }
}

impl Active {
    /// Interrupts the driver, whether it wants it or not.
    pub(crate) fn signal(&self) {
        if let Some(call) = &self.call {
            // A full counter means that the driver has an interrupt pending anyway.
            let _ = rustix::io::write(call, &1_u64.to_ne_bytes());
        }
    }
}
