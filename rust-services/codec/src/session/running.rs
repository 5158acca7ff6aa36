// SPDX-License-Identifier: Apache-2.0

//! The owner's end of a session.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app::AppSink;

use super::pipeline::{Plan, size_in};
use super::thread::{Command, Thread};
use super::{Host, Shared};
use crate::codec::Codec;
use crate::coder::MOST_INPUTS;
use crate::error::CodecError;
use crate::layout::Size;
use crate::ledger::Unit;
use crate::settings::EncoderSettings;
use crate::silence::Verdict;

/// The owner's end of a session.
pub(crate) struct Running {
    codec: Codec,
    pub(crate) shared: Shared,
    commands: Sender<Command>,
    sink: Arc<OnceLock<AppSink>>,
    patience: Duration,
    verdict: Verdict,
    stash: VecDeque<(gst::Sample, Unit)>,
    size: Option<Size>,
    draining: bool,
    flushes: u64,
    flushing: bool,
    /// Nothing has been sent behind the last flush.
    flushed_all: bool,
    failed: bool,
    /// Held while the owner lives.
    _place: Arc<()>,
}

/// What has happened, before it is a picture or an access unit.
pub(crate) enum Raw {
    Size(Size),
    Sample(gst::Sample, Unit),
    Drained,
    Flushed,
    Failed(CodecError),
}

impl Running {
    /// Starts a thread that brings up the pipeline.
    pub(crate) fn start(
        plan: Plan,
        host: &Host,
        (thread_place, place): (Arc<()>, Arc<()>),
    ) -> Result<Self, CodecError> {
        let shared = Shared::new(Arc::clone(&host.notify));
        let (commands, inbox) = channel();
        let sink = Arc::new(OnceLock::new());
        let codec = plan.codec;
        let thread = Thread {
            plan,
            shared: shared.clone(),
            own: commands.clone(),
            sink: Arc::clone(&sink),
        };
        let prepare = Arc::clone(&host.prepare);
        let spawned = std::thread::Builder::new()
            .name("codec".to_owned())
            .spawn(move || {
                prepare();
                thread.run(&inbox);
                drop(thread_place);
            });
        spawned.map_err(|error| CodecError::Start {
            codec,
            reason: error.to_string(),
        })?;
        Ok(Self {
            codec,
            shared,
            commands,
            sink,
            patience: host.patience,
            verdict: Verdict::default(),
            stash: VecDeque::new(),
            size: None,
            draining: false,
            flushes: 0,
            flushing: false,
            flushed_all: false,
            failed: false,
            _place: place,
        })
    }

    pub(crate) fn room(&self) -> bool {
        !self.failed && !self.flushing && self.shared.lock().waiting < MOST_INPUTS
    }

