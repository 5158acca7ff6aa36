// SPDX-License-Identifier: Apache-2.0

//! Each answer of the standard, and the order of its checks.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use super::*;
use crate::store::{Medium, Shape};
use std::io;
use std::sync::Mutex;

const KEY: [u8; 32] = [0x42; 32];
const LIMITS: Limits = Limits {
    capacity_units: 1,
    most_written: 4,
    most_read: 8,
};

/// Memory that can be made to fail.
#[derive(Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    fails: Arc<Mutex<bool>>,
}

impl Memory {
    fn reach(&self) -> io::Result<std::sync::MutexGuard<'_, Vec<u8>>> {
        if *self.fails.lock().unwrap() {
            return Err(io::Error::other("the disk is gone"));
        }
        let mut bytes = self.bytes.lock().unwrap();
        bytes.resize(0x10_0000, 0);
        Ok(bytes)
    }
}

impl Medium for Memory {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        buffer.copy_from_slice(&self.reach()?[at..at + buffer.len()]);
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = at as usize;
        self.reach()?[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.reach().map(drop)
    }

    fn alignment(&self) -> u64 {
        256
    }
}

struct Bench {
    memory: Memory,
    engine: Engine,
}

fn open(memory: &Memory) -> Engine {
    let shape = Shape {
        capacity_units: 1,
        most_written: 4,
    };
    let store = Store::open(Box::new(memory.clone()), &shape, None).unwrap();
    Engine::new(store, LIMITS, Arc::default())
}

impl Bench {
    fn new() -> Self {
        let memory = Memory::default();
        let engine = open(&memory);
        Self { memory, engine }
    }

    fn with_key() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.ask_one(&[program(KEY), result_read()]).0, 0);
        bench
    }

    /// A device whose counter is nearly at its end. Nobody writes 4 billion times: the store's
    /// counter is set on the way.
    fn worn_out(counter: u32) -> Self {
        let mut bench = Self::with_key();
        bench.engine.store.set_counter(counter);
        bench
    }

    fn ask_with(&mut self, frames: &[Frame], room: usize, deaths: u8) -> Vec<Frame> {
        let request = Request::parse(frames.as_bytes(), room * FRAME_SIZE, deaths).unwrap();
        self.engine.answer(&request)
    }

    fn ask(&mut self, frames: &[Frame], room: usize) -> Vec<Frame> {
        self.ask_with(frames, room, 0)
    }

    /// The result and type of an answer of one frame, which is checked to be signed.
    fn ask_one(&mut self, frames: &[Frame]) -> (u16, u16, Frame) {
        let answer = self.ask(frames, 1);
        assert_eq!(answer.len(), 1);
        match self.engine.key() {
            Some(key) => assert!(key.verifies(&answer)),
            None => assert_eq!(answer[0].key_mac, [0; 32]),
        }
        (answer[0].result.get(), answer[0].req_resp.get(), answer[0])
    }

    fn write(&mut self, frames: Vec<Frame>) -> u16 {
        let mut frames = frames;
        frames.push(result_read());
        let (result, kind, answer) = self.ask_one(&frames);
        assert_eq!(kind, 0x300);
        assert_eq!(answer.address, frames[0].address);
        result
    }

    fn counter(&mut self) -> u32 {
        let mut ask = one(RequestType::GetWriteCounter);
        ask.nonce = [3; 16];
        let (result, kind, answer) = self.ask_one(&[ask]);
        assert_eq!((result & 0x7f, kind, answer.nonce), (0, 0x200, [3; 16]));
        answer.write_counter.get()
    }

    fn read(&mut self, address: u16, count: u16) -> Vec<Frame> {
        let mut ask = one(RequestType::DataRead);
        ask.nonce = [5; 16];
        ask.address.set(address);
        ask.block_count.set(count);
        self.ask(&[ask], usize::from(count))
    }
}

fn one(kind: RequestType) -> Frame {
    let mut frame = Frame::of(kind.code());
    frame.block_count.set(1);
    frame
}

fn result_read() -> Frame {
    one(RequestType::ResultRead)
}

fn program(key: [u8; 32]) -> Frame {
    let mut frame = one(RequestType::ProgramKey);
    frame.key_mac = key;
    frame
}

/// A signed write of blocks filled with these bytes.
fn write(key: [u8; 32], counter: u32, address: u16, fills: &[u8]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = fills
        .iter()
        .map(|fill| {
            let mut frame = Frame::of(RequestType::DataWrite.code());
            frame.data = [*fill; 256];
            frame.write_counter.set(counter);
            frame.address.set(address);
            frame.block_count.set(fills.len() as u16);
            frame
        })
        .collect();
    sign(key, &mut frames);
    frames
}

