// SPDX-License-Identifier: Apache-2.0

//! A new configuration, by SIGHUP, while a stream plays.

use frontend::clients::snd::wire::event;
use rustix::process::Signal;
use zbus::zvariant::Value;

use crate::card::{Card, until, write_config};
use crate::host::JACK;
use crate::player::Player;

const CONFIG: &str = r#"
[devices.cabin]
type = "snd"

[[devices.cabin.streams]]
name = "Music"
volume = VOLUME
role = "ROLE"
channels_max = CHANNELS
backend = { type = "file", path = "{folder}/out/{stream}-{n}.wav" }

[[devices.cabin.jacks]]
name = "Headphone"
kind = "headphone"
connected = JACK
"#;

fn config(volume: &str, role: &str, channels: &str, jack: &str) -> String {
    let words = [
        ("VOLUME", volume),
        ("ROLE", role),
        ("CHANNELS", channels),
        ("JACK", jack),
    ];
    words
        .iter()
        .fold(CONFIG.to_owned(), |text, (word, by)| text.replace(word, by))
}

#[test]
fn knobs_are_turned_without_a_gap_and_what_cannot_change_is_named() {
    let card = Card::configured(&config("100", "multimedia", "8", "false"));
    let mut host = card.configured_host();
    let player = Player::start(card.driver(), 0);
    host.told("streams/0", "State", |state| {
        *state == Value::from("running")
    });
    write_config(card.folder.path(), &config("60", "navigation", "2", "true"));
    card.service.signal(Signal::HUP).unwrap();
    host.told("streams/0", "Volume", |volume| *volume == Value::from(0.6));
    // Changes within some milliseconds are told together.
    until("the whole file is taken", || {
        host.stream(0, "Role") == Value::from("Navigation")
            && host.get("jacks/0", JACK, "Connected") == Value::from(true)
    });
    card.says("streams.0.channels_max cannot change while a guest may use the card");
    let mut heard = [player.event(), player.event()].map(|told| (told.code, told.data));
    heard.sort_unstable();
    assert_eq!(
        heard,
        [(event::JACK_CONNECTED, 0), (event::CTL_NOTIFY, 1 << 16)]
    );
    let before = host.position(0);
    until("the stream goes on", || host.position(0) > before + 4800);
    assert_eq!(host.stream(0, "State"), Value::from("running"));
    drop(player.stop());
    assert_eq!(card.played("Music").last(), Some(&2000));
}

#[test]
fn a_wrong_file_changes_nothing_and_the_log_says_where_it_is_wrong() {
    let card = Card::configured(&config("100", "multimedia", "8", "false"));
    let mut host = card.configured_host();
    let player = Player::start(card.driver(), 0);
    host.told("streams/0", "State", |state| {
        *state == Value::from("running")
    });
    let wrong = [
        (config("600", "navigation", "8", "true"), "car.toml:7:10"),
        (config("60", "loud", "8", "true"), "car.toml:8:8"),
        ("[devices.cabin".to_owned(), "car.toml:1"),
        (
            config("60", "navigation", "8", "true").replace("cabin", "other"),
            "cabin",
        ),
    ];
    for (times, (text, place)) in (1..).zip(&wrong) {
        write_config(card.folder.path(), text);
        card.service.signal(Signal::HUP).unwrap();
        until(place, || {
            card.log().matches("the old configuration stays").count() == times
        });
        let log = card.log();
        let last = log.rsplit("the old configuration stays").next().unwrap();
        assert!(last.contains(place), "{last}");
    }
    let knobs = ["Volume", "Role"].map(|name| host.stream(0, name));
    assert_eq!(knobs, [Value::from(1.0), Value::from("Multimedia")]);
    assert_eq!(host.stream(0, "State"), Value::from("running"));
    // The right one is taken after all of them.
    write_config(
        card.folder.path(),
        &config("40", "multimedia", "8", "false"),
    );
    card.service.signal(Signal::HUP).unwrap();
    host.told("streams/0", "Volume", |volume| *volume == Value::from(0.4));
    drop(player.stop());
}

#[cfg(feature = "gstreamer")]
#[test]
fn a_new_pipeline_waits_for_the_next_start_and_hinders_no_knob() {
    let with = |volume: &str, pipeline: &str| {
        let text = config(volume, "multimedia", "8", "false");
        let file = text.find("backend").unwrap()..text.find("[[devices.cabin.jacks]]").unwrap();
        let pipeline = format!("backend = {{ type = \"gstreamer\", pipeline = \"{pipeline}\" }}\n");
        text.replace(&text[file], &pipeline)
    };
    let card = Card::configured(&with("100", "fakesink"));
    let mut host = card.configured_host();
    // Its element was not loaded before the sandbox closed.
    write_config(card.folder.path(), &with("60", "volume ! fakesink"));
    card.service.signal(Signal::HUP).unwrap();
    host.told("streams/0", "Volume", |volume| *volume == Value::from(0.6));
    card.says("streams.0.backend cannot change while a guest may use the card");
}
