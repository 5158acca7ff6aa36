// SPDX-License-Identifier: Apache-2.0

//! The keeper as a process, between a VMM and services that live and die as a test says.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail where it stands"
)]

#[path = "../../relay/tests/peers/mod.rs"]
mod peers;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use agl_virtio_relay::Record;
use agl_virtio_relay::message::Message;
use agl_virtio_relay::record::Phase;
use agl_virtio_service::inherited_fd;
use peers::{DEADLINE, Peer, Vmm, state};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use vhost::vhost_user::message::FrontendReq as R;

const MEMORY: (u64, u64, u64) = (0x4000_0000, 0x10_0000, 0x7000_0000);

/// Words of the record in which the service tells the tests how it is.
const STARTS: usize = 0;
const PID: usize = 1;
const SESSIONS: usize = 2;
/// Set by a test: what the service is to do.
const MODE: usize = 3;
const DIE_IN_REPLAY: u64 = 1;
const DIE_OF_RING_3: u64 = 2;
const HANG_UP_AT_RING_3: u64 = 3;
const NEVER_ACCEPT: u64 = 4;

/// The service: this test binary again, started by the keeper through a shell that hands it the
/// keeper's arguments in SERVICE_ARGUMENTS. Run among the tests it has nothing to serve.
#[test]
fn service_process() {
    let Ok(arguments) = std::env::var("SERVICE_ARGUMENTS") else {
        return;
    };
    if let Ok(code) = std::env::var("SERVICE_EXIT") {
        std::process::exit(code.parse().unwrap());
    }
    let words: Vec<&str> = arguments.split(' ').collect();
    let number = |name: &str| {
        let at = words.iter().position(|word| *word == name).unwrap();
        inherited_fd::take(words[at + 1].parse().unwrap()).unwrap()
    };
    let record = Record::open(File::from(number("--record-fd"))).unwrap();
    if words.contains(&"--check") {
        let refused = std::env::var("SERVICE_REFUSES").is_ok_and(|path| Path::new(&path).exists());
        std::process::exit(if refused { 78 } else { 0 });
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let listener = UnixListener::from(number("--socket-fd"));
    record.set_word(STARTS, record.word(STARTS) + 1);
    record.set_word(PID, std::process::id().into());
    if record.word(MODE) == NEVER_ACCEPT {
        loop {
            std::thread::park();
        }
    }
    for stream in listener.incoming() {
        let mut service = peers::Service(Peer::new(stream.unwrap()));
        let mut counted = false;
        while let Some(request) = hear(&mut service.0) {
            if !counted {
                record.set_word(SESSIONS, record.word(SESSIONS) + 1);
                counted = true;
            }
            let is_num = request.frontend_request() == Some(R::SET_VRING_NUM);
            let of_ring_3 = is_num && request.u32_at(0) == Some(3);
            match record.word(MODE) {
                DIE_IN_REPLAY if is_num && record.phase() == Phase::Replaying => {
                    std::process::exit(101)
                }
                DIE_OF_RING_3 if of_ring_3 => std::process::exit(101),
                // As vhost's request handler does after an error.
                HANG_UP_AT_RING_3 if of_ring_3 => {
                    service.0.send(&Message::reply_u64(request.code(), 1));
                    break;
                }
                _ => service.answer(&request),
            }
        }
    }
}

/// Like `Peer::hear`, but a VMM may be silent as long as it wants.
fn hear(peer: &mut Peer) -> Option<Message> {
    use std::os::fd::AsFd;
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        peer.0.as_fd(),
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).ok()?;
    peer.hear()
}

struct Keeper {
    child: Child,
    folder: Arc<tempfile::TempDir>,
}

impl Keeper {
    fn start() -> Self {
        Self::start_with(Arc::new(tempfile::tempdir().unwrap()), "5s", &[])
    }

