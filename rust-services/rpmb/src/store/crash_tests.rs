// SPDX-License-Identifier: Apache-2.0

//! Power cuts at every operation on the medium.
//!
//! A medium of the tests records what a workload does to it. Every prefix of that is a power cut.
//! What was written before the last wait is there; each write after it may be there, be missing, or
//! be torn anywhere, whichever the others are. The store that is opened on each such medium must
//! hold what was promised, and all of a change or nothing of it. Opening it is cut in the same way.

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

use super::{Medium, Shape, Store, size_of_store};
use crate::key::Key;
use crate::wire::BLOCK_SIZE;

const SHAPE: Shape = Shape {
    capacity_units: 1,
    most_written: 3,
};
const ALIGNMENT: u64 = 512;

#[derive(Clone)]
enum Operation {
    Write { at: usize, bytes: Vec<u8> },
    Sync,
}

/// A medium in memory that remembers what was done to it.
struct Recorder {
    bytes: Vec<u8>,
    log: Arc<Mutex<Vec<Operation>>>,
}

impl Medium for Recorder {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        buffer.copy_from_slice(&self.bytes[at..at + buffer.len()]);
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = at as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        let bytes = bytes.to_vec();
        self.log
            .lock()
            .unwrap()
            .push(Operation::Write { at, bytes });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.lock().unwrap().push(Operation::Sync);
        Ok(())
    }

    fn alignment(&self) -> u64 {
        ALIGNMENT
    }
}

type Log = Arc<Mutex<Vec<Operation>>>;

fn open(bytes: Vec<u8>) -> (Result<Store, super::StoreError>, Log) {
    let log = Log::default();
    let medium = Recorder {
        bytes,
        log: Arc::clone(&log),
    };
    (Store::open(Box::new(medium), &SHAPE, None), log)
}

fn blank() -> Vec<u8> {
    vec![0; size_of_store(&SHAPE, ALIGNMENT) as usize]
}

/// What a store holds, as far as the workload touches it.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    sequence: u64,
    counter: u32,
    key: Option<[u8; 32]>,
    last_mac: [u8; 32],
    data: Vec<u8>,
}

fn content(store: &mut Store) -> Content {
    let mut data = vec![0; 16 * BLOCK_SIZE];
    store.read(0, &mut data).unwrap();
    let state = store.state().clone();
    Content {
        sequence: state.sequence,
        counter: state.counter,
        key: state.key.map(|key| *key.bytes()),
        last_mac: state.last_mac,
        data,
    }
}

/// How a write that nobody waited for came through.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Missing,
    Whole,
    /// Only so many bytes of its beginning.
    Beginning(usize),
    /// All but so many bytes of its beginning.
    End(usize),
}

fn fates(len: usize) -> Vec<Fate> {
    let mut fates = vec![Fate::Missing, Fate::Whole];
    // In the middle of each part: the record's fields, its checksum, each block.
    let tears = [12, 40, 100, 128, 256, 512, 600];
    for tear in tears.into_iter().filter(|tear| *tear < len) {
        fates.push(Fate::Beginning(tear));
        fates.push(Fate::End(tear));
    }
    fates
}

fn apply(bytes: &mut [u8], at: usize, written: &[u8], fate: Fate) {
    let (from, to) = match fate {
        Fate::Missing => (0, 0),
        Fate::Whole => (0, written.len()),
        Fate::Beginning(len) => (0, len),
        Fate::End(start) => (start, written.len()),
    };
    bytes[at + from..at + to].copy_from_slice(&written[from..to]);
}

/// Every medium that a power cut after `log` can leave on `base`.
fn after_cut(base: &[u8], log: &[Operation], mut visit: impl FnMut(Vec<u8>)) {
    let durable = log
        .iter()
        .rposition(|operation| matches!(operation, Operation::Sync))
        .map_or(0, |at| at + 1);
    let mut bytes = base.to_vec();
    for operation in &log[..durable] {
        if let Operation::Write { at, bytes: written } = operation {
            apply(&mut bytes, *at, written, Fate::Whole);
        }
    }
    let open: Vec<(usize, &[u8])> = log[durable..]
        .iter()
        .filter_map(|operation| match operation {
            Operation::Write { at, bytes } => Some((*at, &bytes[..])),
            Operation::Sync => None,
        })
        .collect();
    // All combinations of whole and missing, and each write torn beside all of those.
    let combinations = 1_u32 << open.len();
    assert!(open.len() < 6, "too many writes without a wait");
    for combination in 0..combinations {
        let fate = |place: usize| {
            if combination & 1 << place == 0 {
                Fate::Missing
            } else {
                Fate::Whole
            }
        };
        for torn in 0..open.len().max(1) {
            let choices = open
                .get(torn)
                .map_or(vec![Fate::Whole], |write| fates(write.1.len()));
            for choice in choices {
                let mut image = bytes.clone();
                for (place, (at, written)) in open.iter().enumerate() {
                    let fate = if place == torn { choice } else { fate(place) };
                    apply(&mut image, *at, written, fate);
                }
                visit(image);
            }
        }
    }
}

/// One step of a workload: what it does to the store.
type Step = Box<dyn Fn(&mut Store)>;

fn workload() -> Vec<Step> {
    let write = |address: u16, fills: &'static [u8]| -> Step {
        Box::new(move |store: &mut Store| {
            let data: Vec<u8> = fills.iter().flat_map(|fill| [*fill; BLOCK_SIZE]).collect();
            store.write(address, &data, [fills[0]; 32]).unwrap();
        })
    };
    vec![
        Box::new(|store: &mut Store| store.program(Key::new([0x4b; 32])).unwrap()),
        write(2, &[0x11]),
        write(2, &[0x21, 0x22, 0x23]),
        write(3, &[0x31, 0x32]),
        write(0, &[0x41, 0x42, 0x43]),
        write(2, &[0x51]),
    ]
}

