// SPDX-License-Identifier: Apache-2.0

//! A pipeline that cannot hold up the stream's thread for long.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;

use super::super::BackendError;
use super::description::device;

/// How long elements may take to come up, and to go down.
const PATIENCE: Duration = Duration::from_secs(2);

/// What happened in a pipeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Life {
    Runs,
    /// Its source has no more sound, or its sink has played all of it.
    Ended,
}

/// The one place that a stream has for a pipeline. It stays taken while a pipeline that was given
/// back still closes: a server that hangs would otherwise keep one more with each attempt.
#[derive(Default)]
pub(super) struct Slot(Arc<()>);

impl Slot {
    /// Takes the place for a pipeline of `description`.
    ///
    /// # Errors
    /// When the former one has not closed yet.
    pub(super) fn take(&self, description: &str) -> Result<Taken, BackendError> {
        if Arc::strong_count(&self.0) > 1 {
            return Err(BackendError::Device {
                device: device(description),
                reason: "the stream's former pipeline hangs and has not closed yet".to_owned(),
            });
        }
        Ok(Taken(Arc::clone(&self.0)))
    }
}

/// A [`Slot`] is taken while this lives.
#[derive(Clone)]
pub(super) struct Taken(#[expect(dead_code, reason = "it is counted")] Arc<()>);

/// A pipeline in operation; given back when dropped.
pub(super) struct Pipeline {
    description: String,
    pipeline: gst::Pipeline,
    bus: Option<gst::Bus>,
    taken: Taken,
}

impl Pipeline {
    pub(super) fn new(description: &str, pipeline: gst::Pipeline, taken: Taken) -> Self {
        // The guest's streams follow this clock as well.
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        Self {
            description: description.to_owned(),
            bus: pipeline.bus(),
            pipeline,
            taken,
        }
    }

    pub(super) fn lost(&self, reason: impl Into<String>) -> BackendError {
        BackendError::Device {
            device: device(&self.description),
            reason: reason.into(),
        }
    }

    /// Brings all elements to `state`. True if the pipeline has a source that cannot wait.
    pub(super) fn set(&self, state: gst::State) -> Result<bool, BackendError> {
        let change = self.pipeline.set_state(state).and_then(|success| {
            if success == gst::StateChangeSuccess::Async && state == gst::State::Paused {
                let patience = gst::ClockTime::try_from(PATIENCE).ok();
                return self.pipeline.state(patience).0;
            }
            Ok(success)
        });
        match change {
            Ok(success) => Ok(success == gst::StateChangeSuccess::NoPreroll),
            // The bus says it in more words.
            Err(error) => Err(self
                .look()
                .err()
                .unwrap_or_else(|| self.lost(error.to_string()))),
        }
    }

    /// What has happened since the last look.
    pub(super) fn look(&self) -> Result<Life, BackendError> {
        let mut life = Life::Runs;
        let kinds = [
            gst::MessageType::Error,
            gst::MessageType::Eos,
            gst::MessageType::Latency,
            gst::MessageType::ClockLost,
        ];
        while let Some(message) = self.bus.as_ref().and_then(|bus| bus.pop_filtered(&kinds)) {
            match message.view() {
                gst::MessageView::Error(error) => {
                    let source = message.src().map(|source| source.name().to_string());
                    let error = error.error();
                    let remedy = if error.matches(gst::ResourceError::OpenWrite) {
                        "; if it is a file that it writes, name its folder in paths"
                    } else {
                        ""
                    };
                    return Err(self.lost(format!(
                        "{}: {}{remedy}",
                        source.unwrap_or_default(),
                        error.message()
                    )));
                }
                gst::MessageView::Eos(_) => life = Life::Ended,
                // An element wants another latency than before.
                gst::MessageView::Latency(_) => {
                    let _ = self.pipeline.recalculate_latency();
                }
                _ => {}
            }
        }
        Ok(life)
    }

    /// Waits until all has been played, `most` at the longest.
    pub(super) fn wait_for_end(&self, most: Duration) {
        let most = gst::ClockTime::try_from(most).ok();
        let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
        if let Some(bus) = &self.bus {
            let _ = bus.timed_pop_filtered(most, &kinds);
        }
    }

    /// Nanoseconds that the pipeline has run.
    pub(super) fn now(&self) -> Option<u64> {
        self.pipeline
            .current_running_time()
            .map(gst::ClockTime::nseconds)
    }

    /// Nanoseconds from the time written on a buffer to when it is heard.
    pub(super) fn latency(&self) -> u64 {
        let mut query = gst::query::Latency::new();
        if !self.pipeline.query(&mut query) {
            return 0;
        }
        let (live, shortest, _) = query.result();
        if live { shortest.nseconds() } else { 0 }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let (done, gone) = mpsc::channel();
        let (pipeline, taken) = (self.pipeline.clone(), self.taken.clone());
        // An element may hang in a server's call while it is closed. It does so alone then.
        let closing = std::thread::Builder::new()
            .name("gst-close".to_owned())
            .spawn(move || {
                let _ = pipeline.set_state(gst::State::Null);
                drop(taken);
                let _ = done.send(());
            });
        let closed = closing.is_ok() && gone.recv_timeout(PATIENCE).is_ok();
        if !closed {
            log::warn!(
                "{} does not close, it is left behind",
                device(&self.description)
            );
        }
    }
}
