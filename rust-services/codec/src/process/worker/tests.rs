// SPDX-License-Identifier: Apache-2.0

use std::sync::Mutex;
use std::time::Duration;

use super::super::message::pair;
use super::*;
use crate::Counters;
use crate::coder::StoredPicture;

/// What a codec was told.
#[derive(Default)]
struct Told {
    bitrates: Vec<u32>,
    flushes: Vec<()>,
}

/// A codec that takes nothing in, and forgets at once.
struct Scripted {
    told: Arc<Mutex<Told>>,
    flushing: bool,
}

impl Coder for Scripted {
    fn room(&self) -> bool {
        false
    }

    fn push(&mut self, _bytes: Vec<u8>, _note: InputNote) {}

    fn drain(&mut self) {}

    fn flush(&mut self) {
        self.told.lock().unwrap().flushes.push(());
        self.flushing = true;
    }

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        std::mem::take(&mut self.flushing).then_some(Event::Flushed)
    }

    fn look_after(&self) -> Option<Duration> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn adjust(&mut self, settings: EncoderSettings) {
        self.told.lock().unwrap().bitrates.push(settings.bitrate);
    }
}

/// A worker that has heard and done nothing yet.
fn worker(
    socket: &OwnedFd,
    coder: Box<dyn Coder>,
    output: Places,
    frames: Option<Frames>,
) -> Worker<'_> {
    Worker {
        socket,
        coder,
        input: Places::new("in", 16, PLACES).unwrap(),
        output,
        free: (0..PLACES).collect(),
        frames,
        lent: Vec::new(),
        waiting: VecDeque::new(),
        ready: None,
        flushes: 0,
        said: Instant::now(),
    }
}

/// Has a worker hear these commands, then do what it can. What it says, and its codec was told.
fn after(commands: &[Command]) -> (Vec<Report>, Told) {
    let (ours, its) = pair().unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let coder = Scripted {
        told: Arc::clone(&told),
        flushing: false,
    };
    let output = Places::new("out", 16, PLACES).unwrap();
    let mut worker = worker(&its, Box::new(coder), output, None);
    for command in commands {
        send(&ours, command, &[], Wait::Yes).unwrap();
    }
    assert!(worker.listen().unwrap());
    while worker.put_in().unwrap() | worker.take_out().unwrap() {}
    drop(worker);
    let mut said = Vec::new();
    while let Ok(Some((report, _))) = receive(&ours, Wait::No) {
        said.push(report);
    }
    let told = std::mem::take(&mut *told.lock().unwrap());
    (said, told)
}

#[test]
fn flushes_that_become_one_are_all_acknowledged() {
    let (said, told) = after(&[Command::Flush, Command::Flush]);
    assert_eq!(told.flushes.len(), 2);
    assert!(
        matches!(said[..], [Report::Flushed { upto: 2 }]),
        "{said:?}"
    );
}

#[test]
fn settings_that_wait_behind_an_input_outlive_a_flush() {
    let input = Command::Input {
        place: 1,
        bytes: 4,
        timestamp: 0,
        force_key: false,
    };
    let settings = EncoderSettings {
        bitrate: 77_000,
        ..EncoderSettings::default()
    };
    let commands = [
        input,
        Command::Adjust(settings),
        Command::Drain,
        Command::Flush,
    ];
    let (said, told) = after(&commands);
    assert_eq!(told.bitrates, [77_000]);
    let expected = matches!(
        said[..],
        [
            Report::Taken { place: 1 },
            Report::Adjusted,
            Report::Flushed { upto: 1 }
        ]
    );
    assert!(expected, "{said:?}");
}

/// Pictures that a decoder has drawn into frames, one after the other.
struct Drawing {
    frames: Frames,
    left: usize,
}

#[derive(Debug)]
struct Drawn {
    place: usize,
    _frame: crate::frames::Frame,
}

impl Output for Drawn {
    fn timestamp(&self) -> u64 {
        0
    }

    fn is_key(&self) -> bool {
        true
    }

    fn sizes(&self, _layout: &crate::Layout) -> Vec<usize> {
        Vec::new()
    }

    fn write(
        &self,
        _layout: &crate::Layout,
        _put: &mut crate::coder::Put<'_>,
    ) -> Result<u32, crate::coder::PutError> {
        Ok(0)
    }

    fn lies_in(&self, _frames: &Frames) -> Option<(usize, StoredPicture)> {
        let stored = StoredPicture {
            size: crate::Size::new(2, 2),
            format: crate::PixelFormat::I420,
            planes: vec![(0, 2), (4, 1), (5, 1)],
            bytes: 6,
        };
        Some((self.place, stored))
    }
}

impl Coder for Drawing {
    fn room(&self) -> bool {
        false
    }

    fn push(&mut self, _bytes: Vec<u8>, _note: InputNote) {}

    fn drain(&mut self) {}

    fn flush(&mut self) {}

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        self.left = self.left.checked_sub(1)?;
        let mut frame = self.frames.take(6).unwrap();
        let (place, _) = self.frames.find(frame.as_mut()).unwrap();
        Some(Event::Output(Box::new(Drawn {
            place,
            _frame: frame,
        })))
    }

    fn look_after(&self) -> Option<Duration> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn adjust(&mut self, _settings: EncoderSettings) {}
}

#[test]
fn pictures_are_lent_where_they_were_drawn_a_few_at_a_time() {
    let (ours, its) = pair().unwrap();
    let output = Places::new("out", 4096, PLACES + 5).unwrap();
    let frames = output.frames().unwrap().unwrap();
    let coder = Drawing {
        frames: frames.clone(),
        left: 5,
    };
    let mut worker = worker(&its, Box::new(coder), output, Some(frames.clone()));
    let shown = || {
        let mut places = Vec::new();
        while let Ok(Some((Report::Output { place, .. }, _))) = receive::<Report>(&ours, Wait::No) {
            places.push(place);
        }
        places
    };
    while worker.take_out().unwrap() {}
    let first = shown();
    assert_eq!(first.len(), PLACES);
    assert!(first.iter().all(|place| *place >= PLACES));
    // One more is drawn and waits; one is free.
    let free = [frames.take(1), frames.take(1)];
    assert!(matches!(free, [Some(_), None]));
    drop(free);
    let place = first[1];
    send(&ours, &Command::Free { place }, &[], Wait::Yes).unwrap();
    assert!(worker.listen().unwrap());
    while worker.take_out().unwrap() {}
    assert_eq!(shown().len(), 1);
    assert_eq!(worker.lent.len(), PLACES);
}
