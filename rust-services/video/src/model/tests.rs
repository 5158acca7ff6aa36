// SPDX-License-Identifier: Apache-2.0

//! Streams without a codec, a guest or a wire: what is answered, in which order.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::cell::RefCell;

use agl_virtio_codec::scripted::Script;
use agl_virtio_codec::{CodecError, Event as Told, Size};

use super::*;
use crate::statistics::Quota;
use crate::wire::{Description, Done, MAX_PLANES, Params, V3, V5};

/// One page of 64 KiB of "guest memory" for each resource, by its address.
#[derive(Default)]
struct Pages(RefCell<BTreeMap<u64, Vec<u8>>>);

impl Guest for Pages {
    type Buffer = (u64, usize);

    fn buffer(&self, runs: &[(u64, u32)]) -> Option<(u64, usize)> {
        let (address, len) = *runs.first()?;
        (len <= 1 << 20 && address < 1 << 40).then_some((address, len as usize))
    }

    fn len(&self, buffer: &(u64, usize)) -> usize {
        buffer.1
    }

    fn read(&self, buffer: &(u64, usize), offset: usize, bytes: &mut [u8]) -> bool {
        bytes.fill(buffer.0 as u8);
        offset + bytes.len() <= buffer.1
    }

    fn write(&self, buffer: &(u64, usize), offset: usize, bytes: &[u8]) -> bool {
        let mut pages = self.0.borrow_mut();
        let page = pages.entry(buffer.0).or_insert_with(|| vec![0; buffer.1]);
        let Some(room) = page.get_mut(offset..offset + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        true
    }
}

struct Bench {
    model: Model<Pages>,
    guest: Pages,
    script: Script,
    tickets: u64,
    out: Outbox,
}

const LIMITS: Limits = Limits {
    least: Size::new(16, 16),
    most: Size::new(512, 512),
};

impl Bench {
    fn new(function: Function) -> Self {
        Self::of(function, Arc::new(V5))
    }

    fn of(function: Function, dialect: Arc<dyn Dialect>) -> Self {
        let script = Script::default();
        let formats = Formats::new([Codec::H264, Codec::Vp8].into_iter(), LIMITS, &*dialect);
        let shared = Shared {
            function,
            dialect,
            formats,
            statistics: Arc::new(Statistics::new(Quota {
                sessions: 2,
                pixel_rate: 1 << 40,
            })),
        };
        Self {
            model: Model::new(shared, Box::new(script.clone())),
            guest: Pages::default(),
            script,
            tickets: 0,
            out: Outbox::default(),
        }
    }

    fn decoder() -> Self {
        let mut bench = Self::new(Function::Decoder);
        assert_eq!(bench.ask(create(0x1002)), Some(Answer::Ok));
        bench
    }

    fn send(&mut self, command: Command) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let request = Request { stream: 1, command };
        self.model
            .request(&self.guest, ticket, request, &mut self.out);
        ticket
    }

    /// Sends a request; its answer, where it comes at once.
    fn ask(&mut self, command: Command) -> Option<Answer> {
        let ticket = self.send(command);
        self.answer(ticket)
    }

    fn answer(&mut self, ticket: Ticket) -> Option<Answer> {
        let at = self.out.answers.iter().position(|one| one.0 == ticket)?;
        Some(self.out.answers.remove(at).2)
    }

    /// The codec says so.
    fn says(&mut self, told: impl IntoIterator<Item = Told<u64>>) {
        self.script.says(told);
        self.model.turn(&self.guest, &mut self.out);
    }

    fn heard(&self) -> Vec<String> {
        self.script.heard()
    }

    fn attach(&mut self, queue: Queue, id: u32, bytes: u32) {
        let planes = vec![vec![(u64::from(id) << 24 | u64::from(queue.code()), bytes)]];
        let planes = Planes::Pages(planes);
        let answer = self.ask(Command::Attach { queue, id, planes });
        assert_eq!(answer, Some(Answer::Ok));
    }

    fn queue(&mut self, queue: Queue, id: u32, timestamp: u64, bytes: u32) -> Ticket {
        let mut sizes = [0; MAX_PLANES];
        sizes[0] = bytes;
        self.send(Command::Queue {
            queue,
            id,
            flags: 0,
            timestamp,
            sizes,
        })
    }

    fn events(&mut self) -> Vec<(u32, Event)> {
        std::mem::take(&mut self.out.events)
    }
}

fn create(coded: u32) -> Command {
    Command::Create {
        input: 0,
        output: 0,
        coded,
        tag: "test".to_owned(),
    }
}

