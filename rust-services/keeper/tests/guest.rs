// SPDX-License-Identifier: Apache-2.0

//! A guest with a real device behind the keeper: what it gets back while its service is killed.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail where it stands"
)]

#[path = "../../virtio-device/tests/echo/mod.rs"]
mod echo;

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agl_virtio_service::inherited_fd;
use echo::{Echo, Seen, ask, hold, release};
use frontend::{Guest, GuestOptions};
use rustix::process::{Pid, Signal, kill_process};
use virtio_device::{Options, Record, Server};

const DEADLINE: Duration = Duration::from_secs(30);

/// The service: this test binary again, started by the keeper through a shell that hands it the
/// keeper's arguments in SERVICE_ARGUMENTS. Run among the tests it has nothing to serve.
#[test]
fn service_process() {
    let Ok(arguments) = std::env::var("SERVICE_ARGUMENTS") else {
        return;
    };
    let words: Vec<&str> = arguments.split(' ').collect();
    let inherited = |name: &str| {
        let at = words.iter().position(|word| *word == name).unwrap();
        inherited_fd::take(words[at + 1].parse().unwrap()).unwrap()
    };
    let record = Record::open(File::from(inherited("--record-fd"))).unwrap();
    if words.contains(&"--check") {
        return;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let device = Echo {
        seen: Arc::new(Mutex::new(Seen::default())),
        config: Arc::new(Mutex::new((1..=10).collect())),
    };
    let options = Options {
        record: Some(record),
        ..Options::default()
    };
    let server = Server::new(Arc::new(device), options).unwrap();
    let stop = server.stop_handle();
    let (signal, writer) = UnixStream::pair().unwrap();
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, writer).unwrap();
    std::thread::spawn(move || {
        use std::io::Read;
        let _ = (&signal).read(&mut [0]);
        stop.stop();
    });
    let pid_file = PathBuf::from(std::env::var_os("SERVICE_PID_FILE").unwrap());
    let new = pid_file.with_extension("new");
    std::fs::write(&new, std::process::id().to_string()).unwrap();
    std::fs::rename(&new, &pid_file).unwrap();
    server
        .serve(&UnixListener::from(inherited("--socket-fd")))
        .unwrap();
}

struct Keeper {
    child: Child,
    folder: tempfile::TempDir,
}

impl Keeper {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "SERVICE_ARGUMENTS=\"$*\" exec \"$0\" --exact service_process --nocapture";
        let child = Command::new(env!("CARGO_BIN_EXE_agl-virtio-keeper"))
            .arg("--socket")
            .arg(folder.path().join("vmm"))
            .args(["--grace", "30s", "--log", "error", "--", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env("SERVICE_PID_FILE", folder.path().join("pid"))
            .env("TMPDIR", folder.path())
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("XDG_RUNTIME_DIR")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn guest(&self) -> Guest {
        let path = self.folder.path().join("vmm");
        let until = Instant::now() + DEADLINE;
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < until => std::thread::yield_now(),
                Err(error) => panic!("the keeper does not listen: {error}"),
            }
        };
        let mut guest = Guest::connect(stream, &GuestOptions::new(2)).unwrap();
        guest.start().unwrap();
        guest
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("pid")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let ended = self.child.wait().unwrap();
        assert!(std::thread::panicking() || ended.success(), "{ended}");
    }
}

/// A ring may run again while the next one is still being told of; requests of the VMM are answered
/// when all of them do.
fn wait_for_all_rings(guest: &Guest) {
    guest.session().unwrap().synchronise().unwrap();
}

/// Kills the service that wrote the file; `false` when it is dead already.
fn kill_service(pid_file: &Path) -> bool {
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok()
}

#[test]
fn what_the_device_holds_comes_back_after_a_kill_once_and_in_order() {
    let keeper = Keeper::start();
    let mut guest = keeper.guest();
    for _ in 0..50 {
        let held = [hold(&mut guest), hold(&mut guest)];
        assert_eq!(ask(&mut guest, b"before", 4), b"before");
        assert!(kill_service(&keeper.pid_file()));
        assert_eq!(ask(&mut guest, b"after", 2), b"after");
        wait_for_all_rings(&guest);
        assert_eq!(release(&mut guest), held);
    }
}

#[test]
fn every_request_is_answered_while_the_service_is_killed_at_any_moment() {
    let keeper = Keeper::start();
    let mut guest = keeper.guest();
    let over = AtomicBool::new(false);
    let mut asked = 0_u32;
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0_u32;
            let mut last = String::new();
            while kills < 200 && !over.load(Ordering::Relaxed) {
                // Each service lives until it has said who it is, and a little longer.
                let pid = std::fs::read_to_string(keeper.pid_file()).unwrap();
                if pid == last {
                    std::thread::yield_now();
                    continue;
                }
                last = pid;
                for _ in 0..kills * 20 {
                    std::hint::spin_loop();
                }
                kills += u32::from(kill_service(&keeper.pid_file()));
            }
            kills
        });
        while !killer.is_finished() {
            let text = format!("request {asked}");
            assert_eq!(ask(&mut guest, text.as_bytes(), 3), text.as_bytes());
            asked += 1;
        }
        let kills = killer.join().unwrap();
        over.store(true, Ordering::Relaxed);
        println!("{asked} requests answered during {kills} kills");
        assert_eq!(kills, 200);
    });
    assert_eq!(ask(&mut guest, b"and on", 9), b"and on");
}

#[test]
fn an_update_happens_under_a_running_guest() {
    let keeper = Keeper::start();
    let mut guest = keeper.guest();
    for _ in 0..5 {
        let held = hold(&mut guest);
        assert_eq!(ask(&mut guest, b"before", 4), b"before");
        let old = std::fs::read_to_string(keeper.pid_file()).unwrap();
        kill_process(Pid::from_child(&keeper.child), Signal::HUP).unwrap();
        let until = Instant::now() + DEADLINE;
        while std::fs::read_to_string(keeper.pid_file()).unwrap() == old {
            assert!(Instant::now() < until, "no new service");
            assert_eq!(ask(&mut guest, b"meanwhile", 4), b"meanwhile");
        }
        wait_for_all_rings(&guest);
        assert_eq!(release(&mut guest), [held]);
    }
}
