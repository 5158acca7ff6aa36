// SPDX-License-Identifier: Apache-2.0

//! Decoders and encoders without a codec: what their programs are told, and in which order, as V4L2
//! has it for stateful codecs.

#![cfg(feature = "gstreamer")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[allow(dead_code, reason = "the tests of rectangles use the rest")]
mod scripted;

use std::time::Duration;

use agl_virtio_codec::{Event as Told, Size};
use agl_virtio_media::codec::Way;
use agl_virtio_media::v4l2::input::{CaptureParm, DecoderCmd, EncoderCmd, FrameSize, Selection};
use agl_virtio_media::v4l2::{Ioctl, event};
use rustix::io::Errno;
use zerocopy::FromZeros;

use scripted::{CAPTURE, Heard, OUTPUT, Program};

/// A decoder of small pictures whose program has looked at the header and streams.
fn decoding() -> Program {
    let mut program = Program::new(Way::Decode);
    program.set_format(OUTPUT, b"H264", 64, 48);
    program.request(OUTPUT, 2);
    program.queue(OUTPUT, 0, 100, 7);
    program.stream_on(OUTPUT);
    program.says([Told::Size(Size::new(64, 48))]);
    assert_eq!(program.heard(), [Heard::Output(0, 7), Heard::SourceChange]);
    program.request(CAPTURE, 3);
    for index in 0..3 {
        program.queue(CAPTURE, index, 0, 0);
    }
    program.stream_on(CAPTURE);
    program
}

#[test]
fn a_decoder_tells_the_size_then_gives_pictures_with_their_times() {
    let mut program = decoding();
    program.says([Told::Output(0)]);
    assert_eq!(program.heard(), [Heard::Picture(0, 7)]);
    assert_eq!(program.codec(), ["push 100 at 0"]);
    // The times of inputs come back in whichever order the codec gives pictures.
    program.queue(OUTPUT, 0, 50, 20);
    program.queue(OUTPUT, 1, 50, 30);
    program.says([Told::Output(2), Told::Output(1)]);
    assert_eq!(
        program.heard(),
        [
            Heard::Output(0, 20),
            Heard::Output(1, 30),
            Heard::Picture(1, 30),
            Heard::Picture(2, 20)
        ]
    );
}

#[test]
fn a_picture_lies_in_the_guests_pages() {
    let mut program = decoding();
    program.says([Told::Output(0)]);
    assert_eq!(program.heard(), [Heard::Picture(0, 7)]);
    let bytes = program.bytes(CAPTURE, 0);
    assert!(bytes[..64 * 48 * 3 / 2].iter().all(|byte| *byte == 7));
    assert!(bytes[64 * 48 * 3 / 2..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_drain_takes_what_was_given_before_and_ends_with_an_empty_last_buffer() {
    let mut program = decoding();
    program.queue(OUTPUT, 0, 60, 1);
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 1), 0);
    assert_eq!(program.heard(), [Heard::Output(0, 1)]);
    assert_eq!(
        program.codec(),
        ["push 100 at 0", "push 60 at 1", "drain"],
        "what was given goes in first"
    );
    let busy = Errno::BUSY.raw_os_error();
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 1), busy);
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 0), busy);
    program.queue(OUTPUT, 1, 70, 2);
    assert_eq!(program.heard(), [], "what comes during a drain waits");
    program.says([Told::Output(0), Told::Output(1), Told::Drained]);
    assert_eq!(
        program.heard(),
        [
            Heard::Picture(0, 7),
            Heard::Picture(1, 1),
            Heard::End,
            Heard::Last(2)
        ]
    );
    assert_eq!(program.codec().len(), 3, "it is stopped");
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 1), 0);
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 0), 0);
    program.turn();
    assert_eq!(program.heard(), [Heard::Output(1, 2)]);
    assert_eq!(program.codec()[3..], ["push 70 at 2"]);
}

#[test]
fn the_end_of_a_drain_waits_for_a_buffer_and_nothing_was_given_ends_at_once() {
    let mut program = Program::new(Way::Decode);
    program.request(OUTPUT, 1);
    program.stream_on(OUTPUT);
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 1), 0);
    assert_eq!(program.heard(), [Heard::End]);
    program.request(CAPTURE, 2);
    program.stream_on(CAPTURE);
    assert_eq!(program.heard(), []);
    program.queue(CAPTURE, 0, 0, 0);
    assert_eq!(program.heard(), [Heard::Last(0)]);
}

