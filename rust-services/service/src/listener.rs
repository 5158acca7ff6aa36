// SPDX-License-Identifier: Apache-2.0
//! The socket on which the virtual machine monitor, or the keeper, connects.

use crate::cli::CommonArgs;
use crate::inherited_fd::{self, InheritedFdError};
use crate::{Exit, ExitReason};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The first descriptor that systemd hands over (sd_listen_fds(3)).
const ACTIVATION_FIRST: RawFd = 3;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Nothing says where to listen.
    #[error(
        "no socket to listen on: give --socket PATH or --socket-fd N, \
         or start through a systemd socket unit"
    )]
    Missing,
    /// Somebody else serves this path.
    #[error("{0} is served by another process: stop that one, or choose another path")]
    InUse(PathBuf),
    /// The path is a file of another kind, which is not ours to delete.
    #[error("{0} exists and is no socket: choose another path")]
    NotASocket(PathBuf),
    /// The path cannot be bound.
    #[error(
        "cannot listen on {path}: {source}; does the folder exist, may we write to it, and has the path at most 107 characters?"
    )]
    Bind {
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The descriptor was not handed over.
    #[error(transparent)]
    Inherited(#[from] InheritedFdError),
    /// The descriptor is something else.
    #[error("descriptor {0} is no listening unix stream socket")]
    WrongKind(RawFd),
    /// systemd was told to hand over several sockets.
    #[error(
        "{0} sockets were handed over, but a device listens on one: remove the others from the socket unit"
    )]
    TooMany(usize),
    /// systemd listens elsewhere.
    #[error(
        "the socket that systemd handed over is not {0}, as --socket says: write the same path into the socket unit"
    )]
    AnotherPath(PathBuf),
}

impl ExitReason for ListenError {
    fn exit(&self) -> Exit {
        match self {
            Self::Missing | Self::Inherited(_) | Self::WrongKind(_) | Self::TooMany(_) => {
                Exit::Usage
            }
            Self::InUse(_) => Exit::Unavailable,
            Self::NotASocket(_) | Self::AnotherPath(_) => Exit::Config,
            Self::Bind { source, .. } => source.exit(),
        }
    }
}

/// Gets the listening socket: `--socket-fd`, then `--socket`, then systemd's, then
/// `configured` (the key `socket` of the device's table). Where systemd listens on the very path
/// of `--socket`, its socket is taken, so that a unit is the same with and without its socket unit.
///
/// A path may hold the socket of a process that died: that one is replaced. One that still
/// accepts is not.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(args: &CommonArgs, configured: Option<&Path>) -> Result<UnixListener, ListenError> {
    if let Some(number) = args.socket_fd {
        return inherited_listener(number);
    }
    let handed_over = handed_over();
    if let Some(path) = &args.socket {
        if handed_over != 1 {
            return bind(path);
        }
        let listener = inherited_listener(ACTIVATION_FIRST)?;
        let address = listener.local_addr().ok();
        let bound = address.as_ref().and_then(|address| address.as_pathname());
        if bound == Some(path) {
            return Ok(listener);
        }
        return Err(ListenError::AnotherPath(path.clone()));
    }
    match handed_over {
        0 => bind(configured.ok_or(ListenError::Missing)?),
        1 => inherited_listener(ACTIVATION_FIRST),
        more => Err(ListenError::TooMany(more)),
    }
}

/// How many sockets systemd handed to this process: it keeps them, and their paths, when the
/// process ends.
#[must_use]
pub fn handed_over() -> usize {
    activation_count(
        std::env::var("LISTEN_PID").ok().as_deref(),
        std::env::var("LISTEN_FDS").ok().as_deref(),
        std::process::id(),
    )
}

/// As [`handed_over`]; the variables may be meant for a parent.
fn activation_count(pid: Option<&str>, fds: Option<&str>, own_pid: u32) -> usize {
    match pid.and_then(|text| text.parse::<u32>().ok()) {
        Some(pid) if pid == own_pid => fds.and_then(|text| text.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

fn inherited_listener(number: RawFd) -> Result<UnixListener, ListenError> {
    let descriptor = inherited_fd::take(number)?;
    if is_unix_stream_listener(&descriptor) {
        Ok(UnixListener::from(descriptor))
    } else {
        Err(ListenError::WrongKind(number))
    }
}

fn is_unix_stream_listener(descriptor: &OwnedFd) -> bool {
    sockopt::socket_domain(descriptor) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(descriptor) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(descriptor) == Ok(true)
}

/// Listens at a path. A socket that nobody serves any more is replaced.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Bind {
        path: path.to_owned(),
        source,
    };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other.map_err(failed),
    }
    use std::os::unix::fs::FileTypeExt;
    let kind = std::fs::symlink_metadata(path).map_err(failed)?.file_type();
    if !kind.is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        // Left over by a process that did not end in order.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path).map_err(failed)
        }
        _ => Err(ListenError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    fn at(path: &Path) -> CommonArgs {
        CommonArgs {
            socket: Some(path.to_owned()),
            ..CommonArgs::default()
        }
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snd.sock");
        drop(UnixListener::bind(&path).unwrap());
        let living = listen(&at(&path), None).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert!(matches!(
            listen(&at(&path), None),
            Err(ListenError::InUse(_))
        ));
        drop(living);
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letter");
        std::fs::write(&path, "dear reader").unwrap();
        assert!(matches!(
            listen(&at(&path), None),
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear reader");
    }

    #[test]
    fn a_handed_over_listener_is_used_and_other_descriptors_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fd.sock");
        let original = UnixListener::bind(&path).unwrap();
        let number = rustix::io::dup(original.as_fd()).unwrap().into_raw_fd();
        drop(original);
        let args = CommonArgs {
            socket_fd: Some(number),
            ..CommonArgs::default()
        };
        let listener = listen(&args, None).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();

        let number = rustix::io::dup(client.as_fd()).unwrap().into_raw_fd();
        let args = CommonArgs {
            socket_fd: Some(number),
            ..CommonArgs::default()
        };
        assert!(matches!(
            listen(&args, None),
            Err(ListenError::WrongKind(_))
        ));
    }

    #[test]
    fn activation_is_for_the_process_it_names() {
        let table = [
            (Some("77"), Some("1"), 1),
            (Some("78"), Some("1"), 0),
            (None, Some("1"), 0),
            (Some("77"), None, 0),
            (Some("77"), Some("many"), 0),
            (Some("77"), Some("3"), 3),
        ];
        for (pid, fds, count) in table {
            assert_eq!(activation_count(pid, fds, 77), count, "{pid:?} {fds:?}");
        }
    }

    #[test]
    fn nothing_to_listen_on_is_a_usage_error_and_a_missing_folder_is_not_found() {
        let error = listen(&CommonArgs::default(), None).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        let error = listen(&at(Path::new("/nowhere/at/all.sock")), None).unwrap_err();
        assert_eq!(error.exit(), Exit::NoInput);
        assert!(error.to_string().contains("/nowhere/at/all.sock"));
    }
}
