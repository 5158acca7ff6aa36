// SPDX-License-Identifier: Apache-2.0

//! The handler under a watchdog: each call is a turn that has a beginning and an end.

use std::sync::Arc;

use agl_virtio_service::Heartbeat;
use virtio_device::{Handler, Io, Start};

use super::SoundHandler;

/// A handler whose turns a watchdog sees.
pub struct Watched {
    handler: SoundHandler,
    beat: Arc<Heartbeat>,
}

impl Watched {
    /// Shows the turns of `handler` to whoever looks at `beat`.
    #[must_use]
    pub fn new(handler: SoundHandler, beat: Arc<Heartbeat>) -> Self {
        Self { handler, beat }
    }
}

impl Handler for Watched {
    fn started(&mut self, io: &mut Io, queue: usize, start: Start) {
        let _turn = self.beat.turn();
        self.handler.started(io, queue, start);
    }

    fn kicked(&mut self, io: &mut Io, queue: usize) {
        let _turn = self.beat.turn();
        self.handler.kicked(io, queue);
    }

    fn stopped(&mut self, io: &mut Io, queue: usize) {
        let _turn = self.beat.turn();
        self.handler.stopped(io, queue);
    }

    fn reset(&mut self, io: &mut Io) {
        let _turn = self.beat.turn();
        self.handler.reset(io);
    }

    fn woken(&mut self, io: &mut Io, token: u32) {
        let _turn = self.beat.turn();
        self.handler.woken(io, token);
    }

    fn deadline(&mut self, io: &mut Io) {
        let _turn = self.beat.turn();
        self.handler.deadline(io);
    }
}
