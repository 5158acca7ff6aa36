// SPDX-License-Identifier: Apache-2.0
//! agl-virtiod: defines, starts and supervises guests.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    agl_virtio_manager::run()
}
