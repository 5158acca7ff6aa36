// SPDX-License-Identifier: Apache-2.0

//! Hardware codecs for a guest.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    agl_virtio_service::run::<agl_virtio_video::service::Video>()
}
