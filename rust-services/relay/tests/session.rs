// SPDX-License-Identifier: Apache-2.0

//! A session of a VMM with one service: forwarding, what the relay answers itself, the back-end
//! channel, and peers that break the protocol or off.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail where it stands"
)]

mod peers;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use agl_virtio_relay::message::{Message, NO_FD};
use agl_virtio_relay::record::{INFLIGHT_OFFSET, INFLIGHT_SIZE, RECORD_SIZE};
use agl_virtio_relay::{End, Record, Relay, VmmFault};
use peers::{
    Bench, DEADLINE, FEATURES, Peer, RINGS, addr, event, names, ring_fd, single, state, table,
};
use vhost::vhost_user::message::{
    BackendReq, FrontendReq as R, VhostUserProtocolFeatures as Protocol,
};

const MEMORY: (u64, u64, u64) = (0x4000_0000, 0x10_0000, 0x7000_0000);

fn back_channel(bench: &mut Bench) -> Peer {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let message =
        Message::request(R::SET_BACKEND_REQ_FD, vec![]).with_fds(vec![Arc::new(theirs.into())]);
    bench.vmm.done(&message);
    Peer::new(ours)
}

fn inflight(request: R, size: u64, offset: u64) -> Message {
    let mut payload = Vec::new();
    payload.extend(size.to_ne_bytes());
    payload.extend(offset.to_ne_bytes());
    payload.extend([4, 0, 0, 1, 0, 0, 0, 0]);
    Message::request(request, payload)
}

#[test]
fn features_are_those_of_the_service_and_of_the_relay() {
    let mut bench = Bench::new();
    let _service = bench.service().serve_all();
    assert_eq!(bench.vmm.get_u64(R::GET_FEATURES), FEATURES);
    let protocol = Protocol::from_bits_truncate(bench.vmm.get_u64(R::GET_PROTOCOL_FEATURES));
    assert!(protocol.contains(
        Protocol::INFLIGHT_SHMFD | Protocol::BACKEND_REQ | Protocol::MQ | Protocol::CONFIG
    ));
    assert!(!protocol.contains(Protocol::STATUS));
    bench.vmm.negotiate();
    assert_eq!(bench.vmm.get_u64(R::GET_QUEUE_NUM), RINGS);
    bench.finish();
}