#[test]
fn another_size_holds_the_stream_until_the_program_has_looked() {
    let mut program = decoding();
    program.says([
        Told::Output(0),
        Told::Size(Size::new(80, 64)),
        Told::Output(0),
    ]);
    assert_eq!(
        program.heard(),
        [Heard::Picture(0, 7), Heard::SourceChange, Heard::Last(1)]
    );
    assert_eq!(program.size_of(CAPTURE), (80, 64));
    program.stream_off(CAPTURE);
    program.request(CAPTURE, 0);
    program.request(CAPTURE, 2);
    for index in 0..2 {
        program.queue(CAPTURE, index, 0, 0);
    }
    assert_eq!(program.heard(), []);
    program.stream_on(CAPTURE);
    assert_eq!(program.heard(), [Heard::Picture(0, 7)]);
}

#[test]
fn the_end_of_the_former_size_comes_in_a_buffer_of_that_size() {
    let mut program = decoding();
    program.says([
        Told::Output(0),
        Told::Output(0),
        Told::Output(0),
        Told::Size(Size::new(80, 64)),
        Told::Output(0),
    ]);
    assert_eq!(program.heard().len(), 4, "three pictures and the change");
    let former = 64 * 48 * 3 / 2;
    assert_eq!(program.try_queue(CAPTURE, 1, 0, former, 1), 0);
    assert_eq!(program.heard(), [Heard::Last(1)]);
    // A program may give it back before it looks; nothing is written to it.
    assert_eq!(program.try_queue(CAPTURE, 1, 0, former, 1), 0);
    assert_eq!(program.heard(), []);
    program.stream_off(CAPTURE);
    program.request(CAPTURE, 0);
    program.request(CAPTURE, 2);
    let invalid = Errno::INVAL.raw_os_error();
    assert_eq!(program.try_queue(CAPTURE, 0, 0, former, 1), invalid);
    program.queue(CAPTURE, 0, 0, 0);
    program.stream_on(CAPTURE);
    assert_eq!(program.heard(), [Heard::Picture(0, 7)]);
}

#[test]
fn a_buffer_that_is_too_small_for_the_new_size_comes_back_as_an_error() {
    let mut program = decoding();
    program.says([Told::Size(Size::new(80, 64)), Told::Output(0)]);
    assert_eq!(program.heard(), [Heard::SourceChange, Heard::Last(0)]);
    // A program that does not look.
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 0), 0);
    program.turn();
    assert_eq!(program.heard(), [Heard::Damaged(1)]);
}

#[test]
fn an_odd_size_is_seen_by_the_selection_and_a_decoder_scales_nothing() {
    let mut program = decoding();
    program.says([Told::Size(Size::new(63, 47))]);
    assert_eq!(program.size_of(CAPTURE), (64, 48));
    let mut selection = Selection::new_zeroed();
    (selection.type_, selection.target) = (1, 0x100);
    assert_eq!(program.ioctl(Ioctl::GSelection, &mut selection), 0);
    assert_eq!((selection.r.width, selection.r.height), (63, 47));
    (selection.r.width, selection.type_) = (20, 9);
    assert_eq!(program.ioctl(Ioctl::SSelection, &mut selection), 0);
    assert_eq!(selection.r.width, 63);
    let range = Errno::RANGE.raw_os_error();
    (selection.r.width, selection.flags) = (20, 2);
    assert_eq!(program.ioctl(Ioctl::SSelection, &mut selection), range);
    selection.type_ = 2;
    let invalid = Errno::INVAL.raw_os_error();
    assert_eq!(program.ioctl(Ioctl::GSelection, &mut selection), invalid);
}

#[test]
fn a_seek_forgets_what_was_given() {
    let mut program = decoding();
    program.queue(OUTPUT, 1, 10, 2);
    program.stream_off(OUTPUT);
    assert_eq!(program.heard(), [], "what STREAMOFF took back is not told");
    assert_eq!(program.codec().last().unwrap(), "flush");
    program.stream_on(OUTPUT);
    program.queue(OUTPUT, 0, 30, 40);
    assert_eq!(program.heard(), [], "the codec still forgets");
    program.says([Told::Flushed]);
    assert_eq!(program.heard(), [Heard::Output(0, 40)]);
}

#[test]
fn capture_buffers_that_are_taken_back_end_a_drain_nobody_waits_for() {
    let mut program = decoding();
    assert_eq!(program.command::<DecoderCmd>(Ioctl::DecoderCmd, 1), 0);
    program.stream_off(CAPTURE);
    for index in 0..2 {
        program.queue(CAPTURE, index, 0, 0);
    }
    program.stream_on(CAPTURE);
    program.queue(OUTPUT, 1, 9, 3);
    program.says([Told::Drained]);
    assert_eq!(program.heard(), [Heard::Output(1, 3)], "no end is told");
}

