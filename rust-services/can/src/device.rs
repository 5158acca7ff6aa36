// SPDX-License-Identifier: Apache-2.0

//! The virtio device of one controller (VIRTIO 1.4, CAN Device): frames out, frames in, start and
//! stop.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use agl_virtio_service::{Brake, Heartbeat};
use virtio_device::{Chain, Device, Handler, Io, QueueSpec, Record, Start, ThreadPlan};

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
            held: HashMap::new(),
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

/// Serves the queues of one controller.
struct ControllerHandler {
    shared: Arc<Shared>,
    controller: ControllerId,
    beat: Arc<Heartbeat>,
    /// The thread goes before others of the host: it leaves them a part of the processor.
    brake: Brake,
    /// Frames on their way to the bus, by the head of their chain.
    held: HashMap<u16, Chain>,
    /// It is clear whether this process goes on where another one ended.
    taken_over: bool,
    /// It has had the chance to watch its interface by itself.
    watches: bool,
    /// What the record says.
    saved: Option<Saved>,
}

impl ControllerHandler {
    /// Takes one frame from the guest.
    fn transmit(&mut self, io: &mut Io, network: &mut Network, chain: Chain, now: Duration) {
        let mark = chain.head();
        if chain.writable() == 0 {
            // There is no room to say anything.
            io.fail(chain, 0);
            return;
        }
        if chain.deaths() == 0 {
            io.record().set_word(mark.into(), 0);
        } else if io.record().word(mark.into()) == PASSED {
            self.held.insert(mark, chain);
            network.already_sent(self.controller, mark);
            return;
        } else if chain.deaths() > 1 {
            // It was there each time the service died.
            refuse(io, chain);
            return;
        }
        let mut bytes = [0; MAX_MESSAGE];
        let len = chain.readable().min(bytes.len());
        let message = bytes.get_mut(..len).unwrap_or_default();
        if chain.read(io.memory(), 0, message).is_err() {
            io.fail(chain, 0);
            return;
        }
        match parse_tx(message, io.features()) {
            Ok(frame) => match network.transmit(self.controller, frame, mark, now) {
                Ok(()) => {
                    self.held.insert(mark, chain);
                }
                Err(_) => answer(io, chain, Outcome::NotOk),
            },
            Err(_) => {
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

    /// Gives the guest what it has heard, one buffer for each frame.
    fn receive(&self, io: &mut Io, network: &mut Network) {
        while network.has_frames(self.controller) {
            let Some(chain) = io.pop(RX) else { return };
            let Some(frame) = network.take_frame(self.controller) else {
                io.complete(chain, 0);
                return;
            };
            let (message, len) = rx_message(&frame);
            let bytes = message.get(..len).unwrap_or(&message);
            if chain.write(io.memory(), 0, bytes).is_ok() {
                io.complete(chain, u32::try_from(len).unwrap_or(0));
            } else {
                // Too small, or not in memory: the next buffer may hold it.
                io.fail(chain, 0);
                network.return_frame(self.controller, frame);
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
        mut network: MutexGuard<'_, Network>,
        now: Duration,
    ) {
        shared.send(&mut network, now);
        // What the driver is told must outlive us.
        self.save(io, &network);
        if network.take_status_change(self.controller) {
            shared.notify(self.controller);
        }
        self.give_back(io, &mut network);
        self.receive(io, &mut network);
        shared.settle(network, Some(self.controller));
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
        let now = io.now();
        let mut network = shared.network();
        match queue {
            TX => {
                while let Some(chain) = io.pop(TX) {
                    self.transmit(io, &mut network, chain, now);
                }
            }
            CONTROL => {
                while let Some(chain) = io.pop(CONTROL) {
                    self.control(io, &mut network, chain);
                }
            }
            _ => {}
        }
        self.settle(io, &shared, network, now);
    }

    fn reset(&mut self, io: &mut Io) {
        self.held.clear();
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
        let now = io.now();
        let mut network = shared.network();
        if token == LINE {
            shared.hear(&mut network, self.controller, now);
        }
        self.settle(io, &shared, network, now);
    }
}
