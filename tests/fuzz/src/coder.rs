// SPDX-License-Identifier: Apache-2.0

//! What the fuzzer has a codec say.

use agl_virtio_codec::{CodecError, Event, Size};
use arbitrary::Arbitrary;

/// What a codec says.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Word {
    Size(u8, u8),
    Output(u8),
    Drained,
    Flushed,
    Failed,
}

impl From<Word> for Event<u64> {
    fn from(word: Word) -> Self {
        match word {
            Word::Size(width, height) => Self::Size(Size::new(u32::from(width) + 1, u32::from(height) + 1)),
            Word::Output(timestamp) => Self::Output(timestamp.into()),
            Word::Drained => Self::Drained,
            Word::Flushed => Self::Flushed,
            Word::Failed => Self::Failed(CodecError::NoCodec),
        }
    }
}
