// SPDX-License-Identifier: Apache-2.0

//! Rectangles over vhost-user: what of a picture is encoded, and where a decoded one lies.

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
#[allow(dead_code, reason = "the tests of whole streams use the rest")]
mod player;

use agl_virtio_codec::{Codec, Layout, PixelFormat, Position, Size};
use bench::{Fnv, decoded, encode, plain, psnr};
use frontend::Deadline;
use frontend::clients::video::{
    DONE, INPUT, OK, OUTPUT, Params, RESOLUTION_CHANGED, VideoClient, done,
};
use player::{CODED, H264, NV12, PATIENCE, Resource, VP8, client, launch};

/// What memory has around a picture.
const AROUND: u8 = 0xa5;
const STREAM: u32 = 1;

/// Left, top, width and height.
type Place = [u32; 4];

/// Asks for pictures of this size and place; what the device has made of it.
fn agree(driver: &mut VideoClient, queue: u32, size: Size, place: Place) -> (Size, Place) {
    let mut wish = Params::new(queue, driver.draft().raw(NV12), size.width, size.height);
    wish.0[6..10].copy_from_slice(&place);
    assert_eq!(driver.set_params(STREAM, &wish).unwrap(), OK);
    let told = driver.params(STREAM, queue).unwrap();
    let place = told.0[6..10].try_into().unwrap();
    (Size::new(told.size().0, told.size().1), place)
}

fn layout(size: Size, place: Place) -> Layout {
    let mut layout = Layout::packed(PixelFormat::Nv12, size, 16);
    layout.origin = Position::new(place[0], place[1]);
    layout
}

/// Calls `look` with each row of what is seen in memory, plane by plane.
fn rows(layout: &Layout, seen: Size, memory: &mut [u8], mut look: impl FnMut(&mut [u8])) {
    let even = seen.even();
    let shapes = [(seen.width, seen.height), (even.width, even.height / 2)];
    for (plane, (bytes, rows)) in layout.planes().iter().zip(shapes) {
        for row in 0..rows as usize {
            let begin = plane.offset + plane.row(row);
            look(&mut memory[begin..][..bytes as usize]);
        }
    }
}

#[test]
fn a_decoded_picture_lies_where_the_driver_wants_it_and_nothing_else_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let seen = Size::new(175, 143);
    let clip = encode("vp8enc deadline=1 cpu-used=8", seen, 1);
    assert_eq!(driver.create(STREAM, VP8).unwrap(), OK);
    let coded = Resource::new(&mut driver, CODED);
    let attached = driver.attach(STREAM, INPUT, 1, &[&coded.runs]);
    assert_eq!(attached.unwrap(), OK);
    coded.write(&mut driver, &clip.units[0]);
    let bytes = clip.units[0].len() as u32;
    let input = driver.queue(STREAM, INPUT, 1, 7, bytes).unwrap();
    let told = driver.event(Deadline::after(PATIENCE)).unwrap();
    assert_eq!(told, (RESOLUTION_CHANGED, STREAM));

    let room = Size::new(320, 240);
    let wish = [67, 35, seen.width, seen.height];
    let (size, place) = agree(&mut driver, OUTPUT, room, wish);
    assert_eq!((size, place), (room, [66, 34, seen.width, seen.height]));
    let layout = layout(size, place);
    let pictures = Resource::new(&mut driver, layout.bytes() as u32);
    pictures.write(&mut driver, &vec![AROUND; layout.bytes()]);
    let attached = driver.attach(STREAM, OUTPUT, 1, &[&pictures.runs]);
    assert_eq!(attached.unwrap(), OK);
    let output = driver.queue(STREAM, OUTPUT, 1, 0, 0).unwrap();
    let answer = loop {
        let (chain, answer) = driver.next(Deadline::after(PATIENCE)).unwrap();
        if chain == output {
            break done(&answer);
        }
        assert_eq!(chain, input);
    };
    assert_eq!((answer.kind, answer.timestamp), (DONE, 7));
    let mut memory = pictures.read(&mut driver);
    let mut sum = Fnv::new();
    rows(&layout, seen, &mut memory, |row| {
        sum.add(row);
        row.fill(AROUND);
    });
    assert_eq!([sum.value()][..], plain(Codec::Vp8, &clip)[..]);
    assert!(memory.iter().all(|byte| *byte == AROUND));
}

#[test]
fn what_lies_in_the_rectangle_is_encoded_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "encoder").start().unwrap();
    let mut driver = client(&service);
    assert_eq!(driver.create(STREAM, H264).unwrap(), OK);
    let (room, seen) = (Size::new(160, 112), Size::new(96, 64));
    let wish = [35, 19, seen.width, seen.height];
    let (size, place) = agree(&mut driver, INPUT, room, wish);
    assert_eq!((size, place), (room, [34, 18, seen.width, seen.height]));
    let layout = layout(size, place);
    // All around is noise, which would cost quality; inside is a slow ramp.
    let mut memory: Vec<u8> = (0..layout.bytes() as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let (mut wanted, mut number) = (Vec::new(), 0);
    rows(&layout, seen, &mut memory, |row| {
        for (column, byte) in row.iter_mut().enumerate() {
            *byte = (60 + column / 2 + number / 3) as u8;
        }
        number += 1;
        wanted.extend_from_slice(row);
    });
    let pictures = Resource::new(&mut driver, layout.bytes() as u32);
    pictures.write(&mut driver, &memory);
    let coded = Resource::new(&mut driver, CODED);
    for (queue, resource) in [(INPUT, &pictures), (OUTPUT, &coded)] {
        let attached = driver.attach(STREAM, queue, 1, &[&resource.runs]);
        assert_eq!(attached.unwrap(), OK);
    }
    let output = driver.queue(STREAM, OUTPUT, 1, 0, 0).unwrap();
    let bytes = layout.bytes() as u32;
    driver.queue(STREAM, INPUT, 1, 3, bytes).unwrap();
    assert_eq!(driver.drain(STREAM).unwrap(), OK);
    let answer = loop {
        let (chain, answer) = driver.next(Deadline::after(PATIENCE)).unwrap();
        if chain == output {
            break done(&answer);
        }
    };
    assert_eq!((answer.kind, answer.timestamp), (DONE, 3));
    let mut unit = coded.read(&mut driver);
    unit.truncate(answer.sizes[0] as usize);
    let pictures = decoded(Codec::H264, &[unit]);
    let near = psnr(&pictures[0], &wanted);
    assert!(near > 38.0, "{near} dB");
}

#[test]
fn hostile_rectangles_are_put_into_the_picture() {
    let most = u32::MAX;
    for (function, queue) in [("decoder", OUTPUT), ("encoder", INPUT)] {
        let directory = tempfile::tempdir().unwrap();
        let service = launch(directory.path(), function).start().unwrap();
        let mut driver = client(&service);
        assert_eq!(driver.create(STREAM, H264).unwrap(), OK);
        for place in [
            [most, most, most, most],
            [most, 0, 2, 2],
            [1 << 31, 1 << 31, 1 << 31, 1 << 31],
            [0, 0, most, 1],
            [most - 1, 3, 64, 64],
        ] {
            for side in [0, 16, 64, most] {
                let wish = Size::new(side, side);
                let (size, [left, top, width, height]) = agree(&mut driver, queue, wish, place);
                let end = |begin: u32, len: u32| begin.checked_add(len);
                assert!(width > 0 && end(left, width).unwrap() <= size.width);
                assert!(height > 0 && end(top, height).unwrap() <= size.height);
            }
        }
    }
}
