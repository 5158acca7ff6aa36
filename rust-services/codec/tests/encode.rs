// SPDX-License-Identifier: Apache-2.0

//! Pictures through the host's encoders: what of them is seen, and what headers say.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[allow(dead_code, reason = "the tests of decoders use the rest")]
mod bench;

use std::sync::mpsc::Receiver;

use agl_virtio_codec::{
    BitrateMode, Codec, CodecError, Encoder, EncoderSettings, Event, FrameRate, H264Profile,
    H264Tools, HevcProfile, Layout, PixelFormat, Position, Profile, RawPicture, Session, Size,
    Tier, Vp8Profile,
};
use bench::{PATIENCE, library, psnr};

const SEEN: Size = Size::new(96, 64);

/// A picture with another colour at each place, which moves by `number`; all of it in this layout.
fn drawn(layout: &Layout, number: usize) -> Vec<u8> {
    let mut bytes = vec![0; layout.bytes()];
    for (at, plane) in layout.planes().iter().enumerate() {
        let shift = if at == 0 { 0 } else { 1 };
        for row in 0..plane.rows {
            for column in 0..plane.stride {
                // Slow ramps, which encoders keep.
                let value = 40 + (column << shift) / 2 + (row << shift) / 3 + at * 30 + number;
                bytes[plane.offset + row * plane.stride + column] = value as u8;
            }
        }
    }
    bytes
}

/// What is seen of it, without anything around.
fn seen_of(layout: &Layout, size: Size, bytes: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let tight = Layout::packed(layout.format, size, 1);
    for (plane, tight) in layout.planes().iter().zip(tight.planes()) {
        for row in 0..tight.rows {
            let begin = plane.offset + plane.row(row);
            seen.extend_from_slice(&bytes[begin..][..tight.stride]);
        }
    }
    seen
}

/// Pushes pictures and waits for what becomes of them.
fn run(session: &mut Encoder, told: &Receiver<()>, pictures: Vec<RawPicture>) -> Vec<Vec<u8>> {
    run_timed(session, told, pictures, &mut Vec::new())
}

/// The same, which notes what was said with each.
fn run_timed(
    session: &mut Encoder,
    told: &Receiver<()>,
    pictures: Vec<RawPicture>,
    times: &mut Vec<u64>,
) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    let mut waiting = pictures.into_iter().enumerate();
    let mut next = waiting.next();
    loop {
        while session.room() {
            let Some((number, picture)) = next.take() else {
                break;
            };
            session.push(picture, number as u64);
            next = waiting.next();
            if next.is_none() {
                session.drain();
            }
        }
        match session.poll() {
            Some(Event::Output(unit)) => {
                let mut bytes = vec![0; unit.size()];
                let written = unit.write(|offset, run| {
                    bytes[offset..][..run.len()].copy_from_slice(run);
                    Ok::<(), ()>(())
                });
                written.unwrap();
                times.push(unit.timestamp());
                units.push(bytes);
            }
            Some(Event::Drained) => return units,
            Some(Event::Failed(error)) => panic!("{error}"),
            Some(_) => {}
            None => told.recv_timeout(PATIENCE).expect("nothing comes"),
        }
    }
}

fn encoded(codec: Codec, layout: &Layout, size: Size, settings: EncoderSettings) -> Vec<Vec<u8>> {
    let (host, told) = bench::host(60_000);
    let mut session = Encoder::open(&library(), codec, (layout, size), settings, &host).unwrap();
    let pictures = (0..6).map(|number| RawPicture::new(layout, size, drawn(layout, number)));
    run(&mut session, &told, pictures.map(Option::unwrap).collect())
}

#[test]
fn what_is_seen_is_encoded_wherever_it_lies_in_memory() {
    for codec in [Codec::H264, Codec::Vp8] {
        for format in [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Yv12] {
            for origin in [Position::new(0, 0), Position::new(34, 18)] {
                let mut layout = Layout::packed(format, Size::new(160, 112), 16);
                layout.origin = origin;
                let settings = EncoderSettings::default();
                let units = encoded(codec, &layout, SEEN, settings);
                let pictures = bench::decoded_as(codec, &units, format);
                assert_eq!(pictures.len(), 6, "{codec} {format:?}");
                for (number, picture) in pictures.iter().enumerate() {
                    let wanted = seen_of(&layout, SEEN, &drawn(&layout, number));
                    let near = psnr(picture, &wanted);
                    assert!(near > 35.0, "{codec} {format:?} {origin:?}: {near} dB");
                }
            }
        }
    }
}

#[test]
fn what_does_not_lie_in_memory_is_refused() {
    let mut layout = Layout::packed(PixelFormat::Nv12, Size::new(160, 112), 16);
    for origin in [
        Position::new(66, 0),
        Position::new(0, 50),
        Position::new(u32::MAX, u32::MAX),
    ] {
        layout.origin = origin;
        assert!(RawPicture::new(&layout, SEEN, vec![0; layout.bytes()]).is_none());
        let (host, _told) = bench::host(60_000);
        let settings = EncoderSettings::default();
        let refused = Encoder::open(&library(), Codec::H264, (&layout, SEEN), settings, &host);
        assert!(matches!(refused, Err(CodecError::Start { .. })));
    }
}

