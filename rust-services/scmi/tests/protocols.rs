// SPDX-License-Identifier: Apache-2.0

//! Every protocol, command by command, without sockets: what a guest asks and what it is told.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod platform_under_test;

use std::time::Duration;

use agl_virtio_scmi::platform::{Access, AgentId, Kind, POWER_OFF, POWER_ON};
use agl_virtio_scmi::protocol::PROTOCOLS;
use agl_virtio_scmi::wire::Status;
use platform_under_test::{FIRST, PlatformUnderTest, SECOND, text, word};

const OK: i32 = 0;

fn code(status: Status) -> i32 {
    status.code()
}

#[test]
fn every_protocol_tells_its_version_and_exactly_the_commands_that_it_answers() {
    let mut test = PlatformUnderTest::built_in();
    let versions = [
        (0x10, 0x2_0001),
        (0x11, 0x3_0001),
        (0x12, 0x2_0001),
        (0x13, 0x4_0000),
        (0x14, 0x3_0000),
        (0x15, 0x3_0001),
        (0x16, 0x3_0001),
        (0x17, 0x2_0001),
        (0x18, 0x2_0000),
        (0x19, 0x1_0000),
    ];
    for (protocol, version) in versions {
        assert_eq!(
            test.ask(protocol, 0, &[]),
            (OK, words(&[version])),
            "{protocol:#x}"
        );
        assert_eq!(test.ask(protocol, 0x10, &[version]).0, OK);
        assert_eq!(
            test.ask(protocol, 0x10, &[0x9_0000]).0,
            code(Status::NotSupported)
        );
        for message in 0..=0xff_u8 {
            let (status, _) = test.ask(protocol, 2, &[message.into()]);
            let (answer, _) = test.ask(protocol, message, &[]);
            let exists = status == OK;
            assert!(
                exists || status == code(Status::NotFound),
                "{protocol:#x} {message:#x}"
            );
            let answered = answer != code(Status::NotSupported);
            assert_eq!(
                answered, exists,
                "{protocol:#x} {message:#x}: {status} but {answer}"
            );
        }
        assert_eq!(test.ask(protocol, 2, &[0x100]).0, code(Status::NotFound));
    }
}

#[test]
fn without_an_event_queue_nothing_that_needs_one_exists() {
    let mut test = PlatformUnderTest::built_in();
    test.platform.agents[0].p2a = false;
    let notifying = [
        (0x10, 8),
        (0x11, 6),
        (0x12, 5),
        (0x13, 9),
        (0x13, 0xa),
        (0x14, 9),
        (0x14, 0xa),
    ];
    let more = [(0x15, 4), (0x15, 0xb), (0x16, 5), (0x18, 0xa), (0x18, 0xb)];
    for (protocol, message) in notifying.into_iter().chain(more) {
        let known = test.ask(protocol, 2, &[message]).0;
        assert_eq!(known, code(Status::NotFound), "{protocol:#x} {message:#x}");
        let refused = test.ask(protocol, message as u8, &[0, 1]).0;
        assert_eq!(
            refused,
            code(Status::NotSupported),
            "{protocol:#x} {message:#x}"
        );
    }
    // Nor asynchronous commands: a rate, a reading, a reset, a voltage.
    let asynchronous: [(u8, u8, &[u32]); 4] = [
        (0x14, 5, &[1, 1, 800_000_000, 0]),
        (0x15, 6, &[4, 1]),
        (0x16, 4, &[1, 5, 0]),
        (0x17, 7, &[1, 1, 825_000]),
    ];
    for (protocol, message, words) in asynchronous {
        let refused = test.ask(protocol, message, words).0;
        assert_eq!(refused, code(Status::NotSupported), "{protocol:#x}");
    }
    let (_, attributes) = test.ask(0x14, 1, &[]);
    assert_eq!(
        word(&attributes, 0) >> 16,
        0,
        "no asynchronous rates are offered"
    );
}

#[test]
fn a_command_of_any_other_length_is_a_protocol_error() {
    let mut test = PlatformUnderTest::built_in();
    for protocol in PROTOCOLS {
        for message in 0..=0x10_u8 {
            let exists = test.ask(protocol.id, 2, &[message.into()]).0 == OK;
            let mut accepted = Vec::new();
            for len in 0..=130_usize {
                let (status, _) = test.send(FIRST, protocol.id, message, &vec![0; len]);
                if exists && status != code(Status::ProtocolError) {
                    accepted.push(len);
                }
            }
            assert!(
                accepted.len() <= 1,
                "{:#x} {message:#x}: {accepted:?}",
                protocol.id
            );
        }
    }
}

#[test]
fn resources_that_are_not_there_are_not_found_in_every_command() {
    let mut test = PlatformUnderTest::built_in();
    let commands: &[(u8, u8, usize)] = &[
        (0x11, 3, 1),
        (0x11, 5, 1),
        (0x11, 6, 2),
        (0x11, 8, 1),
        (0x13, 3, 1),
        (0x13, 4, 2),
        (0x13, 6, 1),
        (0x13, 7, 2),
        (0x13, 8, 1),
        (0x13, 9, 2),
        (0x13, 0xa, 2),
        (0x13, 0xc, 1),
        (0x14, 3, 1),
        (0x14, 4, 2),
        (0x14, 6, 1),
        (0x14, 7, 3),
        (0x14, 8, 1),
        (0x14, 0xb, 2),
        (0x14, 0xc, 2),
        (0x14, 0xd, 2),
        (0x14, 0xe, 1),
        (0x14, 0xf, 1),
        (0x15, 4, 2),
        (0x15, 5, 4),
        (0x15, 6, 2),
        (0x15, 7, 2),
        (0x15, 8, 2),
        (0x15, 9, 1),
        (0x15, 0xa, 2),
        (0x15, 0xb, 2),
        (0x15, 0xc, 1),
        (0x15, 0xd, 2),
        (0x16, 3, 1),
        (0x16, 4, 3),
        (0x16, 5, 2),
        (0x16, 6, 1),
        (0x17, 3, 1),
        (0x17, 4, 2),
        (0x17, 5, 2),
        (0x17, 6, 1),
        (0x17, 8, 1),
        (0x17, 9, 1),
        (0x18, 3, 1),
        (0x18, 4, 1),
        (0x18, 5, 3),
        (0x18, 6, 1),
        (0x18, 8, 1),
        (0x18, 9, 1),
        (0x18, 7, 3),
        (0x18, 0xa, 2),
        (0x18, 0xb, 4),
        (0x19, 3, 2),
        (0x19, 4, 3),
        (0x19, 5, 2),
        (0x19, 6, 3),
        (0x19, 7, 2),
        (0x19, 8, 2),
        (0x19, 9, 2),
    ];
    for (protocol, message, words) in commands {
        for number in [1000, u32::MAX] {
            let mut parameters = vec![0; *words];
            parameters[0] = number;
            let status = test.ask(*protocol, *message, &parameters).0;
            assert_eq!(
                status,
                code(Status::NotFound),
                "{protocol:#x} {message:#x} {number}"
            );
        }
    }
}

