// SPDX-License-Identifier: Apache-2.0

//! The service on sound cards of the kernel. Most machines that build have none:
//! `tests/bench/check-sound-host` runs this in a user-mode Linux that has two. "Loopback" gives to
//! one side what is played to the other, "Dummy" takes all and keeps time. Time stands there while
//! a program computes, so nothing is ever late, and a fault is a fault at the first time.
#![cfg(feature = "alsa")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::fs;

use frontend::clients::snd::{RX, TX};

mod clocks;
mod driver;
mod host;
mod sound;

use driver::Driver;
use host::{Program, Recording, Substream, said, wait_for};
use sound::{FLOAT, S16, S24, S24_3, S32, Shape, USUAL};

const fn shape(format: sound::Format, hertz: u32, channels: u8) -> Shape {
    Shape {
        format,
        hertz,
        channels,
    }
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn what_is_played_to_a_card_is_heard_bit_by_bit_without_a_gap_in_every_shape() {
    let mut driver = Driver::start(&["rates = [8000, 44100, 48000, 96000, 192000]
        backend = { type = \"alsa\", pcm = \"hw:Loopback,0,0\", target_ms = 150 }"]);
    let file = driver.path("heard");
    for shape in [
        shape(S16, 48_000, 2),
        shape(S16, 8_000, 1),
        shape(S24_3, 44_100, 2),
        shape(S24, 48_000, 8),
        shape(S32, 192_000, 2),
        shape(FLOAT, 96_000, 6),
    ] {
        let whole = shape.bytes(600) / shape.frame();
        let recording = Recording::start(0, &shape, &file);
        driver.play(0, &shape, Some(600));
        let latencies = driver.finish(0);
        let card = Substream::new("Loopback/pcm0p/sub0");
        card.wait_until_closed();
        let heard = sound::from_the_first(&recording.end(), &shape);
        let (least, most) = (latencies.iter().min().unwrap(), latencies.iter().max());
        let most = most.unwrap();
        println!("{shape:?}: {heard} of {whole} frames, {least} to {most} us to be played");
        assert_eq!(heard, whole, "{shape:?}\n{}", driver.log());
        // What is kept ready, and the piece on its way to it.
        assert!(*least > 100_000 && *most < 250_000, "{}", driver.log());
    }
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn what_a_card_hears_is_recorded_bit_by_bit() {
    let mut driver = Driver::start(&[
        "direction = \"input\"\nbackend = { type = \"alsa\", pcm = \"hw:Loopback,1,1\", target_ms = 150 }",
    ]);
    let file = driver.path("said");
    fs::write(&file, sound::bytes(0, 4 << 20)).unwrap();
    for shape in [shape(S32, 48_000, 2), shape(S16, 44_100, 1)] {
        let playing = Program::play("hw:Loopback,0,1", &shape, &file);
        Substream::new("Loopback/pcm0p/sub1").wait_until_running();
        driver.record(0, &shape);
        while driver.time(0) < 1500 {
            driver.settle(RX);
        }
        let heard = sound::longest(driver.recorded(0), &shape);
        let whole = driver.recorded(0).len() / shape.frame();
        println!("{shape:?}: {heard} of {whole} frames in their order");
        driver.end(0, RX);
        drop(playing);
        // Both ends of the card have one format while one of them is open.
        for end in ["pcm0p", "pcm1c"] {
            Substream::new(&format!("Loopback/{end}/sub1")).wait_until_closed();
        }
        // It begins with silence, until the card's stock is whole.
        let begin = shape.bytes(250) / shape.frame();
        assert!(heard >= whole - begin, "{shape:?}\n{}", driver.log());
    }
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn a_card_that_another_program_has_is_played_to_once_it_is_free() {
    let mut driver = Driver::start(&["backend = { type = \"alsa\", pcm = \"hw:Loopback,0,2\" }"]);
    let zero = std::path::Path::new("/dev/zero");
    let mut other = Program::play("hw:Loopback,0,2", &USUAL, zero);
    Substream::new("Loopback/pcm0p/sub2").wait_until_running();
    let recording = Recording::start(2, &USUAL, &driver.path("heard"));
    driver.play(0, &USUAL, None);
    wait_for("a word of the card that is busy", || {
        driver.settle(TX);
        driver.log().contains("busy").then_some(())
    });
    // The guest plays on, against the clock.
    let until = driver.time(0) + 500;
    while driver.time(0) < until {
        driver.settle(TX);
    }
    assert!(!driver.log().contains("is back"), "{}", driver.log());
    other.end();
    let heard = wait_for("the sound", || {
        let until = driver.time(0) + 300;
        while driver.time(0) < until {
            driver.settle(TX);
        }
        Some(recording.heard()).filter(|heard| *heard > 4800)
    });
    println!("{heard} frames in their order, once the card was free");
    assert!(driver.log().contains("is back"), "{}", driver.log());
    driver.end(0, TX);
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn what_a_card_cannot_do_is_said_the_guest_plays_on_and_the_cards_own_mixer_is_left_alone() {
    let _alone = host::dummy();
    let mut driver = Driver::start(&[
        "backend = { type = \"alsa\", pcm = \"hw:Dummy,0,1\" }",
        "backend = { type = \"alsa\", pcm = \"plughw:Dummy,0,2\" }",
    ]);
    let mixer = || said(&["amixer", "-c", "Dummy", "contents"]);
    let before = mixer();
    let bare = Substream::new("Dummy/pcm0p/sub1");
    for (shape, refused) in [
        (shape(S32, 48_000, 2), "format S32"),
        (shape(S16, 48_000, 6), "6 channels"),
        (shape(S16, 96_000, 2), "96000 Hz"),
    ] {
        driver.play(0, &shape, Some(600));
        driver.finish(0);
        let wanted = format!("does not take {refused}");
        wait_for(&wanted, || driver.log().contains(&wanted).then_some(()));
        bare.wait_until_closed();
    }
    for (stream, shape, substream, there) in [
        (
            0,
            USUAL,
            &bare,
            ["format: S16_LE", "channels: 2", "rate: 48000"],
        ),
        (
            1,
            shape(FLOAT, 96_000, 6),
            &Substream::new("Dummy/pcm0p/sub2"),
            ["format: S16_LE", "channels: 2", "rate: 48000"],
        ),
    ] {
        driver.play(stream, &shape, None);
        substream.wait_until_running();
        let parameters = substream.parameters().unwrap();
        for word in there {
            assert!(parameters.contains(word), "{shape:?}: {parameters}");
        }
        // The guest turns all it has: that is its own loudness, not the card's.
        for control in 0..driver.client.config().unwrap().controls {
            for value in [0_u32, 1] {
                driver
                    .client
                    .ctl_write(control, &value.to_le_bytes())
                    .unwrap();
            }
        }
        let until = driver.time(stream) + 200;
        while driver.time(stream) < until {
            driver.settle(TX);
        }
        driver.end(stream, TX);
    }
    assert_eq!(mixer(), before);
}

#[test]
#[ignore = "needs sound cards: tests/bench/check-sound-host has them"]
fn a_card_that_is_pulled_and_plugged_in_again_is_played_to_again() {
    let _alone = host::dummy();
    let mut driver = Driver::start(&["backend = { type = \"alsa\", pcm = \"hw:Dummy,0,0\" }"]);
    let card = Substream::new("Dummy/pcm0p/sub0");
    driver.play(0, &USUAL, None);
    card.wait_until_running();
    for _ in 0..3 {
        let drive = |what: &str| {
            // It waits until nobody has the card open any more.
            let path = format!("/sys/bus/platform/drivers/snd_dummy/{what}");
            std::thread::spawn(move || fs::write(path, "snd_dummy.0").unwrap())
        };
        let pulled = drive("unbind");
        wait_for("the end of the card", || {
            driver.settle(TX);
            (pulled.is_finished() && card.parameters().is_none()).then_some(())
        });
        pulled.join().unwrap();
        // The guest plays on, against the clock.
        let until = driver.time(0) + 500;
        while driver.time(0) < until {
            driver.settle(TX);
        }
        drive("bind").join().unwrap();
        wait_for("the card's return", || {
            driver.settle(TX);
            card.parameters()?.contains("rate: 48000").then_some(())
        });
    }
    wait_for("the words for it", || {
        driver.settle(TX);
        let log = driver.log();
        (log.contains("is lost") && log.contains("is back")).then_some(())
    });
    driver.end(0, TX);
}
