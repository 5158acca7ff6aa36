// SPDX-License-Identifier: Apache-2.0

//! A device with two queue threads: both serve at the same time, a hostile queue is nobody else's
//! matter, and resets and hang-ups meet both in the middle of their work.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use frontend::hostile::{Attack, Expectation, Request};
use frontend::ring::Ring;
use frontend::{Buffer, Deadline, Guest, GuestOptions, Segment};
use virtio_device::{Device, Handler, Io, Options, QueueSpec, Server, Stop, ThreadPlan};

const PATIENCE: Duration = Duration::from_secs(60);
const QUEUES: [QueueSpec; 2] = [QueueSpec { name: "left" }, QueueSpec { name: "right" }];
/// Asks a queue's thread to answer only once both are inside of a request.
const MEET: &[u8] = b"meet me!";

/// What the two threads have in common.
#[derive(Default)]
struct Shared {
    /// How many are inside of a request that wants the other one.
    inside: Mutex<usize>,
    came: Condvar,
    /// Which thread served each queue last.
    served_by: [Mutex<Option<ThreadId>>; 2],
    resets: AtomicU64,
}

struct Twins(Arc<Shared>);

impl Device for Twins {
    fn id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        [("left", 0), ("right", 1)]
            .map(|(name, queue)| ThreadPlan {
                name,
                queues: vec![queue],
                handler: Box::new(Echo(Arc::clone(&self.0))),
            })
            .into()
    }
}

/// Answers each request with its own bytes.
struct Echo(Arc<Shared>);

impl Handler for Echo {
    fn kicked(&mut self, io: &mut Io, queue: usize) {
        *self.0.served_by[queue].lock().unwrap() = Some(std::thread::current().id());
        while let Some(chain) = io.pop(queue) {
            let len = chain.readable().min(chain.writable());
            let mut bytes = vec![0; chain.readable()];
            let done = chain
                .read(io.memory(), 0, &mut bytes)
                .and_then(|()| chain.write(io.memory(), 0, &bytes[..len]));
            if bytes == MEET {
                let mut inside = self.0.inside.lock().unwrap();
                *inside += 1;
                self.0.came.notify_all();
                let both = self.0.came.wait_timeout_while(inside, PATIENCE, |n| *n < 2);
                assert!(!both.unwrap().1.timed_out(), "the other thread never came");
            }
            match done {
                Ok(()) => io.complete(chain, len as u32),
                Err(_) => io.fail(chain, 0),
            }
        }
    }

    fn reset(&mut self, _io: &mut Io) {
        self.0.resets.fetch_add(1, Ordering::SeqCst);
    }
}

