// SPDX-License-Identifier: Apache-2.0

//! The service as a process, driven over vhost-user: by good drivers, by hostile ones, and through
//! its own death. What is decoded is what the host's own decoder makes of it.

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

#[path = "../../codec/tests/bench/mod.rs"]
#[allow(dead_code, reason = "the codec's own tests use the rest")]
mod bench;
#[allow(dead_code, reason = "other tests use the rest")]
mod player;

use std::process::Command;

use agl_virtio_codec::{Codec, PixelFormat, Size};
use bench::{encode, plain, plain_as};
use frontend::Deadline;
use frontend::clients::video::{
    COMMANDS, Draft, ERROR, INPUT, INVALID_OPERATION, INVALID_PARAMETER, INVALID_RESOURCE_ID,
    INVALID_STREAM_ID, OK, OUT_OF_MEMORY, OUTPUT, Params, UNSUPPORTED_CONTROL, VideoClient, done,
    request, word,
};
use frontend::hostile::{Attack, Request, endure};
use frontend::message_bus::{MessageBus, Policy};
use frontend::service_under_test::{Launch, built_program};
use player::{CodedPlayer, H264, HEVC, LIBVPX8, LIBVPX9, NV12, Player, VP8, VP9, client, launch};

const B_FRAMES: &str = "x264enc bframes=3 b-pyramid=true key-int-max=12 speed-preset=ultrafast \
                        ! video/x-h264,profile=main,stream-format=byte-stream";
const X265: &str =
    "x265enc speed-preset=ultrafast key-int-max=12 ! video/x-h265,stream-format=byte-stream";

#[test]
fn streams_are_decoded_as_the_host_decodes_them() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let cases = [
        (Codec::H264, H264, B_FRAMES, Size::new(178, 142)),
        (Codec::Hevc, HEVC, X265, Size::new(176, 144)),
        (Codec::Vp8, VP8, LIBVPX8, Size::new(175, 143)),
        (Codec::Vp9, VP9, LIBVPX9, Size::new(175, 143)),
    ];
    for (stream, (codec, coded, encoder, size)) in (1..).zip(cases) {
        let clip = encode(encoder, size, 20);
        let expected = plain(codec, &clip);
        let mut player = Player::new(&mut driver, stream, coded, NV12);
        player.play(&clip.units, 500);
        assert_eq!(player.sums, expected, "{codec}");
        assert_eq!(player.sizes, [(size.width, size.height)], "{codec}");
        assert_eq!(player.timestamps, clip.in_order_of_display(500), "{codec}");
        assert!(
            player.keys[0] && !player.keys.iter().all(|key| *key),
            "{codec}"
        );
        player.close();
    }
}

#[test]
fn a_new_size_in_mid_stream_is_told_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let small = encode(B_FRAMES, Size::new(160, 120), 10);
    let large = encode(B_FRAMES, Size::new(320, 240), 10);
    let units = [small.units.clone(), large.units.clone()].concat();
    let mut player = Player::new(&mut driver, 7, H264, NV12);
    player.play(&units, 0);
    let expected = [plain(Codec::H264, &small), plain(Codec::H264, &large)].concat();
    assert_eq!(player.sums, expected);
    assert_eq!(player.sizes, [(160, 120), (320, 240)]);
    player.close();
}

#[test]
fn pictures_come_in_the_format_that_was_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let clip = encode(LIBVPX8, Size::new(176, 144), 3);
    let formats = [
        (1, PixelFormat::Argb),
        (2, PixelFormat::Bgra),
        (3, PixelFormat::Rgba),
        (4, PixelFormat::Nv12),
        (5, PixelFormat::I420),
        (6, PixelFormat::Yv12),
    ];
    for (number, format) in formats {
        let mut player = Player::new(&mut driver, number, VP8, number);
        player.play(&clip.units, 0);
        assert_eq!(
            player.sums,
            plain_as(Codec::Vp8, &clip, format),
            "{format:?}"
        );
        player.close();
    }
}

