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
    opened: usize,
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
        self.state().opened
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
        let mut state = self.state();
        state.opened = state.opened.saturating_add(1);
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

/// A picture all of whose bytes are 7, or an access unit of such ones.
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
        for (number, bytes) in self.sizes(layout).into_iter().enumerate() {
            put(number, 0, &vec![7; bytes])?;
        }
        Ok(1)
    }
}