/// A store, what it has done so far, and the contents between which it may be found.
struct Cut<'a> {
    base: &'a [u8],
    log: &'a [Operation],
    /// What was promised, and what the change under way would make of it.
    allowed: &'a [Content],
}

/// Of so many cuts, one is followed by all cuts of the opening itself.
const CUT_AGAIN: u64 = 61;

/// Opens a store after each cut, and after some again after cuts of the opening itself.
fn check(cut: &Cut<'_>, again: bool, count: &mut u64) {
    after_cut(cut.base, cut.log, |image| {
        let (store, log) = open(image.clone());
        let found = content(&mut store.unwrap());
        assert!(
            cut.allowed.contains(&found),
            "found counter {} of change {}, {:x?}",
            found.counter,
            found.sequence,
            found.data.iter().step_by(BLOCK_SIZE).collect::<Vec<_>>(),
        );
        *count += 1;
        if again && *count % CUT_AGAIN == 0 {
            let log = log.lock().unwrap().clone();
            for end in 0..=log.len() {
                // Recovery decides nothing anew: it finds the same in every state it leaves.
                let recovery = Cut {
                    base: &image,
                    log: &log[..end],
                    allowed: std::slice::from_ref(&found),
                };
                check(&recovery, false, count);
            }
        }
    });
}

#[test]
fn a_power_cut_at_any_operation_leaves_all_of_a_change_or_nothing() {
    let (store, log) = open(blank());
    let mut store = store.unwrap();
    let base = {
        let mut bytes = blank();
        for operation in log.lock().unwrap().drain(..) {
            if let Operation::Write { at, bytes: written } = operation {
                apply(&mut bytes, at, &written, Fate::Whole);
            }
        }
        bytes
    };
    let mut promised = content(&mut store);
    let mut count = 0;
    for step in workload() {
        let begin = log.lock().unwrap().len();
        step(&mut store);
        let next = content(&mut store);
        assert_eq!(next.sequence, promised.sequence + 1);
        let log = log.lock().unwrap().clone();
        for end in begin..=log.len() {
            // Once the change was said to be made, it must be there.
            let both = [promised.clone(), next.clone()];
            let cut = Cut {
                base: &base,
                log: &log[..end],
                allowed: if end == log.len() { &both[1..] } else { &both },
            };
            check(&cut, true, &mut count);
        }
        promised = next;
    }
    assert!(count > 10_000, "only {count} cuts");
    println!("{count} power cuts");
}

#[test]
fn a_power_cut_while_a_store_is_made_leaves_one_that_is_made_again() {
    let (store, log) = open(blank());
    let fresh = content(&mut store.unwrap());
    let log = log.lock().unwrap().clone();
    let mut whole = 0;
    for end in 0..=log.len() {
        after_cut(&blank(), &log[..end], |image| match open(image).0 {
            Ok(mut store) => {
                assert_eq!(content(&mut store), fresh);
                whole += 1;
            }
            // A torn block: in a file it has no name yet, on an eMMC blocks are not torn.
            Err(super::StoreError::Foreign | super::StoreError::Occupied(_)) => {
                assert!(end < log.len());
            }
            Err(error) => panic!("{error}"),
        });
    }
    assert!(whole > 5);
}

/// A medium that fails from some operation on, or once.
struct Failing {
    inner: Recorder,
    countdown: Arc<Mutex<Option<u32>>>,
    lasting: bool,
}

impl Failing {
    fn pass(&mut self) -> io::Result<()> {
        let mut countdown = self.countdown.lock().unwrap();
        match *countdown {
            Some(0) => {
                if !self.lasting {
                    *countdown = None;
                }
                Err(io::Error::other("fails"))
            }
            Some(left) => {
                *countdown = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Medium for Failing {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.pass()?;
        self.inner.read(at, buffer)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.pass() {
            // Half of it got there.
            self.inner.write(at, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.inner.write(at, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.pass()?;
        self.inner.sync()
    }

    fn alignment(&self) -> u64 {
        ALIGNMENT
    }
}

#[test]
fn an_error_at_any_operation_makes_a_change_fail_or_happen_but_never_half() {
    for lasting in [false, true] {
        for at in 0..20 {
            let countdown = Arc::new(Mutex::new(None));
            let medium = Failing {
                inner: Recorder {
                    bytes: blank(),
                    log: Log::default(),
                },
                countdown: Arc::clone(&countdown),
                lasting,
            };
            let mut store = Store::open(Box::new(medium), &SHAPE, None).unwrap();
            store.program(Key::new([1; 32])).unwrap();
            store.write(0, &[1; 2 * BLOCK_SIZE], [1; 32]).unwrap();
            *countdown.lock().unwrap() = Some(at);
            let mut said = 1;
            for number in 2..6_u8 {
                if store.settle().is_err() {
                    continue;
                }
                said = said.max(store.state().counter);
                if store
                    .write(0, &[number; 2 * BLOCK_SIZE], [number; 32])
                    .is_ok()
                {
                    said = store.state().counter;
                }
            }
            *countdown.lock().unwrap() = None;
            store.settle().unwrap();
            let found = content(&mut store);
            assert!(
                found.counter >= said && found.counter <= said + 1,
                "lasting {lasting} at {at}"
            );
            let fill = found.last_mac[0];
            assert!(
                found.data[..2 * BLOCK_SIZE]
                    .iter()
                    .all(|byte| *byte == fill)
            );
        }
    }
}