#[test]
fn after_a_drain_and_after_a_seek_a_stream_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let clip = encode(B_FRAMES, Size::new(176, 144), 12);
    let expected = plain(Codec::H264, &clip);
    let mut player = Player::new(&mut driver, 1, H264, NV12);
    for _ in 0..2 {
        player.sums.clear();
        player.play(&clip.units, 0);
        assert_eq!(player.sums, expected);
    }
    // A seek in the middle: what was queued comes back, and the rest is as if nothing had been.
    player.sums.clear();
    player.feed(&clip.units[..6], 0);
    player.seek();
    player.sums.clear();
    player.timestamps.clear();
    player.play(&clip.units, 9000);
    assert_eq!(player.sums, expected);
    assert!(player.timestamps.iter().all(|timestamp| *timestamp >= 9000));
    assert_eq!(player.sizes.len(), 1, "the size is told once");
    player.close();
}

#[test]
fn a_drain_of_nothing_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let mut player = Player::new(&mut driver, 1, H264, NV12);
    player.prepare_output();
    player.play(&[], 0);
    assert!(player.sums.is_empty());
    player.close();
}

#[test]
fn eight_streams_at_once_are_decoded_and_a_ninth_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let clip = encode(LIBVPX8, Size::new(96, 80), 6);
    let expected = plain(Codec::Vp8, &clip);
    for stream in 1..=8 {
        assert_eq!(driver.create(stream, VP8).unwrap(), OK);
    }
    assert_eq!(driver.create(9, VP8).unwrap(), OUT_OF_MEMORY);
    for stream in 1..=8 {
        let mut player = Player::of_created(&mut driver, stream, VP8, NV12);
        player.play(&clip.units, 0);
        assert_eq!(player.sums, expected, "stream {stream}");
        if stream == 1 {
            player.close();
            assert_eq!(driver.create(9, VP8).unwrap(), OK, "there is room again");
        }
    }
}

#[test]
fn pictures_are_encoded_and_come_back_nearly_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "encoder").start().unwrap();
    let mut driver = client(&service);
    let codecs = [
        (Codec::H264, H264),
        (Codec::Hevc, HEVC),
        (Codec::Vp8, VP8),
        (Codec::Vp9, VP9),
    ];
    for (stream, (codec, coded)) in (1..).zip(codecs) {
        let size = Size::new(176, 144);
        let raw = bench::raw(size, 12);
        let mut player = CodedPlayer::new(&mut driver, stream, coded, size);
        // A key picture in the middle, by FORCE_KEYFRAME.
        player.encode(&raw, Some(7));
        assert_eq!(player.units.len(), 12, "{codec}");
        assert_eq!(
            player.timestamps,
            (0..12).map(|n| 40 * n).collect::<Vec<u64>>()
        );
        assert!(
            player.keys[0] && player.keys[7] && !player.keys[3],
            "{codec}: {:?}",
            player.keys
        );
        let back = bench::decoded(codec, &player.units);
        assert_eq!(back.len(), 12, "{codec}");
        for (number, (back, raw)) in back.iter().zip(&raw).enumerate() {
            let psnr = bench::psnr(back, raw);
            assert!(psnr > 28.0, "{codec} picture {number}: {psnr:.1} dB");
        }
        player.close();
    }
}

#[test]
fn a_guest_of_draft_v3_decodes_and_encodes() {
    let directory = tempfile::tempdir().unwrap();
    let decoder = launch(directory.path(), "decoder")
        .args(["--dialect", "v3"])
        .start()
        .unwrap();
    let mut driver = client(&decoder).speaking(Draft::V3);
    let clip = encode(B_FRAMES, Size::new(178, 142), 12);
    for (stream, raw, format) in [(1, NV12, PixelFormat::Nv12), (2, 5, PixelFormat::I420)] {
        let mut player = Player::new(&mut driver, stream, H264, raw);
        player.play(&clip.units, 500);
        assert_eq!(player.sums, plain_as(Codec::H264, &clip, format));
        assert_eq!(player.timestamps, clip.in_order_of_display(500));
        assert!(player.keys[0] && !player.keys.iter().all(|key| *key));
        player.close();
    }
    drop(decoder);
    let encoder = launch(directory.path(), "encoder")
        .args(["--dialect", "v3"])
        .start()
        .unwrap();
    let mut driver = client(&encoder).speaking(Draft::V3);
    let size = Size::new(176, 144);
    let raw = bench::raw(size, 6);
    let mut player = CodedPlayer::new(&mut driver, 1, H264, size);
    player.encode(&raw, Some(3));
    assert!(player.keys[0] && player.keys[3] && !player.keys[1]);
    assert_eq!(bench::decoded(Codec::H264, &player.units).len(), 6);
    player.close();
}