fn done(end: bool, key: bool, timestamp: u64, bytes: u32) -> Option<Answer> {
    let mut sizes = [0; MAX_PLANES];
    sizes[0] = bytes;
    Some(Answer::Done(Done {
        end,
        key,
        timestamp,
        sizes,
    }))
}

/// Bytes of a picture of 64x32 in NV12.
const PICTURE: u32 = 64 * 32 * 3 / 2;

#[test]
fn a_decoder_offers_the_most_usual_codec_first_and_pictures_of_any_size() {
    for (function, step) in [(Function::Decoder, 1), (Function::Encoder, 2)] {
        for queue in Queue::BOTH {
            let answer = Bench::new(function).ask(Command::QueryCapability(queue));
            let Some(Answer::Capability(formats)) = answer else {
                panic!("{answer:?}");
            };
            let steps = |format: &Description| (format.width.step, format.height.step);
            assert!(formats.iter().all(|format| steps(format) == (step, step)));
        }
    }
    assert_eq!(Codec::ALL.first(), Some(&Codec::H264));
    assert!(Codec::ALL.is_sorted());
}

#[test]
fn no_picture_is_written_between_a_new_size_and_the_drivers_question_for_it() {
    let mut bench = Bench::decoder();
    bench.attach(Queue::Input, 1, 4096);
    bench.attach(Queue::Output, 1, PICTURE);
    let input = bench.queue(Queue::Input, 1, 5, 100);
    assert_eq!(bench.answer(input), done(false, false, 5, 0));
    assert_eq!(bench.heard(), ["push 100 at 5"]);
    let output = bench.queue(Queue::Output, 1, 0, 0);
    bench.says([Told::Size(Size::new(63, 31)), Told::Output(0)]);
    assert_eq!(bench.events(), [(1, Event::ResolutionChanged)]);
    bench.says([]);
    assert_eq!(bench.answer(output), None);
    let Some(Answer::Params(params)) = bench.ask(Command::GetParams(Queue::Output)) else {
        panic!("no parameters")
    };
    assert_eq!((params.width, params.height), (64, 32));
    assert_eq!((params.crop.width, params.crop.height), (63, 31));
    assert_eq!(bench.answer(output), done(false, true, 0, PICTURE));
}

#[test]
fn a_resource_that_is_too_small_is_refused_and_the_picture_waits_for_another() {
    let mut bench = Bench::decoder();
    bench.attach(Queue::Input, 1, 4096);
    bench.attach(Queue::Output, 1, PICTURE - 1);
    bench.attach(Queue::Output, 2, PICTURE);
    bench.queue(Queue::Input, 1, 5, 100);
    let early = bench.queue(Queue::Output, 1, 0, 0);
    bench.says([Told::Size(Size::new(64, 32)), Told::Output(9)]);
    bench.ask(Command::GetParams(Queue::Output));
    let refused = Some(Answer::Refused(Refusal::InvalidParameter));
    assert_eq!(bench.answer(early), refused);
    let late = bench.queue(Queue::Output, 1, 0, 0);
    assert_eq!(bench.answer(late), refused);
    let enough = bench.queue(Queue::Output, 2, 0, 0);
    assert_eq!(bench.answer(enough), done(false, false, 9, PICTURE));
}

#[test]
fn a_drain_ends_with_one_empty_resource_and_input_waits_for_it() {
    let mut bench = Bench::decoder();
    bench.attach(Queue::Input, 1, 4096);
    bench.attach(Queue::Output, 1, PICTURE);
    bench.queue(Queue::Input, 1, 5, 100);
    bench.says([Told::Size(Size::new(64, 32))]);
    bench.ask(Command::GetParams(Queue::Output));
    assert_eq!(bench.ask(Command::Drain), Some(Answer::Ok));
    let twice = Some(Answer::Refused(Refusal::InvalidOperation));
    assert_eq!(bench.ask(Command::Drain), twice);
    let next = bench.queue(Queue::Input, 1, 6, 100);
    assert_eq!(bench.answer(next), None, "after the end");
    bench.says([Told::Output(5), Told::Drained]);
    let first = bench.queue(Queue::Output, 1, 0, 0);
    assert_eq!(bench.answer(first), done(false, false, 5, PICTURE));
    assert_eq!(bench.answer(next), None);
    let end = bench.queue(Queue::Output, 1, 0, 0);
    assert_eq!(bench.answer(end), done(true, false, 0, 0));
    assert_eq!(bench.answer(next), done(false, false, 6, 0));
    assert_eq!(bench.heard(), ["push 100 at 5", "drain", "push 100 at 6"]);
}

