// SPDX-License-Identifier: Apache-2.0

//! What a stream's back end needs of the system, before everything else is given up.

use agl_virtio_service::sandbox::Policy;

use crate::backend::file::directory;
use crate::config::{BackendConfig, StreamConfig};
use crate::wire::Direction;

/// Allows what a stream needs.
pub(crate) fn allow(stream: &StreamConfig, policy: &mut Policy) {
    match &stream.backend {
        BackendConfig::Null(_) => {}
        BackendConfig::File(file) => {
            if stream.direction == Direction::Output {
                let folder = directory(&file.path);
                // What is not there cannot be allowed.
                if let Err(error) = std::fs::create_dir_all(&folder) {
                    log::warn!("cannot make the folder {}: {error}", folder.display());
                }
                policy.read_write(folder);
            }
            for source in stream.source_list() {
                if let Some(input) = source.input {
                    policy.read_only(input);
                }
            }
        }
    }
}
