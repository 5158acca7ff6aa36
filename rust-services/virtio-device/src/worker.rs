// SPDX-License-Identifier: Apache-2.0

//! The queue thread: one edge-triggered loop that owns its queues.
//!
//! Kicks are eventfds watched edge triggered and never read, so a request costs two system calls:
//! the wait and the interrupt. The control side moves a ring in and out by messages that are
//! answered when they took effect; that answer is the barrier the vhost-user text asks for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use agl_virtio_relay::record::{Phase, Record};
use rustix::event::{Timespec, epoll};

use crate::crash::{CrashPoint, pass};
use crate::device::{Handler, Start, ThreadPlan};
use crate::inflight::Inflight;
use crate::io::{Active, Io, Slot, Token};
use crate::memory::Memory;
use crate::ring::{Broken, Layout, Ring};
use crate::stats::{DeviceStats, QueueStats};
use crate::vmm::Vmm;
use crate::waker::Waker;

/// What the control side asks of a queue thread.
pub(crate) enum Control {
    /// Run a queue from `base`.
    Start {
        queue: usize,
        layout: Layout,
        base: u16,
        kick: OwnedFd,
        call: Option<OwnedFd>,
    },
    /// Freeze a queue; answered with its next available index.
    Stop { queue: usize },
    /// Interrupt the driver by another descriptor.
    Call { queue: usize, call: Option<OwnedFd> },
    /// Guest memory has changed.
    Memory(Memory),
    /// The features that were agreed on.
    Features(u64),
    /// Another record is in force, from before any queue runs.
    Record(Arc<Record>),
    /// Device reset, or the driver went away.
    Reset,
    /// End the thread.
    Exit,
}

