// SPDX-License-Identifier: Apache-2.0

//! The service as a process, driven over vhost-user: by good drivers, by hostile ones, and through
//! its own death.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use agl_virtio_rpmb::key::Key;
use agl_virtio_rpmb::wire::{Frame, RequestType};
use frontend::Deadline;
use frontend::clients::rpmb::{FRAME_SIZE, REQUESTS, RpmbClient};
use frontend::hostile::{Attack, Request, endure};
use frontend::ring::{Indirect, RingOptions};
use frontend::service_under_test::Launch;
use support::{bytes, client, one, send};
use zerocopy::FromBytes;

const KEY: [u8; 32] = [0x42; 32];

fn program(client: &mut RpmbClient) -> u16 {
    support::program(client, KEY)
}

/// A signed write of one block and the wish for its result.
fn write(counter: u32, address: u16, data: [u8; 256]) -> [Frame; 2] {
    support::write(&Key::new(KEY), counter, address, data)
}

fn counter(client: &mut RpmbClient) -> u32 {
    support::counter(client, &Key::new(KEY))
}

fn read(client: &mut RpmbClient, address: u16, count: u16) -> Vec<Frame> {
    support::read(client, &Key::new(KEY), address, count)
}

fn launch(directory: &Path) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-rpmb"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", "none", "--store"])
    .args([directory.join("store/guest.rpmb")])
}

/// The keeper beside our service; built where it is not there, because only this service's tests
/// were asked for.
fn keeper() -> PathBuf {
    let service = Path::new(env!("CARGO_BIN_EXE_agl-virtio-rpmb"));
    let keeper = service.with_file_name("agl-virtio-keeper");
    if !keeper.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "agl-virtio-keeper"]);
        if service.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the keeper does not build"
        );
    }
    keeper
}

#[test]
fn a_driver_programs_writes_and_reads_and_finds_it_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = launch(directory.path()).start().unwrap();
    let mut driver = client(&service);
    let answer = send(&mut driver, &[one(RequestType::GetWriteCounter)], 1);
    assert_eq!(answer[0].result.get(), 7, "no key yet");
    assert_eq!(program(&mut driver), 0);
    let answer = send(&mut driver, &write(0, 9, [0xab; 256]), 1);
    assert_eq!(
        (answer[0].result.get(), answer[0].write_counter.get()),
        (0, 1)
    );
    driver.reset().unwrap();
    assert_eq!(
        counter(&mut driver),
        1,
        "a reset of the device changes nothing"
    );
    assert_eq!(program(&mut driver), 5);
    drop(driver);
    assert_eq!(service.terminate(Deadline::patient()).unwrap(), 0);
    let service = launch(directory.path()).start().unwrap();
    let mut driver = client(&service);
    let answer = read(&mut driver, 8, 2);
    assert_eq!((answer[0].data, answer[1].data), ([0; 256], [0xab; 256]));
}

#[test]
fn as_many_blocks_as_are_allowed_go_at_once_and_not_one_more() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut options = RpmbClient::options();
    options.queues = vec![RingOptions {
        size: 1024,
        indirect: Indirect::Always,
        ..RingOptions::default()
    }];
    let mut driver = RpmbClient::start(stream, &options).unwrap();
    assert_eq!(program(&mut driver), 0);
    for (blocks, result) in [(32_u16, 0), (33, 1), (100, 1)] {
        let before = counter(&mut driver);
        let mut frames: Vec<Frame> = (0..blocks)
            .map(|number| {
                let mut frame = one(RequestType::DataWrite);
                frame.data = [number as u8; 256];
                frame.block_count.set(blocks);
                frame.write_counter.set(before);
                frame
            })
            .collect();
        let mac = Key::new(KEY).sign(&frames);
        frames.last_mut().unwrap().key_mac = mac;
        frames.push(one(RequestType::ResultRead));
        let answer = send(&mut driver, &frames, 1);
        assert_eq!(answer[0].result.get(), result, "{blocks} blocks");
    }
    let all = read(&mut driver, 0, 512);
    assert_eq!(all[31].data, [31; 256]);
    assert_eq!(all[32].data, [0; 256]);
}

#[test]
fn many_requests_in_flight_are_answered_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut driver = client(&service);
    assert_eq!(program(&mut driver), 0);
    for round in 0..3_u32 {
        let posted: Vec<_> = (0..60)
            .map(|number| {
                let frames = write(round * 60 + number, number as u16, [number as u8; 256]);
                driver.post(&frames.each_ref().map(bytes), 1).unwrap()
            })
            .collect();
        if round == 2 {
            // The driver goes away in the middle: what it had sent is done or not, in order.
            driver.reset().unwrap();
            break;
        }
        for posted in posted {
            let answer = driver.finish(posted).unwrap();
            assert_eq!(Frame::read_from_bytes(&answer[0]).unwrap().result.get(), 0);
        }
    }
    let now = counter(&mut driver);
    assert!((120..=180).contains(&now), "{now}");
}

