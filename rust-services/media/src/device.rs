// SPDX-License-Identifier: Apache-2.0

//! The virtio device (VIRTIO 1.4, 5.22): commands, sessions, events.
//!
//! Everything that touches guest memory happens on the queue thread, between two commands: what
//! STREAMOFF, CLOSE or a reset has taken back is not touched any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use agl_virtio_service::Heartbeat;
use rustix::io::Errno;
use virtio_device::{
    Answer as VmmAnswer, Chain, Device, Handler, Io, QueueSpec, Start, ThreadPlan, Ticket,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::function::{Context, Function};
use crate::memory::{Budget, PlaneMemory};
use crate::outbox::{Outbox, Session};
use crate::payload::{Answer, Input};
use crate::region::Region;
use crate::statistics::Statistics;
use crate::v4l2::{Ioctl, name::name};
use crate::wire::{
    COMMANDS, Close, Command, CommandHeader, Config, DEVICE_ID, IoctlHead, MMAP_WRITABLE, Mapped,
    Mmap, Munmap, Opened, ResponseHeader,
};

const QUEUES: [QueueSpec; 2] = [QueueSpec { name: "commandq" }, QueueSpec { name: "eventq" }];
/// Wakes for pictures and for what the bus wants.
const WORK: u32 = 0;
/// Bytes of a command, at most: a list of pages for the largest buffer.
const MAX_COMMAND: usize = 512 * 1024;

/// The device, before it is served and after.
pub struct MediaDevice {
    config: Config,
    /// Bytes of shared memory region 0.
    region: u64,
    parts: Mutex<Option<CommandHandler>>,
}

impl MediaDevice {
    /// A device of this name that does what `function` does, for so many sessions at a time.
    #[must_use]
    pub fn new(
        card: &str,
        function: Box<dyn Function>,
        max_sessions: usize,
        statistics: Arc<Statistics>,
        beat: Arc<Heartbeat>,
    ) -> Self {
        let config = Config {
            device_caps: function.capabilities(),
            // VFL_TYPE_VIDEO.
            device_type: 0,
            card: name(card),
        };
        let handler = CommandHandler {
            function,
            max_sessions,
            statistics,
            beat,
            budget: None,
            region: Region::new(0),
            sessions: BTreeSet::new(),
            next_session: 1,
            outbox: Outbox::default(),
            attached: false,
            saved: Vec::new(),
        };
        Self {
            config,
            region: 0,
            parts: Mutex::new(Some(handler)),
        }
    }

    /// The same, with so many bytes of memory of its own for MMAP buffers, which its guest sees in
    /// shared memory region 0. A multiple of [`PIECE`](crate::memory::PIECE).
    #[must_use]
    pub fn with_buffer_memory(mut self, bytes: u64) -> Self {
        let parts = self.parts.get_mut();
        if let Some(handler) = parts.unwrap_or_else(PoisonError::into_inner) {
            handler.budget = (bytes > 0).then(|| Budget::new(bytes));
            handler.region = Region::new(bytes);
        }
        self.region = bytes;
        self
    }
}

impl Device for MediaDevice {
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
        self.config.as_bytes().to_vec()
    }

    fn shared_memory(&self) -> Vec<u64> {
        vec![self.region]
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let handler = self
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let plan = |handler| ThreadPlan {
            name: "media",
            queues: vec![0, 1],
            handler: Box::new(handler) as Box<dyn Handler>,
        };
        handler.map(plan).into_iter().collect()
    }
}

/// How the record begins.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Saved {
    version: u32,
    next_session: u32,
    sessions: u32,
    mappings: u32,
}

const SAVED_VERSION: u32 = 2;

/// Serves the queues.
struct CommandHandler {
    function: Box<dyn Function>,
    max_sessions: usize,
    statistics: Arc<Statistics>,
    beat: Arc<Heartbeat>,
    /// What MMAP buffers may have.
    budget: Option<Budget>,
    /// What the guest has mapped of them.
    region: Region,
    sessions: BTreeSet<Session>,
    /// Numbers are not given twice, so that a session which was lost is never taken for another.
    next_session: Session,
    outbox: Outbox,
    attached: bool,
    /// As it lies in the record.
    saved: Vec<u8>,
}