#[test]
fn requests_reach_the_service_with_their_descriptors_and_always_ask_for_an_answer() {
    let mut bench = Bench::new();
    let service = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.vmm.set_memory(&[MEMORY]);
    let kick = event();
    // Without NEED_REPLY: the VMM gets no answer, the relay does.
    bench.vmm.0.send(&ring_fd(R::SET_VRING_KICK, 1, &kick));
    bench
        .vmm
        .0
        .send(&Message::request_u64(R::SET_VRING_CALL, 1 | NO_FD));
    let mut config = vec![0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    config.extend(b"abcd");
    let reply = bench
        .vmm
        .ask(&Message::request(R::GET_CONFIG, config.clone()));
    assert_eq!(reply.payload, config);
    bench.finish();
    let heard = service.join().unwrap();
    let heard = &heard[heard.len() - 3..];
    assert_eq!(
        names(heard),
        [R::SET_VRING_KICK, R::SET_VRING_CALL, R::GET_CONFIG]
    );
    assert!(heard[0].needs_reply() && heard[1].needs_reply() && !heard[2].needs_reply());
    assert_eq!((heard[0].fds.len(), heard[1].fds.len()), (1, 0));
    rustix::io::write(&kick, &9_u64.to_ne_bytes()).unwrap();
    let mut count = [0; 8];
    rustix::io::read(&heard[0].fds[0], &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 9);
}

#[test]
fn requests_that_would_end_the_services_session_are_refused_before() {
    let mut bench = Bench::new();
    let service = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.vmm.set_memory(&[MEMORY]);
    let wrong = [
        state(R::SET_VRING_NUM, 0, 0),
        state(R::SET_VRING_NUM, 0, 100),
        state(R::SET_VRING_NUM, 0, 0x1_0000),
        state(R::SET_VRING_NUM, 0, 0x800),
        state(R::SET_VRING_NUM, 4, 256),
        state(R::SET_VRING_BASE, u32::MAX, 0),
        state(R::SET_VRING_ENABLE, 0, 2),
        addr(0, 0x7000_0008),
        addr(0, 0x9000_0000),
        Message::request_u64(R::SET_VRING_KICK, 0),
        ring_fd(R::SET_VRING_KICK, 0, &event()).with_fds(vec![event(), event()]),
        Message::request_u64(R::SET_FEATURES, FEATURES | 1 << 50),
        Message::request_u64(R::SET_PROTOCOL_FEATURES, 1 << 40),
        Message::request(R::SET_FEATURES, vec![0; 7]),
        table(&[]),
        table(&[(0, 0, 0)]),
        table(&[(0, 0x2000, 0), (0x1000, 0x2000, 0)]),
        table(&[MEMORY]).with_fds(vec![]),
        single(R::ADD_MEM_REG, (u64::MAX, 2, 0)),
        single(R::REM_MEM_REG, (1, 2, 3)),
        Message::request(R::SET_CONFIG, vec![0xff; 12]),
        Message::request(R::SET_BACKEND_REQ_FD, vec![]),
        Message::request(R::SEND_RARP, vec![0; 8]),
        Message::request_u64(R::SET_STATUS, 0),
        Message::with_code(9999, vec![]),
    ];
    for message in &wrong {
        assert_eq!(bench.vmm.set(message), 1, "request {}", message.code());
    }
    let mut config = vec![0; 4];
    config.extend([0xff; 8]);
    let reply = bench.vmm.ask(&Message::request(R::GET_CONFIG, config));
    assert_eq!(reply.u32_at(4), Some(0));
    // A second owner would end it, too, and is already done.
    bench.vmm.done(&Message::request(R::SET_OWNER, vec![]));
    bench.vmm.done(&state(R::SET_VRING_NUM, 3, 256));
    bench.finish();
    let heard = names(&service.join().unwrap());
    let before = heard
        .iter()
        .position(|name| *name == R::SET_MEM_TABLE)
        .unwrap();
    assert_eq!(heard[before + 1..], [R::SET_VRING_NUM]);
}

#[test]
fn an_error_of_the_service_reaches_the_vmm_and_is_not_remembered() {
    let mut bench = Bench::new();
    let mut service = bench.service();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            service.serve_until(R::SET_FEATURES);
            let message = service.0.expect();
            service.0.send(&Message::reply_u64(message.code(), 1));
        });
        bench.vmm.negotiate();
        assert_eq!(bench.vmm.set(&state(R::SET_VRING_NUM, 1, 64)), 1);
    });
    let mut second = bench.service();
    bench.kill();
    second.serve_until(R::SET_FEATURES);
    bench.vmm.0.send(&state(R::SET_VRING_BASE, 2, 0));
    assert_eq!(
        second.0.expect().frontend_request(),
        Some(R::SET_VRING_BASE)
    );
    bench.finish();
}

#[test]
fn the_record_is_what_a_vmm_gets_to_hold() {
    let mut bench = Bench::new();
    let service = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.record.save_settings(b"kept").unwrap();
    let reply = bench.vmm.ask(&inflight(R::GET_INFLIGHT_FD, 0, 0));
    assert_eq!(reply.u64_at(0), Some(INFLIGHT_SIZE));
    assert_eq!(reply.u64_at(8), Some(INFLIGHT_OFFSET));
    assert_eq!(reply.payload.len(), 24);
    let mut file = File::from(reply.fds[0].try_clone().unwrap());
    assert_eq!(file.metadata().unwrap().len(), RECORD_SIZE as u64);
    // QEMU fills what it was given with zeroes when the guest resets: the settings stay.
    use std::os::unix::fs::FileExt;
    let zeroes = vec![0; usize::try_from(INFLIGHT_SIZE).unwrap()];
    file.write_all_at(&zeroes, INFLIGHT_OFFSET).unwrap();
    file.flush().unwrap();
    assert_eq!(bench.record.settings().unwrap(), b"kept");
    // And it may give the same back, at every start of the device.
    let back = inflight(R::SET_INFLIGHT_FD, INFLIGHT_SIZE, INFLIGHT_OFFSET)
        .with_fds(vec![Arc::clone(&reply.fds[0])]);
    bench.vmm.done(&back);
    bench.vmm.done(&back);
    bench.finish();
    assert!(!names(&service.join().unwrap()).contains(&R::SET_INFLIGHT_FD));
}

