// SPDX-License-Identifier: Apache-2.0
//! Ends blocking waits for calls after a while: signals the call events itself.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use frontend::{Guest, Result};

use crate::subject::io;

/// A thread that signals all call events of a guest once `patience` has passed, unless dropped.
pub(crate) struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    pub(crate) fn over(guest: &Guest, patience: Duration) -> Result<Self> {
        let events = guest
            .rings()
            .iter()
            .map(|ring| ring.call_event().as_fd().try_clone_to_owned())
            .collect::<std::io::Result<Vec<OwnedFd>>>()
            .map_err(io("keep the call events"))?;
        let (alive, gone) = channel::<()>();
        std::thread::spawn(move || {
            if gone.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            for event in &events {
                // Where even this fails, nobody waits for the event any more.
                let _ = rustix::io::write(event, &1u64.to_ne_bytes());
            }
        });
        Ok(Self { _alive: alive })
    }
}
