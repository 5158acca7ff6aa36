// SPDX-License-Identifier: Apache-2.0

//! Rectangles: an encoder's crop, and the place of a decoder's pictures in larger buffers.

#![cfg(feature = "gstreamer")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[allow(dead_code, reason = "the tests of streams use the rest")]
mod scripted;

use agl_virtio_codec::coder::Job;
use agl_virtio_codec::{Event as Told, Position, Size};
use agl_virtio_media::codec::Way;
use agl_virtio_media::v4l2::Ioctl;
use agl_virtio_media::v4l2::input::Selection;
use rustix::io::Errno;
use zerocopy::FromZeros;

use scripted::{CAPTURE, Heard, OUTPUT, Program};

const CROP: u32 = 0;
const CROP_DEFAULT: u32 = 1;
const CROP_BOUNDS: u32 = 2;
const COMPOSE: u32 = 0x100;
const COMPOSE_DEFAULT: u32 = 0x101;
const COMPOSE_BOUNDS: u32 = 0x102;
const COMPOSE_PADDED: u32 = 0x103;
const AT_LEAST: u32 = 1;
const AT_MOST: u32 = 2;

/// Left, top, width, height.
type Place = (i32, i32, u32, u32);

fn selection(type_: u32, target: u32, place: Place, flags: u32) -> Selection {
    let mut selection = Selection::new_zeroed();
    (selection.type_, selection.target, selection.flags) = (type_, target, flags);
    (selection.r.left, selection.r.top) = (place.0, place.1);
    (selection.r.width, selection.r.height) = (place.2, place.3);
    selection
}

fn place_in(selection: &Selection) -> Place {
    let r = selection.r;
    (r.left, r.top, r.width, r.height)
}

/// The queue of pictures, by its single-planar name.
fn pictures(way: Way) -> u32 {
    match way {
        Way::Decode => 1,
        Way::Encode => 2,
    }
}

fn get(program: &mut Program, way: Way, target: u32) -> Result<Place, i32> {
    let mut wish = selection(pictures(way), target, (9, 9, 9, 9), 0);
    match program.ioctl(Ioctl::GSelection, &mut wish) {
        0 => Ok(place_in(&wish)),
        error => Err(error),
    }
}

fn set(
    program: &mut Program,
    way: Way,
    target: u32,
    place: Place,
    flags: u32,
) -> Result<Place, i32> {
    let mut wish = selection(pictures(way), target, place, flags);
    match program.ioctl(Ioctl::SSelection, &mut wish) {
        0 => Ok(place_in(&wish)),
        error => Err(error),
    }
}

fn encoder(width: u32, height: u32) -> Program {
    let mut program = Program::new(Way::Encode);
    program.set_format(CAPTURE, b"H264", 0, 0);
    program.set_format(OUTPUT, b"NV12", width, height);
    program
}

#[test]
fn an_encoder_encodes_the_rectangle_that_its_program_has_chosen() {
    let mut program = encoder(64, 48);
    for target in [CROP, CROP_DEFAULT, CROP_BOUNDS] {
        assert_eq!(get(&mut program, Way::Encode, target), Ok((0, 0, 64, 48)));
    }
    let chosen = set(&mut program, Way::Encode, CROP, (20, 10, 32, 16), 0);
    assert_eq!(chosen, Ok((20, 10, 32, 16)));
    assert_eq!(get(&mut program, Way::Encode, CROP), Ok((20, 10, 32, 16)));
    for target in [CROP_DEFAULT, CROP_BOUNDS] {
        assert_eq!(get(&mut program, Way::Encode, target), Ok((0, 0, 64, 48)));
    }
    assert_eq!(program.size_of(CAPTURE), (32, 16));
    assert_eq!(program.size_of(OUTPUT), (64, 48));
    for queue in [OUTPUT, CAPTURE] {
        program.request(queue, 2);
        program.stream_on(queue);
    }
    program.queue(OUTPUT, 0, 64 * 48 * 3 / 2, 5);
    let Job::Encode(_, layout, seen, _) = program.job() else {
        panic!("no encoder")
    };
    assert_eq!(
        (layout.origin, seen),
        (Position::new(20, 10), Size::new(32, 16))
    );
    assert_eq!(
        program.codec(),
        ["push 4608 at 0"],
        "the whole buffer, once"
    );
    let busy = Err(Errno::BUSY.raw_os_error());
    assert_eq!(
        set(&mut program, Way::Encode, CROP, (0, 0, 32, 16), 0),
        busy
    );
}

