// SPDX-License-Identifier: Apache-2.0

//! The configuration is edited while a guest uses the card, and then the service dies: the guest
//! finds the card that it knows.

use std::path::Path;

use frontend::Deadline;
use frontend::clients::snd::SndClient;
use frontend::clients::snd::wire::{request, status};
use frontend::service_under_test::{Launch, ServiceUnderTest};

use crate::support::{OUTPUT, driver, keeper, kill, pcm, prepare};

/// The first element of a card.
const VOLUME: u32 = 0;

fn write(folder: &Path, streams: &[&str]) {
    let mut text = "[devices.cabin]\ntype = \"snd\"\n".to_owned();
    for stream in streams {
        text += &format!("[[devices.cabin.streams]]\n{stream}\nbackend = {{ type = \"null\" }}\n");
    }
    std::fs::write(folder.join("car.toml"), text).unwrap();
}

fn start(folder: &Path) -> ServiceUnderTest {
    Launch::new(env!("CARGO_BIN_EXE_agl-virtio-snd"), folder.join("socket"))
        .args(["--log", "error", "--bus", "none", "--config"])
        .args([folder.join("car.toml")])
        .below_keeper(keeper())
        .start()
        .unwrap()
}

/// Most channels of each stream, as the service that serves now tells it.
fn channels(client: &mut SndClient) -> Vec<u8> {
    let streams = client.config().unwrap().streams;
    let told = client.pcm_info(0..streams).unwrap();
    told.iter().map(|stream| stream.channels_max).collect()
}

fn die(service: &ServiceUnderTest) {
    let dead = kill(service);
    service
        .wait_service_pid(Some(dead), Deadline::patient())
        .unwrap();
}

#[test]
fn an_edited_file_waits_for_the_next_guest_and_the_card_stays_as_its_driver_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let before = ["name = \"Music\"\nchannels_max = 8"];
    write(folder.path(), &before);
    let service = start(folder.path());
    let mut client = driver(&service, true);
    prepare(&mut client, OUTPUT);
    assert_eq!(channels(&mut client), [8]);

    let after = [
        "name = \"Music\"\nchannels_max = 2",
        "name = \"Chime\"\ndevice = 1",
    ];
    write(folder.path(), &after);
    die(&service);
    assert_eq!(
        channels(&mut client),
        [8],
        "the guest's card has changed under it"
    );
    pcm(&mut client, request::PCM_START, OUTPUT);

    // It stays so however often the service dies, and for this guest only.
    die(&service);
    assert_eq!(channels(&mut client), [8]);
    drop(client);
    let deadline = Deadline::patient();
    loop {
        // The keeper may not know yet that the guest is gone when it starts the next service.
        die(&service);
        let found = channels(&mut driver(&service, true));
        if found == [2, 8] {
            break;
        }
        assert_eq!(found, [8]);
        assert!(!deadline.passed(), "the new file never counts");
    }
}

#[test]
fn a_knob_that_was_edited_turns_when_the_service_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &["name = \"Music\"\nvolume = 40"]);
    let service = start(folder.path());
    let mut client = driver(&service, true);
    // The guest has turned it since.
    assert_eq!(
        client.ctl_write(VOLUME, &[55, 0, 0, 0]).unwrap(),
        status::OK
    );
    die(&service);
    assert_eq!(client.ctl_read(VOLUME, 4).unwrap(), [55, 0, 0, 0]);
    write(folder.path(), &["name = \"Music\"\nvolume = 80"]);
    die(&service);
    assert_eq!(client.ctl_read(VOLUME, 4).unwrap(), [80, 0, 0, 0]);
    // Once: it is no newer than what the guest does after it.
    assert_eq!(
        client.ctl_write(VOLUME, &[10, 0, 0, 0]).unwrap(),
        status::OK
    );
    die(&service);
    assert_eq!(client.ctl_read(VOLUME, 4).unwrap(), [10, 0, 0, 0]);
}

#[test]
fn a_file_with_a_mistake_does_not_cost_a_guest_its_card() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &["name = \"Music\"\nchannels_max = 6"]);
    let service = start(folder.path());
    let mut client = driver(&service, true);
    prepare(&mut client, OUTPUT);
    write(folder.path(), &["name = \"Music\"\nchannels_max = 66"]);
    for _ in 0..3 {
        die(&service);
        assert_eq!(channels(&mut client), [6]);
    }
    std::fs::remove_file(folder.path().join("car.toml")).unwrap();
    die(&service);
    assert_eq!(channels(&mut client), [6], "not even without the file");
    pcm(&mut client, request::PCM_START, OUTPUT);
}
