// SPDX-License-Identifier: Apache-2.0

//! A codec as a device sees it, whichever way it codes: bytes in, outputs out. Devices' tests put a
//! codec of their own here.

use std::time::Duration;

use crate::{
    AccessUnit, Codec, CodecError, Counters, Decoder, Encoder, EncoderSettings, Event, Host,
    Layout, Library, Picture, RawPicture, Session, Size, WriteError,
};

/// What a codec is wanted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
        Ok(1)
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
