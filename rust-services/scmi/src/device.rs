// SPDX-License-Identifier: Apache-2.0

//! The virtio device of one agent (VIRTIO 1.4, 5.17): commands in, replies and events out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use agl_virtio_service::bus::Bus;
use agl_virtio_service::{Brake, Heartbeat};
use virtio_device::{Chain, Device, Handler, Io, QueueSpec, Record, Start, ThreadPlan, Waker, now};

use crate::backend::{Job, JobResult, Ticket, Worker};
use crate::control;
use crate::fair::{Fair, FairGuard};
use crate::platform::{AgentId, Platform};
use crate::protocol::{self, Call, Outcome};
use crate::wire::{HEADER_SIZE, Header, MAX_PAYLOAD, REFUSAL_SIZE, Reply, Request, Status};

/// The queue of commands.
pub const COMMANDS: usize = 0;
/// The queue of events.
pub const EVENTS: usize = 1;
/// The device has an event queue.
pub const F_P2A_CHANNELS: u64 = 1 << 0;
/// Virtio device id.
pub const DEVICE_ID: u32 = 32;
const QUEUES: [QueueSpec; 2] = [QueueSpec { name: "cmdq" }, QueueSpec { name: "eventq" }];
/// Makes [`Handler::woken`] look for events and answers.
const NEWS: u32 = 0;
/// Commands that are answered before others have the platform again: so many cost about as much as
/// to save what they changed.
const BATCH: usize = 16;
/// How much of the time a guest may keep its thread busy, in hundredths. Linux at its busiest takes a
/// few; who sends without end is slowed down rather than refused, for drivers take BUSY for a
/// failure.
const SHARE: u32 = 25;

/// What all agents have in common.
pub struct Shared {
    platform: Fair<Platform>,
    wakers: Vec<OnceLock<Waker>>,
    worker: OnceLock<Worker>,
    bus: OnceLock<Bus>,
    store: Option<Mutex<Store>>,
}

/// Where agents' wishes outlive the service.
struct Store {
    record: Record,
    bytes: Vec<u8>,
    /// [`Platform::changes`] at the last save.
    changes: u64,
}

impl Shared {
    /// A platform for its agents. With a record, what agents wanted before a death of the service
    /// holds again at once.
    #[must_use]
    pub fn new(mut platform: Platform, record: Option<Record>, now: Duration) -> Arc<Self> {
        let store = record.map(|record| {
            if let Some(bytes) = record.settings() {
                if platform.restore(&bytes, now) {
                    log::info!("what the guests want was taken over from before");
                } else {
                    log::warn!("the configuration is another one: no guest wants anything yet");
                }
            }
            let changes = platform.changes();
            Mutex::new(Store {
                record,
                bytes: Vec::new(),
                changes,
            })
        });
        Arc::new(Self {
            wakers: platform.agents.iter().map(|_| OnceLock::new()).collect(),
            platform: Fair::new(platform),
            worker: OnceLock::new(),
            bus: OnceLock::new(),
            store,
        })
    }

    /// Where slow things are done.
    pub fn use_worker(&self, worker: Worker) {
        // Set once, before the first session.
        let _ = self.worker.set(worker);
    }

    /// Where signals go.
    pub fn use_bus(&self, bus: Bus) {
        let _ = self.bus.set(bus);
    }

