// SPDX-License-Identifier: Apache-2.0

//! Draft v5, as AGL's guests of 2021 speak it.

use agl_virtio_codec::PixelFormat;

use super::bytes::{Reader, Writer};
use super::memory::{OfQueue, objects};
use super::numbers::{command, event, flag, response};
use super::{
    Answer, Command, Description, Dialect, Done, Event, Format, MAX_PLANES, MemoryOf, MemoryType,
    Params, Planes, Queue, RAW_ALIGN, Range, Refusal, Request,
};

/// The dialect.
#[derive(Clone, Copy, Debug)]
pub struct V5;

impl Dialect for V5 {
    fn name(&self) -> &'static str {
        "v5"
    }

    fn parse(&self, bytes: &[u8], memory: MemoryOf<'_>) -> Result<Request, (u32, Refusal)> {
        parse(bytes, memory, attach, queue)
    }

    fn answer(&self, stream: u32, answer: &Answer) -> Vec<u8> {
        answer_with(self, stream, answer, |done| {
            // The end alone: a driver that compares numbers would miss it otherwise.
            let flags = match (done.end, done.key) {
                (true, _) => flag::END,
                (false, true) => flag::KEY,
                (false, false) => 0,
            };
            Writer::begin(response::RESOURCE_QUEUE, stream)
                .u32(flags)
                .padding()
                .u64(done.timestamp)
                .u32s(&done.sizes)
        })
    }

    fn event(&self, stream: u32, event: Event) -> Vec<u8> {
        write_event(stream, event)
    }

    fn raw(&self, format: PixelFormat) -> Option<u32> {
        Some(match format {
            PixelFormat::Argb => 1,
            PixelFormat::Bgra => 2,
            PixelFormat::Rgba => 3,
            PixelFormat::Nv12 => 4,
            PixelFormat::I420 => 5,
            PixelFormat::Yv12 => 6,
        })
    }
}