#[test]
fn every_attack_is_endured_and_the_device_answers_after_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let pid = service.service_pid();
    let mut driver = client(&service);
    assert_eq!(program(&mut driver), 0);
    assert_eq!(
        send(&mut driver, &write(0, 1, [1; 256]), 1)[0].result.get(),
        0
    );
    drop(driver);
    let counted = bytes(&one(RequestType::GetWriteCounter)).to_vec();
    // A replay, so that an attack that gets through changes nothing.
    let written: Vec<u8> = write(0, 1, [2; 256]).iter().flat_map(bytes).collect();
    for attack in Attack::ALL {
        for readable in [counted.clone(), written.clone()] {
            let honest = Request {
                readable,
                writable: FRAME_SIZE,
            };
            let mut driver = client(&service);
            let guest = driver.guest_mut();
            match endure(guest, REQUESTS, *attack, &honest, Deadline::patient()) {
                Ok(_) => {}
                Err(error)
                    if *attack == Attack::SameHeadTwice && error.misbehaviour().is_some() => {}
                Err(error) => panic!("{attack:?}: {error}"),
            }
            driver.reset().unwrap();
            assert_eq!(counter(&mut driver), 1, "{attack:?}");
        }
    }
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn a_wish_without_room_and_scraps_of_frames_come_back_empty() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut driver = client(&service);
    assert_eq!(program(&mut driver), 0);
    assert!(send(&mut driver, &write(0, 0, [1; 256]), 0).is_empty());
    assert!(send(&mut driver, &[one(RequestType::GetWriteCounter)], 0).is_empty());
    assert_eq!(
        counter(&mut driver),
        0,
        "without room for its result it was not written"
    );
    let silent = &write(0, 0, [1; 256])[..1];
    assert!(
        send(&mut driver, silent, 1).is_empty(),
        "nobody asked for the result"
    );
    assert_eq!(counter(&mut driver), 1);
}

/// Kills that CI waits for; `AGL_RPMB_KILLS` asks for more.
const KILLS: u32 = 40;

/// Where the service is killed is up to the scheduler: writes go on all the time.
#[test]
fn kills_at_any_moment_lose_and_forge_nothing() {
    let kills = std::env::var("AGL_RPMB_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path())
        .below_keeper(keeper())
        .start()
        .unwrap();
    let mut driver = client(&service);
    assert_eq!(program(&mut driver), 0);
    let (mut now, mut suspects, mut random) = (0_u32, 0, 0x9e37_79b9_7f4a_7c15_u64);
    for round in 0..kills {
        let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
        // So many writes, then one that the kill may hit before, during or after.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        for step in 0..=(random >> 61) {
            let (address, fill) = ((now % 500) as u16, now as u8);
            let frames = write(now, address, [fill; 256]);
            let posted = driver.post(&frames.each_ref().map(bytes), 1).unwrap();
            if step == random >> 61 {
                for _ in 0..(random >> 40) % 20_000 {
                    std::hint::spin_loop();
                }
                assert_eq!(service.kill_service().unwrap(), pid);
            }
            let answer = driver.finish(posted).unwrap();
            let answer = Frame::read_from_bytes(&answer[0]).unwrap();
            assert!(
                Key::new(KEY).verifies(&[answer]),
                "round {round}: a forged answer"
            );
            match answer.result.get() {
                0 => {
                    assert_eq!(answer.write_counter.get(), now + 1, "round {round}");
                    now += 1;
                }
                // In flight at two deaths: it was not tried again, and the counter says so.
                1 => suspects += 1,
                other => panic!("round {round}: {other:#x}"),
            }
            let block = read(&mut driver, address, 1);
            assert_eq!(counter(&mut driver), now, "round {round}");
            if answer.result.get() == 0 {
                assert_eq!(block[0].data, [fill; 256], "round {round}: a lost write");
            }
        }
        // The result can be asked for after the death as well.
        let told = send(&mut driver, &[one(RequestType::ResultRead)], 1);
        assert_eq!(told[0].req_resp.get(), 0x300, "round {round}");
        service
            .wait_service_pid(Some(pid), Deadline::patient())
            .unwrap();
        // A replay of the last write is one, whoever has died.
        let replay = send(&mut driver, &write(now.wrapping_sub(1), 0, [0xff; 256]), 1);
        assert_eq!(replay[0].result.get(), 3, "round {round}");
    }
    println!("{kills} kills, {now} writes, {suspects} given up after two deaths");
}
