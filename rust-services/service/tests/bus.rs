// SPDX-License-Identifier: Apache-2.0
//! A service on a private bus: what is seen, what may be changed, and what happens when the bus
//! goes and comes back.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test"
)]

mod support;

use rustix::process::Signal;
use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{DEVICE, Daemon, KNOB, KNOB_PATH, NAME, PATH, PATIENCE, PrivateBus, until};
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::zvariant::{OwnedValue, Value};

/// Somebody who is neither root nor the user that runs the tests.
const NOBODY: u32 = 65_534;

const OTHER: &str = "org.automotivelinux.Virtio1.Device.guest.other";

struct Scene {
    folder: tempfile::TempDir,
    bus: PrivateBus,
    daemon: Daemon,
    runtime: tokio::runtime::Runtime,
}

fn scene() -> Scene {
    scene_with(&[])
}

fn scene_with(more: &[&str]) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let bus = PrivateBus::start(folder.path());
    let socket = folder.path().join("idle.sock");
    let address = bus.address();
    let mut arguments = vec!["--socket", socket.to_str().unwrap(), "--bus", &address];
    arguments.extend(more);
    let mut daemon = Daemon::start(&arguments);
    daemon.says("is on D-Bus as");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    Scene {
        folder,
        bus,
        daemon,
        runtime,
    }
}

async fn property(connection: &zbus::Connection, path: &str, of: &str, name: &str) -> OwnedValue {
    let properties = PropertiesProxy::new(connection, NAME, path).await.unwrap();
    let interface = InterfaceName::try_from(of).unwrap();
    properties.get(interface, name).await.unwrap()
}

async fn volume(connection: &zbus::Connection) -> u32 {
    let value = property(connection, KNOB_PATH, KNOB, "Volume").await;
    u32::try_from(value).unwrap()
}

#[test]
fn every_device_tells_what_it_is_and_how_it_does() {
    let scene = scene();
    scene.runtime.block_on(async {
        let connection = scene.bus.connect().await;
        for (name, expected) in [("Type", "idle"), ("Guest", "guest"), ("State", "waiting")] {
            let value = property(&connection, PATH, DEVICE, name).await;
            assert_eq!(value, OwnedValue::from(zbus::zvariant::Str::from(expected)));
        }
        let value = property(&connection, PATH, DEVICE, "Sandbox").await;
        let sandbox = HashMap::<String, String>::try_from(value).unwrap();
        assert!(sandbox["Seccomp"].starts_with("yes"), "{sandbox:?}");
        let value = property(&connection, PATH, DEVICE, "Statistics").await;
        let queues = Vec::<HashMap<String, u64>>::try_from(value).unwrap();
        assert_eq!(queues, [HashMap::from([("turns".to_owned(), 1)])]);
    });
}

#[test]
fn the_object_manager_at_the_root_lists_the_objects() {
    let scene = scene();
    scene.runtime.block_on(async {
        let connection = scene.bus.connect().await;
        let root = "/org/automotivelinux/Virtio1";
        let manager = zbus::fdo::ObjectManagerProxy::new(&connection, NAME, root)
            .await
            .unwrap();
        let objects = manager.get_managed_objects().await.unwrap();
        let has = |path: &str, interface: &str| {
            objects.iter().any(|(known, interfaces)| {
                known.as_str() == path && interfaces.keys().any(|name| name.as_str() == interface)
            })
        };
        assert!(has(PATH, DEVICE) && has(KNOB_PATH, KNOB), "{objects:?}");
    });
}

#[test]
fn root_or_the_own_user_may_change_and_a_wrong_value_is_refused_with_the_range() {
    let scene = scene();
    let own = rustix::process::geteuid().as_raw();
    assert!(scene.bus.set_volume_as(own, 7).status.success());
    let output = scene.bus.set_volume_as(own, 101);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("InvalidArgs") && text.contains("0 to 100"),
        "{text}"
    );
    let volume = scene
        .runtime
        .block_on(async { volume(&scene.bus.connect().await).await });
    assert_eq!(volume, 7);
}

/// Polkit as the service sees it: answers as it is told, and remembers what it was asked.
struct FakeAuthority {
    answer: bool,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl FakeAuthority {
    fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedValue>),
        action: String,
        _details: HashMap<String, String>,
        _flags: u32,
        _cancellation: String,
    ) -> (bool, bool, HashMap<String, String>) {
        let mut asked = self.asked.lock().unwrap();
        asked.push((subject.0, action));
        (self.answer, false, HashMap::new())
    }
}

