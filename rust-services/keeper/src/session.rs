// SPDX-License-Identifier: Apache-2.0

//! A VMM's session: its relay, and how long it has been without a service.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use agl_virtio_relay::{Relay, limited};

/// A VMM's session.
pub(crate) struct Session {
    pub(crate) relay: Relay,
    /// Since when the VMM has been without a service.
    pub(crate) outage: Option<Instant>,
    pub(crate) hang_ups: u32,
}

impl Session {
    /// A VMM has connected, and has no service yet.
    pub(crate) fn new(relay: Relay) -> Self {
        Self {
            relay,
            outage: Some(Instant::now()),
            hang_ups: 0,
        }
    }

    /// Serves the VMM by a service that was just connected to, if it was.
    pub(crate) fn attach(&mut self, service: io::Result<UnixStream>) {
        match service {
            Ok(stream) => self.relay.attach(stream),
            // The grace time ends the session if this lasts.
            Err(error) => limited!(log::Level::Error, "cannot connect to the service: {error}"),
        }
    }

    /// Ends an outage that is over. Whether the service attached last has served the VMM.
    pub(crate) fn settle(&mut self) -> bool {
        let Some(live) = self.relay.live_since() else {
            return false;
        };
        if let Some(since) = self.outage.filter(|since| live >= *since) {
            let outage = live.saturating_duration_since(since);
            limited!(
                log::Level::Info,
                "the service is there after {} ms",
                outage.as_millis()
            );
            self.outage = None;
            self.hang_ups = 0;
        }
        true
    }

    /// The service is gone: the VMM is without one from now on, if it was not before. Whether it
    /// had served the VMM.
    pub(crate) fn note_outage(&mut self, now: Instant) -> bool {
        let served = self.settle();
        self.outage.get_or_insert(now);
        served
    }
}
