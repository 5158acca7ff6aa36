// SPDX-License-Identifier: Apache-2.0

//! virtio-video in both drafts: any requests, with any bytes or with plausible ones, and a codec
//! that says what it likes. Whatever comes in, each request is answered once at most, every answer
//! can be written down, and after a reset nothing is owed.

#![no_main]

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use agl_virtio_codec::scripted::Script;
use agl_virtio_codec::{Codec, Size};
use agl_virtio_fuzz::coder::Word;
use agl_virtio_video::model::{Formats, Function, Guest, Limits, Model, Outbox, Shared, Ticket, Wanted};
use agl_virtio_video::statistics::{Quota, Statistics};
use agl_virtio_video::wire::{Dialect, Refusal, V3, V5};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { least: Size::new(16, 16), most: Size::new(512, 512) };

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Deed {
    /// A request of a known command, of a few streams, whose words are small or formats.
    Plausible { command: u8, stream: u8, words: Vec<u8> },
    /// Any bytes.
    Any(Vec<u8>),
    /// The codec says something.
    Says(Word),
    /// The first object that was asked for, or the last one, is found to have so many bytes, or is not.
    Found { last: bool, bytes: Option<u32> },
    /// The driver resets.
    Reset,
}

/// Memory of 16 MiB that keeps nothing.
struct Nothing;

impl Guest for Nothing {
    type Buffer = usize;

    fn buffer(&self, runs: &[(u64, u32)]) -> Option<usize> {
        let len = runs.iter().try_fold(0u64, |sum, (at, len)| {
            (at.checked_add((*len).into())? <= 1 << 24).then_some(sum + u64::from(*len))
        })?;
        usize::try_from(len).ok()
    }

    fn len(&self, buffer: &usize) -> usize {
        *buffer
    }

    fn read(&self, buffer: &usize, offset: usize, bytes: &mut [u8]) -> bool {
        bytes.fill(1);
        offset.checked_add(bytes.len()).is_some_and(|end| end <= *buffer)
    }

    fn write(&self, buffer: &usize, offset: usize, bytes: &[u8]) -> bool {
        offset.checked_add(bytes.len()).is_some_and(|end| end <= *buffer)
    }
}

fn model(function: Function, dialect: &Arc<dyn Dialect>, script: &Script) -> Model<Nothing> {
    let formats = Formats::new([Codec::H264, Codec::Vp8].into_iter(), LIMITS, &**dialect);
    let quota = Quota { sessions: 2, pixel_rate: 1 << 30 };
    let statistics = Arc::new(Statistics::new(quota));
    let shared = Shared { function, dialect: Arc::clone(dialect), formats, statistics };
    Model::new(shared, Box::new(script.clone()))
}

/// A request of small words: formats and queue types are written as their numbers.
fn plausible(command: u8, stream: u8, words: &[u8]) -> Vec<u8> {
    let word = |word: u8| match word {
        200..=207 => 0x1000 + u32::from(word - 200),
        208 => 0x100,
        209 => 0x101,
        210.. => 1 << (word - 210).min(24),
        small => small.into(),
    };
    [0x100 + u32::from(command % 14), u32::from(stream % 3)]
        .into_iter()
        .chain(words.iter().map(|byte| word(*byte)))
        .flat_map(u32::to_le_bytes)
        .collect()
}

fuzz_target!(|input: (bool, bool, Vec<Deed>)| {
    let (encodes, old, deeds) = input;
    let function = if encodes { Function::Encoder } else { Function::Decoder };
    let dialect: Arc<dyn Dialect> = if old { Arc::new(V3) } else { Arc::new(V5) };
    let script = Script::default();
    let mut device = model(function, &dialect, &script);
    device.set_imports(true);
    let mut owed = BTreeSet::new();
    let mut wanted: VecDeque<Wanted> = VecDeque::new();
    for (number, deed) in deeds.into_iter().enumerate() {
        let mut out = Outbox::default();
        let bytes = match deed {
            Deed::Plausible { command, stream, words } => plausible(command, stream, &words),
            Deed::Any(bytes) => bytes,
            Deed::Says(word) => {
                script.says([word.into()]);
                Vec::new()
            }
            Deed::Found { last, bytes } => {
                let one = if last { wanted.pop_back() } else { wanted.pop_front() };
                if let Some(Wanted { ticket, plane, .. }) = one {
                    let found = bytes.map(|bytes| bytes as usize).ok_or(Refusal::InvalidResource);
                    device.found(ticket, plane, found, &mut out);
                }
                Vec::new()
            }
            Deed::Reset => {
                device.reset();
                owed.clear();
                assert_eq!(device.living().count(), 0);
                continue;
            }
        };
        let parsed = dialect.parse(&bytes, &|stream, queue| device.memory(stream, queue));
        if let Ok(request) = parsed {
            let ticket = Ticket(number as u64);
            owed.insert(ticket);
            device.request(&Nothing, ticket, request, &mut out);
        }
        device.turn(&Nothing, &mut out);
        // As a VMM that is slow: it answers some of them later.
        wanted.extend(out.wanted.drain(..));
        for (ticket, stream, answer) in out.answers {
            assert!(owed.remove(&ticket), "{ticket:?} was answered twice");
            assert!(!dialect.answer(stream, &answer).is_empty());
        }
        for (stream, event) in out.events {
            assert_eq!(dialect.event(stream, event).len(), 8);
        }
    }
});
