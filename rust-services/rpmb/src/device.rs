// SPDX-License-Identifier: Apache-2.0

//! The virtio device (VIRTIO 1.4, 5.12): chains in, answers out, one at a time.
//!
//! Requests of one device depend on each other by their counters, so the next is taken when the one
//! before is answered. What is not taken yet stays in the ring: the guest's memory, not the host's.

use std::sync::{Arc, Mutex, PoisonError};

use agl_virtio_service::Heartbeat;
use virtio_device::{Chain, Device, Handler, Io, QueueSpec, Start, ThreadPlan};
use zerocopy::IntoBytes;

use crate::engine::Limits;
use crate::store::blocks_of;
use crate::wire::FRAME_SIZE;
use crate::worker::{Answer, Job, Worker};

/// The only queue.
pub const REQUESTS: usize = 0;
/// Virtio device id.
pub const DEVICE_ID: u32 = 28;
const QUEUES: [QueueSpec; 1] = [QueueSpec { name: "requestq" }];
/// Makes [`Handler::woken`] look for the answer.
const ANSWERED: u32 = 0;
/// Frames of a request beside its blocks: the wish for its result.
const MORE_FRAMES: usize = 1;

/// The device, before it is served and after.
pub struct RpmbDevice {
    limits: Limits,
    /// What the queue's thread is made of, until it is asked for.
    parts: Mutex<Option<(Worker, Arc<Heartbeat>)>>,
}

impl RpmbDevice {
    /// A device whose requests the worker answers, and whose queue thread shows that it turns.
    #[must_use]
    pub fn new(worker: Worker, limits: Limits, beat: Arc<Heartbeat>) -> Self {
        Self {
            limits,
            parts: Mutex::new(Some((worker, beat))),
        }
    }
}

impl Device for RpmbDevice {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        let limits = self.limits;
        vec![limits.capacity_units, limits.most_written, limits.most_read]
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let parts = self
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let handler = parts.map(|(worker, beat)| {
            Box::new(RequestHandler::new(self.limits, worker, beat)) as Box<dyn Handler>
        });
        let plan = |handler| ThreadPlan {
            name: "rpmb",
            queues: vec![REQUESTS],
            handler,
        };
        handler.map(plan).into_iter().collect()
    }
}

/// Serves the queue.
struct RequestHandler {
    most_bytes: usize,
    beat: Arc<Heartbeat>,
    worker: Worker,
    /// The request that the worker has, and its chain unless a reset has made that void.
    at_work: Option<(u64, Option<Chain>)>,
    /// Answered while the queue did not run.
    answered: Option<(Chain, Answer)>,
    tickets: u64,
    /// The register as it lies in the record; unknown before the first queue runs.
    saved: Option<Vec<u8>>,
}

impl RequestHandler {
    fn new(limits: Limits, worker: Worker, beat: Arc<Heartbeat>) -> Self {
        let blocks = match limits.most_written {
            0 => usize::try_from(blocks_of(limits.capacity_units)).unwrap_or(usize::MAX),
            most => usize::from(most),
        };
        Self {
            most_bytes: blocks
                .saturating_add(MORE_FRAMES)
                .saturating_mul(FRAME_SIZE),
            beat,
            worker,
            at_work: None,
            answered: None,
            tickets: 0,
            saved: None,
        }
    }

    /// Gives the worker the next request, if it has none.
    fn next(&mut self, io: &mut Io) {
        while self.at_work.is_none() && self.answered.is_none() {
            let Some(chain) = io.pop(REQUESTS) else {
                return;
            };
            let Some(bytes) = self.fetch(io, &chain) else {
                io.fail(chain, 0);
                continue;
            };
            self.tickets = self.tickets.wrapping_add(1);
            let job = Job {
                ticket: self.tickets,
                bytes,
                room: chain.writable(),
                deaths: chain.deaths(),
                register: self.inherited(io),
            };
            match self.worker.submit(job) {
                Ok(()) => self.at_work = Some((self.tickets, Some(chain))),
                Err(_) => io.fail(chain, 0),
            }
        }
    }

    /// The request's bytes; `None` where there is not even a frame.
    fn fetch(&self, io: &Io, chain: &Chain) -> Option<Vec<u8>> {
        let len = chain.readable();
        let mut bytes = vec![0; len.min(self.most_bytes)];
        if bytes.len() < FRAME_SIZE || chain.read(io.memory(), 0, &mut bytes).is_err() {
            return None;
        }
        if len > self.most_bytes {
            // Too many blocks, whatever they are: its two ends are enough to say so, for the last
            // frame tells whether a result is wanted.
            bytes.truncate(FRAME_SIZE.saturating_mul(2));
            let last = bytes.get_mut(FRAME_SIZE..)?;
            chain
                .read(io.memory(), len.saturating_sub(FRAME_SIZE), last)
                .ok()?;
        }
        Some(bytes)
    }

    /// What a former process has left in the record, the first time.
    fn inherited(&mut self, io: &Io) -> Option<Vec<u8>> {
        if self.saved.is_some() {
            return None;
        }
        let register = io.record().settings().unwrap_or_default();
        self.saved = Some(register.clone());
        Some(register)
    }

    /// Takes the answer that has come.
    fn collect(&mut self) {
        let Some(answer) = self.worker.collect() else {
            return;
        };
        match self.at_work.take() {
            Some((ticket, Some(chain))) if ticket == answer.ticket => {
                self.answered = Some((chain, answer));
            }
            // Its driver has reset the device meanwhile.
            Some((ticket, None)) if ticket == answer.ticket => {}
            other => self.at_work = other,
        }
    }

    /// Gives the driver its answer.
    fn complete(&mut self, io: &mut Io) {
        if !io.running(REQUESTS) {
            return;
        }
        let Some((chain, answer)) = self.answered.take() else {
            return;
        };
        // Before the driver hears of it: it may ask for the result after our death.
        if self.saved.as_ref() != Some(&answer.register) {
            match io.record().save_settings(&answer.register) {
                Ok(()) => self.saved = Some(answer.register),
                Err(error) => log::error!("a result would not outlive the service: {error}"),
            }
        }
        let written = match answer.frames {
            Ok(frames) if chain.write(io.memory(), 0, frames.as_bytes()).is_ok() => {
                u32::try_from(frames.as_bytes().len()).ok()
            }
            _ => None,
        };
        match written {
            Some(written) => io.complete(chain, written),
            None => io.fail(chain, 0),
        }
    }

    fn turn(&mut self, io: &mut Io) {
        let beat = Arc::clone(&self.beat);
        let _turn = beat.turn();
        self.collect();
        self.complete(io);
        self.next(io);
    }
}

impl Handler for RequestHandler {
    fn started(&mut self, io: &mut Io, _queue: usize, _start: Start) {
        if let Err(error) = self.worker.wake_with(|| io.waker(ANSWERED)) {
            log::error!("no request will be answered: no descriptor: {error}");
        }
        self.turn(io);
    }

    fn kicked(&mut self, io: &mut Io, _queue: usize) {
        self.turn(io);
    }

    fn woken(&mut self, io: &mut Io, _token: u32) {
        self.turn(io);
    }

    fn reset(&mut self, _io: &mut Io) {
        // The worker still has its job, and finishes it before it gets another one.
        if let Some((_, chain)) = &mut self.at_work {
            *chain = None;
        }
        self.answered = None;
    }
}
