// SPDX-License-Identifier: Apache-2.0

//! The checks, a file for each type of device.

mod camera;
mod can;
mod codec;
mod devices;
mod rpmb;
mod scmi;
mod snd;
mod v4l2;

use serde::Serialize;

use crate::options::Options;
use crate::system::{ProgramError, System};

/// What a check found.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// What must hold does; what was seen.
    Passed { saw: String },
    /// It does not.
    Failed { why: String },
    /// This guest has nothing that it could be said of.
    Skipped { why: String },
}

/// Something that must hold.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) holds: &'static str,
    /// The type of device it is about, as a guest's configuration calls it.
    pub(crate) device: Option<&'static str>,
    pub(crate) run: fn(&System, &Options) -> Outcome,
}

/// All of them, in the order they are run: first whether there are drivers at all.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "drivers",
        holds: "every virtio device has a driver",
        device: None,
        run: devices::have_drivers,
    },
    Check {
        name: "card",
        holds: "the sound card is listed, with its streams",
        device: Some("snd"),
        run: snd::listed,
    },
    Check {
        name: "playback",
        holds: "a second of a tone takes a second to play",
        device: Some("snd"),
        run: snd::plays,
    },
    Check {
        name: "capture",
        holds: "what the card records has the length and the tone it should have",
        device: Some("snd"),
        run: snd::records,
    },
    Check {
        name: "scmi",
        holds: "protocols of the SCMI platform have their drivers",
        device: Some("scmi"),
        run: scmi::protocols,
    },
    Check {
        name: "sensors",
        holds: "every sensor of the SCMI platform answers",
        device: Some("scmi"),
        run: scmi::sensors,
    },
    Check {
        name: "can",
        holds: "a CAN controller sends a frame and says that it was sent",
        device: Some("can"),
        run: can::sends,
    },
    Check {
        name: "rpmb",
        holds: "the replay-protected memory answers, signed, or says that it has no key",
        device: Some("rpmb"),
        run: rpmb::answers,
    },
    Check {
        name: "codec",
        holds: "the encoder's stream of ten pictures is ten pictures to the decoder",
        device: Some("video"),
        run: codec::keep_pictures,
    },
    Check {
        name: "camera",
        holds: "every camera gives ten pictures of the size it says",
        device: Some("media"),
        run: camera::gives_pictures,
    },
];

impl Outcome {
    fn passed(saw: impl Into<String>) -> Self {
        Self::Passed { saw: saw.into() }
    }

    fn failed(why: impl Into<String>) -> Self {
        Self::Failed { why: why.into() }
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped { why: why.into() }
    }
}

impl From<ProgramError> for Outcome {
    fn from(error: ProgramError) -> Self {
        Self::failed(error.to_string())
    }
}
