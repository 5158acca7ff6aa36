// SPDX-License-Identifier: Apache-2.0

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::message::{Wait, pair, receive, send};
use super::*;
use crate::coder::{Stored, StoredPicture};
use crate::{Elements, Layout, PixelFormat};

/// A session of VP8, and the end where its worker would be.
fn session(patience: Duration) -> (Remote, OwnedFd) {
    let (remote, its) = loading_session(patience);
    say(&its, &ready());
    while !remote.link.heard().is_ready() {
        std::thread::yield_now();
    }
    (remote, its)
}

fn ready() -> Report {
    Report::Ready {
        decoders: vec![Codec::Vp8],
        encoders: Vec::new(),
    }
}

fn say(its: &OwnedFd, report: &Report) {
    send(its, report, &[], Wait::Yes).unwrap();
}

/// The same, where the worker still loads.
fn loading_session(patience: Duration) -> (Remote, OwnedFd) {
    gstreamer::init().unwrap();
    let (ours, its) = pair().unwrap();
    let link = Link::new(ours, Arc::new(|| ()), Arc::default(), || ()).unwrap();
    let job = Job::Decode(Codec::Vp8);
    let setup = Setup {
        elements: Elements::default(),
        paths: Vec::new(),
        patience,
        memory: 1 << 30,
        pixels: 64 * 64,
        sessions: 1,
        sandbox: false,
        log: "OFF".to_owned(),
    };
    let remote = Remote::open(link, &job, &setup).unwrap();
    let (_, fds) = receive::<Command>(&its, Wait::Yes).unwrap().unwrap();
    assert_eq!(fds.len(), 2);
    (remote, its)
}

/// The next thing that the session tells.
fn next(remote: &mut Remote) -> Event<Box<dyn Output>> {
    loop {
        if let Some(event) = remote.poll() {
            return event;
        }
        std::thread::yield_now();
    }
}

fn picture(size: Size, planes: Vec<(usize, usize)>, bytes: usize) -> Stored {
    Stored::Picture(StoredPicture {
        size,
        format: PixelFormat::I420,
        planes,
        bytes,
    })
}

fn output(place: usize, stored: Stored) -> Report {
    Report::Output {
        place,
        timestamp: 5,
        key: true,
        stored,
        counters: Counters::default(),
    }
}

/// The size of a picture, and some size of a unit.
fn size_of(stored: &Stored) -> Size {
    match stored {
        Stored::Picture(picture) => picture.size,
        Stored::Unit { .. } => Size::default(),
    }
}

fn announce(remote: &mut Remote, its: &OwnedFd, size: Size) {
    say(its, &Report::Size(size));
    assert!(matches!(next(remote), Event::Size(told) if told == size));
}

#[test]
fn a_picture_that_needs_more_than_its_size_is_none() {
    let small = Size::new(16, 16);
    // Rows so far apart that the whole place is in between.
    let far = || vec![(0, 400_000), (400_000 * 16, 8), (400_000 * 16 + 64, 8)];
    let cases = [
        (small, picture(small, far(), 400_000 * 16 + 128)),
        // Larger than was said, so that the owner has not seen to it.
        (
            small,
            picture(
                Size::new(64, 64),
                vec![(0, 64), (4096, 32), (5120, 32)],
                6144,
            ),
        ),
    ];
    for (announced, stored) in cases {
        let (mut remote, its) = session(Duration::from_secs(60));
        announce(&mut remote, &its, announced);
        let text = format!("{stored:?}");
        // There would be room.
        remote.outputs.places = Places::new("test", 8 << 20, PLACES).unwrap();
        say(&its, &output(0, stored));
        let told = next(&mut remote);
        let died = matches!(told, Event::Failed(CodecError::Died { .. }));
        assert!(died, "{text}: {told:?}");
    }
}

