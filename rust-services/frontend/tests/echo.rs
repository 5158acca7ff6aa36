// SPDX-License-Identifier: Apache-2.0
//! The driver against a small device on the stock vhost-user-backend worker: it works, and its
//! checks notice a device that breaks a rule.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "an integration test"
)]

mod echo_device;

use std::time::Duration;

use echo_device::{EchoService, Fault};
use frontend::config::Change;
use frontend::connection::Acknowledge;
use frontend::event::Blocking;
use frontend::protocol::{feature, header, protocol_feature, request};
use frontend::ring::{CallWait, Indirect, RingOptions};
use frontend::session::Session;
use frontend::{Buffer, Deadline, Error, Guest, GuestOptions, MemoryLayout, Misbehaviour, Segment};

fn guest(service: &EchoService, options: &GuestOptions) -> Guest {
    let mut guest = Guest::connect(service.connect(), options).unwrap();
    guest.start().unwrap();
    guest
}

/// Buffers of one request and its answer, used again and again.
struct Pair {
    request: Buffer,
    answer: Buffer,
}

impl Pair {
    fn new(guest: &Guest, len: u32) -> Self {
        let memory = guest.memory();
        Self {
            request: memory.alloc(len, 1).unwrap(),
            answer: memory.alloc(len, 1).unwrap(),
        }
    }

    /// The pair cut into `pieces` segments each.
    fn segments(&self, pieces: u32) -> Vec<Segment> {
        let cut = |buffer: Buffer, kind: fn(Buffer) -> Segment| {
            let step = buffer.len / pieces;
            (0..pieces).map(move |at| {
                let len = if at + 1 < pieces {
                    step
                } else {
                    buffer.len - step * at
                };
                kind(Buffer {
                    addr: buffer.addr + u64::from(step * at),
                    len,
                })
            })
        };
        cut(self.request, Segment::Readable)
            .chain(cut(self.answer, Segment::Writable))
            .collect()
    }

    fn echo(&self, guest: &mut Guest, queue: u16, pieces: u32, text: &[u8]) {
        let memory = guest.memory().clone();
        memory.write(self.request.addr, text).unwrap();
        memory
            .fill(self.answer.addr, self.answer.len, 0xee)
            .unwrap();
        let ring = guest.ring_mut(queue);
        let chain = ring.add(&self.segments(pieces)).unwrap();
        ring.kick().unwrap();
        let completion = ring.wait(Deadline::patient()).unwrap();
        assert_eq!(completion.chain, chain);
        assert_eq!(completion.written as usize, text.len());
        assert_eq!(
            memory.bytes(self.answer.addr, self.answer.len).unwrap(),
            text
        );
        ring.check_available_untouched().unwrap();
    }
}

fn echo_once(guest: &mut Guest, queue: u16) {
    Pair::new(guest, 11).echo(guest, queue, 3, b"hello world");
}

#[test]
fn requests_are_echoed_in_every_way_to_set_a_ring_up() {
    let service = EchoService::start(Fault::None);
    let layouts = [
        MemoryLayout::scattered(),
        MemoryLayout::one_file(),
        MemoryLayout::single(1 << 20),
    ];
    for memory in layouts {
        for hidden in [0, feature::EVENT_IDX, feature::INDIRECT_DESC] {
            for hidden_protocol in [0, protocol_feature::CONFIGURE_MEM_SLOTS] {
                for indirect in [Indirect::Never, Indirect::LongChains, Indirect::Always] {
                    let mut options = GuestOptions::new(2);
                    options.memory = memory.clone();
                    options.wishes.features &= !hidden;
                    options.wishes.protocol &= !hidden_protocol;
                    options.queues = vec![
                        RingOptions {
                            indirect,
                            ..RingOptions::default()
                        };
                        2
                    ];
                    options.queues[1].kick = Blocking::Yes;
                    let mut guest = guest(&service, &options);
                    assert_eq!(guest.session().unwrap().features() & hidden, 0);
                    echo_once(&mut guest, 0);
                    echo_once(&mut guest, 1);
                }
            }
        }
    }
}

