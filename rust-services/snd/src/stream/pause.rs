// SPDX-License-Identifier: Apache-2.0

//! A stream that keeps its place while one of higher priority plays.
//!
//! It fades, and then its clock stands, as it does after STOP: buffers are kept, and none comes back.
//! Later it goes on with the very next frame. Only the ramps cost it something.

use super::{Motion, Stream};
use crate::clock::Clock;
use crate::format::Params;

impl Stream {
    /// Has it stand, or go on, for the sake of another stream: with its next turn.
    pub fn pause(&mut self, pause: bool) {
        self.pause = pause;
    }

    /// Whether its clock stands for another stream.
    pub(super) fn is_paused(&self) -> bool {
        matches!(self.motion, Motion::Paused)
    }

    /// Whether nothing more is to be heard before the clock stands. What has no arithmetic has no
    /// ramp.
    pub(super) fn has_faded(&self, params: &Params) -> bool {
        self.pause && (self.fader.is_silent() || !params.format.has_arithmetic())
    }

    /// The clock stands. What the back end has got already, it plays.
    pub(super) fn stand(&mut self) {
        self.end.stop();
        self.motion = Motion::Paused;
        self.show_state();
    }

    /// The clock runs again.
    pub(super) fn go_on(&mut self, params: &Params, now: u64) {
        self.end.start();
        self.motion = Motion::Dry {
            clock: Clock::start(now, params.rate.hertz()),
            // Nobody was to send a buffer meanwhile.
            reported: true,
        };
        self.show_state();
    }
}
