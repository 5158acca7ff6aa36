// SPDX-License-Identifier: Apache-2.0

//! A connection of this process with itself.
//!
//! vhost-user-backend only takes connections from a listening socket, and the relay needs the other
//! end of one. A socket in the file system would need a directory that the sandbox has closed, and
//! would be left behind by a kill; so it is an abstract one, which anybody on the host may connect
//! to. With a backlog of nothing, one connection at most waits to be accepted: when ours waits, no
//! other does.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    socket_with,
};

/// How often somebody else may be faster before this is called an attack.
const ATTEMPTS: usize = 1000;

/// A listener on which exactly one connection waits, and the other end of that one.
pub(crate) fn connection() -> io::Result<(UnixListener, UnixStream)> {
    for _ in 0..ATTEMPTS {
        let listener = stream_socket(SocketFlags::CLOEXEC)?;
        // Without a name the kernel finds one that nobody has.
        bind(&listener, &SocketAddrUnix::new_unnamed())?;
        listen(&listener, 0)?;
        let address = SocketAddrUnix::try_from(getsockname(&listener)?)?;
        let client = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        match connect(&client, &address) {
            Ok(()) => {
                let client = UnixStream::from(client);
                client.set_nonblocking(false)?;
                return Ok((UnixListener::from(listener), client));
            }
            Err(Errno::AGAIN) => {
                log::warn!("somebody connected to a private socket; trying another")
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(
        "another process keeps connecting to the private socket",
    ))
}

fn stream_socket(flags: SocketFlags) -> io::Result<std::os::fd::OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_connection_that_waits_is_ours_and_no_other_can_wait_beside_it() {
        let (listener, mut client) = connection().unwrap();
        let other = stream_socket(SocketFlags::NONBLOCK).unwrap();
        let address = SocketAddrUnix::try_from(getsockname(&listener).unwrap()).unwrap();
        assert_eq!(connect(&other, &address), Err(Errno::AGAIN));
        client.write_all(b"me").unwrap();
        let mut said = [0; 2];
        listener.accept().unwrap().0.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"me");
    }
}