fn with_authority(answer: bool) -> (bool, Vec<(String, String)>) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test changes as somebody else: run it as root (root is never asked for)"
    );
    let scene = scene();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let authority = FakeAuthority {
        answer,
        asked: Arc::clone(&asked),
    };
    let connection = scene.runtime.block_on(async {
        let connection = scene.bus.connect().await;
        let path = "/org/freedesktop/PolicyKit1/Authority";
        connection
            .object_server()
            .at(path, authority)
            .await
            .unwrap();
        connection
            .request_name("org.freedesktop.PolicyKit1")
            .await
            .unwrap();
        connection
    });
    // The fake authority answers on the runtime while the other user asks.
    let bus = scene.bus;
    let done = std::thread::spawn(move || (bus.set_volume_as(NOBODY, 9), bus));
    let (output, _bus) = scene.runtime.block_on(async {
        tokio::task::spawn_blocking(move || done.join().unwrap())
            .await
            .unwrap()
    });
    drop(connection);
    let asked = asked.lock().unwrap().clone();
    (output.status.success(), asked)
}

#[test]
fn polkit_allows_others() {
    let (changed, asked) = with_authority(true);
    assert!(changed);
    let action = "org.automotivelinux.virtio1.manage".to_owned();
    assert_eq!(asked, [("system-bus-name".to_owned(), action)]);
}

#[test]
fn polkit_refuses_others() {
    let (changed, asked) = with_authority(false);
    assert!(!changed);
    assert_eq!(asked.len(), 1);
}

#[test]
fn without_polkit_others_may_read_but_not_change() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test changes as somebody else: run it as root"
    );
    let scene = scene();
    let output = scene.bus.set_volume_as(NOBODY, 9);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains("AccessDenied") && text.contains("virtio1.manage"),
        "{text}"
    );
    let volume = scene
        .runtime
        .block_on(async { volume(&scene.bus.connect().await).await });
    assert_eq!(volume, 50);
}

#[test]
fn a_bus_that_was_restarted_has_all_objects_again() {
    let mut scene = scene();
    for _ in 0..2 {
        scene.bus.stop();
        scene.daemon.says("goes on without D-Bus");
        support::echoes(&scene.folder.path().join("idle.sock"));
        scene.bus.restart();
        scene.daemon.says("is on D-Bus as");
        let volume = scene
            .runtime
            .block_on(async { volume(&scene.bus.connect().await).await });
        assert_eq!(volume, 50);
    }
}

#[test]
fn a_service_that_starts_before_the_bus_comes_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut bus = PrivateBus::start(folder.path());
    bus.stop();
    fs::remove_file(folder.path().join("bus")).unwrap();
    let socket = folder.path().join("idle.sock");
    let address = bus.address();
    let arguments = ["--socket", socket.to_str().unwrap(), "--bus", &address];
    let mut daemon = Daemon::start(&arguments);
    support::echoes(&socket);
    daemon.says("goes on without D-Bus");
    bus.restart();
    daemon.says("is on D-Bus as");
}

#[test]
fn a_bus_that_never_answers_is_given_up_by_its_address_and_looked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("bus");
    let silent = std::os::unix::net::UnixListener::bind(&place).unwrap();
    let socket = folder.path().join("idle.sock");
    let address = format!("unix:path={}", place.display());
    let arguments = ["--socket", socket.to_str().unwrap(), "--bus", &address];
    let mut daemon = Daemon::start(&arguments);
    let said = daemon.says("goes on without D-Bus and looks for the bus at unix:path=");
    assert!(
        said.contains(place.to_str().unwrap()) && said.contains("not answered for 10 seconds"),
        "{said}"
    );
    support::echoes(&socket);
    drop(silent);
    fs::remove_file(&place).unwrap();
    let _bus = PrivateBus::start(folder.path());
    daemon.says("is on D-Bus as");
}

#[test]
fn a_configuration_behind_a_link_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (links, real) = (folder.path().join("etc"), folder.path().join("data"));
    fs::create_dir(&links).unwrap();
    fs::create_dir(&real).unwrap();
    let file = real.join("guest.toml");
    fs::write(&file, "[devices.idle]\ntype = \"idle\"\nvolume = 50\n").unwrap();
    let link = links.join("guest.toml");
    std::os::unix::fs::symlink("../data/guest.toml", &link).unwrap();
    let socket = folder.path().join("idle.sock");
    let mut daemon = Daemon::start(&[
        "--socket",
        socket.to_str().unwrap(),
        "--bus",
        "none",
        "--config",
        link.to_str().unwrap(),
    ]);
    support::echoes(&socket);
    daemon.signal(Signal::HUP);
    daemon.says("the configuration was read again");
    // Where the link leads to later, the sandbox may not let it, and the log says that.
    let far = tempfile::tempdir().unwrap();
    fs::copy(&file, far.path().join("guest.toml")).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(far.path().join("guest.toml"), &link).unwrap();
    daemon.signal(Signal::HUP);
    daemon.says("guest.toml is a link, and since its start this service reaches no configuration");
}

