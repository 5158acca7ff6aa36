// SPDX-License-Identifier: Apache-2.0

//! A listening socket that only this process can connect to: its name is gone from the file system
//! before anybody may use it.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

/// The listener that a service inherits, and the way to it.
#[derive(Debug)]
pub(crate) struct PrivateSocket {
    pub(crate) listener: UnixListener,
    /// The socket's node, opened by path while it had one.
    node: OwnedFd,
}

impl PrivateSocket {
    pub(crate) fn new() -> io::Result<Self> {
        let folder = private_folder()?;
        let made = Self::within(&folder);
        // Best effort: an empty folder that only we can enter does no harm.
        let _ = std::fs::remove_file(folder.join("s"));
        let _ = std::fs::remove_dir(&folder);
        made
    }

    fn within(folder: &Path) -> io::Result<Self> {
        let path = folder.join("s");
        let listener = UnixListener::bind(&path)?;
        let node = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { listener, node })
    }

    /// Connects; does not wait for the service to accept.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.node.as_raw_fd()))
    }
}

fn private_folder() -> io::Result<PathBuf> {
    let parent = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from)
        // systemd separates several by colons.
        .find(|path| path.is_dir())
        .unwrap_or_else(std::env::temp_dir);
    let mut attempt = 0_u32;
    loop {
        let folder = parent.join(format!(
            "agl-virtio-keeper.{}.{attempt}",
            std::process::id()
        ));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {
                attempt = attempt.saturating_add(1);
            }
            Err(error) => {
                let text = format!("cannot create a folder in {}: {error}", parent.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn it_is_reached_without_a_name() {
        let socket = PrivateSocket::new().unwrap();
        let mut client = socket.connect().unwrap();
        let (mut server, _) = socket.listener.accept().unwrap();
        client.write_all(b"here").unwrap();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"here");
        let name = socket.listener.local_addr().unwrap();
        assert!(!name.as_pathname().unwrap().exists());
    }
}
