// SPDX-License-Identifier: Apache-2.0

//! Out of the codec into the CAPTURE queue.

use agl_virtio_codec::coder::{Output, PutError};
use agl_virtio_codec::{Event as Told, Size};

use super::Way;
use super::formats::Chosen;
use super::stream::{Drain, LEAST_BUFFERS, Stream, Workshop};
use crate::function::Context;
use crate::queue::{Filled, Queued};
use crate::v4l2::event::{CHANGED_RESOLUTION, SOURCE_CHANGE};
use crate::v4l2::{BufType, BufferFlags, Event};

impl Stream {
    /// Gives what came out to the driver. Whether there was something that could be.
    pub(super) fn take_out(
        &mut self,
        chosen: &mut Chosen,
        shop: &Workshop<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, String> {
        if self.last_due {
            if self.give_last(context) {
                return Ok(true);
            }
            if !self.flushing {
                return Ok(false);
            }
        }
        if !self.flushing {
            if self.held || self.stopped {
                return Ok(false);
            }
            if self.ready.is_some() {
                return self.deliver(chosen, shop, context);
            }
        }
        let Some(event) = self.coder.as_mut().and_then(|coder| coder.poll()) else {
            return Ok(false);
        };
        match event {
            Told::Size(size) => self.resized(size, chosen, shop, context)?,
            Told::Output(output) => self.ready = Some(output),
            Told::Drained if self.drain == Drain::Unwanted => self.drain = Drain::None,
            Told::Drained => self.end(context.outbox),
            Told::Flushed => self.flushing = false,
            Told::Failed(error) => {
                shop.statistics.codec_failed(&error);
                return Err(error.to_string());
            }
        }
        Ok(true)
    }

    /// An empty buffer that says: nothing more before you go on.
    fn give_last(&mut self, context: &mut Context<'_>) -> bool {
        if !self.capture.streams() {
            return false;
        }
        let Some(queued) = self.capture.take() else {
            return false;
        };
        self.last_due = false;
        let filled = Filled {
            used: vec![0; queued.planes.len()],
            flags: BufferFlags::LAST,
            ..Filled::default()
        };
        self.give_back(BufType::CaptureMplane, queued.index, filled, context.outbox);
        true
    }

    fn resized(
        &mut self,
        size: Size,
        chosen: &mut Chosen,
        shop: &Workshop<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        if !shop.offer.limits.allow(size) {
            return Err(format!("its pictures of {size} are larger than allowed"));
        }
        let before = *chosen;
        chosen.learn(size);
        let rate = self.rate(chosen);
        if !self.reckon(size, rate, shop) {
            return Err(format!(
                "with its pictures of {size} the guest has too many pixels"
            ));
        }
        let streams = self.capture.streams();
        // A program that has guessed it right goes on undisturbed.
        let same = *chosen == before && self.capture.len() >= LEAST_BUFFERS;
        if !streams || !same {
            let change = Event::new(SOURCE_CHANGE, 0, &CHANGED_RESOLUTION.to_le_bytes());
            context.outbox.event(self.session, &change);
        }
        if streams && !same {
            self.held = true;
            self.last_due = true;
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        chosen: &Chosen,
        shop: &Workshop<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, String> {
        if !self.capture.streams() || self.ready.is_none() {
            return Ok(false);
        }
        let Some(queued) = self.capture.take() else {
            return Ok(false);
        };
        let Some(output) = self.ready.take() else {
            return Ok(false);
        };
        let origin = self.origins.get(&output.timestamp()).copied();
        let origin = origin.unwrap_or_default();
        let mut flags = BufferFlags(origin.flags);
        if output.is_key() {
            flags = flags.with(BufferFlags::KEYFRAME);
        } else if self.way == Way::Encode {
            flags = flags.with(BufferFlags::PFRAME);
        }
        let mut filled = Filled {
            used: vec![0; queued.planes.len()],
            flags,
            seconds: origin.seconds,
            microseconds: origin.microseconds,
            timecode: origin.timecode,
            ..Filled::default()
        };
        match self.write(chosen, &queued, &*output, context)? {
            Some(used) => {
                let bytes = used.iter().fold(0_usize, |sum, used| {
                    sum.saturating_add(usize::try_from(*used).unwrap_or(0))
                });
                shop.statistics.shown(bytes);
                filled.used = used;
            }
            None => {
                // The guest has taken the memory away, or made it too small.
                filled.flags = filled.flags.with(BufferFlags::ERROR);
                shop.statistics.damaged();
            }
        }
        self.give_back(BufType::CaptureMplane, queued.index, filled, context.outbox);
        Ok(true)
    }

    /// Writes an output: bytes of each buffer. Nothing where the memory is too small for it or not
    /// there any more.
    fn write(
        &self,
        chosen: &Chosen,
        queued: &Queued,
        output: &dyn Output,
        context: &Context<'_>,
    ) -> Result<Option<Vec<u32>>, String> {
        let sizes: Vec<u32> = match self.way {
            Way::Decode => chosen.raw_sizes(),
            Way::Encode => {
                let bytes = output.sizes(&chosen.layout).into_iter();
                bytes
                    .map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX))
                    .collect()
            }
        };
        let fits = sizes.len() == queued.planes.len()
            && sizes
                .iter()
                .zip(&queued.planes)
                .all(|(size, pages)| usize::try_from(*size).is_ok_and(|size| size <= pages.len()));
        if !fits {
            return Ok(None);
        }
        let apart = chosen.raw.apart || self.way == Way::Encode;
        let offsets: Vec<usize> = chosen
            .layout
            .planes()
            .iter()
            .map(|one| one.offset)
            .collect();
        let written = output.write(&chosen.layout, &mut |plane, offset, bytes| {
            let (plane, offset) = if apart {
                (plane, offset)
            } else {
                let start = offsets.get(plane).copied().unwrap_or(0);
                (0, start.saturating_add(offset))
            };
            let pages = queued.planes.get(plane).ok_or(PutError::Memory)?;
            pages
                .write(context.memory, offset, bytes)
                .map_err(|_| PutError::Memory)
        });
        match written {
            Ok(_) => Ok(Some(sizes)),
            Err(PutError::Memory) => Ok(None),
            Err(PutError::Codec(reason)) => Err(reason),
        }
    }
}
