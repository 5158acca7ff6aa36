// SPDX-License-Identifier: Apache-2.0

//! From the input queue into the codec.

use agl_virtio_codec::{EncoderSettings, FrameRate};

use super::resources::{Waiting, touching};
use super::wishes::USUAL_RATE;
use super::{Drain, Stream};
use crate::coder::{Codecs, InputNote, Job};
use crate::model::{Access, Function, Guest, Outbox};
use crate::wire::{Answer, Done, Refusal};

impl<G: Guest> Stream<G> {
    /// Hands the first input to the codec. Whether there was one that could be.
    pub(super) fn put_in(&mut self, codecs: &mut dyn Codecs, guest: &G, out: &mut Outbox) -> bool {
        if self.failed || self.drain != Drain::None || !self.flushing.is_empty() {
            return false;
        }
        match self.input.waiting.front() {
            None => return false,
            Some(Waiting::Drain) => {
                self.input.waiting.pop_front();
                self.drain = match &mut self.coder {
                    Some(coder) => {
                        coder.drain();
                        Drain::Codec
                    }
                    // Nothing in, nothing out.
                    None => Drain::End,
                };
                return true;
            }
            Some(Waiting::Resource { .. }) => {}
        }
        if self.coder.is_none() {
            match codecs.open(&self.job()) {
                Ok(coder) => self.coder = Some(coder),
                Err(error) => {
                    self.fail(&error.to_string(), out);
                    return false;
                }
            }
        }
        if !self.coder.as_ref().is_some_and(|coder| coder.room()) {
            return false;
        }
        let Some(Waiting::Resource {
            ticket,
            id,
            timestamp,
            bytes,
        }) = self.input.take()
        else {
            return false;
        };
        let resource = self.input.resources.get(&id);
        let planes = resource.map_or(&[][..], |resource| &resource.planes);
        let fetch = || self.fetch(guest, id, bytes);
        let read = touching(guest, planes, Access::Read, fetch).flatten();
        let answer = match read {
            None => Answer::Refused(Refusal::InvalidParameter),
            Some(read) => {
                let note = InputNote {
                    timestamp,
                    force_key: std::mem::take(&mut self.force_key),
                };
                self.session.copied_in(read.len());
                if let (Some(coder), false) = (&mut self.coder, read.is_empty()) {
                    coder.push(read, note);
                }
                Answer::Done(Done {
                    timestamp,
                    ..Done::default()
                })
            }
        };
        out.answer(ticket, self.id, answer);
        true
    }

    pub(super) fn job(&self) -> Job {
        match self.function {
            Function::Decoder => Job::Decode(self.chosen.codec),
            Function::Encoder => Job::Encode(
                self.chosen.codec,
                self.chosen.layout,
                self.chosen.visible,
                EncoderSettings {
                    frame_rate: FrameRate::per_second(match self.chosen.frame_rate {
                        0 => USUAL_RATE,
                        rate => rate,
                    }),
                    ..self.settings
                },
            ),
        }
    }

    /// Copies an input out of the guest's memory.
    pub(super) fn fetch(&self, guest: &G, id: u32, bytes: u32) -> Option<Vec<u8>> {
        let planes = &self.input.resources.get(&id)?.planes;
        let first = planes.first()?;
        if self.function == Function::Decoder {
            let mut read = vec![0; bytes as usize];
            return guest.read(first, 0, &mut read).then_some(read);
        }
        let layout = &self.chosen.layout;
        let mut read = vec![0; layout.bytes()];
        if !self.chosen.per_plane {
            return guest.read(first, 0, &mut read).then_some(read);
        }
        for (buffer, plane) in planes.iter().zip(layout.planes()) {
            let end = plane.offset.checked_add(plane.size())?;
            let room = read.get_mut(plane.offset..end)?;
            if !guest.read(buffer, 0, room) {
                return None;
            }
        }
        Some(read)
    }
}
