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

/// Longest path of a socket in bytes: unix(7) has 108 with the zero at the end.
const LONGEST_PATH: usize = 107;

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
    /// No socket has so long a path.
    #[error(
        "the path {path} has {length} bytes, and that of a socket at most {LONGEST_PATH}: choose a shorter one",
        length = path.as_os_str().len()
    )]
    TooLong {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The path cannot be bound.
    #[error("cannot listen on {path}: {}", reason_of(path, reason))]
    Bind {
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel said. No source of the error: its words say it already.
        reason: io::Error,
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
            Self::Missing
            | Self::TooLong { .. }
            | Self::Inherited(_)
            | Self::WrongKind(_)
            | Self::TooMany(_) => Exit::Usage,
            Self::InUse(_) => Exit::Unavailable,
            Self::AnotherPath(_) => Exit::Config,
            Self::NotASocket(_) | Self::Bind { .. } => Exit::CannotCreate,
        }
    }
}

/// Why a path cannot be bound, and what to do.
fn reason_of(path: &Path, source: &io::Error) -> String {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = folder.display();
    match source.kind() {
        io::ErrorKind::NotFound => {
            format!("the folder {folder} is missing: make it, or choose another path")
        }
        io::ErrorKind::NotADirectory => {
            format!("{folder} is no folder: choose another path")
        }
        io::ErrorKind::PermissionDenied => format!(
            "this user may not write to the folder {folder}: allow it, or choose another path"
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("the folder {folder} is read-only: choose another path")
        }
        _ => format!("{source}: choose another path"),
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

/// The path that [`listen`] binds; nothing where the socket comes from somebody else.
pub(crate) fn path_to_bind<'a>(
    args: &'a CommonArgs,
    configured: Option<&'a Path>,
) -> Option<&'a Path> {
    let own = args.socket_fd.is_none() && handed_over() == 0;
    args.socket.as_deref().or(configured).filter(|_| own)
}

/// A socket that this process made: it goes with it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own socket there meanwhile.
    identity: (u64, u64),
}

impl SocketFile {
    /// Of the socket that was just bound at `path`.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: std::path::absolute(path)?,
            identity: identity_of(path)?,
        })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.path.parent()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|now| now == self.identity) {
            if let Err(error) = std::fs::remove_file(&self.path) {
                log::debug!("{} stays: {error}", self.path.display());
            }
        }
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
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
    let failed = |reason| ListenError::Bind {
        path: path.to_owned(),
        reason,
    };
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(ListenError::TooLong {
            path: path.to_owned(),
        });
    }
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
    fn nothing_to_listen_on_is_a_usage_error() {
        let error = listen(&CommonArgs::default(), None).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn a_socket_goes_with_the_process_that_made_it_unless_another_one_took_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snd.sock");
        let first = bind(&path).unwrap();
        let file = SocketFile::of(&path).unwrap();
        drop(first);
        drop(file);
        assert!(!path.exists());
        let first = bind(&path).unwrap();
        let file = SocketFile::of(&path).unwrap();
        std::fs::rename(&path, folder.path().join("away")).unwrap();
        let _second = bind(&path).unwrap();
        drop((first, file));
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_cannot_be_bound_is_told_with_the_one_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("letter");
        std::fs::write(&file, "dear reader").unwrap();
        let long = folder.path().join("l".repeat(120));
        let table = [
            (
                PathBuf::from("/nowhere/at/all.sock"),
                73,
                "the folder /nowhere/at is missing",
            ),
            (file.join("a.sock"), 73, "letter is no folder"),
            (file.clone(), 73, "exists and is no socket"),
            (long.clone(), 64, "and that of a socket at most 107"),
        ];
        for (path, code, reason) in table {
            let error = listen(&at(&path), None).unwrap_err();
            assert_eq!(error.exit().code(), code, "{error}");
            let text = error.to_string();
            assert!(text.contains(reason), "{text}");
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
        let length = long.as_os_str().len().to_string();
        let text = listen(&at(&long), None).unwrap_err().to_string();
        assert!(text.contains(&format!("has {length} bytes")), "{text}");
    }
}