#[test]
fn a_seek_gives_inputs_back_and_is_answered_when_the_codec_has_forgotten() {
    let mut bench = Bench::decoder();
    bench.attach(Queue::Input, 1, 4096);
    bench.attach(Queue::Input, 2, 4096);
    bench.attach(Queue::Output, 1, PICTURE);
    bench.queue(Queue::Input, 1, 5, 100);
    assert_eq!(bench.ask(Command::Drain), Some(Answer::Ok));
    let waits = bench.queue(Queue::Input, 2, 6, 100);
    let clear = bench.send(Command::Clear(Queue::Input));
    assert_eq!(bench.answer(waits), done(false, false, 0, 0));
    assert_eq!(bench.answer(clear), None);
    let after = bench.queue(Queue::Input, 1, 7, 100);
    bench.says([Told::Flushed]);
    assert_eq!(bench.answer(clear), Some(Answer::Ok));
    assert_eq!(bench.answer(after), None, "the drain's end comes first");
    let end = bench.queue(Queue::Output, 1, 0, 0);
    assert_eq!(bench.answer(end), done(true, false, 0, 0));
    assert_eq!(bench.answer(after), done(false, false, 7, 0));
    let heard = bench.heard();
    assert_eq!(heard, ["push 100 at 5", "drain", "flush", "push 100 at 7"]);
}

#[test]
fn a_codec_that_fails_gives_everything_back_and_tells_of_it_once() {
    let mut bench = Bench::decoder();
    bench.attach(Queue::Input, 1, 4096);
    bench.attach(Queue::Output, 1, PICTURE);
    bench.queue(Queue::Input, 1, 5, 100);
    let output = bench.queue(Queue::Output, 1, 0, 0);
    let error = CodecError::NotOffered { codec: Codec::Vp8 };
    bench.says([Told::Failed(error)]);
    let refused = Some(Answer::Refused(Refusal::InvalidOperation));
    assert_eq!(bench.answer(output), refused);
    assert_eq!(bench.events(), [(1, Event::Error)]);
    let lost = Some(Answer::Refused(Refusal::InvalidStream));
    assert_eq!(bench.ask(Command::Drain), lost);
    assert_eq!(
        bench.ask(create(0x1004)),
        Some(Answer::Ok),
        "its number is free"
    );
}

#[test]
fn an_encoder_makes_a_key_picture_where_it_is_asked_to() {
    let mut bench = Bench::new(Function::Encoder);
    assert_eq!(bench.ask(create(0x1002)), Some(Answer::Ok));
    let params = Params {
        queue: Queue::Input.code(),
        format: 4,
        width: 64,
        height: 32,
        num_planes: 1,
        ..Params::default()
    };
    assert_eq!(bench.ask(Command::SetParams(params)), Some(Answer::Ok));
    bench.attach(Queue::Input, 1, PICTURE);
    assert_eq!(bench.ask(Command::SetControl(4, 1)), Some(Answer::Ok));
    bench.queue(Queue::Input, 1, 1, PICTURE);
    bench.queue(Queue::Input, 1, 2, PICTURE);
    assert_eq!(bench.ask(Command::SetControl(1, 500_000)), Some(Answer::Ok));
    assert_eq!(
        bench.ask(Command::GetControl(1)),
        Some(Answer::Value(500_000))
    );
    let unknown = Some(Answer::Refused(Refusal::UnsupportedControl));
    assert_eq!(bench.ask(Command::SetControl(99, 1)), unknown);
    let heard = bench.heard();
    assert_eq!(
        heard,
        [
            format!("push {PICTURE} at 1 key"),
            format!("push {PICTURE} at 2"),
            "adjust 500000".to_owned()
        ]
    );
}

#[test]
fn streams_beyond_the_quota_are_refused_until_one_ends() {
    let mut bench = Bench::decoder();
    let at = |bench: &mut Bench, stream, command| {
        bench.tickets += 1;
        let ticket = Ticket(bench.tickets);
        let request = Request { stream, command };
        bench
            .model
            .request(&bench.guest, ticket, request, &mut bench.out);
        bench.answer(ticket)
    };
    assert_eq!(at(&mut bench, 2, create(0x1002)), Some(Answer::Ok));
    let refused = Some(Answer::Refused(Refusal::OutOfMemory));
    assert_eq!(at(&mut bench, 3, create(0x1002)), refused);
    assert_eq!(at(&mut bench, 1, Command::Destroy), Some(Answer::Ok));
    assert_eq!(at(&mut bench, 3, create(0x1002)), Some(Answer::Ok));
}