/// Asks for a control of an encoder's stream: 2 is the profile, 3 the level.
fn control(driver: &mut VideoClient, stream: u32, control: u32) -> u32 {
    let answer = driver.ask(0x10b, stream, &[control, 0]).unwrap();
    assert_eq!(word(&answer, 0), 0x205);
    word(&answer, 8)
}

#[test]
fn profile_and_level_are_in_the_stream_that_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "encoder").start().unwrap();
    let mut driver = client(&service);
    let size = Size::new(176, 144);
    let raw = bench::raw(size, 3);
    // Numbers of virtio-video; then profile_idc and level_idc of the sequence parameter set.
    let cases = [
        (0x100, 0x104, 66, 20),
        (0x101, 0x107, 77, 30),
        (0x103, 0x10a, 100, 40),
    ];
    for (stream, (profile, level, profile_idc, level_idc)) in (1..).zip(cases) {
        let mut player = CodedPlayer::new(&mut driver, stream, H264, size);
        player.control(2, profile);
        player.control(3, level);
        player.encode(&raw, None);
        let unit = &player.units[0];
        let start = unit.windows(4).position(|at| at == [0, 0, 1, 0x67]);
        let header = &unit[start.unwrap() + 4..][..3];
        assert_eq!((header[0], header[2]), (profile_idc, level_idc));
        player.close();
    }
    assert_eq!(driver.create(9, H264).unwrap(), OK);
    for (kind, value) in [(2, 0x103), (3, 0x102)] {
        assert_eq!(driver.command(0x10c, 9, &[kind, 0, value, 0]).unwrap(), OK);
        assert_eq!(control(&mut driver, 9, kind), value);
        let refused = driver.command(0x10c, 9, &[kind, 0, 0x7777, 0]);
        assert_eq!(refused.unwrap(), INVALID_PARAMETER);
        assert_eq!(control(&mut driver, 9, kind), value);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let config = driver.guest_mut().session().unwrap().config(0, 12).unwrap();
    assert_eq!(word(&config, 0), 0);
    let capability = driver.ask(0x100, 0, &[INPUT, 0]).unwrap();
    assert_eq!(word(&capability, 0), 0x201);
    assert!(capability.len() <= word(&config, 4) as usize);
    assert_eq!(
        driver.command(0x100, 0, &[5, 0]).unwrap(),
        INVALID_PARAMETER
    );
    assert_eq!(driver.command(0x177, 0, &[]).unwrap(), INVALID_OPERATION);
    assert_eq!(driver.create(1, 0x1fff).unwrap(), INVALID_PARAMETER);
    assert_eq!(driver.create(1, VP8).unwrap(), OK);
    assert_eq!(
        driver.create(1, VP8).unwrap(),
        INVALID_STREAM_ID,
        "it is taken"
    );
    assert_eq!(driver.drain(2).unwrap(), INVALID_STREAM_ID);
    assert_eq!(driver.destroy(2).unwrap(), OK, "gone is gone");
    assert_eq!(driver.attach(1, INPUT, 1, &[]).unwrap(), INVALID_PARAMETER);
    let memory = driver.guest_mut().memory().clone();
    let good = memory.alloc(4096, 4096).unwrap();
    let outside = frontend::Buffer {
        addr: memory.address_in_gap(),
        len: 4096,
    };
    assert_eq!(
        driver.attach(1, INPUT, 1, &[&[good, outside]]).unwrap(),
        INVALID_PARAMETER
    );
    assert_eq!(driver.attach(1, INPUT, 1, &[&[good]]).unwrap(), OK);
    let unknown = driver.queue(1, INPUT, 2, 0, 1).unwrap();
    assert_eq!(
        done(&driver.finish(unknown).unwrap()).kind,
        INVALID_RESOURCE_ID
    );
    let longer = driver.queue(1, INPUT, 1, 0, 4097).unwrap();
    assert_eq!(
        done(&driver.finish(longer).unwrap()).kind,
        INVALID_PARAMETER
    );
    // Controls are the encoder's.
    assert_eq!(
        driver.command(0x10b, 1, &[1, 0]).unwrap(),
        UNSUPPORTED_CONTROL
    );
    assert_eq!(
        driver.command(0x10c, 1, &[1, 0, 5, 0]).unwrap(),
        UNSUPPORTED_CONTROL
    );
    let mut huge = Params::new(OUTPUT, 77, u32::MAX, u32::MAX);
    huge.0[12] = u32::MAX;
    assert_eq!(driver.set_params(1, &huge).unwrap(), OK, "adjusted");
    let params = driver.params(1, OUTPUT).unwrap();
    assert_eq!(params.size(), (4096, 4096));
    let mut nowhere = huge.clone();
    nowhere.0[0] = 3;
    assert_eq!(driver.set_params(1, &nowhere).unwrap(), INVALID_PARAMETER);
    let too_short = driver.post(&request(0x105, 1, &[INPUT]), 56).unwrap();
    assert_eq!(
        word(&driver.finish(too_short).unwrap(), 0),
        INVALID_PARAMETER
    );
}

