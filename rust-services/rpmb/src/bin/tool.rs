// SPDX-License-Identifier: Apache-2.0

//! Programs, reads, writes and counts a replay-protected memory block, in a guest or on a host.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    agl_virtio_rpmb::tool::main()
}
