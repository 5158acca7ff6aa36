// SPDX-License-Identifier: Apache-2.0

//! A codec as a device sees it, whichever way it codes: bytes in, outputs out. Devices' tests put a
//! codec of their own here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::frames::Frames;
use crate::{
    AccessUnit, Codec, CodecError, Counters, Decoder, Encoder, EncoderSettings, Event, Host,
    Layout, Library, Picture, PixelFormat, RawPicture, Session, Size, WriteError,
};

/// Inputs that a codec has in front of it, at most: with so many, none has [`Coder::room`].
pub const MOST_INPUTS: usize = 4;

/// What a codec is wanted for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Job {
    /// Pictures out of this.
    Decode(Codec),
    /// This out of pictures that lie so, and of which so much is seen.
    Encode(Codec, Layout, Size, EncoderSettings),
}

/// Why an output did not get where it belongs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PutError {
    /// There is no such memory, or not enough.
    #[error("the guest's memory cannot be written")]
    Memory,
    /// The codec's own memory cannot be read.
    #[error("{0}")]
    Codec(String),
}

/// Takes bytes of one plane at an offset.
pub type Put<'a> = dyn FnMut(usize, usize, &[u8]) -> Result<(), PutError> + 'a;

/// A picture or an access unit.
pub trait Output: Send + std::fmt::Debug {
    /// Of the input it was made of.
    fn timestamp(&self) -> u64;
    /// Whether decoding can begin there.
    fn is_key(&self) -> bool;
    /// Bytes in each plane, where it is written in this layout (of pictures only).
    fn sizes(&self, layout: &Layout) -> Vec<usize>;
    /// Writes it. How often each byte was copied.
    ///
    /// # Errors
    /// As [`PutError`]; part of it may have been written.
    fn write(&self, layout: &Layout, put: &mut Put<'_>) -> Result<u32, PutError>;
    /// In which of these frames it lies, if a decoder has drawn it there: for another process.
    fn lies_in(&self, _frames: &Frames) -> Option<(usize, StoredPicture)> {
        None
    }
    /// Copies it as it is into a file, from `begin` on and at most `room` bytes: for another process.
    ///
    /// # Errors
    /// Why it cannot be.
    fn store(&self, _file: &File, _begin: u64, _room: u64) -> Result<Stored, String> {
        Err("it stays in its process".to_owned())
    }
}

/// An output that lies in a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Stored {
    /// A picture.
    Picture(StoredPicture),
    /// An access unit.
    Unit {
        /// Its bytes.
        bytes: usize,
    },
}

/// A picture in a file: its planes, each with the decoder's own rows.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StoredPicture {
    /// What is seen of it.
    pub size: Size,
    /// The order of samples.
    pub format: PixelFormat,
    /// For each plane where it begins, and bytes from a row to the next.
    pub planes: Vec<(usize, usize)>,
    /// Bytes of all.
    pub bytes: usize,
}

impl Output for Picture {
    fn timestamp(&self) -> u64 {
        Picture::timestamp(self)
    }

    fn is_key(&self) -> bool {
        Picture::is_key(self)
    }

    fn sizes(&self, layout: &Layout) -> Vec<usize> {
        layout.planes().iter().map(|plane| plane.size()).collect()
    }

    fn write(&self, layout: &Layout, put: &mut Put<'_>) -> Result<u32, PutError> {
        Picture::write(self, layout, put).map_err(|error| match error {
            WriteError::Memory(error) => error,
            other => PutError::Codec(other.to_string()),
        })
    }

    fn lies_in(&self, frames: &Frames) -> Option<(usize, StoredPicture)> {
        Picture::lies_in(self, frames)
    }

    fn store(&self, file: &File, begin: u64, room: u64) -> Result<Stored, String> {
        Picture::store(self, file, begin, room).map(Stored::Picture)
    }
}

impl Output for AccessUnit {
    fn timestamp(&self) -> u64 {
        AccessUnit::timestamp(self)
    }

    fn is_key(&self) -> bool {
        AccessUnit::is_key(self)
    }

    fn sizes(&self, _layout: &Layout) -> Vec<usize> {
        vec![self.size()]
    }

    fn write(&self, _layout: &Layout, put: &mut Put<'_>) -> Result<u32, PutError> {
        AccessUnit::write(self, |offset, bytes| put(0, offset, bytes))?;
        Ok(self.copies())
    }

