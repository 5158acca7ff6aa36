// SPDX-License-Identifier: Apache-2.0

//! What a stream says of itself while it is driven.

use frontend::Deadline;
use frontend::clients::snd::TX;
use frontend::clients::snd::wire::{Params, request, status};
use zbus::zvariant::Value;

use crate::card::Card;
use crate::host::DEVICE;

#[test]
fn states_under_runs_and_the_device_are_told_as_they_come() {
    let card = Card::start(&[]);
    let mut host = card.host();
    assert_eq!(host.get("", DEVICE, "State"), Value::from("waiting"));
    let mut driver = card.driver();
    host.told("", "State", |state| *state == Value::from("running"));
    let params = Params::CD_LIKE;
    assert_eq!(driver.set_params(0, &params).unwrap(), status::OK);
    let mut step = |code, state: &'static str| {
        if code != 0 {
            assert_eq!(driver.pcm(code, 0).unwrap(), status::OK);
        }
        host.told("streams/0", "State", |told| *told == Value::from(state));
    };
    step(0, "configured");
    step(request::PCM_PREPARE, "prepared");
    step(request::PCM_START, "running");
    // One period, and then nothing: an under-run.
    driver.play(0, &[1; 1920]).unwrap();
    driver.kick(TX).unwrap();
    assert_eq!(
        driver.played(Deadline::patient()).unwrap().status,
        status::OK
    );
    host.told("streams/0", "Xruns", |told| *told == Value::from(1_u64));
    assert_eq!(host.position(0), 480);
    let mut step = |code, state: &'static str| {
        assert_eq!(driver.pcm(code, 0).unwrap(), status::OK);
        host.told("streams/0", "State", |told| *told == Value::from(state));
    };
    step(request::PCM_STOP, "stopped");
    step(request::PCM_RELEASE, "released");
    drop(driver);
    host.told("", "State", |state| *state == Value::from("waiting"));
}

/// Half a minute of each stream: however slow the machine is, nothing runs dry.
const PERIODS: usize = 120;
const SLOW: Params = Params {
    period_bytes: 48_000,
    buffer_bytes: 48_000 * PERIODS as u32,
    ..Params::CD_LIKE
};

#[test]
fn a_stream_that_waits_for_another_one_is_told_to_be_paused_and_then_running_again() {
    let card = Card::configured(
        r#"
        [devices.cabin]
        type = "snd"
        [[devices.cabin.streams]]
        name = "Music"
        step_back = "pause"
        backend = { type = "null" }
        [[devices.cabin.streams]]
        name = "Alarm"
        device = 1
        role = "emergency"
        backend = { type = "null" }
        "#,
    );
    let mut host = card.configured_host();
    let mut driver = card.driver();
    let mut begin = |stream| {
        assert_eq!(driver.set_params(stream, &SLOW).unwrap(), status::OK);
        assert_eq!(
            driver.pcm(request::PCM_PREPARE, stream).unwrap(),
            status::OK
        );
        for _ in 0..PERIODS {
            driver.play(stream, &[1; 48_000]).unwrap();
        }
        driver.kick(TX).unwrap();
        assert_eq!(driver.pcm(request::PCM_START, stream).unwrap(), status::OK);
    };
    begin(0);
    host.told("streams/0", "State", |told| *told == Value::from("running"));
    begin(1);
    host.told("streams/0", "State", |told| *told == Value::from("paused"));
    // Whoever looks at the other streams of the host takes it for one that is not heard.
    assert_eq!(host.stream(0, "State"), Value::from("paused"));
    assert_eq!(host.stream(1, "State"), Value::from("running"));
    assert_eq!(host.stream(0, "Xruns"), Value::from(0_u64));
    assert_eq!(driver.pcm(request::PCM_STOP, 1).unwrap(), status::OK);
    host.told("streams/0", "State", |told| *told == Value::from("running"));
}
