// SPDX-License-Identifier: Apache-2.0

//! The handler under a watchdog and with a brake: each call is a turn that has a beginning and an
//! end, and many long turns are followed by a rest.

use std::sync::Arc;

use agl_virtio_service::{Brake, Heartbeat};
use virtio_device::{Handler, Io, Start};

use super::SoundHandler;

/// A handler whose turns a watchdog sees.
pub struct Watched {
    handler: SoundHandler,
    beat: Arc<Heartbeat>,
    brake: Option<Brake>,
}

impl Watched {
    /// Shows the turns of `handler` to whoever looks at `beat`. With a brake it leaves a part of the
    /// processor to others, whatever the guest does.
    #[must_use]
    pub fn new(handler: SoundHandler, beat: Arc<Heartbeat>, brake: Option<Brake>) -> Self {
        Self {
            handler,
            beat,
            brake,
        }
    }

    /// Before a turn that the guest or its clock has caused.
    fn rest(&mut self) {
        if let Some(brake) = &mut self.brake {
            brake.look();
        }
    }
}

impl Handler for Watched {
    fn started(&mut self, io: &mut Io, queue: usize, start: Start) {
        let _turn = self.beat.turn();
        self.handler.started(io, queue, start);
    }

    fn kicked(&mut self, io: &mut Io, queue: usize) {
        self.rest();
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
        self.rest();
        let _turn = self.beat.turn();
        self.handler.deadline(io);
    }
}
