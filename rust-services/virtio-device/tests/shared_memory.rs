// SPDX-License-Identifier: Apache-2.0

//! Shared memory regions, and what a device asks its VMM for, over a VMM that answers, refuses, keeps
//! silent or leaves.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod echo;

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use echo::ask;
use frontend::protocol::protocol_feature;
use frontend::session::Wishes;
use frontend::{Deadline, Guest, GuestOptions, SharedMemory};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtio_device::{
    Answer, Device, Handler, Io, Options, Place, QueueSpec, Refused, Request, Server, ThreadPlan,
    Ticket, Unanswered,
};

const SIZE: u64 = 0x10_0000;
const PAGE: u64 = 4096;
const QUEUES: [QueueSpec; 1] = [QueueSpec { name: "echo" }];

/// Asks for what the first byte of a request says at the page that the second one says, and answers
/// the request without waiting.
struct Mapper(Sender<Result<usize, Refused>>);

impl Device for Mapper {
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
    fn shared_memory(&self) -> Vec<u64> {
        vec![0, SIZE]
    }
    fn threads(&self) -> Vec<ThreadPlan> {
        vec![ThreadPlan {
            name: "mapper",
            queues: vec![0],
            handler: Box::new(Asks(self.0.clone())),
        }]
    }
}

struct Asks(Sender<Result<usize, Refused>>);

impl Handler for Asks {
    fn kicked(&mut self, io: &mut Io, queue: usize) {
        while let Some(chain) = io.pop(queue) {
            let mut bytes = [0; 2];
            chain.read(io.memory(), 0, &mut bytes).unwrap();
            let place = Place {
                region: 1,
                offset: u64::from(bytes[1]) * PAGE,
                len: PAGE,
            };
            match bytes[0] {
                b'm' => {
                    let file = memfd_create("mapped", MemfdFlags::CLOEXEC).unwrap();
                    ftruncate(&file, PAGE).unwrap();
                    rustix::io::pwrite(&file, b"of the device", 7).unwrap();
                    io.ask(Request::Map {
                        place,
                        file: Arc::new(file),
                        file_offset: 0,
                        writable: bytes[1] % 2 == 0,
                    });
                }
                b'u' => drop(io.ask(Request::Unmap(place))),
                _ => {}
            }
            io.complete(chain, 0);
        }
    }

    fn answered(&mut self, _io: &mut Io, _ticket: Ticket, answer: Answer) {
        self.0.send(answer.map(|reply| reply.fds.len())).unwrap();
    }

    fn reset(&mut self, _io: &mut Io) {}
}

struct Bench {
    socket: std::path::PathBuf,
    answers: Receiver<Result<usize, Refused>>,
    stop: virtio_device::Stop,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// Of a VMM that may take its time.
    fn start() -> Self {
        Self::with_patience(Duration::from_secs(3600))
    }

    fn with_patience(patience: Duration) -> Self {
        let (sender, answers) = channel();
        let device = Arc::new(Mapper(sender));
        let server = Server::with_vmm_patience(device, Options::default(), patience).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let stop = server.stop_handle();
        let thread = std::thread::spawn(move || server.serve(&listener).unwrap());
        Self {
            socket,
            answers,
            stop,
            thread: Some(thread),
            _directory: directory,
        }
    }

    fn guest(&self, protocol: u64) -> Guest {
        let mut options = GuestOptions::new(1);
        options.wishes = Wishes {
            protocol,
            ..options.wishes
        };
        let stream = UnixStream::connect(&self.socket).unwrap();
        let mut guest = Guest::connect(stream, &options).unwrap();
        guest.start().unwrap();
        guest
    }

