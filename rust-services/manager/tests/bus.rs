// SPDX-License-Identifier: Apache-2.0
//! The manager on a bus with the shipped policy: who may do what, what is refused and how, a
//! monitor that is killed, a manager that is killed, and calls that make no sense.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use support::{GUEST, NOBODY, ROOT, Scene, until};
use zbus::zvariant::{ObjectPath, StructureBuilder, Value};

const MANAGER: &str = "org.automotivelinux.Virtio1.Manager";
const GUEST_INTERFACE: &str = "org.automotivelinux.Virtio1.Guest";

/// A guest whose monitor is a program that does nothing: xl runs until it is ended.
fn idle_guest(folder: &Path) -> String {
    let program = folder.join("monitor");
    fs::write(&program, "#!/bin/sh\nexec sleep 100000\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!(
        "[guest]\nvmm = \"xen\"\nprogram = \"{}\"\nboot = {{ firmware = \"/dev/null\" }}\n\
         restart = {{ delay_ms = 1, longest_delay_ms = 1 }}\n",
        program.display()
    )
}

fn idle_scene() -> (tempfile::TempDir, Scene) {
    let programs = tempfile::tempdir().unwrap();
    let scene = Scene::start(&[("ivi", &idle_guest(programs.path()))]);
    (programs, scene)
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn pid(scene: &Scene) -> i32 {
    let text = scene.of_guest("Pid");
    text.split_whitespace().last().unwrap().parse().unwrap()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn everybody_reads_and_nobody_changes_without_the_authority_s_consent() {
    let (_programs, scene) = idle_scene();
    let read = scene.get(NOBODY, GUEST, GUEST_INTERFACE, "State");
    assert!(read.status.success(), "{}", said(&read));
    let command = scene.call(NOBODY, GUEST, &format!("{GUEST_INTERFACE}.GetCommand"), &[]);
    assert!(command.status.success(), "{}", said(&command));
    for (path, method, words) in [
        (GUEST, format!("{GUEST_INTERFACE}.Start"), vec![]),
        (GUEST, format!("{GUEST_INTERFACE}.Stop"), vec!["uint32:0"]),
        (GUEST, format!("{GUEST_INTERFACE}.Kill"), vec![]),
        (GUEST, format!("{GUEST_INTERFACE}.Reboot"), vec![]),
        (GUEST, format!("{GUEST_INTERFACE}.Pause"), vec![]),
        (GUEST, format!("{GUEST_INTERFACE}.Resume"), vec![]),
        (
            GUEST,
            format!("{GUEST_INTERFACE}.RecordSelftest"),
            vec!["string:{}"],
        ),
        (ROOT, format!("{MANAGER}.Reload"), vec![]),
        (ROOT, format!("{MANAGER}.Remove"), vec!["string:ivi"]),
        (
            ROOT,
            format!("{MANAGER}.Define"),
            vec!["string:a", "string:"],
        ),
    ] {
        let output = scene.call(NOBODY, path, &method, &words);
        assert!(
            said(&output).contains("AccessDenied"),
            "{method}: {}",
            said(&output)
        );
    }
    assert!(scene.of_guest("State").contains("stopped"));
    // The shipped policy keeps the manager's name for root.
    let output = std::process::Command::new("busctl")
        .arg(format!("--address={}", scene.address()))
        .args(["introspect", support::NAME, GUEST])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(".ExitReason"), "{text}{}", said(&output));
}

#[test]
fn a_guest_starts_is_started_again_when_killed_and_isolated_when_that_goes_on() {
    let (_programs, scene) = idle_scene();
    let start = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(start.status.success(), "{}", said(&start));
    let mut kills = 0;
    until("the isolation", || {
        let state = scene.of_guest("State");
        if state.contains("\"isolated\"") {
            return Some(());
        }
        let victim = pid(&scene);
        if state.contains("\"running\"") && victim != 0 {
            kill(victim);
            kills += 1;
            until("another process", || (pid(&scene) != victim).then_some(()));
        }
        None
    });
    assert_eq!(kills, 6, "the limit is 5 restarts");
    assert!(
        scene
            .of_guest("ExitReason")
            .contains("crash: the monitor was ended by signal 9")
    );
    let start = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(
        start.status.success(),
        "by hand it starts again: {}",
        said(&start)
    );
    kill_for_good(&scene);
}

/// Ends the guest, so that it does not outlive its test.
fn kill_for_good(scene: &Scene) {
    let output = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Kill"), &[]);
    assert!(output.status.success(), "{}", said(&output));
    until("the end", || {
        scene.of_guest("State").contains("stopped").then_some(())
    });
}

#[test]
fn a_guest_outlives_its_manager_and_obeys_the_next_one() {
    let (_programs, mut scene) = idle_scene();
    let start = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(start.status.success(), "{}", said(&start));
    let before = (pid(&scene), scene.of_guest("StartedUsec"));
    scene.crash();
    until("the guest is found", || {
        scene.of_guest("State").contains("running").then_some(())
    });
    assert_eq!((pid(&scene), scene.of_guest("StartedUsec")), before);
    kill_for_good(&scene);
}

#[test]
fn what_ended_while_no_manager_was_there_is_noticed_and_judged() {
    let (_programs, mut scene) = idle_scene();
    let start = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(start.status.success(), "{}", said(&start));
    let before = pid(&scene);
    scene.manager.0.kill().unwrap();
    scene.manager.0.wait().unwrap();
    kill(before);
    scene.crash();
    until("another process", || {
        let now = pid(&scene);
        (now != 0 && now != before).then_some(())
    });
    assert!(scene.of_guest("Restarts").contains("uint32 1"));
    kill_for_good(&scene);
}

#[test]
fn a_wrong_file_changes_nothing_and_a_right_one_is_in_force() {
    let (programs, scene) = idle_scene();
    let reload = format!("{MANAGER}.Reload");
    fs::write(scene.file("second"), "[guest]\nmemory = \"1 GB\"\n").unwrap();
    fs::write(scene.file("ivi"), "[guest]\ncpus = 0\n").unwrap();
    let output = scene.call(own(), ROOT, &reload, &[]);
    let text = said(&output);
    assert!(
        text.contains("second.toml:2:10") && text.contains("ivi.toml:2:8"),
        "{text}"
    );
    assert!(
        scene.of_guest("Cpus").contains("uint32 1"),
        "the old state is gone"
    );
    let faults = scene.get(own(), ROOT, MANAGER, "Faults");
    assert!(String::from_utf8_lossy(&faults.stdout).contains("second.toml:2:10"));

    fs::remove_file(scene.file("second")).unwrap();
    let file = idle_guest(programs.path()) + "cpus = 3\n";
    fs::write(scene.file("ivi"), file).unwrap();
    let output = scene.call(own(), ROOT, &reload, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(scene.of_guest("Cpus").contains("uint32 3"));
}

#[test]
fn guests_are_defined_and_removed_over_the_bus() {
    let (programs, scene) = idle_scene();
    let text = format!("string:{}", idle_guest(programs.path()));
    let define = format!("{MANAGER}.Define");
    let output = scene.call(own(), ROOT, &define, &["string:cluster", &text]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(scene.file("cluster").exists());
    for (name, file) in [("../a", ""), ("", ""), ("b", "[guest]\ncpus = 0\n")] {
        let words = [format!("string:{name}"), format!("string:{file}")];
        let output = scene.call(own(), ROOT, &define, &[&words[0], &words[1]]);
        assert!(
            said(&output).contains("InvalidArgs"),
            "{name}: {}",
            said(&output)
        );
    }
    assert!(!scene.file("b").exists(), "a wrong file was left behind");
    let output = scene.call(
        own(),
        ROOT,
        &format!("{MANAGER}.Remove"),
        &["string:cluster"],
    );
    assert!(output.status.success(), "{}", said(&output));
    assert!(!scene.file("cluster").exists());
}

#[test]
fn a_monitor_that_ignores_its_commands_is_ended_all_the_same() {
    let (_programs, scene) = idle_scene();
    let start = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(start.status.success(), "{}", said(&start));
    // It does the same whatever it is asked for: nothing, for ever.
    let stop = format!("{GUEST_INTERFACE}.Stop");
    let output = scene.call(own(), GUEST, &stop, &["uint32:0"]);
    assert!(output.status.success(), "{}", said(&output));
    until("the end", || {
        scene.of_guest("State").contains("stopped").then_some(())
    });
    let start = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(start.status.success(), "{}", said(&start));
    kill_for_good(&scene);
}

#[test]
fn all_objects_are_told_while_guests_come_and_go() {
    let (programs, scene) = idle_scene();
    let text = idle_guest(programs.path()) + DEVICE;
    let text = format!("string:{text}");
    let over = std::sync::atomic::AtomicBool::new(false);
    let ended = || over.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0_u32;
            while !ended() {
                let method = "org.freedesktop.DBus.ObjectManager.GetManagedObjects";
                let output = scene.call(own(), ROOT, method, &[]);
                if !output.status.success() {
                    return Err(said(&output));
                }
                answers += 1;
            }
            Ok(answers)
        });
        for _ in 0..10 {
            let define = format!("{MANAGER}.Define");
            let output = scene.call(own(), ROOT, &define, &["string:passing", &text]);
            assert!(output.status.success(), "{}", said(&output));
            let remove = format!("{MANAGER}.Remove");
            let output = scene.call(own(), ROOT, &remove, &["string:passing"]);
            assert!(output.status.success(), "{}", said(&output));
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let answers = asking.join().unwrap();
        assert!(matches!(answers, Ok(1..)), "{answers:?}");
    });
}

