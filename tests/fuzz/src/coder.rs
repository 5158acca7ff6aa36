// SPDX-License-Identifier: Apache-2.0

//! A codec that says what the fuzzer likes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agl_virtio_codec::coder::{Coder, Codecs, InputNote, Job, Output, Put, PutError};
use agl_virtio_codec::{CodecError, Counters, EncoderSettings, Event, Layout, Size};
use arbitrary::Arbitrary;

/// What a codec says.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Word {
    Size(u8, u8),
    Output(u8),
    Drained,
    Flushed,
    Failed,
}

#[derive(Debug)]
struct Frame(u64);

impl Output for Frame {
    fn timestamp(&self) -> u64 {
        self.0
    }

    fn is_key(&self) -> bool {
        self.0 & 1 == 0
    }

    fn sizes(&self, layout: &Layout) -> Vec<usize> {
        layout.planes().iter().map(|plane| plane.size()).collect()
    }

    fn write(&self, layout: &Layout, put: &mut Put<'_>) -> Result<u32, PutError> {
        for (number, plane) in layout.planes().iter().enumerate() {
            put(number, plane.size().saturating_sub(1), &[7])?;
        }
        Ok(1)
    }
}

/// What all codecs of a device are going to say.
pub type Says = Arc<Mutex<VecDeque<Word>>>;

struct Talker(Says);

impl Coder for Talker {
    fn room(&self) -> bool {
        true
    }

    fn push(&mut self, _bytes: Vec<u8>, _note: InputNote) {}

    fn drain(&mut self) {}

    fn flush(&mut self) {}

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        Some(match self.0.lock().unwrap().pop_front()? {
            Word::Size(width, height) => Event::Size(Size::new(u32::from(width) + 1, u32::from(height) + 1)),
            Word::Output(timestamp) => Event::Output(Box::new(Frame(timestamp.into()))),
            Word::Drained => Event::Drained,
            Word::Flushed => Event::Flushed,
            Word::Failed => Event::Failed(CodecError::NoCodec),
        })
    }

    fn look_after(&self) -> Option<Duration> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn adjust(&mut self, _settings: EncoderSettings) {}
}

/// Codecs that talk.
pub struct Talkers(pub Says);

impl Codecs for Talkers {
    fn open(&mut self, _job: &Job) -> Result<Box<dyn Coder>, CodecError> {
        Ok(Box::new(Talker(Arc::clone(&self.0))))
    }
}
