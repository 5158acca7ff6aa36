// SPDX-License-Identifier: Apache-2.0
//! Every attack of the catalogue contains the defect that it is named after, and those that are
//! only odd are valid: a device on the stock worker answers them.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "an integration test"
)]

#[allow(dead_code, reason = "the faults are another test's")]
mod echo_device;

use std::collections::HashSet;

use echo_device::{EchoService, Fault};
use frontend::hostile::{Attack, Endured, Expectation, Request, endure};
use frontend::ring::{Descriptor, Ring, descriptor_flag};
use frontend::{Deadline, Guest, GuestOptions, Memory};

fn request() -> Request {
    Request {
        readable: (1..=16).collect(),
        writable: 24,
    }
}

/// What is wrong with a chain, seen by one who reads it as the specification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    Loop,
    NextBeyondTable,
    NotInMemory,
    TooLong,
    ReadableAfterWritable,
    NextBesideIndirect,
    TableInTable,
    TableEmpty,
    TableOdd,
    HeadBeyondTable,
    IndexImpossible,
    HeadStillOut,
}

/// Judge all that is available in the ring from index 0 on.
fn judge(ring: &Ring) -> Defect {
    let (memory, layout) = (ring.memory(), ring.layout());
    let idx = u16_at(memory, layout.avail_idx());
    if idx > ring.size() {
        return Defect::IndexImpossible;
    }
    let mut heads = HashSet::new();
    for at in 0..idx {
        let head = u16_at(memory, layout.avail_element(at));
        if head >= ring.size() {
            return Defect::HeadBeyondTable;
        }
        if !heads.insert(head) {
            return Defect::HeadStillOut;
        }
        let defect = judge_table(memory, layout.descriptors, ring.size().into(), head, false);
        if defect != Defect::None {
            return defect;
        }
    }
    Defect::None
}

fn judge_table(memory: &Memory, table: u64, size: u64, head: u16, nested: bool) -> Defect {
    let (mut at, mut seen, mut total, mut writing) = (u64::from(head), HashSet::new(), 0u64, false);
    loop {
        if at >= size {
            return Defect::NextBeyondTable;
        }
        if !seen.insert(at) {
            return Defect::Loop;
        }
        let Ok(bytes) = memory.bytes(table + 16 * at, 16) else {
            return Defect::NotInMemory;
        };
        let one = Descriptor {
            addr: u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            len: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
            flags: u16::from_le_bytes([bytes[12], bytes[13]]),
            next: u16::from_le_bytes([bytes[14], bytes[15]]),
        };
        let more = one.flags & descriptor_flag::NEXT != 0;
        if one.flags & descriptor_flag::INDIRECT != 0 {
            return match one {
                _ if nested => Defect::TableInTable,
                _ if more => Defect::NextBesideIndirect,
                Descriptor { len: 0, .. } => Defect::TableEmpty,
                Descriptor { len, .. } if len % 16 != 0 => Defect::TableOdd,
                Descriptor { addr, len, .. } if !there(memory, addr, len) => Defect::NotInMemory,
                Descriptor { addr, len, .. } => {
                    judge_table(memory, addr, u64::from(len) / 16, 0, true)
                }
            };
        }
        total += u64::from(one.len);
        if total > 1 << 32 {
            return Defect::TooLong;
        }
        if one.len > 0 && one.len < u32::MAX && !there(memory, one.addr, one.len) {
            return Defect::NotInMemory;
        }
        let write = one.flags & descriptor_flag::WRITE != 0;
        if writing && !write {
            return Defect::ReadableAfterWritable;
        }
        writing = write;
        if !more {
            return if total >= u64::from(u32::MAX) {
                Defect::TooLong
            } else {
                Defect::None
            };
        }
        at = one.next.into();
    }
}

fn there(memory: &Memory, addr: u64, len: u32) -> bool {
    memory.regions().iter().any(|region| {
        addr >= region.spec.guest_base
            && addr
                .checked_add(len.into())
                .is_some_and(|end| end <= region.guest_end())
    })
}

fn u16_at(memory: &Memory, addr: u64) -> u16 {
    u16::from_le_bytes(memory.bytes(addr, 2).unwrap().try_into().unwrap())
}

fn named_defect(attack: Attack) -> Defect {
    match attack {
        Attack::LoopToSelf | Attack::LoopOfTwo | Attack::IndirectLoop => Defect::Loop,
        Attack::NextOutOfRange | Attack::IndirectUnterminated => Defect::NextBeyondTable,
        Attack::LengthMaximum | Attack::LengthSumOverflow => Defect::TooLong,
        Attack::ReadableInGap
        | Attack::WritableInGap
        | Attack::ReadableStraddlesEnd
        | Attack::WritableStraddlesEnd
        | Attack::AddressZero
        | Attack::AddressWraps
        | Attack::IndirectInGap
        | Attack::IndirectStraddlesEnd
        | Attack::IndirectHuge => Defect::NotInMemory,
        Attack::WritableBeforeReadable => Defect::ReadableAfterWritable,
        Attack::IndirectWithNext => Defect::NextBesideIndirect,
        Attack::IndirectInIndirect => Defect::TableInTable,
        Attack::IndirectEmpty => Defect::TableEmpty,
        Attack::IndirectOddLength => Defect::TableOdd,
        Attack::HeadOutOfRange | Attack::HeadMaximum => Defect::HeadBeyondTable,
        Attack::AvailIndexJumps | Attack::AvailIndexGoesBack => Defect::IndexImpossible,
        Attack::SameHeadTwice => Defect::HeadStillOut,
        _ => Defect::None,
    }
}

#[test]
fn every_attack_contains_the_defect_that_it_is_named_after() {
    for &attack in Attack::ALL {
        let mut guest = Guest::new(&GuestOptions::new(1)).unwrap();
        attack.launch(guest.ring_mut(0), &request()).unwrap();
        assert_eq!(judge(guest.ring(0)), named_defect(attack), "{attack:?}");
        assert_eq!(guest.ring(0).kick_event().take().unwrap(), 1);
    }
}

#[test]
fn chains_that_are_only_odd_come_back_and_the_ring_goes_on() {
    let service = EchoService::start(Fault::None);
    let mut guest = Guest::connect(service.connect(), &GuestOptions::new(1)).unwrap();
    guest.start().unwrap();
    // What the stock queue takes for a valid chain; a table longer than the queue it does not.
    let odd = Attack::ALL.iter().filter(|&&attack| {
        named_defect(attack) == Defect::None && attack != Attack::IndirectLongerThanQueue
    });
    for &attack in odd {
        assert_eq!(attack.expectation(), Expectation::Returned);
        let endured = endure(&mut guest, 0, attack, &request(), Deadline::patient()).unwrap();
        assert!(matches!(endured, Endured::Returned(_)), "{attack:?}");
    }
    assert_eq!(guest.ring(0).outstanding(), 0);
}
