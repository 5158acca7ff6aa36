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
