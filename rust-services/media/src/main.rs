// SPDX-License-Identifier: Apache-2.0

//! A camera or a codec for a guest.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "gstreamer")]
    if let Some(code) = agl_virtio_codec::process::main_of_worker() {
        return code;
    }
    agl_virtio_service::run::<agl_virtio_media::service::Media>()
}