#[test]
fn reserved_flags_are_invalid_parameters() {
    let mut test = PlatformUnderTest::built_in();
    let commands: &[(u8, u8, &[u32])] = &[
        (0x10, 8, &[2]),
        (0x11, 4, &[2, 1, 0]),
        (0x11, 4, &[0, 1, 7]),
        (0x11, 6, &[0, 2]),
        (0x12, 3, &[2, 0]),
        (0x12, 3, &[0, 5]),
        (0x12, 5, &[2]),
        (0x13, 9, &[0, 2]),
        (0x13, 5, &[0, 0, 0]),
        (0x13, 5, &[0, 500, 1000]),
        (0x14, 5, &[0x10, 3, 40_000_000, 0]),
        (0x14, 7, &[3, 2, 0]),
        (0x14, 7, &[3, 3, 0]),
        (0x14, 7, &[3, 0x100, 0]),
        (0x14, 0xb, &[3, 0x100]),
        (0x15, 5, &[0, 4, 0, 0]),
        (0x15, 6, &[0, 2]),
        (0x15, 0xa, &[0, 4]),
        (0x15, 0xa, &[0, 3 << 9]),
        (0x16, 4, &[0, 8, 0]),
        (0x16, 4, &[0, 1, 1]),
        (0x16, 4, &[1, 4, 0]),
        (0x17, 5, &[0, 1]),
        (0x17, 7, &[0, 2, 1_800_000]),
        (0x17, 7, &[1, 0, 700_001]),
        (0x18, 5, &[0, 4, 3_000_000]),
        (0x18, 5, &[0, 0, 3_000_001]),
        (0x18, 7, &[0, 1, 200_000]),
        (0x18, 7, &[0, 0, 200_001]),
        (0x18, 0xb, &[0, 2, 0, 1]),
        (0x18, 0xb, &[0, 1, 2, 1]),
        (0x19, 3, &[0, 3]),
        (0x19, 4, &[0, 0, 0]),
        (0x19, 5, &[0, 3 << 18]),
        (0x19, 5, &[0, 1 << 20]),
        (0x19, 5, &[0, 2 << 16]),
        (0x19, 6, &[0, 0, 1 << 11]),
        (0x19, 6, &[0, 0, 1 << 10]),
        (0x19, 6, &[0, 1, 1 << 10 | 1]),
        (0x19, 6, &[0, 0, 1 << 2, 0x100, 0]),
        (0x19, 7, &[0, 2]),
    ];
    for (protocol, message, words) in commands {
        let status = test.ask(*protocol, *message, words).0;
        assert_eq!(
            status,
            code(Status::InvalidParameters),
            "{protocol:#x} {message:#x} {words:?}"
        );
    }
}

#[test]
fn what_no_agent_may_send_is_a_protocol_error_and_unknown_protocols_are_not_supported() {
    let mut test = PlatformUnderTest::built_in();
    for kind in 1..4_u32 {
        let header = kind << 8 | 0x10 << 10;
        assert_eq!(test.raw(FIRST, header, &[]).0, code(Status::ProtocolError));
    }
    assert_eq!(
        test.raw(FIRST, 1 << 28 | 0x10 << 10, &[]).0,
        code(Status::ProtocolError)
    );
    for protocol in (0..=0xff_u8).filter(|id| PROTOCOLS.iter().all(|of| of.id != *id)) {
        assert_eq!(
            test.ask(protocol, 0, &[]).0,
            code(Status::NotSupported),
            "{protocol:#x}"
        );
    }
}

#[test]
fn the_base_protocol_names_vendor_agents_and_protocols() {
    let mut test = PlatformUnderTest::two_agents();
    let (status, attributes) = test.ask(0x10, 1, &[]);
    assert_eq!((status, word(&attributes, 0)), (OK, 9 | 2 << 8));
    assert_eq!(text(&test.ask(0x10, 3, &[]).1), "AGL");
    assert_eq!(text(&test.ask(0x10, 4, &[]).1), "sim");
    let (status, list) = test.ask(0x10, 6, &[0]);
    assert_eq!((status, word(&list, 0), list.len()), (OK, 9, 16));
    assert_eq!(
        list[4..],
        [
            0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0, 0, 0
        ]
    );
    let (_, rest) = test.ask(0x10, 6, &[5]);
    assert_eq!(rest, [4, 0, 0, 0, 0x16, 0x17, 0x18, 0x19]);
    assert_eq!(test.ask(0x10, 6, &[9]).0, code(Status::InvalidParameters));
    for (asked, number, name) in [
        (0, 0, "platform"),
        (1, 1, "guest"),
        (2, 2, "other"),
        (u32::MAX, 1, "guest"),
    ] {
        let (status, agent) = test.ask(0x10, 7, &[asked]);
        assert_eq!(
            (status, word(&agent, 0), text(&agent[4..])),
            (OK, number, name.to_owned())
        );
    }
    assert_eq!(test.ask(0x10, 7, &[3]).0, code(Status::NotFound));
}