    fn store(&self, file: &File, begin: u64, room: u64) -> Result<Stored, String> {
        let bytes = self.size();
        if bytes as u64 > room {
            return Err(format!("an access unit of {bytes} bytes"));
        }
        AccessUnit::write(self, |offset, run| {
            file.write_all_at(run, begin.saturating_add(offset as u64))
        })
        .map_err(|error| error.to_string())?;
        Ok(Stored::Unit { bytes })
    }
}

/// What an input is beside its bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct InputNote {
    /// Comes back with what is made of it.
    pub timestamp: u64,
    /// An encoder is to make a key picture of it.
    pub force_key: bool,
}

/// As [`Session`], whatever the codec does.
pub trait Coder: Send {
    /// See [`Session::room`].
    fn room(&self) -> bool;
    /// See [`Session::push`].
    fn push(&mut self, bytes: Vec<u8>, note: InputNote);
    /// See [`Session::drain`].
    fn drain(&mut self);
    /// See [`Session::flush`].
    fn flush(&mut self);
    /// See [`Session::poll`].
    fn poll(&mut self) -> Option<Event<Box<dyn Output>>>;
    /// See [`Session::look_after`].
    fn look_after(&self) -> Option<Duration>;
    /// See [`Session::counters`].
    fn counters(&self) -> Counters;
    /// Encodes otherwise from now on.
    fn adjust(&mut self, settings: EncoderSettings);
    /// The number of the process in which it codes; 0 where that is this one.
    fn process(&self) -> u32 {
        0
    }
}

fn boxed<O: Output + 'static>(event: Event<O>) -> Event<Box<dyn Output>> {
    match event {
        Event::Size(size) => Event::Size(size),
        Event::Output(output) => Event::Output(Box::new(output)),
        Event::Drained => Event::Drained,
        Event::Flushed => Event::Flushed,
        Event::Failed(error) => Event::Failed(error),
    }
}

impl Coder for Decoder {
    fn room(&self) -> bool {
        Session::room(self)
    }

    fn push(&mut self, bytes: Vec<u8>, note: InputNote) {
        Session::push(self, bytes, note.timestamp);
    }

    fn drain(&mut self) {
        Session::drain(self);
    }

    fn flush(&mut self) {
        Session::flush(self);
    }

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        Session::poll(self).map(boxed)
    }

    fn look_after(&self) -> Option<Duration> {
        Session::look_after(self)
    }

    fn counters(&self) -> Counters {
        Session::counters(self)
    }

    fn adjust(&mut self, _settings: EncoderSettings) {}
}

/// An encoder and how its pictures lie.
struct PictureEncoder {
    encoder: Encoder,
    layout: Layout,
    size: Size,
}

impl Coder for PictureEncoder {
    fn room(&self) -> bool {
        self.encoder.room()
    }

    fn push(&mut self, bytes: Vec<u8>, note: InputNote) {
        // The device has made it as long as the layout says.
        let Some(picture) = RawPicture::new(&self.layout, self.size, bytes) else {
            return;
        };
        let picture = if note.force_key {
            picture.as_key()
        } else {
            picture
        };
        self.encoder.push(picture, note.timestamp);
    }

    fn drain(&mut self) {
        self.encoder.drain();
    }

    fn flush(&mut self) {
        self.encoder.flush();
    }

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        self.encoder.poll().map(boxed)
    }

    fn look_after(&self) -> Option<Duration> {
        self.encoder.look_after()
    }

    fn counters(&self) -> Counters {
        self.encoder.counters()
    }

    fn adjust(&mut self, settings: EncoderSettings) {
        self.encoder.adjust(settings);
    }
}

/// Where codecs come from.
pub trait Codecs: Send {
    /// Opens one.
    ///
    /// # Errors
    /// It is not offered, or the host has no room for it.
    fn open(&mut self, job: &Job) -> Result<Box<dyn Coder>, CodecError>;
}

/// Codecs of GStreamer.
pub struct HostCodecs {
    /// Which there are.
    pub library: Library,
    /// What each gets.
    pub host: Host,
}

impl Codecs for HostCodecs {
    fn open(&mut self, job: &Job) -> Result<Box<dyn Coder>, CodecError> {
        Ok(match *job {
            Job::Decode(codec) => Box::new(Decoder::open(&self.library, codec, &self.host)?),
            Job::Encode(codec, layout, size, settings) => Box::new(PictureEncoder {
                encoder: Encoder::open(
                    &self.library,
                    codec,
                    (&layout, size),
                    settings,
                    &self.host,
                )?,
                layout,
                size,
            }),
        })
    }
}