#[test]
fn a_codec_that_fails_ends_its_session_alone() {
    let mut program = decoding();
    program.says([Told::Failed(agl_virtio_codec::CodecError::NoCodec)]);
    assert_eq!(program.lost(), [(1, Errno::IO)]);
}

#[test]
fn a_paused_program_leaves_the_device_asleep() {
    let now = Duration::from_secs(100);
    let mut program = decoding();
    program.look_after(Duration::ZERO);
    assert!(
        program.due(now).is_some_and(|due| due > now),
        "a codec that is silent is looked at, but not without end"
    );
    program.says([
        Told::Output(0),
        Told::Output(0),
        Told::Output(0),
        Told::Output(0),
    ]);
    assert_eq!(program.heard().len(), 3, "and there is no fourth buffer");
    assert_eq!(program.due(now), None);
    program.queue(CAPTURE, 0, 0, 0);
    assert_eq!(program.heard(), [Heard::Picture(0, 7)]);
    assert!(program.due(now).is_some());
    program.says([Told::Size(Size::new(80, 64))]);
    assert_eq!(program.heard(), [Heard::SourceChange]);
    assert_eq!(program.due(now), None, "the program is to look at the size");
    program.stream_off(OUTPUT);
    assert!(program.due(now).is_some(), "a flush is waited for");
}

#[test]
fn a_session_that_is_lost_for_its_pixels_takes_none_from_the_others() {
    let mut program = Program::new(Way::Encode);
    program.open(2);
    // The first one wants more than all may have together.
    for (session, rate) in [(1, 120), (2, 30)] {
        program.session = session;
        program.set_format(OUTPUT, b"NV12", 512, 512);
        assert_eq!(program.rate(rate), 0);
        for queue in [OUTPUT, CAPTURE] {
            program.request(queue, 2);
            program.stream_on(queue);
        }
        program.queue(OUTPUT, 0, 512 * 512 * 3 / 2, 0);
    }
    // Each turn says it again, for nobody closes it here.
    let lost = program.lost();
    assert!(!lost.is_empty());
    assert!(lost.iter().all(|one| *one == (1, Errno::IO)), "{lost:?}");
    assert_eq!(program.codec(), ["push 393216 at 0"]);
}

#[test]
fn another_rate_is_another_encoder() {
    let mut program = encoding();
    program.queue(OUTPUT, 0, 64 * 48 * 3 / 2, 5);
    assert_eq!(program.rate(15), Errno::BUSY.raw_os_error());
    program.stream_off(OUTPUT);
    assert_eq!(program.rate(15), 0);
    program.stream_on(OUTPUT);
    program.queue(OUTPUT, 1, 64 * 48 * 3 / 2, 6);
    assert_eq!(
        program.codec(),
        ["push 4608 at 0", "flush", "push 4608 at 1"],
        "nobody waits for the old one's flush"
    );
    assert_eq!(program.opened(), 2);
}

#[test]
fn streams_at_work_are_bounded_and_so_are_their_pixels() {
    let mut program = decoding();
    let busy = Errno::BUSY.raw_os_error();
    program.open(2);
    program.session = 2;
    program.request(OUTPUT, 1);
    program.stream_on(OUTPUT);
    program.open(3);
    program.session = 3;
    program.request(OUTPUT, 1);
    assert_eq!(program.word(Ioctl::StreamOn, OUTPUT), busy);
    program.close(2);
    program.session = 3;
    assert_eq!(program.word(Ioctl::StreamOn, OUTPUT), 0);
    program.session = 1;
    program.says([Told::Size(Size::new(4000, 4000))]);
    assert_eq!(program.lost(), [(1, Errno::IO)], "larger than allowed");
}

