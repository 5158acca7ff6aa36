// SPDX-License-Identifier: Apache-2.0

//! A partition that is one guest's alone: frames go through as they are, and nobody on the host has
//! a key.

use std::sync::Arc;

use super::{Card, MOST_BYTES, result_read};
use crate::engine::{Limits, Request, Responder};
use crate::statistics::Statistics;
use crate::trouble::Trouble;
use crate::wire::{FRAME_SIZE, Frame, OpResult, RequestType, response_to};

/// Frames that a host's kernel takes at once.
const MOST_FRAMES: usize = MOST_BYTES / FRAME_SIZE;

/// Hands requests to a card.
pub struct Passthrough {
    card: Box<dyn Card>,
    limits: Limits,
    statistics: Arc<Statistics>,
    trouble: Trouble,
}

impl Passthrough {
    /// Of this card, as far as the limits allow.
    #[must_use]
    pub fn new(card: Box<dyn Card>, limits: Limits, statistics: Arc<Statistics>) -> Self {
        Self {
            card,
            limits,
            statistics,
            trouble: Trouble::default(),
        }
    }

    /// Whether the card is to see it: it is left alone with what a virtio device refuses and a card
    /// may not.
    fn is_permitted(&self, request: &Request<'_>, kind: RequestType) -> bool {
        let count = request.first().block_count.get();
        let within = |most: u8| {
            let fits = usize::from(count) <= MOST_FRAMES;
            count != 0 && fits && (most == 0 || count <= u16::from(most))
        };
        let wants_result = request.result_read().is_some();
        match kind {
            RequestType::DataWrite => {
                within(self.limits.most_written) && usize::from(count) == request.frames().len()
            }
            RequestType::ProgramKey => count == 1 && request.single().is_some(),
            RequestType::DataRead => {
                within(self.limits.most_read)
                    && request.single().is_some()
                    && usize::from(count) <= request.room()
                    && !wants_result
            }
            RequestType::GetWriteCounter => {
                count == 1 && request.single().is_some() && !wants_result
            }
            // The card's register is that of a sequence, and each is whole.
            RequestType::ResultRead => false,
        }
    }

    fn pass(&mut self, request: &Request<'_>, kind: RequestType) -> std::io::Result<Vec<Frame>> {
        let frames = match kind {
            RequestType::DataRead => usize::from(request.first().block_count.get()),
            _ => 1,
        };
        let mut answer = vec![Frame::default(); frames];
        let wish = result_read();
        let changes = matches!(kind, RequestType::DataWrite | RequestType::ProgramKey);
        self.card
            .exchange(request.frames(), changes.then_some(&wish), &mut answer)?;
        Ok(answer)
    }

    /// What the card's own answer says of it.
    fn note(&self, kind: RequestType, answer: &[Frame]) -> OpResult {
        let Some(last) = answer.last() else {
            return OpResult::GeneralFailure;
        };
        let result = OpResult::of(last.result.get()).unwrap_or(OpResult::GeneralFailure);
        let counts = matches!(kind, RequestType::DataWrite | RequestType::GetWriteCounter);
        let counter = if counts && result == OpResult::Ok {
            last.write_counter.get()
        } else {
            self.statistics.counter()
        };
        self.statistics
            .stands(result != OpResult::NoAuthKey, counter, false);
        let blocks = u64::from(last.block_count.get());
        match kind {
            RequestType::DataRead if result == OpResult::Ok => self.statistics.read(blocks),
            _ => {}
        }
        result
    }
}

impl Responder for Passthrough {
    fn answer(&mut self, request: &Request<'_>) -> Vec<Frame> {
        let code = request.first().req_resp.get();
        let kind = RequestType::of(code).filter(|kind| self.is_permitted(request, *kind));
        let passed = kind
            .filter(|_| !request.is_suspect())
            .map(|kind| (kind, self.pass(request, kind)));
        let (result, answer) = match passed {
            Some((kind, Ok(answer))) => {
                self.trouble.over();
                (self.note(kind, &answer), answer)
            }
            Some((_, Err(error))) => {
                self.trouble
                    .met(&format_args!("the card does not answer: {error}"));
                let (key, counter) = (self.statistics.key_programmed(), self.statistics.counter());
                self.statistics.stands(key, counter, true);
                (OpResult::GeneralFailure, vec![refusal(code)])
            }
            None => (OpResult::GeneralFailure, vec![refusal(code)]),
        };
        self.statistics.answered(code, result);
        let silent = matches!(
            RequestType::of(code),
            Some(RequestType::DataWrite | RequestType::ProgramKey)
        ) && request.result_read().is_none();
        if silent { Vec::new() } else { answer }
    }
}

/// Unsigned: the key is the card's and the guest's.
fn refusal(code: u16) -> Frame {
    let mut frame = Frame::of(response_to(code));
    frame.result.set(OpResult::GeneralFailure.code());
    frame
}
