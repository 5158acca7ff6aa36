// SPDX-License-Identifier: Apache-2.0

//! A stream socket that carries whole messages, without ever waiting.
//!
//! A read stops at the end of a message: descriptors belong to the bytes they were sent with, and a
//! read across two messages would mix them up.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::message::{HEADER_SIZE, Header, MAX_FDS, MAX_PAYLOAD, Message};

/// Why a peer cannot be understood any more. What it sent is dropped, its descriptors are closed.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The kernel refused.
    #[error("the socket failed: {0}")]
    Socket(#[from] Errno),
    /// The peer went away in the middle of a message.
    #[error("the peer left in the middle of a message")]
    CutShort,
    /// Another protocol, or a message out of step.
    #[error("the message's header has not the version 1 of vhost-user")]
    Version,
    /// A payload beyond the limit.
    #[error("request {code} announces {size} bytes, more than {MAX_PAYLOAD}")]
    TooLong {
        /// The request's code.
        code: u32,
        /// The size it announced.
        size: u32,
    },
    /// More descriptors than fit a message, or than this process may hold.
    #[error(
        "descriptors of a message were lost: it has more than {MAX_FDS}, or the limit of open files is reached"
    )]
    LostDescriptors,
}

/// What [`Channel::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A whole message.
    Message(Message),
    /// The message is not complete yet; ask again when the socket is readable.
    Nothing,
    /// The peer closed the connection between two messages.
    Closed,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// Header and payload as far as they have come.
    bytes: Vec<u8>,
    fds: Vec<Arc<OwnedFd>>,
    outbox: VecDeque<Outgoing>,
}

#[derive(Debug)]
struct Outgoing {
    code: u32,
    bytes: Vec<u8>,
    sent: usize,
    /// They go with the first byte.
    fds: Vec<Arc<OwnedFd>>,
}

impl Channel {
    /// Takes a connected stream socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            bytes: Vec::new(),
            fds: Vec::new(),
            outbox: VecDeque::new(),
        }
    }

    /// Reads until a message is complete or the socket is empty.
    ///
    /// # Errors
    /// When the peer breaks the protocol or the connection fails; the channel is of no use then.
    pub fn receive(&mut self) -> Result<Received, ChannelError> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                return self.take();
            }
            match self.read(missing) {
                Ok(0) if self.bytes.is_empty() => return Ok(Received::Closed),
                Ok(0) => return Err(ChannelError::CutShort),
                Ok(_) | Err(ChannelError::Socket(Errno::INTR)) => {}
                Err(ChannelError::Socket(Errno::AGAIN)) => return Ok(Received::Nothing),
                Err(ChannelError::Socket(Errno::CONNRESET)) => return Ok(Received::Closed),
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes until the header, then the message, is complete.
    fn missing(&self) -> Result<usize, ChannelError> {
        let Some(header) = self.bytes.first_chunk::<HEADER_SIZE>() else {
            return Ok(HEADER_SIZE.saturating_sub(self.bytes.len()));
        };
        let header = Header::from_bytes(*header).ok_or(ChannelError::Version)?;
        match usize::try_from(header.size) {
            Ok(size) if size <= MAX_PAYLOAD => Ok(HEADER_SIZE
                .saturating_add(size)
                .saturating_sub(self.bytes.len())),
            _ => Err(ChannelError::TooLong {
                code: header.code,
                size: header.size,
            }),
        }
    }

    fn read(&mut self, at_most: usize) -> Result<usize, ChannelError> {
        let mut bytes = [0; HEADER_SIZE + MAX_PAYLOAD];
        let Some(room) = bytes.get_mut(..at_most) else {
            return Ok(0);
        };
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(room)],
            &mut control,
            flags,
        )?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                self.fds.extend(fds.map(Arc::new));
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > MAX_FDS {
            return Err(ChannelError::LostDescriptors);
        }
        self.bytes
            .extend_from_slice(room.get(..got.bytes).unwrap_or_default());
        Ok(got.bytes)
    }

    fn take(&mut self) -> Result<Received, ChannelError> {
        let bytes = std::mem::take(&mut self.bytes);
        let fds = std::mem::take(&mut self.fds);
        let (header, payload) = bytes
            .split_first_chunk::<HEADER_SIZE>()
            .ok_or(ChannelError::CutShort)?;
        let header = Header::from_bytes(*header).ok_or(ChannelError::Version)?;
        Ok(Received::Message(Message::received(
            header,
            payload.to_vec(),
            fds,
        )))
    }

    /// Sends a message whole, or keeps it until [`Channel::flush`] can.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        self.outbox.push_back(Outgoing {
            code: message.code(),
            bytes: message.to_bytes(),
            sent: 0,
            fds: message.fds.clone(),
        });
        self.flush()
    }

    /// Sends what had to wait.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(outgoing) = self.outbox.front_mut() {
            match outgoing.write(self.socket.as_fd()) {
                Ok(()) if outgoing.is_done() => {
                    self.outbox.pop_front();
                }
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether messages wait for the peer to read.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether a message of this code waits, not yet begun.
    #[must_use]
    pub fn has_waiting(&self, code: u32) -> bool {
        self.outbox
            .iter()
            .any(|outgoing| outgoing.code == code && outgoing.sent == 0)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Outgoing {
    fn is_done(&self) -> bool {
        self.sent >= self.bytes.len()
    }

    fn write(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::INVAL);
        }
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = sendmsg(socket, &[IoSlice::new(rest)], &mut control, flags)?;
        self.sent = self.sent.saturating_add(sent);
        self.fds.clear();
        Ok(())
    }
}
