// SPDX-License-Identifier: Apache-2.0

//! What a new service hears after its predecessor died.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail where it stands"
)]

mod peers;

use std::os::fd::AsFd;
use std::sync::Arc;

use agl_virtio_relay::message::Message;
use agl_virtio_relay::record::Phase;
use agl_virtio_relay::{End, Record};
use peers::{Bench, FEATURES, RingFds, event, names, ring_fd, ring_messages, single, state, table};
use rustix::fs::fstat;
use vhost::vhost_user::message::{FrontendReq as R, VhostUserProtocolFeatures as Protocol};

const MEMORY: (u64, u64, u64) = (0x4000_0000, 0x10_0000, 0x7000_0000);

fn is_same_file(a: impl AsFd, b: impl AsFd) -> bool {
    let (a, b) = (fstat(a).unwrap(), fstat(b).unwrap());
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// eventfds share one inode, so they are told apart by what is written.
fn rings_the_same(a: impl AsFd, b: impl AsFd) -> bool {
    rustix::io::write(a, &5_u64.to_ne_bytes()).unwrap();
    let mut value = [0; 8];
    rustix::io::read(b, &mut value).is_ok() && u64::from_ne_bytes(value) == 5
}

#[test]
fn the_replay_has_the_order_of_the_table() {
    let mut bench = Bench::new();
    let first = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.vmm.set_memory(&[MEMORY]);
    let (_channel, channel_end) = std::os::unix::net::UnixStream::pair().unwrap();
    let channel = Message::request(R::SET_BACKEND_REQ_FD, vec![])
        .with_fds(vec![Arc::new(channel_end.into())]);
    bench.vmm.done(&channel);
    let ring0 = bench.vmm.start_ring(0);
    let _ring2 = bench.vmm.start_ring(2);
    // Later values count, not the first ones.
    let newer_call = event();
    bench.vmm.done(&ring_fd(R::SET_VRING_CALL, 0, &newer_call));
    assert_eq!(bench.record.phase(), Phase::Live);

    let mut second = bench.service();
    bench.kill();
    drop(first);
    let heard = second.serve_until(R::SET_PROTOCOL_FEATURES);
    assert_eq!(
        names(&heard),
        [
            R::GET_FEATURES,
            R::GET_PROTOCOL_FEATURES,
            R::SET_PROTOCOL_FEATURES
        ]
    );
    let negotiated = heard[2].u64_at(0).unwrap();
    assert_eq!(negotiated & Protocol::INFLIGHT_SHMFD.bits(), 0);
    assert_ne!(negotiated & Protocol::REPLY_ACK.bits(), 0);
    assert_eq!(bench.record.phase(), Phase::Replaying);

    let expected = [
        R::GET_QUEUE_NUM,
        R::SET_OWNER,
        R::SET_FEATURES,
        R::SET_MEM_TABLE,
        R::SET_BACKEND_REQ_FD,
        R::SET_VRING_NUM,
        R::SET_VRING_BASE,
        R::SET_VRING_ADDR,
        R::SET_VRING_CALL,
        R::SET_VRING_ERR,
        R::SET_VRING_KICK,
        R::SET_VRING_ENABLE,
        R::SET_VRING_NUM,
        R::SET_VRING_BASE,
        R::SET_VRING_ADDR,
        R::SET_VRING_CALL,
        R::SET_VRING_ERR,
        R::SET_VRING_KICK,
        R::SET_VRING_ENABLE,
    ];
    let heard: Vec<Message> = expected
        .iter()
        .map(|_| {
            let message = second.0.expect();
            assert_eq!(bench.record.phase(), Phase::Replaying);
            second.answer(&message);
            message
        })
        .collect();
    assert_eq!(names(&heard), expected);
    assert!(heard[1..].iter().all(Message::needs_reply));
    assert_eq!(heard[2].u64_at(0), Some(FEATURES));
    assert_eq!((heard[6].u32_at(0), heard[6].u32_at(4)), (Some(0), Some(0)));
    assert_eq!(
        (heard[13].u32_at(0), heard[13].u32_at(4)),
        (Some(2), Some(20))
    );
    assert!(rings_the_same(&heard[8].fds[0], &newer_call));
    assert!(rings_the_same(&ring0.kick, &heard[10].fds[0]));

    // Everything is said; the next thing it hears is the VMM's own request.
    let served = second.serve_all();
    bench.vmm.done(&state(R::SET_VRING_ENABLE, 0, 0));
    assert_eq!(bench.record.phase(), Phase::Live);
    assert!(matches!(bench.finish(), End::ShutDown));
    assert_eq!(names(&served.join().unwrap()), [R::SET_VRING_ENABLE]);
}

#[test]
fn regions_added_and_removed_later_are_in_the_replay() {
    let mut bench = Bench::new();
    let _first = bench.service().serve_all();
    bench.vmm.negotiate();
    let second_region = (0x8000_0000, 0x10_0000, 0x9000_0000);
    // Not in the order of addresses, which vhost-user-backend would refuse.
    bench.vmm.done(&table(&[second_region, MEMORY]));
    let added = single(R::ADD_MEM_REG, (0xc000_0000, 0x1000, 0xa000_0000));
    bench.vmm.done(&added);
    bench
        .vmm
        .done(&single(R::ADD_MEM_REG, (0xd000_0000, 0x1000, 0xb000_0000)));
    bench
        .vmm
        .done(&single(R::REM_MEM_REG, (0xd000_0000, 0x1000, 0xb000_0000)));
    bench.vmm.done(&single(R::REM_MEM_REG, second_region));
    // One that overlaps would end the service's session; it is refused before.
    assert_eq!(
        bench
            .vmm
            .set(&single(R::ADD_MEM_REG, (0xc000_0800, 0x1000, 0x1000))),
        1
    );

    let mut second = bench.service();
    bench.kill();
    let heard = second.serve_until(R::ADD_MEM_REG);
    let table = &heard[heard.len() - 2];
    assert_eq!(table.frontend_request(), Some(R::SET_MEM_TABLE));
    assert_eq!(table.u32_at(0), Some(1));
    assert_eq!(table.u64_at(8), Some(MEMORY.0));
    assert_eq!(table.fds.len(), 1);
    let single = heard.last().unwrap();
    assert_eq!(single.u64_at(8), Some(0xc000_0000));
    assert!(is_same_file(&single.fds[0], &added.fds[0]));
    let served = second.serve_all();
    bench.finish();
    assert!(served.join().unwrap().is_empty());
}

#[test]
fn an_unanswered_request_is_issued_once_more_and_its_reply_forwarded() {
    let mut bench = Bench::new();
    let mut first = bench.service();
    std::thread::scope(|scope| {
        scope.spawn(|| first.serve_until(R::SET_FEATURES));
        bench.vmm.negotiate();
    });
    bench.vmm.0.send(&state(R::GET_VRING_BASE, 1, 0));
    assert_eq!(first.0.expect().frontend_request(), Some(R::GET_VRING_BASE));
    let mut second = bench.service();
    bench.kill();
    let heard = second.serve_until(R::GET_VRING_BASE);
    let asked = names(&heard)
        .iter()
        .filter(|name| **name == R::GET_VRING_BASE)
        .count();
    assert_eq!(asked, 1);
    let reply = bench.vmm.0.expect();
    assert_eq!((reply.u32_at(0), reply.u32_at(4)), (Some(1), Some(77)));
    // Nothing else came to the VMM: replies to the replay are swallowed.
    let served = second.serve_all();
    bench.vmm.done(&state(R::SET_VRING_NUM, 0, 128));
    bench.finish();
    assert_eq!(names(&served.join().unwrap()), [R::SET_VRING_NUM]);
}

#[test]
fn a_request_that_kills_two_services_is_refused_and_the_third_lives() {
    let mut bench = Bench::new();
    let first = bench.service().serve_all();
    bench.vmm.negotiate();
    let mut second = bench.service();
    bench.kill();
    drop(first);
    second.serve_until(R::SET_FEATURES);
    bench
        .vmm
        .0
        .send(&state(R::SET_VRING_NUM, 1, 64).with_need_reply(true));
    for mut service in [second, bench.service()] {
        loop {
            let message = service.0.expect();
            if message.frontend_request() == Some(R::SET_VRING_NUM) {
                break;
            }
            service.answer(&message);
        }
        bench.kill();
    }
    let third = bench.service().serve_all();
    let reply = bench.vmm.0.expect();
    assert_eq!(
        (reply.code(), reply.u64_at(0)),
        (R::SET_VRING_NUM.into(), Some(1))
    );
    bench.vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    bench.finish();
    let heard = third.join().unwrap();
    assert_eq!(heard.last().unwrap().u32_at(0), Some(2));
}

#[test]
fn a_stopped_ring_is_not_started_again_and_a_half_told_one_is_told_as_far() {
    let mut bench = Bench::new();
    let _first = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.vmm.set_memory(&[MEMORY]);
    bench.vmm.start_ring(0);
    let reply = bench.vmm.ask(&state(R::GET_VRING_BASE, 0, 0));
    assert_eq!(reply.u32_at(4), Some(77));
    for message in &ring_messages(1, &RingFds::new())[..3] {
        bench.vmm.done(message);
    }
    let mut second = bench.service();
    bench.kill();
    let heard = second.serve_until(R::SET_VRING_ADDR);
    let rings: Vec<(R, u32)> = heard
        .iter()
        .filter(|message| message.code() >= R::SET_VRING_NUM.into())
        .filter(|message| ![15, 16, 17].contains(&message.code()))
        .map(|message| {
            (
                message.frontend_request().unwrap(),
                message.u32_at(0).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rings,
        [
            (R::SET_VRING_NUM, 0),
            (R::SET_VRING_ERR, 0),
            (R::SET_VRING_ENABLE, 0),
            (R::SET_VRING_NUM, 1),
            (R::SET_VRING_BASE, 1),
            (R::SET_VRING_ADDR, 1),
        ]
    );
    bench.finish();
}

#[test]
fn what_a_service_refuses_in_a_replay_is_not_told_to_the_next() {
    let mut bench = Bench::new();
    let _first = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.vmm.set_memory(&[MEMORY]);
    bench.vmm.start_ring(0);
    let mut second = bench.service();
    bench.kill();
    loop {
        let message = second.0.expect();
        if message.frontend_request() == Some(R::SET_VRING_ADDR) {
            second.0.send(&Message::reply_u64(message.code(), 1));
            break;
        }
        second.answer(&message);
    }
    let third = bench.service().serve_all();
    bench.kill();
    bench.vmm.done(&state(R::SET_VRING_NUM, 3, 64));
    bench.finish();
    let heard = names(&third.join().unwrap());
    assert!(!heard.contains(&R::SET_VRING_KICK));
    assert_eq!(heard.last(), Some(&R::SET_VRING_NUM));
}

#[test]
fn a_ring_enabled_only_after_the_death_still_starts_from_the_record() {
    let mut bench = Bench::new();
    let _first = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.vmm.set_memory(&[MEMORY]);
    bench.vmm.start_ring(0);
    bench.vmm.done(&state(R::SET_VRING_ENABLE, 0, 0));
    let mut second = bench.service();
    bench.kill();
    second.serve_until(R::SET_VRING_ENABLE);
    bench
        .vmm
        .0
        .send(&state(R::SET_VRING_ENABLE, 0, 1).with_need_reply(true));
    let message = second.0.expect();
    assert_eq!(message.u32_at(4), Some(1));
    assert_eq!(bench.record.phase(), Phase::Replaying);
    second.answer(&message);
    assert_eq!(bench.vmm.0.expect().u64_at(0), Some(0));
    assert_eq!(bench.record.phase(), Phase::Live);
    bench.finish();
}

#[test]
fn two_hundred_deaths_leak_no_descriptor() {
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut bench = Bench::new();
    let mut serving = bench.service().serve_all();
    bench.vmm.negotiate();
    bench.vmm.set_memory(&[MEMORY]);
    bench.vmm.start_ring(0);
    let before = open_files();
    for round in 0..200 {
        let next = bench.service();
        bench.kill();
        serving.join().unwrap();
        serving = next.serve_all();
        bench
            .vmm
            .done(&state(R::SET_VRING_NUM, 1, 1 << (round % 8)));
    }
    // Other tests of this process open and close files meanwhile: a leak of one a round shows.
    assert!(open_files() < before + 100);
    bench.finish();
    assert!(!serving.join().unwrap().is_empty());
}

#[test]
fn a_record_of_an_earlier_session_is_handed_to_the_owner() {
    use agl_virtio_relay::Relay;
    let earlier = Record::create().unwrap();
    earlier.save_settings(b"volume 7").unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let own = Arc::new(Record::create().unwrap());
    let mut relay = Relay::new(theirs, Some(Arc::clone(&own))).unwrap();
    let mut vmm = peers::Vmm(peers::Peer::new(ours));
    let attach = |relay: &mut Relay| {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        relay.attach(theirs);
        peers::Service(peers::Peer::new(ours)).serve_all()
    };
    let first = attach(&mut relay);
    let handle = relay.handle();
    let brought = Message::request(
        R::SET_INFLIGHT_FD,
        [1_u64, 0, 4].iter().flat_map(|n| n.to_ne_bytes()).collect(),
    )
    .with_fds(vec![Arc::new(earlier.file().try_clone().unwrap().into())]);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            vmm.negotiate();
            vmm.set_memory(&[MEMORY]);
            vmm.done(&brought);
            vmm.start_ring(0);
            handle.shut_down();
        });
        let End::BroughtRecord(record) = relay.run(&[], None).unwrap() else {
            panic!("the record was not handed over");
        };
        assert_eq!(record.settings().unwrap(), b"volume 7");
        let record = Arc::new(record);
        relay.use_record(Arc::clone(&record));
        assert_eq!(record.phase(), Phase::Replaying);
        let second = attach(&mut relay);
        assert!(matches!(relay.run(&[], None).unwrap(), End::ShutDown));
        asking.join().unwrap();
        drop(relay);
        assert!(!names(&first.join().unwrap()).contains(&R::SET_INFLIGHT_FD));
        let heard = names(&second.join().unwrap());
        assert!(heard.contains(&R::SET_MEM_TABLE));
        assert_eq!(heard.last(), Some(&R::SET_VRING_ENABLE));
    });
}
