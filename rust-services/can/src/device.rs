// SPDX-License-Identifier: Apache-2.0

//! The virtio device of one controller (VIRTIO 1.4, CAN Device): frames out, frames in, start and
//! stop.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agl_virtio_service::fair::FairGuard;
use agl_virtio_service::{Brake, Heartbeat};
use virtio_device::{Chain, Device, Handler, Io, QueueSpec, Record, Start, ThreadPlan};

use crate::frame::Frame;
use crate::network::{BusOffFlag, ControllerId, Journal, Network, Saved};
use crate::shared::Shared;
use crate::wire::{FEATURES, MAX_MESSAGE, Mode, Outcome, S_CTRL_BUSOFF, parse_tx, rx_message};

/// Frames to be sent.
pub const TX: usize = 0;
/// Buffers for frames that are heard.
pub const RX: usize = 1;
/// Start and stop.
pub const CONTROL: usize = 2;
/// Virtio device id.
pub const DEVICE_ID: u32 = 36;
const QUEUES: [QueueSpec; 3] = [
    QueueSpec { name: "txq" },
    QueueSpec { name: "rxq" },
    QueueSpec { name: "controlq" },
];
/// Makes [`Handler::woken`] look at the controller.
const NEWS: u32 = 0;
/// Makes [`Handler::woken`] hear what the interface has to say.
const LINE: u32 = 1;
/// Says that the frame of a chain has been on the bus.
const PASSED: u64 = 1;
/// Messages, or frames that were heard, for which the network is held: others want it too.
const AT_ONCE: usize = 16;
/// Deaths of the service after which a frame that waited at each of them is not tried again.
const MOST_DEATHS: u8 = 8;

/// One controller's device.
pub struct CanDevice {
    shared: Arc<Shared>,
    controller: ControllerId,
    bus_off: BusOffFlag,
    beat: Arc<Heartbeat>,
}

impl CanDevice {
    /// The device of a controller, whose queue thread shows that it turns.
    #[must_use]
    pub fn new(shared: Arc<Shared>, controller: ControllerId, beat: Arc<Heartbeat>) -> Self {
        let bus_off = shared.bus_off(controller);
        Self {
            shared,
            controller,
            bus_off,
            beat,
        }
    }
}

impl Device for CanDevice {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        let bus_off = self.bus_off.load(Ordering::Acquire);
        let status = if bus_off { S_CTRL_BUSOFF } else { 0 };
        status.to_le_bytes().to_vec()
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let handler = Box::new(ControllerHandler {
            shared: Arc::clone(&self.shared),
            controller: self.controller,
            beat: Arc::clone(&self.beat),
            brake: Brake::default(),
            letters: Vec::with_capacity(AT_ONCE),
            held: HashMap::new(),
            buffers: VecDeque::new(),
            heard: VecDeque::new(),
            taken_over: false,
            watches: false,
            saved: None,
        });
        vec![ThreadPlan {
            name: "can",
            queues: vec![TX, RX, CONTROL],
            handler,
        }]
    }
}

/// Notes in the keeper's record which frames have been on the bus.
struct Marks(Arc<Record>);

impl Journal for Marks {
    fn passing(&self, mark: u16, passes: bool) {
        let word = if passes { PASSED } else { 0 };
        self.0.set_word(mark.into(), word);
    }
}

/// A message of the guest.
enum Letter {
    /// A frame to be sent.
    Frame(Frame),
    /// It has been on the bus, and only its answer is owed.
    Sent,
    /// No frame that this driver may send.
    Nonsense,
}

/// Serves the queues of one controller.
struct ControllerHandler {
    shared: Arc<Shared>,
    controller: ControllerId,
    beat: Arc<Heartbeat>,
    /// The thread goes before others of the host: it leaves them a part of the processor.
    brake: Brake,
    /// Messages that were read, for as long as it takes to get the network.
    letters: Vec<(Chain, Letter)>,
    /// Frames on their way to the bus, by the head of their chain.
    held: HashMap<u16, Chain>,
    /// Buffers that were taken for frames which then were no more.
    buffers: VecDeque<Chain>,
    /// Frames on their way into buffers.
    heard: VecDeque<Frame>,
    /// It is clear whether this process goes on where another one ended.
    taken_over: bool,
    /// It has had the chance to watch its interface by itself.
    watches: bool,
    /// What the record says.
    saved: Option<Saved>,
}

