// SPDX-License-Identifier: Apache-2.0
//! Whom the manager believes: applications that may change a volume and nothing else, monitors that
//! say what they like, files that anybody may have written, and what an earlier manager left.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test"
)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use support::{GUEST, NAME, NOBODY, ROOT, Scene, until};
use zbus::zvariant::OwnedValue;

const MANAGER: &str = "org.automotivelinux.Virtio1.Manager";
const GUEST_INTERFACE: &str = "org.automotivelinux.Virtio1.Guest";
const OBJECTS: &str = "org.freedesktop.DBus.ObjectManager.GetManagedObjects";

/// A guest whose monitor is this script.
fn guest(folder: &Path, script: &str) -> String {
    let program = folder.join("monitor");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!(
        "[guest]\nvmm = \"xen\"\nprogram = \"{}\"\nboot = {{ firmware = \"/dev/null\" }}\n",
        program.display()
    )
}

const IDLE: &str = "exec sleep 100000";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn must_be_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test calls as somebody else: run it as root"
    );
}

fn start(scene: &Scene) {
    let output = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    assert!(output.status.success(), "{}", said(&output));
}

/// Ends the guest, so that it does not outlive its test.
fn kill(scene: &Scene) {
    let output = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Kill"), &[]);
    assert!(output.status.success(), "{}", said(&output));
    until("the end", || {
        scene.of_guest("State").contains("stopped").then_some(())
    });
}

/// Who has the manager's name: another one where the bus had thrown it out meanwhile.
fn on_the_bus(scene: &Scene) -> String {
    let output = std::process::Command::new("busctl")
        .arg(format!("--address={}", scene.address()))
        .args(["call", "org.freedesktop.DBus", "/org/freedesktop/DBus"])
        .args(["org.freedesktop.DBus", "GetNameOwner", "s", NAME])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Authority {
    allows: &'static str,
    asked: Arc<Mutex<Vec<String>>>,
}

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    async fn check_authorization(
        &self,
        _subject: (String, HashMap<String, OwnedValue>),
        action: String,
        _details: HashMap<String, String>,
        _flags: u32,
        _cancellation: String,
    ) -> (bool, bool, HashMap<String, String>) {
        let allowed = action == self.allows;
        self.asked.lock().unwrap().push(action);
        (allowed, false, HashMap::new())
    }
}

/// What an application is told that has been granted one action, for each of these calls.
fn with_grant(scene: &Scene, allows: &'static str, calls: &[(&str, &str, &[&str])]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let asked = Arc::default();
    let authority = Authority {
        allows,
        asked: Arc::clone(&asked),
    };
    let connection = runtime.block_on(async {
        zbus::connection::Builder::address(scene.address().as_str())
            .unwrap()
            .serve_at("/org/freedesktop/PolicyKit1/Authority", authority)
            .unwrap()
            .name("org.freedesktop.PolicyKit1")
            .unwrap()
            .build()
            .await
            .unwrap()
    });
    let answers = calls.iter().map(|(path, method, words)| {
        let output = scene.call(NOBODY, path, method, words);
        match output.status.success() {
            true => "allowed".to_owned(),
            false => said(&output),
        }
    });
    let answers = answers.collect();
    drop(connection);
    assert_eq!(asked.lock().unwrap().len(), calls.len());
    answers
}

#[test]
fn whoever_may_change_a_volume_starts_no_guest_and_whoever_starts_one_writes_no_file() {
    must_be_root();
    let programs = tempfile::tempdir().unwrap();
    let scene = Scene::start(&[("ivi", &guest(programs.path(), IDLE))]);
    let (start, reload) = (
        format!("{GUEST_INTERFACE}.Start"),
        format!("{MANAGER}.Reload"),
    );
    let (define, remove) = (format!("{MANAGER}.Define"), format!("{MANAGER}.Remove"));
    let others = tempfile::tempdir().unwrap();
    let ran = others.path().join("ran");
    let script = format!("id >{}", ran.display());
    let evil = format!("string:{}", guest(others.path(), &script));
    let calls: [(&str, &str, &[&str]); 4] = [
        (ROOT, &define, &["string:evil", &evil]),
        (ROOT, &remove, &["string:ivi"]),
        (ROOT, &reload, &[]),
        (GUEST, &start, &[]),
    ];
    let answers = with_grant(&scene, "org.automotivelinux.virtio1.manage", &calls);
    for (answer, action) in answers.iter().zip(["define", "define", "run", "run"]) {
        let action = format!("org.automotivelinux.virtio1.{action}");
        assert!(
            answer.contains("AccessDenied") && answer.contains(&action),
            "{answer}"
        );
    }
    assert!(scene.of_guest("State").contains("stopped"));

    let answers = with_grant(&scene, "org.automotivelinux.virtio1.run", &calls);
    for answer in &answers[..2] {
        assert!(
            answer.contains("AccessDenied") && answer.contains("virtio1.define"),
            "{answer}"
        );
    }
    assert_eq!(answers[2..], ["allowed", "allowed"]);
    assert!(!scene.file("evil").exists() && scene.file("ivi").exists());
    assert!(!ran.exists());
    kill(&scene);
}