/// Runs `body` with a [`Context`].
macro_rules! with_context {
    ($self:ident, $io:ident, |$function:ident, $context:ident| $body:expr) => {{
        let $context = &mut Context {
            memory: $io.memory(),
            budget: $self.budget.as_ref().filter(|_| $io.vmm_maps()),
            now: $io.now(),
            outbox: &mut $self.outbox,
        };
        let $function = &mut $self.function;
        $body
    }};
}

impl CommandHandler {
    fn turn(&mut self, io: &mut Io) {
        let beat = Arc::clone(&self.beat);
        let _turn = beat.turn();
        self.end_condemned(io);
        if io.running(COMMANDS) {
            for (chain, answer) in self.region.done() {
                respond(io, chain, &answer);
            }
        }
        while let Some(chain) = io.pop(COMMANDS) {
            self.command(io, chain);
        }
        self.work(io);
    }

    /// Pictures and events; nothing of it while the guest is paused.
    fn work(&mut self, io: &mut Io) {
        if !io.running(COMMANDS) {
            io.set_deadline(None);
            return;
        }
        let lost = with_context!(self, io, |function, context| function.turn(context));
        for (session, errno) in lost {
            self.lose(io, session, errno);
        }
        self.outbox.deliver(io);
        io.set_deadline(self.function.due(io.now()));
    }

    fn end_condemned(&mut self, io: &mut Io) {
        for session in self.statistics.take_condemned() {
            self.lose(io, session, Errno::NODEV);
        }
    }

    /// Ends a session from this side.
    fn lose(&mut self, io: &mut Io, session: Session, errno: Errno) {
        if self.end(io, session) {
            self.statistics.lost(session);
            self.outbox.error(session, errno);
            self.save(io);
        }
    }

    fn end(&mut self, io: &mut Io, session: Session) -> bool {
        if !self.sessions.remove(&session) {
            return false;
        }
        with_context!(self, io, |function, context| function
            .close(session, context));
        self.outbox.forget(session);
        self.statistics.closed(session);
        true
    }

    fn command(&mut self, io: &mut Io, chain: Chain) {
        let header: Result<CommandHeader, _> = chain.read_value(io.memory(), 0);
        let Ok(header) = header else {
            io.fail(chain, 0);
            return;
        };
        // One that has killed the service twice is not tried again.
        let answer = if chain.is_suspect() {
            Err(Errno::IO)
        } else {
            match Command::from_code(header.code) {
                Some(Command::Open) => self.open(io),
                Some(Command::Close) => {
                    self.close(io, chain);
                    return;
                }
                Some(Command::Ioctl) => self.ioctl(io, &chain),
                Some(Command::Mmap) => {
                    self.mmap(io, chain);
                    return;
                }
                Some(Command::Munmap) => {
                    self.munmap(io, chain);
                    return;
                }
                None => Err(Errno::NOTTY),
            }
        };
        match answer {
            Ok(answer) => respond(io, chain, &answer),
            Err(error) => respond(io, chain, &error.into()),
        }
    }

    fn open(&mut self, io: &Io) -> Result<Answer, Errno> {
        let session = self.next_session;
        // One that is lost counts until the driver knows: a guest that never reads its events
        // would have us keep them without end.
        let taken = self.sessions.len().saturating_add(self.outbox.errors());
        let admitted = if taken < self.max_sessions {
            self.function.open(session)
        } else {
            Err(Errno::BUSY)
        };
        if let Err(error) = admitted {
            self.statistics.refused_session();
            return Err(error);
        }
        self.next_session = session.checked_add(1).unwrap_or(1);
        self.sessions.insert(session);
        self.statistics.opened(session);
        self.save(io);
        let opened = Opened {
            header: ResponseHeader {
                status: 0,
                reserved: 0,
            },
            session,
            reserved: 0,
        };
        let rest = opened.as_bytes().get(size_of::<ResponseHeader>()..);
        Ok(Answer {
            error: None,
            payload: rest.unwrap_or_default().to_vec(),
        })
    }

