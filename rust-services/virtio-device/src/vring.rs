// SPDX-License-Identifier: Apache-2.0

//! The ring as vhost-user-backend sees it: it collects what the VMM says, and starts and stops the
//! real one in its queue thread.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};

use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as QueueError, QueueT};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::ring::Layout;
use crate::window::duplicate;
use crate::worker::{Control, Worker};

pub(crate) type AtomicMemory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The queue threads of a device, found by queue index.
pub(crate) struct Workers(pub(crate) Vec<Worker>);

impl Workers {
    pub(crate) fn of(&self, queue: usize) -> Option<&Worker> {
        self.0.iter().find(|worker| worker.queues.contains(&queue))
    }

    /// Asks all threads the same, one after the other.
    pub(crate) fn ask_all(&self, control: impl Fn() -> Control) {
        for worker in &self.0 {
            worker.ask(control());
        }
    }
}

thread_local! {
    // The crate constructs its rings by a function without a place for what ours need, so that
    // reaches them by another road: the thread that makes the daemon sets it around the call.
    static MAKING: RefCell<Option<(Arc<Workers>, AtomicUsize)>> = const { RefCell::new(None) };
}

/// Runs `make` so that the rings which it constructs belong to `workers`, in the order of indices.
pub(crate) fn with_workers<R>(workers: &Arc<Workers>, make: impl FnOnce() -> R) -> R {
    MAKING.set(Some((Arc::clone(workers), AtomicUsize::new(0))));
    let made = make();
    MAKING.set(None);
    made
}

/// A ring of one session.
#[derive(Clone)]
pub(crate) struct Vring {
    state: VringMutex<AtomicMemory>,
    index: usize,
    workers: Arc<Workers>,
    running: Arc<AtomicBool>,
}

impl Vring {
    fn worker(&self) -> Option<&Worker> {
        self.workers.of(self.index)
    }

    /// Starts or stops the ring, whichever follows from what the VMM has said.
    fn follow(&self) {
        let wanted = {
            let state = self.state.get_ref();
            state.is_enabled() && state.get_queue().ready() && state.get_kick().is_some()
        };
        match (self.running.load(Ordering::Acquire), wanted) {
            (false, true) => self.start(),
            (true, false) => self.stop(),
            _ => {}
        }
    }

    fn start(&self) {
        let control = {
            let state = self.state.get_ref();
            let queue = state.get_queue();
            let kick = state
                .get_kick()
                .as_ref()
                .and_then(|kick| duplicate(kick.as_raw_fd()));
            let Some(kick) = kick else {
                log::error!(
                    "queue {}: its kick descriptor cannot be duplicated",
                    self.index
                );
                return;
            };
            Control::Start {
                queue: self.index,
                layout: Layout {
                    size: queue.size(),
                    descriptors: queue.desc_table(),
                    available: queue.avail_ring(),
                    used: queue.used_ring(),
                    event_idx: queue.event_idx_enabled(),
                },
                base: queue.next_avail(),
                kick,
                call: call_of(&state),
            }
        };
        self.running.store(true, Ordering::Release);
        if self
            .worker()
            .is_none_or(|worker| worker.ask(control).is_none())
        {
            log::error!("queue {} has no thread that serves it", self.index);
        }
    }

    fn stop(&self) {
        self.running.store(false, Ordering::Release);
        let next = self
            .worker()
            .and_then(|worker| worker.ask(Control::Stop { queue: self.index }));
        if let Some(next) = next {
            self.state.set_queue_next_avail(next);
        }
    }
}

fn call_of(state: &VringState<AtomicMemory>) -> Option<OwnedFd> {
    state
        .get_call()
        .as_ref()
        .and_then(|call| duplicate(call.as_raw_fd()))
}

impl<'a> VringStateGuard<'a, AtomicMemory> for Vring {
    type G = MutexGuard<'a, VringState<AtomicMemory>>;
}

impl<'a> VringStateMutGuard<'a, AtomicMemory> for Vring {
    type G = MutexGuard<'a, VringState<AtomicMemory>>;
}

impl VringT<AtomicMemory> for Vring {
    fn new(memory: AtomicMemory, max_queue_size: u16) -> Result<Self, QueueError> {
        let state = VringMutex::new(memory, max_queue_size)?;
        let made = MAKING.with_borrow(|making| {
            making
                .as_ref()
                .map(|(workers, next)| (Arc::clone(workers), next.fetch_add(1, Ordering::Relaxed)))
        });
        // Outside of `with_workers` a ring would have no thread: no daemon is made there.
        let (workers, index) = made.ok_or(QueueError::QueueNotReady)?;
        Ok(Self {
            state,
            index,
            workers,
            running: Arc::new(AtomicBool::new(false)),
        })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, AtomicMemory>>::G {
        self.state.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, AtomicMemory>>::G {
        self.state.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), QueueError> {
        self.state.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.state.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.state.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.state.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.state.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.state.set_enabled(enabled);
        self.follow();
    }

    fn set_queue_info(
        &self,
        desc_table: u64,
        avail_ring: u64,
        used_ring: u64,
    ) -> Result<(), QueueError> {
        self.state.set_queue_info(desc_table, avail_ring, used_ring)
    }

    fn queue_next_avail(&self) -> u16 {
        self.state.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.state.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.state.set_queue_next_used(idx);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.state.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.state.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.state.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.state.set_queue_ready(ready);
        self.follow();
    }

    fn set_kick(&self, file: Option<File>) {
        if self.running.load(Ordering::Acquire) {
            self.stop();
        }
        self.state.set_kick(file);
        self.follow();
    }

    fn read_kick(&self) -> io::Result<bool> {
        // Only the crate's own worker reads kicks, and no queue is served by one.
        Ok(false)
    }

    fn set_call(&self, file: Option<File>) {
        self.state.set_call(file);
        if self.running.load(Ordering::Acquire) {
            let call = call_of(&self.state.get_ref());
            if let Some(worker) = self.worker() {
                worker.ask(Control::Call {
                    queue: self.index,
                    call,
                });
            }
        }
    }

    fn set_err(&self, file: Option<File>) {
        self.state.set_err(file);
    }
}
