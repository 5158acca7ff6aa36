// SPDX-License-Identifier: Apache-2.0

//! From the OUTPUT queue into the codec.

use agl_virtio_codec::coder::{InputNote, Job};

use super::Way;
use super::controls::settings;
use super::formats::Chosen;
use super::stream::{Drain, Origin, Stream, Workshop};
use crate::controls::Controls;
use crate::function::Context;
use crate::queue::{Filled, Queued};
use crate::statistics::Work;
use crate::v4l2::{BufType, BufferFlags};

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
        self.describe(chosen, shop);
        Ok(())
    }

    /// Tells the bus what it does.
    pub(super) fn describe(&self, chosen: &Chosen, shop: &Workshop<'_>) {
        let work = Work {
            what: super::formats::fourcc(chosen.codec),
            width: chosen.visible.width,
            height: chosen.visible.height,
            rate: match self.way {
                Way::Decode => 0,
                Way::Encode => chosen.rate(),
            },
        };
        shop.statistics.works(self.session, Some(work));
    }

    fn push(
        &mut self,
        chosen: &Chosen,
        queued: &Queued,
        shop: &Workshop<'_>,
        context: &mut Context<'_>,
    ) {
        let bytes = match self.way {
            Way::Decode => coded(queued, context),
            Way::Encode => picture(chosen, queued, context),
        };
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
            None => {
                // The guest has taken the memory away, or has less there than a picture.
                filled.flags = kept.with(BufferFlags::ERROR);
                shop.statistics.damaged();
            }
        }
        self.give_back(BufType::OutputMplane, queued.index, filled, context.outbox);
    }
}

fn length(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Copies coded bytes out of the guest's memory.
fn coded(queued: &Queued, context: &Context<'_>) -> Option<Vec<u8>> {
    let (pages, words) = (queued.planes.first()?, queued.plane_words.first()?);
    // The queue has made sure of this order when it took the buffer.
    let from = length(words.data_offset);
    let mut bytes = vec![0; length(words.bytesused).checked_sub(from)?];
    pages.read(context.memory, from, &mut bytes).ok()?;
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
