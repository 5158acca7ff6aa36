// SPDX-License-Identifier: Apache-2.0

//! The smallest device that shows all that the ground floor does, and a guest for it.
//!
//! Queue 0 answers each request with its own bytes; "release" also gives back what queue 1 holds,
//! "mark" marks what was given back with the answer, and "seen" notes whether the driver has seen it.
//! Queue 1 holds its chains until then: what a sound or video device does with buffers.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use frontend::{ChainId, Deadline, Guest, GuestOptions, Segment};
use virtio_device::{
    Chain, Device, Handler, Io, Mark, Options, QueueSpec, Record, Server, Start, Stop, ThreadPlan,
};

pub const ECHO: u16 = 0;
pub const HOLD: u16 = 1;
const QUEUES: [QueueSpec; 2] = [QueueSpec { name: "echo" }, QueueSpec { name: "hold" }];

/// What the device saw, for tests to look at.
#[derive(Debug, Default)]
pub struct Seen {
    pub starts: Vec<(usize, Start)>,
    pub resets: usize,
    pub written: Vec<(u32, Vec<u8>)>,
    pub marked: Vec<virtio_device::Seen>,
}

pub struct Echo {
    pub seen: Arc<Mutex<Seen>>,
    pub config: Arc<Mutex<Vec<u8>>>,
}

impl Device for Echo {
    fn id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        1
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        self.config.lock().unwrap().clone()
    }

    fn write_config(&self, offset: u32, data: &[u8]) {
        self.seen
            .lock()
            .unwrap()
            .written
            .push((offset, data.to_vec()));
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let handler = Box::new(EchoHandler {
            held: Vec::new(),
            mark: None,
            seen: Arc::clone(&self.seen),
        });
        vec![ThreadPlan {
            name: "echo",
            queues: vec![0, 1],
            handler,
        }]
    }
}

struct EchoHandler {
    held: Vec<Chain>,
    mark: Option<Mark>,
    seen: Arc<Mutex<Seen>>,
}

impl Handler for EchoHandler {
    fn started(&mut self, _io: &mut Io, queue: usize, start: Start) {
        self.seen.lock().unwrap().starts.push((queue, start));
    }

    fn kicked(&mut self, io: &mut Io, queue: usize) {
        while let Some(chain) = io.pop(queue) {
            if queue == usize::from(HOLD) {
                self.held.push(chain);
                continue;
            }
            let len = chain.readable().min(chain.writable());
            let mut bytes = vec![0; chain.readable()];
            let done = chain
                .read(io.memory(), 0, &mut bytes)
                .and_then(|()| chain.write(io.memory(), 0, &bytes[..len]));
            if bytes == b"seen" {
                let seen = io.has_seen(queue, self.mark.unwrap());
                self.seen.lock().unwrap().marked.push(seen);
            }
            match done {
                Ok(()) => io.complete(chain, len as u32),
                Err(_) => io.fail(chain, 0),
            }
            if bytes == b"mark" {
                self.mark = io.mark(queue);
            }
            if bytes == b"release" {
                // What was made available before the request counts, whichever kick came first.
                while let Some(chain) = io.pop(usize::from(HOLD)) {
                    self.held.push(chain);
                }
                for held in std::mem::take(&mut self.held) {
                    let written = u32::from(held.write(io.memory(), 0, b"R").is_ok());
                    io.complete(held, written);
                }
            }
        }
    }

    fn reset(&mut self, _io: &mut Io) {
        self.held.clear();
        self.seen.lock().unwrap().resets += 1;
    }
}

/// The device, served on a socket by a thread.
pub struct Service {
    pub seen: Arc<Mutex<Seen>>,
    pub config: Arc<Mutex<Vec<u8>>>,
    pub server: Arc<Server>,
    pub socket: PathBuf,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Service {
    pub fn start() -> Self {
        Self::with_record(None)
    }

    pub fn with_record(record: Option<Record>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let config = Arc::new(Mutex::new((1..=10).collect()));
        let device = Echo {
            seen: Arc::clone(&seen),
            config: Arc::clone(&config),
        };
        let options = Options {
            record,
            ..Options::default()
        };
        let server = Arc::new(Server::new(Arc::new(device), options).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let stop = server.stop_handle();
        let serving = Arc::clone(&server);
        let thread = std::thread::spawn(move || serving.serve(&listener).unwrap());
        Self {
            seen,
            config,
            server,
            socket,
            stop,
            thread: Some(thread),
            _directory: directory,
        }
    }

    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    /// A guest whose rings run.
    pub fn guest(&self) -> Guest {
        self.guest_with(&GuestOptions::new(2))
    }

    pub fn guest_with(&self, options: &GuestOptions) -> Guest {
        let mut guest = Guest::connect(self.connect(), options).unwrap();
        guest.start().unwrap();
        guest
    }

    pub fn errors(&self, queue: u16) -> u64 {
        self.server
            .stats()
            .queue(usize::from(queue))
            .unwrap()
            .errors
            .get()
    }

    pub fn broken(&self, queue: u16) -> u64 {
        self.server
            .stats()
            .queue(usize::from(queue))
            .unwrap()
            .broken
            .get()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(
            ended.is_ok() || std::thread::panicking(),
            "the service panicked"
        );
    }
}

/// Sends `request` cut into readable pieces of `cut` bytes, with room for the answer in writable
/// pieces of the same size; the answer.
pub fn ask(guest: &mut Guest, request: &[u8], cut: usize) -> Vec<u8> {
    let memory = Arc::clone(guest.memory());
    let mut segments = Vec::new();
    for piece in request.chunks(cut) {
        let buffer = memory.alloc(piece.len() as u32, 1).unwrap();
        memory.write(buffer.addr, piece).unwrap();
        segments.push(Segment::Readable(buffer));
    }
    let mut answer = Vec::new();
    for piece in request.chunks(cut) {
        let buffer = memory.alloc(piece.len() as u32, 1).unwrap();
        answer.push(buffer);
        segments.push(Segment::Writable(buffer));
    }
    let ring = guest.ring_mut(ECHO);
    let chain = ring.add(&segments).unwrap();
    ring.kick().unwrap();
    let done = ring.wait(Deadline::patient()).unwrap();
    assert_eq!(done.chain, chain);
    let mut bytes = Vec::new();
    for buffer in &answer {
        bytes.extend(memory.bytes(buffer.addr, buffer.len).unwrap());
    }
    bytes.truncate(done.written as usize);
    for segment in segments {
        let (Segment::Readable(buffer) | Segment::Writable(buffer)) = segment;
        memory.free(buffer);
    }
    bytes
}

/// Hands the device a chain that it holds.
pub fn hold(guest: &mut Guest) -> ChainId {
    let buffer = guest.memory().alloc(1, 1).unwrap();
    let ring = guest.ring_mut(HOLD);
    let chain = ring.add(&[Segment::Writable(buffer)]).unwrap();
    ring.kick().unwrap();
    chain
}

/// Has all held chains given back; them, in order.
pub fn release(guest: &mut Guest) -> Vec<ChainId> {
    assert_eq!(ask(guest, b"release", 7), b"release");
    let done = guest.ring_mut(HOLD).wait_all(Deadline::patient()).unwrap();
    done.into_iter().map(|done| done.chain).collect()
}
