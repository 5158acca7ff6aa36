// SPDX-License-Identifier: Apache-2.0

//! What a session and its worker say to each other: one packet each, in JSON, of bounded length.
//!
//! Raw and coded bytes are not in here; they lie in places of the session's two memories ([`super::memory`]).

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::coder::{Job, Stored};
use crate::{Codec, CodecError, Counters, EncoderSettings, Size};

/// Bytes of a packet, at most.
const MOST_BYTES: usize = 8192;
/// Descriptors of a packet, at most.
const MOST_FDS: usize = 2;
/// Characters of an error's text, at most.
const MOST_TEXT: usize = 1000;

/// To a worker.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Command {
    /// The first one. With it come the memory of inputs and that of outputs.
    Open {
        job: Job,
        /// Bytes of a place for an output.
        output: u64,
        /// Of an input.
        input: u64,
        /// Places for outputs beyond the usual ones, in which a decoder may draw its pictures.
        frames: usize,
    },
    /// The next input lies in this place.
    Input {
        place: usize,
        bytes: usize,
        timestamp: u64,
        force_key: bool,
    },
    Drain,
    /// Both sides count these.
    Flush,
    /// The next one follows [`Report::Adjusted`].
    Adjust(EncoderSettings),
    /// The output in this place is not needed any more.
    Free {
        place: usize,
    },
}

/// From a worker, or from the nursery about it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Report {
    /// It has loaded these codecs, and waits for a job.
    Ready {
        decoders: Vec<Codec>,
        encoders: Vec<Codec>,
    },
    /// Its number, by the nursery.
    Process { id: u32 },
    /// What its libraries have to say, by the nursery, which leaves out most of it where it is much.
    Said { text: String },
    /// How it has ended, by the nursery: nothing follows.
    Ended { how: String },
    /// It lives, and its codec is not given up.
    Alive,
    /// The input in this place was read.
    Taken { place: usize },
    /// As [`crate::Event::Size`].
    Size(Size),
    /// An output lies in this place.
    Output {
        place: usize,
        timestamp: u64,
        key: bool,
        stored: Stored,
        counters: Counters,
    },
    /// As [`crate::Event::Drained`].
    Drained { counters: Counters },
    /// As [`crate::Event::Flushed`], for so many flushes: those that come close together become one.
    Flushed { upto: u64 },
    /// The codec was told the settings.
    Adjusted,
    /// As [`crate::Event::Failed`].
    Failed(CodecError),
}

/// Both ends of a connection. Inherited by nobody.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Whether a call waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// Until it can be done.
    Yes,
    /// Else it fails.
    No,
}

/// Sends a packet.
pub(super) fn send(
    socket: impl AsFd,
    packet: &impl Serialize,
    fds: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(packet)?;
    if bytes.len() > MOST_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = match wait {
        Wait::Yes => SendFlags::NOSIGNAL,
        Wait::No => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    };
    loop {
        let sent = if fds.is_empty() {
            // In the sandbox of a worker nothing else is left.
            rustix::net::send(&socket, &bytes, flags)
        } else {
            sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, flags)
        };
        match sent {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives a packet and its descriptors; nothing once the other end is closed.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    wait: Wait,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = [0; MOST_BYTES];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = match wait {
        Wait::Yes => RecvFlags::CMSG_CLOEXEC,
        Wait::No => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    };
    let got = loop {
        let mut room = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut room, &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    let fds = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = fds.flatten().collect();
    if got.bytes == 0 {
        return Ok(None);
    }
    if got
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let packet = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok(Some((packet, fds)))
}

/// Whether the other end is gone: closed, or closed while something waited there to be heard.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// A text of somebody else as it may stand in a log: of bounded length, in one line.
pub(super) fn tame(text: &str) -> String {
    text.chars()
        .take(MOST_TEXT)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

/// The same for what an error says.
pub(super) fn tame_error(error: CodecError) -> CodecError {
    match error {
        CodecError::Library { reason } => CodecError::Library {
            reason: tame(&reason),
        },
        CodecError::Start { codec, reason } => CodecError::Start {
            codec,
            reason: tame(&reason),
        },
        CodecError::Element { codec, reason } => CodecError::Element {
            codec,
            reason: tame(&reason),
        },
        CodecError::Died { codec, how } => CodecError::Died {
            codec,
            how: tame(&how),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_arrives_with_its_descriptors_and_then_the_end() {
        let (one, other) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&one, &Command::Drain, &[file.as_fd()], Wait::No).unwrap();
        let (packet, fds) = receive::<Command>(&other, Wait::No).unwrap().unwrap();
        assert!(matches!(packet, Command::Drain) && fds.len() == 1);
        let empty = receive::<Command>(&other, Wait::No).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(receive::<Command>(&other, Wait::Yes).unwrap().is_none());
    }

    #[test]
    fn an_end_that_is_closed_is_told_from_an_error() {
        let (one, other) = pair().unwrap();
        send(&one, &Command::Drain, &[], Wait::No).unwrap();
        // With a command that nobody has heard.
        drop(other);
        let reset = send(&one, &Command::Drain, &[], Wait::No).unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        let broken = send(&one, &Command::Drain, &[], Wait::No).unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
        assert!(is_closed(&reset) && is_closed(&broken));
        assert!(!is_closed(&io::ErrorKind::WouldBlock.into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            &b"{"[..],
            b"\"Open\"",
            b"{\"Taken\":{\"place\":-1}}",
            b"\xff",
        ] {
            let (one, other) = pair().unwrap();
            rustix::io::write(&one, text).unwrap();
            let refused = receive::<Report>(&other, Wait::No).unwrap_err();
            assert_ne!(refused.kind(), io::ErrorKind::WouldBlock, "{text:?}");
        }
        let (one, other) = pair().unwrap();
        rustix::io::write(&one, &[b' '; MOST_BYTES + 1]).unwrap();
        assert!(receive::<Report>(&other, Wait::No).is_err(), "too long");
    }

    #[test]
    fn a_text_of_a_worker_is_one_line() {
        assert_eq!(tame("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(tame(&"x".repeat(5000)).len(), MOST_TEXT);
    }
}
