// SPDX-License-Identifier: Apache-2.0

//! Both ends of a relay under test: a VMM and a service that say what a test tells them, and note
//! what they hear. Every wait has a deadline, none is a sleep.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use agl_virtio_relay::message::Message;
use agl_virtio_relay::{Channel, End, Handle, Received, Record, Relay, ServiceFault};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vhost::vhost_user::message::{
    FrontendReq as R, VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures,
};

/// No event takes that long, on any machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// VIRTIO_F_VERSION_1 and vhost-user's protocol features.
pub const FEATURES: u64 = 1 << 32 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
pub const RINGS: u64 = 4;

/// One end of a connection, waiting for whole messages.
pub struct Peer(pub Channel);

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        Self(Channel::new(stream.into()))
    }

    pub fn send(&mut self, message: &Message) {
        self.0.send(message).unwrap();
        assert!(!self.0.is_waiting(), "the peer does not read");
    }

    /// The next message; `None` when the other end hung up.
    pub fn hear(&mut self) -> Option<Message> {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.0.receive() {
                Ok(Received::Message(message)) => return Some(message),
                Ok(Received::Closed) | Err(_) => return None,
                Ok(Received::Nothing) => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no message before the deadline");
            let mut fds = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::try_from(left).unwrap())).unwrap();
        }
    }

    pub fn expect(&mut self) -> Message {
        self.hear().expect("the other end hung up")
    }
}

/// A VMM.
pub struct Vmm(pub Peer);

impl Vmm {
    pub fn ask(&mut self, message: &Message) -> Message {
        self.0.send(message);
        let reply = self.0.expect();
        assert!(reply.is_reply());
        assert_eq!(reply.code(), message.code());
        reply
    }

    pub fn get_u64(&mut self, request: R) -> u64 {
        self.ask(&Message::request(request, Vec::new()))
            .u64_at(0)
            .unwrap()
    }

    /// Sends a request and returns its acknowledgement: 0 when it was done.
    pub fn set(&mut self, message: &Message) -> u64 {
        self.ask(&message.clone().with_need_reply(true))
            .u64_at(0)
            .unwrap()
    }

    pub fn done(&mut self, message: &Message) {
        assert_eq!(
            self.set(message),
            0,
            "request {} was refused",
            message.code()
        );
    }

    /// Negotiates everything offered, as QEMU begins.
    pub fn negotiate(&mut self) {
        let features = self.get_u64(R::GET_FEATURES);
        let protocol = self.get_u64(R::GET_PROTOCOL_FEATURES);
        self.0
            .send(&Message::request_u64(R::SET_PROTOCOL_FEATURES, protocol));
        self.done(&Message::request(R::SET_OWNER, Vec::new()));
        self.done(&Message::request_u64(R::SET_FEATURES, features));
    }

    /// A table of regions, each guest address, size and the VMM's address, over one memory file.
    pub fn set_memory(&mut self, regions: &[(u64, u64, u64)]) {
        self.done(&table(regions));
    }

    /// Starts a ring the way that QEMU does; returns what a guest's driver would hold.
    pub fn start_ring(&mut self, index: u32) -> RingFds {
        let fds = RingFds::new();
        for message in ring_messages(index, &fds) {
            self.done(&message);
        }
        fds
    }
}

/// The descriptors of one ring.
pub struct RingFds {
    pub call: Arc<OwnedFd>,
    pub err: Arc<OwnedFd>,
    pub kick: Arc<OwnedFd>,
}

impl RingFds {
    pub fn new() -> Self {
        Self {
            call: event(),
            err: event(),
            kick: event(),
        }
    }
}

pub fn event() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

/// A memory file of 1 MiB.
pub fn memory_fd() -> Arc<OwnedFd> {
    let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, 1 << 20).unwrap();
    Arc::new(fd)
}

pub fn region(guest: u64, size: u64, user: u64) -> Vec<u8> {
    [guest, size, user, 0]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect()
}

pub fn table(regions: &[(u64, u64, u64)]) -> Message {
    let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
    for (guest, size, user) in regions {
        payload.extend(region(*guest, *size, *user));
    }
    let fds = regions.iter().map(|_| memory_fd()).collect();
    Message::request(R::SET_MEM_TABLE, payload).with_fds(fds)
}

pub fn single(request: R, region_of: (u64, u64, u64)) -> Message {
    let mut payload = vec![0; 8];
    payload.extend(region(region_of.0, region_of.1, region_of.2));
    Message::request(request, payload).with_fds(vec![memory_fd()])
}

pub fn state(request: R, index: u32, num: u32) -> Message {
    Message::request(
        request,
        [index, num].iter().flat_map(|n| n.to_ne_bytes()).collect(),
    )
}