    fn close(&mut self, io: &mut Io, chain: Chain) {
        match chain.read_value::<Close>(io.memory(), size_of::<CommandHeader>()) {
            Ok(close) => {
                if self.end(io, close.session) {
                    self.save(io);
                }
                // It may have been lost before, and nobody needs to hear of it now.
                self.outbox.forget(close.session);
                io.complete(chain, 0);
            }
            Err(_) => io.fail(chain, 0),
        }
    }

    fn ioctl(&mut self, io: &Io, chain: &Chain) -> Result<Answer, Errno> {
        let at = size_of::<CommandHeader>();
        let invalid = |_| Errno::INVAL;
        let head: IoctlHead = chain.read_value(io.memory(), at).map_err(invalid)?;
        if !self.sessions.contains(&head.session) {
            return Err(Errno::NODEV);
        }
        let at = at.saturating_add(size_of::<IoctlHead>());
        let len = chain.readable().saturating_sub(at);
        if len > MAX_COMMAND {
            return Err(Errno::NOMEM);
        }
        let ioctl = Ioctl::from_number(head.number).ok_or(Errno::NOTTY)?;
        let mut bytes = vec![0; len];
        chain.read(io.memory(), at, &mut bytes).map_err(invalid)?;
        let answer = with_context!(self, io, |function, context| {
            function.ioctl(head.session, ioctl, Input::new(&bytes), context)
        });
        self.statistics.answered(answer.error.is_none());
        if answer.error.is_none() && is_setting(ioctl) {
            self.save(io);
        }
        Ok(answer)
    }

    /// MMAP: answered when the VMM has mapped it.
    fn mmap(&mut self, io: &mut Io, chain: Chain) {
        let found = self.to_map(io, &chain);
        let kept = match found {
            Ok((memory, writable)) => self.region.map(chain, memory, writable),
            Err(error) => Err((chain, error)),
        };
        self.ask_vmm(io, kept);
    }

    fn to_map(&self, io: &Io, chain: &Chain) -> Result<(Arc<PlaneMemory>, bool), Errno> {
        let read = chain.read_value::<Mmap>(io.memory(), size_of::<CommandHeader>());
        let command = read.map_err(|_| Errno::INVAL)?;
        if !self.sessions.contains(&command.session) {
            return Err(Errno::NODEV);
        }
        // Without room for the answer, nobody could ever take the mapping back.
        if chain.writable() < size_of::<Mapped>() {
            return Err(Errno::INVAL);
        }
        let memory = self.function.memory_at(command.session, command.offset);
        let writable = command.flags & MMAP_WRITABLE != 0;
        Ok((memory.ok_or(Errno::INVAL)?, writable))
    }

    /// MUNMAP: answered when the VMM has taken it back.
    fn munmap(&mut self, io: &mut Io, chain: Chain) {
        let kept = match chain.read_value::<Munmap>(io.memory(), size_of::<CommandHeader>()) {
            Ok(command) => self.region.unmap(chain, command.offset),
            Err(_) => Err((chain, Errno::INVAL)),
        };
        self.ask_vmm(io, kept);
    }

    /// Asks the VMM for what has become due. The record knows before.
    fn ask_vmm(&mut self, io: &mut Io, kept: Result<(), (Chain, Errno)>) {
        match kept {
            Ok(()) => {
                self.save(io);
                self.region.ask(io);
                for (chain, answer) in self.region.done() {
                    respond(io, chain, &answer);
                }
            }
            Err((chain, error)) => respond(io, chain, &error.into()),
        }
    }

