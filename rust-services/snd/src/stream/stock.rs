// SPDX-License-Identifier: Apache-2.0

//! A stream whose back end has a clock of its own: the stock that lies between the two clocks, and
//! the stream's clock, which is steered by it.
//!
//! Steering changes a stock by a millisecond in a second, so it cannot make one. An output begins
//! with a stock of silence. An input is left alone until it has one: at its start, and when it ran
//! out, for a long hole is better than many short ones.

use super::Stream;
use crate::backend::Pacing;
use crate::backend::pipe::ServerState;
use crate::clock::Clock;
use crate::format::Params;
use crate::wire::Direction;

/// What is kept after an over-run of a live source that has no stock, in milliseconds.
const KEEP_MS: u32 = 10;

impl Stream {
    /// Whether `bytes` of an input are not to be taken yet, because its stock is not whole. What is
    /// there already is heard later.
    pub(super) fn is_filling(&mut self, bytes: usize, params: &Params) -> bool {
        let Pacing::Device { target_ms } = self.pacing else {
            return false;
        };
        if !self.filling {
            self.filling = self.end.available() < bytes;
            return self.filling;
        }
        let whole = params
            .frames_in(target_ms)
            .saturating_add(params.frames(bytes));
        self.filling = self.end.available() < params.bytes(whole);
        if !self.filling {
            // To steer away what is more would take as long as to make it.
            self.end.skip_old(whole, params);
        }
        self.filling
    }

    /// Of a live source that was not listened to, no more is kept than usual.
    pub(super) fn skip_old(&mut self, params: &Params) {
        let keep = match self.pacing {
            Pacing::Device { target_ms } => target_ms,
            Pacing::Clock | Pacing::AtOnce => KEEP_MS,
        };
        self.end.skip_old(params.frames_in(keep), params);
    }

    /// A live source is listened to from now on.
    pub(super) fn listen(&mut self, params: &Params) {
        self.end.skip_old(0, params);
        self.filling = true;
    }

    /// Keeps the clock in step with a back end that has one of its own.
    pub(super) fn steer(&self, clock: &mut Clock, params: &Params, now: u64) {
        let Pacing::Device { target_ms } = self.pacing else {
            return;
        };
        if self.end.server() != ServerState::Live {
            return;
        }
        let target = params
            .frames_in(target_ms)
            .saturating_add(self.end.reserve());
        let target = i64::try_from(target).unwrap_or(i64::MAX);
        let stock = i64::try_from(self.end.delay(now, params)).unwrap_or(i64::MAX);
        let excess = stock.saturating_sub(target);
        clock.steer(match self.direction {
            // Too much is played from: hand over more slowly.
            Direction::Output => excess,
            // Too much is recorded: take it faster.
            Direction::Input => excess.saturating_neg(),
        });
    }
}
