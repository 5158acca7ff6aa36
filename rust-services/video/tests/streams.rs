// SPDX-License-Identifier: Apache-2.0

//! Streams of everything that the codecs can do, through the service: picture by picture what the
//! host's own decoder makes of them, and each with the time of the unit in which it came.

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
#[allow(dead_code, reason = "the device's tests use the rest")]
mod player;

use agl_virtio_codec::Codec;
use bench::streams;
use player::{NV12, Player, client, launch};

/// Timestamps of the guest: whatever they are, they come back.
const FROM: u64 = 70_000;

fn same_as_on_the_host(codec: Codec, coded: u32) {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let mut wrong = Vec::new();
    for (number, stream) in (1..).zip(streams::of(codec)) {
        let mut player = Player::new(&mut driver, number, coded, NV12);
        player.play(&stream.clip.units, FROM);
        let (name, units) = (&stream.name, stream.clip.units.len());
        println!(
            "{name}: {units} units, {} pictures, {:?}",
            player.sums.len(),
            player.sizes
        );
        let came: Vec<u64> = player.timestamps.iter().map(|time| time - FROM).collect();
        wrong.extend(stream.differences(&player.sums, &came));
        player.close();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn streams_of_h264_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::H264, 0x1002);
}

#[test]
fn streams_of_hevc_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Hevc, 0x1003);
}

#[test]
fn streams_of_vp8_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Vp8, 0x1004);
}

#[test]
fn streams_of_vp9_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Vp9, 0x1005);
}

#[test]
fn streams_of_mpeg2_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Mpeg2, 0x1000);
}

#[test]
fn streams_of_mpeg4_are_decoded_as_on_the_host() {
    same_as_on_the_host(Codec::Mpeg4, 0x1001);
}
