// SPDX-License-Identifier: Apache-2.0

//! A camera or a codec for a guest.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    agl_virtio_service::run::<agl_virtio_media::service::Media>()
}
