// SPDX-License-Identifier: Apache-2.0
//! The system calls of each role, and under which condition.
//!
//! Old calls that only x86-64 has stand apart: newer processors never had them.

use super::Role;

/// A condition on the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Whatever the arguments.
    Always,
    /// mmap and mprotect without PROT_EXEC: nobody writes code and runs it.
    NotExecutable,
    /// socket and socketpair of AF_UNIX.
    UnixDomain,
    /// clone of a thread, not of a process.
    Thread,
    /// ioctl FIONBIO, which is how the standard library makes sockets non-blocking.
    NonBlocking,
    /// prctl that names the thread or takes something away from it.
    Narrowing,
    /// Of no other process: its number is not said.
    Itself,
    /// A signal to a thread of the process in which the filter is made.
    OwnThread,
    /// sendto without an address: to whom the socket is connected.
    Connected,
    /// socketpair of AF_UNIX and SOCK_STREAM: such a socket sends to nobody else.
    StreamPair,
    /// fcntl that names nobody to be sent signals.
    NoOwner,
    /// The same for ioctl.
    NoOwnerOfDevice,
}

/// A system call that is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    pub(super) number: i64,
    pub(super) when: When,
}

/// All that a role may do.
pub(super) fn of(role: Role) -> impl Iterator<Item = &'static Allowed> {
    let parts: &[&[Allowed]] = match role {
        Role::Queue => &[EVERY_THREAD, WAITING, OWN_CODE],
        Role::Session => &[EVERY_THREAD, WAITING, OWN_CODE, STARTING_THREADS, SESSION],
        Role::Bus => &[EVERY_THREAD, WAITING, OWN_CODE, STARTING_THREADS, BUS],
        Role::Backend => &[
            EVERY_THREAD,
            WAITING,
            STARTING_THREADS,
            SESSION,
            BUS,
            LIBRARIES,
            BACKEND,
        ],
        Role::Worker => &[EVERY_THREAD, WAITING, LIBRARIES, WORKER],
        Role::Nursery => &[EVERY_THREAD, WAITING, LIBRARIES, WORKER, NURSERY],
    };
    parts.iter().copied().flatten()
}

const fn always(number: i64) -> Allowed {
    Allowed {
        number,
        when: When::Always,
    }
}

const fn only(number: i64, when: When) -> Allowed {
    Allowed { number, when }
}

/// What the C library and the Rust runtime do in any thread, and what logging needs.
const EVERY_THREAD: &[Allowed] = &[
    always(libc::SYS_read),
    always(libc::SYS_readv),
    always(libc::SYS_write),
    always(libc::SYS_writev),
    always(libc::SYS_pread64),
    always(libc::SYS_pwrite64),
    always(libc::SYS_preadv),
    always(libc::SYS_pwritev),
    always(libc::SYS_preadv2),
    always(libc::SYS_pwritev2),
    always(libc::SYS_close),
    always(libc::SYS_lseek),
    always(libc::SYS_fcntl),
    always(libc::SYS_sendto),
    always(libc::SYS_futex),
    always(libc::SYS_clock_gettime),
    always(libc::SYS_clock_getres),
    always(libc::SYS_clock_nanosleep),
    always(libc::SYS_nanosleep),
    always(libc::SYS_gettimeofday),
    always(libc::SYS_munmap),
    always(libc::SYS_mremap),
    always(libc::SYS_madvise),
    always(libc::SYS_mlock),
    always(libc::SYS_mlock2),
    always(libc::SYS_munlock),
    always(libc::SYS_brk),
    always(libc::SYS_rt_sigreturn),
    always(libc::SYS_rt_sigaction),
    always(libc::SYS_rt_sigprocmask),
    always(libc::SYS_sigaltstack),
    always(libc::SYS_restart_syscall),
    always(libc::SYS_exit),
    always(libc::SYS_exit_group),
    always(libc::SYS_getpid),
    always(libc::SYS_gettid),
    // abort() raises a signal in its own thread.
    always(libc::SYS_tgkill),
    always(libc::SYS_tkill),
    always(libc::SYS_sched_yield),
    always(libc::SYS_sched_getaffinity),
    always(libc::SYS_getrandom),
    always(libc::SYS_rseq),
    always(libc::SYS_set_robust_list),
    always(libc::SYS_membarrier),
    always(libc::SYS_getcpu),
    only(libc::SYS_prctl, When::Narrowing),
];

/// Memory without code. A backend may load plugins and has a wider rule.
const OWN_CODE: &[Allowed] = &[
    only(libc::SYS_mmap, When::NotExecutable),
    only(libc::SYS_mprotect, When::NotExecutable),
];

