// SPDX-License-Identifier: Apache-2.0
//! What goes over the control connection, byte for byte, seen from a scripted back end.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an integration test"
)]

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use frontend::connection::{Connection, Message};
use frontend::inflight::{Inflight, QueueRecord};
use frontend::protocol::{backend_request, feature, header, protocol_feature, request};
use frontend::session::{Session, Wishes};
use frontend::{Deadline, Error, Guest, GuestOptions, Memory, MemoryLayout};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const FEATURES: u64 = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::RING_PACKED;

/// A back end that writes down what it was told, and answers what needs an answer.
struct BackEnd {
    thread: JoinHandle<Vec<Message>>,
}

impl BackEnd {
    /// One with these protocol features; `record` is the inflight memory that it hands out.
    fn start(protocol: u64, record: Vec<u8>) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let connection = Connection::new(ours);
            let mut told = Vec::new();
            loop {
                let message = match connection.receive() {
                    Ok(message) => message,
                    Err(Error::Disconnected(_)) => return told,
                    Err(other) => panic!("{other}"),
                };
                answer(&connection, &message, protocol, &record);
                told.push(message);
            }
        });
        (Self { thread }, theirs)
    }

    fn told(self) -> Vec<Message> {
        self.thread.join().unwrap()
    }
}

fn answer(connection: &Connection, message: &Message, protocol: u64, record: &[u8]) {
    let reply = |payload: &[u8]| {
        let flags = header::VERSION | header::REPLY;
        match connection.send(message.request, flags, payload, &[]) {
            // A driver that goes away waits for no answer.
            Ok(()) | Err(Error::Disconnected(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    match message.request {
        request::GET_FEATURES => reply(&FEATURES.to_le_bytes()),
        request::GET_PROTOCOL_FEATURES => reply(&protocol.to_le_bytes()),
        request::GET_VRING_BASE => {
            reply(&[&message.payload[..4], 7u32.to_le_bytes().as_slice()].concat());
        }
        request::GET_INFLIGHT_FD => {
            let file = memfd_create("record", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&file, record.len() as u64).unwrap();
            rustix::io::write(&file, record).unwrap();
            let mut payload = message.payload.clone();
            payload[..8].copy_from_slice(&(record.len() as u64).to_le_bytes());
            let flags = header::VERSION | header::REPLY;
            connection
                .send(message.request, flags, &payload, &[file.as_fd()])
                .unwrap();
        }
        // Answers that no front end may take: too short.
        request::GET_CONFIG => reply(&message.payload[..12]),
        request::SET_BACKEND_REQ_FD => {
            let channel = Connection::new(UnixStream::from(message.fds[0].try_clone().unwrap()));
            let flags = header::VERSION | header::NEED_REPLY;
            channel
                .send(
                    backend_request::CONFIG_CHANGE_MSG,
                    header::VERSION,
                    &[],
                    &[],
                )
                .unwrap();
            channel
                .send(backend_request::CONFIG_CHANGE_MSG, flags, &[], &[])
                .unwrap();
            reply(&[0; 8]);
            assert_eq!(channel.receive().unwrap().as_u64().unwrap(), 0);
        }
        _ if message.needs_reply() => reply(&[0; 8]),
        _ => {}
    }
}

fn words(payload: &[u8]) -> Vec<u64> {
    payload
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn negotiation_and_start_go_in_qemus_order() {
    let protocol = protocol_feature::REPLY_ACK | protocol_feature::MQ;
    let (back_end, stream) = BackEnd::start(protocol, Vec::new());
    let mut options = GuestOptions::new(1);
    options.memory = MemoryLayout::single(0x10_0000);
    let mut guest = Guest::connect(stream, &options).unwrap();
    guest.start().unwrap();
    assert_eq!(guest.pause().unwrap(), [7]);
    let region = guest.memory().regions()[0].spec;
    let layout = *guest.ring(0).layout();
    let user = |addr| guest.memory().user_address(addr).unwrap();
    let addresses = [
        0,
        user(layout.descriptors),
        user(layout.used),
        user(layout.available),
        0,
    ];
    drop(guest);

    let told = back_end.told();
    let numbers: Vec<u32> = told.iter().map(|message| message.request).collect();
    assert_eq!(
        numbers,
        [
            request::GET_FEATURES,
            request::GET_PROTOCOL_FEATURES,
            request::SET_PROTOCOL_FEATURES,
            request::SET_OWNER,
            request::SET_FEATURES,
            request::SET_MEM_TABLE,
            request::SET_VRING_NUM,
            request::SET_VRING_BASE,
            request::SET_VRING_ADDR,
            request::SET_VRING_ERR,
            request::SET_VRING_CALL,
            request::SET_VRING_KICK,
            request::SET_VRING_ENABLE,
            request::GET_FEATURES,
            request::SET_VRING_ENABLE,
            request::GET_VRING_BASE,
        ]
    );
    let payload = |number| {
        words(
            &told
                .iter()
                .find(|message| message.request == number)
                .unwrap()
                .payload,
        )
    };
    assert_eq!(payload(request::SET_PROTOCOL_FEATURES), [protocol]);
    // What this driver cannot do is not accepted though it is offered.
    assert_eq!(
        payload(request::SET_FEATURES),
        [FEATURES & !feature::RING_PACKED]
    );
    let table = payload(request::SET_MEM_TABLE);
    assert_eq!(
        (table[0], table[1], table[2]),
        (1, region.guest_base, region.size)
    );
    assert_eq!(table[4], region.file_offset);
    assert_eq!(payload(request::SET_VRING_NUM), [256 << 32]);
    assert_eq!(payload(request::SET_VRING_ADDR), addresses);
    assert_eq!(payload(request::SET_VRING_ENABLE), [1 << 32]);
    for message in &told {
        let with_fd = [
            request::SET_MEM_TABLE,
            request::SET_VRING_KICK,
            request::SET_VRING_CALL,
            request::SET_VRING_ERR,
        ];
        assert_eq!(
            message.fds.len(),
            usize::from(with_fd.contains(&message.request))
        );
        assert_eq!(message.flags & 3, header::VERSION);
    }
    // REPLY_ACK is in force only once it was negotiated.
    assert!(!told[2].needs_reply() && told[3].needs_reply());
}

#[test]
fn the_inflight_memory_is_kept_over_connections_and_read() {
    let protocol = protocol_feature::REPLY_ACK | protocol_feature::INFLIGHT_SHMFD;
    let mut record = vec![0u8; 3 * 1024];
    // The second of two queues of 16: heads 3 and 9 in flight, 9 the older one; used.idx 41.
    let at = (16 + 16 * 16_usize).next_multiple_of(64);
    record[at + 14..at + 16].copy_from_slice(&41u16.to_le_bytes());
    for (head, counter) in [(3, 12u64), (9, 11)] {
        let entry = at + 16 + 16 * head;
        record[entry] = 1;
        record[entry + 8..entry + 16].copy_from_slice(&counter.to_le_bytes());
    }
    let (first, stream) = BackEnd::start(protocol, record.clone());
    let session = Session::negotiate(stream, Wishes::default()).unwrap();
    let inflight = Inflight::get(&session, 2, 16).unwrap();
    inflight.set(&session).unwrap();
    drop(session);
    let expected = QueueRecord {
        used_idx: 41,
        heads: vec![(9, 11), (3, 12)],
    };
    assert_eq!(
        inflight.queue(1, inflight.packed_stride()).unwrap(),
        expected
    );
    assert_eq!(
        first.told().last().unwrap().request,
        request::SET_INFLIGHT_FD
    );

    let (second, stream) = BackEnd::start(protocol, record);
    inflight
        .set(&Session::negotiate(stream, Wishes::default()).unwrap())
        .unwrap();
    let told = second.told();
    let last = told.last().unwrap();
    assert_eq!(words(&last.payload), [3 * 1024, 0, 2 | 16 << 16]);
    assert_eq!(last.fds.len(), 1);
}

#[test]
fn requests_of_the_back_end_are_received_and_answered() {
    let protocol = protocol_feature::REPLY_ACK | protocol_feature::BACKEND_REQ;
    let (back_end, stream) = BackEnd::start(protocol, Vec::new());
    let (sender, receiver) = std::sync::mpsc::channel();
    // The scripted back end waits for the second answer before it acknowledges nothing more, so
    // the session is negotiated and the channel read on different threads.
    let reader = std::thread::spawn(move || {
        let session: Session = receiver.recv().unwrap();
        let channel = session.channel().unwrap();
        channel.wait_config_change(Deadline::patient()).unwrap();
        let second = channel.receive(Deadline::patient(), 0).unwrap();
        assert!(second.needs_reply());
        session
    });
    let mut session = Session::raw(stream);
    session.open_channel().unwrap();
    sender.send(session).unwrap();
    drop(reader.join().unwrap());
    assert_eq!(back_end.told()[0].request, request::SET_BACKEND_REQ_FD);
}

#[test]
fn a_configuration_answer_that_is_too_short_is_refused() {
    let (_back_end, stream) = BackEnd::start(0, Vec::new());
    let session = Session::negotiate(stream, Wishes::default()).unwrap();
    let error = session.config(0, 4).unwrap_err();
    assert!(
        matches!(
            error,
            Error::BadReply {
                request: request::GET_CONFIG,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn single_regions_are_added_with_their_descriptor_and_removed_without() {
    let (back_end, stream) = BackEnd::start(protocol_feature::REPLY_ACK, Vec::new());
    let memory = Memory::new(&MemoryLayout::scattered()).unwrap();
    let session = Session::negotiate(stream, Wishes::default()).unwrap();
    let region = &memory.regions()[1];
    session.add_region(region).unwrap();
    session.remove_region(region).unwrap();
    drop(session);
    let told = back_end.told();
    let [.., added, removed] = told.as_slice() else {
        panic!("nothing was told")
    };
    let spec = region.spec;
    let expected = [
        0,
        spec.guest_base,
        spec.size,
        region.user_base,
        spec.file_offset,
    ];
    assert_eq!(
        (added.request, removed.request),
        (request::ADD_MEM_REG, request::REM_MEM_REG)
    );
    assert_eq!(
        (words(&added.payload), words(&removed.payload)),
        (expected.into(), expected.into())
    );
    assert_eq!((added.fds.len(), removed.fds.len()), (1, 0));
}