    /// The platform. Held for a few commands, or one request from D-Bus.
    pub fn platform(&self) -> FairGuard<'_, Platform> {
        // A thread that panicked has changed votes at most half; the guests go on.
        self.platform.lock()
    }

    /// Runs something that changes the platform from another thread than a queue's.
    pub fn change<T>(&self, change: impl FnOnce(&mut Platform) -> T) -> T {
        let mut platform = self.platform();
        let result = change(&mut platform);
        self.save(&mut platform);
        self.settle(platform, None);
        // Deadlines may have moved: the first queue thread looks.
        if let Some(waker) = self.wakers.iter().find_map(OnceLock::get) {
            waker.wake();
        }
        result
    }

    /// The back end has done something.
    pub fn job_done(&self, result: JobResult) {
        let mut platform = self.platform();
        platform.job_done(result, now());
        self.settle(platform, None);
    }

    /// Saves what agents want, if that has changed.
    fn save(&self, platform: &mut Platform) {
        let Some(store) = &self.store else { return };
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.changes == platform.changes() {
            return;
        }
        store.changes = platform.changes();
        let mut bytes = std::mem::take(&mut store.bytes);
        bytes.clear();
        platform.save(&mut bytes);
        if let Err(error) = store.record.save_settings(&bytes) {
            log::error!("what the guests want would not outlive the service: {error}");
        }
        store.bytes = bytes;
    }

    /// Hands on what the platform has for others than `but`: jobs, events, requests to the host.
    fn settle(&self, mut platform: FairGuard<'_, Platform>, but: Option<AgentId>) {
        platform.sync_host();
        let eventful = platform.take_eventful();
        let mut jobs: Vec<Job> = Vec::new();
        platform.take_jobs(&mut jobs);
        let requests = platform.take_requests();
        let names: Vec<_> = requests
            .into_iter()
            .filter_map(|request| {
                let agent = platform.agents.get(request.agent.index())?;
                Some((agent.name.clone(), request))
            })
            .collect();
        drop(platform);
        for (index, waker) in self.wakers.iter().enumerate() {
            let agent = AgentId::new(index);
            if eventful & agent.bit() != 0 && Some(agent) != but {
                if let Some(waker) = waker.get() {
                    waker.wake();
                }
            }
        }
        if let Some(worker) = self.worker.get() {
            for job in jobs {
                worker.submit(job);
            }
        }
        for (agent, request) in names {
            log::info!("{agent} asks for {} of its system", request.state.word());
            if let Some(bus) = self.bus.get() {
                control::signal_system_power(bus, &agent, request);
            }
        }
    }
}

/// One agent's device.
pub struct ScmiDevice {
    shared: Arc<Shared>,
    agent: AgentId,
    beat: Arc<Heartbeat>,
}

impl ScmiDevice {
    /// The device of an agent, whose queue thread shows that it turns.
    #[must_use]
    pub fn new(shared: Arc<Shared>, agent: AgentId, beat: Arc<Heartbeat>) -> Self {
        Self {
            shared,
            agent,
            beat,
        }
    }
}

impl Device for ScmiDevice {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        F_P2A_CHANNELS
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let handler = Box::new(AgentHandler {
            shared: Arc::clone(&self.shared),
            agent: self.agent,
            beat: Arc::clone(&self.beat),
            brake: Brake::at(SHARE),
            reply: Reply::default(),
            answered: Vec::with_capacity(BATCH),
            held: HashMap::new(),
            seen_changes: None,
        });
        vec![ThreadPlan {
            name: "scmi",
            queues: vec![COMMANDS, EVENTS],
            handler,
        }]
    }
}

/// A command whose answer is in the driver's buffer.
struct Answered {
    chain: Chain,
    written: u32,
    succeeded: bool,
}

/// Serves the queues of one agent.
struct AgentHandler {
    shared: Arc<Shared>,
    agent: AgentId,
    beat: Arc<Heartbeat>,
    brake: Brake,
    reply: Reply,
    /// Commands whose answers are written, until what they changed is saved.
    answered: Vec<Answered>,
    /// Commands that wait for the back end, by ticket.
    held: HashMap<u32, (Chain, Header)>,
    /// [`Platform::changes`] when the deadline was last looked for.
    seen_changes: Option<u64>,
}

impl AgentHandler {
    /// Answers some of the commands that wait. Whether there may be more.
    fn answer_some(&mut self, io: &mut Io, platform: &mut Platform) -> bool {
        for _ in 0..BATCH {
            let Some(chain) = io.pop(COMMANDS) else {
                return false;
            };
            self.answer(io, platform, chain);
        }
        true
    }