/// The device, served on a socket by a thread.
struct Service {
    shared: Arc<Shared>,
    server: Arc<Server>,
    folder: tempfile::TempDir,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let device = Arc::new(Twins(Arc::clone(&shared)));
        let server = Arc::new(Server::new(device, Options::default()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let (stop, serving) = (server.stop_handle(), Arc::clone(&server));
        let thread = std::thread::spawn(move || serving.serve(&listener).unwrap());
        Self {
            shared,
            server,
            folder,
            stop,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("socket")).unwrap()
    }

    fn guest(&self) -> Guest {
        let mut guest = Guest::connect(self.connect(), &GuestOptions::new(2)).unwrap();
        guest.start().unwrap();
        guest
    }

    fn broken(&self, queue: usize) -> u64 {
        self.server.stats().queue(queue).unwrap().broken.get()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// A request's buffers, used again and again.
#[derive(Clone, Copy)]
struct Pair {
    request: Buffer,
    answer: Buffer,
}

impl Pair {
    fn new(guest: &Guest, text: &[u8]) -> Self {
        let memory = guest.memory();
        let buffer = || memory.alloc(text.len() as u32, 1).unwrap();
        let (request, answer) = (buffer(), buffer());
        memory.write(request.addr, text).unwrap();
        Self { request, answer }
    }

    fn send(&self, ring: &mut Ring) {
        ring.add(&[
            Segment::Readable(self.request),
            Segment::Writable(self.answer),
        ])
        .unwrap();
        ring.kick().unwrap();
    }

    /// Sends it, and expects it back whole.
    fn echo(&self, ring: &mut Ring, text: &[u8]) {
        let memory = Arc::clone(ring.memory());
        memory
            .fill(self.answer.addr, self.answer.len, 0xee)
            .unwrap();
        self.send(ring);
        let done = ring.wait(Deadline::patient()).unwrap();
        assert_eq!(done.written as usize, text.len());
        let answer = memory.bytes(self.answer.addr, self.answer.len);
        assert_eq!(answer.unwrap(), text);
    }
}

/// Both rings, to be used by two threads.
fn rings(guest: &mut Guest) -> (&mut Ring, &mut Ring) {
    let (left, right) = guest.rings_mut().split_at_mut(1);
    (&mut left[0], &mut right[0])
}

fn both_echo(guest: &mut Guest) {
    let pair = Pair::new(guest, b"well");
    let (left, right) = rings(guest);
    pair.echo(left, b"well");
    pair.echo(right, b"well");
}

#[test]
fn two_queue_threads_are_inside_of_a_request_at_the_same_time() {
    let service = Service::start();
    let mut guest = service.guest();
    let pairs = [Pair::new(&guest, MEET), Pair::new(&guest, MEET)];
    let (left, right) = rings(&mut guest);
    pairs[0].send(left);
    pairs[1].send(right);
    // With one thread, the first request would wait for the second for ever.
    assert_eq!(left.wait_all(Deadline::patient()).unwrap().len(), 1);
    assert_eq!(right.wait_all(Deadline::patient()).unwrap().len(), 1);
    let served_by = |queue: usize| service.shared.served_by[queue].lock().unwrap().unwrap();
    assert_ne!(served_by(0), served_by(1));
}

#[test]
fn one_queue_serves_without_a_fault_while_the_other_is_attacked_in_every_way() {
    let service = Service::start();
    let request = Request {
        readable: (1..=16).collect(),
        writable: 24,
    };
    for attacked in [0_usize, 1] {
        for attack in Attack::ALL {
            let mut guest = service.guest();
            let pair = Pair::new(&guest, b"honest");
            let before = service.broken(1 - attacked);
            let over = AtomicBool::new(false);
            let (left, right) = rings(&mut guest);
            let (hostile, honest) = if attacked == 0 {
                (left, right)
            } else {
                (right, left)
            };
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut echoes = 0;
                    while echoes < 20 || !over.load(Ordering::SeqCst) {
                        pair.echo(honest, b"honest");
                        echoes += 1;
                    }
                });
                for _ in 0..10 {
                    attack.launch(hostile, &request).unwrap();
                    if attack.expectation() != Expectation::Returned {
                        // It is set aside until reset; it need not be told twice.
                        break;
                    }
                    hostile.wait(Deadline::patient()).unwrap();
                }
                over.store(true, Ordering::SeqCst);
            });
            assert_eq!(service.broken(1 - attacked), before, "{attack:?}");
            guest.reset().unwrap();
            guest.resume().unwrap();
            both_echo(&mut guest);
        }
    }
}

#[test]
fn pauses_resets_and_hang_ups_meet_both_threads_in_the_middle_of_their_work() {
    let service = Service::start();
    let mut guest = service.guest();
    for round in 0..200 {
        let pair = Pair::new(&guest, b"busy");
        let (left, right) = rings(&mut guest);
        for _ in 0..20 {
            pair.send(left);
            pair.send(right);
        }
        match round % 4 {
            0 => {
                guest.pause().unwrap();
                guest.resume().unwrap();
            }
            1 => {
                guest.reset().unwrap();
                guest.resume().unwrap();
            }
            2 => {
                guest.reset_by_message().unwrap();
                guest.resume().unwrap();
            }
            _ => {
                guest.reconnect(service.connect()).unwrap();
                guest.start().unwrap();
            }
        }
        // What is still out comes back once: the rings refuse a head that is not out.
        let (left, right) = rings(&mut guest);
        left.wait_all(Deadline::patient()).unwrap();
        right.wait_all(Deadline::patient()).unwrap();
        both_echo(&mut guest);
    }
    assert!(service.shared.resets.load(Ordering::SeqCst) >= 100);
    assert_eq!((service.broken(0), service.broken(1)), (0, 0));
}