#[test]
fn noise_instead_of_a_stream_leaves_other_streams_alone() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let pid = service.service_pid();
    let mut driver = client(&service);
    let noise: Vec<Vec<u8>> = (0..8_u32)
        .map(|n| {
            let byte = |at: u32| ((at ^ n << 20).wrapping_mul(2_654_435_761) >> 13) as u8;
            (0..20_000).map(byte).collect()
        })
        .collect();
    for (stream, coded) in (1..).zip([H264, HEVC, VP8, VP9]) {
        let mut player = Player::new(&mut driver, stream, coded, NV12);
        player.survive(&noise);
    }
    let clip = encode(B_FRAMES, Size::new(176, 144), 6);
    let mut player = Player::new(&mut driver, 20, H264, NV12);
    player.play(&clip.units, 0);
    assert_eq!(player.sums, plain(Codec::H264, &clip));
    player.close();
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn every_attack_is_endured_and_the_device_answers_after_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let pid = service.service_pid();
    for attack in Attack::ALL {
        for readable in [
            request(0x100, 0, &[INPUT, 0]),
            request(0x105, 1, &[INPUT, 1, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let honest = Request {
                readable,
                writable: 8192,
            };
            let mut driver = client(&service);
            let guest = driver.guest_mut();
            match endure(guest, COMMANDS, *attack, &honest, Deadline::patient()) {
                Ok(_) => {}
                Err(error)
                    if *attack == Attack::SameHeadTwice && error.misbehaviour().is_some() => {}
                Err(error) => panic!("{attack:?}: {error}"),
            }
            driver.reset().unwrap();
            assert_eq!(driver.create(1, VP8).unwrap(), OK, "{attack:?}");
        }
    }
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn after_a_death_every_request_comes_back_and_new_streams_work() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder")
        .below_keeper(built_program("agl-virtio-keeper").unwrap())
        .start()
        .unwrap();
    let mut driver = client(&service);
    let clip = encode(LIBVPX8, Size::new(176, 144), 6);
    for round in 0..3 {
        let stream = 1 + 2 * round;
        let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
        let mut player = Player::new(&mut driver, stream, VP8, NV12);
        player.prepare_output();
        let waiting = player.outstanding();
        player.forget();
        assert!(!waiting.is_empty());
        assert_eq!(service.kill_service().unwrap(), pid);
        for chain in waiting {
            let answer = driver.finish(chain).unwrap();
            assert_eq!(word(&answer, 0), INVALID_STREAM_ID, "round {round}");
        }
        assert_eq!(
            driver.event(Deadline::patient()).unwrap(),
            (ERROR, stream),
            "round {round}"
        );
        assert_eq!(driver.drain(stream).unwrap(), INVALID_STREAM_ID);
        assert_eq!(driver.destroy(stream).unwrap(), OK);
        let mut player = Player::new(&mut driver, stream + 1, VP8, NV12);
        player.play(&clip.units, 0);
        assert_eq!(player.sums, plain(Codec::Vp8, &clip), "round {round}");
        player.close();
    }
}

#[test]
fn a_stream_larger_than_its_quota_ends_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.toml");
    std::fs::write(
        &file,
        "[devices.codec]\ntype = \"video\"\nmax_pixel_rate = 1000000\n",
    )
    .unwrap();
    let service = Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-video"),
        directory.path().join("socket"),
    )
    .args([
        "--log", "error", "--bus", "none", "--device", "codec", "--config",
    ])
    .args([file])
    .start()
    .unwrap();
    let mut driver = client(&service);
    let clip = encode(LIBVPX8, Size::new(320, 240), 3);
    let mut player = Player::new(&mut driver, 1, VP8, NV12);
    player.feed_only(&clip.units[0]);
    let taken = player.outstanding();
    player.forget();
    for chain in taken {
        driver.finish(chain).unwrap();
    }
    assert_eq!(driver.event(Deadline::patient()).unwrap(), (ERROR, 1));
    assert_eq!(driver.drain(1).unwrap(), INVALID_STREAM_ID);
    let clip = encode(LIBVPX8, Size::new(96, 80), 3);
    let mut player = Player::new(&mut driver, 2, VP8, NV12);
    player.play(&clip.units, 0);
    assert_eq!(player.sums, plain(Codec::Vp8, &clip));
    player.close();
}

