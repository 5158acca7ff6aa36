// SPDX-License-Identifier: Apache-2.0

//! Pins and power caps: what agents make of them, and what they hear.

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

use agl_virtio_scmi::platform::AgentId;
use agl_virtio_scmi::wire::Status;
use platform_under_test::{FIRST, PlatformUnderTest, SECOND, text, word};

const OK: i32 = 0;
const IN_USE: i32 = -11;
const PINCTRL: u8 = 0x19;
const POWERCAP: u8 = 0x18;
// Selectors.
const PIN: u32 = 0;
const GROUP: u32 = 1;
const FUNCTION: u32 = 2;
// Groups and functions of the built-in platform.
const I2C0: u32 = 0;
const BANK: u32 = 2;
const I2C: u32 = 0;
const GPIO: u32 = 2;

fn code(status: Status) -> i32 {
    status.code()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Settings of a pin or group, as pairs.
fn settings(test: &mut PlatformUnderTest, number: u32, selector: u32) -> Vec<(u32, u32)> {
    let (status, reply) = test.ask(PINCTRL, 5, &[number, 1 << 18 | selector << 16]);
    assert_eq!(status, OK);
    let count = word(&reply, 1) & 0xff;
    assert_eq!(word(&reply, 1) >> 24, 0, "nothing remains");
    let pair = |place: u32| {
        let at = 2 + place as usize * 2;
        (word(&reply, at), word(&reply, at + 1))
    };
    (0..count).map(pair).collect()
}

#[test]
fn pins_groups_and_functions_are_counted_named_and_listed() {
    let mut test = PlatformUnderTest::built_in();
    assert_eq!(test.ask(PINCTRL, 1, &[]).1, words(&[3 << 16 | 4, 3]));
    let (_, pin) = test.ask(PINCTRL, 3, &[1, PIN]);
    assert_eq!((word(&pin, 0), text(&pin[4..])), (0, "gp1".to_owned()));
    let (_, group) = test.ask(PINCTRL, 3, &[BANK, GROUP]);
    assert_eq!(word(&group, 0), 1 << 31 | 4, "a long name and four pins");
    let (_, name) = test.ask(PINCTRL, 9, &[BANK, GROUP]);
    assert_eq!(text(&name[4..]), "gpio-all-of-bank-0");
    let (_, function) = test.ask(PINCTRL, 3, &[GPIO, FUNCTION]);
    assert_eq!(
        (word(&function, 0), text(&function[4..])),
        (3, "gpio".to_owned())
    );
    let (_, pins) = test.ask(PINCTRL, 4, &[BANK, GROUP, 0]);
    assert_eq!(pins, [words(&[4]), vec![0, 0, 1, 0, 2, 0, 3, 0]].concat());
    // Two numbers fit: the others are asked for next.
    let (status, first) = test.ask_with_room(PINCTRL, 4, &[BANK, GROUP, 0], 8 + 4 + 4);
    assert_eq!((status, word(&first, 0)), (OK, 2 << 16 | 2));
    let (_, rest) = test.ask(PINCTRL, 4, &[BANK, GROUP, 2]);
    assert_eq!(rest, [words(&[2]), vec![2, 0, 3, 0]].concat());
}

#[test]
fn a_group_serves_a_function_and_its_pins_are_set_alike() {
    let mut test = PlatformUnderTest::built_in();
    let none = test.ask(PINCTRL, 5, &[I2C0, 2 << 18 | GROUP << 16]).1;
    assert_eq!(none, words(&[u32::MAX, 0]));
    // The function, a pull-up and a drive strength of 8 mA in one command.
    let all = [I2C0, I2C, 1 << 10 | 2 << 2 | GROUP, 4, 1, 10, 8];
    assert_eq!(test.ask(PINCTRL, 6, &all).0, OK);
    let selected = test.ask(PINCTRL, 5, &[1, 2 << 18]).1;
    assert_eq!(selected, words(&[I2C, 0]), "also the second of its pins");
    let expected = vec![(2, 0), (4, 1), (6, 0), (10, 8)];
    assert_eq!(
        settings(&mut test, I2C0, GROUP),
        expected,
        "pulled up, nothing else"
    );
    // One pin differs now: the group tells what all of its pins have.
    assert_eq!(test.ask(PINCTRL, 6, &[1, 0, 1 << 2, 10, 2]).0, OK);
    assert_eq!(settings(&mut test, I2C0, GROUP), [(2, 0), (4, 1), (6, 0)]);
    let one = test.ask(PINCTRL, 5, &[1, 10]).1;
    assert_eq!(one, words(&[I2C, 1, 10, 2]));
    let unknown = test.ask(PINCTRL, 5, &[1, 20]).0;
    assert_eq!(unknown, code(Status::NotSupported), "it has no slew rate");
    // A group that cannot serve the function, and a setting that only some pins have.
    let wrong = test.ask(PINCTRL, 6, &[BANK, I2C, 1 << 10 | GROUP]).0;
    assert_eq!(wrong, code(Status::InvalidParameters));
    let some = test.ask(PINCTRL, 6, &[BANK, 0, 1 << 2 | GROUP, 20, 1]).0;
    assert_eq!(some, code(Status::NotSupported));
    assert_eq!(
        test.ask(PINCTRL, 6, &[I2C0, 0, 2 << 2 | GROUP, 4, 1]).0,
        code(Status::ProtocolError)
    );
}

#[test]
fn a_pin_belongs_to_who_asked_for_it_until_that_one_gives_it_back_or_dies() {
    let mut test = PlatformUnderTest::two_agents();
    assert_eq!(test.ask(PINCTRL, 7, &[0, PIN]).0, OK);
    assert_eq!(test.ask(PINCTRL, 6, &[0, 0, 1 << 2, 10, 8]).0, OK);
    let others: [(u8, &[u32]); 4] = [
        (7, &[0, PIN]),
        (7, &[I2C0, GROUP]),
        (6, &[0, 0, 1 << 2, 10, 2]),
        (6, &[BANK, GPIO, 1 << 10 | GROUP]),
    ];
    for (message, words) in others {
        assert_eq!(
            test.ask_as(SECOND, PINCTRL, message, words).0,
            IN_USE,
            "{words:?}"
        );
    }
    let not_its = test.ask_as(SECOND, PINCTRL, 8, &[0, PIN]).0;
    assert_eq!(not_its, code(Status::Denied));
    // Given back, it keeps what it was set to, and the other may have it.
    assert_eq!(test.ask(PINCTRL, 8, &[0, PIN]).0, OK);
    assert!(settings(&mut test, 0, PIN).contains(&(10, 8)));
    assert_eq!(test.ask_as(SECOND, PINCTRL, 7, &[I2C0, GROUP]).0, OK);
    assert_eq!(
        test.ask_as(SECOND, PINCTRL, 6, &[I2C0, I2C, 1 << 10 | GROUP])
            .0,
        OK
    );
    assert_eq!(test.ask(PINCTRL, 6, &[0, 0, 1 << 2, 10, 2]).0, IN_USE);
    test.platform.release(AgentId::new(SECOND), Duration::ZERO);
    assert_eq!(test.ask(PINCTRL, 5, &[0, 2 << 18]).1, words(&[u32::MAX, 0]));
    assert!(
        settings(&mut test, 0, PIN).contains(&(10, 4)),
        "as before anybody set it"
    );
    assert_eq!(test.ask(PINCTRL, 6, &[0, 0, 1 << 2, 10, 2]).0, OK);
}

#[test]
fn a_pin_that_nobody_asked_for_belongs_to_who_set_it_up() {
    let mut test = PlatformUnderTest::two_agents();
    assert_eq!(test.ask(PINCTRL, 6, &[3, 0, 1 << 2, 20, 1]).0, OK);
    assert_eq!(
        test.ask_as(SECOND, PINCTRL, 6, &[3, 0, 1 << 2, 20, 2]).0,
        IN_USE
    );
    assert_eq!(test.ask_as(SECOND, PINCTRL, 7, &[3, PIN]).0, IN_USE);
    test.platform.release(AgentId::new(FIRST), Duration::ZERO);
    assert_eq!(test.ask_as(SECOND, PINCTRL, 7, &[3, PIN]).0, OK);
}

#[test]
fn the_shortest_time_that_anybody_asked_for_is_averaged_over() {
    let mut test = PlatformUnderTest::two_agents();
    assert_eq!(test.ask_as(SECOND, POWERCAP, 0xa, &[0, 1]).0, OK);
    assert_eq!(test.ask(POWERCAP, 7, &[0, 0, 400_000]).0, OK);
    let event = test.event(SECOND).unwrap();
    assert_eq!(event[4..], words(&[1, 0, 15_000_000, 400_000]));
    assert_eq!(test.ask_as(SECOND, POWERCAP, 7, &[0, 0, 200_000]).0, OK);
    assert_eq!(test.ask(POWERCAP, 6, &[0]).1, words(&[200_000]));
    assert_eq!(
        test.ask(POWERCAP, 7, &[0, 0, 2_000_000]).0,
        code(Status::OutOfRange)
    );
    let (_, description) = test.ask(POWERCAP, 3, &[0]);
    assert_eq!(word(&description, 0) >> 25 & 1, 1, "it can be set");
    assert_eq!(description[20..32], words(&[100_000, 1_000_000, 100_000]));
    test.platform.release(AgentId::new(SECOND), Duration::ZERO);
    assert_eq!(test.ask(POWERCAP, 6, &[0]).1, words(&[400_000]));
}

#[test]
fn a_cap_that_is_switched_off_ends_unless_another_agent_wants_one() {
    let mut test = PlatformUnderTest::two_agents();
    assert_eq!(test.ask(POWERCAP, 4, &[0]).1, words(&[15_000_000]));
    assert_eq!(test.ask(POWERCAP, 5, &[0, 0, 0]).0, OK);
    assert_eq!(test.ask(POWERCAP, 4, &[0]).1, words(&[0]));
    assert_eq!(test.ask_as(SECOND, POWERCAP, 5, &[0, 0, 5_000_000]).0, OK);
    assert_eq!(test.ask(POWERCAP, 4, &[0]).1, words(&[5_000_000]));
    let highest = |test: &mut PlatformUnderTest| {
        let seconds = (0..10).map(|second| {
            test.now = Duration::from_secs(second);
            word(&test.ask(POWERCAP, 9, &[0]).1, 0)
        });
        seconds.max().unwrap()
    };
    assert_eq!(highest(&mut test), 5_000_000);
    test.platform.release(AgentId::new(SECOND), Duration::ZERO);
    assert!(highest(&mut test) > 9_000_000, "no cap any more");
}

#[test]
fn power_that_leaves_a_range_is_told_once_each_time() {
    let mut test = PlatformUnderTest::two_agents();
    // A triangle between 4 and 10 W in 10 s, averaged over 100 ms.
    assert_eq!(test.ask(POWERCAP, 0xb, &[0, 1, 5_000_000, 9_000_000]).0, OK);
    let mut told = Vec::new();
    let end = Duration::from_secs(20);
    while let Some(at) = test.platform.next_deadline().filter(|at| *at <= end) {
        test.now = at;
        test.platform.advance(at);
        while let Some(event) = test.event(FIRST) {
            assert_eq!(event[..4], words(&[0x18 << 10 | 3 << 8 | 1]));
            assert_eq!(event[4..12], words(&[0, 0]), "the platform's own doing");
            told.push(word(&event, 3) > 7_000_000);
        }
    }
    let alternating = told.windows(2).all(|pair| pair[0] != pair[1]);
    assert!(alternating && told.len() == 4, "two periods: {told:?}");
    assert_eq!(test.event(SECOND), None);
    assert_eq!(test.ask(POWERCAP, 0xb, &[0, 0, 0, 0]).0, OK);
    test.platform.advance(end);
    assert_eq!(test.platform.next_deadline(), None, "nobody watches");
}
