// SPDX-License-Identifier: Apache-2.0

//! Notifications to the driver, which wait here until it has given buffers for them.
//!
//! There is at most one waiting for each jack, stream and element, and what it says is looked up when
//! it leaves: a driver that is late hears the newest state, and nothing is lost or piles up.

use std::collections::VecDeque;

use virtio_device::Io;

use crate::panel::Panel;
use crate::wire::{Event, F_CTLS, NotifyMask, event, queue};

/// What a notification is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// A jack was plugged or pulled.
    Jack(u16),
    /// A stream ran dry or over.
    Xrun(u16),
    /// An element's value has changed.
    Control(u16),
}

/// The notifications that wait.
#[derive(Debug, Default)]
pub struct Events {
    waiting: VecDeque<Notice>,
}

impl Events {
    /// Has the driver told.
    pub fn add(&mut self, notice: Notice) {
        if !self.waiting.contains(&notice) {
            self.waiting.push_back(notice);
        }
    }

    /// Sends what waits, as far as there are buffers.
    pub fn send(&mut self, io: &mut Io, panel: &Panel) {
        while let Some(notice) = self.waiting.front().copied() {
            // A driver without control elements knows no such notification.
            if matches!(notice, Notice::Control(_)) && io.features() & F_CTLS == 0 {
                self.waiting.pop_front();
                continue;
            }
            let Some(chain) = io.pop(queue::EVENT) else {
                return;
            };
            // A buffer that cannot hold a notification goes back; the next one may.
            match chain.write_value(io.memory(), 0, &message(notice, panel)) {
                Ok(()) => {
                    self.waiting.pop_front();
                    io.complete(chain, 8);
                }
                Err(_) => io.fail(chain, 0),
            }
        }
    }

    /// Forgets everything: the driver that it was for is gone.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

fn message(notice: Notice, panel: &Panel) -> Event {
    match notice {
        Notice::Jack(index) if panel.jack(usize::from(index)) => {
            Event::new(event::JACK_CONNECTED, index.into())
        }
        Notice::Jack(index) => Event::new(event::JACK_DISCONNECTED, index.into()),
        Notice::Xrun(index) => Event::new(event::PCM_XRUN, index.into()),
        Notice::Control(index) => Event::control(index, NotifyMask::Value as u16),
    }
}
