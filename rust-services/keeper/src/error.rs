// SPDX-License-Identifier: Apache-2.0

//! Why a keeper ends before it was told to, and the exit code of that.

use std::io;
use std::process::ExitStatus;

use agl_virtio_relay::RelayError;
use agl_virtio_relay::record::RecordError;
use agl_virtio_service::listener::ListenError;
use agl_virtio_service::{Exit, ExitReason};

/// Why the keeper cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    /// No socket to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// NOTIFY_SOCKET cannot be used.
    #[error("NOTIFY_SOCKET: {0}")]
    Notify(#[source] io::Error),
    /// No memory for the record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The relay cannot work.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The program cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The service ended over and over.
    #[error(
        "the service ended with {} and never came up, so the keeper ends too: see its messages",
        in_words(*.0)
    )]
    NeverCameUp(ExitStatus, u8),
    /// The kernel refused what never fails.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ExitReason for KeeperError {
    fn exit(&self) -> Exit {
        match self {
            Self::Listen(error) => error.exit(),
            Self::Notify(_) => Exit::Usage,
            Self::Start { source, .. } => source.exit(),
            Self::NeverCameUp(_, code) => {
                [Exit::Usage, Exit::NoInput, Exit::NoPermission, Exit::Config]
                    .into_iter()
                    .find(|exit| exit.code() == *code)
                    .unwrap_or(Exit::Unavailable)
            }
            Self::Record(_) | Self::Relay(_) | Self::System { .. } => Exit::Os,
        }
    }
}

/// For errors of the kernel that have no remedy.
pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> KeeperError {
    move |source| KeeperError::System { what, source }
}

/// How a process ended, to follow "ended with".
pub(crate) fn in_words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        // "signal: 9 (SIGKILL)"
        None => status.to_string().replace("signal: ", "signal "),
    }
}
