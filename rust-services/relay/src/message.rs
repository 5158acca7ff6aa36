// SPDX-License-Identifier: Apache-2.0

//! One vhost-user message: header, payload and descriptors (vhost-user specification, "Message
//! Specification"). Numbers are in the byte order of the machine.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{BackendReq, FrontendReq, MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE};

/// Bytes of a header: request, flags, size of the payload.
pub const HEADER_SIZE: usize = 12;
/// Most bytes of payload that a message may have.
pub const MAX_PAYLOAD: usize = MAX_MSG_SIZE;
/// Most descriptors that a message may carry.
pub const MAX_FDS: usize = MAX_ATTACHED_FD_ENTRIES;

const VERSION: u32 = 0x1;
const VERSION_MASK: u32 = 0x3;
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;

/// In the payload of the KICK, CALL and ERR requests: no descriptor is attached.
pub const NO_FD: u64 = 0x100;

/// What the first twelve bytes of a message say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The request's code; a reply carries that of its request.
    pub code: u32,
    flags: u32,
    /// Bytes of payload that follow.
    pub size: u32,
}

impl Header {
    /// Reads a header; `None` when its version is not 1.
    #[must_use]
    pub fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let flags = u32::from_ne_bytes([e, f, g, h]);
        (flags & VERSION_MASK == VERSION).then_some(Self {
            code: u32::from_ne_bytes([a, b, c, d]),
            flags,
            size: u32::from_ne_bytes([i, j, k, l]),
        })
    }
}

/// A whole message. Clones share the descriptors, which are closed with the last of them.
#[derive(Clone, Debug)]
pub struct Message {
    code: u32,
    flags: u32,
    /// What follows the header; at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
    /// The descriptors attached; at most [`MAX_FDS`].
    pub fds: Vec<Arc<OwnedFd>>,
}

impl Message {
    /// A request to a back end.
    #[must_use]
    pub fn request(request: FrontendReq, payload: Vec<u8>) -> Self {
        Self::with_code(request.into(), payload)
    }

    /// A request whose payload is one number.
    #[must_use]
    pub fn request_u64(request: FrontendReq, value: u64) -> Self {
        Self::request(request, value.to_ne_bytes().to_vec())
    }

    /// A request of a back end to its VMM.
    #[must_use]
    pub fn to_vmm(request: BackendReq, payload: Vec<u8>) -> Self {
        Self::with_code(request.into(), payload)
    }

    /// A request of any code, so also one of a back end to its VMM.
    #[must_use]
    pub fn with_code(code: u32, payload: Vec<u8>) -> Self {
        Self {
            code,
            flags: VERSION,
            payload,
            fds: Vec::new(),
        }
    }

    /// The reply to a request of code `code`.
    #[must_use]
    pub fn reply(code: u32, payload: Vec<u8>) -> Self {
        Self {
            flags: VERSION | REPLY,
            ..Self::with_code(code, payload)
        }
    }

    /// A reply whose payload is one number; as the answer to `NEED_REPLY`, 0 is success.
    #[must_use]
    pub fn reply_u64(code: u32, value: u64) -> Self {
        Self::reply(code, value.to_ne_bytes().to_vec())
    }

    /// Puts a message together from what was received.
    #[must_use]
    pub fn received(header: Header, payload: Vec<u8>, fds: Vec<Arc<OwnedFd>>) -> Self {
        Self {
            code: header.code,
            flags: header.flags,
            payload,
            fds,
        }
    }

    /// The same message with descriptors.
    #[must_use]
    pub fn with_fds(mut self, fds: Vec<Arc<OwnedFd>>) -> Self {
        self.fds = fds;
        self
    }

    /// The same message, asking for an answer or not.
    #[must_use]
    pub fn with_need_reply(mut self, need: bool) -> Self {
        self.flags = if need {
            self.flags | NEED_REPLY
        } else {
            self.flags & !NEED_REPLY
        };
        self
    }

    /// The code on the wire.
    #[must_use]
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The front end's request of this code, if the specification knows one.
    #[must_use]
    pub fn frontend_request(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.code).ok()
    }

    /// Whether this answers a request.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// Whether the sender wants to know how it went.
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// The 32 bits of payload at `offset`; `None` beyond its end.
    #[must_use]
    pub fn u32_at(&self, offset: usize) -> Option<u32> {
        u32_at(&self.payload, offset)
    }

    /// The 64 bits of payload at `offset`; `None` beyond its end.
    #[must_use]
    pub fn u64_at(&self, offset: usize) -> Option<u64> {
        u64_at(&self.payload, offset)
    }

    /// Header and payload as they go over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing longer than MAX_PAYLOAD is ever built or received.
        let size = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_SIZE.saturating_add(self.payload.len()));
        for number in [self.code, self.flags, size] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// The 32 bits at `offset` of `bytes`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// The 64 bits at `offset` of `bytes`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}