#[test]
fn a_guest_that_does_not_come_up_with_the_manager_is_tried_again_and_keeps_no_other_waiting() {
    let (stuck, fails) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let autostart = |text: &str| format!("{text}autostart = true\n");
    // One whose monitor never answers, one that fails at once, and one that is as it should be.
    let never = autostart(&idle_guest(stuck.path()).replace("xen", "qemu"));
    let broken = autostart(&idle_guest(fails.path()).replace("xen", "qemu"));
    fs::write(fails.path().join("monitor"), "#!/bin/sh\nexit 1\n").unwrap();
    let programs = tempfile::tempdir().unwrap();
    let good = autostart(&idle_guest(programs.path()));
    let scene = Scene::start(&[("a", &never), ("b", &broken), ("ivi", &good)]);
    until("the good one runs", || {
        scene.of_guest("State").contains("running").then_some(())
    });
    let of = |guest: &str, property: &str| {
        let path = format!("{ROOT}/guests/{guest}");
        let output = scene.get(own(), &path, GUEST_INTERFACE, property);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(
        of("a", "ExitReason").contains("\"\""),
        "{}",
        of("a", "ExitReason")
    );
    until("it is tried as often as the limit says", || {
        of("b", "State").contains("isolated").then_some(())
    });
    assert!(
        of("b", "Restarts").contains("uint32 3"),
        "{}",
        of("b", "Restarts")
    );
    let path = format!("{ROOT}/guests/a");
    let output = scene.call(own(), &path, &format!("{GUEST_INTERFACE}.Kill"), &[]);
    assert!(output.status.success(), "{}", said(&output));
    kill_for_good(&scene);
}

/// A device that is not started with its guest.
const DEVICE: &str = "attach.card.manual = true\n[devices.card]\ntype = \"snd\"\n";

/// What the manager says of the device.
fn of_device(scene: &Scene, property: &str) -> String {
    let path = format!("{GUEST}/card");
    let interface = "org.automotivelinux.Virtio1.ManagedDevice";
    let output = scene.get(own(), &path, interface, property);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_a_guest_has_found_of_its_devices_is_shown_until_it_starts_anew() {
    let programs = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(&[("ivi", &(idle_guest(programs.path()) + DEVICE))]);
    let record = format!("{GUEST_INTERFACE}.RecordSelftest");
    let report = |result: &str| {
        format!(
            "string:{{\"program\": \"agl-virtio-selftest 1\", \"failed\": 0, \"checks\": [{{\"name\": \
             \"playback\", \"device\": \"snd\", \"result\": \"{result}\", \"why\": \"silence\"}}]}}"
        )
    };
    assert!(of_device(&scene, "Conformance").contains("untested"));
    let output = scene.call(own(), GUEST, &record, &[&report("passed")]);
    assert!(said(&output).contains("stopped"), "{}", said(&output));
    let start = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(start.status.success(), "{}", said(&start));
    for wrong in ["string:TAP version 14", "string:{}"] {
        let output = scene.call(own(), GUEST, &record, &[wrong]);
        assert!(said(&output).contains("InvalidArgs"), "{}", said(&output));
    }
    for result in ["failed", "passed"] {
        let output = scene.call(own(), GUEST, &record, &[&report(result)]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(of_device(&scene, "Conformance").contains(result));
    }
    assert!(of_device(&scene, "ConformanceReport").contains("1 passed, 0 failed"));
    scene.crash();
    until("the note is found", || {
        of_device(&scene, "Conformance")
            .contains("passed")
            .then_some(())
    });
    let victim = pid(&scene);
    kill(victim);
    until("the next start", || {
        of_device(&scene, "Conformance")
            .contains("outdated")
            .then_some(())
    });
    kill_for_good(&scene);
}

#[test]
fn a_device_whose_service_does_not_run_says_so_when_asked_for_its_counters() {
    let programs = tempfile::tempdir().unwrap();
    let scene = Scene::start(&[("ivi", &(idle_guest(programs.path()) + DEVICE))]);
    for method in ["GetFeatures", "GetStatistics"] {
        let method = format!("org.automotivelinux.Virtio1.ManagedDevice.{method}");
        let output = scene.call(NOBODY, &format!("{GUEST}/card"), &method, &[]);
        let text = said(&output);
        assert!(text.contains("the service is stopped"), "{text}");
    }
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn value(&mut self) -> Value<'static> {
        match self.roll(7) {
            0 => Value::from(self.0),
            1 => Value::from(u32::try_from(self.roll(1 << 32)).unwrap()),
            2 => Value::from(self.roll(2) == 0),
            3 => Value::from("x".repeat(usize::try_from(self.roll(70_000)).unwrap())),
            4 => Value::from(ObjectPath::try_from(ROOT).unwrap()),
            5 => Value::from(vec![self.0; 3]),
            _ => Value::from("../ivi\u{1}"),
        }
    }
}

/// How many calls that make no sense are made: as many as AGL_VIRTIO_CALLS says, for a long search.
fn calls() -> u64 {
    let told = std::env::var("AGL_VIRTIO_CALLS").ok();
    told.map_or(500, |calls| calls.parse().unwrap())
}

/// Where the search begins: another AGL_VIRTIO_SEED is another search.
fn seed() -> u64 {
    let told = std::env::var("AGL_VIRTIO_SEED").ok();
    told.map_or(0x9e37_79b9_7f4a_7c15, |seed| {
        seed.parse::<u64>().unwrap().max(1)
    })
}

#[test]
fn calls_that_make_no_sense_are_answered_and_change_nothing() {
    let (_programs, scene) = idle_scene();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let connection = zbus::connection::Builder::address(scene.address().as_str())
            .unwrap()
            .method_timeout(support::PATIENCE)
            .build()
            .await
            .unwrap();
        let paths = [ROOT, GUEST, "/", "/org/automotivelinux/Virtio1/guests/none"];
        let interfaces = [
            MANAGER,
            GUEST_INTERFACE,
            "org.automotivelinux.Virtio1.ManagedDevice",
            "org.freedesktop.DBus.Properties",
        ];
        let methods = [
            "Define",
            "Remove",
            "GetGuest",
            "Stop",
            "Get",
            "Set",
            "GetAll",
            "Attach",
            "Nothing",
            "RecordSelftest",
            "GetStatistics",
        ];
        let mut dice = Dice(seed());
        let pick = |dice: &mut Dice, from: &'static [&'static str]| {
            from[usize::try_from(dice.roll(from.len() as u64)).unwrap()]
        };
        for _ in 0..calls() {
            let path = paths[usize::try_from(dice.roll(4)).unwrap()];
            let interface = interfaces[usize::try_from(dice.roll(4)).unwrap()];
            let method = methods[usize::try_from(dice.roll(11)).unwrap()];
            let body = match dice.roll(4) {
                0 => StructureBuilder::new().append_field(dice.value()),
                1 => StructureBuilder::new()
                    .add_field(pick(&mut dice, &["ivi", "", GUEST_INTERFACE]))
                    .append_field(dice.value()),
                2 => StructureBuilder::new()
                    .add_field(pick(&mut dice, &[MANAGER, GUEST_INTERFACE]))
                    .add_field(pick(&mut dice, &["State", "Guests", "Pid"]))
                    .add_field(dice.value()),
                _ => StructureBuilder::new()
                    .append_field(dice.value())
                    .append_field(dice.value()),
            };
            let body = body.build().unwrap();
            let answer = connection
                .call_method(Some(support::NAME), path, Some(interface), method, &body)
                .await;
            // An answer or an error, and never none.
            if let Err(error) = answer {
                assert!(
                    matches!(error, zbus::Error::MethodError(..)),
                    "{method}: {error}"
                );
            }
        }
    });
    assert!(scene.of_guest("State").contains("stopped"));
    assert!(scene.file("ivi").exists());
}
