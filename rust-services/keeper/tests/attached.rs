// SPDX-License-Identifier: Apache-2.0

//! A keeper that holds a connection to a service which somebody else starts (`--attach`).
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail where it stands"
)]

#[path = "../../relay/tests/peers/mod.rs"]
mod peers;

use std::fs::File;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use agl_virtio_relay::Record;
use agl_virtio_relay::message::Message;
use peers::{DEADLINE, Peer, Service, Vmm, names, state};
use rustix::process::{Pid, Signal, kill_process};
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::FrontendReq as R;

const MEMORY: (u64, u64, u64) = (0x4000_0000, 0x10_0000, 0x7000_0000);

/// What a service for several guests can do: it takes its record from whoever connects.
const PROTOCOL: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::CONFIG)
    .union(Protocol::RESET_DEVICE)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::STATUS)
    .union(Protocol::INFLIGHT_SHMFD);

/// One life of a service at a seat: a thread that answers whoever comes first.
struct Life {
    seat: PathBuf,
    connected: Receiver<UnixStream>,
    thread: JoinHandle<Vec<Message>>,
}

impl Life {
    fn begin(seat: &Path) -> Self {
        let listener = UnixListener::bind(seat).unwrap();
        let (sender, connected) = channel();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            sender.send(stream.try_clone().unwrap()).unwrap();
            let mut service = Service(Peer::new(stream));
            let mut told = Vec::new();
            while let Some(request) = service.0.hear() {
                if request.frontend_request() == Some(R::GET_PROTOCOL_FEATURES) {
                    let reply = Message::reply_u64(request.code(), PROTOCOL.bits());
                    service.0.send(&reply);
                } else {
                    service.answer(&request);
                }
                told.push(request);
            }
            told
        });
        let seat = seat.to_owned();
        Self {
            seat,
            connected,
            thread,
        }
    }

    /// The service dies, its socket with it; what it was told.
    fn end(self) -> Vec<Message> {
        let stream = self.connected.recv_timeout(DEADLINE).unwrap();
        std::fs::remove_file(&self.seat).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
        self.thread.join().unwrap()
    }
}

/// The record that a service was brought.
fn brought(told: &[Message]) -> Record {
    let request = told
        .iter()
        .find(|of| of.frontend_request() == Some(R::SET_INFLIGHT_FD))
        .expect("it was brought no record");
    Record::open(File::from(request.fds[0].try_clone().unwrap())).unwrap()
}

struct Keeper {
    child: Child,
    folder: tempfile::TempDir,
}

impl Keeper {
    fn start(grace: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_agl-virtio-keeper"))
            .args(["--grace", grace, "--socket"])
            .arg(folder.path().join("vmm"))
            .arg("--attach")
            .arg(folder.path().join("seat"))
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("XDG_RUNTIME_DIR")
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn seat(&self) -> PathBuf {
        self.folder.path().join("seat")
    }

    fn connect(&self) -> Vmm {
        let until = Instant::now() + DEADLINE;
        loop {
            match UnixStream::connect(self.folder.path().join("vmm")) {
                Ok(stream) => return Vmm(Peer::new(stream)),
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_next_service_at_the_seat_is_told_all_and_brought_the_same_record() {
    let mut keeper = Keeper::start("60s");
    let life = Life::begin(&keeper.seat());
    let mut vmm = keeper.connect();
    vmm.negotiate();
    vmm.set_memory(&[MEMORY]);
    vmm.start_ring(0);
    vmm.start_ring(1);
    let mut told = life.end();
    for round in 1..=10 {
        // As a service notes what it has done.
        brought(&told).set_word(0, round);
        let life = Life::begin(&keeper.seat());
        vmm.done(&state(R::SET_VRING_NUM, 2, 64));
        told = life.end();
        assert_eq!(brought(&told).word(0), round);
        let names = names(&told);
        for request in [
            R::SET_OWNER,
            R::SET_FEATURES,
            R::SET_MEM_TABLE,
            R::SET_VRING_KICK,
        ] {
            assert!(names.contains(&request), "{request:?} not in {names:?}");
        }
    }
    let pid = Pid::from_child(&keeper.child);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(keeper.child.wait().unwrap().code(), Some(0));
    assert!(!keeper.folder.path().join("vmm").exists());
}

#[test]
fn without_a_service_at_the_seat_the_vmm_is_hung_up_on_and_the_next_one_is_served() {
    let keeper = Keeper::start("5s");
    let life = Life::begin(&keeper.seat());
    let mut vmm = keeper.connect();
    vmm.negotiate();
    let ended = Instant::now();
    life.end();
    assert!(vmm.0.hear().is_none());
    assert!(ended.elapsed().as_millis() >= 4900);
    let life = Life::begin(&keeper.seat());
    keeper.connect().negotiate();
    assert!(names(&life.end()).contains(&R::SET_OWNER));
}