impl ControllerHandler {
    /// Takes the next message from the guest and reads it. However the driver has cut it, that takes
    /// nobody's time but its own: the network is not held.
    fn next_letter(io: &mut Io) -> Option<(Chain, Letter)> {
        loop {
            let chain = io.pop(TX)?;
            let mark = chain.head();
            if chain.writable() == 0 {
                // There is no room to say anything.
                io.fail(chain, 0);
                continue;
            }
            if chain.deaths() == 0 {
                io.record().set_word(mark.into(), 0);
            } else if io.record().word(mark.into()) == PASSED {
                return Some((chain, Letter::Sent));
            } else if chain.is_suspect() || chain.deaths() > MOST_DEATHS {
                refuse(io, chain);
                continue;
            }
            let mut bytes = [0; MAX_MESSAGE];
            let len = chain.readable().min(bytes.len());
            let message = bytes.get_mut(..len).unwrap_or_default();
            if chain.read(io.memory(), 0, message).is_err() {
                io.fail(chain, 0);
                continue;
            }
            let frame = parse_tx(message, io.features());
            return Some((chain, frame.map_or(Letter::Nonsense, Letter::Frame)));
        }
    }

    /// Takes what the guest wants to send, a few messages at a time.
    fn transmit(&mut self, io: &mut Io, shared: &Shared) {
        loop {
            let mut letters = std::mem::take(&mut self.letters);
            let next = std::iter::from_fn(|| Self::next_letter(io));
            letters.extend(next.take(AT_ONCE));
            let more = letters.len() >= AT_ONCE;
            let mut network = shared.network();
            let now = io.now();
            for (chain, letter) in letters.drain(..) {
                io.work_on(&chain);
                self.send(io, &mut network, chain, &letter, now);
            }
            io.rest(TX);
            self.letters = letters;
            self.settle(io, shared, network, now);
            if !more {
                return;
            }
        }
    }

    fn send(
        &mut self,
        io: &mut Io,
        network: &mut Network,
        chain: Chain,
        letter: &Letter,
        now: Duration,
    ) {
        let mark = chain.head();
        match letter {
            Letter::Frame(frame) => match network.transmit(self.controller, *frame, mark, now) {
                Ok(()) => {
                    self.held.insert(mark, chain);
                }
                Err(_) => answer(io, chain, Outcome::NotOk),
            },
            Letter::Sent => {
                self.held.insert(mark, chain);
                network.already_sent(self.controller, mark);
            }
            Letter::Nonsense => {
                network.malformed(self.controller);
                refuse(io, chain);
            }
        }
    }

    /// Starts or stops the controller.
    fn control(&mut self, io: &mut Io, network: &mut Network, chain: Chain) {
        let mut code = [0; 2];
        let read = chain.read(io.memory(), 0, &mut code);
        let mode = Mode::parse(code);
        match (read, mode) {
            _ if chain.writable() == 0 => io.fail(chain, 0),
            (Ok(()), Some(Mode::Start)) => {
                let outcome = network.start(self.controller, io.now());
                self.save(io, network);
                answer(io, chain, outcome);
            }
            (Ok(()), Some(Mode::Stop)) => {
                network.stop(self.controller, io.now());
                // What was to be sent comes back before the answer.
                self.give_back(io, network);
                self.save(io, network);
                answer(io, chain, Outcome::Ok);
            }
            _ => refuse(io, chain),
        }
        self.shared.state_changed();
    }

    /// Gives back the chains of frames that are done with.
    fn give_back(&mut self, io: &mut Io, network: &mut Network) {
        // While the guest is paused they wait.
        if !io.running(TX) {
            return;
        }
        while let Some((mark, outcome)) = network.take_done(self.controller) {
            let Some(chain) = self.held.remove(&mark) else {
                continue;
            };
            answer(io, chain, outcome);
            io.record().set_word(mark.into(), 0);
        }
    }

    /// Gives the guest what it has heard, one buffer for each frame. Of its buffers too, the network
    /// does not wait.
    fn receive(&mut self, io: &mut Io, shared: &Shared, frames: usize) {
        let mut waiting = frames;
        while waiting > 0 && io.running(RX) {
            let wanted = waiting.min(AT_ONCE);
            while self.buffers.len() < wanted {
                let Some(chain) = io.pop(RX) else { break };
                self.buffers.push_back(chain);
            }
            if self.buffers.is_empty() {
                return;
            }
            let mut network = shared.network();
            let most = self.buffers.len().min(wanted);
            let taken = std::iter::from_fn(|| network.take_frame(self.controller));
            self.heard.extend(taken.take(most));
            waiting = network.frames(self.controller);
            drop(network);
            self.fill_buffers(io);
            if !self.heard.is_empty() {
                let mut network = shared.network();
                for frame in self.heard.drain(..).rev() {
                    network.return_frame(self.controller, frame);
                }
                waiting = network.frames(self.controller);
            }
        }
    }

    /// Puts frames into buffers; what is left found none that it fits.
    fn fill_buffers(&mut self, io: &mut Io) {
        while let Some(frame) = self.heard.front() {
            let Some(chain) = self.buffers.pop_front() else {
                return;
            };
            let (message, len) = rx_message(frame);
            let bytes = message.get(..len).unwrap_or(&message);
            if chain.write(io.memory(), 0, bytes).is_ok() {
                io.complete(chain, u32::try_from(len).unwrap_or(0));
                self.heard.pop_front();
            } else {
                // Too small, or not in memory: the next buffer may hold it.
                io.fail(chain, 0);
            }
        }
    }