#[test]
fn a_record_of_another_kind_is_refused_and_nothing_breaks() {
    let mut bench = Bench::new();
    let service = bench.service().serve_all();
    bench.vmm.negotiate();
    let short = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let socket: OwnedFd = UnixStream::pair().unwrap().0.into();
    for fd in [short, socket] {
        let message = inflight(R::SET_INFLIGHT_FD, 1, 0).with_fds(vec![Arc::new(fd)]);
        assert_eq!(bench.vmm.set(&message), 1);
    }
    bench.vmm.done(&state(R::SET_VRING_NUM, 0, 64));
    bench.finish();
    service.join().unwrap();
}

#[test]
fn a_session_that_brings_no_record_begins_with_an_empty_one() {
    let mut bench = Bench::new();
    let _service = bench.service().serve_all();
    bench.record.queue(2).unwrap().copy_from(b"stale");
    let left = |record: &Record| {
        let mut bytes = [0; 5];
        record.queue(2).unwrap().copy_to(&mut bytes[..]);
        bytes
    };
    bench.vmm.negotiate();
    bench.vmm.done(&ring_fd(R::SET_VRING_CALL, 0, &event()));
    assert_eq!(&left(&bench.record), b"stale");
    bench.vmm.done(&state(R::SET_VRING_NUM, 0, 64));
    assert_eq!(left(&bench.record), [0; 5]);
    bench.finish();
}

#[test]
fn a_config_change_reaches_the_vmm_as_one_message() {
    let mut bench = Bench::new();
    let _service = bench.service().serve_all();
    // Nobody to tell yet.
    bench.handle.config_changed();
    bench.vmm.negotiate();
    let mut channel = back_channel(&mut bench);
    bench.handle.config_changed();
    let message = channel.expect();
    assert_eq!(message.code(), u32::from(BackendReq::CONFIG_CHANGE_MSG));
    assert!(!message.needs_reply() && !message.is_reply());
    assert!(message.payload.is_empty() && message.fds.is_empty());
    bench.finish();
    assert!(channel.hear().is_none());
}

#[test]
fn the_back_end_channel_outlives_the_service_and_answers_go_to_who_asked() {
    let mut bench = Bench::new();
    let mut first = bench.service();
    let mut vmm_end = None;
    let heard = std::thread::scope(|scope| {
        let heard = scope.spawn(|| first.serve_until(R::SET_BACKEND_REQ_FD));
        bench.vmm.negotiate();
        vmm_end = Some(back_channel(&mut bench));
        heard.join().unwrap()
    });
    let mut vmm_end = vmm_end.unwrap();
    let end_of = |message: &Message| {
        let fd = message.fds[0].try_clone().unwrap();
        Peer::new(UnixStream::from(fd))
    };
    let mut service_end = end_of(heard.last().unwrap());
    drop(heard);

    // Descriptors pass, the answer comes back.
    let map = Message::with_code(BackendReq::SHMEM_MAP.into(), vec![7; 40])
        .with_fds(vec![event()])
        .with_need_reply(true);
    service_end.send(&map);
    let asked = vmm_end.expect();
    assert_eq!((asked.code(), asked.fds.len()), (map.code(), 1));
    assert_eq!(asked.payload, map.payload);
    vmm_end.send(&Message::reply_u64(map.code(), 0));
    assert_eq!(service_end.expect().u64_at(0), Some(0));

    // A raw message of the service itself, as virtio-device sends it.
    service_end.send(&Message::with_code(
        BackendReq::CONFIG_CHANGE_MSG.into(),
        vec![],
    ));
    assert_eq!(
        vmm_end.expect().code(),
        u32::from(BackendReq::CONFIG_CHANGE_MSG)
    );

    // Asked, and died before the answer: its successor must not get it.
    service_end.send(&map);
    vmm_end.expect();
    let mut second = bench.service();
    bench.kill();
    let heard = second.serve_until(R::SET_BACKEND_REQ_FD);
    let mut second_end = end_of(heard.last().unwrap());
    assert!(service_end.hear().is_none());
    vmm_end.send(&Message::reply_u64(map.code(), 1));
    second_end.send(&map);
    vmm_end.expect();
    vmm_end.send(&Message::reply_u64(map.code(), 0));
    assert_eq!(second_end.expect().u64_at(0), Some(0));
    bench.finish();
}

