// SPDX-License-Identifier: Apache-2.0
//! The documented example of the client crate, against a manager and a stream.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test"
)]

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use support::{GUEST, Scene};

/// The name that all services share, by which the policy lets them be spoken to.
const SERVICES: &str = "org.automotivelinux.Virtio1.Device";
const SERVICE: &str = "org.automotivelinux.Virtio1.Device.ivi.card";
const GUEST_FILE: &str = "[guest]\nvmm = \"xen\"\nboot = { firmware = \"/dev/null\" }\n\
    attach.card.manual = true\n[devices.card]\ntype = \"snd\"\n";

/// Runs the example as the documentation says.
fn watch(scene: &Scene, words: &[&str]) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_agl-virtiod"))
        .parent()
        .unwrap();
    let example = programs.join("examples/client-watch");
    let done = Command::new(&example)
        .arg(scene.address())
        .args(words)
        .output();
    done.unwrap_or_else(|error| {
        panic!(
            "{}: {error}: cargo test builds it, unless told not to",
            example.display()
        )
    })
}

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A stream as a sound service shows it.
struct Stream(Arc<Mutex<f64>>);

#[zbus::interface(name = "org.automotivelinux.Virtio1.Sound.Stream")]
impl Stream {
    #[zbus(property)]
    fn name(&self) -> &str {
        "Music"
    }

    #[zbus(property)]
    fn volume(&self) -> f64 {
        *self.0.lock().unwrap()
    }

    #[zbus(property)]
    fn set_volume(&mut self, volume: f64) {
        *self.0.lock().unwrap() = volume;
    }
}

#[test]
fn the_example_lists_guests_with_their_devices() {
    let scene = Scene::start(&[("ivi", GUEST_FILE)]);
    assert_eq!(text(&watch(&scene, &[])), "ivi: stopped\n  card: stopped\n");
}

#[test]
fn the_example_sets_a_volume_and_says_what_it_is_then() {
    let scene = Scene::start(&[("ivi", GUEST_FILE)]);
    let volume = Arc::new(Mutex::new(1.0));
    let path = format!("{GUEST}/card/streams/0");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _service = runtime
        .block_on(async {
            let bus = zbus::connection::Builder::address(scene.address().as_str())?;
            let bus = bus.serve_at(path.as_str(), Stream(Arc::clone(&volume)))?;
            bus.name(SERVICES)?.name(SERVICE)?.build().await
        })
        .unwrap();
    let said = text(&watch(&scene, &[SERVICE, &path, "0.25"]));
    assert_eq!(said, "Music: 0.25\n");
    assert_eq!(volume.lock().unwrap().to_bits(), 0.25_f64.to_bits());
    let refused = watch(&scene, &[SERVICE, &path, "loud"]);
    assert!(!refused.status.success(), "it takes any word for a volume");
}
