// SPDX-License-Identifier: Apache-2.0
//! What a service that was taken over cannot do.
//!
//! The process gives up, before its second thread starts: new privileges, capabilities, the
//! file system except what its [`Policy`] names, TCP, core dumps, and every system call that
//! none of its threads needs. Then each thread gives up what only the others need
//! ([`Sandbox::enter`]).
//!
//! What the kernel cannot do is reported, in [`SandboxReport`], never passed over.

mod capabilities;
mod filter;
mod landlock;
mod limits;
mod measure;
mod syscalls;

pub use measure::{Measure, SandboxReport};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// What a thread does, and so what it may ask of the kernel.
///
/// A thread inherits what its parent gave up. So a session may start queue threads, but threads
/// of the other roles are to be started by the thread that runs
/// [`Daemon::serve`](crate::Daemon::serve), which stays in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Serves virtqueues: waits, reads and writes descriptors it has. A forbidden call ends the
    /// process, because only our own code runs here and would never make it.
    Queue,
    /// Speaks vhost-user: also accepts, receives descriptors, maps guest memory, starts queue
    /// threads, and keeps CAP_SYS_NICE for them. A forbidden call ends the process.
    Session,
    /// Speaks D-Bus. A forbidden call fails with EPERM.
    Bus,
    /// Runs libraries of others (ALSA, GStreamer), which may load plugins. A forbidden call
    /// fails with EPERM, because nobody can list what a library of tomorrow tries.
    Backend,
    /// Runs libraries of others on what a guest sent, in a process that was made for nothing else: as
    /// a back end, but it makes no socket, changes no file and becomes no real-time thread.
    Worker,
    /// Starts processes of workers, and ends them.
    Nursery,
}

impl Role {
    /// The roles in a process that serves a device.
    pub const ALL: [Self; 4] = [Self::Queue, Self::Session, Self::Bus, Self::Backend];
}

/// What a service needs beyond what all services need.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    read_only: Vec<PathBuf>,
    read_write: Vec<PathBuf>,
    remove_files: Vec<PathBuf>,
    system_calls: BTreeMap<Role, Vec<i64>>,
    has_backend: bool,
    only: Option<Role>,
    network: bool,
    open_files: Option<u64>,
}

impl Policy {
    /// What all services need, and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For a process all of whose threads are in this role, such as one of [`Role::Worker`].
    #[must_use]
    pub fn only(role: Role) -> Self {
        Self {
            only: Some(role),
            ..Self::default()
        }
    }

    /// Allows to read and execute files below this path.
    pub fn read_only(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.read_only.push(path.into());
        self
    }

    /// Allows everything below this path, device nodes included.
    pub fn read_write(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.read_write.push(path.into());
        self
    }

    /// Allows the thread that serves to remove files in this folder; threads of a role cannot.
    pub(crate) fn remove_files(&mut self, folder: impl Into<PathBuf>) -> &mut Self {
        self.remove_files.push(folder.into());
        self
    }

    /// Allows these system calls (`libc::SYS_…`) in threads of this role.
    pub fn system_calls(&mut self, role: Role, numbers: &[i64]) -> &mut Self {
        self.system_calls
            .entry(role)
            .or_default()
            .extend_from_slice(numbers);
        self
    }

    /// Allows threads of this role to make files in memory and to map them.
    pub fn memory_files(&mut self, role: Role) -> &mut Self {
        let calls = [
            libc::SYS_memfd_create,
            libc::SYS_ftruncate,
            libc::SYS_fstat,
            libc::SYS_statx,
            libc::SYS_newfstatat,
        ];
        self.system_calls(role, &calls)
    }

    /// The service has threads of [`Role::Backend`].
    pub fn backend_threads(&mut self) -> &mut Self {
        self.has_backend = true;
        self
    }

    /// Allows TCP, which landlock takes away otherwise.
    pub fn network(&mut self) -> &mut Self {
        self.network = true;
        self
    }

    /// How many descriptors may be open. 1024 where this is not called.
    pub fn open_files(&mut self, most: u64) -> &mut Self {
        self.open_files = Some(most);
        self
    }

    fn roles(&self) -> impl Iterator<Item = Role> + '_ {
        let serving = Role::ALL
            .into_iter()
            .filter(|role| self.only.is_none() && (*role != Role::Backend || self.has_backend));
        self.only.into_iter().chain(serving)
    }
}

/// The sandbox of this process. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Nothing where the sandbox is off or the kernel has no seccomp.
    filters: Option<filter::Filters>,
    off: bool,
    report: Mutex<SandboxReport>,
}

impl Sandbox {
    /// No sandbox: `--no-sandbox`.
    #[must_use]
    pub fn off() -> Self {
        Self::with(None, true, SandboxReport::off())
    }

    /// Gives up everything that the policy does not need. To be called by the only thread of
    /// the process; threads that already run keep what they have, and the report says so.
    #[must_use]
    pub fn lock_down(policy: &Policy) -> Self {
        let mut report = SandboxReport {
            no_new_privileges: limits::no_new_privileges(),
            core_dumps: limits::no_core_dumps(),
            not_traceable: limits::not_traceable(),
            open_files: limits::open_files(policy.open_files),
            capabilities: capabilities::keep_nice(),
            files: landlock::restrict(policy),
            system_calls: Measure::Off,
        };
        let filters = match filter::Filters::compile(policy).and_then(|filters| {
            filters.apply_base()?;
            Ok(filters)
        }) {
            Ok(filters) => {
                report.system_calls = Measure::Applied(format!(
                    "{} allowed in the process, fewer in each thread",
                    filters.base_count()
                ));
                Some(filters)
            }
            Err(error) => {
                report.system_calls = Measure::Refused(error.to_string());
                None
            }
        };
        if let Some(others) = limits::other_threads() {
            report.note_threads(others);
        }
        Self::with(filters, false, report)
    }

    fn with(filters: Option<filter::Filters>, off: bool, report: SandboxReport) -> Self {
        Self {
            shared: Arc::new(Shared {
                filters,
                off,
                report: Mutex::new(report),
            }),
        }
    }

    /// Narrows the calling thread to its role: the rest of the capabilities and all system
    /// calls that the role does not need. Set the thread's scheduling before.
    ///
    /// What could not be done is logged and in the report; the thread may go on.
    pub fn enter(&self, role: Role) {
        if self.shared.off {
            return;
        }
        // A session keeps CAP_SYS_NICE, if there is one, for the queue threads that it starts.
        let dropped = match role {
            Role::Session => Ok(()),
            Role::Queue | Role::Bus | Role::Backend | Role::Worker | Role::Nursery => {
                capabilities::drop_all()
            }
        };
        if let Err(error) = dropped {
            self.failed(role, &format!("capabilities stay: {error}"));
        }
        if let Some(filters) = &self.shared.filters {
            if let Err(error) = filters.apply(role) {
                self.failed(role, &format!("system calls stay: {error}"));
            }
        }
    }

    fn failed(&self, role: Role, reason: &str) {
        let text = format!("a {role:?} thread is not narrowed: {reason}");
        log::error!("{text}");
        let mut report = self.lock();
        report.system_calls = Measure::Refused(text);
    }

    /// What is applied.
    #[must_use]
    pub fn report(&self) -> SandboxReport {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SandboxReport> {
        self.shared
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
