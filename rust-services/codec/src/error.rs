// SPDX-License-Identifier: Apache-2.0

//! Why there is no codec, or no longer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;

/// What failed. A session that has failed gives nothing more; others go on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum CodecError {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {reason}")]
    Library {
        /// In its words.
        reason: String,
    },
    /// No codec of the configuration can be had.
    #[error(
        "not one of the configured codecs can be used, the log says why; \
         install their elements or name others"
    )]
    NoCodec,
    /// The codec's elements are not installed or not configured.
    #[error("{codec} is not offered: its elements are missing, the log of the start says which")]
    NotOffered {
        /// Which one.
        codec: Codec,
    },
    /// The pipeline cannot be made or does not come up.
    #[error("{codec}: the pipeline does not start: {reason}")]
    Start {
        /// Which one.
        codec: Codec,
        /// In GStreamer's words.
        reason: String,
    },
    /// An element has given up.
    #[error("{codec}: {reason}")]
    Element {
        /// Which one.
        codec: Codec,
        /// Element and message.
        reason: String,
    },
    /// No element has done anything for too long.
    #[error("{codec}: nothing has moved for {patience:?}, the session is given up")]
    Hangs {
        /// Which one.
        codec: Codec,
        /// For how long.
        patience: Duration,
    },
    /// The process that coded for this session is gone.
    #[error("{codec}: the process that codes {how}")]
    Died {
        /// Which one.
        codec: Codec,
        /// By what.
        how: String,
    },
    /// Too many sessions that were given up still hang.
    #[error("{hanging} sessions that were given up still hang; no new one until they close")]
    TooManyHang {
        /// How many.
        hanging: usize,
    },
}
