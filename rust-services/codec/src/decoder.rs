// SPDX-License-Identifier: Apache-2.0

//! Coded bytes in, pictures out.

use std::time::Duration;

use gstreamer as gst;

use crate::codec::Codec;
use crate::elements::Library;
use crate::error::CodecError;
use crate::frames::Frames;
use crate::ledger::STEP;
use crate::picture::Picture;
use crate::session::{Counters, Event, Host, Plan, Raw, Running, SINK, SOURCE, Session};

/// A decoder.
pub struct Decoder {
    codec: Codec,
    running: Running,
}

impl Decoder {
    /// Starts one. What goes wrong with its pipeline is told by [`Event::Failed`].
    ///
    /// # Errors
    /// The codec is not offered, the process has no thread left, or too many sessions hang.
    pub fn open(library: &Library, codec: Codec, host: &Host) -> Result<Self, CodecError> {
        Self::drawing(library, codec, host, None)
    }

    /// The same, which draws its pictures into these frames as long as there are some.
    pub(crate) fn drawing(
        library: &Library,
        codec: Codec,
        host: &Host,
        frames: Option<Frames>,
    ) -> Result<Self, CodecError> {
        let elements = library.decoder(codec)?;
        let plan = Plan {
            codec,
            description: format!(
                "appsrc name={SOURCE} ! {elements} ! videoconvert ! appsink name={SINK}"
            ),
            input: codec.input_caps(),
            // What a picture can be written from without a conversion.
            output: gst::Caps::builder("video/x-raw")
                .field("format", gst::List::new(["NV12", "I420", "YV12"]))
                .build(),
            settings: None,
            frames,
        };
        let running = Running::start(plan, host, library.admit()?)?;
        Ok(Self { codec, running })
    }
}

impl Session for Decoder {
    /// Bytes of coded stream: a piece of any length of a byte stream, else one frame.
    type Input = Vec<u8>;
    type Output = Picture;

    fn room(&self) -> bool {
        self.running.room()
    }

    fn push(&mut self, input: Vec<u8>, timestamp: u64) {
        let time = self.running.shared.lock().ledger.piece(timestamp);
        let delta = self.codec == Codec::Vp8 && input.first().is_some_and(|byte| byte & 1 == 1);
        let mut buffer = gst::Buffer::from_mut_slice(input);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(time);
            buffer.set_duration(gst::ClockTime::from_nseconds(STEP));
            if delta {
                // Nothing parses VP8; its first bit says so (RFC 6386, 9.1).
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        self.running.push(buffer);
    }

    fn drain(&mut self) {
        self.running.drain();
    }

    fn flush(&mut self) {
        self.running.flush();
    }

    fn poll(&mut self) -> Option<Event<Picture>> {
        loop {
            return Some(match self.running.poll()? {
                Raw::Size(size) => Event::Size(size),
                Raw::Sample(sample, unit) => match Picture::new(&sample, unit) {
                    Some(picture) => Event::Output(picture),
                    None => continue,
                },
                Raw::Drained => Event::Drained,
                Raw::Flushed => Event::Flushed,
                Raw::Failed(error) => Event::Failed(error),
            });
        }
    }

    fn look_after(&self) -> Option<Duration> {
        self.running.look_after()
    }

    fn counters(&self) -> Counters {
        self.running.shared.lock().counters
    }
}