#[test]
fn a_monitor_s_last_words_neither_throw_the_manager_off_the_bus_nor_steer_a_terminal() {
    let programs = tempfile::tempdir().unwrap();
    let script = "printf 'no disk\\000\\033[2J\\n' >&2; exit 1";
    let scene = Scene::start(&[("ivi", &guest(programs.path(), script))]);
    let before = on_the_bus(&scene);
    // It runs for a moment, or does not start: it is told in either case.
    let _ = scene.call(own(), GUEST, &format!("{GUEST_INTERFACE}.Start"), &[]);
    until("the end", || {
        scene
            .of_guest("ExitReason")
            .contains("no disk")
            .then_some(())
    });
    let reason = scene.of_guest("ExitReason");
    assert!(!reason.contains('\u{1b}'), "{reason}");
    let objects = scene.call(own(), ROOT, OBJECTS, &[]);
    assert!(objects.status.success(), "{}", said(&objects));
    assert_eq!(on_the_bus(&scene), before);
    let _ = scene.call(
        own(),
        GUEST,
        &format!("{GUEST_INTERFACE}.Stop"),
        &["uint32:0"],
    );
}

#[test]
fn a_file_that_is_no_text_is_a_fault_and_all_objects_are_told_all_the_same() {
    let programs = tempfile::tempdir().unwrap();
    let scene = Scene::start(&[("ivi", &guest(programs.path(), IDLE))]);
    let before = on_the_bus(&scene);
    fs::write(scene.file("core"), "\u{7f}ELF\0\0\u{1b}[2J\0").unwrap();
    let output = scene.call(own(), ROOT, &format!("{MANAGER}.Reload"), &[]);
    assert!(said(&output).contains("core.toml:1:"), "{}", said(&output));
    let objects = scene.call(own(), ROOT, OBJECTS, &[]);
    assert!(objects.status.success(), "{}", said(&objects));
    let faults = scene.get(own(), ROOT, MANAGER, "Faults");
    let text = String::from_utf8_lossy(&faults.stdout).into_owned();
    assert!(
        text.contains("core.toml") && !text.contains('\u{1b}'),
        "{text}"
    );
    assert_eq!(on_the_bus(&scene), before);
}