    /// What is to outlive the process, before the driver hears that it is so.
    fn save(&mut self, io: &Io) {
        let head = Saved {
            version: SAVED_VERSION,
            next_session: self.next_session,
            sessions: u32::try_from(self.sessions.len()).unwrap_or(0),
            mappings: u32::try_from(self.region.len()).unwrap_or(0),
        };
        let mut bytes = head.as_bytes().to_vec();
        for session in &self.sessions {
            bytes.extend_from_slice(session.as_bytes());
        }
        bytes.extend_from_slice(&self.region.saved());
        bytes.extend_from_slice(&self.function.saved());
        if bytes == self.saved {
            return;
        }
        match io.record().save_settings(&bytes) {
            Ok(()) => self.saved = bytes,
            Err(error) => log::error!("sessions would not outlive the service: {error}"),
        }
    }

    /// Goes on after the death of another process: its sessions are lost, and told so.
    fn recover(&mut self, io: &mut Io) {
        let Some(bytes) = io.record().settings() else {
            return;
        };
        let mut input = Input::new(&bytes);
        let Ok(head) = input.take::<Saved>() else {
            return;
        };
        if head.version != SAVED_VERSION {
            return;
        }
        self.next_session = head.next_session;
        let count = usize::try_from(head.sessions).unwrap_or(0);
        let Ok(sessions) = input.take_all::<Session>(count) else {
            return;
        };
        for session in sessions {
            self.statistics.lost(session);
            self.outbox.error(session, Errno::CONNRESET);
        }
        let mappings = usize::try_from(head.mappings).unwrap_or(0);
        if self
            .region
            .restore(&mut input, mappings, self.budget.as_ref())
            .is_ok()
        {
            self.function.restore(input.rest());
        }
        self.save(io);
        self.region.ask(io);
    }
}

/// Whether an ioctl may have changed what is saved.
fn is_setting(ioctl: Ioctl) -> bool {
    matches!(
        ioctl,
        Ioctl::SFmt | Ioctl::SParm | Ioctl::SCtrl | Ioctl::SExtCtrls
    )
}

/// Gives a command back with its answer, as much of it as there is room for.
fn respond(io: &mut Io, chain: Chain, answer: &Answer) {
    let header = ResponseHeader {
        status: answer
            .error
            .map_or(0, |error| error.raw_os_error().unsigned_abs()),
        reserved: 0,
    };
    let at = size_of::<ResponseHeader>();
    let room = chain.writable().saturating_sub(at);
    let payload = answer.payload.get(..room).unwrap_or(&answer.payload);
    let written = chain
        .write_value(io.memory(), 0, &header)
        .and_then(|()| chain.write(io.memory(), at, payload));
    match (written, u32::try_from(at.saturating_add(payload.len()))) {
        (Ok(()), Ok(len)) => io.complete(chain, len),
        _ => io.fail(chain, 0),
    }
}

impl Handler for CommandHandler {
    fn started(&mut self, io: &mut Io, queue: usize, start: Start) {
        if !self.attached {
            match io.waker(WORK) {
                Ok(waker) => {
                    self.statistics.attach(waker.clone());
                    self.function.attach(waker);
                    self.attached = true;
                }
                Err(error) => log::error!("nothing will wake the camera: {error}"),
            }
        }
        if queue == COMMANDS && start == Start::Recovered {
            self.recover(io);
        }
        self.turn(io);
    }

    fn kicked(&mut self, io: &mut Io, _queue: usize) {
        self.turn(io);
    }

    fn woken(&mut self, io: &mut Io, _token: u32) {
        self.turn(io);
    }

    fn deadline(&mut self, io: &mut Io) {
        self.turn(io);
    }

    fn answered(&mut self, io: &mut Io, ticket: Ticket, answer: VmmAnswer) {
        self.region.answered(ticket, answer);
        self.save(io);
        self.region.ask(io);
        self.turn(io);
    }

    fn stopped(&mut self, io: &mut Io, _queue: usize) {
        io.set_deadline(None);
    }

    fn reset(&mut self, io: &mut Io) {
        self.function.reset();
        self.outbox.clear();
        self.sessions.clear();
        self.region.reset(io.vmm_maps());
        self.statistics.cleared();
        io.set_deadline(None);
        self.save(io);
    }
}
