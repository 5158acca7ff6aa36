// SPDX-License-Identifier: Apache-2.0

//! The service beside a real sound server: PipeWire without hardware, and a driver that plays.
#![cfg(feature = "alsa")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::time::Instant;

mod driver;
mod server;
mod signal;

use driver::{ALARM, Driver, MICROPHONE, MUSIC};
use server::{PipeWire, wait_for};

/// A loaded machine may make PipeWire itself lose a cycle, which nobody can tell from a fault of the
/// service; but a fault of the service comes every time.
const ATTEMPTS: usize = 12;

#[test]
fn a_tone_comes_out_gapless_with_left_and_right_in_place() {
    let server = PipeWire::start();
    let mut driver = Driver::start(&server);
    let (mut longest, mut on_bus) = (0, 0);
    for _ in 0..ATTEMPTS {
        let recording = server.record();
        driver.begin(MUSIC);
        driver.play_for(4.0);
        on_bus = driver.latency_usec(&server, MUSIC).max(on_bus);
        driver.end(MUSIC);
        let frames = recording.end();
        let found = signal::find(&frames);
        println!("{} frames exact from the first on", found.exact);
        longest = longest.max(found.exact);
        // Bit for bit: both channels, in their places, at unity gain.
        if longest > 3 * 48_000 {
            break;
        }
    }
    assert!(
        longest > 3 * 48_000,
        "at most {longest} frames without a fault"
    );
    // The guest is told what lies in the sound server: 10 ms at the least, and never more than a
    // second.
    let told = driver
        .latencies()
        .filter(|frames| (480..48_000).contains(frames));
    let (told, all) = (told.count(), driver.latencies().count());
    println!("{told} of {all} buffers came back with a latency of 10 ms to 1 s");
    assert!(told > 0, "of {all} buffers none came back with a latency");
    // And so is the host.
    println!("{on_bus} µs on D-Bus");
    assert!((10_000..1_000_000).contains(&on_bus), "{on_bus} µs");
}

#[test]
fn what_a_guest_records_is_what_the_source_gives() {
    let server = PipeWire::start();
    server.link();
    let mut driver = Driver::start(&server);
    driver.begin(MUSIC);
    driver.begin(MICROPHONE);
    // Not from the first frame on: server and source begin when they like.
    let longest = wait_for("half a second of the tone without a fault", || {
        driver.play_for(1.0);
        let longest = signal::longest_tone(&driver.recorded());
        (longest > 24_000).then_some(longest)
    });
    println!("{longest} frames recorded exact");
    driver.end(MUSIC);
}

#[test]
fn roles_are_seen_in_the_graph_and_music_steps_back_for_an_alarm() {
    let server = PipeWire::start();
    let mut driver = Driver::start(&server);
    let mut faults = Vec::new();
    for _ in 0..ATTEMPTS {
        let recording = server.record();
        driver.begin(MUSIC);
        driver.play_for(1.0);
        driver.begin(ALARM);
        driver.play_for(1.0);
        let mut roles = server.roles();
        roles.sort_unstable();
        assert_eq!(roles, ["Emergency", "Multimedia"]);
        driver.end(ALARM);
        driver.play_for(1.0);
        driver.end(MUSIC);
        match ducking(&recording.end()) {
            Ok(verdict) => return println!("{verdict}"),
            Err(fault) => faults.push(fault),
        }
    }
    panic!("{faults:?}");
}