/// Event descriptors, timers and polling.
const WAITING: &[Allowed] = &[
    always(libc::SYS_ppoll),
    always(libc::SYS_epoll_create1),
    always(libc::SYS_epoll_ctl),
    always(libc::SYS_epoll_pwait),
    always(libc::SYS_eventfd2),
    always(libc::SYS_timerfd_create),
    always(libc::SYS_timerfd_settime),
    always(libc::SYS_timerfd_gettime),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_poll),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_epoll_wait),
];

/// A new thread, which then becomes real-time and narrows itself.
const STARTING_THREADS: &[Allowed] = &[
    only(libc::SYS_clone, When::Thread),
    // Another filter answers ENOSYS (see filter.rs); here it must not end the process.
    always(libc::SYS_clone3),
    always(libc::SYS_sched_setscheduler),
    always(libc::SYS_sched_setparam),
    always(libc::SYS_sched_getscheduler),
    always(libc::SYS_sched_getparam),
    always(libc::SYS_sched_get_priority_max),
    always(libc::SYS_sched_get_priority_min),
    always(libc::SYS_capget),
    always(libc::SYS_capset),
    always(libc::SYS_seccomp),
    always(libc::SYS_prlimit64),
];

/// Sockets of our own kind, and descriptors and memory that come through them.
const SESSION: &[Allowed] = &[
    only(libc::SYS_socket, When::UnixDomain),
    only(libc::SYS_socketpair, When::UnixDomain),
    only(libc::SYS_ioctl, When::NonBlocking),
    always(libc::SYS_accept4),
    always(libc::SYS_accept),
    always(libc::SYS_connect),
    always(libc::SYS_bind),
    always(libc::SYS_listen),
    always(libc::SYS_recvmsg),
    always(libc::SYS_recvfrom),
    always(libc::SYS_sendmsg),
    always(libc::SYS_shutdown),
    always(libc::SYS_getsockopt),
    always(libc::SYS_setsockopt),
    always(libc::SYS_getsockname),
    always(libc::SYS_getpeername),
    always(libc::SYS_dup),
    always(libc::SYS_dup3),
    always(libc::SYS_fstat),
    always(libc::SYS_statx),
    always(libc::SYS_newfstatat),
    always(libc::SYS_memfd_create),
    always(libc::SYS_ftruncate),
    always(libc::SYS_fallocate),
    always(libc::SYS_pipe2),
];

/// What a D-Bus connection asks: who we are, and files that say where the bus is.
const BUS: &[Allowed] = &[
    only(libc::SYS_socket, When::UnixDomain),
    only(libc::SYS_socketpair, When::UnixDomain),
    only(libc::SYS_ioctl, When::NonBlocking),
    always(libc::SYS_connect),
    always(libc::SYS_recvmsg),
    always(libc::SYS_recvfrom),
    always(libc::SYS_sendmsg),
    always(libc::SYS_shutdown),
    always(libc::SYS_getsockopt),
    always(libc::SYS_setsockopt),
    always(libc::SYS_getsockname),
    always(libc::SYS_getpeername),
    always(libc::SYS_dup),
    always(libc::SYS_getuid),
    always(libc::SYS_geteuid),
    always(libc::SYS_getgid),
    always(libc::SYS_getegid),
    always(libc::SYS_getgroups),
    always(libc::SYS_openat),
    always(libc::SYS_fstat),
    always(libc::SYS_statx),
    always(libc::SYS_newfstatat),
    always(libc::SYS_readlinkat),
    always(libc::SYS_getdents64),
    always(libc::SYS_getcwd),
    always(libc::SYS_uname),
];

/// What removes a file; which one the C library takes depends on the processor.
#[cfg(target_arch = "x86_64")]
pub(super) const REMOVING: [i64; 2] = [libc::SYS_unlink, libc::SYS_unlinkat];
/// What removes a file.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const REMOVING: [i64; 1] = [libc::SYS_unlinkat];

/// What media libraries do wherever they are: load plugins, run code of their own, open devices.
const LIBRARIES: &[Allowed] = &[
    always(libc::SYS_mmap),
    always(libc::SYS_mprotect),
    always(libc::SYS_ioctl),
    always(libc::SYS_openat),
    always(libc::SYS_openat2),
    always(libc::SYS_faccessat),
    always(libc::SYS_faccessat2),
    always(libc::SYS_statfs),
    always(libc::SYS_fstatfs),
    always(libc::SYS_fadvise64),
    always(libc::SYS_pselect6),
    always(libc::SYS_msync),
    always(libc::SYS_mincore),
    always(libc::SYS_get_mempolicy),
    always(libc::SYS_sched_setaffinity),
    always(libc::SYS_sched_getattr),
    always(libc::SYS_getpriority),
    always(libc::SYS_getrusage),
    always(libc::SYS_times),
    always(libc::SYS_sysinfo),
    always(libc::SYS_getppid),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_open),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_stat),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_lstat),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_access),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_readlink),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_select),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_pipe),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_dup2),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_time),
];