    pub(crate) fn push(&mut self, buffer: gst::Buffer) {
        {
            let mut state = self.shared.lock();
            state.counters.pushed = state.counters.pushed.saturating_add(1);
            state.counters.bytes_in = state.counters.bytes_in.saturating_add(buffer.size() as u64);
            if state.waiting == 0 {
                // What comes now has its full time.
                state.moved = Instant::now();
            }
            state.waiting = state.waiting.saturating_add(1);
        }
        self.flushed_all = false;
        self.send(Command::Push(buffer));
    }

    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.flushed_all = false;
        self.shared.lock().moved = Instant::now();
        self.send(Command::Drain);
    }

    pub(crate) fn flush(&mut self) {
        if self.flushing && self.flushed_all {
            // The one that is under way forgets all that there is: a guest that seeks without end
            // makes no queue of them.
            return;
        }
        self.flushed_all = true;
        self.flushes = self.flushes.saturating_add(1);
        self.flushing = true;
        self.draining = false;
        self.stash.clear();
        self.shared.lock().moved = Instant::now();
        self.send(Command::Flush);
    }

    pub(crate) fn adjust(&mut self, settings: EncoderSettings) {
        // Only the newest counts: one word to the thread, however often they change.
        let waiting = self.shared.lock().settings.replace(settings);
        if waiting.is_none() {
            self.send(Command::Adjust);
        }
    }

    fn send(&self, command: Command) {
        // A thread that is gone has left a reason.
        let _ = self.commands.send(command);
    }

    /// The size of what came out last.
    pub(crate) fn poll(&mut self) -> Option<Raw> {
        if self.failed {
            return None;
        }
        if let Some(raw) = self.ended() {
            return Some(raw);
        }
        if self.flushing {
            return self.hangs();
        }
        if let Some((sample, unit)) = self.stash.pop_front() {
            return Some(Raw::Sample(sample, unit));
        }
        if let Some(raw) = self.told() {
            return Some(raw);
        }
        let (sample, unit) = loop {
            let sample = self
                .sink
                .get()
                .and_then(|sink| sink.try_pull_sample(gst::ClockTime::ZERO));
            let Some(sample) = sample else {
                return self.hangs();
            };
            let mut state = self.shared.lock();
            state.moved = Instant::now();
            let buffer = sample.buffer();
            if buffer.is_some_and(|buffer| state.ledger.is_flushed(buffer)) {
                log::debug!("a flushed picture came out late");
                continue;
            }
            let unit = buffer.and_then(|buffer| state.ledger.unit_of(buffer));
            drop(state);
            break (sample, unit.unwrap_or_default());
        };
        let size = sample.caps().and_then(size_in);
        if size.is_some() && size != self.size && self.is_decoder() {
            self.size = size;
            self.stash.push_back((sample, unit));
            return size.map(Raw::Size);
        }
        Some(Raw::Sample(sample, unit))
    }

    fn is_decoder(&self) -> bool {
        // Only there a size comes out of the stream.
        self.shared.lock().decodes
    }

    fn ended(&mut self) -> Option<Raw> {
        let mut state = self.shared.lock();
        if let Some(error) = state.failed.take() {
            drop(state);
            self.failed = true;
            self.stash.clear();
            return Some(Raw::Failed(error));
        }
        if self.flushing && state.flushed >= self.flushes {
            // A drain that ended before the flush was forgotten with it.
            state.drained = false;
            drop(state);
            self.flushing = false;
            return Some(Raw::Flushed);
        }
        None
    }

    /// What the thread has left word of: it is older than anything that is in the sink.
    fn told(&mut self) -> Option<Raw> {
        let mut state = self.shared.lock();
        if self.draining && std::mem::take(&mut state.drained) {
            drop(state);
            self.draining = false;
            return Some(Raw::Drained);
        }
        let header = state.header.take();
        drop(state);
        if header.is_some() && self.size.is_none() {
            self.size = header;
            return header.map(Raw::Size);
        }
        None
    }

    fn is_busy(&self) -> bool {
        self.draining || self.flushing || self.shared.lock().waiting > 0
    }

    /// The verdict on a codec that has been silent for too long.
    fn hangs(&mut self) -> Option<Raw> {
        let moved = self.shared.lock().moved;
        if !self.is_busy() || !self.verdict.falls(moved, self.patience) {
            return None;
        }
        self.failed = true;
        Some(Raw::Failed(CodecError::Hangs {
            codec: self.codec,
            patience: self.patience,
        }))
    }

    pub(crate) fn look_after(&self) -> Option<Duration> {
        if self.failed || !self.is_busy() {
            return None;
        }
        let moved = self.shared.lock().moved;
        Some(self.verdict.next_look(moved, self.patience))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What stands before the last command is not done any more.
        self.shared.lock().closed = true;
        self.send(Command::Close);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, a panic is the verdict")]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;

    /// An owner whose thread does nothing.
    fn alone() -> (Running, Receiver<Command>) {
        let (commands, inbox) = channel();
        let running = Running {
            codec: Codec::H264,
            shared: Shared::new(Arc::new(|| {})),
            commands,
            sink: Arc::new(OnceLock::new()),
            patience: Duration::from_secs(60),
            verdict: Verdict::default(),
            stash: VecDeque::new(),
            size: None,
            draining: false,
            flushes: 0,
            flushing: false,
            flushed_all: false,
            failed: false,
            _place: Arc::new(()),
        };
        (running, inbox)
    }

    #[test]
    fn flushes_and_settings_without_end_are_one_command_each() {
        let (mut running, inbox) = alone();
        for bitrate in 1..1000 {
            running.flush();
            running.adjust(EncoderSettings {
                bitrate,
                ..EncoderSettings::default()
            });
        }
        let sent: Vec<Command> = inbox.try_iter().collect();
        assert!(matches!(sent[..], [Command::Flush, Command::Adjust]));
        let newest = running.shared.lock().settings.take().unwrap();
        assert_eq!(newest.bitrate, 999);
        running.adjust(newest);
        assert_eq!(inbox.try_iter().count(), 1, "the last one was taken");
        // What is sent behind a flush has one of its own.
        running.drain();
        running.flush();
        running.shared.lock().flushed = 1;
        assert!(running.poll().is_none(), "the second one is under way");
        running.shared.lock().flushed = 2;
        assert!(matches!(running.poll(), Some(Raw::Flushed)));
        running.flush();
        let sent: Vec<Command> = inbox.try_iter().collect();
        assert!(matches!(
            sent[..],
            [Command::Drain, Command::Flush, Command::Flush]
        ));
    }

    #[test]
    fn a_codec_that_does_nothing_is_given_up_at_the_second_look() {
        let (mut running, _inbox) = alone();
        running.patience = Duration::ZERO;
        assert!(running.poll().is_none(), "it has nothing to do");
        running.drain();
        assert!(running.poll().is_none(), "perhaps nobody could do anything");
        let told = running.poll();
        assert!(matches!(told, Some(Raw::Failed(CodecError::Hangs { .. }))));
    }

    #[test]
    fn whoever_is_closed_does_nothing_that_stands_before() {
        let (mut running, inbox) = alone();
        let shared = running.shared.clone();
        running.flush();
        drop(running);
        assert!(shared.lock().closed);
        assert!(matches!(inbox.try_iter().last(), Some(Command::Close)));
    }
}
