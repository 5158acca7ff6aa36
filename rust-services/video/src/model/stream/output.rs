// SPDX-License-Identifier: Apache-2.0

//! Out of the codec into the output queue.

use agl_virtio_codec::{Event as Told, Size};

use super::resources::{Waiting, has_room, touching};
use super::{Drain, Stream};
use crate::coder::{Output, PutError};
use crate::model::{Access, Function, Guest, Outbox, Shared};
use crate::wire::{Answer, Done, Event, MAX_PLANES, Refusal};

impl<G: Guest> Stream<G> {
    /// Gives what came out to the driver. Whether there was something that could be.
    pub(super) fn take_out(&mut self, shared: &Shared, guest: &G, out: &mut Outbox) -> bool {
        if self.failed {
            return false;
        }
        if self.flushing.is_empty() {
            if self.untold {
                return false;
            }
            if self.ready.is_some() {
                return self.deliver(guest, out);
            }
            if self.drain == Drain::End {
                return self.deliver_end(out);
            }
        }
        let Some(event) = self.coder.as_mut().and_then(|coder| coder.poll()) else {
            return false;
        };
        match event {
            Told::Size(size) => self.resized(size, shared, out),
            Told::Output(output) => self.ready = Some(output),
            Told::Drained => self.drain = Drain::End,
            Told::Flushed => {
                for ticket in std::mem::take(&mut self.flushing) {
                    out.answer(ticket, self.id, Answer::Ok);
                }
            }
            Told::Failed(error) => {
                shared.statistics.codec_failed(&error);
                self.fail(&error.to_string(), out);
            }
        }
        true
    }

    pub(super) fn resized(&mut self, size: Size, shared: &Shared, out: &mut Outbox) {
        if !shared.formats.limits().allow(size) {
            return self.fail(
                &format!("its pictures of {size} are larger than allowed"),
                out,
            );
        }
        self.size = Some(size);
        self.chosen.resize(size);
        if !self.reckon(shared) {
            let reason = format!("with its pictures of {size} the guest has too many pixels");
            return self.fail(&reason, out);
        }
        self.untold = true;
        out.events.push((self.id, Event::ResolutionChanged));
    }

    pub(super) fn deliver(&mut self, guest: &G, out: &mut Outbox) -> bool {
        let Some(Waiting::Resource { ticket, id, .. }) = self.output.take() else {
            return false;
        };
        let Some(output) = self.ready.take() else {
            return false;
        };
        let planes = self
            .output
            .resources
            .get(&id)
            .map(|resource| &resource.planes);
        let planes = planes.map_or(&[][..], Vec::as_slice);
        let write = || self.write(guest, planes, &*output);
        let written = touching(guest, planes, Access::Write, write).unwrap_or(Ok(None));
        let answer = match written {
            Ok(Some(done)) => Answer::Done(done),
            Ok(None) => {
                // Another resource may be large enough.
                self.ready = Some(output);
                Answer::Refused(Refusal::InvalidParameter)
            }
            Err(reason) => {
                out.answer(ticket, self.id, Answer::Refused(Refusal::InvalidOperation));
                self.fail(&reason, out);
                return true;
            }
        };
        out.answer(ticket, self.id, answer);
        true
    }

    /// Writes an output. Nothing where the memory is too small for it or not there any more.
    pub(super) fn write(
        &self,
        guest: &G,
        planes: &[G::Buffer],
        output: &dyn Output,
    ) -> Result<Option<Done>, String> {
        let (layout, per_plane) = (&self.chosen.layout, self.chosen.per_plane);
        let coded = self.function == Function::Encoder;
        let bytes = output.sizes(layout);
        let total = bytes
            .iter()
            .fold(0_usize, |sum, one| sum.saturating_add(*one));
        let fits = if coded {
            planes
                .first()
                .is_some_and(|plane| guest.len(plane) >= total)
        } else {
            has_room(guest, planes, layout, per_plane)
        };
        if !fits {
            return Ok(None);
        }
        let offsets: Vec<usize> = layout.planes().iter().map(|plane| plane.offset).collect();
        let written = output.write(layout, &mut |plane, offset, bytes| {
            let (buffer, offset) = if coded {
                (planes.first(), offset)
            } else if per_plane {
                (planes.get(plane), offset)
            } else {
                let begin = offsets.get(plane).copied().unwrap_or(usize::MAX);
                (planes.first(), begin.saturating_add(offset))
            };
            let buffer = buffer.ok_or(PutError::Memory)?;
            if guest.write(buffer, offset, bytes) {
                Ok(())
            } else {
                Err(PutError::Memory)
            }
        });
        let copies = match written {
            Ok(copies) => copies,
            Err(PutError::Memory) => return Ok(None),
            Err(PutError::Codec(reason)) => return Err(reason),
        };
        self.session.delivered(copies);
        let mut done = Done {
            end: false,
            key: output.is_key(),
            timestamp: output.timestamp(),
            sizes: [0; MAX_PLANES],
        };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        if per_plane && !coded {
            for (size, bytes) in done.sizes.iter_mut().zip(bytes) {
                *size = small(bytes);
            }
        } else if let Some(size) = done.sizes.first_mut() {
            *size = small(total);
        }
        Ok(Some(done))
    }

    pub(super) fn deliver_end(&mut self, out: &mut Outbox) -> bool {
        let Some(Waiting::Resource { ticket, .. }) = self.output.take() else {
            return false;
        };
        self.drain = Drain::None;
        let done = Done {
            end: true,
            ..Done::default()
        };
        out.answer(ticket, self.id, Answer::Done(done));
        true
    }
}
