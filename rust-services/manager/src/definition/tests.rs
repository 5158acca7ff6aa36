// SPDX-License-Identifier: Apache-2.0

use super::*;
use std::path::Path;

const GOOD: &str = r#"
[guest]
description = "Instruments"
memory = "1G"
cpus = 2
pinning = [[2], [3]]
boot = { kernel = "/boot/Image", append = "console=ttyAMA0" }
disks = [{ path = "/var/lib/root.img", format = "qcow2" }]
serial = [{ file = "/var/log/cluster" }]
attach.extra = { manual = true }

[devices.cabin]
type = "snd"
streams = []

[devices.extra]
type = "rng"
socket = "/run/extra.sock"
"#;

fn parse(source: &str) -> Result<Definition, ConfigError> {
    Definition::parse(Path::new("/etc/cluster.toml"), source.to_owned())
}

#[test]
fn a_good_file_is_read_whole() {
    let definition = parse(GOOD).unwrap();
    assert_eq!(definition.name, "cluster");
    assert_eq!(definition.guest.memory, Size::mebibytes(1024));
    assert_eq!(
        definition.guest.boot.kernel.as_deref(),
        Some(Path::new("/boot/Image"))
    );
    assert_eq!(definition.guest.disks[0].format, DiskFormat::Qcow2);
    assert!(definition.attachment("extra").manual);
    assert!(!definition.attachment("cabin").manual);
    assert_eq!(definition.device("cabin").unwrap().device_type, "snd");
    assert_eq!(definition.source, GOOD);
}

/// Each fault: what is changed in the good file, where it is found, and a part of the remedy.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    (r#""1G""#, r#""1 GB""#, "is no amount of memory", ":4:10"),
    (r#""1G""#, r#""8M""#, "16M to 1048576M", ":4:10"),
    ("cpus = 2", "cpus = 65", "a number from 1 to 64", ":5:8"),
    ("cpus = 2", "cpus = 300", "a whole number from 0", ":5:8"),
    (
        "cpus = 2",
        "cpus = 3",
        "a list of the host's processors for each",
        ":6:1",
    ),
    (
        "[[2], [3]]",
        "[[2], []]",
        "numbers of the host's processors",
        ":6:",
    ),
    ("cpus = 2", "cpu = 2", "cpus (nearest to cpu)", ":5:1"),
    (
        "cpus = 2",
        "cpus = 2\nhotplug_slots = 17",
        "a number from 0 to 16",
        ":6:17",
    ),
    (
        "cpus = 2",
        "cpus = 2\nprogram = \"qemu\"",
        "a path that begins with /",
        ":6:11",
    ),
    (
        "kernel = \"/boot/Image\", ",
        "",
        "kernel = \"/path\"",
        ":7:",
    ),
    ("/boot/Image", "Image", "a path that begins with /", ":7:"),
    (
        "/var/lib/root.img",
        "root.img",
        "a path that begins with /",
        ":8:",
    ),
    ("qcow2", "vmdk", "one of raw, qcow2", ":8:"),
    (
        "/var/log/cluster",
        "cluster",
        "a path that begins with /",
        ":9:",
    ),
    (
        "{ file =",
        "{ pipe =",
        "one of file, listen, connect",
        ":9:",
    ),
    (
        "attach.extra",
        "attach.extar",
        "the name of one of the tables",
        ":10:",
    ),
    (
        "type = \"snd\"",
        "type = \"snb\"",
        "one of can, gpio",
        ":13:8",
    ),
    (
        "type = \"snd\"",
        "type = \"video\"\nfunction = \"codec\"",
        "one of decoder, encoder",
        ":14:12",
    ),
    ("type = \"snd\"", "", "type = \"snd\"", ":12:10"),
    (
        "/run/extra.sock",
        "extra.sock",
        "/run/agl-virtio/guest-device.sock",
        ":18:10",
    ),
    (
        "cpus = 2",
        "cpus = 2\nrestart.delay_ms = 0",
        "a number from 1 to 60000",
        ":6:",
    ),
    (
        "cpus = 2",
        "cpus = 2\nrestart.window_s = 0",
        "a number from 1 to 86400",
        ":6:",
    ),
    (
        "cpus = 2",
        "cpus = 2\nrestart.limits.crash = 1001",
        "a number from 0 to 1000",
        ":6:",
    ),
    (
        "cpus = 2",
        "cpus = 2\nrestart.longest_delay_ms = 1",
        "a number from 100",
        ":6:",
    ),
    (
        "cpus = 2",
        "cpus = 2\nlimits.cpu_weight = 0",
        "a number from 1 to 10000",
        ":6:",
    ),
    (
        "cpus = 2",
        "cpus = 2\nlimits.cpu_percent = 0",
        "a number from 1 to 6400",
        ":6:",
    ),
    (
        "cpus = 2",
        "cpus = 2\nlimits.memory = \"1G\"",
        "256M or more",
        ":6:",
    ),
    (
        "cpus = 2",
        "cpus = 2\nvmm = \"bochs\"",
        "one of qemu, crosvm, xen, loopback",
        ":6:7",
    ),
    (
        "[devices.cabin]",
        "[device.cabin]",
        "devices (nearest to device)",
        ":12:2",
    ),
];

