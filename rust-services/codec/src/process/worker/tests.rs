// SPDX-License-Identifier: Apache-2.0

use std::sync::Mutex;
use std::time::Duration;

use super::super::message::pair;
use super::*;
use crate::Counters;

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

/// Has a worker hear these commands, then do what it can. What it says, and its codec was told.
fn after(commands: &[Command]) -> (Vec<Report>, Told) {
    let (ours, its) = pair().unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let mut worker = Worker {
        socket: &its,
        coder: Box::new(Scripted {
            told: Arc::clone(&told),
            flushing: false,
        }),
        input: Places::new("in", 16).unwrap(),
        output: Places::new("out", 16).unwrap(),
        free: (0..PLACES).collect(),
        waiting: VecDeque::new(),
        ready: None,
        flushes: 0,
        said: Instant::now(),
    };
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
