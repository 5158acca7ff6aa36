// SPDX-License-Identifier: Apache-2.0

//! The virtio device of one agent (VIRTIO 1.4, 5.17): commands in, replies and events out.

use std::collections::HashMap;
use std::sync::Arc;

use agl_virtio_service::{Brake, Heartbeat};
use virtio_device::{Chain, Device, Handler, Io, Mark, QueueSpec, Seen, Start, ThreadPlan, now};

use crate::backend::Ticket;
use crate::fair::FairGuard;
use crate::order::Order;
use crate::platform::{AgentId, Platform};
use crate::protocol::{self, Call, Outcome};
use crate::shared::Shared;
use crate::wire::{
    Event, HEADER_SIZE, Header, MAX_PAYLOAD, MessageType, REFUSAL_SIZE, Reply, Request, Status,
};

/// The queue of commands.
pub const COMMANDS: usize = 0;
/// The queue of events.
pub const EVENTS: usize = 1;
/// The device has an event queue.
pub const F_P2A_CHANNELS: u64 = 1 << 0;
/// Virtio device id.
pub const DEVICE_ID: u32 = 32;
const QUEUES: [QueueSpec; 2] = [QueueSpec { name: "cmdq" }, QueueSpec { name: "eventq" }];
/// Commands that are answered before others have the platform again: so many cost about as much as
/// to save what they changed.
const BATCH: usize = 16;
/// How much of the time a guest may keep its thread busy, in hundredths. Linux at its busiest takes a
/// few; who sends without end is slowed down rather than refused, for drivers take BUSY for a
/// failure.
const SHARE: u32 = 25;

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
            order: Order::default(),
            looking: false,
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
    /// The command, where a delayed response follows.
    begun: Option<Header>,
}

impl Answered {
    fn is_before(&self, event: &Event) -> bool {
        self.begun.is_some_and(|of| of.delayed() == event.header())
    }
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
    /// Which delayed responses have to wait.
    order: Order,
    /// The deadline is also for a look at what the driver has seen.
    looking: bool,
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
            if of.begun.is_some() {
                note_given_back(&mut self.order, io, of.begun);
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
            Ok(Outcome::Done) => self.reply_to(io, chain, Ok(()), None),
            Ok(Outcome::Begun) => self.reply_to(io, chain, Ok(()), Some(header)),
            Err(status) => self.reply_to(io, chain, Err(status), None),
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

    /// Writes the reply that was made into the driver's buffer. `begun`: the command, where a
    /// delayed response follows.
    fn reply_to(
        &mut self,
        io: &Io,
        chain: Chain,
        result: Result<(), Status>,
        begun: Option<Header>,
    ) {
        let bytes = self.reply.finish(result);
        let there = chain.write(io.memory(), 0, bytes).is_ok();
        let written = u32::try_from(bytes.len()).unwrap_or(0);
        self.answered.push(Answered {
            chain,
            written: if there { written } else { 0 },
            succeeded: there && result.is_ok(),
            begun,
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
            self.reply_to(io, chain, result, None);
        }
    }

    /// Sends what waits for the agent, as far as there are buffers and replies have been seen.
    fn send_events(&mut self, io: &mut Io, platform: &mut Platform) {
        if !self.order.is_settled() {
            self.order.look(io.now(), |mark| has_seen(io, mark));
        }
        // After a death of the service this queue may go on before that of the replies.
        let replies_go_on = io.running(COMMANDS);
        let waits = |event: &Event| {
            let is_response = event.header().kind() == MessageType::DelayedResponse;
            let mut answered = self.answered.iter();
            is_response
                && (!replies_go_on
                    || self.order.holds_back(event)
                    || answered.any(|of| of.is_before(event)))
        };
        while platform.has_event(self.agent, waits) {
            let Some(chain) = io.pop(EVENTS) else { return };
            let Some(event) = platform.take_event(self.agent, waits) else {
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
        self.set_deadline(io, &platform);
        shared.settle(platform, Some(self.agent));
    }

    /// Wakes this thread when something is to happen, or to look whether the driver has seen a reply
    /// whose delayed response waits.
    fn set_deadline(&mut self, io: &mut Io, platform: &Platform) {
        let look = if !self.order.is_settled() && platform.has_response(self.agent) {
            self.order.next_look(io.now())
        } else {
            None
        };
        let changes = platform.changes();
        if look.is_none() && !self.looking && self.seen_changes == Some(changes) {
            return;
        }
        self.looking = look.is_some();
        self.seen_changes = Some(changes);
        io.set_deadline(platform.next_deadline().into_iter().chain(look).min());
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

/// Notes that a reply was given back, in the moment when it is.
fn note_given_back(order: &mut Order, io: &Io, command: Option<Header>) {
    if let Some(mark) = io.mark(COMMANDS) {
        let told = io.has_seen(COMMANDS, mark) != Seen::Untold;
        order.given_back(command, mark, told, io.now());
    }
}

/// Whether the driver has taken the replies before `mark`.
fn has_seen(io: &Io, mark: Mark) -> bool {
    io.has_seen(COMMANDS, mark) == Seen::Yes
}

impl Handler for AgentHandler {
    fn started(&mut self, io: &mut Io, queue: usize, start: Start) {
        self.shared.show_thread(self.agent, io);
        let shared = Arc::clone(&self.shared);
        let mut platform = shared.platform();
        if queue == COMMANDS {
            match start {
                Start::Fresh => {
                    self.order.clear();
                    platform.release(self.agent, io.now());
                    shared.save(&mut platform);
                }
                Start::Resumed => self.order.resume(io.now()),
                Start::Recovered => note_given_back(&mut self.order, io, None),
            }
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
        self.order.clear();
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
