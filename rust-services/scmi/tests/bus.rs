// SPDX-License-Identifier: Apache-2.0

//! The platform on a message bus, while guests use it: every method, property and signal, what is
//! refused, and to whom.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use frontend::Deadline;
use frontend::clients::scmi::ScmiClient;
use frontend::message_bus::{MessageBus, Policy};
use frontend::service_under_test::{Launch, ServiceUnderTest};
use tokio::runtime::Runtime;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::zvariant::{OwnedValue, Type};
use zbus::{Connection, MatchRule, MessageStream};

/// The policy file that the layer installs.
const SHIPPED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../meta-agl-virtio/recipes-virt/agl-virtio/files/org.automotivelinux.Virtio1.conf"
);
const NAME: &str = "org.automotivelinux.Virtio1.Device.ivi.soc";
const PATH: &str = "/org/automotivelinux/Virtio1/guests/ivi/soc";
const SCMI: &str = "org.automotivelinux.Virtio1.Scmi";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Somebody who is neither root nor the user that runs the service.
const NOBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(60);
const SYSTEM: u8 = 0x12;
const CLOCK: u8 = 0x14;
const SENSOR: u8 = 0x15;
const DENIED: i32 = -3;
const HARDWARE_ERROR: i32 = -9;

/// Two guests of one platform, the service on a bus, and somebody on the bus.
struct Scene {
    // Dropped in this order: the service ends before its bus.
    runtime: Runtime,
    connection: Connection,
    service: ServiceUnderTest,
    bus: MessageBus,
    cluster: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn start(policy: &Policy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = folder.path().join("cluster");
        let config = folder.path().join("ivi.toml");
        let text = format!(
            r#"
            [devices.soc]
            type = "scmi"
            [[devices.soc.agents]]
            name = "ivi"
            system_power = "set"
            access = {{ "clock:lcd" = {{ access = "set", max = 2000 }} }}
            [[devices.soc.agents]]
            name = "cluster"
            socket = "{}"
            access = {{ "clock:lcd" = "read", "clock:secret" = "invisible" }}
            [[devices.soc.clocks]]
            name = "lcd"
            rates = [1000, 2000]
            [[devices.soc.clocks]]
            name = "secret"
            rates = [7]
            [[devices.soc.sensors]]
            name = "cabin"
            wave = {{ mean = 220 }}
            "#,
            cluster.display()
        );
        std::fs::write(&config, text).unwrap();
        let bus = MessageBus::start(folder.path(), policy).unwrap();
        let program = env!("CARGO_BIN_EXE_agl-virtio-scmi");
        let service = Launch::new(program, folder.path().join("socket"))
            .args(["--log", "error", "--bus", &bus.address()])
            .args([PathBuf::from("--config"), config])
            .start()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let connection = runtime.block_on(connect(&bus));
        Self {
            runtime,
            connection,
            service,
            bus,
            cluster,
            _folder: folder,
        }
    }

    fn ivi(&self) -> ScmiClient {
        let stream = self.service.connect(Deadline::patient()).unwrap();
        ScmiClient::start(stream, &ScmiClient::options()).unwrap()
    }

    fn cluster(&self) -> ScmiClient {
        let stream = UnixStream::connect(&self.cluster).unwrap();
        ScmiClient::start(stream, &ScmiClient::options()).unwrap()
    }

