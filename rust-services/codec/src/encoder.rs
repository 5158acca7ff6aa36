// SPDX-License-Identifier: Apache-2.0

//! Pictures in, access units out.

use std::time::Duration;

use gstreamer as gst;
use gstreamer_video::{VideoFrameFlags, VideoMeta};

use crate::codec::Codec;
use crate::elements::Library;
use crate::error::CodecError;
use crate::layout::{Layout, Plane, Size};
use crate::ledger::{Unit, write_number};
use crate::session::{Counters, Event, Host, Plan, Raw, Running, SINK, SOURCE, Session};
use crate::settings::EncoderSettings;

/// A picture to be encoded, in memory of its own.
#[derive(Debug)]
pub struct RawPicture {
    buffer: gst::Buffer,
    force_key: bool,
}

impl RawPicture {
    /// A picture of this layout, of which `size` is seen from its origin on. `bytes` are all its planes,
    /// one after the other; they are not copied: the encoder reads rows from where what is seen begins.
    /// Nothing where they are too few, or that is not all in the layout.
    #[must_use]
    pub fn new(layout: &Layout, size: Size, bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() < layout.bytes() || !layout.holds(size) {
            return None;
        }
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let planes = layout.planes();
        let seen = |plane: &Plane| plane.offset.saturating_add(plane.seen);
        let offsets: Vec<usize> = planes.iter().map(seen).collect();
        let strides: Vec<i32> = planes
            .iter()
            .map(|plane| i32::try_from(plane.stride).unwrap_or(i32::MAX))
            .collect();
        VideoMeta::add_full(
            buffer.get_mut()?,
            VideoFrameFlags::empty(),
            layout.format.video_format(),
            size.width,
            size.height,
            &offsets,
            &strides,
        )
        .ok()?;
        Some(Self {
            buffer,
            force_key: false,
        })
    }

    /// Asks for a key picture.
    #[must_use]
    pub fn as_key(mut self) -> Self {
        self.force_key = true;
        self
    }
}

/// A coded picture.
#[derive(Debug)]
pub struct AccessUnit {
    buffer: gst::Buffer,
    timestamp: u64,
    key: bool,
    /// How often its bytes were copied to get here.
    copied: u32,
}

impl AccessUnit {
    /// One that came out of another process's memory.
    pub(crate) fn of_bytes(bytes: Vec<u8>, timestamp: u64, key: bool) -> Self {
        Self {
            buffer: gst::Buffer::from_mut_slice(bytes),
            timestamp,
            key,
            copied: 2,
        }
    }

    /// How often each byte was copied, once it is written.
    pub(crate) fn copies(&self) -> u32 {
        self.copied.saturating_add(1)
    }

    /// The timestamp of the picture that it was made of.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Whether decoding can begin with it.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.key
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buffer.size()
    }

    /// Calls `put(offset, bytes)` with runs of its bytes.
    ///
    /// # Errors
    /// What `put` says.
    pub fn write<E>(&self, mut put: impl FnMut(usize, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut offset = 0_usize;
        for memory in self.buffer.iter_memories() {
            let Ok(map) = memory.map_readable() else {
                continue;
            };
            put(offset, map.as_slice())?;
            offset = offset.saturating_add(map.len());
        }
        Ok(())
    }
}

/// An encoder of pictures of one layout and size.
pub struct Encoder {
    running: Running,
    settings: EncoderSettings,
    /// Pictures, which the internal time of the next one follows from.
    pushed: u64,
}

impl Encoder {
    /// Starts one. What goes wrong with its pipeline is told by [`Event::Failed`].
    ///
    /// # Errors
    /// As [`Decoder::open`](crate::Decoder::open).
    pub fn open(
        library: &Library,
        codec: Codec,
        (layout, size): (&Layout, Size),
        settings: EncoderSettings,
        host: &Host,
    ) -> Result<Self, CodecError> {
        let elements = library.encoder(codec)?;
        if !layout.holds(size) {
            return Err(CodecError::Start {
                codec,
                reason: format!("{size} of a picture of {} is not in it", layout.size),
            });
        }
        let settings = settings.fitting(codec, size);
        let side = |pixels: u32| i32::try_from(pixels).unwrap_or(i32::MAX);
        let plan = Plan {
            codec,
            description: format!(
                "appsrc name={SOURCE} ! videoconvert ! {elements} ! appsink name={SINK}"
            ),
            input: gst::Caps::builder("video/x-raw")
                .field("format", layout.format.video_format().to_str())
                .field("width", side(size.width))
                .field("height", side(size.height))
                .field("framerate", settings.frame_rate.fraction())
                .build(),
            output: settings.caps(codec.output_caps(), elements),
            frames: None,
            settings: Some(settings),
        };
        let running = Running::start(plan, host, library.admit()?)?;
        Ok(Self {
            running,
            settings,
            pushed: 0,
        })
    }

    /// Changes bit rate, its mode and the distance of key pictures of what comes next. The rest stays
    /// as the encoder was started.
    pub fn adjust(&mut self, settings: EncoderSettings) {
        self.settings = EncoderSettings {
            bitrate: settings.bitrate,
            mode: settings.mode,
            key_interval: settings.key_interval,
            ..self.settings
        };
        self.running.adjust(self.settings);
    }

    /// How it encodes.
    #[must_use]
    pub fn settings(&self) -> &EncoderSettings {
        &self.settings
    }
}

impl Session for Encoder {
    type Input = RawPicture;
    type Output = AccessUnit;

    fn room(&self) -> bool {
        self.running.room()
    }

    fn push(&mut self, input: RawPicture, timestamp: u64) {
        let RawPicture {
            mut buffer,
            force_key,
        } = input;
        let number = self.running.shared.lock().ledger.book(Unit {
            timestamp,
            key: false,
            force_key,
        });
        let begin = |number| self.settings.frame_rate.begin_of(number);
        let (now, next) = (begin(self.pushed), begin(self.pushed.saturating_add(1)));
        if let Some(buffer) = buffer.get_mut() {
            write_number(buffer, number);
            buffer.set_pts(gst::ClockTime::from_nseconds(now));
            buffer.set_duration(gst::ClockTime::from_nseconds(next.saturating_sub(now)));
        }
        self.pushed = self.pushed.saturating_add(1);
        self.running.push(buffer);
    }

    fn drain(&mut self) {
        self.running.drain();
    }

    fn flush(&mut self) {
        self.running.flush();
    }

    fn poll(&mut self) -> Option<Event<AccessUnit>> {
        loop {
            return Some(match self.running.poll()? {
                // Only what goes in has a size that matters.
                Raw::Size(_) => continue,
                Raw::Sample(sample, unit) => match sample.buffer_owned() {
                    Some(buffer) => Event::Output(AccessUnit {
                        key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                        timestamp: unit.timestamp,
                        buffer,
                        copied: 0,
                    }),
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