    fn start_with(folder: Arc<tempfile::TempDir>, grace: &str, env: &[(&str, &str)]) -> Self {
        let script = "SERVICE_ARGUMENTS=\"$*\" exec \"$0\" --exact service_process --nocapture";
        let child = Command::new(env!("CARGO_BIN_EXE_agl-virtio-keeper"))
            .arg("--socket")
            .arg(folder.path().join("vmm"))
            .args(["--grace", grace, "--", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env("SERVICE_REFUSES", folder.path().join("refuse"))
            .env("TMPDIR", folder.path())
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("XDG_RUNTIME_DIR")
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn connect(&self) -> Vmm {
        let path = self.folder.path().join("vmm");
        wait_until("the keeper listens", || UnixStream::connect(&path).ok()).into_vmm()
    }

    /// A VMM with memory, two rings and the record in its hands.
    fn connect_driver(&self) -> (Vmm, Record) {
        let mut vmm = self.connect();
        vmm.negotiate();
        let record = get_record(&mut vmm);
        vmm.set_memory(&[MEMORY]);
        vmm.start_ring(0);
        vmm.start_ring(1);
        (vmm, record)
    }

    fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended(mut self) -> ExitStatus {
        wait_until("the keeper ends", || self.child.try_wait().unwrap())
    }

    fn stop(self) {
        let path = self.folder.path().join("vmm");
        self.signal(Signal::TERM);
        assert_eq!(self.ended().code(), Some(0));
        assert!(!path.exists());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

trait IntoVmm {
    fn into_vmm(self) -> Vmm;
}

impl IntoVmm for UnixStream {
    fn into_vmm(self) -> Vmm {
        Vmm(Peer::new(self))
    }
}

/// Looks again and again, for what cannot be waited for.
fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::yield_now();
    }
}

fn get_record(vmm: &mut Vmm) -> Record {
    let mut payload = vec![0; 16];
    payload.extend([4, 0, 0, 1, 0, 0, 0, 0]);
    let reply = vmm.ask(&Message::request(R::GET_INFLIGHT_FD, payload));
    Record::open(File::from(reply.fds[0].try_clone().unwrap())).unwrap()
}

fn bring_record(record: &Record) -> Message {
    let mut payload = vec![0; 16];
    payload.extend([4, 0, 0, 1, 0, 0, 0, 0]);
    let fd: OwnedFd = record.file().try_clone().unwrap().into();
    Message::request(R::SET_INFLIGHT_FD, payload).with_fds(vec![Arc::new(fd)])
}

fn service_of(record: &Record) -> Pid {
    Pid::from_raw(i32::try_from(record.word(PID)).unwrap()).unwrap()
}

/// Kills the service and waits for its death.
fn kill_service(record: &Record) {
    let (pid, pidfd) = wait_until("the service runs", || {
        let pid = service_of(record);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some((pid, pidfd))
    });
    let _ = kill_process(pid, Signal::KILL);
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).unwrap();
}

#[test]
fn a_killed_service_is_back_and_the_session_goes_on() {
    let keeper = Keeper::start();
    let (mut vmm, record) = keeper.connect_driver();
    let mut longest = std::time::Duration::ZERO;
    let open_files = keeper.open_files();
    for round in 1..=30 {
        assert_eq!(record.word(STARTS), round);
        kill_service(&record);
        let killed = Instant::now();
        vmm.done(&state(R::SET_VRING_NUM, 2, 64));
        longest = longest.max(killed.elapsed());
        assert_eq!(record.phase(), Phase::Live);
    }
    println!("longest of 30 outages: {longest:?}");
    assert_eq!(keeper.open_files(), open_files);
    keeper.stop();
}

#[test]
fn sigterm_ends_the_service_and_the_keeper_and_removes_the_socket() {
    let keeper = Keeper::start();
    let (mut vmm, record) = keeper.connect_driver();
    let service = service_of(&record);
    keeper.stop();
    assert!(vmm.0.hear().is_none());
    // Reaped, so its number is nobody's.
    assert!(pidfd_open(service, PidfdFlags::empty()).is_err());
}

#[test]
fn vmms_come_and_go_and_the_service_stays() {
    let keeper = Keeper::start();
    let (vmm, record) = keeper.connect_driver();
    let service = service_of(&record);
    drop(vmm);
    let mut counts = Vec::new();
    for _ in 0..100 {
        let (_vmm, record) = keeper.connect_driver();
        assert_eq!(service_of(&record), service);
        counts.push(keeper.open_files());
    }
    assert_eq!(record.word(STARTS), 1);
    assert_eq!(counts[0], counts[99]);
    keeper.stop();
}

#[test]
fn sighup_replaces_the_service_under_the_guest() {
    let keeper = Keeper::start();
    let (mut vmm, record) = keeper.connect_driver();
    for round in 2..5 {
        keeper.signal(Signal::HUP);
        wait_until("a new service", || {
            (record.word(STARTS) == round).then_some(())
        });
        vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    }
    keeper.stop();
}

#[test]
fn an_update_that_fails_its_check_leaves_the_old_service() {
    let keeper = Keeper::start();
    let (mut vmm, record) = keeper.connect_driver();
    let refuse = keeper.folder.path().join("refuse");
    std::fs::write(&refuse, "").unwrap();
    keeper.signal(Signal::HUP);
    vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    // Another check is only begun when this one has been judged.
    std::fs::remove_file(&refuse).unwrap();
    assert!(record.word(STARTS) == 1);
    wait_until("an update", || {
        keeper.signal(Signal::HUP);
        (record.word(STARTS) == 2).then_some(())
    });
    vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    keeper.stop();
}

#[test]
fn a_service_that_cannot_be_configured_ends_the_keeper_with_its_code() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    for (code, expected) in [("78", 78), ("64", 64), ("1", 69)] {
        let env = [("SERVICE_EXIT", code)];
        let keeper = Keeper::start_with(Arc::clone(&folder), "5s", &env);
        assert_eq!(keeper.ended().code(), Some(expected));
    }
}

#[test]
fn a_request_that_kills_the_service_is_refused_in_the_end() {
    let keeper = Keeper::start();
    let (mut vmm, record) = keeper.connect_driver();
    record.set_word(MODE, DIE_OF_RING_3);
    assert_eq!(vmm.set(&state(R::SET_VRING_NUM, 3, 64)), 1);
    vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    assert_eq!(record.word(STARTS), 3);
    keeper.stop();
}

#[test]
fn a_service_that_hangs_up_is_connected_again_and_need_not_die() {
    let keeper = Keeper::start();
    let (mut vmm, record) = keeper.connect_driver();
    record.set_word(MODE, HANG_UP_AT_RING_3);
    for _ in 0..10 {
        assert_eq!(vmm.set(&state(R::SET_VRING_NUM, 3, 64)), 1);
        vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    }
    assert_eq!(record.word(STARTS), 1);
    assert_eq!(record.word(SESSIONS), 11);
    keeper.stop();
}

#[test]
fn a_crash_loop_costs_the_guest_its_session_and_the_next_one_is_served() {
    let keeper = Keeper::start_with(Arc::new(tempfile::tempdir().unwrap()), "60s", &[]);
    let (mut vmm, record) = keeper.connect_driver();
    record.set_word(MODE, DIE_IN_REPLAY);
    kill_service(&record);
    assert!(vmm.0.hear().is_none());
    record.set_word(MODE, 0);
    let (mut vmm, record) = keeper.connect_driver();
    vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    // The first service, one for each crash, and the last one.
    assert_eq!(record.word(STARTS), 1 + 10 + 1);
    keeper.stop();
}

#[test]
fn without_a_service_in_the_time_of_grace_the_vmm_is_hung_up_on() {
    let keeper = Keeper::start_with(Arc::new(tempfile::tempdir().unwrap()), "300ms", &[]);
    let (mut vmm, record) = keeper.connect_driver();
    record.set_word(MODE, NEVER_ACCEPT);
    kill_service(&record);
    let killed = Instant::now();
    assert!(vmm.0.hear().is_none());
    assert!(killed.elapsed().as_millis() >= 250);
    keeper.stop();
}

#[test]
fn a_vmm_that_leaves_in_the_middle_of_a_message_does_no_harm() {
    use std::io::Write;
    let keeper = Keeper::start();
    let path = keeper.folder.path().join("vmm");
    let (vmm, _) = keeper.connect_driver();
    drop(vmm);
    for cut in 1..20 {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .write_all(&state(R::SET_VRING_NUM, 0, 64).to_bytes()[..cut])
            .unwrap();
    }
    let (mut vmm, record) = keeper.connect_driver();
    vmm.done(&state(R::SET_VRING_NUM, 2, 64));
    assert_eq!(record.word(STARTS), 1);
    keeper.stop();
}

#[test]
fn a_record_survives_the_keeper_in_the_vmms_hands() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let keeper = Keeper::start_with(Arc::clone(&folder), "5s", &[]);
    let (mut vmm, record) = keeper.connect_driver();
    record.save_settings(b"volume 7").unwrap();
    keeper.signal(Signal::KILL);
    assert!(vmm.0.hear().is_none());
    drop(keeper);
    // The socket it left behind is in nobody's use.
    let keeper = Keeper::start_with(folder, "5s", &[]);
    let mut vmm = keeper.connect();
    vmm.negotiate();
    vmm.done(&bring_record(&record));
    assert_eq!(record.word(STARTS), 2);
    vmm.set_memory(&[MEMORY]);
    vmm.start_ring(0);
    assert_eq!(record.settings().unwrap(), b"volume 7");
    keeper.stop();
}