    fn ask<B, R>(&self, interface: &str, method: &str, body: &B) -> Result<R, String>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        R: for<'a> serde::Deserialize<'a> + Type,
    {
        let asked = self
            .connection
            .call_method(Some(NAME), PATH, Some(interface), method, body);
        match self.runtime.block_on(asked) {
            Ok(reply) => Ok(reply.body().deserialize().unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn call<B, R>(&self, method: &str, body: &B) -> Result<R, String>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        R: for<'a> serde::Deserialize<'a> + Type,
    {
        self.ask(SCMI, method, body)
    }

    /// State, value and voters of a resource.
    fn resource(&self, kind: &str, name: &str) -> (String, i64, Vec<String>) {
        type Row = (String, String, String, i64, Vec<String>);
        let all: OwnedValue = self.ask(PROPERTIES, "Get", &(SCMI, "Resources")).unwrap();
        let all: Vec<Row> = all.try_into().unwrap();
        let row = all.into_iter().find(|row| row.0 == kind && row.1 == name);
        let (_, _, state, value, voters) = row.unwrap();
        (state, value, voters)
    }

    fn statistics(&self, agent: &str) -> HashMap<String, u64> {
        self.call("Statistics", &agent).unwrap()
    }

    fn access(&self, kind: &str, name: &str) -> HashMap<String, String> {
        self.call("Access", &(kind, name)).unwrap()
    }
}

/// Connects, and waits until the device is on the bus.
async fn connect(bus: &MessageBus) -> Connection {
    let address = bus.address();
    let builder = zbus::connection::Builder::address(address.as_str()).unwrap();
    let connection = builder.build().await.unwrap();
    let asked = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
    let end = Deadline::patient();
    while !asked
        .name_has_owner(NAME.try_into().unwrap())
        .await
        .unwrap()
    {
        assert!(!end.passed(), "{NAME} is not on the bus");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    connection
}

/// A reading of the sensor, and its status.
fn reading(client: &mut ScmiClient) -> (i32, u32) {
    let reply = client.command(SENSOR, 6, &[0, 0]).unwrap();
    let value = if reply.status == 0 { reply.word(0) } else { 0 };
    (reply.status, value)
}

#[test]
fn what_there_is_and_who_wants_it_is_told_as_guests_go_on() {
    let scene = Scene::start(&Policy::System(SHIPPED.into()));
    let (mut ivi, mut cluster) = (scene.ivi(), scene.cluster());
    let agents: OwnedValue = scene.ask(PROPERTIES, "Get", &(SCMI, "Agents")).unwrap();
    assert_eq!(Vec::<String>::try_from(agents).unwrap(), ["ivi", "cluster"]);
    let off = ("off".to_owned(), 1000, Vec::new());
    assert_eq!(scene.resource("clock", "lcd"), off);
    assert_eq!(ivi.command(CLOCK, 7, &[0, 1, 0]).unwrap().status, 0);
    let set = ivi.command(CLOCK, 5, &[0, 0, 2000, 0]).unwrap();
    assert_eq!(set.status, 0);
    let on = ("on".to_owned(), 2000, vec!["ivi".to_owned()]);
    assert_eq!(scene.resource("clock", "lcd"), on);
    let simulated = ("simulated".to_owned(), 220, Vec::new());
    assert_eq!(scene.resource("sensor", "cabin"), simulated);
    let before = scene.statistics("cluster");
    assert_eq!(
        cluster.command(CLOCK, 7, &[0, 0, 0]).unwrap().status,
        DENIED
    );
    let after = scene.statistics("cluster");
    assert_eq!(
        (after["messages"], after["refused"], after["denied"]),
        (before["messages"] + 1, 1, 1)
    );
    assert_eq!((after["limited"], after["dropped"]), (0, 0));
    assert_eq!(scene.statistics("ivi")["denied"], 0);
}

#[test]
fn what_a_guest_may_do_is_changed_while_it_runs() {
    let scene = Scene::start(&Policy::System(SHIPPED.into()));
    let mut cluster = scene.cluster();
    let words = |ivi: &str, cluster: &str| {
        let pairs = [("ivi", ivi), ("cluster", cluster)];
        HashMap::from(pairs.map(|(agent, access)| (agent.to_owned(), access.to_owned())))
    };
    assert_eq!(scene.access("clock", "lcd"), words("set", "read"));
    let limits = |name: &str| -> HashMap<String, (i64, i64)> {
        scene.call("Limits", &("clock", name)).unwrap()
    };
    let most = HashMap::from([("ivi".to_owned(), (i64::MIN, 2000))]);
    assert_eq!((limits("lcd"), limits("secret")), (most, HashMap::new()));
    let mut switch = || cluster.command(CLOCK, 7, &[0, 1, 0]).unwrap().status;
    assert_eq!(switch(), DENIED);
    for (access, status) in [("set", 0), ("read", DENIED)] {
        let body = ("cluster", "clock", "lcd", access);
        scene.call::<_, ()>("SetAccess", &body).unwrap();
        assert_eq!(switch(), status, "{access}");
        assert_eq!(scene.access("clock", "lcd"), words("set", access));
    }
}

#[test]
fn a_sensor_has_the_value_and_the_fault_that_the_host_gives_it() {
    let scene = Scene::start(&Policy::System(SHIPPED.into()));
    let mut ivi = scene.ivi();
    assert_eq!(reading(&mut ivi), (0, 220));
    let inject = ("cabin", 0_u32, 999_i64);
    scene.call::<_, ()>("InjectSensor", &inject).unwrap();
    assert_eq!(reading(&mut ivi), (0, 999));
    scene
        .call::<_, ()>("SetSensorFault", &("cabin", true))
        .unwrap();
    assert_eq!(reading(&mut ivi).0, HARDWARE_ERROR);
    assert_eq!(scene.resource("sensor", "cabin").0, "fault");
    scene
        .call::<_, ()>("SetSensorFault", &("cabin", false))
        .unwrap();
    assert_eq!(reading(&mut ivi), (0, 999), "healed, still injected");
    scene
        .call::<_, ()>("ReleaseSensor", &("cabin", 0_u32))
        .unwrap();
    assert_eq!(reading(&mut ivi), (0, 220));
}

#[test]
fn requests_for_system_power_go_both_ways() {
    let scene = Scene::start(&Policy::System(SHIPPED.into()));
    let mut ivi = scene.ivi();
    let ask = |state: &str| -> Result<bool, String> {
        scene.call("RequestSystemPower", &("ivi", state, true, 5000_u32))
    };
    assert_eq!(ask("suspend"), Ok(false), "nobody listens");
    assert_eq!(ivi.command(SYSTEM, 5, &[1]).unwrap().status, 0);
    assert_eq!(ask("shutdown"), Ok(true));
    let event = ivi.event(Deadline::patient()).unwrap();
    // Agent, flags, state, time.
    let words = [0, 1, 2, 3].map(|place| event.word(place));
    assert_eq!(words, [0, 1, 0, 5000]);
    // What the guest asks is told to whoever listens on the bus.
    let rule = MatchRule::builder().member("SystemPowerRequested").unwrap();
    let signals = MessageStream::for_match_rule(rule.build(), &scene.connection, Some(8));
    let mut signals = scene.runtime.block_on(signals).unwrap();
    assert_eq!(ivi.command(SYSTEM, 3, &[1, 1]).unwrap().status, 0);
    let told = async { tokio::time::timeout(PATIENCE, signals.next()).await };
    let told = scene.runtime.block_on(told).expect("it was told").unwrap();
    let told: (String, String, bool) = told.unwrap().body().deserialize().unwrap();
    assert_eq!(told, ("ivi".into(), "cold-reset".into(), true));
    // A stream of messages unsubscribes by a task.
    let _inside = scene.runtime.enter();
    drop(signals);
}

#[test]
fn what_is_refused_is_refused_with_what_is_wrong() {
    let scene = Scene::start(&Policy::System(SHIPPED.into()));
    let set = |body: (&str, &str, &str, &str)| scene.call::<_, ()>("SetAccess", &body);
    let power = |agent: &str, state: &str| {
        scene.call::<_, bool>("RequestSystemPower", &(agent, state, false, 0_u32))
    };
    let refusals = [
        (set(("nobody", "clock", "lcd", "set")), "there is no nobody"),
        (set(("ivi", "clock", "dsi", "set")), "there is no clock dsi"),
        (set(("ivi", "lamp", "lcd", "set")), "there is no lamp lcd"),
        (
            set(("ivi", "clock", "lcd", "write")),
            "write read, set or exclusive",
        ),
        // What a guest was not told of cannot appear while it runs.
        (set(("cluster", "clock", "secret", "read")), "InvalidArgs"),
        (
            scene.call("InjectSensor", &("cabin", 1_u32, 5_i64)),
            "cabin has no axis 1",
        ),
        (
            scene.call("ReleaseSensor", &("attic", 0_u32)),
            "there is no sensor attic",
        ),
        (
            scene.call("SetSensorFault", &("attic", true)),
            "there is no sensor attic",
        ),
        (power("nobody", "suspend").map(drop), "there is no nobody"),
        (power("ivi", "explode").map(drop), "explode is none of"),
        (
            scene
                .call::<_, HashMap<String, u64>>("Statistics", &"nobody")
                .map(drop),
            "there is no nobody",
        ),
        (
            scene
                .call::<_, HashMap<String, String>>("Access", &("clock", "dsi"))
                .map(drop),
            "there is no clock dsi",
        ),
        (
            scene
                .call::<_, HashMap<String, (i64, i64)>>("Limits", &("clock", "dsi"))
                .map(drop),
            "there is no clock dsi",
        ),
    ];
    for (answer, text) in refusals {
        let refused = answer.unwrap_err();
        assert!(refused.contains(text), "{text}: {refused}");
    }
    assert_eq!(scene.access("clock", "secret")["cluster"], "invisible");
    assert_eq!(reading(&mut scene.ivi()), (0, 220));
}

/// Asks as somebody whom nobody knows.
fn as_nobody(address: &str, words: &[&str]) -> Output {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test asks as somebody else: run it as root"
    );
    let mut command = Command::new("dbus-send");
    command
        .arg(format!("--bus={address}"))
        .args(["--print-reply", &format!("--dest={NAME}"), PATH])
        .args(words)
        .uid(NOBODY);
    command
        .output()
        .expect("dbus-send runs: it is in the package dbus-bin")
}

/// All that changes something.
fn changes() -> [Vec<String>; 5] {
    let method = |name: &str, words: &[&str]| {
        let name = [format!("{SCMI}.{name}")];
        let words = words.iter().map(|word| (*word).to_owned());
        name.into_iter().chain(words).collect()
    };
    let set = ["string:cluster", "string:clock", "string:lcd", "string:set"];
    let cabin = "string:cabin";
    let power = ["string:ivi", "string:shutdown", "boolean:true", "uint32:0"];
    [
        method("SetAccess", &set),
        method("InjectSensor", &[cabin, "uint32:0", "int64:5"]),
        method("ReleaseSensor", &[cabin, "uint32:0"]),
        method("SetSensorFault", &[cabin, "boolean:true"]),
        method("RequestSystemPower", &power),
    ]
}

fn slices(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn everybody_may_look_but_only_who_is_allowed_may_change_anything() {
    let scene = Scene::start(&Policy::System(SHIPPED.into()));
    let address = scene.bus.address();
    let of = |name: &str| format!("{SCMI}.{name}");
    let scmi = format!("string:{SCMI}");
    let get = format!("{PROPERTIES}.Get");
    for (look, seen) in [
        (vec![get.as_str(), &scmi, "string:Resources"], "\"cabin\""),
        (
            vec![of("Access").as_str(), "string:clock", "string:lcd"],
            "\"read\"",
        ),
        (vec![of("Statistics").as_str(), "string:ivi"], "\"denied\""),
    ] {
        let output = as_nobody(&address, &look);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(seen), "{look:?}: {text}");
    }
    for change in changes() {
        let output = as_nobody(&address, &slices(&change));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let denied = text.contains("AccessDenied") && text.contains("virtio1.manage");
        assert!(denied && !output.status.success(), "{change:?}: {text}");
    }
    assert_eq!(scene.access("clock", "lcd")["cluster"], "read");
    assert_eq!(reading(&mut scene.ivi()), (0, 220));
}

/// Polkit as the service sees it, which allows everybody or nobody.
struct Authority(bool);

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    fn check_authorization(
        &self,
        _subject: (String, HashMap<String, OwnedValue>),
        action: String,
        _details: HashMap<String, String>,
        _flags: u32,
        _cancellation: String,
    ) -> (bool, bool, HashMap<String, String>) {
        let ours = action == "org.automotivelinux.virtio1.manage";
        (self.0 && ours, false, HashMap::new())
    }
}

#[test]
fn polkit_says_who_else_may_change_something() {
    for allowed in [false, true] {
        // Anybody may have any name there, also that of polkit.
        let scene = Scene::start(&Policy::Open);
        let address = scene.bus.address();
        let outputs = scene.runtime.block_on(async {
            let server = scene.connection.object_server();
            let path = "/org/freedesktop/PolicyKit1/Authority";
            assert!(server.at(path, Authority(allowed)).await.unwrap());
            let name = "org.freedesktop.PolicyKit1";
            scene.connection.request_name(name).await.unwrap();
            // It answers on this runtime while the other user asks.
            let asking = tokio::task::spawn_blocking(move || {
                changes().map(|change| as_nobody(&address, &slices(&change)))
            });
            asking.await.unwrap()
        });
        for output in outputs {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.success(), allowed, "{text}");
        }
        let access = if allowed { "set" } else { "read" };
        assert_eq!(scene.access("clock", "lcd")["cluster"], access);
    }
}