#[test]
fn a_worker_that_makes_no_sense_loses_its_session() {
    let small = Size::new(4, 4);
    let good = || vec![(0, 4), (16, 2), (20, 2)];
    let cases = [
        Report::Taken { place: 0 },
        Report::Taken { place: usize::MAX },
        Report::Flushed { upto: 1 },
        Report::Adjusted,
        output(
            PLACES + usize::try_from(MOST_FRAMES).unwrap(),
            picture(small, good(), 24),
        ),
        output(usize::MAX, picture(small, good(), 24)),
        output(0, picture(small, good(), 23)),
        output(0, picture(small, good(), usize::MAX)),
        output(0, picture(small, vec![(0, 4), (16, 2)], 24)),
        output(
            0,
            picture(small, vec![(0, 4), (16, 2), (usize::MAX, 2)], 24),
        ),
        output(
            0,
            picture(small, vec![(0, usize::MAX), (16, 2), (20, 2)], 24),
        ),
        output(0, picture(small, vec![(0, 1), (16, 2), (20, 2)], 24)),
        output(0, picture(Size::new(0, 4), good(), 24)),
        output(0, picture(Size::new(u32::MAX, u32::MAX), good(), 24)),
        output(0, Stored::Unit { bytes: usize::MAX }),
    ];
    for case in cases {
        let (mut remote, its) = session(Duration::from_secs(60));
        let text = format!("{case:?}");
        if let Report::Output { stored, .. } = &case {
            announce(&mut remote, &its, size_of(stored));
        }
        say(&its, &case);
        let told = next(&mut remote);
        assert!(
            matches!(told, Event::Failed(CodecError::Died { .. })),
            "{text}: {told:?}"
        );
        assert!(remote.poll().is_none(), "nothing follows");
    }
    let (mut remote, its) = session(Duration::from_secs(60));
    announce(&mut remote, &its, small);
    say(&its, &output(0, picture(small, good(), 24)));
    assert!(matches!(next(&mut remote), Event::Output(output) if output.timestamp() == 5));
}

/// Writes a picture whose luma is 1 to 16 and whose chroma is 17 to 24 into a place of the outputs.
fn draw(remote: &Remote, place: usize) {
    let bytes: Vec<u8> = (1..=24).collect();
    remote.outputs.places.write(place, &bytes).unwrap();
}

#[test]
fn a_picture_stays_in_its_place_until_nobody_needs_it() {
    let small = Size::new(4, 4);
    let planes = vec![(0, 4), (16, 2), (20, 2)];
    // Drawn where it lies, or copied there.
    for (place, copied) in [(PLACES, 0), (PLACES + 1, 0), (1, 1)] {
        let (mut remote, its) = session(Duration::from_secs(60));
        announce(&mut remote, &its, small);
        draw(&remote, place);
        say(&its, &output(place, picture(small, planes.clone(), 24)));
        let Event::Output(output) = next(&mut remote) else {
            panic!("no picture");
        };
        for (format, copies, expected) in [
            (PixelFormat::I420, 1, (1..=24).collect::<Vec<u8>>()),
            (PixelFormat::Nv12, 1, {
                let pairs = (17..=20).zip(21..=24).flat_map(|(blue, red)| [blue, red]);
                (1..=16).chain(pairs).collect()
            }),
            (PixelFormat::Rgba, 3, Vec::new()),
        ] {
            let layout = Layout::packed(format, small, 1);
            let planes = layout.planes();
            let mut written = vec![0; layout.bytes()];
            let done = output.write(&layout, &mut |plane, at, run: &[u8]| {
                let at = planes[plane].offset + at;
                written[at..at + run.len()].copy_from_slice(run);
                Ok(())
            });
            assert_eq!(done, Ok(copies + copied), "{format:?}");
            if format == PixelFormat::Rgba {
                assert!(written.iter().any(|byte| *byte != 0));
            } else {
                assert_eq!(written, expected, "{format:?}");
            }
        }
        let told = receive::<Command>(&its, Wait::No).map(drop).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::WouldBlock, "it is still needed");
        drop(output);
        let (told, _) = receive::<Command>(&its, Wait::Yes).unwrap().unwrap();
        assert!(matches!(told, Command::Free { place: freed } if freed == place));
    }
}

#[test]
fn a_picture_may_outlive_its_session() {
    let small = Size::new(4, 4);
    let (mut remote, its) = session(Duration::from_secs(60));
    announce(&mut remote, &its, small);
    draw(&remote, PLACES);
    let stored = picture(small, vec![(0, 4), (16, 2), (20, 2)], 24);
    say(&its, &output(PLACES, stored));
    let Event::Output(output) = next(&mut remote) else {
        panic!("no picture");
    };
    drop((remote, its));
    let mut bytes = 0;
    let layout = Layout::packed(PixelFormat::Nv12, small, 1);
    let written = output.write(&layout, &mut |_, _, run: &[u8]| {
        bytes += run.len();
        Ok(())
    });
    assert_eq!((written, bytes), (Ok(1), 24));
}

#[test]
fn a_worker_cannot_say_that_it_is_another_process() {
    let (mut remote, its) = session(Duration::from_secs(60));
    say(&its, &Report::Process { id: 4711 });
    say(&its, &Report::Process { id: 1 });
    let told = next(&mut remote);
    assert!(matches!(told, Event::Failed(CodecError::Died { .. })));
    assert_eq!(remote.process(), 4711);
}