    /// Gives back what was answered: the driver may know of it now, for it outlives us.
    fn give_back(&mut self, io: &mut Io) {
        for of in self.answered.drain(..) {
            if of.succeeded {
                io.complete(of.chain, of.written);
            } else {
                io.fail(of.chain, of.written);
            }
        }
    }

    /// Answers one command.
    fn answer(&mut self, io: &mut Io, platform: &mut Platform, chain: Chain) {
        let mut bytes = [0; HEADER_SIZE + MAX_PAYLOAD];
        let len = chain.readable().min(bytes.len());
        let request = bytes.get_mut(..len).unwrap_or_default();
        let read = chain.read(io.memory(), 0, request);
        let Some((header, payload)) = request.split_first_chunk::<HEADER_SIZE>() else {
            io.fail(chain, 0);
            return;
        };
        // What cannot hold header and status cannot be answered.
        if read.is_err() || chain.writable() < REFUSAL_SIZE {
            io.fail(chain, 0);
            return;
        }
        let header = Header(u32::from_le_bytes(*header));
        self.reply.begin(header, chain.writable());
        let whole = chain.readable() <= HEADER_SIZE + MAX_PAYLOAD;
        let outcome = if !whole {
            Err(Status::ProtocolError)
        } else if chain.is_suspect() {
            // It was what the service worked on each time it died.
            Err(Status::GenericError)
        } else {
            self.admit(platform).and_then(|()| {
                let call = Call {
                    platform,
                    from: self.agent,
                    header,
                    now: &now,
                };
                protocol::answer(call, Request(payload), &mut self.reply)
            })
        };
        self.count(platform, outcome.as_ref().err().copied());
        match outcome {
            Ok(Outcome::Held(Ticket { number, .. })) => {
                self.held.insert(number, (chain, header));
            }
            Ok(Outcome::Done) => self.reply_to(io, chain, Ok(())),
            Err(status) => self.reply_to(io, chain, Err(status)),
        }
    }

    fn admit(&self, platform: &mut Platform) -> Result<(), Status> {
        let agent = platform
            .agents
            .get_mut(self.agent.index())
            .ok_or(Status::GenericError)?;
        if agent.rate_limit == 0 {
            return Ok(());
        }
        let millis = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        if agent.admit(millis) {
            Ok(())
        } else {
            Err(Status::Busy)
        }
    }

    fn count(&self, platform: &mut Platform, refusal: Option<Status>) {
        if let Some(agent) = platform.agents.get_mut(self.agent.index()) {
            let counted = &mut agent.statistics;
            counted.messages = counted.messages.wrapping_add(1);
            if refusal.is_some() {
                counted.refused = counted.refused.wrapping_add(1);
            }
        }
        if refusal == Some(Status::Denied) {
            platform.announce_denial(self.agent);
        }
    }

    /// Writes the reply that was made into the driver's buffer.
    fn reply_to(&mut self, io: &Io, chain: Chain, result: Result<(), Status>) {
        let bytes = self.reply.finish(result);
        let there = chain.write(io.memory(), 0, bytes).is_ok();
        let written = u32::try_from(bytes.len()).unwrap_or(0);
        self.answered.push(Answered {
            chain,
            written: if there { written } else { 0 },
            succeeded: there && result.is_ok(),
        });
    }

    /// Completes the commands whose answers the back end has given.
    fn complete_held(&mut self, io: &mut Io, platform: &mut Platform) {
        if self.held.is_empty() || !io.running(COMMANDS) {
            return;
        }
        loop {
            let agent = platform.agents.get_mut(self.agent.index());
            let Some((ticket, answer)) = agent.and_then(|agent| agent.answers.pop_front()) else {
                return;
            };
            let Some((chain, header)) = self.held.remove(&ticket.number) else {
                continue;
            };
            self.reply.begin(header, chain.writable());
            let result = answer.map(|payload| self.reply.bytes(&payload));
            self.reply_to(io, chain, result);
        }
    }