#[test]
fn what_codecs_hold_of_all_sessions_is_bounded_and_refused_by_buffer() {
    let mut program = Program::new(Way::Decode);
    program.open(2);
    for session in [1, 2] {
        program.session = session;
        program.request(OUTPUT, 3);
        program.stream_on(OUTPUT);
    }
    let invalid = Errno::INVAL.raw_os_error();
    assert_eq!(
        program.try_queue(OUTPUT, 0, (32 << 20) + 1, 16 << 20, 3),
        invalid,
        "more than any picture has"
    );
    // A codec holds four inputs, and all may hold 4 MiB.
    assert_eq!(program.try_queue(OUTPUT, 0, (1 << 20) + 1, 2 << 20, 1), 0);
    assert_eq!(program.try_queue(OUTPUT, 1, 768 << 10, 2 << 20, 1), 0);
    assert_eq!(program.heard(), [Heard::Damaged(0), Heard::Output(1, 0)]);
    program.session = 1;
    assert_eq!(program.try_queue(OUTPUT, 0, 512 << 10, 2 << 20, 1), 0);
    assert_eq!(program.try_queue(OUTPUT, 1, 256 << 10, 2 << 20, 1), 0);
    assert_eq!(program.heard(), [Heard::Damaged(0), Heard::Output(1, 0)]);
    assert_eq!(program.counted("buffers-over-budget"), 2);
    assert_eq!(program.lost(), [], "nobody is lost for it");
    // What ends gives back what it had.
    program.close(2);
    assert_eq!(program.try_queue(OUTPUT, 0, 1 << 20, 2 << 20, 1), 0);
    assert_eq!(program.heard(), [Heard::Output(0, 0)]);
    assert_eq!(
        program.codec(),
        ["push 786432 at 0", "push 262144 at 0", "push 1048576 at 1"]
    );
}

#[test]
fn pictures_to_encode_are_held_within_the_same_bound() {
    let mut program = Program::new(Way::Encode);
    program.open(2);
    // Four of the first one's pictures are 4 MiB, and that is all.
    for (session, side, heard) in [(1, 512, Heard::Output(0, 3)), (2, 16, Heard::Damaged(0))] {
        program.session = session;
        program.set_format(OUTPUT, b"AB24", side, side);
        for queue in [OUTPUT, CAPTURE] {
            program.request(queue, 2);
            program.stream_on(queue);
        }
        program.queue(OUTPUT, 0, side * side * 4, 3);
        assert_eq!(program.heard(), [heard]);
    }
}

#[test]
fn the_lists_of_pages_of_all_sessions_are_bounded() {
    let mut program = Program::new(Way::Decode);
    program.open(2);
    for session in [1, 2] {
        program.session = session;
        program.request(OUTPUT, 3);
    }
    let none = Errno::NOMEM.raw_os_error();
    assert_eq!(program.try_queue(OUTPUT, 0, 9, 4096, 90), 0);
    program.session = 1;
    assert_eq!(program.try_queue(OUTPUT, 0, 9, 4096, 11), none);
    assert_eq!(program.counted("buffers-over-budget"), 1);
    assert_eq!(program.try_queue(OUTPUT, 0, 9, 4096, 10), 0);
    // What the device has read it does not note any more; nor what was taken back.
    program.stream_on(OUTPUT);
    assert_eq!(program.heard(), [Heard::Output(0, 0)]);
    assert_eq!(program.try_queue(OUTPUT, 0, 9, 4096, 11), none);
    program.session = 2;
    program.stream_off(OUTPUT);
    program.session = 1;
    program.stream_off(OUTPUT);
    assert_eq!(program.try_queue(OUTPUT, 1, 9, 4096, 100), 0);
    assert_eq!(program.try_queue(OUTPUT, 2, 9, 4096, 1), none);
}

#[test]
fn formats_stay_while_there_are_buffers_and_another_codec_is_another_stream() {
    let mut program = decoding();
    let busy = Errno::BUSY.raw_os_error();
    assert_eq!(program.try_set_format(OUTPUT, b"VP80", 64, 48), busy);
    program.stream_off(OUTPUT);
    program.request(OUTPUT, 0);
    assert_eq!(
        program.try_set_format(OUTPUT, b"VP80", 64, 48),
        busy,
        "pictures of the other one are still queued"
    );
    program.set_format(OUTPUT, b"H264", 64, 48);
    program.stream_off(CAPTURE);
    program.request(CAPTURE, 0);
    program.set_format(OUTPUT, b"VP80", 300, 200);
    assert_eq!(program.size_of(CAPTURE), (300, 200));
    program.set_format(CAPTURE, b"YM12", 1, 1);
    assert_eq!(
        program.planes_of(CAPTURE),
        [304 * 200, 152 * 100, 152 * 100]
    );
}

/// An encoder whose program streams.
fn encoding() -> Program {
    let mut program = Program::new(Way::Encode);
    program.set_format(CAPTURE, b"H264", 0, 0);
    program.set_format(OUTPUT, b"NV12", 64, 48);
    for queue in [OUTPUT, CAPTURE] {
        program.request(queue, 2);
        program.stream_on(queue);
    }
    program
}

