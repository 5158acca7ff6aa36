// SPDX-License-Identifier: Apache-2.0

//! The words of SCMI (SCMI 3.2, section 4.1): message header, status, requests and replies.
//!
//! Nothing here is larger than what Linux takes over virtio: 128 bytes after header and status.

/// Bytes a message carries at most beside its header and status.
pub const MAX_PAYLOAD: usize = 128;
/// Bytes of a header.
pub const HEADER_SIZE: usize = 4;
/// Bytes of the shortest reply, header and status: all that a refusal has.
pub const REFUSAL_SIZE: usize = 8;
const MAX_REPLY: usize = REFUSAL_SIZE + MAX_PAYLOAD;
/// Bytes of the names that fit into every description, the final zero included.
pub const SHORT_NAME: usize = 16;
/// Bytes of an extended name, the final zero included.
pub const LONG_NAME: usize = 64;

/// What a message is (bits 9:8 of its header).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageType {
    /// A request of the agent, or its immediate reply.
    Command,
    /// The later result of an asynchronous command.
    DelayedResponse,
    /// Something happened.
    Notification,
    /// Not defined by the specification.
    Reserved,
}

/// A message header (SCMI 3.2, 4.1.2): message 7:0, type 9:8, protocol 17:10, token 27:18.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header(pub u32);

impl Header {
    /// The header of an event: `delayed` answers carry the token of their command.
    #[must_use]
    pub fn new(kind: MessageType, protocol: u8, message: u8, token: u16) -> Self {
        let kind = match kind {
            MessageType::Command => 0,
            MessageType::Reserved => 1,
            MessageType::DelayedResponse => 2,
            MessageType::Notification => 3,
        };
        Self(
            u32::from(message)
                | kind << 8
                | u32::from(protocol) << 10
                | u32::from(token & 0x3ff) << 18,
        )
    }

    /// Which command or event of its protocol.
    #[must_use]
    pub fn message(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// Which protocol.
    #[must_use]
    pub fn protocol(self) -> u8 {
        (self.0 >> 10).to_le_bytes()[0]
    }

    /// Chosen by the agent, so that it knows the reply.
    #[must_use]
    pub fn token(self) -> u16 {
        let [low, high, ..] = (self.0 >> 18 & 0x3ff).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// What the message is.
    #[must_use]
    pub fn kind(self) -> MessageType {
        match self.0 >> 8 & 3 {
            0 => MessageType::Command,
            2 => MessageType::DelayedResponse,
            3 => MessageType::Notification,
            _ => MessageType::Reserved,
        }
    }

    /// The header of the delayed response to this command.
    #[must_use]
    pub fn delayed(self) -> Self {
        Self(self.0 & !(3 << 8) | 2 << 8)
    }
}

/// Why a command was refused (SCMI 3.2, 4.1.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Status {
    /// The command or the feature does not exist here.
    #[error("not supported")]
    NotSupported,
    /// A parameter has a value that it cannot have.
    #[error("invalid parameters")]
    InvalidParameters,
    /// The agent may not do this.
    #[error("denied")]
    Denied,
    /// There is no such domain, sensor, or message.
    #[error("not found")]
    NotFound,
    /// A value is outside of what the resource can do.
    #[error("out of range")]
    OutOfRange,
    /// Too many requests at once, or too fast.
    #[error("busy")]
    Busy,
    /// The message did not arrive whole.
    #[error("communication error")]
    CommsError,
    /// None of the others.
    #[error("generic error")]
    GenericError,
    /// The hardware failed.
    #[error("hardware error")]
    HardwareError,
    /// The message breaks the protocol: its size or type is wrong.
    #[error("protocol error")]
    ProtocolError,
    /// Another agent has it.
    #[error("in use")]
    InUse,
}

impl Status {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::NotSupported => -1,
            Self::InvalidParameters => -2,
            Self::Denied => -3,
            Self::NotFound => -4,
            Self::OutOfRange => -5,
            Self::Busy => -6,
            Self::CommsError => -7,
            Self::GenericError => -8,
            Self::HardwareError => -9,
            Self::ProtocolError => -10,
            Self::InUse => -11,
        }
    }
}

