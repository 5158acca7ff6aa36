// SPDX-License-Identifier: Apache-2.0

//! Requests, answers and events of virtio-video, which never became a standard.
//!
//! What a request means is the same in all drafts, and written down once, in [`Request`] and
//! [`Answer`]; how it lies in memory is a [`Dialect`]'s business. Draft v5 (as AGL's 2021 guests speak
//! it) and its twin v3 (ChromeOS) are here. Later drafts (v10 and what may come of it) differ in their
//! command set as well, and would be one more implementation of that trait beside
//! [`Event`]s of their own.

mod bytes;
mod memory;
mod numbers;
mod params;
mod v3;
mod v5;

pub use memory::{MemoryOf, Planes, Uuid};
pub use numbers::{Control, MemoryType, control, event, flag};
pub use params::{MAX_PLANES, PARAMS_SIZE, Params, PlaneFormat, Rect};
pub use v3::V3;
pub use v5::V5;

use agl_virtio_codec::{Codec, PixelFormat};

/// Bytes of a request that are read at most: a resource of more scattered pages is refused.
pub const MOST_REQUEST: usize = 4 << 20;
/// Bytes of every header.
pub const HEADER_SIZE: usize = 8;

/// One of a stream's two queues.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Queue {
    /// What is to be decoded or encoded.
    Input,
    /// What has been.
    Output,
}

impl Queue {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Input, Self::Output];

    /// Its number.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Input => 0x100,
            Self::Output => 0x101,
        }
    }

    /// By its number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::BOTH.into_iter().find(|queue| queue.code() == code)
    }
}

/// What a driver asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Which formats there are.
    QueryCapability(Queue),
    /// A new stream.
    Create {
        /// Where its inputs lie.
        input: u32,
        /// Where its outputs lie.
        output: u32,
        /// Coded format.
        coded: u32,
        /// Who wants it, for people.
        tag: String,
    },
    /// The end of a stream.
    Destroy,
    /// All outputs of what was queued, then an end.
    Drain,
    /// Memory of a resource.
    Attach {
        /// Of which queue.
        queue: Queue,
        /// Its number there.
        id: u32,
        /// Where its planes lie.
        planes: Planes,
    },
    /// A resource to be read or written; answered when that is done.
    Queue {
        /// Of which queue.
        queue: Queue,
        /// Which one.
        id: u32,
        /// As [`flag`].
        flags: u32,
        /// Comes back with what was made of it.
        timestamp: u64,
        /// Bytes in each plane.
        sizes: [u32; MAX_PLANES],
    },
    /// Forgets all resources of a queue.
    Detach(Queue),
    /// Gives all queued resources of a queue back.
    Clear(Queue),
    /// The format of a queue.
    GetParams(Queue),
    /// Another format for a queue.
    SetParams(Params),
    /// Values of a control for a format.
    QueryControl {
        /// Which control.
        control: u32,
        /// For which coded format.
        format: u32,
    },
    /// The value of a control.
    GetControl(u32),
    /// Another value for a control.
    SetControl(u32, u32),
}

/// A request to a stream, or to the device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The stream.
    pub stream: u32,
    /// What is wanted.
    pub command: Command,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Not now.
    #[error("not in this state")]
    InvalidOperation,
    /// No more of that.
    #[error("a limit is reached")]
    OutOfMemory,
    /// There is no such stream, or not any more.
    #[error("no such stream")]
    InvalidStream,
    /// There is no such resource.
    #[error("no such resource")]
    InvalidResource,
    /// A value makes no sense.
    #[error("a value makes no sense")]
    InvalidParameter,
    /// There is no such control, or not for this format.
    #[error("no such control")]
    UnsupportedControl,
}

impl Refusal {
    /// Its number, in all dialects.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::InvalidOperation => 0x300,
            Self::OutOfMemory => 0x301,
            Self::InvalidStream => 0x302,
            Self::InvalidResource => 0x303,
            Self::InvalidParameter => 0x304,
            Self::UnsupportedControl => 0x305,
        }
    }
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// The last one of a drained stream.
    pub end: bool,
    /// A key picture.
    pub key: bool,
    /// Of the input it was made of.
    pub timestamp: u64,
    /// Bytes in each plane.
    pub sizes: [u32; MAX_PLANES],
}

/// A range of values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    /// The least.
    pub min: u32,
    /// The greatest.
    pub max: u32,
    /// From one to the next.
    pub step: u32,
}

/// A format that a queue can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Description {
    /// Bit n: it goes with the n-th format of the other queue.
    pub mask: u64,
    /// Coded or raw.
    pub format: Format,
    /// Widths.
    pub width: Range,
    /// Heights.
    pub height: Range,
    /// Pictures per second.
    pub rate: Range,
}

/// A format of a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Coded.
    Coded(Codec),
    /// Raw.
    Raw(PixelFormat),
}

/// Raw rows begin at a multiple of so many bytes.
pub const RAW_ALIGN: u32 = 16;

/// What a driver is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Done.
    Ok,
    /// The formats of a queue.
    Capability(Vec<Description>),
    /// A resource is done with.
    Done(Done),
    /// The format of a queue.
    Params(Params),
    /// The values a control may have.
    Values(Vec<u32>),
    /// A control's value.
    Value(u32),
    /// Refused.
    Refused(Refusal),
}

/// What happens without being asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The stream has failed.
    Error,
    /// The stream's pictures have another size from now on.
    ResolutionChanged,
}

/// How requests, answers and events lie in memory. The seam for other drafts.
pub trait Dialect: Send + Sync {
    /// As the command line names it.
    fn name(&self) -> &'static str;

    /// Reads a request. What one that attaches memory says depends on what the stream was made with,
    /// which `memory` tells.
    ///
    /// # Errors
    /// What to answer to one that makes no sense, and the stream that it names.
    fn parse(&self, bytes: &[u8], memory: MemoryOf<'_>) -> Result<Request, (u32, Refusal)>;

    /// Writes an answer to a request to this stream.
    fn answer(&self, stream: u32, answer: &Answer) -> Vec<u8>;

    /// Writes an event.
    fn event(&self, stream: u32, event: Event) -> Vec<u8>;

    /// The number of a raw format; none where the dialect does not know it.
    fn raw(&self, format: PixelFormat) -> Option<u32>;

    /// The number of a format; none where the dialect does not know it.
    fn number(&self, format: Format) -> Option<u32> {
        match format {
            Format::Coded(codec) => numbers::coded(codec),
            Format::Raw(raw) => self.raw(raw),
        }
    }

    /// The raw format of a number.
    fn raw_format(&self, number: u32) -> Option<PixelFormat> {
        PixelFormat::ALL
            .into_iter()
            .find(|format| self.raw(*format) == Some(number))
    }

    /// The coded format of a number.
    fn codec(&self, number: u32) -> Option<Codec> {
        Codec::ALL
            .into_iter()
            .find(|codec| numbers::coded(*codec) == Some(number))
    }
}
