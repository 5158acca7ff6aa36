// SPDX-License-Identifier: Apache-2.0

//! What can be set while a stream plays, seen by the host, by the guest and in the sound.

use frontend::GuestOptions;
use frontend::clients::snd::wire::{event, status};
use frontend::clients::snd::{F_CTLS, SndClient};
use zbus::zvariant::{Str, Value};

use crate::card::{Card, until};
use crate::host::{Host, JACK, STREAM};
use crate::player::{Player, SAMPLE};

const MULTIMEDIA: u32 = 0;
const EMERGENCY: u32 = 1;
/// Elements of the built-in card.
const VOLUME: u32 = 0;
const SWITCH: u32 = 1;
/// What a guest is told of an element: its value has changed.
const VALUE: u32 = 1 << 16;

/// Waits until so many more frames of a stream were played.
fn play_on(host: &Host, stream: u32, frames: u64) {
    let wanted = host.position(stream) + frames;
    until("the stream goes on", || host.position(stream) >= wanted);
}

/// The levels that were held for 50 ms or more, in their order.
fn levels(samples: &[i16]) -> Vec<i16> {
    let mut levels = Vec::new();
    for run in samples.chunk_by(|one, other| one == other) {
        if run.len() >= 4800 && levels.last() != Some(&run[0]) {
            levels.push(run[0]);
        }
    }
    levels
}

#[test]
fn a_stream_says_what_it_is_before_anybody_plays() {
    let card = Card::start(&[]);
    let host = card.host();
    let text = |text: &'static str| Value::from(text);
    let expected = [
        ("Name", text("Multimedia")),
        ("Direction", text("output")),
        ("Volume", 1.0.into()),
        ("VolumeDb", 0.0.into()),
        ("Mute", false.into()),
        ("Source", text("")),
        ("Role", text("Multimedia")),
        ("Priority", 10_u32.into()),
        ("DuckLevel", (-20.0).into()),
        ("Duck", 0.0.into()),
        ("State", text("idle")),
        ("Server", text("closed")),
        ("Xruns", 0_u64.into()),
        ("LatencyUsec", 0_u32.into()),
        ("Position", 0_u64.into()),
        ("Discarded", 0_u64.into()),
    ];
    for (property, value) in expected {
        assert_eq!(host.stream(MULTIMEDIA, property), value, "{property}");
    }
    assert_eq!(host.stream(EMERGENCY, "Priority"), Value::from(40_u32));
    let sources: Vec<String> = host.stream(2, "Sources").try_into().unwrap();
    assert_eq!(sources, ["Microphone", "Tone"]);
    assert_eq!(host.get("jacks/0", JACK, "Name"), text("Headphone"));
    assert_eq!(host.get("jacks/1", JACK, "Connected"), Value::from(true));
}

#[test]
fn volume_and_mute_are_heard_and_told_to_the_guest_while_it_plays() {
    let card = Card::start(&[]);
    let mut host = card.host();
    let player = Player::start(card.driver(), MULTIMEDIA);
    host.told("streams/0", "State", |state| {
        *state == Value::from("running")
    });
    play_on(&host, MULTIMEDIA, 4800);

    host.turn(MULTIMEDIA, "Volume", 0.6);
    let told = player.event();
    assert_eq!((told.code, told.data), (event::CTL_NOTIFY, VOLUME | VALUE));
    host.told("streams/0", "Volume", |volume| *volume == Value::from(0.6));
    assert_eq!(host.stream(MULTIMEDIA, "VolumeDb"), Value::from(-20.0));
    play_on(&host, MULTIMEDIA, 9600);

    host.turn(MULTIMEDIA, "Mute", true);
    let told = player.event();
    assert_eq!((told.code, told.data), (event::CTL_NOTIFY, SWITCH | VALUE));
    host.told("streams/0", "Mute", |mute| *mute == Value::from(true));
    play_on(&host, MULTIMEDIA, 9600);

    host.turn(MULTIMEDIA, "Mute", false);
    host.turn(MULTIMEDIA, "Volume", 1.0);
    play_on(&host, MULTIMEDIA, 9600);
    assert_eq!(host.stream(MULTIMEDIA, "State"), Value::from("running"));
    let mut driver = player.stop();
    assert_eq!(driver.ctl_read(VOLUME, 4).unwrap(), [100, 0, 0, 0]);

    card.says("guest/snd: stream Multimedia (0): plays into ");
    let heard = levels(&card.played("Multimedia"));
    assert!(
        heard.starts_with(&[SAMPLE, SAMPLE / 10, 0]) && heard.last() == Some(&SAMPLE),
        "{heard:?}"
    );
}

#[test]
fn each_write_is_told_once_and_one_that_changes_nothing_not_at_all() {
    let card = Card::start(&[]);
    let mut host = card.host();
    let mut driver = card.driver();
    for _ in 0..3 {
        host.turn(MULTIMEDIA, "Mute", true);
        host.turn(MULTIMEDIA, "Volume", 0.6);
        // Rounded to what it is.
        host.set("streams/0", STREAM, "Volume", 0.601).unwrap();
        host.turn(MULTIMEDIA, "Role", "Navigation");
        host.set("jacks/0", JACK, "Connected", true).unwrap();
    }
    // A refused write makes nothing new of what was told.
    host.turn(MULTIMEDIA, "Priority", 77_u32);
    host.set("streams/0", STREAM, "Priority", 5_i32)
        .unwrap_err();
    host.turn(MULTIMEDIA, "Role", "Emergency");
    // The guest's own change is told after all that was to be told before.
    let value = 40_u32.to_le_bytes();
    assert_eq!(driver.ctl_write(VOLUME, &value).unwrap(), status::OK);
    let told = host.told_until("streams/0", "Volume", |volume| *volume == Value::from(0.4));
    let of = |property: &str| {
        let of_it = told.iter().filter(|(name, _)| name == property);
        of_it.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("Mute"), [Value::from(true)]);
    assert_eq!(of("Volume"), [Value::from(0.6), Value::from(0.4)]);
    let roles = ["Navigation", "Emergency"].map(Value::from);
    assert_eq!(of("Role"), roles);
    // What a role brought may not have been told before the next value came.
    let mut priorities = of("Priority");
    priorities.retain(|priority| *priority != Value::from(20_u32));
    assert_eq!(priorities, [Value::from(77_u32)]);
    assert_eq!(of("Connected"), [Value::from(true)]);
}

