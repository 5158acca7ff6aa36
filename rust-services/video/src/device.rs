// SPDX-License-Identifier: Apache-2.0

//! The virtio device: chains in, answers and events out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agl_virtio_codec::Bell;
use agl_virtio_service::Heartbeat;
use virtio_device::{
    Chain, Device, Handler, Io, Memory, QueueSpec, Start, ThreadPlan, Ticket as Asked,
};

use crate::coder::Codecs;
use crate::model::{Function, Model, Outbox, Shared, Ticket};
use crate::objects::Objects;
use crate::statistics::Statistics;
use crate::wire::{Answer, Dialect, Event, HEADER_SIZE, MOST_REQUEST, Queue, Refusal};

/// The queue of commands.
pub const COMMANDS: usize = 0;
/// The queue of events.
pub const EVENTS: usize = 1;
/// Virtio device id of an encoder.
pub const ENCODER_ID: u32 = 30;
/// Virtio device id of a decoder.
pub const DECODER_ID: u32 = 31;
/// Resources are lists of the guest's pages.
const F_GUEST_PAGES: u64 = 1 << 0;
/// Which need not follow each other.
const F_NON_CONTIG: u64 = 1 << 1;
/// Or objects that other devices have exported. Offered to VMMs that can find those.
const F_VIRTIO_OBJECT: u32 = 1 << 2;
const QUEUES: [QueueSpec; 2] = [QueueSpec { name: "commandq" }, QueueSpec { name: "eventq" }];
/// Makes [`Handler::woken`] look at codecs, and send events.
const LOOK: u32 = 0;
/// Events that wait for a buffer, at most: a driver that gives none does not want them.
const MOST_EVENTS: usize = 1024;

/// What the queue thread is made of.
struct Parts {
    model: Model<Memory>,
    statistics: Arc<Statistics>,
    beat: Arc<Heartbeat>,
}

/// The device, before it is served and after.
pub struct VideoDevice {
    function: Function,
    dialect: Arc<dyn Dialect>,
    bell: Arc<Bell>,
    longest: u32,
    parts: Mutex<Option<Parts>>,
}

impl VideoDevice {
    /// A device whose codecs ring this bell when something happens, and whose queue thread shows that
    /// it turns.
    #[must_use]
    pub fn new(
        shared: Shared,
        codecs: Box<dyn Codecs>,
        bell: Arc<Bell>,
        beat: Arc<Heartbeat>,
    ) -> Self {
        let (function, dialect) = (shared.function, Arc::clone(&shared.dialect));
        let longest = Queue::BOTH
            .into_iter()
            .map(|queue| {
                let list = shared.formats.describe(function, queue);
                dialect.answer(0, &Answer::Capability(list)).len()
            })
            .max()
            .and_then(|len| u32::try_from(len).ok())
            .unwrap_or(u32::MAX);
        let statistics = Arc::clone(&shared.statistics);
        Self {
            function,
            dialect,
            bell,
            longest,
            parts: Mutex::new(Some(Parts {
                model: Model::new(shared, codecs),
                statistics,
                beat,
            })),
        }
    }
}

impl Device for VideoDevice {
    fn id(&self) -> u32 {
        match self.function {
            Function::Encoder => ENCODER_ID,
            Function::Decoder => DECODER_ID,
        }
    }

    fn features(&self) -> u64 {
        F_GUEST_PAGES | F_NON_CONTIG | u64::from(F_VIRTIO_OBJECT)
    }

    fn features_of_shared_objects(&self) -> u32 {
        F_VIRTIO_OBJECT
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        // version, max_caps_length, max_resp_length
        [0, self.longest, self.longest.max(1024)]
            .iter()
            .flat_map(|word: &u32| word.to_le_bytes())
            .collect()
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let parts = self
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let plan = |parts: Parts| {
            let bell = Arc::clone(&self.bell);
            parts.statistics.wake_with(move || bell.ring());
            ThreadPlan {
                name: "video",
                queues: vec![COMMANDS, EVENTS],
                handler: Box::new(VideoHandler {
                    dialect: Arc::clone(&self.dialect),
                    bell: Arc::clone(&self.bell),
                    model: parts.model,
                    beat: parts.beat,
                    chains: BTreeMap::new(),
                    tickets: 0,
                    events: VecDeque::new(),
                    objects: Objects::default(),
                    saved: None,
                }),
            }
        };
        parts.map(plan).into_iter().collect()
    }
}

/// Serves the queues.
struct VideoHandler {
    dialect: Arc<dyn Dialect>,
    bell: Arc<Bell>,
    model: Model<Memory>,
    beat: Arc<Heartbeat>,
    /// Requests that wait.
    chains: BTreeMap<Ticket, Chain>,
    tickets: u64,
    /// What the driver is to hear.
    events: VecDeque<(u32, Event)>,
    /// What the VMM is asked for.
    objects: Objects,
    /// The streams as they lie in the record; unknown before the first queue runs.
    saved: Option<Vec<u32>>,
}

impl VideoHandler {
    /// Takes requests.
    fn take(&mut self, io: &mut Io) {
        while let Some(chain) = io.pop(COMMANDS) {
            if chain.writable() < HEADER_SIZE {
                // Nothing could be answered.
                io.fail(chain, 0);
                continue;
            }
            self.tickets = self.tickets.wrapping_add(1);
            let ticket = Ticket(self.tickets);
            let request = self.read(io, &chain);
            self.chains.insert(ticket, chain);
            let mut out = Outbox::default();
            match request {
                Ok(request) => self
                    .model
                    .request(&io.memory().clone(), ticket, request, &mut out),
                Err((stream, refusal)) => {
                    out.answers.push((ticket, stream, Answer::Refused(refusal)));
                }
            }
            self.tell(io, out);
        }
    }