#[test]
fn a_vmm_without_reply_ack_is_not_waited_for_on_the_back_end_channel() {
    let mut bench = Bench::new();
    let mut service = bench.service();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let heard = std::thread::scope(|scope| {
        let heard = scope.spawn(|| service.serve_until(R::SET_BACKEND_REQ_FD));
        let protocol = Protocol::BACKEND_REQ | Protocol::CONFIG;
        let vmm = &mut bench.vmm.0;
        vmm.send(&Message::request_u64(
            R::SET_PROTOCOL_FEATURES,
            protocol.bits(),
        ));
        vmm.send(
            &Message::request(R::SET_BACKEND_REQ_FD, vec![])
                .with_fds(vec![Arc::new(theirs.into())]),
        );
        heard.join().unwrap()
    });
    let mut vmm_end = Peer::new(ours);
    let fd = heard.last().unwrap().fds[0].try_clone().unwrap();
    let mut service_end = Peer::new(UnixStream::from(fd));
    let unmap = Message::with_code(BackendReq::SHMEM_UNMAP.into(), vec![0; 40]);
    service_end.send(&unmap.clone().with_need_reply(true));
    assert!(!vmm_end.expect().needs_reply());
    assert_eq!(service_end.expect().u64_at(0), Some(0));
    bench.finish();
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let record = Arc::new(Record::create().unwrap());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut relay = Relay::new(theirs, Some(record)).unwrap();
    let (service, service_end) = UnixStream::pair().unwrap();
    relay.attach(service);
    let served = peers::Service(Peer::new(service_end)).serve_all();
    let handle = relay.handle();
    let running = std::thread::spawn(move || relay.run(&[], None).unwrap());
    for message in [
        Message::request(R::GET_FEATURES, vec![]),
        state(R::GET_VRING_BASE, 1, 0),
    ] {
        for byte in message.to_bytes() {
            ours.write_all(&[byte]).unwrap();
        }
        ours.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut reply = [0; 20];
        ours.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..4], message.code().to_ne_bytes());
    }
    handle.shut_down();
    assert!(matches!(running.join().unwrap(), End::ShutDown));
    served.join().unwrap();
}