/// The parameters of a command.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a>(pub &'a [u8]);

impl<'a> Request<'a> {
    /// The parameters, which are `N` words.
    ///
    /// # Errors
    /// [`Status::ProtocolError`] when there are more or fewer bytes.
    pub fn words<const N: usize>(&self) -> Result<[u32; N], Status> {
        if self.0.len() != N.saturating_mul(4) {
            return Err(Status::ProtocolError);
        }
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(self.0.chunks_exact(4)) {
            let bytes = bytes.try_into().map_err(|_| Status::ProtocolError)?;
            *word = u32::from_le_bytes(bytes);
        }
        Ok(words)
    }

    /// The first `N` words, and what follows them.
    ///
    /// # Errors
    /// [`Status::ProtocolError`] when there are fewer bytes.
    pub fn head<const N: usize>(&self) -> Result<([u32; N], Request<'a>), Status> {
        let head = self.0.split_at_checked(N.saturating_mul(4));
        let (head, rest) = head.ok_or(Status::ProtocolError)?;
        Ok((Request(head).words()?, Request(rest)))
    }

    /// The parameters as pairs of words.
    ///
    /// # Errors
    /// [`Status::ProtocolError`] when they are none.
    pub fn pairs(&self) -> Result<impl Iterator<Item = [u32; 2]> + use<'a>, Status> {
        if self.0.len() % 8 != 0 {
            return Err(Status::ProtocolError);
        }
        let pairs = self.0.chunks_exact(8);
        Ok(pairs.filter_map(|pair| Request(pair).words().ok()))
    }
}

/// A reply in the making. What does not fit the agent's buffer turns it into a refusal.
#[derive(Clone, Debug)]
pub struct Reply {
    bytes: [u8; MAX_REPLY],
    len: usize,
    limit: usize,
    overflow: bool,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            bytes: [0; MAX_REPLY],
            len: REFUSAL_SIZE,
            limit: MAX_REPLY,
            overflow: false,
        }
    }
}

impl Reply {
    /// Begins the reply to `header`, for a buffer of `room` bytes.
    pub fn begin(&mut self, header: Header, room: usize) {
        self.len = REFUSAL_SIZE;
        self.limit = room.min(MAX_REPLY);
        self.overflow = false;
        if let Some(at) = self.bytes.get_mut(..HEADER_SIZE) {
            at.copy_from_slice(&header.0.to_le_bytes());
        }
        self.set_status(0);
    }

    fn set_status(&mut self, code: i32) {
        if let Some(at) = self.bytes.get_mut(HEADER_SIZE..REFUSAL_SIZE) {
            at.copy_from_slice(&code.to_le_bytes());
        }
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.len)
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.bytes.get_mut(self.len..end) {
            Some(at) if end <= self.limit => {
                at.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.overflow = true,
        }
    }

    /// Adds a word.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Adds a signed word.
    pub fn i32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Adds a double word, low half first.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Adds a signed double word, low half first.
    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Adds a half word.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Adds the beginning of a name in [`SHORT_NAME`] bytes.
    pub fn short_name(&mut self, name: &str) {
        self.bytes(&padded::<SHORT_NAME>(name));
    }

    /// Adds a name in [`LONG_NAME`] bytes.
    pub fn long_name(&mut self, name: &str) {
        self.bytes(&padded::<LONG_NAME>(name));
    }

    /// Ends the reply: all of it, or header and status alone.
    pub fn finish(&mut self, result: Result<(), Status>) -> &[u8] {
        let result = if self.overflow {
            result.and(Err(Status::ProtocolError))
        } else {
            result
        };
        if let Err(status) = result {
            self.len = REFUSAL_SIZE;
            self.set_status(status.code());
        }
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// As [`Reply::finish`], without the bytes.
    #[must_use]
    pub fn is_overfull(&self) -> bool {
        self.overflow
    }
}

/// A name with zeroes behind it, at least one; cut between characters.
fn padded<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut len = name.len().min(N.saturating_sub(1));
    while !name.is_char_boundary(len) {
        len = len.saturating_sub(1);
    }
    for (at, byte) in bytes.iter_mut().zip(name.as_bytes().iter().take(len)) {
        *at = *byte;
    }
    bytes
}