#[test]
fn a_vmm_that_comes_back_to_the_same_keeper_finds_its_record() {
    let keeper = Keeper::start();
    let (vmm, record) = keeper.connect_driver();
    record.queue(1).unwrap().copy_from(b"in flight");
    drop(vmm);
    let mut vmm = keeper.connect();
    vmm.negotiate();
    vmm.done(&bring_record(&record));
    vmm.set_memory(&[MEMORY]);
    vmm.start_ring(1);
    let mut heart = [0; 9];
    record.queue(1).unwrap().copy_to(&mut heart[..]);
    assert_eq!(&heart, b"in flight");
    drop(vmm);
    // Another one that brings none begins with an empty one.
    let (_vmm, record) = keeper.connect_driver();
    record.queue(1).unwrap().copy_to(&mut heart[..]);
    assert_eq!(heart, [0; 9]);
    keeper.stop();
}

#[test]
fn a_socket_that_somebody_serves_is_left_to_him() {
    let keeper = Keeper::start();
    drop(keeper.connect_driver());
    let second = Keeper::start_with(Arc::clone(&keeper.folder), "5s", &[]);
    assert_eq!(second.ended().code(), Some(69));
    drop(keeper.connect_driver());
    keeper.stop();
}

#[test]
fn systemd_hears_of_the_keeper_and_not_of_the_service() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let size = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    };
    let env = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let keeper = Keeper::start_with(Arc::clone(&folder), "5s", &env);
    assert_eq!(hear(), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    let service = wait_until("the service runs", || {
        let path = format!("/proc/{0}/task/{0}/children", keeper.child.id());
        let pid: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let text = String::from_utf8_lossy(&environment).into_owned();
        text.contains("SERVICE_ARGUMENTS").then_some(text)
    });
    // it has a socket of the keeper's and that one's patience, not systemd's
    assert!(!service.contains(path.to_str().unwrap()));
    assert!(!service.contains("WATCHDOG_USEC=200000"));
    let (_vmm, record) = keeper.connect_driver();
    let mut heard = Vec::new();
    keeper.signal(Signal::HUP);
    wait_until("the update", || (record.word(STARTS) == 2).then_some(()));
    keeper.signal(Signal::TERM);
    while heard
        .last()
        .is_none_or(|line: &String| line != "STOPPING=1")
    {
        heard.push(hear());
    }
    assert!(heard.contains(&"STATUS=serving a VMM".to_owned()));
    let reloading = heard
        .iter()
        .position(|line| line.starts_with("RELOADING=1"))
        .unwrap();
    assert!(heard[reloading..].contains(&"READY=1".to_owned()));
    assert_eq!(keeper.ended().code(), Some(0));
}