fn sign(key: [u8; 32], frames: &mut [Frame]) {
    let mac = Key::new(key).sign(&*frames);
    frames.last_mut().unwrap().key_mac = mac;
}

#[test]
fn without_a_key_nothing_is_done_and_the_result_says_why() {
    let mut bench = Bench::new();
    assert_eq!(bench.write(write(KEY, 0, 0, &[1])), 7);
    // Also where more is wrong: the key is looked for first.
    assert_eq!(bench.write(write(KEY, 9, 600, &[1; 6])), 7);
    assert_eq!(bench.ask_one(&[one(RequestType::GetWriteCounter)]).0, 7);
    let answer = bench.read(0, 2);
    assert_eq!(answer.len(), 2);
    assert!(
        answer
            .iter()
            .all(|frame| frame.result.get() == 7 && frame.req_resp.get() == 0x400)
    );
}

#[test]
fn a_key_is_programmed_once_and_for_ever() {
    let mut bench = Bench::new();
    let mut wrong = program([1; 32]);
    wrong.block_count.set(0);
    assert_eq!(bench.ask_one(&[wrong, result_read()]).0, 1);
    let two = [program([1; 32]), program([1; 32]), result_read()];
    assert_eq!(bench.ask_one(&two).0, 1);
    let (result, kind, answer) = bench.ask_one(&[program(KEY), result_read()]);
    assert_eq!((result, kind), (0, 0x100));
    assert!(Key::new(KEY).verifies(&[answer]), "signed with the new key");
    for again in [KEY, [1; 32]] {
        let (result, kind, answer) = bench.ask_one(&[program(again), result_read()]);
        assert_eq!((result, kind), (5, 0x100));
        assert!(Key::new(KEY).verifies(&[answer]));
    }
    bench.engine = open(&bench.memory);
    assert_eq!(bench.ask_one(&[program([1; 32]), result_read()]).0, 5);
}

#[test]
fn what_was_written_is_read_signed_as_a_whole() {
    let mut bench = Bench::with_key();
    let frames = write(KEY, 0, 510, &[0xa1, 0xa2]);
    let asked = [frames, vec![result_read()]].concat();
    let (result, _, answer) = bench.ask_one(&asked);
    assert_eq!(
        (result, answer.write_counter.get()),
        (0, 1),
        "the incremented counter"
    );
    assert_eq!((answer.address.get(), answer.block_count.get()), (510, 0));
    let frames = bench.read(509, 3);
    assert_eq!(frames.len(), 3);
    assert!(Key::new(KEY).verifies(&frames));
    let fills: Vec<u8> = frames.iter().map(|frame| frame.data[17]).collect();
    assert_eq!(fills, [0, 0xa1, 0xa2]);
    for frame in &frames {
        assert_eq!((frame.req_resp.get(), frame.result.get()), (0x400, 0));
        assert_eq!((frame.address.get(), frame.block_count.get()), (509, 3));
        assert_eq!(frame.nonce, [5; 16]);
    }
    assert_eq!(frames[0].key_mac, [0; 32], "the last frame has the MAC");
    bench.engine = open(&bench.memory);
    assert_eq!(bench.counter(), 1);
    assert_eq!(bench.read(510, 1)[0].data, [0xa1; 256]);
}

#[test]
fn the_checks_of_a_write_come_in_the_order_of_the_standard() {
    let mut bench = Bench::with_key();
    let other = [0x43; 32];
    // Each has what is checked later wrong as well.
    assert_eq!(
        bench.write(write(other, 9, 600, &[1; 5])),
        1,
        "too many blocks"
    );
    assert_eq!(
        bench.write(write(other, 9, 511, &[1, 2])),
        4,
        "beyond the end"
    );
    assert_eq!(bench.write(write(other, 9, 65535, &[1])), 4);
    assert_eq!(
        bench.write(write(other, 9, 0, &[1])),
        2,
        "another key's MAC"
    );
    assert_eq!(bench.write(write(KEY, 9, 0, &[1])), 3, "another counter");
    let mut none = write(KEY, 0, 0, &[1]);
    none[0].block_count.set(0);
    sign(KEY, &mut none);
    assert_eq!(bench.write(none), 1);
    let mut fewer = write(KEY, 0, 0, &[1, 2, 3]);
    fewer.remove(0);
    sign(KEY, &mut fewer);
    assert_eq!(bench.write(fewer), 1, "fewer frames than blocks");
    let mut mixed = write(KEY, 0, 0, &[1, 2]);
    mixed[1].address.set(7);
    sign(KEY, &mut mixed);
    assert_eq!(bench.write(mixed), 1, "frames that are not of one request");
    assert_eq!(bench.counter(), 0, "nothing was written");
    assert_eq!(bench.read(0, 8).last().unwrap().data, [0; 256]);
    assert_eq!(bench.write(write(KEY, 0, 511, &[1])), 0, "the last block");
}

