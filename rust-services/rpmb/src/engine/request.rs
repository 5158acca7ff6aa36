// SPDX-License-Identifier: Apache-2.0

//! A request: frames that the driver has put into one chain, and room for the answer.

use zerocopy::FromBytes;

use crate::wire::{FRAME_SIZE, Frame, RequestType};

/// Why bytes are no request at all: there is nothing that could be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Not even one frame.
    #[error("a request of {0} bytes, which are not whole frames")]
    NotFrames(usize),
    /// An answer is wanted, and there is no room for it.
    #[error("no room for a frame of the answer")]
    NoRoom,
}

/// A request. Begins with one frame at least.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    first: &'a Frame,
    frames: &'a [Frame],
    result_read: Option<&'a Frame>,
    room: usize,
    deaths: u8,
}

impl<'a> Request<'a> {
    /// The request in these bytes, with `room` writable bytes for the answer. `deaths` says in how
    /// many deaths of the service it was in flight.
    ///
    /// # Errors
    /// When the bytes are not whole frames, or there is no room for an answer that is owed.
    pub fn parse(bytes: &'a [u8], room: usize, deaths: u8) -> Result<Self, Malformed> {
        let all =
            <[Frame]>::ref_from_bytes(bytes).map_err(|_| Malformed::NotFrames(bytes.len()))?;
        let first = all.first().ok_or(Malformed::NotFrames(0))?;
        // A request and the wish for its result lie in one chain (5.12.6).
        let (frames, result_read) = match all.split_last() {
            Some((last, before))
                if !before.is_empty() && last.req_resp.get() == RequestType::ResultRead.code() =>
            {
                (before, Some(last))
            }
            _ => (all, None),
        };
        let room = room.checked_div(FRAME_SIZE).unwrap_or(0);
        let silent = matches!(
            RequestType::of(first.req_resp.get()),
            Some(RequestType::ProgramKey | RequestType::DataWrite)
        ) && result_read.is_none();
        if room == 0 && !silent {
            return Err(Malformed::NoRoom);
        }
        Ok(Self {
            first,
            frames,
            result_read,
            room,
            deaths,
        })
    }

    /// Its first frame, which says what it is.
    #[must_use]
    pub fn first(&self) -> &'a Frame {
        self.first
    }

    /// Its last frame, which has the MAC.
    #[must_use]
    pub fn last(&self) -> &'a Frame {
        self.frames.last().unwrap_or(self.first)
    }

    /// All frames but the wish for the result.
    #[must_use]
    pub fn frames(&self) -> &'a [Frame] {
        self.frames
    }

    /// The only frame, where there is only one.
    #[must_use]
    pub fn single(&self) -> Option<&'a Frame> {
        (self.frames.len() == 1).then_some(self.first)
    }

    /// The wish for the result of a write or programming.
    #[must_use]
    pub fn result_read(&self) -> Option<&'a Frame> {
        self.result_read
    }

    /// Frames that the answer may have.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Whether it was in flight when the service died: it may have been done, and its answer lost.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        self.deaths > 0
    }

    /// Whether it was there each time when the service died: it is not tried again.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.deaths > 1
    }
}