#[test]
fn a_socket_handed_over_by_systemd_is_served() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("activated");
    let listener = UnixListener::bind(&path).unwrap();
    // The shell gives itself the socket as descriptor 3, and its number to the keeper.
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" -- sleep 1000";
    let child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_agl-virtio-keeper")])
        .stdin(OwnedFd::from(listener))
        .spawn()
        .unwrap();
    let keeper = Keeper {
        child,
        folder: Arc::clone(&folder),
    };
    let vmm = UnixStream::connect(&path).unwrap();
    wait_until("the service runs", || {
        let path = format!("/proc/{0}/task/{0}/children", keeper.child.id());
        std::fs::read_to_string(path)
            .ok()
            .filter(|text| !text.is_empty())
    });
    keeper.signal(Signal::TERM);
    assert_eq!(keeper.ended().code(), Some(0));
    assert!(vmm.into_vmm().0.hear().is_none());
    // It was not ours to remove.
    assert!(path.exists());
}

#[test]
fn a_wrong_command_line_is_explained() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_agl-virtio-keeper"))
            .args(arguments)
            .output()
            .unwrap();
        let text =
            String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    assert_eq!(run(&["--socket", "/tmp/x"]).0, Some(64));
    let (code, text) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("Examples:"), "{text}");
    let (code, text) = run(&["--", "true"]);
    assert_eq!(code, Some(64));
    assert!(text.contains("--socket PATH"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let (code, text) = run(&[
        "--socket",
        socket.to_str().unwrap(),
        "--",
        "/no/such/program",
    ]);
    assert_eq!(code, Some(66));
    assert!(text.contains("/no/such/program"), "{text}");
    assert!(!socket.exists());
}

#[cfg(feature = "crash-points")]
#[test]
fn a_service_killed_at_any_message_of_a_replay_or_request_is_not_noticed() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    // As many as there are of each in what follows.
    let replays = (1..=17).map(|number| format!("replay:{number}"));
    let requests = (1..=20).map(|number| format!("forward:{number}"));
    for point in replays.chain(requests) {
        let env = [("AGL_VIRTIO_KEEPER_KILL_AT", point.as_str())];
        let keeper = Keeper::start_with(Arc::clone(&folder), "30s", &env);
        let (mut vmm, record) = keeper.connect_driver();
        kill_service(&record);
        vmm.done(&state(R::SET_VRING_NUM, 2, 64));
        let reply = vmm.ask(&state(R::GET_VRING_BASE, 1, 0));
        assert_eq!(reply.u32_at(4), Some(77), "{point}");
        vmm.done(&state(R::SET_VRING_NUM, 2, 64));
        // The test's own kill may hit a service that the crash point has just killed.
        assert!((2..=3).contains(&record.word(STARTS)), "{point}");
        keeper.stop();
    }
}