type Attach = fn(&mut Reader<'_>, OfQueue<'_>) -> Result<Command, Refusal>;
type Part = fn(&mut Reader<'_>) -> Result<Command, Refusal>;

/// Reads a request; attaching and queueing differ between the dialects.
pub(super) fn parse(
    bytes: &[u8],
    memory: MemoryOf<'_>,
    attach: Attach,
    queue: Part,
) -> Result<Request, (u32, Refusal)> {
    let mut from = Reader(bytes);
    let kind = from.u32().map_err(|refusal| (0, refusal))?;
    let stream = from.u32().map_err(|refusal| (0, refusal))?;
    let memory = |queue| memory(stream, queue).ok_or(Refusal::InvalidStream);
    let attach = |from: &mut Reader<'_>| attach(from, &memory);
    let command = parse_command(kind, &mut from, attach, queue);
    match command {
        Ok(command) => Ok(Request { stream, command }),
        Err(refusal) => Err((stream, refusal)),
    }
}

fn parse_command(
    kind: u32,
    from: &mut Reader<'_>,
    attach: impl FnOnce(&mut Reader<'_>) -> Result<Command, Refusal>,
    queue: Part,
) -> Result<Command, Refusal> {
    Ok(match kind {
        command::QUERY_CAPABILITY => Command::QueryCapability(which(from)?),
        command::STREAM_CREATE => {
            let [input, output, coded, _] = from.u32s()?;
            let tag: [u8; 64] = from.array()?;
            let text = tag.split(|byte| *byte == 0).next().unwrap_or_default();
            let tag = String::from_utf8_lossy(text);
            Command::Create {
                input,
                output,
                coded,
                tag: tag.chars().filter(|letter| !letter.is_control()).collect(),
            }
        }
        command::STREAM_DESTROY => Command::Destroy,
        command::STREAM_DRAIN => Command::Drain,
        command::RESOURCE_ATTACH => attach(from)?,
        command::RESOURCE_QUEUE => queue(from)?,
        command::QUEUE_DETACH_RESOURCES => Command::Detach(which(from)?),
        command::QUEUE_CLEAR => Command::Clear(which(from)?),
        command::GET_PARAMS => Command::GetParams(which(from)?),
        command::SET_PARAMS => Command::SetParams(Params::read(from)?),
        command::QUERY_CONTROL => {
            let [control, _] = from.u32s()?;
            // Controls that are not of a format may come without one.
            let format = from.u32().unwrap_or(0);
            Command::QueryControl { control, format }
        }
        command::GET_CONTROL => Command::GetControl(from.u32()?),
        command::SET_CONTROL => {
            let [control, _, value] = from.u32s()?;
            Command::SetControl(control, value)
        }
        _ => return Err(Refusal::InvalidOperation),
    })
}

pub(super) fn which(from: &mut Reader<'_>) -> Result<Queue, Refusal> {
    Queue::from_code(from.u32()?).ok_or(Refusal::InvalidParameter)
}

fn attach(from: &mut Reader<'_>, memory: OfQueue<'_>) -> Result<Command, Refusal> {
    let queue = which(from)?;
    let id = from.u32()?;
    let planes = match memory(queue)? {
        MemoryType::GuestPages => {
            let mut planes = Vec::new();
            while !from.is_empty() && planes.len() < MAX_PLANES {
                let [count, _] = from.u32s()?;
                planes.push(from.runs(count)?);
            }
            Planes::Pages(planes)
        }
        MemoryType::Objects => Planes::Objects(objects(from)?),
    };
    Ok(Command::Attach { queue, id, planes })
}

fn queue(from: &mut Reader<'_>) -> Result<Command, Refusal> {
    let queue = which(from)?;
    let [id, flags, _] = from.u32s()?;
    Ok(Command::Queue {
        queue,
        id,
        flags,
        timestamp: from.u64()?,
        sizes: from.u32s()?,
    })
}

/// Writes an answer; that about a resource differs between the dialects.
pub(super) fn answer_with(
    dialect: &dyn Dialect,
    stream: u32,
    answer: &Answer,
    done: impl FnOnce(&Done) -> Writer,
) -> Vec<u8> {
    let begin = |kind| Writer::begin(kind, stream);
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let writer = match answer {
        Answer::Ok => begin(response::OK),
        Answer::Refused(refusal) => begin(refusal.code()),
        Answer::Capability(list) => {
            let writer = begin(response::QUERY_CAPABILITY)
                .u32(count(list.len()))
                .padding();
            list.iter()
                .fold(writer, |writer, one| describe(dialect, writer, one))
        }
        Answer::Done(resource) => done(resource),
        Answer::Params(params) => params.write(begin(response::GET_PARAMS)),
        Answer::Values(values) => begin(response::QUERY_CONTROL)
            .u32(count(values.len()))
            .padding()
            .u32s(values),
        Answer::Value(value) => begin(response::GET_CONTROL).u32(*value).padding(),
    };
    writer.0
}

fn describe(dialect: &dyn Dialect, to: Writer, one: &Description) -> Writer {
    let raw = matches!(one.format, Format::Raw(_));
    let range = |to: Writer, range: &Range| to.u32s(&[range.min, range.max, range.step]).padding();
    let to = to
        .u64(one.mask)
        .u32(dialect.number(one.format).unwrap_or(0))
        // A single buffer, or one for each plane.
        .u32(if raw { 3 } else { 1 })
        .u32(if raw { RAW_ALIGN } else { 1 })
        .u32(1);
    let to = range(range(to, &one.width), &one.height);
    range(to.u32(1).padding(), &one.rate)
}

pub(super) fn write_event(stream: u32, event: Event) -> Vec<u8> {
    let kind = match event {
        Event::Error => event::ERROR,
        Event::ResolutionChanged => event::RESOLUTION_CHANGED,
    };
    Writer::begin(kind, stream).0
}
