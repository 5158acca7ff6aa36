// SPDX-License-Identifier: Apache-2.0

//! Replay-protected memory, with this project's tool. Nothing is written, and no key programmed: that is for ever.

use super::{Outcome, devices};
use crate::options::Options;
use crate::system::{ProgramError, System, run};

const TOOL: &str = "agl-virtio-rpmb-tool";
const DEVICE: &str = "dev/virtio_rpmb0";

/// Whether the device answers when it is asked for its counter.
pub(super) fn answers(system: &System, _: &Options) -> Outcome {
    if let Err(outcome) = devices::of_type(system, "rpmb") {
        return outcome;
    }
    let device = system.path(DEVICE);
    if !device.exists() {
        return Outcome::failed(format!("the driver has made no {}", device.display()));
    }
    match run(
        TOOL,
        &["--device", &device.to_string_lossy(), "counter"],
        &[],
    ) {
        Ok((count, _)) => Outcome::passed(format!(
            "counter {}",
            String::from_utf8_lossy(&count).trim()
        )),
        // A new device says so, and that is an answer.
        Err(ProgramError::Failed { said, .. }) if said.contains("key") => Outcome::passed(said),
        Err(error) => error.into(),
    }
}
