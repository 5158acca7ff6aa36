// SPDX-License-Identifier: Apache-2.0

//! Real streams through sessions: what comes out is what a plain pipeline of the host makes of them.

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

#[allow(dead_code, reason = "the video service's tests use the rest")]
mod bench;

use std::time::Duration;

use agl_virtio_codec::{
    Codec, CodecError, Elements, Event, Layout, Library, PixelFormat, Position, Session, Size,
};
use bench::{Clip, Player, encode, library, plain, splits};

/// B-frames in pyramids: pictures come out in another order than they went in.
const H264: &str = "x264enc bframes=3 b-pyramid=true key-int-max=12 speed-preset=ultrafast \
                    ! video/x-h264,profile=main,stream-format=byte-stream";
const HEVC: &str =
    "x265enc speed-preset=ultrafast key-int-max=12 ! video/x-h265,stream-format=byte-stream";
const VP8: &str = "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=12";
const VP9: &str = "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=12 lag-in-frames=0";
const MPEG4: &str = "avenc_mpeg4 gop-size=9";

fn decodes_as_the_host_does(codec: Codec, encoder: &str, size: Size) {
    let clip = encode(encoder, size, 30);
    let expected = plain(codec, &clip);
    assert!(expected.len() >= 30, "{} pictures", expected.len());
    let mut player = Player::new(codec);
    for (number, unit) in clip.units.iter().enumerate() {
        player.push(unit.clone(), 1000 + number as u64);
    }
    player.drain();
    assert_eq!(player.pictures, expected, "{codec} {size}");
    assert_eq!(player.sizes, [size]);
    // Each picture has the timestamp of its own unit, however they were reordered.
    let mut timestamps = player.timestamps.clone();
    timestamps.sort_unstable();
    let all: Vec<u64> = (0..clip.units.len() as u64)
        .map(|number| 1000 + number)
        .collect();
    assert_eq!(timestamps, all, "{codec}");
    assert_eq!(player.timestamps, clip.in_order_of_display(1000), "{codec}");
    assert!(player.keys[0] && !player.keys.iter().all(|key| *key));
}

#[test]
fn h264_with_reordered_pictures_is_decoded_with_its_own_timestamps() {
    decodes_as_the_host_does(Codec::H264, H264, Size::new(176, 144));
    // Not a multiple of its blocks: the header crops.
    decodes_as_the_host_does(Codec::H264, H264, Size::new(178, 142));
}

#[test]
fn hevc_is_decoded() {
    decodes_as_the_host_does(Codec::Hevc, HEVC, Size::new(176, 144));
}

#[test]
fn vp8_and_vp9_of_odd_sizes_are_decoded() {
    decodes_as_the_host_does(Codec::Vp8, VP8, Size::new(175, 143));
    decodes_as_the_host_does(Codec::Vp9, VP9, Size::new(175, 143));
}

#[test]
fn mpeg4_is_decoded() {
    decodes_as_the_host_does(Codec::Mpeg4, MPEG4, Size::new(176, 144));
}

#[test]
fn mpeg4_may_be_cut_anywhere() {
    let clip = encode(MPEG4, Size::new(176, 144), 30);
    let expected = plain(Codec::Mpeg4, &clip);
    for seed in [1, 7] {
        let mut player = Player::new(Codec::Mpeg4);
        for (number, piece) in splits(&clip.bytes(), seed).into_iter().enumerate() {
            player.push(piece, number as u64);
        }
        player.drain();
        assert_eq!(player.pictures, expected, "seed {seed}");
    }
}

#[test]
fn the_size_is_told_as_soon_as_the_first_access_unit_is_there() {
    for (codec, encoder) in [(Codec::H264, H264), (Codec::Hevc, HEVC), (Codec::Vp8, VP8)] {
        let clip = encode(encoder, Size::new(176, 144), 3);
        let mut player = Player::new(codec);
        player.push(clip.units[0].clone(), 0);
        let Some(Event::Size(size)) = player.next() else {
            panic!("{codec}: something else comes first")
        };
        assert_eq!(size, Size::new(176, 144), "{codec}");
    }
}

#[test]
fn a_new_size_is_told_between_the_pictures_of_the_old_and_the_new() {
    for (codec, encoder) in [(Codec::H264, H264), (Codec::Vp8, VP8), (Codec::Vp9, VP9)] {
        let small = encode(encoder, Size::new(160, 120), 12);
        let large = encode(encoder, Size::new(320, 240), 12);
        let mut player = Player::new(codec);
        for unit in small.units.iter().chain(&large.units) {
            player.push(unit.clone(), 5);
        }
        player.drain();
        let expected = [plain(codec, &small), plain(codec, &large)].concat();
        assert_eq!(player.pictures, expected, "{codec}");
        assert_eq!(player.sizes, [Size::new(160, 120), Size::new(320, 240)]);
        assert_eq!(player.first_of_size, [0, 12], "{codec}");
    }
}