#[test]
fn an_encoder_gives_coded_pictures_and_an_end() {
    let mut program = encoding();
    program.queue(OUTPUT, 0, 64 * 48 * 3 / 2, 5);
    program.queue(CAPTURE, 0, 0, 0);
    program.queue(CAPTURE, 1, 0, 0);
    program.says([Told::Output(0)]);
    assert_eq!(program.heard(), [Heard::Output(0, 5), Heard::Picture(0, 5)]);
    assert_eq!(program.codec(), ["push 4608 at 0"]);
    assert_eq!(program.command::<EncoderCmd>(Ioctl::EncoderCmd, 1), 0);
    program.says([Told::Drained]);
    assert_eq!(program.heard(), [Heard::End, Heard::Last(1)]);
}

#[test]
fn an_encoder_is_told_of_controls_while_it_works() {
    let mut program = encoding();
    program.queue(OUTPUT, 0, 64 * 48 * 3 / 2, 5);
    assert_eq!(program.control(0x0099_09cf, 123_456), 0, "the bit rate");
    assert_eq!(program.control(0x0099_09e5, 1), 0, "a key picture");
    program.queue(OUTPUT, 1, 64 * 48 * 3 / 2, 6);
    assert_eq!(
        program.codec(),
        ["push 4608 at 0", "adjust 123456", "push 4608 at 1 key"]
    );
}

#[test]
fn an_encoder_has_a_rate_and_a_rectangle_in_whole_samples() {
    let mut program = Program::new(Way::Encode);
    program.set_format(OUTPUT, b"NV12", 64, 48);
    let mut selection = Selection::new_zeroed();
    (selection.type_, selection.target) = (2, 0);
    (selection.r.width, selection.r.height) = (51, 1000);
    assert_eq!(program.ioctl(Ioctl::SSelection, &mut selection), 0);
    assert_eq!((selection.r.width, selection.r.height), (50, 48));
    assert_eq!(program.size_of(CAPTURE), (50, 48));
    let mut parm = CaptureParm::new_zeroed();
    parm.type_ = OUTPUT;
    (parm.interval.numerator, parm.interval.denominator) = (0, 7);
    assert_eq!(program.ioctl(Ioctl::SParm, &mut parm), 0);
    assert_eq!(
        (parm.interval.numerator, parm.interval.denominator),
        (1, 30)
    );
    for (wish, got) in [
        ((1001, 30_000), (1001, 30_000)),
        ((2002, 60_000), (1001, 30_000)),
        ((2, 25), (2, 25)),
        ((1, 1000), (1, 240)),
        ((10, 1), (1, 1)),
    ] {
        (parm.interval.numerator, parm.interval.denominator) = wish;
        assert_eq!(program.ioctl(Ioctl::SParm, &mut parm), 0);
        let mut told = CaptureParm::new_zeroed();
        told.type_ = OUTPUT;
        assert_eq!(program.ioctl(Ioctl::GParm, &mut told), 0);
        let interval = told.interval;
        assert_eq!((interval.numerator, interval.denominator), got);
    }
    parm.type_ = CAPTURE;
    let invalid = Errno::INVAL.raw_os_error();
    assert_eq!(program.ioctl(Ioctl::GParm, &mut parm), invalid);
}

#[test]
fn a_device_answers_only_what_it_is() {
    let none = Errno::NOTTY.raw_os_error();
    let invalid = Errno::INVAL.raw_os_error();
    let mut decoder = Program::new(Way::Decode);
    assert_eq!(decoder.command::<EncoderCmd>(Ioctl::EncoderCmd, 0), none);
    assert_eq!(
        decoder.command::<DecoderCmd>(Ioctl::TryDecoderCmd, 9),
        invalid
    );
    let mut parm = CaptureParm::new_zeroed();
    parm.type_ = OUTPUT;
    assert_eq!(decoder.ioctl(Ioctl::GParm, &mut parm), none);
    let mut encoder = Program::new(Way::Encode);
    assert_eq!(encoder.command::<DecoderCmd>(Ioctl::DecoderCmd, 0), none);
    assert_eq!(encoder.subscribe(event::SOURCE_CHANGE), invalid);
    let mut size = FrameSize::new_zeroed();
    size.pixel_format = u32::from_le_bytes(*b"H264");
    assert_eq!(encoder.ioctl(Ioctl::EnumFrameSizes, &mut size), 0);
    assert_eq!(size.size, [16, 512, 2, 16, 512, 2]);
    size.index = 1;
    assert_eq!(encoder.ioctl(Ioctl::EnumFrameSizes, &mut size), invalid);
}