fn uuids(count: u8) -> Planes {
    Planes::Objects((1..=count).map(|byte| Uuid([byte; 16])).collect())
}

fn create_with(input: u32, output: u32) -> Command {
    let Command::Create { coded, tag, .. } = create(0x1002) else {
        panic!("another command")
    };
    Command::Create {
        input,
        output,
        coded,
        tag,
    }
}

/// A decoder whose pictures go into objects.
fn importing() -> Bench {
    let mut bench = Bench::new(Function::Decoder);
    bench.model.set_imports(true);
    assert_eq!(bench.ask(create_with(0, 1)), Some(Answer::Ok));
    bench
}

fn attach_objects(bench: &mut Bench, id: u32, count: u8) -> (Ticket, Vec<Wanted>) {
    let ticket = bench.send(Command::Attach {
        queue: Queue::Output,
        id,
        planes: uuids(count),
    });
    (ticket, std::mem::take(&mut bench.out.wanted))
}

const REFUSED: fn(Refusal) -> Option<Answer> = |refusal| Some(Answer::Refused(refusal));

#[test]
fn resources_lie_in_objects_only_where_those_can_be_looked_up() {
    let mut bench = Bench::new(Function::Decoder);
    let wrong = REFUSED(Refusal::InvalidParameter);
    assert_eq!(bench.ask(create_with(0, 1)), wrong);
    bench.model.set_imports(true);
    assert_eq!(bench.ask(create_with(0, 2)), wrong);
    assert_eq!(bench.ask(create_with(0, 1)), Some(Answer::Ok));
    let memory = |stream, queue| bench.model.memory(stream, queue);
    assert_eq!(memory(1, Queue::Input), Some(MemoryType::GuestPages));
    assert_eq!(memory(1, Queue::Output), Some(MemoryType::Objects));
    assert_eq!(memory(9, Queue::Output), None);
}

#[test]
fn a_resource_is_attached_when_all_its_objects_are_found() {
    let mut bench = importing();
    let (ticket, wanted) = attach_objects(&mut bench, 1, 2);
    assert_eq!(bench.answer(ticket), None);
    let names: Vec<Uuid> = wanted.iter().map(|one| one.object).collect();
    assert_eq!(names, [Uuid([1; 16]), Uuid([2; 16])]);
    let early = bench.queue(Queue::Output, 1, 0, 0);
    assert_eq!(bench.answer(early), REFUSED(Refusal::InvalidResource));
    let again = attach_objects(&mut bench, 1, 2).0;
    assert_eq!(bench.answer(again), REFUSED(Refusal::InvalidOperation));
    let detached = bench.ask(Command::Detach(Queue::Output));
    assert_eq!(detached, REFUSED(Refusal::InvalidOperation));
    let found = |bench: &mut Bench, plane| {
        let buffer = Ok((7, PICTURE as usize));
        bench.model.found(ticket, plane, buffer, &mut bench.out);
    };
    found(&mut bench, 1);
    found(&mut bench, 1);
    assert_eq!(bench.answer(ticket), None);
    found(&mut bench, 0);
    assert_eq!(bench.answer(ticket), Some(Answer::Ok));
    found(&mut bench, 0);
    assert_eq!(bench.answer(ticket), None, "nobody waits for that");
    let late = bench.queue(Queue::Output, 1, 0, 0);
    assert_eq!(bench.answer(late), None, "it waits for a picture");
}

#[test]
fn a_resource_whose_object_is_not_found_is_refused_and_the_stream_goes_on() {
    let mut bench = importing();
    let (ticket, _) = attach_objects(&mut bench, 1, 2);
    let lost = Err(Refusal::InvalidResource);
    bench.model.found(ticket, 1, lost, &mut bench.out);
    assert_eq!(bench.answer(ticket), REFUSED(Refusal::InvalidResource));
    bench.model.found(ticket, 0, Ok((7, 1)), &mut bench.out);
    assert_eq!(bench.answer(ticket), None);
    let (ticket, _) = attach_objects(&mut bench, 1, 1);
    bench.model.found(ticket, 0, Ok((7, 1)), &mut bench.out);
    assert_eq!(bench.answer(ticket), Some(Answer::Ok));
}