#[test]
fn a_role_that_is_changed_over_dbus_is_seen_in_the_graph_while_the_stream_plays() {
    let server = PipeWire::start();
    let mut driver = Driver::start(&server);
    driver.begin(MUSIC);
    for role in ["Navigation", "Multimedia"] {
        driver.set_role(&server, MUSIC, role);
        wait_for("the role in the graph", || {
            driver.play_for(0.05);
            (server.roles() == [role]).then_some(())
        });
    }
    // And it is heard: the tone, in its channels.
    let recording = server.record();
    wait_for("the tone", || {
        driver.play_for(0.5);
        let frames = recording.so_far();
        let tail = &frames[frames.len() - 4800..];
        let [left, right] = [signal::level(tail, 0, 440.0), signal::level(tail, 1, 880.0)];
        ((left - 0.25).abs() < 0.01 && (right - 0.25).abs() < 0.01).then_some(())
    });
    // The next time it is prepared, it has the role from the first frame on.
    driver.end(MUSIC);
    driver.set_role(&server, MUSIC, "Communication");
    driver.begin(MUSIC);
    wait_for("the role in the graph", || {
        driver.play_for(0.05);
        (server.roles() == ["Communication"]).then_some(())
    });
}

/// What the ducking of a recording is, or what is wrong with it.
fn ducking(frames: &[[f32; 2]]) -> Result<String, String> {
    let begin = signal::find(frames).first;
    // 25 ms are whole cycles of all three tones.
    let windows: Vec<[f64; 3]> = frames[begin..]
        .chunks_exact(1200)
        .map(|window| {
            [
                signal::level(window, 0, 440.0),
                signal::level(window, 1, 880.0),
                signal::level(window, 0, 3000.0),
            ]
        })
        .collect();
    let decibels = |level: f64| 20.0 * (level / 0.25).log10();
    let first = |from: usize, what: &str, is: fn(&[f64; 3]) -> bool| {
        let found = windows.iter().skip(from).position(is);
        found.ok_or_else(|| format!("no {what}"))
    };
    let alarm = first(0, "alarm", |[_, _, alarm]| *alarm > 0.12)?;
    let down = first(alarm, "ducking", |[left, ..]| *left < 0.0275)?;
    let length = first(alarm, "end of the alarm", |[_, _, alarm]| *alarm < 0.12)?;
    let up = first(alarm + length, "return", |[left, ..]| *left > 0.2375)?;
    // Well inside, where nothing moves.
    let [left, right, _] = windows[alarm + length / 2];
    let verdict = format!(
        "under the alarm: left {:.2} dB, right {:.2} dB; down {} ms after the alarm is heard, up {} \
         ms after its end",
        decibels(left),
        decibels(right),
        down * 25,
        up * 25
    );
    let exact = |level: f64| (decibels(level) + 20.0).abs() < 0.5;
    if exact(left) && exact(right) && down <= 8 {
        Ok(verdict)
    } else {
        Err(verdict)
    }
}

#[test]
fn sound_returns_with_a_server_that_was_killed_and_the_guest_notices_nothing() {
    let mut server = PipeWire::start();
    let mut driver = Driver::start(&server);
    driver.begin(MUSIC);
    driver.play_for(1.0);
    server.crash();
    // What came back meanwhile comes at once.
    driver.play_for(0.2);
    let outage = Instant::now();
    let before = driver.frames(MUSIC);
    driver.play_for(2.0);
    let played = driver.frames(MUSIC) - before;
    let rate = played as f64 / outage.elapsed().as_secs_f64();
    println!("without a server: {rate:.0} frames per second");
    assert!(
        (rate / 48_000.0 - 1.0).abs() < 0.05,
        "{rate} frames per second"
    );

    server.restart();
    let back = Instant::now();
    wait_for("the stream's return", || {
        driver.play_for(0.05);
        (server.roles() == ["Multimedia"]).then_some(())
    });
    println!(
        "seen again {} ms after the server was ready",
        back.elapsed().as_millis()
    );
    let recording = server.record();
    wait_for("the tone", || {
        driver.play_for(0.5);
        let frames = recording.so_far();
        let tail = &frames[frames.len() - 4800..];
        let [left, right] = [signal::level(tail, 0, 440.0), signal::level(tail, 1, 880.0)];
        ((left - 0.25).abs() < 0.01 && (right - 0.25).abs() < 0.01).then_some(())
    });
}