#[test]
fn a_replay_and_any_changed_bit_are_refused() {
    let mut bench = Bench::with_key();
    let first = write(KEY, 0, 3, &[1]);
    assert_eq!(bench.write(first.clone()), 0);
    assert_eq!(bench.write(first.clone()), 3, "a replay");
    let second = write(KEY, 1, 3, &[2]);
    for bit in (196 * 8)..(FRAME_SIZE * 8) {
        let mut bytes = second[0].as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let forged = Frame::read_from_bytes(&bytes).unwrap();
        if forged.req_resp != second[0].req_resp {
            continue;
        }
        let answer = bench.ask(&[forged, result_read()], 1);
        assert_ne!(answer[0].result.get(), 0, "bit {bit}");
    }
    assert_eq!(bench.read(3, 1)[0].data, [1; 256]);
    assert_eq!(bench.write(second), 0);
    assert_eq!(bench.write(first), 3, "still a replay");
}

#[test]
fn the_counter_ends_at_its_maximum_and_every_result_says_so() {
    let mut bench = Bench::worn_out(u32::MAX - 1);
    assert_eq!(bench.counter(), u32::MAX - 1);
    assert_eq!(
        bench.write(write(KEY, u32::MAX - 1, 0, &[1])),
        0x80,
        "the last that succeeds"
    );
    assert_eq!(bench.counter(), u32::MAX);
    for counter in [u32::MAX, 0, u32::MAX - 1] {
        assert_eq!(bench.write(write(KEY, counter, 0, &[2])), 0x85);
    }
    // The counter is looked at before the address, and after the block count.
    assert_eq!(bench.write(write(KEY, u32::MAX, 600, &[2])), 0x85);
    assert_eq!(bench.write(write(KEY, u32::MAX, 0, &[2; 5])), 0x81);
    let read = bench.read(0, 1);
    assert_eq!((read[0].result.get(), read[0].data[0]), (0x80, 1));
    assert_eq!(bench.read(511, 2)[0].result.get(), 0x84);
    bench.engine = open(&bench.memory);
    assert_eq!(bench.counter(), u32::MAX);
}

#[test]
fn reads_are_checked_in_the_order_of_the_standard() {
    let mut bench = Bench::with_key();
    let results = |frames: Vec<Frame>| {
        frames
            .iter()
            .map(|frame| frame.result.get())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        results(bench.read(600, 9)),
        [1],
        "more than may be read at once"
    );
    assert_eq!(results(bench.read(511, 2)), [4, 4]);
    let mut none = one(RequestType::DataRead);
    none.block_count.set(0);
    assert_eq!(results(bench.ask(&[none], 3)), [1]);
    let mut four = one(RequestType::DataRead);
    four.block_count.set(4);
    assert_eq!(results(bench.ask(&[four], 2)), [1, 1], "no room for all");
    assert_eq!(results(bench.read(504, 8)), [0; 8]);
    let mut counter = one(RequestType::GetWriteCounter);
    counter.block_count.set(2);
    assert_eq!(bench.ask_one(&[counter]).0, 1);
}

#[test]
fn a_result_is_told_where_it_is_asked_for_and_as_often() {
    let mut bench = Bench::with_key();
    assert!(
        bench.ask(&write(KEY, 0, 5, &[1]), 0).is_empty(),
        "nobody asked"
    );
    for _ in 0..2 {
        let (result, kind, answer) = bench.ask_one(&[result_read()]);
        assert_eq!((result, kind, answer.write_counter.get()), (0, 0x300, 1));
        assert_eq!(answer.address.get(), 5);
    }
    let mut wrong = result_read();
    wrong.block_count.set(0);
    assert_eq!(bench.ask_one(&[wrong]).0, 1);
    assert_eq!(
        bench.ask_one(&[result_read()]).0,
        0,
        "the register is as it was"
    );
    assert_eq!(bench.write(write(KEY, 0, 6, &[1])), 3);
    bench.read(0, 1);
    let (result, kind, _) = bench.ask_one(&[result_read()]);
    assert_eq!(
        (result, kind),
        (3, 0x300),
        "a read has no result of its own"
    );
    let register = bench.engine.register();
    bench.engine = open(&bench.memory);
    assert_eq!(
        bench.ask_one(&[result_read()]).0,
        1,
        "nothing to tell of yet"
    );
    bench.engine.restore_register(&register);
    assert_eq!(bench.ask_one(&[result_read()]).0, 3);
}