/// The bytes of the first unit of a network abstraction layer that has this type, from behind its header
/// of `header` bytes, without what keeps start codes out of them.
fn nal(stream: &[u8], header: usize, is_such: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut starts = stream.windows(3).enumerate();
    let (at, _) = starts
        .find(|(at, three)| {
            *three == [0, 0, 1] && stream.get(at + 3).is_some_and(|byte| is_such(*byte))
        })
        .expect("no such unit");
    let mut bytes = Vec::new();
    for byte in &stream[at + 3 + header..] {
        if *byte == 3 && bytes.ends_with(&[0, 0]) {
            continue;
        }
        bytes.push(*byte);
    }
    bytes
}

fn asked(profile: Option<Profile>, level: Option<u8>) -> EncoderSettings {
    EncoderSettings {
        profile,
        level,
        ..EncoderSettings::default()
    }
}

/// The first unit of pictures that are encoded so.
fn first(codec: Codec, settings: EncoderSettings) -> Vec<u8> {
    let layout = Layout::packed(PixelFormat::Nv12, SEEN, 16);
    encoded(codec, &layout, SEEN, settings).swap_remove(0)
}

#[test]
fn profile_and_level_of_h264_are_those_that_were_asked_for() {
    let of = |profile| Some(Profile::H264(profile));
    for (profile, wanted) in [
        (of(H264Profile::Baseline), 66),
        (of(H264Profile::Main), 77),
        (of(H264Profile::High), 100),
        // What devices tell where nothing was asked for.
        (None, 100),
    ] {
        for level in [None, Some(12), Some(31), Some(42)] {
            let stream = first(Codec::H264, asked(profile, level));
            let parameters = nal(&stream, 1, |byte| byte & 0x1f == 7);
            assert_eq!(parameters[0], wanted, "{profile:?}");
            if wanted == 66 {
                assert_eq!(parameters[1] & 0x40, 0x40, "constrained baseline");
            }
            if let Some(level) = level {
                assert_eq!(parameters[2], level, "{profile:?}");
            }
        }
    }
}

#[test]
fn level_and_tier_of_hevc_are_those_that_were_asked_for_or_the_least_that_will_do() {
    for (tier, level, wanted) in [
        (Tier::Main, Some(31), Some((0, 31))),
        (Tier::Main, Some(62), Some((0, 62))),
        // Too many bits for it.
        (Tier::Main, Some(10), Some((0, 21))),
        (Tier::High, None, Some((1, 40))),
        (Tier::High, Some(31), Some((1, 40))),
        (Tier::High, Some(51), Some((1, 51))),
        (Tier::Main, None, None),
    ] {
        let profile = Some(Profile::Hevc(HevcProfile::Main));
        let settings = EncoderSettings {
            tier,
            ..asked(profile, level)
        };
        let stream = first(Codec::Hevc, settings);
        let parameters = nal(&stream, 2, |byte| byte >> 1 & 0x3f == 33);
        // Behind a byte: space, tier and profile; 4 bytes of compatibility, 6 of constraints; the level
        // times thirty.
        let (told, of) = (parameters[1], parameters[12]);
        assert_eq!(told & 0x1f, 1, "profile 1");
        match wanted {
            Some(wanted) => assert_eq!((told >> 5 & 1, of / 3), wanted, "{tier:?} {level:?}"),
            None => assert!(told >> 5 & 1 == 0 && of > 0),
        }
    }
}

#[test]
fn h264_is_without_the_tools_that_were_forbidden() {
    for (arithmetic, large_transform) in [(true, true), (false, true), (false, false)] {
        let settings = EncoderSettings {
            tools: H264Tools {
                arithmetic,
                large_transform,
            },
            ..EncoderSettings::default()
        };
        let stream = first(Codec::H264, settings);
        let picture_parameters = nal(&stream, 1, |byte| byte & 0x1f == 8);
        // Two numbers of one bit each, for both are 0; then the kind of coding.
        assert_eq!(picture_parameters[0] >> 6, 0b11);
        let is_arithmetic = picture_parameters[0] >> 5 & 1 == 1;
        assert_eq!(is_arithmetic, arithmetic);
    }
}

#[test]
fn pictures_that_refer_to_later_ones_come_after_them_with_their_own_times() {
    for codec in [Codec::H264, Codec::Hevc] {
        let settings = EncoderSettings {
            b_pictures: 2,
            ..EncoderSettings::default()
        };
        let layout = Layout::packed(PixelFormat::Nv12, SEEN, 16);
        let (host, told) = bench::host(60_000);
        let session = Encoder::open(&library(), codec, (&layout, SEEN), settings, &host);
        let mut session = session.unwrap();
        let pictures = (0..12).map(|number| RawPicture::new(&layout, SEEN, drawn(&layout, number)));
        let mut times = Vec::new();
        let pictures = pictures.map(Option::unwrap).collect();
        let units = run_timed(&mut session, &told, pictures, &mut times);
        assert!(!times.is_sorted(), "{codec}: {times:?}");
        times.sort_unstable();
        assert!(times.into_iter().eq(0..12), "{codec}");
        assert_eq!(bench::decoded(codec, &units).len(), 12);
    }
}