/// What they do beside in a back end: write files, and talk to servers.
const BACKEND: &[Allowed] = &[
    always(libc::SYS_socket),
    always(libc::SYS_unlinkat),
    always(libc::SYS_mkdirat),
    always(libc::SYS_renameat2),
    always(libc::SYS_fsync),
    always(libc::SYS_fdatasync),
    always(libc::SYS_flock),
    always(libc::SYS_copy_file_range),
    always(libc::SYS_sendmmsg),
    always(libc::SYS_recvmmsg),
    always(libc::SYS_inotify_init1),
    always(libc::SYS_inotify_add_watch),
    always(libc::SYS_inotify_rm_watch),
    always(libc::SYS_signalfd4),
    always(libc::SYS_sched_setattr),
    always(libc::SYS_setpriority),
    always(libc::SYS_getpgid),
    always(libc::SYS_getresuid),
    always(libc::SYS_getresgid),
    always(libc::SYS_umask),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_rename),
];

/// What codecs do beside: threads, memory, and messages by a socket that is there already.
const WORKER: &[Allowed] = &[
    only(libc::SYS_clone, When::Thread),
    always(libc::SYS_clone3),
    // The filter itself, and giving up what is left.
    always(libc::SYS_seccomp),
    always(libc::SYS_capget),
    always(libc::SYS_capset),
    always(libc::SYS_prlimit64),
    always(libc::SYS_recvmsg),
    always(libc::SYS_recvfrom),
    always(libc::SYS_sendmsg),
    always(libc::SYS_shutdown),
    always(libc::SYS_dup),
    always(libc::SYS_dup3),
    always(libc::SYS_pipe2),
    // GStreamer wakes itself by a pair.
    only(libc::SYS_socketpair, When::UnixDomain),
    always(libc::SYS_memfd_create),
    always(libc::SYS_ftruncate),
    always(libc::SYS_fallocate),
    always(libc::SYS_fstat),
    always(libc::SYS_statx),
    always(libc::SYS_newfstatat),
    always(libc::SYS_readlinkat),
    always(libc::SYS_getdents64),
    always(libc::SYS_getcwd),
    always(libc::SYS_sched_getscheduler),
    always(libc::SYS_sched_getparam),
    always(libc::SYS_sched_get_priority_max),
    always(libc::SYS_sched_get_priority_min),
    always(libc::SYS_uname),
    always(libc::SYS_getuid),
    always(libc::SYS_geteuid),
    always(libc::SYS_getgid),
    always(libc::SYS_getegid),
];

/// What of the above a worker has in this way only. Not the nursery: its filter stays when it executes a
/// worker, which is another process and has not begun yet.
pub(super) const WORKER_ONLY: &[Allowed] = &[
    only(libc::SYS_fcntl, When::NoOwner),
    only(libc::SYS_ioctl, When::NoOwnerOfDevice),
    only(libc::SYS_sendto, When::Connected),
    only(libc::SYS_socketpair, When::StreamPair),
    only(libc::SYS_tgkill, When::OwnThread),
    only(libc::SYS_prlimit64, When::Itself),
    only(libc::SYS_sched_setaffinity, When::Itself),
];

/// What of the above a worker has not at all: a message may have an address that no filter sees, and
/// memory in a file is in no limit of its own.
pub(super) const NO_WORKER: &[i64] = &[
    libc::SYS_sendmsg,
    libc::SYS_tkill,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
];

/// What starts a process, what ends it, and what a program does before its first line.
const NURSERY: &[Allowed] = &[
    always(libc::SYS_clone),
    always(libc::SYS_execve),
    always(libc::SYS_wait4),
    always(libc::SYS_waitid),
    always(libc::SYS_pidfd_open),
    always(libc::SYS_pidfd_send_signal),
    always(libc::SYS_kill),
    always(libc::SYS_setpgid),
    always(libc::SYS_prctl),
    always(libc::SYS_set_tid_address),
    // The logger's, and what a worker's own sandbox is made of.
    only(libc::SYS_socket, When::UnixDomain),
    always(libc::SYS_getsockopt),
    always(libc::SYS_getsockname),
    always(libc::SYS_setsockopt),
    always(libc::SYS_landlock_create_ruleset),
    always(libc::SYS_landlock_add_rule),
    always(libc::SYS_landlock_restrict_self),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_arch_prctl),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_vfork),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_fork),
];
