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
        BackendConfig::Alsa(_) => allow_servers(policy),
        BackendConfig::Gstreamer(pipes) => {
            allow_servers(policy);
            policy
                .read_only("/usr/share")
                .read_write(home(".cache/gstreamer-1.0"));
            for path in &pipes.paths {
                policy.read_write(path);
            }
        }
        BackendConfig::File(file) => {
            if stream.direction == Direction::Output {
                let folder = directory(&file.path);
                // What is not there cannot be allowed. That it cannot be made is told before, where
                // the host was looked at.
                if let Err(error) = std::fs::create_dir_all(&folder) {
                    let folder = folder.display();
                    log::debug!("cannot make the folder {folder}: {error}");
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

/// Cards, sound servers, and what their libraries read to find them.
fn allow_servers(policy: &mut Policy) {
    policy
        .read_write("/dev/snd")
        .read_write("/dev/shm")
        .read_only("/proc")
        .read_only("/sys");
    for folder in ["alsa", "asound.conf", "pipewire", "pulse", "machine-id"] {
        policy.read_only(format!("/etc/{folder}"));
    }
    for folder in ["alsa", "pipewire", "spa-0.2"] {
        policy.read_only(format!("/usr/share/{folder}"));
    }
    for file in [
        ".asoundrc",
        ".config/alsa",
        ".config/pipewire",
        ".config/pulse",
    ] {
        policy.read_only(home(file));
    }
    for variable in ["XDG_RUNTIME_DIR", "PIPEWIRE_RUNTIME_DIR"] {
        if let Some(folder) = std::env::var_os(variable) {
            policy.read_write(folder);
        }
    }
    if let Some(folder) = std::env::var_os("XDG_CONFIG_HOME") {
        policy.read_only(folder);
    }
}

/// A file of the user that the service runs as.
fn home(file: &str) -> std::path::PathBuf {
    std::env::var_os("HOME")
        .map_or_else(|| "/".into(), std::path::PathBuf::from)
        .join(file)
}