#[test]
fn lists_of_any_length_come_in_pages_until_nothing_remains() {
    let mut test = PlatformUnderTest::large();
    // Sensors of two sizes of description.
    let mut seen = Vec::new();
    loop {
        let (status, page) = test.ask(0x15, 3, &[seen.len() as u32]);
        assert_eq!(status, OK);
        assert!(page.len() <= 128);
        let (returned, remaining) = (word(&page, 0) & 0xffff, word(&page, 0) >> 16);
        let mut at = 4;
        for _ in 0..returned {
            seen.push(word(&page[at..], 0));
            let extended = word(&page[at..], 1) & 1 << 8 != 0;
            at += if extended { 52 } else { 28 };
        }
        assert_eq!(at, page.len());
        if remaining == 0 {
            break;
        }
    }
    assert_eq!(seen, (0..300).collect::<Vec<u32>>());
    assert_eq!(test.ask(0x15, 3, &[300]).0, code(Status::OutOfRange));
    // Rates, levels of performance, voltages and intervals: header word, then items.
    let lists: [(u8, u8, u32, usize, u32); 4] = [
        (0x14, 4, 0xfff, 8, 500),
        (0x13, 4, 0xffff, 20, 64),
        (0x17, 4, 0xfff, 4, 400),
        (0x15, 8, 0xfff, 4, 200),
    ];
    for (protocol, message, mask, size, total) in lists {
        let mut seen = 0;
        loop {
            let (status, page) = test.ask(protocol, message, &[0, seen]);
            assert_eq!(status, OK, "{protocol:#x}");
            let (returned, remaining) = (word(&page, 0) & mask, word(&page, 0) >> 16);
            assert_eq!(page.len(), 4 + returned as usize * size);
            seen += returned;
            assert_eq!(seen + remaining, total, "{protocol:#x}");
            if remaining == 0 {
                break;
            }
        }
    }
    // A guest with small buffers gets small pages, never a refusal.
    let (status, page) = test.ask_with_room(0x14, 4, &[0, 0], 8 + 4 + 8);
    assert_eq!(
        (status, page.len(), word(&page, 0)),
        (OK, 12, 1 | 499 << 16)
    );
}

#[test]
fn a_clock_runs_while_somebody_wants_it_or_what_it_feeds() {
    let mut test = PlatformUnderTest::two_agents();
    let on = |test: &mut PlatformUnderTest, clock| word(&test.ask(0x14, 0xb, &[clock, 0]).1, 1);
    // 0 osc, 1 pll0, 2 pll1, 3 pixel (of pll0), 4 audio (of pll1 or pll0).
    assert_eq!([0, 1, 3].map(|clock| on(&mut test, clock)), [1, 0, 0]);
    assert_eq!(test.ask(0x14, 7, &[3, 1, 0]).0, OK);
    assert_eq!(
        [1, 3].map(|clock| on(&mut test, clock)),
        [1, 1],
        "its parent too"
    );
    assert_eq!(test.ask_as(SECOND, 0x14, 7, &[3, 1, 0]).0, OK);
    assert_eq!(test.ask(0x14, 7, &[3, 0, 0]).0, OK);
    assert_eq!(on(&mut test, 3), 1, "the other agent still wants it");
    test.platform.release(AgentId::new(1), Duration::ZERO);
    assert_eq!([1, 3].map(|clock| on(&mut test, clock)), [0, 0]);
}

