// SPDX-License-Identifier: Apache-2.0

//! The platform side of SCMI for guests.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if words
        .nth(1)
        .is_some_and(|word| word == agl_virtio_scmi::devicetree::COMMAND)
    {
        return agl_virtio_scmi::devicetree::run(words);
    }
    agl_virtio_service::run::<agl_virtio_scmi::service::Scmi>()
}