#[test]
fn a_file_that_anybody_may_write_or_that_never_ends_is_refused_with_what_to_do() {
    let programs = tempfile::tempdir().unwrap();
    let scene = Scene::start(&[("ivi", &guest(programs.path(), IDLE))]);
    let reload = format!("{MANAGER}.Reload");
    fs::write(scene.file("open"), guest(programs.path(), IDLE)).unwrap();
    fs::set_permissions(scene.file("open"), fs::Permissions::from_mode(0o666)).unwrap();
    let output = scene.call(own(), ROOT, &reload, &[]);
    assert!(said(&output).contains("chmod o-w"), "{}", said(&output));
    fs::remove_file(scene.file("open")).unwrap();

    // A pipe that nobody writes to.
    let made = std::process::Command::new("mkfifo")
        .arg(scene.file("pipe"))
        .status();
    assert!(made.unwrap().success());
    let output = scene.call(own(), ROOT, &reload, &[]);
    assert!(said(&output).contains("pipe.toml"), "{}", said(&output));
    fs::remove_file(scene.file("pipe")).unwrap();
    let output = scene.call(own(), ROOT, &reload, &[]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_guest_is_found_again_by_a_manager_that_starts_while_files_are_wrong_or_gone() {
    let programs = tempfile::tempdir().unwrap();
    let good = guest(programs.path(), IDLE);
    let mut scene = Scene::start(&[("ivi", &good), ("spare", &good)]);
    start(&scene);
    // Whoever is told that it runs finds its process, and so does the next manager.
    let before = scene.of_guest("Pid");
    assert!(!before.contains("uint32 0"), "{before}");
    fs::write(scene.file("ivi"), "[guest]\ncpus = 0\n").unwrap();
    scene.crash();
    let runs = |scene: &Scene| {
        until("the guest is found", || {
            scene.of_guest("State").contains("running").then_some(())
        });
        assert_eq!(scene.of_guest("Pid"), before);
    };
    runs(&scene);
    let faults = scene.get(own(), ROOT, MANAGER, "Faults");
    assert!(String::from_utf8_lossy(&faults.stdout).contains("ivi.toml:2:8"));
    let spare = scene.call(
        own(),
        ROOT,
        &format!("{MANAGER}.GetGuest"),
        &["string:spare"],
    );
    assert!(
        spare.status.success(),
        "a file in order is in force: {}",
        said(&spare)
    );

    fs::remove_file(scene.file("ivi")).unwrap();
    scene.crash();
    runs(&scene);
    // Its file comes back, and it is a guest as before: it stays when it ends.
    fs::write(scene.file("ivi"), &good).unwrap();
    let reload = format!("{MANAGER}.Reload");
    let output = scene.call(own(), ROOT, &reload, &[]);
    assert!(output.status.success(), "{}", said(&output));
    kill(&scene);
    start(&scene);

    // Away and back under the same manager.
    fs::remove_file(scene.file("ivi")).unwrap();
    let output = scene.call(own(), ROOT, &reload, &[]);
    assert!(output.status.success(), "{}", said(&output));
    fs::write(scene.file("ivi"), &good).unwrap();
    let output = scene.call(own(), ROOT, &reload, &[]);
    assert!(output.status.success(), "{}", said(&output));
    kill(&scene);
    start(&scene);
    kill(&scene);

    // And of a guest that does not run, however fast.
    for _ in 0..20 {
        fs::remove_file(scene.file("ivi")).unwrap();
        let output = scene.call(own(), ROOT, &reload, &[]);
        assert!(output.status.success(), "{}", said(&output));
        fs::write(scene.file("ivi"), &good).unwrap();
        let output = scene.call(own(), ROOT, &reload, &[]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(scene.of_guest("State").contains("stopped"));
    }
}

#[test]
fn what_a_guest_s_file_was_readable_for_stays_so_when_it_is_defined_anew() {
    let programs = tempfile::tempdir().unwrap();
    let good = guest(programs.path(), IDLE);
    let scene = Scene::start(&[("ivi", &good)]);
    fs::set_permissions(scene.file("ivi"), fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("string:{good}cpus = 2\n");
    let define = format!("{MANAGER}.Define");
    let output = scene.call(own(), ROOT, &define, &["string:ivi", &text]);
    assert!(output.status.success(), "{}", said(&output));
    let mode = fs::metadata(scene.file("ivi"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_not_everybody_may_read_is_told_to_nobody_who_may_not_start_its_guest() {
    must_be_root();
    let programs = tempfile::tempdir().unwrap();
    let scene = Scene::start(&[("ivi", &guest(programs.path(), IDLE))]);
    let methods = ["GetDefinition", "GetCommand"].map(|name| format!("{GUEST_INTERFACE}.{name}"));
    for (mode, free) in [(0o644, true), (0o640, false)] {
        fs::set_permissions(scene.file("ivi"), fs::Permissions::from_mode(mode)).unwrap();
        for method in &methods {
            let output = scene.call(NOBODY, GUEST, method, &[]);
            assert_eq!(output.status.success(), free, "{method}: {}", said(&output));
            let output = scene.call(own(), GUEST, method, &[]);
            assert!(output.status.success(), "{}", said(&output));
        }
    }
    let calls: [(&str, &str, &[&str]); 1] = [(GUEST, &methods[0], &[])];
    let answers = with_grant(&scene, "org.automotivelinux.virtio1.run", &calls);
    assert_eq!(answers, ["allowed"]);
}