    /// Notes what has to outlive the service, if that has changed.
    fn save(&mut self, io: &Io, network: &Network) {
        let saved = network.saved(self.controller);
        if self.saved == Some(saved) {
            return;
        }
        self.saved = Some(saved);
        let [low, high] = saved.errors.to_le_bytes();
        let flags = u8::from(saved.started) | u8::from(saved.bus_off) << 1;
        if let Err(error) = io.record().save_settings(&[SAVED, flags, low, high]) {
            log::error!("the controller's state would not outlive the service: {error}");
        }
    }

    /// What follows each turn.
    fn settle(
        &mut self,
        io: &mut Io,
        shared: &Shared,
        mut network: FairGuard<'_, Network>,
        now: Duration,
    ) {
        shared.send(&mut network, now);
        // What the driver is told must outlive us.
        self.save(io, &network);
        if network.take_status_change(self.controller) {
            shared.notify(self.controller);
        }
        self.give_back(io, &mut network);
        let frames = network.frames(self.controller);
        shared.settle(network, Some(self.controller));
        self.receive(io, shared, frames);
    }
}

/// Version of what [`ControllerHandler::save`] writes.
const SAVED: u8 = 1;

fn restored(bytes: &[u8]) -> Option<Saved> {
    match bytes {
        [SAVED, flags, low, high] => Some(Saved {
            started: flags & 1 != 0,
            bus_off: flags & 2 != 0,
            errors: u16::from_le_bytes([*low, *high]),
        }),
        _ => None,
    }
}

/// Gives a chain back with one byte.
fn answer(io: &mut Io, chain: Chain, outcome: Outcome) {
    match chain.write(io.memory(), 0, &[outcome as u8]) {
        Ok(()) => io.complete(chain, 1),
        Err(_) => io.fail(chain, 0),
    }
}

/// Gives back a chain that was wrong.
fn refuse(io: &mut Io, chain: Chain) {
    match chain.write(io.memory(), 0, &[Outcome::NotOk as u8]) {
        Ok(()) => io.fail(chain, 1),
        Err(_) => io.fail(chain, 0),
    }
}

impl Handler for ControllerHandler {
    fn started(&mut self, io: &mut Io, _queue: usize, start: Start) {
        let shared = Arc::clone(&self.shared);
        let waker = shared.waker(self.controller);
        if let Some(waker) = waker.filter(|waker| waker.get().is_none()) {
            match io.waker(NEWS) {
                Ok(made) => {
                    let _ = waker.set(made);
                }
                Err(error) => log::error!("frames will be late: {error}"),
            }
        }
        let mut network = shared.network();
        if !std::mem::replace(&mut self.watches, true) {
            let watch = |line: BorrowedFd<'_>| io.watch(line, LINE);
            shared.hand_over(&mut network, self.controller, watch);
        }
        let journal = Box::new(Marks(Arc::clone(io.record())));
        network.attend(self.controller, io.features(), Some(journal));
        if !self.taken_over && start == Start::Recovered {
            let settings = io.record().settings();
            if let Some(saved) = settings.as_deref().and_then(restored) {
                network.restore(self.controller, saved, io.now());
            }
        }
        self.taken_over = true;
        let now = io.now();
        self.settle(io, &shared, network, now);
    }

    fn kicked(&mut self, io: &mut Io, queue: usize) {
        self.brake.look();
        let (shared, beat) = (Arc::clone(&self.shared), Arc::clone(&self.beat));
        let _turn = beat.turn();
        match queue {
            TX => self.transmit(io, &shared),
            CONTROL => {
                while let Some(chain) = io.pop(CONTROL) {
                    let mut network = shared.network();
                    let now = io.now();
                    self.control(io, &mut network, chain);
                    self.settle(io, &shared, network, now);
                }
            }
            _ => {
                let frames = shared.network().frames(self.controller);
                self.receive(io, &shared, frames);
            }
        }
    }

    fn reset(&mut self, io: &mut Io) {
        self.held.clear();
        self.buffers.clear();
        self.taken_over = false;
        let shared = Arc::clone(&self.shared);
        let mut network = shared.network();
        network.reset(self.controller, io.now());
        self.save(io, &network);
        shared.settle(network, Some(self.controller));
        shared.state_changed();
    }

    fn woken(&mut self, io: &mut Io, token: u32) {
        self.brake.look();
        let (shared, beat) = (Arc::clone(&self.shared), Arc::clone(&self.beat));
        let _turn = beat.turn();
        let mut network = shared.network();
        let now = io.now();
        if token == LINE {
            shared.hear(&mut network, self.controller, now);
        }
        self.settle(io, &shared, network, now);
    }
}
