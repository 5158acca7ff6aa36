// SPDX-License-Identifier: Apache-2.0
//! What a person sees when others on the bus are hostile: a service that never answers, words that
//! would steer the terminal, signals of somebody who is no device.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use zbus::Connection;
use zbus::fdo::ObjectManager;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

const NAME: &str = "org.automotivelinux.Virtio1";
const SERVICE: &str = "org.automotivelinux.Virtio1.Device.ivi.card";
const ROOT: &str = "/org/automotivelinux/Virtio1";
const GUEST: &str = "/org/automotivelinux/Virtio1/guests/ivi";
/// Generous: no test fails because a machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest as a manager shows it, whose description does more than describe.
struct Guest;

#[zbus::interface(name = "org.automotivelinux.Virtio1.Guest")]
impl Guest {
    #[zbus(property)]
    fn name(&self) -> &str {
        "ivi"
    }

    #[zbus(property)]
    fn description(&self) -> &str {
        "before\u{1b}[2Jafter"
    }

    #[zbus(property)]
    fn state(&self) -> &str {
        "running"
    }
}

struct Device;

#[zbus::interface(name = "org.automotivelinux.Virtio1.ManagedDevice")]
impl Device {
    #[zbus(property)]
    fn guest(&self) -> &str {
        "ivi"
    }

    #[zbus(property)]
    fn name(&self) -> &str {
        "card"
    }

    #[zbus(property)]
    fn service_state(&self) -> &str {
        "running"
    }

    #[zbus(property)]
    fn bus_name(&self) -> &str {
        SERVICE
    }
}

/// A service that is asked and never answers.
struct Silence;

type Objects = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedValue>>>;

#[zbus::interface(name = "org.freedesktop.DBus.ObjectManager")]
impl Silence {
    async fn get_managed_objects(&self) -> Objects {
        std::future::pending().await
    }
}

struct Scene {
    folder: tempfile::TempDir,
    _bus: Running,
    runtime: tokio::runtime::Runtime,
    manager: Connection,
    _service: Connection,
}

impl Scene {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}", folder.path().join("bus").display());
        let bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile"])
            .arg(format!("--address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start dbus-daemon ({error}): install the package dbus-daemon")
            });
        let bus = Running(bus);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(folder.path().join("bus")).is_err() {
            assert!(Instant::now() < deadline, "there is no bus");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let builder = || zbus::connection::Builder::address(address.as_str()).unwrap();
        let (manager, service) = runtime.block_on(async {
            let device = format!("{GUEST}/card");
            let manager = builder()
                .serve_at(ROOT, ObjectManager)
                .unwrap()
                .serve_at(GUEST, Guest)
                .unwrap()
                .serve_at(device, Device)
                .unwrap()
                .name(NAME)
                .unwrap();
            let service = builder().serve_at(ROOT, Silence).unwrap();
            let service = service.name(SERVICE).unwrap();
            (
                manager.build().await.unwrap(),
                service.build().await.unwrap(),
            )
        });
        Self {
            folder,
            _bus: bus,
            runtime,
            manager,
            _service: service,
        }
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("bus").display())
    }

    fn ctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agl-virtioctl"));
        command.args(["--bus", &self.address()]).args(words);
        command
    }

    /// Says that the guest's state is this, as whoever has this connection.
    fn tell(&self, who: &Connection, state: &str) {
        let changed = HashMap::from([("State", zbus::zvariant::Value::from(state))]);
        let body = (
            "org.automotivelinux.Virtio1.Guest",
            changed,
            Vec::<String>::new(),
        );
        let interface = "org.freedesktop.DBus.Properties";
        let told = who.emit_signal(None::<&str>, GUEST, interface, "PropertiesChanged", &body);
        self.runtime.block_on(told).unwrap();
    }
}

#[test]
fn a_service_that_never_answers_keeps_nobody_waiting_and_no_word_steers_the_terminal() {
    let scene = Scene::start();
    for words in [&["list"][..], &["status", "ivi"], &["status", "--json"]] {
        let began = Instant::now();
        let output = scene.ctl(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // An answer is waited for two minutes elsewhere.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("card"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn monitor_tells_what_the_manager_says_and_not_what_a_stranger_says_of_its_guests() {
    let scene = Scene::start();
    let address = scene.address();
    let stranger = scene.runtime.block_on(async {
        let builder = zbus::connection::Builder::address(address.as_str());
        builder.unwrap().build().await.unwrap()
    });
    let mut monitor = scene.ctl(&["monitor"]);
    let mut monitor = Running(monitor.stdout(Stdio::piped()).spawn().unwrap());
    let output = monitor.0.stdout.take().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    // It hears nothing before it listens: the first line that is told says that it does.
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        assert!(Instant::now() < deadline, "nothing is told");
        scene.tell(&stranger, "exploded");
        scene.tell(&scene.manager, "restarting\u{1b}[2J");
        if let Ok(line) = lines.recv_timeout(Duration::from_millis(100)) {
            break line;
        }
    };
    assert!(first.ends_with("ivi  State = restarting[2J"), "{first}");
    scene.tell(&stranger, "exploded");
    scene.tell(&scene.manager, "stopped");
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap();
        assert!(!line.contains("exploded"), "{line}");
        if line.ends_with("ivi  State = stopped") {
            break;
        }
    }
}