    fn answer(&self) -> Result<usize, Refused> {
        self.answers.recv_timeout(Deadline::PATIENCE).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn serve(guest: &Guest, shared: &mut SharedMemory) -> bool {
    let channel = guest.session().unwrap().channel().unwrap();
    shared.serve(channel, Deadline::patient()).unwrap()
}

#[test]
fn what_a_device_maps_is_seen_by_the_guest_until_it_is_unmapped() {
    let bench = Bench::start();
    let mut guest = bench.guest(protocol_feature::SUPPORTED);
    let mut shared = SharedMemory::ask(guest.session().unwrap()).unwrap();
    assert_eq!(shared.sizes(), [0, SIZE]);
    // The request is answered although nobody has answered the device.
    ask(&mut guest, b"m\x04", 2);
    assert!(serve(&guest, &mut shared));
    assert_eq!(bench.answer(), Ok(0));
    assert_eq!(shared.read(1, 4 * PAGE + 7, 13).unwrap(), b"of the device");
    shared.write(1, 4 * PAGE, b"writable").unwrap();
    // Where something is, nothing else can be.
    ask(&mut guest, b"m\x04", 2);
    assert!(!serve(&guest, &mut shared));
    assert_eq!(bench.answer(), Err(Refused::ByVmm(1)));
    ask(&mut guest, b"m\x05", 2);
    assert!(serve(&guest, &mut shared));
    assert_eq!(bench.answer(), Ok(0));
    assert!(shared.write(1, 5 * PAGE, b"x").is_err());
    ask(&mut guest, b"u\x04", 2);
    assert!(serve(&guest, &mut shared));
    assert_eq!(bench.answer(), Ok(0));
    assert!(shared.read(1, 4 * PAGE, 1).is_err());
}

#[test]
fn a_vmm_that_has_not_negotiated_it_is_not_asked() {
    let bench = Bench::start();
    for missing in [
        protocol_feature::SHMEM,
        protocol_feature::REPLY_ACK,
        protocol_feature::BACKEND_REQ,
    ] {
        let mut guest = bench.guest(protocol_feature::SUPPORTED & !missing);
        ask(&mut guest, b"m\x00", 2);
        let refused = match missing {
            protocol_feature::BACKEND_REQ => Unanswered::Gone,
            _ => Unanswered::NotNegotiated,
        };
        assert_eq!(bench.answer(), Err(refused.into()), "{missing:#x}");
    }
}

#[test]
fn a_vmm_that_keeps_silent_holds_up_no_request_and_every_question_is_answered_when_it_leaves() {
    let bench = Bench::start();
    let mut guest = bench.guest(protocol_feature::SUPPORTED);
    const QUESTIONS: u8 = 200;
    for page in 0..QUESTIONS {
        // Answered at once, each of them.
        ask(&mut guest, &[b'm', page], 2);
    }
    // A queue can be stopped while its device waits for an answer.
    guest.pause().unwrap();
    guest.resume().unwrap();
    guest.hang_up().unwrap();
    for _ in 0..QUESTIONS {
        assert_eq!(bench.answer(), Err(Unanswered::Gone.into()));
    }
}

#[test]
fn a_silent_vmm_is_given_up_and_what_it_says_late_is_told_after_all() {
    let bench = Bench::with_patience(Duration::from_millis(20));
    let mut guest = bench.guest(protocol_feature::SUPPORTED);
    let mut shared = SharedMemory::ask(guest.session().unwrap()).unwrap();
    ask(&mut guest, b"m\x00", 2);
    assert_eq!(bench.answer(), Err(Unanswered::Late.into()));
    // The answer comes after all, and is not taken for that to the next question.
    ask(&mut guest, b"m\x00", 2);
    assert!(serve(&guest, &mut shared));
    assert!(!serve(&guest, &mut shared));
    let late = || Err(Refused::from(Unanswered::Late));
    let mut said = vec![bench.answer(), bench.answer()];
    if said.contains(&late()) {
        said.push(bench.answer());
        said.retain(|answer| *answer != late());
    }
    assert_eq!(said, [Ok(0), Err(Refused::ByVmm(1))]);
    // Of one that never comes the end is told.
    ask(&mut guest, b"m\x01", 2);
    assert_eq!(bench.answer(), late());
    guest.hang_up().unwrap();
    assert_eq!(bench.answer(), Err(Unanswered::Gone.into()));
    assert!(bench.answers.try_recv().is_err());
}

#[test]
fn a_device_without_regions_does_not_offer_shmem() {
    let service = echo::Service::start();
    let guest = service.guest();
    let session = guest.session().unwrap();
    assert!(!session.has(protocol_feature::SHMEM));
}
