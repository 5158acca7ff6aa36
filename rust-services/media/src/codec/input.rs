// SPDX-License-Identifier: Apache-2.0

//! From the OUTPUT queue into the codec.

use agl_virtio_codec::coder::{InputNote, Job};
use agl_virtio_service::limited;

use super::Way;
use super::controls::settings;
use super::formats::Chosen;
use super::stream::{Drain, Origin, Stream, Workshop};
use crate::controls::Controls;
use crate::function::Context;
use crate::queue::{Filled, Queued};
use crate::v4l2::{BufType, BufferFlags, Plane};

impl Stream {
    /// Hands the first input to the codec. Whether there was one that could be.
    pub(super) fn put_in(
        &mut self,
        chosen: &Chosen,
        controls: &Controls,
        shop: &mut Workshop<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, String> {
        let encodes = self.way == Way::Encode;
        if !self.output.streams()
            || (encodes && !self.capture.streams())
            || self.stopped
            || self.flushing
        {
            return Ok(false);
        }
        match self.drain {
            Drain::Codec | Drain::Unwanted => return Ok(false),
            Drain::Asked(0) => {
                match &mut self.coder {
                    Some(coder) => {
                        coder.drain();
                        self.drain = Drain::Codec;
                    }
                    // Nothing in, nothing out.
                    None => self.end(context.outbox),
                }
                return Ok(true);
            }
            Drain::None | Drain::Asked(_) => {}
        }
        if self.output.waiting() == 0 {
            return Ok(false);
        }
        if self.coder.is_none() {
            self.open(chosen, controls, shop)?;
        }
        if !self.coder.as_ref().is_some_and(|coder| coder.room()) {
            return Ok(false);
        }
        let Some(queued) = self.output.take() else {
            return Ok(false);
        };
        if let Drain::Asked(left) = &mut self.drain {
            *left = left.saturating_sub(1);
        }
        self.push(chosen, &queued, shop, context);
        Ok(true)
    }

    fn open(
        &mut self,
        chosen: &Chosen,
        controls: &Controls,
        shop: &mut Workshop<'_>,
    ) -> Result<(), String> {
        let job = match self.way {
            Way::Decode => Job::Decode(chosen.codec),
            Way::Encode => {
                let settings = settings(controls, chosen);
                Job::Encode(chosen.codec, chosen.layout, chosen.visible, settings)
            }
        };
        let rate = self.rate(chosen);
        if !self.reckon(chosen.visible, rate, shop) {
            return Err("with its pictures the guest has too many pixels".to_owned());
        }
        let coder = shop.codecs.open(&job);
        self.coder = Some(coder.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn push(
        &mut self,
        chosen: &Chosen,
        queued: &Queued,
        shop: &Workshop<'_>,
        context: &mut Context<'_>,
    ) {
        let bytes = self.fetch(chosen, queued, shop, context);
        let buffer = &queued.buffer;
        let kept = BufferFlags(buffer.flags & BufferFlags::KEPT.0);
        let mut filled = Filled {
            seconds: buffer.seconds,
            microseconds: buffer.microseconds,
            timecode: buffer.timecode,
            flags: kept,
            ..Filled::default()
        };
        match bytes {
            Some(bytes) => {
                let timestamp = self.note(Origin {
                    seconds: buffer.seconds,
                    microseconds: buffer.microseconds,
                    flags: kept.0,
                    timecode: buffer.timecode,
                });
                let note = InputNote {
                    timestamp,
                    force_key: std::mem::take(&mut self.force_key),
                };
                shop.statistics.taken(bytes.len());
                if let (Some(coder), false) = (&mut self.coder, bytes.is_empty()) {
                    coder.push(bytes, note);
                }
            }
            None => filled.flags = kept.with(BufferFlags::ERROR),
        }
        self.give_back(BufType::OutputMplane, queued.index, filled, context.outbox);
    }

    /// Copies an input out of the guest's memory; nothing where that may not or cannot be.
    fn fetch(
        &mut self,
        chosen: &Chosen,
        queued: &Queued,
        shop: &Workshop<'_>,
        context: &Context<'_>,
    ) -> Option<Vec<u8>> {
        let words = queued.plane_words.first()?;
        let bytes = match self.way {
            Way::Decode => coded_bytes(words),
            Way::Encode => chosen.layout.bytes(),
        };
        if !self.may_hold(bytes, shop) {
            let session = self.session;
            limited!(
                log::Level::Warn,
                "session {session} wants its codec to hold {bytes} bytes and more, and may not"
            );
            shop.statistics.over_budget();
            return None;
        }
        let read = match self.way {
            Way::Decode => coded(queued, words, context),
            Way::Encode => picture(chosen, queued, context),
        };
        if read.is_none() {
            // The guest has taken the memory away, or has less there than a picture.
            shop.statistics.damaged();
        }
        read
    }
}

fn length(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What is coded in a plane.
fn coded_bytes(words: &Plane) -> usize {
    // The queue has made sure of this order when it took the buffer.
    length(words.bytesused.saturating_sub(words.data_offset))
}

/// Copies it out of the guest's memory.
fn coded(queued: &Queued, words: &Plane, context: &Context<'_>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; coded_bytes(words)];
    let pages = queued.planes.first()?;
    pages
        .read(context.memory, length(words.data_offset), &mut bytes)
        .ok()?;
    Some(bytes)
}

/// Copies a picture out of the guest's memory, its planes one behind the other.
fn picture(chosen: &Chosen, queued: &Queued, context: &Context<'_>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; chosen.layout.bytes()];
    let from = |plane: usize| {
        let words = queued.plane_words.get(plane)?;
        Some((queued.planes.get(plane)?, length(words.data_offset)))
    };
    if !chosen.raw.apart {
        let (pages, offset) = from(0)?;
        pages.read(context.memory, offset, &mut bytes).ok()?;
        return Some(bytes);
    }
    for (number, plane) in chosen.layout.planes().iter().enumerate() {
        let end = plane.offset.checked_add(plane.size())?;
        let (pages, offset) = from(number)?;
        let room = bytes.get_mut(plane.offset..end)?;
        pages.read(context.memory, offset, room).ok()?;
    }
    Some(bytes)
}
