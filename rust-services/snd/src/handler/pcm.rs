// SPDX-License-Identifier: Apache-2.0

//! Requests that move a stream.

use virtio_device::{Chain, Io};

use super::SoundHandler;
use super::requests::Outcome;
use crate::backend::Opening;
use crate::clock::nanoseconds;
use crate::mixer::RAMP_MS;
use crate::model::{Action, PcmRequest, check_params};
use crate::wire::{ItemRequest, Request, SetParams, Status};

impl SoundHandler {
    /// Carries out a request about a stream.
    pub(super) fn move_stream(&mut self, io: &mut Io, chain: &Chain, request: Request) -> Outcome {
        let Ok(head) = chain.read_value::<ItemRequest>(io.memory(), 0) else {
            return Status::BadMsg.into();
        };
        let Some((index, stream)) = usize::try_from(head.id.get())
            .ok()
            .and_then(|index| Some((index, self.streams.get(index)?)))
        else {
            return Status::BadMsg.into();
        };
        let wanted = match request {
            Request::PcmSetParams => {
                let set = chain
                    .read_value::<SetParams>(io.memory(), 0)
                    .map_err(|_| Status::BadMsg);
                match set.and_then(|set| check_params(stream.offer(), &set)) {
                    Ok(params) => PcmRequest::SetParams(params),
                    Err(status) => return status.into(),
                }
            }
            Request::PcmPrepare => PcmRequest::Prepare,
            Request::PcmRelease => PcmRequest::Release,
            Request::PcmStart => PcmRequest::Start,
            _ => PcmRequest::Stop,
        };
        // Buffers that were sent before this request belong to the time before it.
        let queue = stream.queue();
        self.take_buffers(io, queue);
        let Some(stream) = self.streams.get_mut(index) else {
            return Status::BadMsg.into();
        };
        let Some((state, action)) = stream.state().after(wanted) else {
            // A process that died after it had carried this out may not have answered.
            let done = chain.deaths() > 0 && stream.state().has_done(wanted);
            return if done {
                Status::Ok.into()
            } else {
                Status::BadMsg.into()
            };
        };
        let returns = matches!(action, Action::Release | Action::Discard);
        let absent = !io.running(queue);
        if returns && absent && (stream.has_buffers() || self.recovering_until.is_some()) {
            return Outcome::Later;
        }
        let now = nanoseconds(io.now());
        match action {
            Action::Nothing => {}
            Action::Discard => stream.release(io, Status::IoErr),
            Action::Open(params) => stream.open(&params, Opening::Prepared, now),
            Action::Start => {
                if let Some(params) = state.params() {
                    stream.start(&params, now);
                }
            }
            Action::Stop => stream.stop(io.record(), now),
            Action::Release => stream.release(io, Status::Ok),
        }
        stream.set_state(state);
        if action != Action::Nothing {
            self.regain(RAMP_MS);
        }
        self.save(io.record());
        Status::Ok.into()
    }
}
