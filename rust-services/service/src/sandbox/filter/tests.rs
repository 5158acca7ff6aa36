// SPDX-License-Identifier: Apache-2.0

use super::*;

#[test]
fn every_role_compiles_and_fits_into_a_bpf_program() {
    let mut policy = Policy::new();
    policy.backend_threads();
    let filters = Filters::compile(&policy).unwrap();
    assert_eq!(filters.roles.len(), 4);
    // BPF_MAXINSNS
    assert!(filters.base.len() < 4096);
}

#[test]
fn a_worker_may_do_less_than_a_backend_and_its_nursery_starts_it() {
    let policy = Policy::only(Role::Worker);
    assert_eq!(policy.roles().collect::<Vec<_>>(), [Role::Worker]);
    let worker = rules_of(Role::Worker, &policy).unwrap();
    let backend = rules_of(Role::Backend, &policy).unwrap();
    for number in worker.keys() {
        assert!(backend.contains_key(number), "system call {number}");
    }
    for number in [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_unlinkat,
        libc::SYS_renameat2,
        libc::SYS_mkdirat,
        libc::SYS_sched_setscheduler,
        libc::SYS_execve,
    ] {
        assert!(!worker.contains_key(&number), "system call {number}");
    }
    let nursery = rules_of(Role::Nursery, &policy).unwrap();
    for number in worker.keys().chain(&[libc::SYS_execve]) {
        assert!(nursery.contains_key(number), "system call {number}");
    }
    assert!(!nursery.contains_key(&libc::SYS_ptrace));
    Filters::compile(&Policy::only(Role::Nursery)).unwrap();
}

#[test]
fn who_starts_codecs_may_look_at_pictures_in_their_drivers_memory() {
    let mut policy = Policy::new();
    policy.backend_threads();
    let backend = rules_of(Role::Backend, &policy).unwrap();
    // A driver's buffer is mapped to be looked at, and given back by a call of that driver's.
    for number in [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_ioctl] {
        assert_eq!(backend.get(&number).map(Vec::len), Some(0), "{number}");
    }
}

/// What a call says in a thread with the filter of a worker.
fn as_worker<T: Send>(
    call: impl FnOnce() -> rustix::io::Result<T> + Send,
) -> rustix::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let policy = Policy::only(Role::Worker);
            let filters = Filters::compile(&policy).unwrap();
            filters.apply_base().unwrap();
            filters.apply(Role::Worker).unwrap();
            call()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_worker_reaches_no_other_process() {
    use rustix::io::{Errno, IoSlice};
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
        send, sendmsg, sendto, socketpair,
    };
    use rustix::process::{Pid, Resource, Rlimit, getpid, getrlimit, prlimit};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let pair = |kind| socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
    assert!(as_worker(|| pair(SocketType::STREAM)).is_ok());
    for kind in [SocketType::DGRAM, SocketType::SEQPACKET] {
        assert_eq!(as_worker(|| pair(kind)).unwrap_err(), Errno::PERM);
    }
    let (one, _other) = pair(SocketType::DGRAM).unwrap();
    let flags = SendFlags::empty();
    assert_eq!(as_worker(|| send(&one, b"x", flags)), Ok(1));
    let keeper = SocketAddrUnix::new_abstract_name(b"no such name").unwrap();
    let to = as_worker(|| sendto(&one, b"x", flags, &keeper));
    assert_eq!(to, Err(Errno::PERM));
    let message = as_worker(|| {
        let mut none = SendAncillaryBuffer::default();
        sendmsg(&one, &[IoSlice::new(b"x")], &mut none, flags)
    });
    assert_eq!(message, Err(Errno::PERM));

    let now = getrlimit(Resource::Core);
    let limit = || Rlimit { ..now };
    assert!(as_worker(|| prlimit(None, Resource::Core, limit())).is_ok());
    let parent = rustix::process::getppid().unwrap();
    for other in [parent, Pid::INIT] {
        let limited = as_worker(|| prlimit(Some(other), Resource::Core, limit()));
        assert_eq!(limited.map(drop), Err(Errno::PERM));
        let set = || sched_setaffinity(Some(other), &CpuSet::new());
        assert_eq!(as_worker(set), Err(Errno::PERM));
    }
    let all = sched_getaffinity(None).unwrap();
    assert_eq!(as_worker(|| sched_setaffinity(None, &all)), Ok(()));

    let own = getpid();
    let tested = |pid| as_worker(move || rustix::process::test_kill_process(pid));
    assert_eq!(tested(own), Err(Errno::PERM));
    let file = as_worker(|| rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC));
    assert_eq!(file.map(drop), Err(Errno::PERM));
    let nonblocking = as_worker(|| rustix::io::ioctl_fionbio(&one, true));
    assert_eq!(nonblocking, Ok(()), "but its descriptors are its own");
    assert!(as_worker(|| rustix::io::fcntl_dupfd_cloexec(&one, 0)).is_ok());
}

#[test]
fn a_worker_has_nobody_sent_signals() {
    let policy = Policy::only(Role::Worker);
    let worker = rules_of(Role::Worker, &policy).unwrap();
    for (number, when) in [
        (libc::SYS_fcntl, When::NoOwner),
        (libc::SYS_ioctl, When::NoOwnerOfDevice),
        (libc::SYS_tgkill, When::OwnThread),
    ] {
        let expected = conditions(when).unwrap();
        let expected = expected.into_iter().map(SeccompRule::new);
        let expected: Vec<SeccompRule> = expected.map(Result::unwrap).collect();
        assert_eq!(worker[&number], expected, "system call {number}");
    }
    assert!(!worker.contains_key(&libc::SYS_tkill));
    assert!(!worker.contains_key(&libc::SYS_kill));
    // The filter of a nursery stays in its workers, which have another number.
    let nursery = rules_of(Role::Nursery, &policy).unwrap();
    assert!(nursery[&libc::SYS_tgkill].is_empty());
}

#[test]
fn what_a_queue_may_do_its_session_may_do() {
    let mut policy = Policy::new();
    policy.system_calls(Role::Queue, &[libc::SYS_sync]);
    let queue = rules_of(Role::Queue, &policy).unwrap();
    let session = rules_of(Role::Session, &policy).unwrap();
    for (number, rules) in queue {
        let wider = session.get(&number);
        assert!(
            wider.is_some_and(|list| list.is_empty() || rules.iter().all(|r| list.contains(r))),
            "system call {number}"
        );
    }
}

#[test]
fn no_role_may_start_a_program_or_trace_another_process() {
    let mut policy = Policy::new();
    policy.backend_threads();
    for role in policy.roles() {
        let rules = rules_of(role, &policy).unwrap();
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_mount,
            libc::SYS_io_uring_setup,
        ] {
            assert!(!rules.contains_key(&number), "{role:?} may {number}");
        }
    }
}