#[test]
fn quantizers_bound_what_is_spent() {
    let layout = Layout::packed(PixelFormat::Nv12, SEEN, 16);
    for (codec, most) in [
        (Codec::H264, 51),
        (Codec::Hevc, 51),
        (Codec::Vp8, 63),
        (Codec::Vp9, 63),
    ] {
        let bytes = |quantizers| {
            let settings = EncoderSettings {
                quantizers,
                ..EncoderSettings::default()
            };
            let units = encoded(codec, &layout, SEEN, settings);
            units.iter().map(Vec::len).sum::<usize>()
        };
        let (coarse, any) = (bytes(Some((most, most))), bytes(None));
        // Of so few pictures headers and what encoders say of themselves are a good part.
        assert!(coarse * 5 < any * 4, "{codec}: {coarse} and {any} bytes");
    }
}

#[test]
fn rates_beyond_what_an_element_takes_end_nothing() {
    for codec in [Codec::H264, Codec::Hevc, Codec::Vp8, Codec::Vp9] {
        let settings = EncoderSettings {
            bitrate: 1_000_000_000,
            ..EncoderSettings::default()
        };
        assert!(!first(codec, settings).is_empty());
    }
}

#[test]
fn a_stream_says_the_rate_of_its_pictures_as_a_fraction() {
    for (codec, parser) in [(Codec::H264, "h264parse"), (Codec::Hevc, "h265parse")] {
        let settings = EncoderSettings {
            frame_rate: FrameRate::new(30_000, 1001),
            ..EncoderSettings::default()
        };
        let caps = bench::parsed(parser, &first(codec, settings)).to_string();
        assert!(
            caps.contains("framerate=(fraction)30000/1001"),
            "{codec}: {caps}"
        );
    }
}

#[test]
fn the_profile_of_vp8_is_the_one_that_was_asked_for() {
    for (number, profile) in [(0, Vp8Profile::Zero), (1, Vp8Profile::One)] {
        let stream = first(Codec::Vp8, asked(Some(Profile::Vp8(profile)), None));
        // RFC 6386, 9.1: a bit, and three of the version.
        assert_eq!(stream[0] >> 1 & 7, number);
    }
    let stream = first(Codec::Vp8, asked(None, None));
    assert_eq!(stream[0] >> 1 & 7, 0);
}

#[test]
fn a_stream_of_vp9_is_of_profile_0() {
    let stream = first(Codec::Vp9, asked(None, None));
    // Two bits that are always so, then the profile's.
    assert_eq!(stream[0] >> 4, 0b1000);
}

/// Rings that grow, which takes bits without end: luma, and grey for colours.
fn rings(layout: &Layout, number: usize) -> Vec<u8> {
    let mut bytes = vec![128; layout.bytes()];
    let luma = layout.planes()[0];
    for row in 0..luma.rows {
        for column in 0..luma.stride {
            let far = column * column * 20 / luma.stride + row * row * 20 / luma.rows;
            let turn = (far + 3 * number) % 256;
            let height = (turn as f64 / 256.0 * std::f64::consts::TAU).sin();
            bytes[row * luma.stride + column] = (128.0 + 110.0 * height) as u8;
        }
    }
    bytes
}

#[test]
fn the_bit_rate_is_the_one_that_was_asked_for_give_or_take_a_tenth() {
    let (size, bitrate, frame_rate) = (Size::new(176, 144), 400_000, 30);
    let layout = Layout::packed(PixelFormat::Nv12, size, 16);
    let raw: Vec<Vec<u8>> = (0..150).map(|number| rings(&layout, number)).collect();
    for codec in [Codec::H264, Codec::Hevc, Codec::Vp8, Codec::Vp9] {
        for mode in [BitrateMode::Constant, BitrateMode::Variable] {
            let settings = EncoderSettings {
                bitrate,
                mode,
                frame_rate: FrameRate::per_second(frame_rate),
                ..EncoderSettings::default()
            };
            let (host, told) = bench::host(60_000);
            let session = Encoder::open(&library(), codec, (&layout, size), settings, &host);
            let pictures = raw.iter().cloned();
            let pictures = pictures.map(|bytes| RawPicture::new(&layout, size, bytes).unwrap());
            let units = run(&mut session.unwrap(), &told, pictures.collect());
            let bits = units.iter().map(|unit| 8 * unit.len()).sum::<usize>() as f64;
            let rate = bits * f64::from(frame_rate) / raw.len() as f64;
            let of = rate / f64::from(bitrate);
            assert!((0.9..=1.1).contains(&of), "{codec} {mode:?}: {rate} bit/s");
        }
    }
}