    fn read(&self, io: &Io, chain: &Chain) -> Result<crate::wire::Request, (u32, Refusal)> {
        let mut bytes = vec![0; chain.readable().min(MOST_REQUEST)];
        if chain.read(io.memory(), 0, &mut bytes).is_err() {
            return Err((0, Refusal::InvalidParameter));
        }
        let memory = |stream, queue| self.model.memory(stream, queue);
        let request = self.dialect.parse(&bytes, &memory)?;
        if chain.is_suspect() {
            // The service has died over it twice.
            return Err((request.stream, Refusal::InvalidOperation));
        }
        if chain.readable() > MOST_REQUEST {
            return Err((request.stream, Refusal::InvalidParameter));
        }
        Ok(request)
    }

    /// Answers, and notes events.
    fn tell(&mut self, io: &mut Io, out: Outbox) {
        for (ticket, stream, answer) in out.answers {
            let Some(chain) = self.chains.remove(&ticket) else {
                continue;
            };
            let mut bytes = self.dialect.answer(stream, &answer);
            if bytes.len() > chain.writable() {
                bytes = self
                    .dialect
                    .answer(stream, &Answer::Refused(Refusal::InvalidParameter));
            }
            let written = match chain.write(io.memory(), 0, &bytes) {
                Ok(()) => u32::try_from(bytes.len()).unwrap_or(0),
                Err(_) => 0,
            };
            if written == 0 || matches!(answer, Answer::Refused(_)) {
                io.fail(chain, written);
            } else {
                io.complete(chain, written);
            }
        }
        self.objects.seek(io, out.wanted);
        for event in out.events {
            if self.events.len() < MOST_EVENTS {
                self.events.push_back(event);
            }
            // Not now: the answers of this turn are to be signalled first.
            self.bell.ring();
        }
    }

    fn send_events(&mut self, io: &mut Io) {
        while !self.events.is_empty() {
            let Some(chain) = io.pop(EVENTS) else { return };
            let Some((stream, event)) = self.events.front() else {
                return;
            };
            let bytes = self.dialect.event(*stream, *event);
            if chain.write(io.memory(), 0, &bytes).is_err() {
                // Too small for any event: the next one may do.
                io.fail(chain, 0);
                continue;
            }
            self.events.pop_front();
            io.complete(chain, u32::try_from(bytes.len()).unwrap_or(0));
        }
    }

    fn turn(&mut self, io: &mut Io) {
        let beat = Arc::clone(&self.beat);
        let _turn = beat.turn();
        // What ends while the guest is paused waits until it goes on.
        if !io.running(COMMANDS) {
            return;
        }
        let imports = io.features() & u64::from(F_VIRTIO_OBJECT) != 0;
        self.model.set_imports(imports);
        self.take(io);
        let mut out = Outbox::default();
        for (wanted, found) in self.objects.take() {
            self.model
                .found(wanted.ticket, wanted.plane, found, &mut out);
        }
        self.model.turn(&io.memory().clone(), &mut out);
        self.tell(io, out);
        self.save(io);
        // A codec that hangs says nothing: look again within a second or two.
        let next = self
            .model
            .look_after()
            .map(|_| Duration::from_secs(io.now().as_secs().saturating_add(2)));
        io.set_deadline(next);
    }

    /// Notes which streams there are, for who comes after a death.
    fn save(&mut self, io: &Io) {
        let living: Vec<u32> = self.model.living().collect();
        if self.saved.as_ref() == Some(&living) {
            return;
        }
        let bytes: Vec<u8> = living.iter().flat_map(|id| id.to_le_bytes()).collect();
        if let Err(error) = io.record().save_settings(&bytes) {
            log::error!("the streams would not outlive the service: {error}");
        }
        self.saved = Some(living);
    }

    /// The streams of a former process are lost, and their driver hears so.
    fn inherit(&mut self, io: &Io, start: Start) {
        if self.saved.is_some() {
            return;
        }
        let left = io.record().settings().unwrap_or_default();
        let lost = left
            .chunks_exact(4)
            .filter_map(|word| Some(u32::from_le_bytes(word.try_into().ok()?)));
        if start == Start::Recovered {
            for id in lost {
                log::warn!("stream {id} was lost with a former process");
                self.events.push_back((id, Event::Error));
            }
            self.bell.ring();
        }
        self.saved = Some(Vec::new());
        if !left.is_empty() {
            let _ = io.record().save_settings(&[]);
        }
    }
}

impl Handler for VideoHandler {
    fn started(&mut self, io: &mut Io, _queue: usize, start: Start) {
        if !self.bell.is_attached() {
            match io.waker(LOOK) {
                Ok(waker) => {
                    self.bell.attach(move || waker.wake());
                }
                Err(error) => log::error!("no codec will be heard: no descriptor: {error}"),
            }
        }
        self.inherit(io, start);
        self.turn(io);
        self.send_events(io);
    }

    fn kicked(&mut self, io: &mut Io, queue: usize) {
        match queue {
            EVENTS => self.send_events(io),
            _ => self.turn(io),
        }
    }

    fn woken(&mut self, io: &mut Io, _token: u32) {
        self.bell.answer();
        // Those of former turns, whose answers are signalled by now.
        self.send_events(io);
        self.turn(io);
    }

    fn answered(&mut self, io: &mut Io, ticket: Asked, answer: virtio_device::Answer) {
        self.objects.answered(ticket, answer);
        self.turn(io);
    }

    fn deadline(&mut self, io: &mut Io) {
        self.turn(io);
    }

    fn reset(&mut self, io: &mut Io) {
        self.model.reset();
        self.chains.clear();
        self.events.clear();
        self.objects.forget();
        self.save(io);
    }
}
