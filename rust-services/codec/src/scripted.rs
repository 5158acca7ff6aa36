// SPDX-License-Identifier: Apache-2.0

//! A codec that says what somebody has it say, and notes what it is told: for tests of devices, and for
//! fuzzing them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::coder::{Codecs, Coder, InputNote, Job, Output, Put, PutError};
use crate::{CodecError, Counters, EncoderSettings, Event, Layout};

/// Bytes of an access unit.
const UNIT: usize = 99;

#[derive(Default)]
struct State {
    says: VecDeque<Event<u64>>,
    look_after: Option<Duration>,
    jobs: Vec<Job>,
    heard: Vec<String>,
}

/// What all codecs of a device are going to say, and were told; clones are the same one.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<State>>);

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one that is asked says these words; an output is told by its timestamp, and a key where
    /// that is 0.
    pub fn says(&self, words: impl IntoIterator<Item = Event<u64>>) {
        self.state().says.extend(words);
    }

    /// All want to be looked after from now on.
    pub fn look_after(&self, after: Duration) {
        self.state().look_after = Some(after);
    }

    /// How many there were.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.state().jobs.len()
    }

    /// What they were wanted for.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        self.state().jobs.clone()
    }

    /// What they were told, in words such as `push 100 at 7 key`.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.state().heard.clone()
    }

    fn hear(&self, what: String) {
        self.state().heard.push(what);
    }
}

impl Codecs for Script {
    fn open(&mut self, job: &Job) -> Result<Box<dyn Coder>, CodecError> {
        self.state().jobs.push(*job);
        Ok(Box::new(Scripted {
            script: self.clone(),
            encodes: matches!(job, Job::Encode(..)),
        }))
    }
}

struct Scripted {
    script: Script,
    encodes: bool,
}

impl Coder for Scripted {
    fn room(&self) -> bool {
        true
    }

    fn push(&mut self, bytes: Vec<u8>, note: InputNote) {
        let key = if note.force_key { " key" } else { "" };
        let (bytes, timestamp) = (bytes.len(), note.timestamp);
        self.script
            .hear(format!("push {bytes} at {timestamp}{key}"));
    }

    fn drain(&mut self) {
        self.script.hear("drain".to_owned());
    }

    fn flush(&mut self) {
        self.script.hear("flush".to_owned());
    }

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        let next = self.script.state().says.pop_front()?;
        Some(match next {
            Event::Size(size) => Event::Size(size),
            Event::Output(timestamp) => Event::Output(Box::new(Frame {
                timestamp,
                is_coded: self.encodes,
            })),
            Event::Drained => Event::Drained,
            Event::Flushed => Event::Flushed,
            Event::Failed(error) => Event::Failed(error),
        })
    }

    fn look_after(&self) -> Option<Duration> {
        self.script.state().look_after
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn adjust(&mut self, settings: EncoderSettings) {
        self.script.hear(format!("adjust {}", settings.bitrate));
    }
}

/// A picture all of whose bytes are 7 from where what is seen begins, or an access unit of such ones.
#[derive(Debug)]
struct Frame {
    timestamp: u64,
    is_coded: bool,
}

impl Output for Frame {
    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn is_key(&self) -> bool {
        self.timestamp == 0
    }

    fn sizes(&self, layout: &Layout) -> Vec<usize> {
        if self.is_coded {
            return vec![UNIT];
        }
        layout.planes().iter().map(|plane| plane.size()).collect()
    }

    fn write(&self, layout: &Layout, put: &mut Put<'_>) -> Result<u32, PutError> {
        if self.is_coded {
            put(0, 0, &[7; UNIT])?;
            return Ok(1);
        }
        for (number, plane) in layout.planes().iter().enumerate() {
            let bytes = plane.size().saturating_sub(plane.seen);
            put(number, plane.seen, &vec![7; bytes])?;
        }
        Ok(1)
    }
}
