// SPDX-License-Identifier: Apache-2.0

//! `agl-virtio-snd`: a sound card for a virtual machine.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    agl_virtio_service::run::<agl_virtio_snd::daemon::Snd>()
}
