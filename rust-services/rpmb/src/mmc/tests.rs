// SPDX-License-Identifier: Apache-2.0

//! A card of the tests: an engine behind the rules of an eMMC's commands.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::io;
use std::sync::{Arc, Mutex};

use zerocopy::IntoBytes;

use super::neighbours::reaches_into;
use super::passthrough::Passthrough;
use super::region::Region;
use super::{Card, result_read};
use crate::engine::{Engine, Limits, Request, Responder};
use crate::key::Key;
use crate::statistics::Statistics;
use crate::store::{Medium, Shape, Store, StoreError, open_file, size_of_store};
use crate::wire::{BLOCK_SIZE, FRAME_SIZE, Frame, RequestType};

const HOST_KEY: [u8; 32] = [0x48; 32];
const GUEST_KEY: [u8; 32] = [0x47; 32];
const SHAPE: Shape = Shape {
    capacity_units: 1,
    most_written: 4,
};

/// A card of 512 KiB. Clones are the same one.
#[derive(Clone)]
struct TestCard {
    engine: Arc<Mutex<Engine>>,
    /// After so many writes the power is cut.
    power: Arc<Mutex<Option<u32>>>,
    _folder: Arc<tempfile::TempDir>,
}

impl TestCard {
    fn blank() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape {
            capacity_units: 4,
            most_written: 1,
        };
        let store = open_file(&folder.path().join("card"), &shape).unwrap();
        let limits = Limits {
            capacity_units: 4,
            most_written: 1,
            most_read: 0,
        };
        Self {
            engine: Arc::new(Mutex::new(Engine::new(store, limits, Arc::default()))),
            power: Arc::default(),
            _folder: Arc::new(folder),
        }
    }

    fn of_the_host() -> Self {
        let mut card = Self::blank();
        let mut frame = Frame::of(RequestType::ProgramKey.code());
        frame.key_mac = HOST_KEY;
        let mut answer = [Frame::default()];
        card.exchange(&[frame], Some(&result_read()), &mut answer)
            .unwrap();
        assert_eq!(answer[0].result.get(), 0);
        card
    }

    fn region(&self, first_block: u16) -> Region {
        let blocks = size_of_store(&SHAPE, BLOCK_SIZE as u64) / BLOCK_SIZE as u64;
        let key = Key::new(HOST_KEY);
        Region::new(Box::new(self.clone()), key, first_block, blocks as u16)
    }

    fn open(&self, first_block: u16) -> Result<Store, StoreError> {
        let cover = Key::new(HOST_KEY).derive(&first_block.to_be_bytes());
        Store::open(Box::new(self.region(first_block)), &SHAPE, Some(cover))
    }
}

