// SPDX-License-Identifier: Apache-2.0

//! A program of the host on a bus: a packet of its socket is a frame, as on a raw CAN socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen as start_listening, recv, send, socket_with,
};
use virtio_device::now;

use crate::network::{BusId, Network, Station};
use crate::raw::{FD_SIZE, Heard, RESTARTED, bytes, error_frame, parse};

fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// Listens for programs at `path`. A socket that nobody serves any more is replaced.
///
/// # Errors
/// When somebody listens there, something else is there, or the folder is not.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let socket = packet_socket()?;
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            let kind = std::fs::symlink_metadata(path)?.file_type();
            let is_socket = std::os::unix::fs::FileTypeExt::is_socket(&kind);
            if !is_socket || connect(packet_socket()?, &address).is_ok() {
                return Err(Errno::ADDRINUSE.into());
            }
            std::fs::remove_file(path)?;
            bind(&socket, &address)?;
        }
        other => other?,
    }
    start_listening(&socket, 16)?;
    Ok(UnixListener::from(socket))
}

/// A program on a bus.
pub(super) struct Program {
    key: u64,
    bus: BusId,
    socket: OwnedFd,
}

impl Program {
    pub(super) fn new(key: u64, bus: BusId, socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { key, bus, socket })
    }

    pub(super) const fn key(&self) -> u64 {
        self.key
    }

    /// Tells the program that it is on the bus, as a controller tells that it was started: by an
    /// error frame. What was sent before, it has not heard; what is sent from now on, it does.
    pub(super) fn greet(&self) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // One that has gone already is found out by the next read.
        let _ = send(&self.socket, &error_frame(RESTARTED), flags);
    }

    /// Moves frames both ways as far as there is room. Whether the program stays.
    pub(super) fn exchange(&self, network: &mut Network) -> bool {
        self.tell(network);
        self.hear(network)
    }

    /// Gives the program what it has not heard, as far as there is room.
    pub(super) fn tell(&self, network: &mut Network) {
        while let Some(frame) = network.take_unread(self.key) {
            let (raw, size) = bytes(&frame);
            let raw = raw.get(..size).unwrap_or(&raw);
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.socket, raw, flags) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => {
                    network.return_unread(self.key, frame);
                    return;
                }
                // What it has sent before it went is still read.
                Err(_) => return,
            }
        }
    }

    fn hear(&self, network: &mut Network) -> bool {
        let station = Station::Host(self.key);
        // What does not fit waits in the socket: then so does the program. There is room again when
        // a frame of its own has passed, and that is a turn of the hub.
        while network.has_room(self.bus, station) {
            let mut raw = [0; FD_SIZE + 1];
            let size = match recv(&self.socket, raw.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((size, _)) => size,
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            };
            match raw.get(..size).and_then(parse) {
                Some(Heard::Frame(frame)) => {
                    network.send(self.bus, station, frame, now());
                }
                Some(Heard::Error(_)) => {}
                None => {
                    log::warn!("a program on a bus sent {size} bytes, which are no frame");
                    return false;
                }
            }
        }
        true
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
