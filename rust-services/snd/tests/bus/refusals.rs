// SPDX-License-Identifier: Apache-2.0

//! Values, types and people that are refused, with what would be right.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use zbus::zvariant::Value;

use crate::card::Card;
use crate::host::{Host, JACK, STREAM};
use crate::player::Player;

/// Somebody who is neither root nor the user that runs the service.
const NOBODY: u32 = 65_534;

#[test]
fn wrong_values_and_types_are_refused_and_change_nothing_while_the_stream_plays() {
    let card = Card::start(&[]);
    let mut host = card.host();
    let player = Player::start(card.driver(), 0);
    host.told("streams/0", "State", |state| {
        *state == Value::from("running")
    });
    let wrong: Vec<(&str, Value<'_>, &str)> = vec![
        ("Volume", 1.01.into(), "write a volume from 0.0 to 1.0"),
        ("Volume", (-0.5).into(), "write a volume from 0.0 to 1.0"),
        ("Volume", f64::NAN.into(), "write a volume from 0.0 to 1.0"),
        ("Volume", "loud".into(), "Volume is of type d ("),
        ("Volume", 50_i32.into(), "Volume is of type d ("),
        ("Mute", "yes".into(), "Mute is of type b ("),
        ("Mute", 1_u32.into(), "Mute is of type b ("),
        (
            "Role",
            "Music".into(),
            "write Multimedia, Navigation, Communication or Emergency",
        ),
        ("Role", 3_u32.into(), "Role is of type s ("),
        ("Priority", 0_u32.into(), "write a priority from 1 to 1000"),
        (
            "Priority",
            1001_u32.into(),
            "write a priority from 1 to 1000",
        ),
        ("Priority", (-1_i32).into(), "Priority is of type u ("),
        (
            "DuckLevel",
            1.0.into(),
            "write a number of decibels from -60.0 to 0.0",
        ),
        (
            "DuckLevel",
            f64::NEG_INFINITY.into(),
            "write a number of decibels from -60.0 to 0.0",
        ),
        (
            "Duck",
            (-60.5).into(),
            "write a number of decibels from -60.0 to 0.0",
        ),
        ("Source", "Microphone".into(), "an output has no sources"),
        (
            "State",
            "idle".into(),
            "PropertyReadOnly: State can only be read",
        ),
        (
            "Xruns",
            0_u64.into(),
            "PropertyReadOnly: Xruns can only be read",
        ),
        ("LatencyUsec", 1_u32.into(), "LatencyUsec can only be read"),
        (
            "Loudness",
            0.5.into(),
            "UnknownProperty: there is no property Loudness",
        ),
    ];
    let knobs = [
        "Volume",
        "Mute",
        "Role",
        "Priority",
        "DuckLevel",
        "Duck",
        "Source",
    ];
    let now = |host: &Host| knobs.map(|knob| host.stream(0, knob));
    let before = now(&host);
    for (property, value, remedy) in wrong {
        let what = format!("{property} = {value:?}");
        let refused = host.set("streams/0", STREAM, property, value).unwrap_err();
        assert!(refused.contains(remedy), "{what}: {refused}");
    }
    let refused = host.set("streams/2", STREAM, "Source", "Line").unwrap_err();
    assert!(
        refused.contains("write one of: Microphone, Tone"),
        "{refused}"
    );
    let refused = host.set("jacks/0", JACK, "Connected", "in").unwrap_err();
    assert!(refused.contains("Connected is of type b ("), "{refused}");
    assert_eq!(now(&host), before);
    drop(player.stop());
}

fn as_nobody(card: &Card, host: &Host, words: &[&str]) -> Output {
    let mut command = Command::new("dbus-send");
    command
        .arg(format!("--bus={}", card.bus.address()))
        .args(["--print-reply", &format!("--dest={}", host.name)])
        .arg(format!("{}/streams/0", host.path))
        .args(words)
        .uid(NOBODY);
    command
        .output()
        .expect("dbus-send runs: it is in the package dbus-bin")
}

#[test]
fn everybody_may_look_but_only_who_is_allowed_may_turn_a_knob() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test asks as somebody else: run it as root"
    );
    let card = Card::start(&[]);
    let host = card.host();
    let stream = format!("string:{STREAM}");
    let get = [
        "org.freedesktop.DBus.Properties.Get",
        &stream,
        "string:Volume",
    ];
    let seen = as_nobody(&card, &host, &get);
    let text = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(text.contains("double 1"), "{text}");
    let set = [
        "org.freedesktop.DBus.Properties.Set",
        &stream,
        "string:Volume",
        "variant:double:0.1",
    ];
    let refused = as_nobody(&card, &host, &set);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("AccessDenied") && text.contains("virtio1.manage"),
        "{text}"
    );
    assert_eq!(host.stream(0, "Volume"), Value::from(1.0));
}