    /// Sends what waits for the agent, as far as there are buffers.
    fn send_events(&self, io: &mut Io, platform: &mut Platform) {
        while platform.has_event(self.agent) {
            let Some(chain) = io.pop(EVENTS) else { return };
            let Some(event) = platform.take_event(self.agent) else {
                io.complete(chain, 0);
                return;
            };
            let bytes = event.as_bytes();
            let written = u32::try_from(bytes.len()).unwrap_or(0);
            if chain.write(io.memory(), 0, bytes).is_ok() {
                io.complete(chain, written);
            } else {
                // A buffer too small, or not in memory: the next one may hold it.
                io.fail(chain, 0);
                platform.return_event(self.agent, event);
            }
        }
    }

    /// What follows each turn: answers, events, the next deadline, news for others.
    fn settle(&mut self, io: &mut Io, shared: &Shared, mut platform: FairGuard<'_, Platform>) {
        self.complete_held(io, &mut platform);
        self.send_events(io, &mut platform);
        // What an agent was told is done must outlive us.
        shared.save(&mut platform);
        self.give_back(io);
        let changes = platform.changes();
        if self.seen_changes != Some(changes) {
            self.seen_changes = Some(changes);
            io.set_deadline(platform.next_deadline());
        }
        shared.settle(platform, Some(self.agent));
    }

    fn advance(&mut self, io: &mut Io) {
        let (shared, beat) = (Arc::clone(&self.shared), Arc::clone(&self.beat));
        let _turn = beat.turn();
        // Neighbours cause most of it: what they do is not to slow this guest down.
        let pause = Brake::pause();
        let mut platform = shared.platform();
        platform.advance(io.now());
        shared.save(&mut platform);
        self.seen_changes = None;
        self.settle(io, &shared, platform);
        self.brake.resume(&pause);
    }
}

impl Handler for AgentHandler {
    fn started(&mut self, io: &mut Io, queue: usize, start: Start) {
        let waker = self.shared.wakers.get(self.agent.index());
        if let Some(waker) = waker.filter(|waker| waker.get().is_none()) {
            match io.waker(NEWS) {
                Ok(made) => {
                    let _ = waker.set(made);
                }
                Err(error) => log::error!("events will be late: {error}"),
            }
        }
        let shared = Arc::clone(&self.shared);
        let mut platform = shared.platform();
        if start == Start::Fresh && queue == COMMANDS {
            platform.release(self.agent, io.now());
            shared.save(&mut platform);
        }
        if let Some(agent) = platform.agents.get_mut(self.agent.index()) {
            agent.p2a = io.features() & F_P2A_CHANNELS != 0;
        }
        self.seen_changes = None;
        self.settle(io, &shared, platform);
    }

    fn kicked(&mut self, io: &mut Io, queue: usize) {
        // Before the turn is seen to begin: who is slowed down does not hang.
        self.brake.look();
        let (shared, beat) = (Arc::clone(&self.shared), Arc::clone(&self.beat));
        let _turn = beat.turn();
        loop {
            let mut platform = shared.platform();
            let more = queue == COMMANDS && self.answer_some(io, &mut platform);
            self.settle(io, &shared, platform);
            if !more {
                return;
            }
        }
    }

    fn reset(&mut self, io: &mut Io) {
        self.held.clear();
        let shared = Arc::clone(&self.shared);
        let mut platform = shared.platform();
        platform.release(self.agent, io.now());
        if let Some(agent) = platform.agents.get_mut(self.agent.index()) {
            agent.p2a = false;
        }
        shared.save(&mut platform);
        self.seen_changes = None;
        self.settle(io, &shared, platform);
    }

    fn woken(&mut self, io: &mut Io, _token: u32) {
        self.advance(io);
    }

    fn deadline(&mut self, io: &mut Io) {
        self.advance(io);
    }
}