/// Whether a name needs the command for extended names.
#[must_use]
pub fn is_long(name: &str) -> bool {
    name.len() >= SHORT_NAME
}

/// A message of the platform to an agent, for the event queue.
#[derive(Clone, Debug)]
pub struct Event {
    bytes: [u8; HEADER_SIZE + MAX_PAYLOAD],
    len: usize,
}

impl Event {
    /// An event without payload yet.
    #[must_use]
    pub fn new(header: Header) -> Self {
        let mut event = Self {
            bytes: [0; HEADER_SIZE + MAX_PAYLOAD],
            len: 0,
        };
        event.put(&header.0.to_le_bytes());
        event
    }

    /// A notification with these words.
    #[must_use]
    pub fn notification(protocol: u8, message: u8, words: &[u32]) -> Self {
        let header = Header::new(MessageType::Notification, protocol, message, 0);
        let mut event = Self::new(header);
        for word in words {
            event.put(&word.to_le_bytes());
        }
        event
    }

    /// The result of the asynchronous command `header`.
    #[must_use]
    pub fn delayed(header: Header, result: Result<(), Status>) -> Self {
        let mut event = Self::new(header.delayed());
        event.put(&result.map_or_else(Status::code, |()| 0).to_le_bytes());
        event
    }

    /// An event of bytes that were one.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut event = Self {
            bytes: [0; HEADER_SIZE + MAX_PAYLOAD],
            len: 0,
        };
        event.put(bytes);
        event
    }

    /// Adds bytes. What is beyond [`MAX_PAYLOAD`] is left out: configurations which could need
    /// more are refused.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(at) = self.bytes.get_mut(self.len..end) {
            at.copy_from_slice(bytes);
            self.len = end;
        }
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> Header {
        let header = self.bytes.first_chunk().copied();
        Header(u32::from_le_bytes(header.unwrap_or_default()))
    }

    /// The whole message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_keeps_its_fields_apart() {
        let header = Header::new(MessageType::DelayedResponse, 0x15, 0x6, 0x3ff);
        assert_eq!(header.message(), 6);
        assert_eq!(header.protocol(), 0x15);
        assert_eq!(header.token(), 0x3ff);
        assert_eq!(header.kind(), MessageType::DelayedResponse);
        let command = Header::new(MessageType::Command, 0xff, 0xff, 5);
        assert_eq!(command.delayed().kind(), MessageType::DelayedResponse);
        assert_eq!(command.delayed().token(), 5);
        assert_eq!(command.delayed().protocol(), 0xff);
    }

    #[test]
    fn a_refusal_is_header_and_status_whatever_was_put_before() {
        let mut reply = Reply::default();
        reply.begin(Header(0x1234), 136);
        reply.u64(7);
        let bytes = reply.finish(Err(Status::Denied));
        assert_eq!(bytes, [0x34, 0x12, 0, 0, 0xfd, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn what_does_not_fit_becomes_a_refusal() {
        let mut reply = Reply::default();
        reply.begin(Header(1), 12);
        reply.u32(1);
        reply.u32(2);
        assert_eq!(reply.finish(Ok(()))[4..], (-10_i32).to_le_bytes());
    }

    #[test]
    fn names_end_with_a_zero_and_are_cut_between_characters() {
        assert_eq!(padded::<4>("ab"), *b"ab\0\0");
        assert_eq!(padded::<4>("abcdef"), *b"abc\0");
        assert_eq!(padded::<4>("abä"), *b"ab\0\0");
        assert!(is_long("sixteen-letters-"));
        assert!(!is_long("fifteen-letters"));
    }

    #[test]
    fn parameters_of_another_size_are_a_protocol_error() {
        assert_eq!(Request(&[1, 0, 0, 0, 2, 0, 0, 0]).words(), Ok([1, 2]));
        assert_eq!(Request(&[0; 7]).words::<2>(), Err(Status::ProtocolError));
        assert_eq!(Request(&[0; 12]).words::<2>(), Err(Status::ProtocolError));
        assert_eq!(Request(&[]).words::<0>(), Ok([]));
    }
}