#[test]
fn after_a_drain_and_after_a_flush_the_session_goes_on() {
    let clip = encode(H264, Size::new(176, 144), 12);
    let expected = plain(Codec::H264, &clip);
    let mut player = Player::new(Codec::H264);
    player.drain();
    assert_eq!(player.pictures.len(), 0, "nothing in, nothing out");
    for _ in 0..2 {
        clip.units
            .iter()
            .for_each(|unit| player.push(unit.clone(), 1));
        player.drain();
    }
    assert_eq!(
        player.pictures,
        [expected.clone(), expected.clone()].concat()
    );
    for unit in &clip.units[..5] {
        player.push(unit.clone(), 2);
    }
    player.flush();
    player.forget();
    clip.units
        .iter()
        .for_each(|unit| player.push(unit.clone(), 3));
    player.drain();
    assert!(
        player.timestamps.iter().all(|timestamp| *timestamp == 3),
        "{:?}",
        player.timestamps
    );
    assert_eq!(player.pictures, expected);
    assert_eq!(player.sizes, [Size::new(176, 144)], "told once");
}

#[test]
fn pictures_are_written_in_every_format_wherever_they_are_wanted() {
    let clip = encode(VP8, Size::new(175, 143), 2);
    for format in PixelFormat::ALL {
        let expected = bench::plain_as(Codec::Vp8, &clip, format);
        for origin in [Position::new(0, 0), Position::new(18, 4)] {
            let mut player = Player::new(Codec::Vp8);
            (player.format, player.origin) = (format, origin);
            clip.units
                .iter()
                .for_each(|unit| player.push(unit.clone(), 0));
            player.drain();
            assert_eq!(player.pictures, expected, "{format:?} {origin:?}");
        }
    }
}

#[test]
fn noise_ends_nothing() {
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let clip = encode(H264, Size::new(176, 144), 12);
    let mut player = Player::new(Codec::H264);
    for piece in noise.chunks(10_000) {
        player.push(piece.to_vec(), 0);
    }
    player.drain();
    player.forget();
    clip.units
        .iter()
        .for_each(|unit| player.push(unit.clone(), 0));
    player.drain();
    assert_eq!(player.pictures, plain(Codec::H264, &clip));
}

#[test]
fn a_codec_that_hangs_ends_its_session_only() {
    let elements = Elements {
        decoders: [(Codec::Vp8, "vp8dec ! valve drop=true".to_owned())].into(),
        ..Elements::default()
    };
    let mut player = Player::with(&Library::load(&elements).unwrap(), Codec::Vp8, 500);
    let clip: Clip = encode(VP8, Size::new(176, 144), 1);
    player.push(clip.units[0].clone(), 0);
    // The valve lets nothing through, not even the end of the stream.
    player.session.drain();
    player.until(|event| {
        matches!(event, Event::Failed(error) if *error == CodecError::Hangs {
            codec: Codec::Vp8,
            patience: Duration::from_millis(500),
        })
    });
    assert!(player.session.poll().is_none(), "nothing follows");
}

#[test]
fn a_codec_that_is_not_there_is_not_offered() {
    let elements = Elements {
        decoders: [
            (Codec::Vp8, "vp8dec".to_owned()),
            (Codec::H264, "omxh264dec-of-another-world".to_owned()),
            (Codec::Vp9, "identity".to_owned()),
        ]
        .into(),
        ..Elements::default()
    };
    let library = Library::load(&elements).unwrap();
    assert_eq!(library.decoders().collect::<Vec<_>>(), [Codec::Vp8]);
    let refused = agl_virtio_codec::Decoder::open(&library, Codec::H264, &bench::host(1000).0);
    assert_eq!(
        refused.err(),
        Some(CodecError::NotOffered { codec: Codec::H264 })
    );
}

#[test]
fn a_layout_that_is_too_small_is_refused() {
    let clip = encode(VP8, Size::new(176, 144), 1);
    let mut player = Player::with(&library(), Codec::Vp8, 30_000);
    player.session.push(clip.units[0].clone(), 0);
    let picture = loop {
        if let Some(Event::Output(picture)) = player.next() {
            break picture;
        }
    };
    let layout = Layout::packed(PixelFormat::Nv12, Size::new(174, 144), 16);
    let mut beyond = Layout::packed(PixelFormat::Nv12, Size::new(320, 240), 16);
    beyond.origin = Position::new(146, 0);
    for layout in [layout, beyond] {
        let refused = picture.write(&layout, |_, _, _| Ok::<(), ()>(()));
        assert!(refused.is_err(), "{layout:?}");
    }
}
