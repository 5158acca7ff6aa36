// SPDX-License-Identifier: Apache-2.0
//! One control connection: whole messages with their descriptors, honest or not.
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::protocol::header;

/// Descriptors that one message may carry (32 regions, and room for a rogue's surplus).
const MAX_FDS: usize = 64;

/// A message as it came or is to go.
#[derive(Debug)]
pub struct Message {
    /// The message's type.
    pub request: u32,
    /// The flags word ([`header`]).
    pub flags: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// The descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// Whether the sender wants an answer.
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags & header::NEED_REPLY != 0
    }

    /// The payload as one u64.
    ///
    /// # Errors
    /// Where it is not 8 bytes.
    pub fn as_u64(&self) -> Result<u64> {
        self.payload
            .as_slice()
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| Error::BadReply {
                request: self.request,
                problem: format!("{} bytes instead of a u64", self.payload.len()),
            })
    }
}

/// When a message that has no answer of its own asks for one. Without REPLY_ACK none does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// Every message: mistakes show where they are made.
    #[default]
    Everything,
    /// Only the memory messages, much as QEMU does.
    Memory,
    /// None.
    Nothing,
}

/// A control connection, seen from the front end (or, for the back-end channel, from its
/// receiving side).
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    patience: Duration,
}

impl Connection {
    /// Take over a connected socket. Each answer is waited for as long as
    /// [`Deadline::PATIENCE`].
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            patience: Deadline::PATIENCE,
        }
    }

    /// Wait this long for each answer.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Send bytes as they are, with descriptors: half messages, wrong sizes, wrong versions.
    ///
    /// # Errors
    /// Where the other side is gone.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut sent = 0;
        while sent < bytes.len() {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Error::Memory(format!("more than {MAX_FDS} descriptors")));
            }
            let rest = [IoSlice::new(&bytes[sent..])];
            match sendmsg(&self.stream, &rest, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                    return Err(Error::Disconnected("sending"));
                }
                Err(source) => return Err(Error::io("send a message", source)),
            }
        }
        Ok(())
    }

    /// Send one message with any number, flags and payload; the header's size is the payload's.
    ///
    /// # Errors
    /// Where the other side is gone.
    pub fn send(
        &self,
        request: u32,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let mut bytes = Vec::with_capacity(header::SIZE + payload.len());
        for word in [request, flags, payload.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        self.send_bytes(&bytes, fds)
    }

    /// The next message from the other side.
    ///
    /// # Errors
    /// Where none comes in time, or the other side hangs up.
    pub fn receive(&self) -> Result<Message> {
        self.receive_by(Deadline::after(self.patience))
    }

    /// The next message from the other side, before `deadline`.
    ///
    /// # Errors
    /// Where none comes in time, or the other side hangs up.
    pub fn receive_by(&self, deadline: Deadline) -> Result<Message> {
        let mut fds = Vec::new();
        let mut head = [0u8; header::SIZE];
        self.fill(&mut head, &mut fds, deadline)?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut payload = vec![0u8; word(8) as usize];
        self.fill(&mut payload, &mut fds, deadline)?;
        Ok(Message {
            request: word(0),
            flags: word(4),
            payload,
            fds,
        })
    }

    /// Whether the other side has hung up; waits for that until `deadline`, dropping what it
    /// still says.
    ///
    /// # Errors
    /// Where the socket fails otherwise.
    pub fn hung_up(&self, deadline: Deadline) -> Result<bool> {
        loop {
            match self.receive_by(deadline) {
                Ok(_) => {}
                Err(Error::Disconnected(_)) => return Ok(true),
                Err(Error::TimedOut(_)) => return Ok(false),
                Err(other) => return Err(other),
            }
        }
    }

    /// Hang up both directions, whoever else holds the socket.
    pub fn shut_down(&self) {
        // It fails only where the connection has already gone, which is what is wanted.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, deadline: Deadline) -> Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            if !deadline.readable(self.stream.as_fd())? {
                return Err(Error::TimedOut("a message from the back end".into()));
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut rest = [IoSliceMut::new(&mut buffer[filled..])];
            let got = match recvmsg(
                &self.stream,
                &mut rest,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) => got,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => {
                    return Err(Error::Disconnected("receiving"));
                }
                Err(source) => return Err(Error::io("receive a message", source)),
            };
            for item in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = item {
                    fds.extend(received);
                }
            }
            if got.bytes == 0 {
                return Err(Error::Disconnected("receiving"));
            }
            filled += got.bytes;
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