impl Card for TestCard {
    fn exchange(
        &mut self,
        request: &[Frame],
        result_read: Option<&Frame>,
        answer: &mut [Frame],
    ) -> io::Result<()> {
        if result_read.is_some() {
            let mut power = self.power.lock().unwrap();
            match power.as_mut() {
                Some(0) => return Err(io::Error::other("no power")),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        let mut frames = request.to_vec();
        // A card is told by its commands how many.
        if frames[0].block_count.get() == 0 {
            frames[0].block_count.set(answer.len() as u16);
        }
        frames.extend(result_read);
        let room = answer.len() * FRAME_SIZE;
        let request = Request::parse(frames.as_bytes(), room, 0).unwrap();
        let got = self.engine.lock().unwrap().answer(&request);
        answer[..got.len()].copy_from_slice(&got);
        Ok(())
    }

    fn lock(&mut self, _on: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn two_guests_have_a_region_each_and_the_key_of_neither_lies_bare_on_the_card() {
    let card = TestCard::of_the_host();
    let mut first = card.open(0).unwrap();
    let mut second = card.open(1000).unwrap();
    first.program(Key::new(GUEST_KEY)).unwrap();
    for number in 0..5_u8 {
        // They take turns: each finds the card's counter moved.
        first.write(7, &[number; 512], [number; 32]).unwrap();
        second
            .write(7, &[0xf0 | number; 256], [number; 32])
            .unwrap();
    }
    drop((first, second));
    let (mut first, mut second) = (card.open(0).unwrap(), card.open(1000).unwrap());
    assert_eq!((first.state().counter, second.state().counter), (5, 5));
    assert!(first.state().key.as_ref().unwrap().is(&GUEST_KEY));
    assert!(second.state().key.is_none());
    let mut data = [0; 512];
    first.read(7, &mut data).unwrap();
    assert_eq!(data, [4; 512]);
    second.read(7, &mut data).unwrap();
    assert_eq!((data[0], data[256]), (0xf4, 0));
    let mut all = vec![0; 2000 * BLOCK_SIZE];
    Region::new(Box::new(card.clone()), Key::new(HOST_KEY), 0, 2000)
        .read(0, &mut all)
        .unwrap();
    assert!(!all.windows(32).any(|window| window == GUEST_KEY));
}

#[test]
fn a_power_cut_at_any_write_to_the_card_leaves_all_of_a_change_or_nothing() {
    let card = TestCard::of_the_host();
    let mut store = card.open(0).unwrap();
    store.program(Key::new(GUEST_KEY)).unwrap();
    drop(store);
    let mut before = 0_u32;
    for writes in 0..16 {
        let mut store = card.open(0).unwrap();
        assert_eq!(store.state().counter, before);
        let fill = before as u8 + 1;
        *card.power.lock().unwrap() = Some(writes);
        let result = store.write(0, &[fill; 4 * BLOCK_SIZE], [fill; 32]);
        *card.power.lock().unwrap() = None;
        drop(store);
        let mut store = card.open(0).unwrap();
        let now = store.state().counter;
        assert!(now == before || now == before + 1, "{writes} writes");
        assert!(result.is_err() || now == before + 1, "{writes} writes");
        let mut data = [0; 4 * BLOCK_SIZE];
        store.read(0, &mut data).unwrap();
        assert!(
            data.iter().all(|byte| *byte == now as u8),
            "{writes} writes"
        );
        before = now;
    }
    assert!(before >= 8, "{before}");
}

#[test]
fn no_store_is_made_over_another_one() {
    let card = TestCard::of_the_host();
    let mut store = card.open(100).unwrap();
    store.program(Key::new(GUEST_KEY)).unwrap();
    store.write(0, &[7; 256], [1; 32]).unwrap();
    drop(store);
    // At a block of zeros of its records, and before it.
    for wrong in [103, 90] {
        let refused = card.open(wrong);
        assert!(matches!(refused, Err(StoreError::Occupied(_))), "{wrong}");
    }
    // Where its guest has written nothing yet, and where it ends.
    let reaching = |first_block| {
        let card = Box::new(card.clone());
        reaches_into(card, Key::new(HOST_KEY), first_block).unwrap()
    };
    assert_eq!([130, 622, 623].map(reaching), [Some(100), Some(100), None]);
    let mut store = card.open(100).unwrap();
    assert!(store.state().key.as_ref().unwrap().is(&GUEST_KEY));
    let mut data = [0; 256];
    store.read(0, &mut data).unwrap();
    assert_eq!(data, [7; 256]);
}

#[test]
fn a_store_that_was_closed_in_peace_is_opened_without_a_write() {
    let card = TestCard::of_the_host();
    let mut store = card.open(0).unwrap();
    store.program(Key::new(GUEST_KEY)).unwrap();
    store.write(0, &[7; 1024], [1; 32]).unwrap();
    drop(store);
    *card.power.lock().unwrap() = Some(0);
    assert_eq!(card.open(0).unwrap().state().counter, 1);
}

#[test]
fn a_card_of_another_key_or_none_is_refused() {
    let blank = TestCard::blank();
    let error = blank.open(0).err().unwrap().to_string();
    assert!(error.contains("program the host's key first"), "{error}");
    let card = TestCard::of_the_host();
    drop(card.open(0).unwrap());
    let other = Region::new(Box::new(card.clone()), Key::new([1; 32]), 0, 600);
    let error = Store::open(Box::new(other), &SHAPE, None).err().unwrap();
    assert!(error.to_string().contains("not signed"), "{error}");
}

#[test]
fn a_region_ends_where_it_ends() {
    let card = TestCard::of_the_host();
    let mut region = Region::new(Box::new(card), Key::new(HOST_KEY), 8, 4);
    region.write(768, &[1; 256]).unwrap();
    for (at, len) in [(768, 512), (1024, 256), (100, 256), (0, 100)] {
        assert!(region.write(at, &vec![0; len]).is_err());
        assert!(region.read(at, &mut vec![0; len]).is_err());
    }
}

#[test]
fn a_card_of_the_guests_own_answers_itself() {
    let card = TestCard::blank();
    let limits = Limits {
        capacity_units: 4,
        most_written: 1,
        most_read: 0,
    };
    let statistics = Arc::new(Statistics::default());
    let mut device = Passthrough::new(Box::new(card.clone()), limits, Arc::clone(&statistics));
    let failed = || statistics.failed();
    let mut ask = |frames: &[Frame], room: usize| {
        let request = Request::parse(frames.as_bytes(), room * FRAME_SIZE, 0).unwrap();
        device.answer(&request)
    };
    let one = |kind: RequestType| {
        let mut frame = Frame::of(kind.code());
        frame.block_count.set(1);
        frame
    };
    let counter = [one(RequestType::GetWriteCounter)];
    assert_eq!(ask(&counter, 1)[0].result.get(), 7);
    let mut program = one(RequestType::ProgramKey);
    program.key_mac = GUEST_KEY;
    assert_eq!(ask(&[program, result_read()], 1)[0].result.get(), 0);
    let mut write = one(RequestType::DataWrite);
    write.data = [9; 256];
    write.key_mac = Key::new(GUEST_KEY).sign([&write]);
    assert_eq!(ask(&[write, result_read()], 1)[0].write_counter.get(), 1);
    let mut read = one(RequestType::DataRead);
    read.block_count.set(3);
    let answer = ask(&[read], 3);
    assert!(Key::new(GUEST_KEY).verifies(&answer));
    assert_eq!((answer[0].data[0], answer[1].data[0]), (9, 0));
    // What a virtio device refuses never reaches the card.
    let mut two = [one(RequestType::DataWrite), one(RequestType::DataWrite)];
    two.iter_mut().for_each(|frame| frame.block_count.set(2));
    assert_eq!(ask(&[two[0], two[1], result_read()], 1)[0].result.get(), 1);
    assert_eq!(ask(&[Frame::of(9)], 1)[0].result.get(), 1);
    // Nor what the host's kernel does not take: that the card is well is known.
    read.block_count.set(1025);
    assert_eq!(ask(&[read], 1025)[0].result.get(), 1);
    *card.power.lock().unwrap() = None;
    assert!(!failed(), "a guest says that the card fails");
    *card.power.lock().unwrap() = Some(0);
    assert_eq!(ask(&[write, result_read()], 1)[0].result.get(), 1);
    assert!(statistics.failed());
    assert_eq!(statistics.counter(), 1);
}
