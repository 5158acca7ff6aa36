// SPDX-License-Identifier: Apache-2.0

//! What a driver wants of a stream: formats, sizes, controls.

use agl_virtio_codec::Size;

use super::Stream;
use crate::model::format::is_coded;
use crate::model::{Function, Guest, Shared, controls};
use crate::wire::{Answer, Params, Queue, Refusal};

/// Pictures per second that a stream is reckoned to have when nobody says.
pub(super) const USUAL_RATE: u32 = 30;

impl<G: Guest> Stream<G> {
    pub(super) fn set_params(
        &mut self,
        shared: &Shared,
        params: &Params,
    ) -> Result<Answer, Refusal> {
        let queue = Queue::from_code(params.queue).ok_or(Refusal::InvalidParameter)?;
        let decodes = self.function == Function::Decoder;
        if is_coded(self.function, queue) {
            self.chosen.set_coded(params);
            let size = Size::new(params.width, params.height);
            if decodes && self.size.is_none() && shared.formats.limits().allow(size) {
                // Until a header says it, pictures have the size that the driver supposes.
                self.chosen.resize(size);
            }
            return self.rate_allowed(shared);
        }
        let mut chosen = self.chosen;
        let follow = !decodes || self.size.is_none();
        chosen.set_raw(params, &shared.formats, &*shared.dialect, follow);
        let same = (chosen.layout, chosen.visible, chosen.per_plane)
            == (
                self.chosen.layout,
                self.chosen.visible,
                self.chosen.per_plane,
            );
        if !same && self.side(queue).has_queued() {
            return Err(Refusal::InvalidOperation);
        }
        self.chosen = chosen;
        if !decodes && !same {
            // The next picture begins a new coded stream.
            self.restart();
        }
        self.rate_allowed(shared)
    }

    pub(super) fn rate_allowed(&mut self, shared: &Shared) -> Result<Answer, Refusal> {
        if self.reckon(shared) {
            Ok(Answer::Ok)
        } else {
            Err(Refusal::OutOfMemory)
        }
    }

    /// Whether the guest may have pictures of this size and rate as well.
    pub(super) fn reckon(&mut self, shared: &Shared) -> bool {
        let rate = if self.chosen.frame_rate == 0 {
            USUAL_RATE
        } else {
            self.chosen.frame_rate
        };
        let pixels = self.chosen.visible.pixels().saturating_mul(rate.into());
        self.session
            .describe(self.chosen.visible, self.chosen.frame_rate, pixels);
        shared.statistics.is_within_pixel_rate()
    }

    pub(super) fn restart(&mut self) {
        self.note_counters();
        self.coder = None;
        self.ready = None;
    }

    pub(super) fn set_control(&mut self, control: u32, value: u32) -> Result<Answer, Refusal> {
        let change = controls::set(self.chosen.codec, &mut self.settings, control, value)?;
        match change {
            controls::Change::Adjust => {
                if let Some(coder) = &mut self.coder {
                    coder.adjust(self.settings);
                }
            }
            controls::Change::Restart if self.coder.is_some() => {
                return Err(Refusal::InvalidOperation);
            }
            controls::Change::ForceKey => self.force_key = true,
            controls::Change::Restart | controls::Change::None => {}
        }
        Ok(Answer::Ok)
    }
}