/// Asks the service on the bus; waits until it is there.
fn busctl(bus: &str, words: &[&str]) -> String {
    let deadline = Deadline::after(std::time::Duration::from_secs(60));
    loop {
        let mut command = Command::new("busctl");
        command.arg(format!("--address={bus}")).args(words);
        let done = command.output().unwrap();
        if done.status.success() {
            return String::from_utf8(done.stdout).unwrap();
        }
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!deadline.passed(), "{words:?}: {said}");
        std::thread::yield_now();
    }
}

#[test]
fn streams_are_shown_on_the_bus_and_can_be_ended_there() {
    let name = "org.automotivelinux.Virtio1.Device.guest.decoder";
    let device = "/org/automotivelinux/Virtio1/guests/guest/decoder";
    let session = format!("{device}/sessions/5");
    let directory = tempfile::tempdir().unwrap();
    let bus_folder = tempfile::tempdir().unwrap();
    let message_bus = MessageBus::start(bus_folder.path(), &Policy::Open).unwrap();
    let bus = message_bus.address();
    let service = Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-video"),
        directory.path().join("socket"),
    )
    .args(["--log", "debug", "--bus"])
    .args([&bus])
    .start()
    .unwrap();
    let mut driver = client(&service);
    let clip = encode(LIBVPX8, Size::new(176, 144), 4);
    let mut player = Player::new(&mut driver, 5, VP8, NV12);
    player.play(&clip.units, 0);
    let get = |path: &str, interface: &str, property: &str| {
        busctl(&bus, &["get-property", name, path, interface, property])
    };
    let of_device = "org.automotivelinux.Virtio1.Video";
    let of_session = "org.automotivelinux.Virtio1.Video.Session";
    assert_eq!(get(device, of_device, "Sessions"), "u 1\n");
    assert_eq!(get(&session, of_session, "Codec"), "s \"vp8\"\n");
    assert_eq!(get(&session, of_session, "Owner"), "s \"test\"\n");
    assert_eq!(get(&session, of_session, "Width"), "u 176\n");
    assert_eq!(get(&session, of_session, "Frames"), "t 4\n");
    let counted = busctl(&bus, &["call", name, device, of_device, "Statistics"]);
    // The decoder has drawn each where the service can see it, which copied it into the guest's memory.
    assert!(counted.contains("\"frames\" 4"), "{counted}");
    assert!(counted.contains("\"frame-copies\" 4"), "{counted}");
    let waiting = player.outstanding();
    player.forget();
    busctl(&bus, &["call", name, &session, of_session, "Terminate"]);
    for chain in waiting {
        let answer = driver.finish(chain).unwrap();
        assert_eq!(word(&answer, 0), INVALID_OPERATION);
    }
    assert_eq!(driver.event(Deadline::patient()).unwrap(), (ERROR, 5));
    assert_eq!(driver.destroy(5).unwrap(), OK);
    assert_eq!(get(device, of_device, "Sessions"), "u 0\n");
}
