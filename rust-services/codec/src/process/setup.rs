// SPDX-License-Identifier: Apache-2.0

//! What workers are for, what they may have, and how a process finds that it is one.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agl_virtio_service::sandbox::{Policy, Role, Sandbox};
use agl_virtio_service::{Exit, logging};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::message::is_closed;
use crate::elements::Elements;

/// The first argument of a nursery.
pub(super) const NURSERY: &str = "--codec-nursery";
/// The first argument of a worker.
pub(super) const WORKER: &str = "--codec-worker";
/// Descriptors that a worker may have open.
const OPEN_FILES: u64 = 512;
/// Threads and processes of the service's user with which a worker makes no more: codecs have dozens.
const PROCESSES: u64 = 4096;
/// Where memory ends, workers end before anything else does (see proc(5), oom_score_adj).
const FIRST_TO_GO: &str = "500";

/// Known before any guest has said a word: nothing of it can be changed later.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Setup {
    /// The elements of the codecs.
    pub elements: Elements,
    /// What they need of the file system beyond what every program does.
    pub paths: Vec<PathBuf>,
    /// After how long without any progress a session is given up.
    pub patience: Duration,
    /// Bytes of memory that a worker may have of its own.
    pub memory: u64,
    /// Pixels of a picture, at most.
    pub pixels: u64,
    /// Sessions at once: so many workers, and two beside, are there at most.
    pub sessions: u32,
    /// Whether workers are confined; else it is for a developer.
    pub sandbox: bool,
    /// How much they say.
    pub log: String,
}

impl Setup {
    /// For workers after the first one, which has said what there is to say.
    pub(super) fn said_once(&self) -> serde_json::Result<String> {
        let level = self.log.parse().unwrap_or(log::LevelFilter::Error);
        let level = if level >= log::LevelFilter::Debug {
            level
        } else {
            level.min(log::LevelFilter::Error)
        };
        serde_json::to_string(&Self {
            log: level.to_string(),
            ..self.clone()
        })
    }

    fn policy(&self, role: Role) -> Policy {
        let mut policy = Policy::only(role);
        // Codecs of libav and of x264 and x265 count processors and look at what they can do.
        for path in ["/proc", "/sys/devices/system", "/usr/share"] {
            policy.read_only(path);
        }
        if let Some(folder) = registry() {
            policy.read_only(folder);
        }
        for path in &self.paths {
            policy.read_write(path);
        }
        policy.open_files(OPEN_FILES);
        policy
    }

    fn confine(&self, role: Role, policy: &Policy) {
        if !self.sandbox {
            return;
        }
        let sandbox = Sandbox::lock_down(policy);
        sandbox.enter(role);
        let report = sandbox.report();
        if !report.is_complete() {
            log::debug!("{role:?}: {report}");
        }
    }

    pub(super) fn confine_nursery(&self) {
        // Workers inherit it, and have more memory than this process.
        if let Err(error) = std::fs::write("/proc/self/oom_score_adj", FIRST_TO_GO) {
            log::debug!("codecs are not the first to go where memory ends: {error}");
        }
        let mut policy = self.policy(Role::Nursery);
        // It executes this program, as the loader of the C library does for it.
        for path in ["/proc/self/exe", "/lib64", "/usr/lib64"] {
            policy.read_only(path);
        }
        self.confine(Role::Nursery, &policy);
    }

    pub(super) fn confine_worker(&self) {
        // Whatever else fails, nobody is left behind.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        if let Err(error) = limit(Resource::Data, self.memory) {
            log::warn!("a codec's memory is not limited: {error}");
        }
        if let Err(error) = limit(Resource::Nproc, PROCESSES) {
            log::warn!("a codec's threads are not limited: {error}");
        }
        // rustix asks the kernel where its clock is, once, by a prctl that is refused later.
        let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.confine(Role::Worker, &self.policy(Role::Worker));
    }
}

/// Limits a resource to so much, or less where it is limited already.
fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let so_far = getrlimit(resource).maximum;
    let most = Some(so_far.map_or(most, |so_far| so_far.min(most)));
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(resource, limit)
}

/// Where GStreamer keeps what it knows of its plugins.
#[must_use]
pub fn registry() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    Some(cache.or_else(home)?.join("gstreamer-1.0"))
}

/// Does the work of a worker or of a nursery, where this process was started as one: a service's
/// `main` calls it first.
#[must_use]
pub fn main_of_worker() -> Option<ExitCode> {
    let mut words = std::env::args();
    let role = words.nth(1)?;
    let is_nursery = role == NURSERY;
    if !is_nursery && role != WORKER {
        return None;
    }
    let Some(text) = words.next() else {
        return Some(Exit::Usage.into());
    };
    let Ok(setup) = serde_json::from_str::<Setup>(&text) else {
        return Some(Exit::Usage.into());
    };
    logging::start(
        "agl-virtio-codec",
        setup.log.parse().unwrap_or(log::LevelFilter::Info),
    );
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else {
        return Some(Exit::Usage.into());
    };
    let done = if is_nursery {
        super::nursery::run(&setup, &text, &socket)
    } else {
        super::worker::run(&setup, &socket)
    };
    Some(match done {
        Ok(()) => Exit::Ok.into(),
        // Its session was closed while it spoke.
        Err(error) if is_closed(&error) => Exit::Ok.into(),
        Err(error) => {
            log::error!("{role}: {error}");
            Exit::Os.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_worker_says_what_is_missing_unless_somebody_looks_for_faults() {
        for (log, expected) in [
            ("WARN", "ERROR"),
            ("INFO", "ERROR"),
            ("OFF", "OFF"),
            ("TRACE", "TRACE"),
        ] {
            let setup = Setup {
                elements: Elements::default(),
                paths: Vec::new(),
                patience: Duration::from_secs(1),
                memory: 1,
                pixels: 1,
                sessions: 1,
                sandbox: true,
                log: log.to_owned(),
            };
            let later: Setup = serde_json::from_str(&setup.said_once().unwrap()).unwrap();
            assert_eq!(later.log, expected);
        }
    }
}