#[test]
fn what_the_guest_turns_is_told_to_the_host() {
    let card = Card::start(&[]);
    let mut host = card.host();
    let mut driver = card.driver();
    let write = |driver: &mut SndClient, element, value: u32| {
        assert_eq!(
            driver.ctl_write(element, &value.to_le_bytes()).unwrap(),
            status::OK
        );
    };
    write(&mut driver, VOLUME, 40);
    host.told("streams/0", "Volume", |volume| *volume == Value::from(0.4));
    write(&mut driver, SWITCH, 0);
    host.told("streams/0", "Mute", |mute| *mute == Value::from(true));
    write(&mut driver, 6, 1);
    host.told("streams/2", "Source", |source| {
        *source == Value::from("Tone")
    });
    host.set("streams/2", STREAM, "Source", "Microphone")
        .unwrap();
    assert_eq!(driver.ctl_read(6, 4).unwrap(), [0; 4]);
}

#[test]
fn a_jack_is_pulled_and_plugged_while_the_guest_plays() {
    let card = Card::start(&[]);
    let mut host = card.host();
    let player = Player::start(card.driver(), MULTIMEDIA);
    host.told("streams/0", "State", |state| {
        *state == Value::from("running")
    });
    for (connected, code) in [
        (true, event::JACK_CONNECTED),
        (false, event::JACK_DISCONNECTED),
    ] {
        host.set("jacks/0", JACK, "Connected", connected).unwrap();
        let told = player.event();
        assert_eq!((told.code, told.data), (code, 0));
        host.told("jacks/0", "Connected", |now| *now == Value::from(connected));
        assert_eq!(
            host.get("jacks/0", JACK, "Connected"),
            Value::from(connected)
        );
    }
    let mut driver = player.stop();
    assert!(!driver.jack_info(0..1).unwrap()[0].connected);
}

#[test]
fn ducking_is_heard_and_a_role_brings_its_priority_while_the_stream_plays() {
    let card = Card::start(&[]);
    let mut host = card.host();
    let player = Player::start(card.driver(), MULTIMEDIA);
    host.told("streams/0", "State", |state| {
        *state == Value::from("running")
    });
    play_on(&host, MULTIMEDIA, 4800);
    // The manager's, for another guest.
    host.turn(MULTIMEDIA, "Duck", -6.0);
    play_on(&host, MULTIMEDIA, 9600);
    host.turn(MULTIMEDIA, "Duck", 0.0);
    play_on(&host, MULTIMEDIA, 9600);
    host.turn(MULTIMEDIA, "DuckLevel", -40.0);
    assert_eq!(host.stream(MULTIMEDIA, "DuckLevel"), Value::from(-40.0));

    // A role has its own priority, which is told too; a priority can differ from it.
    host.turn(MULTIMEDIA, "Role", "Navigation");
    host.told("streams/0", "Priority", |priority| {
        *priority == Value::from(20_u32)
    });
    assert_eq!(
        host.stream(MULTIMEDIA, "Role"),
        Value::from(Str::from("Navigation"))
    );
    host.turn(MULTIMEDIA, "Priority", 15_u32);
    host.told("streams/0", "Priority", |priority| {
        *priority == Value::from(15_u32)
    });
    // One that was set by hand stays.
    host.turn(MULTIMEDIA, "Role", "Multimedia");
    assert_eq!(host.stream(MULTIMEDIA, "Priority"), Value::from(15_u32));
    drop(player.stop());
    assert_eq!(levels(&card.played("Multimedia")), [SAMPLE, 10_024, SAMPLE]);
}

#[test]
fn without_control_elements_the_host_turns_the_volume_and_the_guest_hears_of_jacks_only() {
    let card = Card::start(&[]);
    let mut host = card.host();
    let mut options: GuestOptions = SndClient::options();
    options.wishes.features &= !F_CTLS;
    let player = Player::start(card.driver_with(&options), MULTIMEDIA);
    host.told("streams/0", "State", |state| {
        *state == Value::from("running")
    });
    play_on(&host, MULTIMEDIA, 4800);
    host.turn(MULTIMEDIA, "Volume", 0.6);
    host.turn(MULTIMEDIA, "Mute", true);
    host.turn(MULTIMEDIA, "Mute", false);
    play_on(&host, MULTIMEDIA, 9600);
    // Events come in their order: had there been one of an element, it would be the first.
    host.set("jacks/0", JACK, "Connected", true).unwrap();
    let told = player.event();
    assert_eq!((told.code, told.data), (event::JACK_CONNECTED, 0));
    drop(player.stop());
    assert_eq!(
        levels(&card.played("Multimedia")).last(),
        Some(&(SAMPLE / 10))
    );
}