#[test]
fn ring_indices_wrap_around_with_and_without_event_idx_and_tables() {
    let service = EchoService::start(Fault::None);
    for (hidden, indirect, size) in [
        (0, Indirect::Never, 8),
        (feature::EVENT_IDX, Indirect::LongChains, 16),
        (0, Indirect::Always, 256),
    ] {
        let mut options = GuestOptions::new(2);
        options.wishes.features &= !hidden;
        options.queues = vec![
            RingOptions {
                size,
                indirect,
                ..RingOptions::default()
            };
            2
        ];
        let mut guest = guest(&service, &options);
        let pair = Pair::new(&guest, 8);
        let batch = size / 2;
        let mut done = 0u64;
        while done < 70_000 {
            let ring = guest.ring_mut(0);
            let sent: Vec<_> = (0..batch)
                .map(|_| ring.add(&pair.segments(1)).unwrap())
                .collect();
            ring.kick().unwrap();
            let back: Vec<_> = ring
                .wait_all(Deadline::patient())
                .unwrap()
                .iter()
                .map(|c| c.chain)
                .collect();
            assert_eq!(back, sent);
            done += u64::from(batch);
        }
        let counts = guest.ring(0).counts();
        assert_eq!(counts.completions, done);
        assert_eq!(counts.kicks + counts.kicks_spared, done / u64::from(batch));
        assert!(done > 65_536 && guest.ring(0).avail_idx() == (done % 65_536) as u16);
    }
}

#[test]
fn a_request_may_be_cut_into_single_bytes() {
    let service = EchoService::start(Fault::None);
    for indirect in [Indirect::Never, Indirect::Always] {
        let mut options = GuestOptions::new(2);
        options.queues = vec![
            RingOptions {
                indirect,
                ..RingOptions::default()
            };
            2
        ];
        let mut guest = guest(&service, &options);
        let text: Vec<u8> = (0..100).collect();
        Pair::new(&guest, 100).echo(&mut guest, 0, 100, &text);
    }
}

#[test]
fn no_calls_come_while_they_are_disabled_and_what_came_meanwhile_is_found() {
    let service = EchoService::start(Fault::None);
    for hidden in [0, feature::EVENT_IDX] {
        let mut options = GuestOptions::new(2);
        options.wishes.features &= !hidden;
        let mut guest = guest(&service, &options);
        let pair = Pair::new(&guest, 8);
        let deadline = Deadline::patient();
        let ring = guest.ring_mut(0);
        ring.disable_calls().unwrap();
        for _ in 0..10 {
            ring.add(&pair.segments(1)).unwrap();
            ring.kick().unwrap();
        }
        // The device has returned all when the used index says so: spin, for nobody calls.
        while ring.used_idx().unwrap() != 10 {
            assert!(!deadline.passed());
            std::thread::yield_now();
        }
        // A stop is a barrier: after it the device can be about to call no more.
        guest.pause().unwrap();
        let ring = guest.ring_mut(0);
        let calls = ring.call_event().take().unwrap();
        // Without EVENT_IDX it is but a hint, which the crate's queue does not take.
        assert!(calls == 0 || hidden == feature::EVENT_IDX, "{calls} calls");
        assert!(
            ring.enable_calls().unwrap(),
            "it has to say that there is something"
        );
        assert_eq!(ring.wait_all(deadline).unwrap().len(), 10);
        guest.resume().unwrap();
        echo_once(&mut guest, 0);
    }
}