#[test]
fn who_waits_for_an_object_of_a_stream_that_ends_hears_so() {
    let mut bench = importing();
    let (ticket, _) = attach_objects(&mut bench, 1, 1);
    assert_eq!(bench.ask(Command::Destroy), Some(Answer::Ok));
    assert_eq!(bench.answer(ticket), REFUSED(Refusal::InvalidOperation));
    assert_eq!(bench.ask(create_with(0, 1)), Some(Answer::Ok));
    bench.model.found(ticket, 0, Ok((7, 1)), &mut bench.out);
    assert!(bench.out.answers.is_empty());
}

#[test]
fn there_are_never_more_objects_than_the_host_has_descriptors_for() {
    let mut bench = importing();
    let mut held = 0;
    let refused = loop {
        let (ticket, wanted) = attach_objects(&mut bench, held, 8);
        if let Some(answer) = bench.answer(ticket) {
            break answer;
        }
        for Wanted { ticket, plane, .. } in wanted {
            bench.model.found(ticket, plane, Ok((7, 1)), &mut bench.out);
        }
        assert_eq!(bench.answer(ticket), Some(Answer::Ok));
        held += 1;
    };
    assert_eq!(refused, Answer::Refused(Refusal::OutOfMemory));
    assert_eq!(held as usize * 8, MOST_OBJECTS);
    let detached = bench.ask(Command::Detach(Queue::Output));
    assert_eq!(detached, Some(Answer::Ok));
    let (ticket, wanted) = attach_objects(&mut bench, 1, 1);
    assert_eq!((bench.answer(ticket), wanted.len()), (None, 1));
}

/// Whatever a driver writes, each request has one answer in the end, and nothing panics.
#[test]
fn every_request_of_a_hostile_driver_is_answered_once() {
    let dialects: [Arc<dyn Dialect>; 2] = [Arc::new(V5), Arc::new(V3)];
    for dialect in dialects {
        for function in [Function::Decoder, Function::Encoder] {
            let mut bench = Bench::of(function, Arc::clone(&dialect));
            bench.model.set_imports(true);
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            let mut next = move |below: u32| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 33) as u32 % below
            };
            let mut asked = 0_usize;
            for round in 0..20_000 {
                let mut bytes: Vec<u8> = Vec::new();
                let mut word = |value: u32| bytes.extend(value.to_le_bytes());
                word(0x100 + next(14));
                word(1 + next(3));
                for _ in 0..next(40) {
                    word(match next(6) {
                        0 => 0x100 + next(2),
                        1 => 0x1000 + next(7),
                        2 => u32::MAX - next(3),
                        3 => 1 << next(32),
                        _ => next(4),
                    });
                }
                bytes.truncate(bytes.len().saturating_sub(next(5) as usize));
                asked += 1;
                bench.tickets += 1;
                let ticket = Ticket(bench.tickets);
                match dialect.parse(&bytes, &|stream, queue| bench.model.memory(stream, queue)) {
                    Ok(request) => {
                        bench
                            .model
                            .request(&bench.guest, ticket, request, &mut bench.out);
                    }
                    Err((stream, refusal)) => {
                        bench.out.refuse(ticket, stream, refusal);
                    }
                }
                for wanted in std::mem::take(&mut bench.out.wanted) {
                    let Wanted { ticket, plane, .. } = wanted;
                    let found = match next(3) {
                        // Never.
                        0 => continue,
                        1 => Err(Refusal::InvalidResource),
                        _ => Ok((7, 1 << 20)),
                    };
                    bench.model.found(ticket, plane, found, &mut bench.out);
                }
                bench.says(match round % 7 {
                    0 => vec![Told::Output(round)],
                    1 => vec![Told::Size(Size::new(next(600), next(600)))],
                    2 => vec![Told::Flushed],
                    3 => vec![Told::Drained],
                    _ => Vec::new(),
                });
                for (_, stream, answer) in bench.out.answers.iter().rev().take(4) {
                    let written = dialect.answer(*stream, answer);
                    assert!(written.len() >= 8 && written.len() % 4 == 0);
                }
            }
            for stream in 0..8 {
                asked += 1;
                bench.tickets += 1;
                let request = Request {
                    stream,
                    command: Command::Destroy,
                };
                let ticket = Ticket(bench.tickets);
                bench
                    .model
                    .request(&bench.guest, ticket, request, &mut bench.out);
            }
            let mut tickets: Vec<u64> = bench.out.answers.iter().map(|one| one.0.0).collect();
            assert_eq!(tickets.len(), asked);
            tickets.sort_unstable();
            tickets.dedup();
            assert_eq!(tickets.len(), asked, "none twice");
        }
    }
}