pub fn addr(index: u32, user: u64) -> Message {
    let mut payload: Vec<u8> = [index, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
    for number in [user, user + 0x2000, user + 0x1000, 0] {
        payload.extend(number.to_ne_bytes());
    }
    Message::request(R::SET_VRING_ADDR, payload)
}

pub fn ring_fd(request: R, index: u32, fd: &Arc<OwnedFd>) -> Message {
    Message::request_u64(request, index.into()).with_fds(vec![Arc::clone(fd)])
}

/// All that starts a ring of 256 at the VMM's address 0x7000_0000, in QEMU's order.
pub fn ring_messages(index: u32, fds: &RingFds) -> Vec<Message> {
    let base = index * 10;
    vec![
        state(R::SET_VRING_NUM, index, 256),
        state(R::SET_VRING_BASE, index, base),
        addr(index, 0x7000_0000 + u64::from(index) * 0x4000),
        ring_fd(R::SET_VRING_CALL, index, &fds.call),
        ring_fd(R::SET_VRING_ERR, index, &fds.err),
        ring_fd(R::SET_VRING_KICK, index, &fds.kick),
        state(R::SET_VRING_ENABLE, index, 1),
    ]
}

/// A service that does all it is asked, when the test calls.
pub struct Service(pub Peer);

impl Service {
    /// Answers like vhost-user-backend, and returns the request.
    pub fn serve(&mut self) -> Option<Message> {
        let request = self.0.hear()?;
        self.answer(&request);
        Some(request)
    }

    /// Whoever asked may have gone meanwhile.
    fn say(&mut self, message: &Message) {
        let _ = self.0.0.send(message);
    }

    pub fn answer(&mut self, request: &Message) {
        let number = match request.frontend_request().unwrap() {
            R::GET_FEATURES => Some(FEATURES),
            R::GET_PROTOCOL_FEATURES => Some(
                (Protocol::MQ
                    | Protocol::REPLY_ACK
                    | Protocol::CONFIG
                    | Protocol::RESET_DEVICE
                    | Protocol::CONFIGURE_MEM_SLOTS
                    | Protocol::SHMEM
                    | Protocol::STATUS)
                    .bits(),
            ),
            R::GET_QUEUE_NUM => Some(RINGS),
            R::GET_CONFIG => {
                let reply = Message::reply(request.code(), request.payload.clone());
                return self.say(&reply);
            }
            R::GET_VRING_BASE => {
                let mut payload = request.payload[..4].to_vec();
                payload.extend(77_u32.to_ne_bytes());
                return self.say(&Message::reply(request.code(), payload));
            }
            _ => request.needs_reply().then_some(0),
        };
        if let Some(number) = number {
            self.say(&Message::reply_u64(request.code(), number));
        }
    }

    /// Serves until the connection ends; all requests in order.
    pub fn serve_all(mut self) -> JoinHandle<Vec<Message>> {
        thread::spawn(move || std::iter::from_fn(|| self.serve()).collect())
    }

    /// Serves until it has answered `request`, and all requests up to there.
    pub fn serve_until(&mut self, request: R) -> Vec<Message> {
        let mut heard = Vec::new();
        loop {
            let message = self.serve().expect("the relay hung up");
            let last = message.frontend_request() == Some(request);
            heard.push(message);
            if last {
                return heard;
            }
        }
    }

    /// Answers the relay's own questions at the begin of every session.
    pub fn introduce(&mut self) {
        for request in [
            R::GET_FEATURES,
            R::GET_PROTOCOL_FEATURES,
            R::SET_PROTOCOL_FEATURES,
            R::GET_QUEUE_NUM,
        ] {
            let message = self.serve().expect("the relay hung up");
            assert_eq!(message.frontend_request(), Some(request));
        }
    }
}

/// A relay on a thread of its own, to which services are handed one after the other.
pub struct Bench {
    pub vmm: Vmm,
    pub handle: Handle,
    pub record: Arc<Record>,
    attach: std::sync::mpsc::Sender<UnixStream>,
    /// The connections of the services, to cut them.
    lives: std::sync::Mutex<std::collections::VecDeque<UnixStream>>,
    relay: JoinHandle<End>,
}

impl Bench {
    pub fn new() -> Self {
        let record = Arc::new(Record::create().unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut relay = Relay::new(theirs, Some(Arc::clone(&record))).unwrap();
        let handle = relay.handle();
        let (attach, services) = std::sync::mpsc::channel();
        let relay = thread::spawn(move || {
            loop {
                if let Ok(service) = services.recv_timeout(DEADLINE) {
                    relay.attach(service);
                }
                match relay.run(&[], None).unwrap() {
                    End::ServiceGone(ServiceFault::Left | ServiceFault::Channel(_)) => {}
                    end => return end,
                }
            }
        });
        Self {
            vmm: Vmm(Peer::new(ours)),
            handle,
            record,
            attach,
            lives: Default::default(),
            relay,
        }
    }

    /// The next service.
    pub fn service(&self) -> Service {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.attach.send(theirs).unwrap();
        self.lives
            .lock()
            .unwrap()
            .push_back(ours.try_clone().unwrap());
        Service(Peer::new(ours))
    }

    /// Cuts the connection of the oldest service: it died.
    pub fn kill(&self) {
        let life = self.lives.lock().unwrap().pop_front().unwrap();
        life.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Ends the relay and says why it ended.
    pub fn finish(self) -> End {
        self.handle.shut_down();
        drop(self.attach);
        self.relay.join().unwrap()
    }

    /// Waits for the relay to end by itself.
    pub fn ended(self) -> End {
        drop(self.attach);
        drop(self.vmm);
        self.relay.join().unwrap()
    }
}

/// Requests by name, for comparison.
pub fn names(messages: &[Message]) -> Vec<R> {
    messages
        .iter()
        .map(|message| message.frontend_request().unwrap())
        .collect()
}