#[test]
fn another_format_of_an_encoders_pictures_is_seen_as_a_whole() {
    let mut program = encoder(64, 48);
    set(&mut program, Way::Encode, CROP, (20, 10, 32, 16), 0).unwrap();
    program.set_format(OUTPUT, b"YU12", 80, 64);
    assert_eq!(get(&mut program, Way::Encode, CROP), Ok((0, 0, 80, 64)));
}

#[test]
fn rectangles_are_rounded_as_the_flags_ask_and_never_leave_the_picture() {
    let mut program = encoder(64, 48);
    let range = Err(Errno::RANGE.raw_os_error());
    for (place, flags, wanted) in [
        ((21, 11, 31, 15), 0, Ok((20, 10, 30, 14))),
        ((21, 11, 31, 15), AT_LEAST, Ok((20, 10, 32, 16))),
        ((21, 11, 31, 15), AT_MOST, Ok((20, 10, 30, 14))),
        ((21, 11, 31, 15), AT_MOST | AT_LEAST, range),
        ((0, 0, 65, 48), AT_LEAST, range),
        ((0, 0, 1, 48), AT_MOST, range),
        ((1000, 1000, 16, 16), 0, Ok((48, 32, 16, 16))),
        ((-1000, -1000, 16, 16), 0, Ok((0, 0, 16, 16))),
        (
            (i32::MIN, i32::MAX, u32::MAX, u32::MAX),
            0,
            Ok((0, 0, 64, 48)),
        ),
        ((i32::MAX, i32::MIN, 0, 0), !3, Ok((62, 0, 2, 2))),
    ] {
        let told = set(&mut program, Way::Encode, CROP, place, flags);
        assert_eq!(told, wanted, "{place:?} {flags}");
    }
}

/// A decoder that has found a stream of 32x16, whose program has made buffers of 64x48.
fn decoder() -> Program {
    let mut program = Program::new(Way::Decode);
    program.set_format(OUTPUT, b"H264", 32, 16);
    program.request(OUTPUT, 2);
    program.queue(OUTPUT, 0, 100, 7);
    program.stream_on(OUTPUT);
    program.says([Told::Size(Size::new(31, 15))]);
    assert_eq!(program.heard(), [Heard::Output(0, 7), Heard::SourceChange]);
    program.set_format(CAPTURE, b"NV12", 64, 48);
    assert_eq!(program.size_of(CAPTURE), (64, 48));
    program
}

fn go(program: &mut Program) {
    program.request(CAPTURE, 3);
    for index in 0..3 {
        program.queue(CAPTURE, index, 0, 0);
    }
    program.stream_on(CAPTURE);
}

#[test]
fn a_decoders_picture_lies_where_its_program_wants_it() {
    let mut program = decoder();
    let placed = set(&mut program, Way::Decode, COMPOSE, (20, 10, 31, 15), 0);
    assert_eq!(placed, Ok((20, 10, 31, 15)));
    for (target, place) in [
        (CROP, (0, 0, 31, 15)),
        (CROP_DEFAULT, (0, 0, 31, 15)),
        (CROP_BOUNDS, (0, 0, 32, 16)),
        (COMPOSE, (20, 10, 31, 15)),
        (COMPOSE_DEFAULT, (0, 0, 31, 15)),
        (COMPOSE_BOUNDS, (0, 0, 64, 48)),
        (COMPOSE_PADDED, (20, 10, 31, 15)),
    ] {
        assert_eq!(
            get(&mut program, Way::Decode, target),
            Ok(place),
            "{target}"
        );
    }
    go(&mut program);
    program.says([Told::Output(0)]);
    assert_eq!(program.heard(), [Heard::Picture(0, 7)]);
    let bytes = program.bytes(CAPTURE, 0);
    let first = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 7);
    assert_eq!(first(&bytes), Some(10 * 64 + 20));
    assert_eq!(first(&bytes[64 * 48..]), Some(5 * 64 + 20));
    let busy = Err(Errno::BUSY.raw_os_error());
    let moved = set(&mut program, Way::Decode, COMPOSE, (0, 0, 31, 15), 0);
    assert_eq!(moved, busy, "while pictures come");
}