#[test]
fn what_is_no_request_is_refused() {
    let mut bench = Bench::with_key();
    for code in [0, 6, 0x100, 0x300, 0xffff] {
        let (result, kind, _) = bench.ask_one(&[Frame::of(code)]);
        assert_eq!((result, kind), (1, (code & 0xff) << 8));
    }
    let asked = [one(RequestType::GetWriteCounter), result_read()];
    assert_eq!(
        bench.ask_one(&asked).0,
        1,
        "a read has no result of its own"
    );
    assert_eq!(
        bench
            .ask_one(&[result_read(), one(RequestType::DataRead)])
            .0,
        1
    );
    for len in [0, 1, 511, 513] {
        let bytes = vec![0; len];
        assert_eq!(
            Request::parse(&bytes, 512, 0).err(),
            Some(Malformed::NotFrames(len))
        );
    }
    let frame = one(RequestType::DataRead);
    assert_eq!(
        Request::parse(frame.as_bytes(), 511, 0).err(),
        Some(Malformed::NoRoom)
    );
    let write = [write(KEY, 0, 0, &[1])[0], result_read()];
    assert_eq!(
        Request::parse(write.as_bytes(), 0, 0).err(),
        Some(Malformed::NoRoom)
    );
}

#[test]
fn a_change_that_was_made_before_a_death_is_answered_and_not_made_twice() {
    let mut bench = Bench::new();
    let asked = [program(KEY), result_read()];
    assert_eq!(bench.ask(&asked, 1)[0].result.get(), 0);
    bench.engine = open(&bench.memory);
    for deaths in [1, 2] {
        assert_eq!(bench.ask_with(&asked, 1, deaths)[0].result.get(), 0);
    }
    assert_eq!(
        bench.ask_with(&[program([9; 32]), result_read()], 1, 1)[0]
            .result
            .get(),
        5
    );

    let asked = [write(KEY, 0, 1, &[1, 2]), vec![result_read()]].concat();
    assert_eq!(bench.ask(&asked, 1)[0].result.get(), 0);
    bench.engine = open(&bench.memory);
    for deaths in [1, 2] {
        let answer = bench.ask_with(&asked, 1, deaths);
        assert_eq!(
            (answer[0].result.get(), answer[0].write_counter.get()),
            (0, 1)
        );
    }
    // A chain that was not in flight gets no such favour, and neither does another write.
    assert_eq!(bench.ask_with(&asked, 1, 0)[0].result.get(), 3);
    let other = [write(KEY, 0, 1, &[9, 9]), vec![result_read()]].concat();
    assert_eq!(bench.ask_with(&other, 1, 1)[0].result.get(), 3);
    let next = [write(KEY, 1, 1, &[3]), vec![result_read()]].concat();
    assert_eq!(
        bench.ask_with(&next, 1, 2)[0].result.get(),
        1,
        "a suspect is not tried again"
    );
    assert_eq!(bench.ask_with(&next, 1, 1)[0].result.get(), 0);
    assert_eq!(bench.counter(), 2);
    assert_eq!(
        bench.ask_with(&asked, 1, 1)[0].result.get(),
        3,
        "it is not the last any more"
    );
}

#[test]
fn a_medium_that_fails_is_told_and_what_it_holds_is_found_out_later() {
    let mut bench = Bench::with_key();
    assert_eq!(bench.write(write(KEY, 0, 0, &[1])), 0);
    *bench.memory.fails.lock().unwrap() = true;
    assert_eq!(bench.write(write(KEY, 1, 0, &[2])), 5);
    assert_eq!(bench.write(write(KEY, 1, 0, &[2])), 5);
    assert_eq!(bench.read(0, 1)[0].result.get(), 6);
    assert!(bench.engine.statistics.failed());
    *bench.memory.fails.lock().unwrap() = false;
    assert_eq!(bench.read(0, 1)[0].data, [1; 256]);
    assert!(!bench.engine.statistics.failed());
    assert_eq!(bench.write(write(KEY, 1, 0, &[2])), 0);
    assert_eq!(bench.counter(), 2);
}

#[test]
fn what_is_told_outside_is_numbers() {
    let mut bench = Bench::with_key();
    bench.write(write(KEY, 0, 0, &[1, 1]));
    bench.write(write([1; 32], 1, 0, &[1]));
    bench.read(0, 4);
    let counters = bench.engine.statistics.counters();
    let value = |name: &str| counters.iter().find(|(other, _)| other == name).unwrap().1;
    assert_eq!(value("requests-data-write"), 2);
    assert_eq!(value("results-authentication-failure"), 1);
    assert_eq!(value("blocks-written"), 2);
    assert_eq!(value("blocks-read"), 4);
    assert!(bench.engine.statistics.key_programmed());
    assert_eq!(bench.engine.statistics.counter(), 1);
}