/// The control side's end of a queue thread.
pub(crate) struct Worker {
    pub(crate) queues: Vec<usize>,
    inbox: Mutex<Sender<(Control, SyncSender<u16>)>>,
    waker: Waker,
    heartbeat: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread. `prepare` runs on it first: priority, sandbox.
    pub(crate) fn spawn(
        plan: ThreadPlan,
        queues: usize,
        stats: DeviceStats,
        record: Arc<Record>,
        vmm: Vmm,
        prepare: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> io::Result<Self> {
        let ThreadPlan {
            name,
            queues: owned,
            handler,
        } = plan;
        let io = Io::new(queues, stats, record, vmm)?;
        let waker = Waker::new()?;
        io.add(&waker, Token::Control)?;
        let (sender, inbox) = channel();
        let heartbeat = Arc::new(AtomicU64::new(0));
        let reactor = Reactor {
            io,
            handler,
            inbox,
            heartbeat: Arc::clone(&heartbeat),
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                prepare(name);
                reactor.run();
            })?;
        Ok(Self {
            queues: owned,
            inbox: Mutex::new(sender),
            waker,
            heartbeat,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Asks, and waits until it is done. `None` when the thread has ended.
    pub(crate) fn ask(&self, control: Control) -> Option<u16> {
        let (reply, answer) = sync_channel(1);
        self.inbox.lock().ok()?.send((control, reply)).ok()?;
        self.waker.wake();
        answer.recv().ok()
    }

    /// Counts the turns of the loop: one that stands still while it was woken hangs.
    pub(crate) fn heartbeat(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heartbeat)
    }

    /// Makes the loop turn once, so that its heartbeat shows that it is alive.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Ends the thread and waits for it.
    pub(crate) fn join(&self) {
        self.ask(Control::Exit);
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("a queue thread has panicked");
        }
    }
}

struct Reactor {
    io: Io,
    handler: Box<dyn Handler>,
    inbox: Receiver<(Control, SyncSender<u16>)>,
    heartbeat: Arc<AtomicU64>,
}

impl Reactor {
    fn run(mut self) {
        let mut events = Vec::with_capacity(self.io.slots.len().saturating_add(16));
        let mut backlog = false;
        loop {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.io.epoll, spare, backlog.then_some(&now)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    log::error!("a queue thread cannot wait any more: {error}");
                    return;
                }
            }
            let beat = self.heartbeat.load(Ordering::Relaxed);
            self.heartbeat
                .store(beat.wrapping_add(1), Ordering::Relaxed);
            self.io.turn = crate::clock::now();
            let waiting = self.take_turns();
            for event in &events {
                match Token::from_data(event.data) {
                    Token::Queue(queue) => self.kicked(queue),
                    Token::Deadline => {
                        self.io.deadline_passed();
                        self.handler.deadline(&mut self.io);
                    }
                    Token::Handler(token) => self.handler.woken(&mut self.io, token),
                    Token::Vmm => {
                        while let Ok((ticket, answer)) = self.io.answers.try_recv() {
                            self.handler.answered(&mut self.io, ticket, answer);
                        }
                    }
                    Token::Control => {
                        if !self.obey() {
                            return;
                        }
                    }
                }
            }
            for queue in waiting {
                self.handler.kicked(&mut self.io, queue);
            }
            self.io.flush();
            backlog = self.has_backlog();
        }
    }

    /// Gives every queue its share of this turn. Returns those that used up the last one: they may
    /// have more, and nobody will kick for it.
    fn take_turns(&mut self) -> Vec<usize> {
        let mut waiting = Vec::new();
        for (queue, slot) in self.io.slots.iter_mut().enumerate() {
            if let Slot::Running(active) = slot {
                if active.budget == 0 && !active.broken {
                    waiting.push(queue);
                }
                active.budget = active.ring.layout().size;
            }
        }
        waiting
    }

    fn has_backlog(&self) -> bool {
        self.io.slots.iter().any(
            |slot| matches!(slot, Slot::Running(active) if active.budget == 0 && !active.broken),
        )
    }

    fn kicked(&mut self, queue: u32) {
        let Ok(queue) = usize::try_from(queue) else {
            return;
        };
        if self.io.running(queue) {
            if let Some(stats) = self.io.stats.queue(queue) {
                stats.kicks.add(1);
            }
            self.handler.kicked(&mut self.io, queue);
        }
    }

    /// Does what the control side has asked for. Returns whether the thread goes on.
    fn obey(&mut self) -> bool {
        while let Ok((control, reply)) = self.inbox.try_recv() {
            let mut answer = 0;
            match control {
                Control::Start {
                    queue,
                    layout,
                    base,
                    kick,
                    call,
                } => {
                    self.start(queue, layout, base, kick, call);
                }
                Control::Stop { queue } => answer = self.stop(queue),
                Control::Call { queue, call } => self.change_call(queue, call),
                Control::Memory(memory) => self.change_memory(memory),
                Control::Features(features) => self.io.features = features,
                Control::Record(record) => {
                    // Where no queue ran, nothing is another driver's: what the device took over
                    // from a former process is this driver's.
                    let ran = |slot: &Slot| !matches!(slot, Slot::Idle);
                    if self.io.slots.iter().any(ran) {
                        self.reset();
                    }
                    self.io.use_record(record);
                }
                Control::Reset => self.reset(),
                Control::Exit => {
                    self.handler.shut_down(&mut self.io);
                    let _ = reply.send(0);
                    return false;
                }
            }
            // What the handler completed on the way is signalled before the barrier is passed.
            self.io.flush();
            let _ = reply.send(answer);
        }
        true
    }

    fn start(
        &mut self,
        queue: usize,
        layout: Layout,
        base: u16,
        kick: OwnedFd,
        call: Option<OwnedFd>,
    ) {
        pass(CrashPoint::RingStart);
        if self.io.running(queue) {
            self.stop(queue);
        }
        let (ring, start) = match self.take_over(queue, layout, base) {
            Ok(taken) => taken,
            Err(broken) => {
                let stats = self.io.stats.queue(queue);
                if stats.is_none_or(QueueStats::note_broken) {
                    log::warn!("queue {queue} cannot start: {broken}");
                }
                return;
            }
        };
        let watched = u32::try_from(queue)
            .map_err(io::Error::other)
            .and_then(|token| self.io.add(&kick, Token::Queue(token)));
        if let Err(error) = watched {
            log::error!("queue {queue} cannot start: its kick cannot be watched: {error}");
            return;
        }
        let active = Active {
            ring,
            kick,
            call,
            broken: false,
            budget: layout.size,
            touched: false,
        };
        if start == Start::Recovered {
            // The former process may have died between a used index and its interrupt.
            active.signal();
        }
        if let Some(slot) = self.io.slots.get_mut(queue) {
            *slot = Slot::Running(active);
        }
        log::debug!("queue {queue} starts at {base}: {start:?}, {layout:?}");
        self.handler.started(&mut self.io, queue, start);
        self.handler.kicked(&mut self.io, queue);
    }

    /// Finds out what a start means: a new driver, the end of a pause, or the end of another process
    /// of this service. vhost-user does not say; the indices do.
    fn take_over(
        &mut self,
        queue: usize,
        layout: Layout,
        base: u16,
    ) -> Result<(Ring, Start), Broken> {
        let slot = self
            .io
            .slots
            .get_mut(queue)
            .map(|slot| std::mem::replace(slot, Slot::Idle));
        if let Some(Slot::Frozen(mut ring)) = slot {
            let used = Ring::used_idx_in_memory(&self.io.memory, &layout)?;
            let same = base == ring.next_avail()
                && used == ring.next_used()
                && layout.size == ring.layout().size;
            if same {
                ring.remap(&self.io.memory, layout)?;
                return Ok((ring, Start::Resumed));
            }
            self.renew();
        }
        let record = Arc::clone(self.io.record());
        let mut inflight = Inflight::new(Arc::clone(&record), queue);
        let used = Ring::used_idx_in_memory(&self.io.memory, &layout)?;
        if inflight.matches(layout.size, used) {
            let open = inflight.count(layout.size, used);
            let next = used.wrapping_add(open);
            let replaying = record.phase() == Phase::Replaying;
            let new_driver = base == 0 && used == 0;
            if replaying || (!new_driver && (base == next || base == used)) {
                let mut ring = Ring::new(&self.io.memory, layout, next, inflight)?;
                ring.recover();
                return Ok((ring, Start::Recovered));
            }
        }
        inflight.clear(layout.size, used);
        Ok((
            Ring::new(&self.io.memory, layout, base, inflight)?,
            Start::Fresh,
        ))
    }

    fn stop(&mut self, queue: usize) -> u16 {
        if self.io.running(queue) {
            self.handler.stopped(&mut self.io, queue);
            self.io.flush();
        }
        let Some(slot) = self.io.slots.get_mut(queue) else {
            return 0;
        };
        match std::mem::replace(slot, Slot::Idle) {
            Slot::Running(active) => {
                let _ = epoll::delete(&self.io.epoll, &active.kick);
                let next = active.ring.next_avail();
                *slot = Slot::Frozen(active.ring);
                next
            }
            Slot::Frozen(ring) => {
                let next = ring.next_avail();
                *slot = Slot::Frozen(ring);
                next
            }
            Slot::Idle => 0,
        }
    }

    fn change_call(&mut self, queue: usize, call: Option<OwnedFd>) {
        if let Some(Slot::Running(active)) = self.io.slots.get_mut(queue) {
            active.call = call;
        }
    }

    fn change_memory(&mut self, memory: Memory) {
        self.io.memory = memory;
        for (queue, slot) in self.io.slots.iter_mut().enumerate() {
            let Slot::Running(active) = slot else {
                continue;
            };
            let layout = active.ring.layout();
            if let Err(broken) = active.ring.remap(&self.io.memory, layout) {
                log::warn!("queue {queue} was in memory that is gone: {broken}");
                active.broken = true;
                let _ = epoll::delete(&self.io.epoll, &active.kick);
            }
        }
    }

    /// A reset is found out by a queue that starts after others did. One that the driver had not used
    /// before looked like a paused one: it is the new driver's, and begins anew where it stands.
    fn renew(&mut self) {
        let slots = self.io.slots.iter_mut().map(|slot| match slot {
            Slot::Running(_) => std::mem::replace(slot, Slot::Idle),
            Slot::Idle | Slot::Frozen(_) => Slot::Idle,
        });
        let started: Vec<Slot> = slots.collect();
        self.reset();
        for (queue, slot) in started.into_iter().enumerate() {
            let Slot::Running(mut active) = slot else {
                continue;
            };
            let layout = active.ring.layout();
            let begun = Ring::used_idx_in_memory(&self.io.memory, &layout).and_then(|used| {
                let mut inflight = Inflight::new(Arc::clone(self.io.record()), queue);
                inflight.clear(layout.size, used);
                Ring::new(&self.io.memory, layout, used, inflight)
            });
            match begun {
                Ok(ring) => active.ring = ring,
                Err(broken) => {
                    log::warn!("queue {queue} cannot begin anew: {broken}");
                    continue;
                }
            }
            active.broken = false;
            active.budget = layout.size;
            if let Some(slot) = self.io.slots.get_mut(queue) {
                *slot = Slot::Running(active);
            }
            self.handler.started(&mut self.io, queue, Start::Fresh);
            self.handler.kicked(&mut self.io, queue);
        }
    }

    fn reset(&mut self) {
        self.io.generation = self.io.generation.wrapping_add(1);
        self.handler.reset(&mut self.io);
        for (queue, slot) in self.io.slots.iter_mut().enumerate() {
            if let Slot::Running(active) = std::mem::replace(slot, Slot::Idle) {
                let _ = epoll::delete(&self.io.epoll, &active.kick);
                log::debug!("queue {queue} ends by a reset");
            }
        }
        self.io.set_deadline(None);
    }
}