#[test]
fn a_delayed_call_comes_when_the_last_chain_is_back() {
    let service = EchoService::start(Fault::None);
    let mut guest = guest(&service, &GuestOptions::new(2));
    let pair = Pair::new(&guest, 8);
    let ring = guest.ring_mut(0);
    assert!(!ring.enable_calls_after(5).unwrap());
    for _ in 0..5 {
        ring.add(&pair.segments(1)).unwrap();
        ring.kick().unwrap();
    }
    assert!(ring.wait_call(Deadline::patient()).unwrap());
    assert_eq!(ring.pop_all().unwrap().len(), 5);
}

#[test]
fn blocking_calls_can_be_waited_for_in_read() {
    let service = EchoService::start(Fault::None);
    let mut options = GuestOptions::new(2);
    options.queues[0].call = CallWait::Read;
    let mut guest = guest(&service, &options);
    for _ in 0..100 {
        echo_once(&mut guest, 0);
    }
}

#[test]
fn configuration_is_read_and_written_at_any_offset_and_size() {
    let service = EchoService::start(Fault::None);
    let guest = guest(&service, &GuestOptions::new(2));
    let session = guest.session().unwrap();
    for (offset, size) in [(0, 64), (1, 1), (13, 9), (60, 8), (200, 8)] {
        let expected: Vec<u8> = (offset..offset + size)
            .map(|at| if at < 64 { at as u8 } else { 0 })
            .collect();
        assert_eq!(session.config(offset, size).unwrap(), expected);
    }
    session
        .write_config(7, &[0xaa, 0xbb], Change::ByDriver)
        .unwrap();
    assert_eq!(session.config(6, 4).unwrap(), [6, 0xaa, 0xbb, 9]);
    assert_eq!(
        session.config_u32(8).unwrap(),
        u32::from_le_bytes([0xbb, 9, 10, 11])
    );
    let refused = session
        .write_config(63, &[1, 2], Change::ByDriver)
        .unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Refused {
                request: request::SET_CONFIG,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_paused_guest_goes_on_where_it_was_and_a_reset_one_at_the_start() {
    let service = EchoService::start(Fault::None);
    let mut guest = guest(&service, &GuestOptions::new(2));
    for round in 1..=3u16 {
        echo_once(&mut guest, 0);
        assert_eq!(guest.pause().unwrap(), [round, 0]);
        guest.resume().unwrap();
    }
    guest.reset().unwrap();
    guest.start().unwrap();
    echo_once(&mut guest, 0);
    assert_eq!(guest.ring(0).avail_idx(), 1);
    assert_eq!(guest.pause().unwrap(), [1, 0]);
}

#[test]
fn a_guest_comes_back_after_it_hung_up_in_the_middle_of_everything() {
    let service = EchoService::start(Fault::None);
    let mut guest = guest(&service, &GuestOptions::new(2));
    for _ in 0..50 {
        echo_once(&mut guest, 0);
        guest.reconnect(service.connect()).unwrap();
        guest.start().unwrap();
        echo_once(&mut guest, 1);
    }
    // Half a header, then gone.
    guest
        .session()
        .unwrap()
        .connection()
        .send_bytes(&[1, 0, 0], &[])
        .unwrap();
    guest.hang_up().unwrap();
    guest.reconnect(service.connect()).unwrap();
    guest.start().unwrap();
    echo_once(&mut guest, 0);
}

#[test]
fn memory_can_be_added_and_removed_while_the_device_runs() {
    let service = EchoService::start(Fault::None);
    let mut options = GuestOptions::new(2);
    for queue in &mut options.queues {
        *queue = RingOptions {
            region: Some(0),
            indirect: Indirect::Never,
            ..*queue
        };
    }
    let mut guest = guest(&service, &options);
    let memory = guest.memory().clone();
    let session = guest.session().unwrap();
    assert!(session.max_memory_slots().unwrap() >= 8);
    session.remove_region(&memory.regions()[2]).unwrap();
    session.add_region(&memory.regions()[2]).unwrap();
    let pair = Pair {
        request: memory.alloc_in(1, 4, 1).unwrap(),
        answer: memory.alloc_in(2, 4, 1).unwrap(),
    };
    pair.echo(&mut guest, 0, 1, b"late");
    let session = guest.session().unwrap();
    session.remove_region(&memory.regions()[2]).unwrap();
    let twice = session.remove_region(&memory.regions()[2]).unwrap_err();
    assert!(
        matches!(
            twice,
            Error::Refused {
                request: request::REM_MEM_REG,
                ..
            }
        ),
        "{twice}"
    );
}

#[test]
fn a_back_end_that_asks_for_no_acknowledgement_is_served_as_well() {
    let service = EchoService::start(Fault::None);
    for acknowledge in [Acknowledge::Memory, Acknowledge::Nothing] {
        let mut options = GuestOptions::new(2);
        options.wishes.acknowledge = acknowledge;
        echo_once(&mut guest(&service, &options), 0);
    }
}

#[test]
fn what_no_good_front_end_says_is_said_and_its_answer_seen() {
    let service = EchoService::start(Fault::None);
    let session = Session::negotiate(service.connect(), Default::default()).unwrap();
    // An unknown message, and a ring that is not there: refused or hung up on, never silence.
    let number = 999;
    let answer = session.tell_and_wait(number, &[], &[]).unwrap_err();
    assert!(
        matches!(answer, Error::Disconnected(_) | Error::Refused { .. }),
        "{answer}"
    );
    let session = Session::negotiate(service.connect(), Default::default()).unwrap();
    let answer = session.set_ring_size(77, 16).unwrap_err();
    assert!(
        matches!(answer, Error::Disconnected(_) | Error::Refused { .. }),
        "{answer}"
    );
    // A wrong version in the header.
    let session = Session::raw(service.connect());
    session
        .connection()
        .send(request::GET_FEATURES, 3, &[], &[])
        .unwrap();
    assert!(session.connection().hung_up(Deadline::patient()).unwrap());
    assert_eq!(header::VERSION, 1);
}

#[test]
fn a_device_that_breaks_a_rule_is_caught() {
    type Check = fn(&Misbehaviour) -> bool;
    let cases: [(Fault, Check); 4] = [
        (Fault::ReturnsTwice, |what| {
            matches!(
                what,
                Misbehaviour::ReturnedTwice { .. } | Misbehaviour::UsedIndexJumped { .. }
            )
        }),
        (Fault::WritesTooMuch, |what| {
            matches!(what, Misbehaviour::WroteTooMuch { .. })
        }),
        (Fault::InventsHead, |what| {
            matches!(what, Misbehaviour::NeverAvailable(_))
        }),
        (Fault::NeverCalls, |what| {
            matches!(what, Misbehaviour::CallMissing { used_idx: 1 })
        }),
    ];
    for (fault, check) in cases {
        let service = EchoService::start(fault);
        let mut guest = guest(&service, &GuestOptions::new(2));
        let pair = Pair::new(&guest, 8);
        let ring = guest.ring_mut(0);
        ring.enable_calls().unwrap();
        ring.add(&pair.segments(1)).unwrap();
        ring.kick().unwrap();
        let caught = if fault == Fault::NeverCalls {
            // The wait must begin before the device is done: so wait for the call alone first.
            let deadline = Deadline::patient();
            while ring.used_idx().unwrap() == 0 {
                assert!(!deadline.passed());
                std::thread::yield_now();
            }
            guest.pause().unwrap();
            guest.ring_mut(0).check_called()
        } else {
            ring.wait_all(Deadline::patient()).map(drop)
        };
        let what = caught.unwrap_err().misbehaviour().unwrap().clone();
        assert!(check(&what), "{fault:?}: {what}");
    }
}

#[test]
fn waiting_for_what_never_comes_ends_at_the_deadline() {
    let service = EchoService::start(Fault::None);
    let mut guest = guest(&service, &GuestOptions::new(2));
    let error = guest
        .ring_mut(0)
        .wait(Deadline::after(Duration::from_millis(10)))
        .unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
}