#[test]
fn a_vmm_that_leaves_ends_the_session_wherever_it_stood() {
    let whole = state(R::SET_VRING_NUM, 0, 64).to_bytes();
    for cut in 0..whole.len() {
        let mut bench = Bench::new();
        let _service = bench.service().serve_all();
        bench.vmm.negotiate();
        rustix::net::send(
            &bench.vmm.0.0,
            &whole[..cut],
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        let End::VmmGone(fault) = bench.ended() else {
            panic!("it did not end");
        };
        assert_eq!(matches!(fault, VmmFault::Left), cut == 0, "{cut}: {fault}");
    }
}

#[test]
fn a_vmm_that_leaves_while_its_request_is_with_the_service_ends_the_session() {
    let mut bench = Bench::new();
    let mut service = bench.service();
    std::thread::scope(|scope| {
        scope.spawn(|| service.serve_until(R::SET_FEATURES));
        bench.vmm.negotiate();
    });
    bench.vmm.0.send(&state(R::GET_VRING_BASE, 0, 0));
    assert!(service.0.hear().is_some());
    assert!(matches!(bench.ended(), End::VmmGone(VmmFault::Left)));
    assert!(service.0.hear().is_none());
}

#[test]
fn a_vmm_that_leaves_while_there_is_no_service_ends_the_session() {
    let bench = Bench::new();
    let service = bench.service();
    assert!(matches!(bench.ended(), End::VmmGone(VmmFault::Left)));
    drop(service);
}

#[test]
fn a_service_that_does_not_speak_in_turn_is_given_up() {
    for nonsense in [
        Message::reply_u64(R::GET_QUEUE_NUM.into(), 1),
        Message::request(R::GET_FEATURES, vec![]),
        Message::reply_u64(R::GET_FEATURES.into(), 0),
        Message::reply(R::GET_FEATURES.into(), vec![1]),
    ] {
        let (_vmm, theirs) = UnixStream::pair().unwrap();
        let mut relay = Relay::new(theirs, None).unwrap();
        let (service, service_end) = UnixStream::pair().unwrap();
        relay.attach(service);
        let mut service = Peer::new(service_end);
        service.send(&nonsense);
        let until = Instant::now() + DEADLINE;
        let end = relay.run(&[], Some(until)).unwrap();
        assert!(matches!(end, End::ServiceGone(_)), "{end:?}");
        assert!(!relay.is_live());
    }
}

#[test]
fn the_relay_returns_when_something_watched_is_readable_and_at_its_deadline() {
    use std::os::fd::AsFd;
    let (_vmm, theirs) = UnixStream::pair().unwrap();
    let mut relay = Relay::new(theirs, None).unwrap();
    let watched = event();
    let now = Instant::now();
    let end = relay.run(&[watched.as_fd()], Some(now)).unwrap();
    assert!(matches!(end, End::Deadline));
    rustix::io::write(&watched, &1_u64.to_ne_bytes()).unwrap();
    let end = relay.run(&[watched.as_fd()], None).unwrap();
    assert!(matches!(end, End::Watched));
    relay.handle().shut_down();
    for _ in 0..2 {
        assert!(matches!(relay.run(&[], None).unwrap(), End::ShutDown));
    }
}

/// A generator with a seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[test]
fn whatever_a_vmm_sends_the_relay_ends_in_order_and_the_service_hears_only_what_is_well_formed() {
    for seed in 1..=300 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut bench = Bench::new();
        let service = bench.service().serve_all();
        bench.vmm.negotiate();
        for _ in 0..40 {
            let code = u32::try_from(random.below(48)).unwrap();
            let size = [0, 4, 8, 12, 16, 20, 24, 40, 72, 4096, random.below(5000)]
                [usize::try_from(random.below(11)).unwrap()];
            // Small numbers now and then, so that some of it makes sense.
            let mask = if random.below(2) == 0 { 0x03 } else { 0xff };
            let payload: Vec<u8> = (0..size)
                .map(|_| u8::try_from(random.next() & mask).unwrap())
                .collect();
            let fds = (0..random.below(4).saturating_sub(1))
                .map(|_| event())
                .collect();
            let mut message = Message::with_code(code, payload).with_fds(fds);
            message = message.with_need_reply(random.below(2) == 0);
            // It may have hung up on us by now.
            let _ = bench.vmm.0.0.send(&message);
            while let Ok(agl_virtio_relay::Received::Message(_)) = bench.vmm.0.0.receive() {}
        }
        let end = bench.ended();
        assert!(matches!(end, End::VmmGone(_)), "seed {seed}: {end:?}");
        for message in service.join().unwrap() {
            assert!(message.frontend_request().is_some());
            assert!(message.fds.len() <= 1 || message.code() == u32::from(R::SET_MEM_TABLE));
        }
    }
}

#[test]
fn random_bytes_end_the_session_in_order() {
    for seed in 1..=300 {
        let mut random = Random(0x2545_f491_4f6c_dd1d ^ seed);
        let mut bench = Bench::new();
        let service = bench.service().serve_all();
        bench.vmm.get_u64(R::GET_FEATURES);
        let bytes: Vec<u8> = (0..random.below(6000))
            .map(|_| u8::try_from(random.next() & 0xff).unwrap())
            .collect();
        // The relay may hang up in the middle.
        let _ = rustix::net::send(&bench.vmm.0.0, &bytes, rustix::net::SendFlags::NOSIGNAL);
        assert!(matches!(bench.ended(), End::VmmGone(_)));
        service.join().unwrap();
    }
}
