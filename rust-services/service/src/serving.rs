// SPDX-License-Identifier: Apache-2.0
//! A device's connections: one server for each guest, served until the service ends.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use virtio_device::stats::DeviceStats;
use virtio_device::{Record, Server, ServerError};

use crate::bus::{DeviceInfo, DeviceState, QueueStatistics};
use crate::listener::{self, ListenError};
use crate::sandbox::Role;
use crate::{Exit, ExitReason, Service};

/// Why guests cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// A server cannot be made, or its socket fails.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// There is no socket for a further guest.
    #[error("for {guest}: {source}")]
    Listen {
        /// Whose.
        guest: String,
        /// Why not.
        source: ListenError,
    },
    /// The host refused something.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread has panicked.
    #[error("a session's thread has panicked; the log says where")]
    Panicked,
}

impl ExitReason for ServingError {
    fn exit(&self) -> Exit {
        match self {
            Self::Server(ServerError::Record(_) | ServerError::OtherDevice { .. }) => Exit::Usage,
            Self::Listen { source, .. } => source.exit(),
            Self::Server(_) | Self::Host { .. } => Exit::Os,
            Self::Panicked => Exit::Software,
        }
    }
}

/// A server and the socket at which its guest's monitor connects.
pub struct Seat {
    server: Arc<Server>,
    listener: UnixListener,
}

impl Seat {
    /// For a further guest: its monitor connects at `path`. A socket that nobody serves any more is
    /// replaced.
    ///
    /// # Errors
    /// When it cannot be listened there.
    pub fn at(path: &Path, guest: &str, server: Arc<Server>) -> Result<Self, ServingError> {
        let listener = listener::bind(path).map_err(|source| ServingError::Listen {
            guest: guest.to_owned(),
            source,
        })?;
        Ok(Self { server, listener })
    }
}

impl<C> Service<C> {
    /// The keeper's record, mapped anew by each call; none without a keeper.
    ///
    /// # Errors
    /// When it is none of this release, or there are no descriptors left.
    pub fn kept_record(&self) -> Result<Option<Record>, ServingError> {
        let Some(fd) = &self.record else {
            return Ok(None);
        };
        let fd = fd.try_clone().map_err(host("take the record"))?;
        let record = Record::open(File::from(fd)).map_err(ServerError::from)?;
        Ok(Some(record))
    }

    /// The service's own socket, for the first guest.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn first_seat(&self, server: Arc<Server>) -> Result<Seat, ServingError> {
        let listener = self.listener.try_clone();
        Ok(Seat {
            server,
            listener: listener.map_err(host("take the socket"))?,
        })
    }

    /// Shows the first guest's device on D-Bus, after all objects below it: see [`Service::show`].
    pub fn show_seat(&self, seat: &Seat) {
        let info = ServerInfo::of(&seat.server);
        if let Some(change) = self.show(Arc::new(info)) {
            seat.server.observe(move || change.changed());
        }
    }

    /// Serves until the service is stopped, each guest on a thread of its own.
    ///
    /// # Errors
    /// When a socket fails, or the host refuses a thread. The others are drained then.
    pub fn serve(&self, seats: Vec<Seat>) -> Result<(), ServingError> {
        let mut threads = Vec::new();
        // The last handle on a server goes with this thread: a session may not remove files.
        let mut kept = Vec::new();
        for Seat { server, listener } in seats {
            kept.push(Arc::clone(&server));
            let handle = server.stop_handle();
            let stop = self.stop.clone();
            let sandbox = self.sandbox.clone();
            let thread = std::thread::Builder::new()
                .name("session".to_owned())
                .spawn(move || {
                    // Also where it panics: the others need not live on without it.
                    let _asked = AskAtEnd(stop);
                    sandbox.enter(Role::Session);
                    server.serve(&listener)
                })
                .map_err(host("start a session's thread"))?;
            threads.push((thread, handle));
        }
        while !self.stop.wait(None) {}
        for (_, handle) in &threads {
            handle.stop();
        }
        let mut result = Ok(());
        for (thread, _) in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error.into()),
                Err(_) => result = Err(ServingError::Panicked),
            }
        }
        result
    }
}

/// A session that ends by itself ends the service.
struct AskAtEnd(crate::Stop);

impl Drop for AskAtEnd {
    fn drop(&mut self) {
        self.0.ask();
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> ServingError {
    move |source| ServingError::Host { what, source }
}

/// What a device tells about itself, as far as its server knows it.
struct ServerInfo {
    stats: DeviceStats,
    offered: u64,
    acked: Arc<AtomicU64>,
    connected: Arc<AtomicBool>,
    restarts: u32,
}

impl ServerInfo {
    fn of(server: &Server) -> Self {
        Self {
            stats: server.stats(),
            offered: server.offered_features(),
            acked: server.acked_features(),
            connected: server.connected(),
            restarts: server.restarts(),
        }
    }
}

impl DeviceInfo for ServerInfo {
    fn state(&self) -> DeviceState {
        match (
            self.connected.load(Ordering::Relaxed),
            self.features_acknowledged(),
        ) {
            (false, _) => DeviceState::Waiting,
            (true, 0) => DeviceState::Connected,
            (true, _) => DeviceState::Running,
        }
    }

    fn features_offered(&self) -> u64 {
        self.offered
    }

    fn features_acknowledged(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    fn restarts(&self) -> u32 {
        self.restarts
    }

    fn statistics(&self) -> Vec<QueueStatistics> {
        self.stats
            .queues()
            .map(|(_, queue)| QueueStatistics::from(queue.counters()))
            .collect()
    }
}
