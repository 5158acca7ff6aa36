// SPDX-License-Identifier: Apache-2.0

//! CAN controllers for guests.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    agl_virtio_service::run::<agl_virtio_can::service::Can>()
}