#[test]
fn the_highest_wish_for_a_rate_holds_and_followers_are_told() {
    let mut test = PlatformUnderTest::two_agents();
    let rate = |test: &mut PlatformUnderTest, clock| word(&test.ask(0x14, 6, &[clock]).1, 0);
    assert_eq!(
        rate(&mut test, 4),
        491_520_000,
        "a mux has its parent's rate"
    );
    assert_eq!(test.ask(0x14, 9, &[4, 1]).0, OK);
    assert_eq!(test.ask(0x14, 5, &[0, 2, 541_900_800, 0]).0, OK);
    assert_eq!(rate(&mut test, 4), 541_900_800);
    let event = test.event(FIRST).unwrap();
    assert_eq!(event, words(&[3 << 8 | 0x14 << 10, 1, 4, 541_900_800, 0]));
    assert_eq!(test.ask_as(SECOND, 0x14, 5, &[0, 2, 491_520_000, 0]).0, OK);
    assert_eq!(rate(&mut test, 2), 541_900_800);
    test.platform.release(AgentId::new(0), Duration::ZERO);
    assert_eq!(rate(&mut test, 2), 491_520_000);
    // The mux goes to another parent, and back when its agent goes.
    assert_eq!(test.ask(0x14, 0xe, &[4]).1, words(&[2]));
    assert_eq!(test.ask(0x14, 0xd, &[4, 1]).0, OK);
    assert_eq!(rate(&mut test, 4), 400_000_000);
    assert_eq!(
        test.ask_as(SECOND, 0x14, 0xd, &[4, 2]).0,
        code(Status::Denied)
    );
    assert_eq!(
        test.ask(0x14, 0xd, &[4, 0]).0,
        code(Status::InvalidParameters)
    );
    assert_eq!(test.ask(0x14, 0xc, &[4, 0]).1, words(&[2, 2, 1]));
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn an_asynchronous_rate_settles_later_and_says_so() {
    let mut test = PlatformUnderTest::built_in();
    let set = [1, 1, 800_000_000, 0];
    assert_eq!(test.ask(0x14, 5, &set).0, OK);
    assert_eq!(word(&test.ask(0x14, 6, &[1]).1, 0), 400_000_000, "not yet");
    assert_eq!(test.event(FIRST), None);
    let due = test.platform.next_deadline().unwrap();
    assert_eq!(due, Duration::from_micros(200));
    test.platform.advance(due);
    assert_eq!(word(&test.ask(0x14, 6, &[1]).1, 0), 800_000_000);
    let header = 2 << 8 | 0x14 << 10 | 5;
    let event = test.event(FIRST).unwrap();
    assert_eq!(word(&event, 0) & 0x3ffff, header);
    assert_eq!(event[4..], words(&[0, 1, 800_000_000, 0]));
    // Too many at once are BUSY, and none is lost.
    let accepted = (0..100).filter(|_| test.ask(0x14, 5, &set).0 == OK).count();
    assert_eq!(accepted, 32);
    test.platform.advance(Duration::from_secs(1));
    assert_eq!((0..100).filter(|_| test.event(FIRST).is_some()).count(), 32);
}

#[test]
fn performance_is_the_highest_wish_within_all_limits() {
    let mut test = PlatformUnderTest::two_agents();
    let level = |test: &mut PlatformUnderTest| word(&test.ask(0x13, 8, &[0]).1, 0);
    assert_eq!(level(&mut test), 500);
    assert_eq!(test.ask(0x13, 0xa, &[0, 1]).0, OK);
    assert_eq!(test.ask(0x13, 7, &[0, 1000]).0, OK);
    assert_eq!(test.event(FIRST).unwrap()[4..], words(&[1, 0, 1000]));
    assert_eq!(test.ask_as(SECOND, 0x13, 7, &[0, 1500]).0, OK);
    assert_eq!(test.event(FIRST).unwrap()[4..], words(&[2, 0, 1500]));
    assert_eq!(test.ask(0x13, 5, &[0, 1000, 500]).0, OK);
    assert_eq!(
        level(&mut test),
        1000,
        "the limit of the first holds for the second"
    );
    assert_eq!(test.ask(0x13, 6, &[0]).1, words(&[1000, 500]));
    test.platform.release(AgentId::new(0), Duration::ZERO);
    assert_eq!(level(&mut test), 1500);
    test.platform.release(AgentId::new(1), Duration::ZERO);
    assert_eq!(level(&mut test), 500);
    assert_eq!(test.ask(0x13, 7, &[0, 1501]).0, code(Status::OutOfRange));
    assert_eq!(test.ask(0x13, 7, &[0, 499]).0, code(Status::OutOfRange));
    // The GPU's levels go by index.
    assert_eq!(test.ask(0x13, 7, &[1, 2]).0, OK);
    assert_eq!(word(&test.ask(0x13, 8, &[1]).1, 0), 2);
    assert_eq!(test.ask(0x13, 7, &[1, 3]).0, code(Status::OutOfRange));
    let (_, levels) = test.ask(0x13, 4, &[1, 0]);
    assert_eq!(levels[4..24], words(&[200, 80, 0, 200_000, 0]));
    // FastChannels do not exist here.
    let (_, attributes) = test.ask(0x13, 3, &[0]);
    assert_eq!(word(&attributes, 0) & 1 << 27, 0);
    assert_eq!(test.ask(0x13, 0xb, &[0, 7]).0, code(Status::NotSupported));
}

#[test]
fn a_power_domain_is_on_while_it_or_one_within_is_wanted() {
    let mut test = PlatformUnderTest::two_agents();
    let state = |test: &mut PlatformUnderTest, domain| word(&test.ask(0x11, 5, &[domain]).1, 0);
    let (on, off) = (POWER_ON, POWER_OFF);
    assert_eq!(
        [0, 1, 2].map(|domain| state(&mut test, domain)),
        [on, off, off]
    );
    assert_eq!(test.ask_as(SECOND, 0x11, 6, &[1, 1]).0, OK);
    assert_eq!(test.ask(0x11, 4, &[0, 2, on]).0, OK);
    assert_eq!([1, 2].map(|domain| state(&mut test, domain)), [on, on]);
    assert_eq!(
        test.event(SECOND).unwrap()[4..],
        words(&[1, 1, on]),
        "media came on by display"
    );
    assert_eq!(test.ask(0x11, 4, &[0, 2, off]).0, OK);
    assert_eq!(test.event(SECOND).unwrap()[4..], words(&[1, 1, off]));
    assert_eq!([1, 2].map(|domain| state(&mut test, domain)), [off, off]);
    // A long name needs the command for it.
    let (_, attributes) = test.ask(0x11, 3, &[3]);
    assert_ne!(word(&attributes, 0) & 1 << 27, 0);
    assert_eq!(text(&attributes[4..]), "graphics-and-co");
    assert_eq!(
        text(&test.ask(0x11, 8, &[3]).1[4..]),
        "graphics-and-compositor"
    );
}

#[test]
fn sensors_read_report_and_trip() {
    let mut test = PlatformUnderTest::built_in();
    test.now = Duration::from_secs(5);
    let (status, reading) = test.ask(0x15, 6, &[0, 0]);
    assert_eq!((status, reading.len()), (OK, 16));
    assert_eq!(word(&reading, 0), 70_000, "a quarter into its wave");
    assert_eq!(
        u64::from(word(&reading, 2)) | u64::from(word(&reading, 3)) << 32,
        5_000_000_000
    );
    // Three axes, each with its time.
    assert_eq!(test.ask(0x15, 6, &[5, 0]).1.len(), 48);
    let (_, axes) = test.ask(0x15, 7, &[5, 0]);
    assert_eq!(word(&axes, 0), 3);
    assert_eq!(text(&axes[4 + 12..]), "acceleration_X");
    assert_eq!(test.ask(0x15, 7, &[0, 0]).0, code(Status::NotSupported));
    // An interval of 500 ms; reports come in step.
    assert_eq!(test.ask(0x15, 0xa, &[0, 500 << 16 | 0x1d << 11 | 3]).0, OK);
    assert_eq!(
        word(&test.ask(0x15, 9, &[0]).1, 0),
        500 << 16 | 0x1d << 11 | 3
    );
    assert_eq!(test.ask(0x15, 0xb, &[0, 1]).0, OK);
    for half in 11..14 {
        let due = test.platform.next_deadline().unwrap();
        assert_eq!(due, Duration::from_millis(half * 500));
        test.platform.advance(due);
        let event = test.event(FIRST).unwrap();
        assert_eq!(word(&event, 0), 3 << 8 | 0x15 << 10 | 1);
        assert_eq!((word(&event, 1), word(&event, 2), event.len()), (0, 0, 28));
        let nanos = u64::from(word(&event, 5)) | u64::from(word(&event, 6)) << 32;
        assert_eq!(u128::from(nanos), due.as_nanos());
    }
    // Without the time, where the agent does not want it: in reports as in readings.
    assert_eq!(test.ask(0x15, 0xa, &[0, 500 << 16 | 0x1d << 11 | 1]).0, OK);
    let due = test.platform.next_deadline().unwrap();
    test.platform.advance(due);
    let event = test.event(FIRST).unwrap();
    assert_eq!((word(&event, 5), word(&event, 6)), (0, 0));
    assert_eq!(word(&test.ask(0x15, 6, &[0, 0]).1, 2), 0);
    assert_eq!(test.ask(0x15, 0xa, &[0, 500 << 16 | 0x1d << 11 | 3]).0, OK);
    assert_eq!(test.ask(0x15, 0xb, &[0, 0]).0, OK);
    assert_eq!(test.platform.next_deadline(), None);
    // A trip point at 80 degrees, both ways.
    assert_eq!(test.ask(0x15, 5, &[0, 3 | 1 << 4, 80_000, 0]).0, OK);
    assert_eq!(test.ask(0x15, 4, &[0, 1]).0, OK);
    let look = |test: &mut PlatformUnderTest, value| {
        test.platform.sensors[0].inject(0, Some(value));
        let due = test.platform.next_deadline().unwrap();
        test.platform.advance(due);
        test.event(FIRST)
    };
    assert_eq!(look(&mut test, 70_000), None);
    let up = words(&[3 << 8 | 0x15 << 10, 0, 0, 1 | 1 << 16]);
    assert_eq!(look(&mut test, 81_000).unwrap(), up);
    assert_eq!(look(&mut test, 82_000), None);
    let down = words(&[3 << 8 | 0x15 << 10, 0, 0, 1]);
    assert_eq!(look(&mut test, 79_999).unwrap(), down);
    assert_eq!(
        test.ask(0x15, 5, &[0, 3 | 2 << 4, 0, 0]).0,
        code(Status::InvalidParameters)
    );
    // A fault is a fault of the hardware.
    test.platform.sensors[0].set_fault(true);
    assert_eq!(test.ask(0x15, 6, &[0, 0]).0, code(Status::HardwareError));
    // The one that is slow answers later.
    assert_eq!(test.ask(0x15, 6, &[4, 1]).0, OK);
    test.platform.advance(Duration::from_secs(60));
    let event = test.event(FIRST).unwrap();
    assert_eq!((word(&event, 1), word(&event, 2), event.len()), (0, 4, 28));
    assert_eq!(
        test.ask(0x15, 6, &[0, 1]).0,
        code(Status::NotSupported),
        "it is not slow"
    );
}

#[test]
fn resets_voltages_and_caps_do_what_they_say() {
    let mut test = PlatformUnderTest::two_agents();
    assert_eq!(test.ask_as(SECOND, 0x16, 5, &[1, 1]).0, OK);
    assert_eq!(test.ask(0x16, 4, &[1, 1, 0]).0, OK);
    assert_eq!(test.event(SECOND).unwrap()[4..], words(&[1, 1, 0]));
    assert_eq!(test.ask(0x16, 4, &[1, 5, 0]).0, OK);
    // Its attributes do not have asynchronous resets.
    assert_eq!(test.ask(0x16, 4, &[0, 5, 0]).0, code(Status::NotSupported));
    assert_eq!(
        test.event(SECOND),
        None,
        "the asynchronous one has not happened yet"
    );
    test.platform.advance(Duration::from_secs(1));
    assert_eq!(test.event(FIRST).unwrap()[4..], words(&[0, 1]));
    assert_eq!(test.event(SECOND).unwrap()[4..], words(&[1, 1, 0]));
    assert_eq!(test.platform.resets[1].pulses, 2);
    assert_eq!(test.ask(0x16, 4, &[0, 2, 0]).0, OK);
    assert_eq!(test.platform.resets[0].asserted_by(), 1);
    assert_eq!(test.ask(0x16, 4, &[0, 0, 0]).0, OK);
    assert_eq!(test.platform.resets[0].asserted_by(), 0);

    assert_eq!(test.ask(0x17, 5, &[0, 7]).0, OK);
    assert_eq!(test.ask(0x17, 6, &[0]).1, words(&[7]));
    assert_eq!(test.ask(0x17, 7, &[0, 0, 3_300_000]).0, OK);
    assert_eq!(test.ask(0x17, 8, &[0]).1, words(&[3_300_000]));
    assert_eq!(
        test.ask(0x17, 7, &[0, 0, 3_400_000]).0,
        code(Status::OutOfRange)
    );
    assert_eq!(test.ask(0x17, 7, &[1, 1, 900_000]).0, OK);
    test.platform.advance(Duration::from_secs(2));
    assert_eq!(test.event(FIRST).unwrap()[4..], words(&[0, 1, 900_000]));
    assert_eq!(
        test.ask(0x17, 4, &[1, 0]).1,
        words(&[1 << 12 | 3, 700_000, 1_100_000, 12_500])
    );

    assert_eq!(test.ask_as(SECOND, 0x18, 0xa, &[0, 1]).0, OK);
    assert_eq!(test.ask(0x18, 5, &[0, 0, 5_000_000]).0, OK);
    assert_eq!(
        test.event(SECOND).unwrap()[4..],
        words(&[1, 0, 5_000_000, 100_000])
    );
    assert_eq!(test.ask_as(SECOND, 0x18, 5, &[0, 0, 9_000_000]).0, OK);
    assert_eq!(
        test.ask(0x18, 4, &[0]).1,
        words(&[5_000_000]),
        "the lowest cap holds"
    );
    assert!(word(&test.ask(0x18, 9, &[0]).1, 0) <= 5_000_000);
    assert_eq!(test.ask(0x18, 3, &[0]).1.len(), 56);
}

#[test]
fn what_policy_denies_is_denied_and_counted() {
    let mut test = PlatformUnderTest::with_policy();
    // "read" and "set up to 1000" and "exclusive to the other".
    assert_eq!(test.ask(0x14, 7, &[3, 1, 0]).0, code(Status::Denied));
    assert_eq!(
        word(&test.ask(0x14, 0xf, &[3]).1, 0),
        0,
        "and the guest is told so before"
    );
    assert_eq!(test.ask(0x13, 7, &[0, 1000]).0, OK);
    assert_eq!(test.ask(0x13, 7, &[0, 1500]).0, code(Status::Denied));
    assert_eq!(
        word(&test.ask(0x13, 4, &[0, 0]).1, 0),
        2,
        "it is not even offered"
    );
    assert_eq!(test.ask(0x16, 4, &[0, 1, 0]).0, code(Status::Denied));
    assert_eq!(test.ask_as(SECOND, 0x16, 4, &[0, 1, 0]).0, OK);
    assert_eq!(test.ask(0x12, 3, &[1, 0]).0, code(Status::Denied));
    assert_eq!(test.platform.agents[0].statistics.denied, 4);
    // Invisible: the second agent has no power domains, and so not the protocol.
    assert_eq!(
        test.ask_as(SECOND, 0x11, 0, &[]).0,
        code(Status::NotSupported)
    );
    assert_eq!(
        test.platform.policy.visible(AgentId::new(1), Kind::Power),
        0
    );
}

#[test]
fn a_trusted_agent_takes_rights_away_and_gives_them_back() {
    let mut test = PlatformUnderTest::with_policy();
    let denied = code(Status::Denied);
    assert_eq!(
        test.ask(0x10, 9, &[2, 0, 0]).0,
        code(Status::NotSupported),
        "not trusted"
    );
    assert_eq!(test.ask_as(SECOND, 0x10, 9, &[1, 0, 0]).0, OK);
    for (protocol, message) in [(0x11, 5), (0x14, 6)] {
        let number = if protocol == 0x11 { 2 } else { 3 };
        assert_eq!(
            test.ask(protocol, message, &[number]).0,
            denied,
            "{protocol:#x}"
        );
    }
    assert_eq!(test.ask_as(SECOND, 0x10, 9, &[1, 0, 1]).0, OK);
    assert_eq!(test.ask_as(SECOND, 0x10, 0xa, &[1, 0, 0x14, 0]).0, OK);
    assert_eq!(test.ask(0x11, 5, &[2]).0, OK);
    assert_eq!(test.ask(0x14, 6, &[3]).0, denied);
    // Reset of the agent's configuration: its votes, and with the flag its rights.
    assert_eq!(test.ask(0x13, 7, &[0, 1000]).0, OK);
    assert_eq!(test.ask_as(SECOND, 0x10, 0xb, &[1, 0]).0, OK);
    assert_eq!(word(&test.ask(0x13, 8, &[0]).1, 0), 500);
    assert_eq!(test.ask(0x14, 6, &[3]).0, denied);
    assert_eq!(test.ask_as(SECOND, 0x10, 0xb, &[1, 1]).0, OK);
    assert_eq!(test.ask(0x14, 6, &[3]).0, OK);
    assert_eq!(
        test.ask_as(SECOND, 0x10, 9, &[1, 9, 0]).0,
        code(Status::NotFound)
    );
    assert_eq!(
        test.ask_as(SECOND, 0x10, 9, &[0, 0, 0]).0,
        code(Status::NotFound)
    );
}

#[test]
fn what_the_host_wants_of_the_system_reaches_the_guest_that_listens() {
    use agl_virtio_scmi::platform::SystemState;
    let mut test = PlatformUnderTest::built_in();
    let agent = AgentId::new(0);
    assert!(
        !test
            .platform
            .ask_system(agent, SystemState::Shutdown, true, 5000)
    );
    assert_eq!(test.ask(0x12, 5, &[1]).0, OK);
    assert!(
        test.platform
            .ask_system(agent, SystemState::Shutdown, true, 5000)
    );
    assert_eq!(
        test.event(FIRST).unwrap(),
        words(&[3 << 8 | 0x12 << 10, 0, 1, 0, 5000])
    );
    assert_eq!(test.ask(0x12, 3, &[1, 4]).0, OK);
    let requests = test.platform.take_requests();
    assert_eq!(
        (requests[0].state, requests[0].graceful),
        (SystemState::Suspend, true)
    );
}

#[test]
fn a_guest_that_ends_its_own_system_does_not_end_its_neighbours() {
    let mut test = PlatformUnderTest::with_policy();
    test.platform.agents[0].system = agl_virtio_scmi::platform::SystemRight::Set;
    test.platform.agents[1].system = agl_virtio_scmi::platform::SystemRight::Set;
    for agent in [FIRST, SECOND] {
        assert_eq!(test.ask_as(agent, 0x12, 5, &[1]).0, OK);
    }
    assert_eq!(test.ask(0x12, 3, &[1, 0]).0, OK);
    assert_eq!(test.event(SECOND), None);
    assert_eq!(
        test.platform.take_requests().len(),
        1,
        "the host hears of it"
    );
    // The second is trusted.
    assert_eq!(test.ask_as(SECOND, 0x12, 3, &[1, 0]).0, OK);
    assert_eq!(
        test.event(FIRST).unwrap(),
        words(&[3 << 8 | 0x12 << 10, 2, 1, 0, 0])
    );
}

#[test]
fn between_two_levels_limits_hold_too() {
    let mut test = PlatformUnderTest::with_policy();
    let mut right = test
        .platform
        .policy
        .right(AgentId::new(0), Kind::Performance, 0);
    right.as_mut().unwrap().limits.max = 1200;
    let rights = vec![right.unwrap(); 2];
    test.platform
        .policy
        .grant(AgentId::new(0), Kind::Performance, rights);
    // Levels are 500, 1000 and 1500: the next one above is beyond the limit.
    assert_eq!(test.ask(0x13, 7, &[0, 1100]).0, OK);
    assert_eq!(word(&test.ask(0x13, 8, &[0]).1, 0), 1000);
    assert_eq!(test.ask(0x13, 7, &[0, 600]).0, OK);
    assert_eq!(word(&test.ask(0x13, 8, &[0]).1, 0), 1000);
}

#[test]
fn a_parent_is_no_way_around_the_limits_of_a_clock() {
    let mut test = PlatformUnderTest::built_in();
    let rights: Vec<_> = (0..5)
        .map(|clock| {
            let agent = AgentId::new(0);
            let mut right = test
                .platform
                .policy
                .right(agent, Kind::Clock, clock)
                .unwrap();
            // "audio" has the rate of pll1, 491.52 MHz, or of pll0, which can have 1.6 GHz.
            right.limits.max = if clock == 4 { 500_000_000 } else { i64::MAX };
            right
        })
        .collect();
    test.platform
        .policy
        .grant(AgentId::new(0), Kind::Clock, rights);
    assert_eq!(test.ask(0x14, 5, &[0, 1, 1_600_000_000, 0]).0, OK);
    assert_eq!(test.ask(0x14, 0xd, &[4, 1]).0, code(Status::Denied));
    assert_eq!(word(&test.ask(0x14, 0xe, &[4]).1, 0), 2);
    assert_eq!(test.ask(0x14, 5, &[0, 1, 400_000_000, 0]).0, OK);
    assert_eq!(test.ask(0x14, 0xd, &[4, 1]).0, OK);
}

#[test]
fn what_was_taken_away_is_not_told_by_notifications_either() {
    let mut test = PlatformUnderTest::with_policy();
    assert_eq!(test.ask(0x14, 9, &[3, 1]).0, OK);
    let rate = [0, 3, 40_000_000, 0];
    assert_eq!(test.ask_as(SECOND, 0x14, 5, &rate).0, OK);
    assert!(test.event(FIRST).is_some());
    assert_eq!(test.ask_as(SECOND, 0x10, 9, &[1, 0, 0]).0, OK);
    let rate = [0, 3, 65_000_000, 0];
    assert_eq!(test.ask_as(SECOND, 0x14, 5, &rate).0, OK);
    assert_eq!(test.event(FIRST), None);
}

#[test]
fn denials_without_end_leave_room_for_what_else_a_trusted_agent_hears() {
    let mut test = PlatformUnderTest::with_policy();
    assert_eq!(test.ask_as(SECOND, 0x10, 8, &[1]).0, OK);
    for _ in 0..1000 {
        test.platform.announce_denial(AgentId::new(0));
    }
    assert_eq!(
        test.event(SECOND).unwrap(),
        words(&[3 << 8 | 0x10 << 10, 1, 0])
    );
    assert_eq!(test.event(SECOND), None);
    assert_eq!(test.platform.agents[1].statistics.dropped, 0);
}

#[test]
fn an_agent_whose_configuration_is_reset_still_gets_what_it_waits_for() {
    let mut test = PlatformUnderTest::with_policy();
    // An asynchronous rate of pll0, an asynchronous reading, and a finished one.
    assert_eq!(test.ask(0x15, 6, &[4, 1]).0, OK);
    test.now += Duration::from_millis(10);
    test.platform.advance(test.now);
    assert_eq!(test.ask(0x14, 5, &[1, 1, 400_000_000, 0]).0, OK);
    assert_eq!(test.ask(0x15, 6, &[4, 1]).0, OK);
    assert_eq!(test.ask_as(SECOND, 0x10, 0xb, &[1, 0]).0, OK);
    let status = |event: Option<Vec<u8>>| word(&event.unwrap(), 1).cast_signed();
    assert_eq!(status(test.event(FIRST)), OK);
    for _ in 0..2 {
        assert_eq!(status(test.event(FIRST)), code(Status::GenericError));
    }
    assert_eq!(test.event(FIRST), None);
    test.now += Duration::from_secs(1);
    test.platform.advance(test.now);
    assert_eq!(test.event(FIRST), None, "nothing is done after all");
}

#[test]
fn an_invisible_slow_clock_or_sensor_is_not_told_of_by_the_protocol_s_attributes() {
    let mut test = PlatformUnderTest::built_in();
    let first = AgentId::new(0);
    for (kind, protocol) in [(Kind::Clock, 0x14), (Kind::Sensor, 0x15)] {
        assert_eq!(word(&test.ask(protocol, 1, &[]).1, 0) >> 16, 32);
        let rights = (0..test.platform.count(kind)).map(|index| {
            let mut right = test.platform.policy.right(first, kind, index).unwrap();
            // pll0 takes 200 µs, board-power 2 ms.
            let slow = test.platform.name(kind, index).unwrap();
            if ["pll0", "board-power"].contains(&slow) {
                right.access = Access::Invisible;
            }
            right
        });
        let rights = rights.collect();
        test.platform.policy.grant(first, kind, rights);
        assert_eq!(word(&test.ask(protocol, 1, &[]).1, 0) >> 16, 0, "{kind:?}");
    }
}

#[test]
fn every_subscription_is_worth_saving() {
    let mut test = PlatformUnderTest::built_in();
    let all: &[(u8, u8, &[u32])] = &[
        (0x10, 8, &[1]),
        (0x11, 6, &[2, 1]),
        (0x12, 5, &[1]),
        (0x13, 9, &[0, 1]),
        (0x13, 0xa, &[0, 1]),
        (0x14, 9, &[0, 1]),
        (0x14, 0xa, &[0, 1]),
        (0x15, 4, &[0, 1]),
        (0x15, 0xb, &[0, 1]),
        (0x16, 5, &[0, 1]),
        (0x18, 0xa, &[0, 1]),
        (0x18, 0xb, &[0, 1, 1, 2]),
    ];
    for (protocol, message, words) in all {
        let before = test.platform.changes();
        assert_eq!(test.ask(*protocol, *message, words).0, OK);
        assert_ne!(
            test.platform.changes(),
            before,
            "{protocol:#x} {message:#x}: a death of the service would end it"
        );
    }
}

#[test]
fn what_was_taken_away_stays_away_when_the_service_dies() {
    let saved = |test: &mut PlatformUnderTest| {
        let mut bytes = Vec::new();
        test.platform.save(&mut bytes);
        bytes
    };
    let mut test = PlatformUnderTest::with_policy();
    let before = test.platform.changes();
    // The trusted agent takes a group away, and somebody on D-Bus the right to set a clock.
    assert_eq!(test.ask_as(SECOND, 0x10, 9, &[1, 0, 0]).0, OK);
    assert_ne!(test.platform.changes(), before, "it is saved");
    let (first, read) = (AgentId::new(0), Access::Read);
    test.platform
        .set_access(first, Kind::Clock, 1, read)
        .unwrap();
    let bytes = saved(&mut test);

    let mut heir = PlatformUnderTest::with_policy();
    assert!(heir.platform.restore(&bytes, Duration::ZERO));
    assert_eq!(heir.ask(0x11, 5, &[2]).0, code(Status::Denied));
    assert_eq!(heir.ask(0x14, 7, &[1, 1, 0]).0, code(Status::Denied));
    assert_eq!(saved(&mut heir), bytes, "and it goes on so");

    // Another configuration's access holds; what a trusted agent took away it does not give back.
    let mut other = PlatformUnderTest::with_less_policy();
    assert!(other.platform.restore(&bytes, Duration::ZERO));
    assert_eq!(other.ask(0x11, 5, &[2]).0, code(Status::Denied));
    assert_eq!(other.ask(0x14, 7, &[1, 1, 0]).0, OK);
}

#[test]
fn what_is_not_advertised_as_asynchronous_is_not_taken_so() {
    let mut test = PlatformUnderTest::built_in();
    // vdd-io settles at once, vdd-core does not; the cap of "soc" holds at once.
    let refused = code(Status::NotSupported);
    assert_eq!(test.ask(0x17, 7, &[0, 1, 3_300_000]).0, refused);
    assert_eq!(test.ask(0x17, 7, &[1, 1, 712_500]).0, OK);
    assert_eq!(test.ask(0x18, 5, &[0, 2, 5_000_000]).0, refused);
}

#[test]
fn a_request_of_the_host_that_finds_no_room_is_not_said_to_be_heard() {
    use agl_virtio_scmi::platform::SystemState;
    let mut test = PlatformUnderTest::built_in();
    assert_eq!(test.ask(0x12, 5, &[1]).0, OK);
    let mut ask = || {
        test.platform
            .ask_system(AgentId::new(0), SystemState::Shutdown, true, 0)
    };
    assert!((0..256).all(|_| ask()));
    assert!(!ask());
}

#[test]
fn what_is_saved_goes_on_as_before() {
    let mut test = PlatformUnderTest::two_agents();
    // A sensor reports at its pace, not each time that something is saved.
    assert_eq!(test.ask_as(SECOND, 0x15, 0xb, &[0, 1]).0, OK);
    let next = test.platform.next_deadline();
    assert!(next.is_some());
    test.platform.save(&mut Vec::new());
    assert_eq!(test.platform.next_deadline(), next);
}

#[test]
fn what_agents_want_outlives_the_platform() {
    let mut test = PlatformUnderTest::two_agents();
    for (protocol, message, words) in [
        (0x14, 7, &[3, 1, 0][..]),
        (0x14, 5, &[0, 2, 541_900_800, 0]),
        (0x14, 0xd, &[4, 1]),
        (0x13, 7, &[0, 1500]),
        (0x13, 5, &[0, 1000, 500]),
        (0x11, 4, &[0, 2, 0]),
        (0x15, 5, &[0, 3, 80_000, 0]),
        (0x15, 4, &[0, 1]),
        (0x15, 0xb, &[0, 1]),
        (0x16, 4, &[0, 2, 0]),
        (0x17, 7, &[0, 0, 3_300_000]),
        (0x18, 5, &[0, 0, 5_000_000]),
        (0x18, 7, &[0, 0, 500_000]),
        (0x18, 0xb, &[0, 1, 1, 2]),
        (0x19, 7, &[0, 1]),
        (0x19, 6, &[0, 2, 1 << 10 | 1 << 2 | 1, 10, 8]),
        (0x12, 5, &[1]),
    ] {
        assert_eq!(
            test.ask_as(SECOND, protocol, message, words).0,
            OK,
            "{protocol:#x}"
        );
    }
    // One asynchronous command under way, and one response that nobody fetched.
    assert_eq!(test.ask_as(SECOND, 0x15, 6, &[4, 1]).0, OK);
    test.platform.advance(Duration::from_millis(3));
    assert_eq!(test.ask_as(SECOND, 0x17, 7, &[1, 1, 900_000]).0, OK);
    let mut saved = Vec::new();
    test.platform.save(&mut saved);
    let mut again = PlatformUnderTest::two_agents();
    assert!(again.platform.restore(&saved, Duration::ZERO));
    let mut saved_again = Vec::new();
    again.platform.save(&mut saved_again);
    assert_eq!(saved, saved_again);
    assert_eq!(word(&again.ask(0x13, 8, &[0]).1, 0), 1000);
    assert_eq!(word(&again.ask(0x14, 0xb, &[3, 0]).1, 1), 1);
    assert_eq!(
        again.event(SECOND),
        test.event(SECOND),
        "the response is not lost"
    );
    assert_eq!(again.platform.next_deadline(), Some(Duration::ZERO));
    again.platform.advance(Duration::from_millis(1));
    let done = again.event(SECOND).unwrap();
    assert_eq!(
        done[4..],
        words(&[0, 1, 900_000]),
        "the command came to its end"
    );
    assert!(
        again.platform.next_deadline().is_some(),
        "reports and trip points go on"
    );
    // Any prefix, and what another configuration saved, is refused and leaves nothing.
    for len in 0..saved.len() {
        let mut broken = PlatformUnderTest::two_agents();
        assert!(
            !broken.platform.restore(&saved[..len], Duration::ZERO),
            "{len}"
        );
        assert_eq!(word(&broken.ask(0x13, 8, &[0]).1, 0), 500);
    }
    assert!(
        !PlatformUnderTest::built_in()
            .platform
            .restore(&saved, Duration::ZERO)
    );
}

#[test]
fn random_bytes_are_always_answered_and_never_panic() {
    let mut test = PlatformUnderTest::two_agents();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..400_000_u32 {
        let choice = next();
        let protocol = 0x10 + (choice % 10) as u32;
        let message = (choice >> 8) % 0x12;
        let words = (choice >> 16) % 6;
        let mut bytes = Vec::new();
        for _ in 0..words {
            let wild = next();
            // Mostly plausible numbers, sometimes anything.
            let word = if wild % 8 == 0 {
                (wild >> 8) as u32
            } else {
                ((wild >> 8) % 8) as u32
            };
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        if choice >> 60 == 0 {
            bytes.truncate((next() % 24) as usize);
        }
        let header = message as u32 | protocol << 10 | (round & 0x3ff) << 18;
        let agent = if choice & 1 << 40 == 0 { FIRST } else { SECOND };
        let room = if choice & 1 << 41 == 0 {
            136
        } else {
            8 + (next() % 140) as usize
        };
        let (len, status) = test.raw_with_room(agent, header, &bytes, room);
        assert!(len >= 8 && len <= room, "{header:#x} {bytes:?}");
        assert!((-11..=0).contains(&status));
        assert!(status == 0 || len == 8, "a refusal is header and status");
        if round % 64 == 0 {
            test.now += Duration::from_millis(next() % 100);
            test.platform.advance(test.now);
            while test.event(FIRST).is_some() || test.event(SECOND).is_some() {}
        }
    }
}
