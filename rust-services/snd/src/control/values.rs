// SPDX-License-Identifier: Apache-2.0

//! Numbers as they are on the bus and as the panel has them, and how wrong ones are refused.

use zbus::fdo::Error;

use crate::policy::{VOLUME_MAX, VOLUME_STEP_CB};

/// How far a stream can be made to step back, in decibels.
const SOFTEST: f64 = -60.0;

/// A refusal that says what to write.
pub(super) fn refuse(what: &str) -> Error {
    Error::InvalidArgs(what.to_owned())
}

/// Hundredths of a decibel of a number of decibels from [`SOFTEST`] to 0.
pub(super) fn centibels(decibels: f64) -> Result<i32, Error> {
    if !(SOFTEST..=0.0).contains(&decibels) {
        return Err(refuse("write a number of decibels from -60.0 to 0.0"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "in range by the check before"
    )]
    let centibels = (decibels * 100.0).round() as i32;
    Ok(centibels)
}

/// Decibels of hundredths of one.
pub(super) fn decibels(centibels: i32) -> f64 {
    f64::from(centibels) / 100.0
}

/// The step of the guest's fader at a place from 0.0 to 1.0.
pub(super) fn volume_step(volume: f64) -> Result<u32, Error> {
    if !(0.0..=1.0).contains(&volume) {
        return Err(refuse("write a volume from 0.0 to 1.0"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in range by the check before"
    )]
    let step = (volume * f64::from(VOLUME_MAX)).round() as u32;
    Ok(step)
}

/// Decibels of a step of the fader; −1000 for silence.
pub(super) fn volume_decibels(volume: u32) -> f64 {
    let below = f64::from(VOLUME_MAX.saturating_sub(volume));
    if volume == 0 {
        -1000.0
    } else {
        0.0 - below * f64::from(VOLUME_STEP_CB) / 100.0
    }
}