#[test]
fn a_change_from_inside_is_told_and_a_reload_refuses_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.toml");
    let write = |volume: u32| {
        let text = format!("[devices.idle]\ntype = \"idle\"\nvolume = {volume}\n");
        fs::write(&file, text).unwrap();
    };
    write(50);
    let mut scene = scene_with(&["--config", file.to_str().unwrap()]);
    let told = scene.runtime.block_on(async {
        let connection = scene.bus.connect().await;
        let properties = PropertiesProxy::new(&connection, NAME, KNOB_PATH)
            .await
            .unwrap();
        let mut changes = properties.receive_properties_changed().await.unwrap();
        write(60);
        scene.daemon.signal(Signal::HUP);
        let change = tokio::time::timeout(PATIENCE, changes.next())
            .await
            .unwrap()
            .unwrap();
        let arguments = change.args().unwrap();
        assert_eq!(arguments.interface_name(), KNOB);
        arguments.changed_properties()["Volume"]
            .try_to_owned()
            .unwrap()
    });
    assert_eq!(Value::from(told), Value::from(60_u32));
    scene.daemon.says("was read again");
    write(600);
    scene.daemon.signal(Signal::HUP);
    scene.daemon.says("the old configuration stays");
    scene.daemon.says("guest.toml:3:10");
    let volume = scene
        .runtime
        .block_on(async { volume(&scene.bus.connect().await).await });
    assert_eq!(volume, 60);
}

#[test]
fn a_signal_reaches_who_listens() {
    let scene = scene();
    scene.runtime.block_on(async {
        let connection = scene.bus.connect().await;
        let knob = zbus::Proxy::new(&connection, NAME, KNOB_PATH, KNOB)
            .await
            .unwrap();
        let mut rings = knob.receive_signal("Rung").await.unwrap();
        knob.call_method("Ring", &(7_u32)).await.unwrap();
        let ring = tokio::time::timeout(PATIENCE, rings.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ring.body().deserialize::<u32>().unwrap(), 7);
    });
}

#[test]
fn the_name_comes_to_a_second_service_when_the_first_one_ends() {
    let mut scene = scene();
    let socket = scene.folder.path().join("second.sock");
    let address = scene.bus.address();
    let arguments = [
        "--socket",
        socket.to_str().unwrap(),
        "--bus",
        &address,
        "--volume",
        "3",
    ];
    let mut second = Daemon::start(&arguments);
    second.says("served twice?");
    scene.daemon.signal(Signal::TERM);
    scene.daemon.wait();
    until("the second service under the name", || {
        std::thread::park_timeout(Duration::from_millis(10));
        scene.runtime.block_on(async {
            let connection = scene.bus.connect().await;
            let bus = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
            let has = bus.name_has_owner(NAME.try_into().unwrap()).await.unwrap();
            if !has {
                return None;
            }
            (volume(&connection).await == 3).then_some(())
        })
    });
}

#[test]
fn every_device_waits_for_the_name_that_policies_speak_of() {
    let scene = scene();
    let socket = scene.folder.path().join("other.sock");
    let address = scene.bus.address();
    let arguments = [
        "--socket",
        socket.to_str().unwrap(),
        "--bus",
        &address,
        "--device",
        "other",
    ];
    let mut other = Daemon::start(&arguments);
    other.says("is on D-Bus as");
    scene.runtime.block_on(async {
        let connection = scene.bus.connect().await;
        let bus = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
        let mut waiting = bus
            .list_queued_owners(DEVICE.try_into().unwrap())
            .await
            .unwrap();
        let mut devices = Vec::new();
        for name in [NAME, OTHER] {
            let owner = bus.get_name_owner(name.try_into().unwrap()).await.unwrap();
            devices.push(owner);
        }
        waiting.sort();
        devices.sort();
        assert_eq!(waiting, devices);
    });
}

#[test]
fn a_refused_write_is_refused_under_the_name_of_what_is_wrong() {
    let scene = scene();
    let refused = |property: &'static str, value: u32| {
        scene.runtime.block_on(async {
            let connection = scene.bus.connect().await;
            let properties = PropertiesProxy::new(&connection, NAME, KNOB_PATH)
                .await
                .unwrap();
            let interface = InterfaceName::try_from(KNOB).unwrap();
            let written = properties
                .set(interface, property, Value::from(value))
                .await;
            written.unwrap_err()
        })
    };
    let out_of_range = refused("Volume", 1000);
    let is_named = matches!(out_of_range, zbus::fdo::Error::InvalidArgs(_));
    assert!(is_named, "{out_of_range:?}");
    let unknown = refused("Colour", 1);
    let is_named = matches!(unknown, zbus::fdo::Error::UnknownProperty(_));
    assert!(is_named, "{unknown:?}");
}
