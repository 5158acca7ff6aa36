// SPDX-License-Identifier: Apache-2.0

//! Where the codecs of a device run, and how its service comes by them: what all services with codecs
//! do alike.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use agl_virtio_service::sandbox::Policy;
use serde::Deserialize;

use crate::coder::{Codecs, HostCodecs};
use crate::process::{Nursery, Setup, Workers, registry};
use crate::{Codec, CodecError, Elements, Host, Library};

/// Where the codecs of a device run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Each stream's in a process of its own: one that crashes takes its stream.
    #[default]
    Process,
    /// In threads of the service: one that crashes takes all streams of the device.
    Thread,
}

impl Isolation {
    /// As the configuration has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Thread => "thread",
        }
    }
}

/// Born before the sandbox, wanted after it.
static NURSERY: Mutex<Option<Nursery>> = Mutex::new(None);

/// Does what cannot be done in the sandbox, for codecs that run where `isolation` says.
///
/// # Errors
/// The host has no room for another process.
pub fn prepare(isolation: Isolation, setup: impl FnOnce() -> Setup) -> io::Result<()> {
    if let Some(folder) = registry() {
        // Only what is there can be left open. Without it each start looks at all plugins.
        let _ = std::fs::create_dir_all(folder);
    }
    if isolation == Isolation::Process {
        let nursery = Nursery::start(setup())?;
        *NURSERY.lock().unwrap_or_else(PoisonError::into_inner) = Some(nursery);
    }
    Ok(())
}

/// Names what GStreamer and its codecs need of the system, and `paths` beside it.
pub fn allow(policy: &mut Policy, paths: &[PathBuf]) {
    policy.backend_threads();
    // Codecs of libav and of x264 and x265 count processors and look at what they can do.
    policy
        .read_only("/proc")
        .read_only("/sys/devices/system")
        .read_only("/usr/share");
    if let Some(folder) = registry() {
        policy.read_write(folder);
    }
    for path in paths {
        policy.read_write(path);
    }
}

/// The codecs of a service.
pub struct Supply {
    /// Where sessions come from.
    pub codecs: Box<dyn Codecs>,
    /// What can be decoded.
    pub decoders: Vec<Codec>,
    /// What can be encoded.
    pub encoders: Vec<Codec>,
}

impl Supply {
    /// Codecs where [`prepare`] was told that they run; without it in threads, of these elements.
    /// Waits until they are loaded.
    ///
    /// # Errors
    /// GStreamer does not start.
    pub fn open(elements: &Elements, host: Host) -> Result<Self, CodecError> {
        let nursery = NURSERY
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(nursery) = nursery {
            let workers = Workers::new(nursery, host)?;
            return Ok(Self {
                decoders: workers.decoders().to_vec(),
                encoders: workers.encoders().to_vec(),
                codecs: Box::new(workers),
            });
        }
        let library = Library::load(elements)?;
        Ok(Self {
            decoders: library.decoders().collect(),
            encoders: library.encoders().collect(),
            codecs: Box::new(HostCodecs { library, host }),
        })
    }
}