#[test]
fn a_decoder_scales_nothing_and_stays_within_its_buffers() {
    let mut program = decoder();
    let range = Err(Errno::RANGE.raw_os_error());
    for (place, flags, wanted) in [
        ((7, 3, 31, 15), 0, Ok((6, 2, 31, 15))),
        ((500, 500, 31, 15), 0, Ok((32, 32, 31, 15))),
        ((-1, -1, 31, 15), 0, Ok((0, 0, 31, 15))),
        ((0, 0, 64, 48), 0, Ok((16, 16, 31, 15))),
        ((0, 0, 64, 48), AT_LEAST, range),
        ((0, 0, 30, 14), AT_MOST, range),
        ((0, 0, 31, 15), AT_LEAST | AT_MOST, Ok((0, 0, 31, 15))),
        (
            (i32::MAX, i32::MIN, u32::MAX, u32::MAX),
            0,
            Ok((32, 0, 31, 15)),
        ),
    ] {
        let told = set(&mut program, Way::Decode, COMPOSE, place, flags);
        assert_eq!(told, wanted, "{place:?} {flags}");
    }
    // What it does not crop it does not crop otherwise.
    let crop = set(&mut program, Way::Decode, CROP, (4, 4, 8, 8), 0);
    assert_eq!(crop, Ok((0, 0, 31, 15)));
    let invalid = Err(Errno::INVAL.raw_os_error());
    for target in [COMPOSE_DEFAULT, COMPOSE_BOUNDS, COMPOSE_PADDED, 0xdead] {
        let refused = set(&mut program, Way::Decode, target, (0, 0, 31, 15), 0);
        assert_eq!(refused, invalid);
    }
}

#[test]
fn buffers_are_never_smaller_than_the_stream_nor_larger_than_allowed() {
    let mut program = decoder();
    for (width, height, wanted) in [
        (0, 0, (32, 16)),
        (33, 17, (34, 18)),
        (16, 200, (32, 200)),
        (u32::MAX, u32::MAX, (512, 512)),
    ] {
        program.set_format(CAPTURE, b"NV12", width, height);
        assert_eq!(program.size_of(CAPTURE), wanted);
    }
}

#[test]
fn another_format_or_another_stream_puts_pictures_at_the_beginning() {
    let mut program = decoder();
    set(&mut program, Way::Decode, COMPOSE, (20, 10, 31, 15), 0).unwrap();
    program.set_format(CAPTURE, b"YU12", 64, 48);
    let place = get(&mut program, Way::Decode, COMPOSE);
    assert_eq!(place, Ok((0, 0, 31, 15)));
    set(&mut program, Way::Decode, COMPOSE, (20, 10, 31, 15), 0).unwrap();
    go(&mut program);
    program.says([Told::Output(0), Told::Size(Size::new(48, 40))]);
    let heard = program.heard();
    assert_eq!(
        heard,
        [Heard::Picture(0, 7), Heard::SourceChange, Heard::Last(1)]
    );
    assert_eq!(program.size_of(CAPTURE), (48, 40));
    let place = get(&mut program, Way::Decode, COMPOSE);
    assert_eq!(place, Ok((0, 0, 48, 40)));
}

#[test]
fn a_program_that_has_supposed_the_size_keeps_the_place_that_it_chose() {
    let mut program = Program::new(Way::Decode);
    program.set_format(OUTPUT, b"H264", 32, 16);
    program.set_format(CAPTURE, b"NV12", 64, 48);
    set(&mut program, Way::Decode, COMPOSE, (20, 10, 32, 16), 0).unwrap();
    go(&mut program);
    program.request(OUTPUT, 1);
    program.queue(OUTPUT, 0, 100, 7);
    program.stream_on(OUTPUT);
    program.says([Told::Size(Size::new(32, 16)), Told::Output(0)]);
    assert_eq!(program.heard(), [Heard::Output(0, 7), Heard::Picture(0, 7)]);
    let place = get(&mut program, Way::Decode, COMPOSE);
    assert_eq!(place, Ok((20, 10, 32, 16)));
}
