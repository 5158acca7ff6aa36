// SPDX-License-Identifier: Apache-2.0

//! The thread that owns a pipeline.
//!
//! Everything that may wait for an element happens on this thread: making the elements, changing their
//! state, giving them back. If one hangs there, this thread hangs with it and nobody else does.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::{AppSink, AppSinkCallbacks};

use super::Shared;
use super::pipeline::{Pipeline, Plan};
use super::shared::State;
use crate::error::CodecError;

/// What a session's thread is to do, or is to know.
pub(super) enum Command {
    Push(gst::Buffer),
    Drain,
    Flush,
    /// The state has new settings.
    Adjust,
    /// The end of the stream has come out, in this life of the pipeline.
    Ended(u64),
    /// An element has given up; or has only found nothing in the stream.
    Broken {
        reason: String,
        only_empty: bool,
    },
    Close,
}

/// The thread's side.
pub(super) struct Thread {
    pub(super) plan: Plan,
    pub(super) shared: Shared,
    /// For what elements say.
    pub(super) own: Sender<Command>,
    pub(super) sink: Arc<OnceLock<AppSink>>,
}

impl Thread {
    pub(super) fn run(self, inbox: &Receiver<Command>) {
        let mut pipeline = match self.build() {
            Ok(pipeline) => pipeline,
            Err(reason) => return self.shared.fail(self.start_failed(reason)),
        };
        if let Err(error) = self.play(&mut pipeline) {
            self.shared.fail(error);
        }
        self.obey(&mut pipeline, inbox);
        let _ = pipeline.pipeline.set_state(gst::State::Null);
    }

    fn start_failed(&self, reason: String) -> CodecError {
        CodecError::Start {
            codec: self.plan.codec,
            reason,
        }
    }

    fn obey(&self, pipeline: &mut Pipeline, inbox: &Receiver<Command>) {
        let mut draining = false;
        // What came during a drain, in its order.
        let mut held = VecDeque::new();
        loop {
            let next = if draining { None } else { held.pop_front() };
            let Some(command) = next.or_else(|| inbox.recv().ok()) else {
                return;
            };
            if self.shared.lock().closed {
                return;
            }
            match command {
                Command::Close => return,
                Command::Push(_) | Command::Drain | Command::Adjust if draining => {
                    held.push_back(command);
                }
                Command::Push(buffer) => {
                    pipeline.touched = true;
                    // The only failure is a pipeline that has failed or ends, and says so itself.
                    let _ = pipeline.source.push_buffer(buffer);
                }
                Command::Adjust => self.adjust(pipeline),
                Command::Drain if pipeline.touched => {
                    draining = true;
                    let _ = pipeline.source.end_of_stream();
                }
                Command::Drain => self.shared.change(|state| state.drained = true),
                Command::Ended(life) if draining && life == pipeline.life => {
                    draining = false;
                    self.renew(pipeline, |state| state.drained = true);
                }
                Command::Ended(_) => {}
                Command::Broken { only_empty, .. } if draining && only_empty => {
                    draining = false;
                    self.renew(pipeline, |state| state.drained = true);
                }
                Command::Broken { reason, .. } => self.shared.fail(CodecError::Element {
                    codec: self.plan.codec,
                    reason,
                }),
                Command::Flush => {
                    draining = false;
                    held.clear();
                    // The word of them may have been held.
                    self.adjust(pipeline);
                    self.renew(pipeline, |state| {
                        // Nobody takes pictures meanwhile.
                        state.ledger.flush();
                        state.flushed = state.flushed.saturating_add(1);
                    });
                }
            }
        }
    }

    fn adjust(&self, pipeline: &Pipeline) {
        let settings = self.shared.lock().settings.take();
        if let Some(settings) = settings {
            settings.apply(&pipeline.element);
        }
    }

    /// A new life for the pipeline: nothing of the last one is in it.
    fn renew(&self, pipeline: &mut Pipeline, then: impl FnOnce(&mut State)) {
        let stopped = pipeline.pipeline.set_state(gst::State::Ready);
        if let Err(error) = stopped {
            return self.shared.fail(self.start_failed(error.to_string()));
        }
        self.shared.lock().forget();
        if let Err(error) = self.play(pipeline) {
            return self.shared.fail(error);
        }
        self.shared.change(then);
    }

    fn play(&self, pipeline: &mut Pipeline) -> Result<(), CodecError> {
        pipeline.life = pipeline.life.saturating_add(1);
        pipeline.touched = false;
        let sink = self.sink.get().cloned();
        if let Some(sink) = sink {
            sink.set_callbacks(self.callbacks(pipeline.life));
        }
        let started = pipeline.pipeline.set_state(gst::State::Playing);
        started
            .map(drop)
            .map_err(|error| self.start_failed(error.to_string()))
    }

    fn callbacks(&self, life: u64) -> AppSinkCallbacks {
        let (shared, own) = (self.shared.clone(), self.own.clone());
        AppSinkCallbacks::builder()
            .new_sample(move |_| {
                // It stays in the sink until its owner takes it.
                shared.change(|_| ());
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                let _ = own.send(Command::Ended(life));
            })
            .build()
    }
}