#[test]
fn every_fault_is_shown_in_its_place_with_what_to_write() {
    for (good, wrong, remedy, place) in FAULTS {
        assert!(GOOD.contains(good), "{good}");
        let error = parse(&GOOD.replacen(good, wrong, 1)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(remedy), "{wrong}: no {remedy:?} in\n{text}");
        assert!(
            text.contains(&format!("/etc/cluster.toml{place}")),
            "{wrong}: not at {place}:\n{text}"
        );
    }
}

#[test]
fn what_contradicts_each_other_is_found() {
    let disks = "[{ path = \"/a\" }, { path = \"/a\", read_only = true }]";
    let shared = GOOD.replace(
        "[{ path = \"/var/lib/root.img\", format = \"qcow2\" }]",
        disks,
    );
    let text = parse(&shared).unwrap_err().to_string();
    assert!(text.contains("two disks write to the same image"), "{text}");
    let read_only = shared.replace("\"/a\" }", "\"/a\", read_only = true }");
    parse(&read_only).unwrap();

    let twice = GOOD.replace("streams = []", "socket = \"/run/extra.sock\"");
    let text = parse(&twice).unwrap_err().to_string();
    assert!(
        text.contains("two devices listen on the same socket"),
        "{text}"
    );

    let long = GOOD.replace("/run/extra.sock", &format!("/run/{}.sock", "x".repeat(100)));
    let text = parse(&long).unwrap_err().to_string();
    assert!(text.contains("too long for a socket"), "{text}");

    let ports = "[".to_owned() + &"{ file = \"/a\" },".repeat(5) + "]";
    let many = GOOD.replace("[{ file = \"/var/log/cluster\" }]", &ports);
    let text = parse(&many).unwrap_err().to_string();
    assert!(
        text.contains("more serial ports than machines have"),
        "{text}"
    );
}

#[test]
fn no_text_has_a_character_at_which_a_command_line_the_bus_or_a_terminal_would_stumble() {
    for (good, wrong, place) in [
        ("console=ttyAMA0", "a\\nb", ":7:43"),
        ("Instruments", "a\\u0000b", ":3:15"),
        ("Instruments", "\\u001B[2J", ":3:15"),
        ("/run/extra.sock", "/run/\\u0000.sock", ":18"),
        ("/var/log/cluster", "/var/log/\\u0007", ":9"),
        (
            "cpus = 2",
            "cpus = 2\narguments = [\"-S\", \"a\\u0000\"]",
            ":6",
        ),
        (
            "cpus = 2",
            "cpus = 2\nmachine = { model = \"v\\u0000\" }",
            ":6",
        ),
        (
            "cpus = 2",
            "cpus = 2\nmachine.options = { its = \"o\\u0000\" }",
            ":6",
        ),
        (
            "{ manual = true }",
            "{ properties = { a = \"b\\nc\" } }",
            ":10",
        ),
    ] {
        assert!(GOOD.contains(good), "{good}");
        let text = parse(&GOOD.replacen(good, wrong, 1))
            .unwrap_err()
            .to_string();
        assert!(text.contains("control character"), "{wrong}: {text}");
        let place = format!("/etc/cluster.toml{place}");
        assert!(text.contains(&place), "{wrong}: not at {place}: {text}");
    }
}

#[test]
fn a_loopback_guest_needs_nothing_to_start() {
    let text = "[guest]\nvmm = \"loopback\"\n[devices.cabin]\ntype = \"snd\"\n";
    parse(text).unwrap();
}

/// AGL_VIRTIO_UPDATE=1 writes what is checked in.
#[test]
fn the_published_schema_is_in_step() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guest.schema.json");
    let made = format!("{:#}\n", schema());
    if std::env::var_os("AGL_VIRTIO_UPDATE").is_some() {
        std::fs::write(file, &made).unwrap();
    }
    let published = std::fs::read_to_string(file).unwrap();
    assert!(
        made == published,
        "docs/guest.schema.json is out of step: run this test with AGL_VIRTIO_UPDATE=1"
    );
}