#[test]
fn a_worker_that_talks_without_end_loses_its_session() {
    let (mut remote, its) = session(Duration::from_secs(60));
    let size = Report::Size(Size::new(4, 4));
    while !remote.link.has_ended() {
        // Its words may wait for somebody to hear them; nobody looks at them meanwhile.
        let _ = send(&its, &size, &[], Wait::No);
        std::thread::yield_now();
    }
    while !matches!(next(&mut remote), Event::Failed(CodecError::Died { .. })) {}
}

#[test]
fn what_comes_of_what_was_flushed_is_not_told() {
    let (mut remote, its) = session(Duration::from_secs(60));
    remote.drain();
    remote.flush();
    for report in [
        Report::Size(Size::new(4, 4)),
        output(1, picture(Size::new(4, 4), Vec::new(), 0)),
        Report::Drained {
            counters: Counters::default(),
        },
        Report::Flushed { upto: 1 },
    ] {
        say(&its, &report);
    }
    assert!(matches!(next(&mut remote), Event::Flushed));
    assert!(matches!(next(&mut remote), Event::Size(size) if size == Size::new(4, 4)));
    let mut freed = false;
    while let Ok(Some((command, _))) = receive::<Command>(&its, Wait::No) {
        freed |= matches!(command, Command::Free { place: 1 });
    }
    assert!(freed, "its place is free again");
}

/// The commands that wait for the worker.
fn told(its: &OwnedFd) -> Vec<Command> {
    let mut commands = Vec::new();
    while let Ok(Some((command, _))) = receive(its, Wait::No) {
        commands.push(command);
    }
    commands
}

#[test]
fn a_worker_that_talks_during_a_flush_does_not_keep_its_owner_busy() {
    let (mut remote, its) = session(Duration::from_secs(60));
    remote.flush();
    // Whoever looks does so at the same time.
    let talks = std::thread::spawn(move || {
        let size = Report::Size(Size::new(4, 4));
        while send(&its, &size, &[], Wait::Yes).is_ok() {}
    });
    let told = next(&mut remote);
    assert!(matches!(told, Event::Failed(CodecError::Died { .. })));
    drop(remote);
    talks.join().unwrap();
}

#[test]
fn flushes_and_settings_without_end_are_one_command_each() {
    let (mut remote, its) = session(Duration::from_secs(60));
    for bitrate in 1..10_000 {
        remote.flush();
        remote.drain();
        remote.adjust(EncoderSettings {
            bitrate,
            ..EncoderSettings::default()
        });
    }
    let commands = told(&its);
    let first = [&commands[0], &commands[1]];
    assert!(matches!(first, [Command::Flush, Command::Adjust(first)] if first.bitrate == 1));
    assert_eq!(commands.len(), 2);
    say(&its, &Report::Adjusted);
    say(&its, &Report::Flushed { upto: 1 });
    assert!(matches!(next(&mut remote), Event::Flushed));
    let commands = told(&its);
    let newest = matches!(
        commands[..],
        [Command::Adjust(newest), Command::Drain] if newest.bitrate == 9_999
    );
    assert!(newest, "{commands:?}");
}

#[test]
fn flushes_that_the_worker_has_made_one_are_told_once() {
    let (mut remote, its) = session(Duration::from_secs(60));
    remote.flush();
    // Given by an owner who does not ask for room.
    remote.push(vec![0; 10], InputNote::default());
    remote.flush();
    say(&its, &Report::Flushed { upto: 2 });
    assert!(matches!(next(&mut remote), Event::Flushed));
    assert!(remote.flushes == (2, 2));
}

#[test]
fn a_worker_that_is_silent_is_given_up_at_the_second_look() {
    let (mut remote, _its) = session(Duration::ZERO);
    assert!(remote.poll().is_none() && remote.look_after().is_none());
    remote.push(vec![0; 10], InputNote::default());
    assert!(remote.look_after().is_some());
    assert!(remote.poll().is_none(), "perhaps nobody could speak");
    let told = remote.poll();
    assert!(matches!(
        told,
        Some(Event::Failed(CodecError::Hangs { .. }))
    ));
}

#[test]
fn a_worker_that_still_loads_has_time_for_that() {
    let (mut remote, its) = loading_session(Duration::ZERO);
    remote.push(vec![0; 10], InputNote::default());
    assert!(remote.look_after().unwrap() > LOADING / 2);
    assert!(remote.poll().is_none() && remote.poll().is_none());
    say(&its, &ready());
    assert!(matches!(
        next(&mut remote),
        Event::Failed(CodecError::Hangs { .. })
    ));
}
