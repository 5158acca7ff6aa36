// SPDX-License-Identifier: Apache-2.0

//! The state machine of a PCM stream (VIRTIO 1.4, 5.14.6.6.1): request in, state and action out.

use crate::format::{Format, Params, Rate};
use crate::wire::{PcmInfo, SetParams, Status, feature};

/// Largest buffer a driver may ask for, in bytes: 8 channels of 64-bit floats at 384 kHz for 340 ms.
pub const LARGEST_BUFFER: u32 = 8 << 20;

/// Where a stream is in its life.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PcmState {
    /// Nothing is known about it: the state after a reset.
    #[default]
    Idle,
    /// Parameters are set.
    Configured(Params),
    /// It takes buffers; the clock stands.
    Prepared(Params),
    /// It takes buffers; the clock runs.
    Running(Params),
    /// It keeps its buffers; the clock stands.
    Stopped(Params),
    /// It gave everything back; the parameters hold for the next time.
    Released(Params),
}

/// A request that moves a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the specification's own names")]
pub enum PcmRequest {
    SetParams(Params),
    Prepare,
    Release,
    Start,
    Stop,
}

/// What is to be done when a stream moves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Give back buffers that were sent for former parameters, and the back end.
    Discard,
    /// Get the back end ready.
    Open(Params),
    /// Let the clock run.
    Start,
    /// Let the clock stand, and keep the buffers.
    Stop,
    /// Give back every buffer, then the back end.
    Release,
}

impl PcmState {
    /// The next state and what to do, or `None` when the request is not allowed now.
    #[must_use]
    pub fn after(self, request: PcmRequest) -> Option<(Self, Action)> {
        use PcmRequest as R;
        Some(match (self, request) {
            (Self::Idle | Self::Configured(_) | Self::Released(_), R::SetParams(params)) => {
                (Self::Configured(params), Action::Nothing)
            }
            (Self::Prepared(_), R::SetParams(params)) => {
                (Self::Configured(params), Action::Discard)
            }
            (Self::Configured(params) | Self::Released(params), R::Prepare) => {
                (Self::Prepared(params), Action::Open(params))
            }
            // The back end is ready already.
            (Self::Prepared(params), R::Prepare) => (Self::Prepared(params), Action::Nothing),
            (Self::Prepared(params) | Self::Stopped(params), R::Start) => {
                (Self::Running(params), Action::Start)
            }
            (Self::Running(params), R::Stop) => (Self::Stopped(params), Action::Stop),
            (Self::Prepared(params) | Self::Stopped(params), R::Release) => {
                (Self::Released(params), Action::Release)
            }
            _ => return None,
        })
    }

    /// Whether the stream is already where `request` leads: the request was carried out before, by
    /// a process of this service that died before it could answer.
    #[must_use]
    pub fn has_done(self, request: PcmRequest) -> bool {
        use PcmRequest as R;
        match (self, request) {
            (Self::Configured(now), R::SetParams(params)) => now == params,
            (Self::Prepared(_), R::Prepare)
            | (Self::Running(_), R::Start)
            | (Self::Stopped(_), R::Stop)
            | (Self::Released(_), R::Release) => true,
            _ => false,
        }
    }

    /// The parameters, where there are any.
    #[must_use]
    pub fn params(self) -> Option<Params> {
        match self {
            Self::Idle => None,
            Self::Configured(params)
            | Self::Prepared(params)
            | Self::Running(params)
            | Self::Stopped(params)
            | Self::Released(params) => Some(params),
        }
    }

    /// The parameters while buffers are taken: from PREPARE to RELEASE.
    #[must_use]
    pub fn open(self) -> Option<Params> {
        match self {
            Self::Prepared(params) | Self::Running(params) | Self::Stopped(params) => Some(params),
            Self::Idle | Self::Configured(_) | Self::Released(_) => None,
        }
    }

    /// Whether the clock runs.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// A number for the record and D-Bus.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Idle => 0,
            Self::Configured(_) => 1,
            Self::Prepared(_) => 2,
            Self::Running(_) => 3,
            Self::Stopped(_) => 4,
            Self::Released(_) => 5,
        }
    }

    /// The state of this number; without parameters only [`PcmState::Idle`] is one.
    #[must_use]
    pub fn from_number(number: u8, params: Option<Params>) -> Option<Self> {
        Some(match (number, params) {
            (0, _) => Self::Idle,
            (1, Some(params)) => Self::Configured(params),
            (2, Some(params)) => Self::Prepared(params),
            (3, Some(params)) => Self::Running(params),
            (4, Some(params)) => Self::Stopped(params),
            (5, Some(params)) => Self::Released(params),
            _ => return None,
        })
    }
}

/// Checks what a driver wants against what the stream offers.
///
/// # Errors
/// [`Status::BadMsg`] for what the specification does not define, [`Status::NotSupp`] for what this
/// stream does not offer.
pub fn check_params(offer: &PcmInfo, set: &SetParams) -> Result<Params, Status> {
    let format = Format::from_wire(set.format).ok_or(Status::BadMsg)?;
    let rate = Rate::from_wire(set.rate).ok_or(Status::BadMsg)?;
    let params = Params {
        format,
        rate,
        channels: set.channels,
        buffer_bytes: set.buffer_bytes.get(),
        period_bytes: set.period_bytes.get(),
        features: set.features.get(),
    };
    if params.features & !feature::DEFINED != 0 || params.channels == 0 {
        return Err(Status::BadMsg);
    }
    let offered = params.features & !offer.features.get() == 0
        && format.bit() & offer.formats.get() != 0
        && rate.bit() & offer.rates.get() != 0
        && (offer.channels_min..=offer.channels_max).contains(&params.channels)
        && params.buffer_bytes <= LARGEST_BUFFER;
    // Two samples of 4 bits share a byte, and a frame begins at one.
    let half = format.container_bits() < 8 && params.channels % 2 == 1;
    if !offered || half {
        return Err(Status::NotSupp);
    }
    let frame = u32::try_from(params.frame_bytes()).map_err(|_| Status::NotSupp)?;
    let whole = |bytes: u32, part: u32| bytes.checked_rem(part) == Some(0);
    if params.buffer_bytes == 0
        || !whole(params.buffer_bytes, params.period_bytes)
        || !whole(params.period_bytes, frame)
    {
        return Err(Status::BadMsg);
    }
    Ok(params)
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
