// SPDX-License-Identifier: Apache-2.0

//! What a session's owner, its thread and GStreamer's threads have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gstreamer as gst;
use serde::{Deserialize, Serialize};

use crate::error::CodecError;
use crate::layout::Size;
use crate::ledger::{Ledger, Unit, number_on};
use crate::settings::EncoderSettings;

/// What has gone through a session.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counters {
    /// Inputs pushed.
    pub pushed: u64,
    /// Bytes pushed.
    pub bytes_in: u64,
    /// Outputs that came out of the codec.
    pub outputs: u64,
    /// Units that went into the codec and of which nothing came out, for they were broken.
    pub dropped: u64,
    /// Nanoseconds from a unit's way into the codec to its way out, all units together.
    pub latency_sum: u64,
    /// The longest of them.
    pub latency_max: u64,
}

/// What is under way and what has happened.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    /// Inputs in front of the parser.
    pub(crate) waiting: usize,
    /// Size from a header.
    pub(crate) header: Option<Size>,
    /// Drains that have ended, in this life of the pipeline.
    pub(crate) drained: bool,
    pub(crate) flushed: u64,
    pub(crate) failed: Option<CodecError>,
    /// Settings that an encoder is still to be given.
    pub(crate) settings: Option<EncoderSettings>,
    /// The owner is gone.
    pub(crate) closed: bool,
    /// Whether it is a decoder's.
    pub(crate) decodes: bool,
    /// Units that went in and did not come out yet: their numbers, and when they went in.
    inside: BTreeMap<u64, Instant>,
    /// When something moved last.
    pub(crate) moved: Instant,
    pub(crate) counters: Counters,
}

/// Units whose way in is remembered: what is older was dropped by the codec.
const MOST_INSIDE: usize = 256;

impl State {
    /// A unit of this internal time goes into a decoder. Its number.
    pub(crate) fn goes_in(&mut self, time: Option<gst::ClockTime>, key: bool) -> u64 {
        let number = self.ledger.found(time, key);
        self.enter(number);
        number
    }

    /// The unit of this number goes into an encoder.
    pub(crate) fn is_encoded(&mut self, number: u64) -> Option<Unit> {
        self.enter(number);
        self.ledger.unit(number)
    }

    fn enter(&mut self, number: u64) {
        self.moved = Instant::now();
        self.inside.insert(number, self.moved);
        if self.inside.len() > MOST_INSIDE {
            self.inside.pop_first();
            self.counters.dropped = self.counters.dropped.saturating_add(1);
        }
    }

    /// A unit has come out of the codec.
    pub(crate) fn came_out(&mut self, buffer: &gst::BufferRef) {
        self.moved = Instant::now();
        let counters = &mut self.counters;
        counters.outputs = counters.outputs.saturating_add(1);
        let entered = number_on(buffer).and_then(|number| self.inside.remove(&number));
        if let Some(entered) = entered {
            let nanoseconds = u64::try_from(entered.elapsed().as_nanos()).unwrap_or(u64::MAX);
            counters.latency_sum = counters.latency_sum.saturating_add(nanoseconds);
            counters.latency_max = counters.latency_max.max(nanoseconds);
        }
    }

    /// The pipeline begins anew: what was in it is gone.
    pub(crate) fn forget(&mut self) {
        self.waiting = 0;
        let lost = self.inside.len() as u64;
        self.counters.dropped = self.counters.dropped.saturating_add(lost);
        self.inside.clear();
    }
}

/// See [`State`]; clones are the same one.
#[derive(Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

impl Shared {
    pub(crate) fn new(notify: Arc<dyn Fn() + Send + Sync>) -> Self {
        let state = State {
            ledger: Ledger::default(),
            waiting: 0,
            header: None,
            drained: false,
            flushed: 0,
            failed: None,
            settings: None,
            closed: false,
            decodes: true,
            inside: BTreeMap::new(),
            moved: Instant::now(),
            counters: Counters::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            notify,
        }
    }

    /// The state. Held for a few instructions only.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and tells the owner.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        {
            let mut state = self.lock();
            state.moved = Instant::now();
            change(&mut state);
        }
        (self.notify)();
    }

    /// The session has failed; the first reason stays.
    pub(crate) fn fail(&self, error: CodecError) {
        self.change(|state| {
            state.failed.get_or_insert(error);
        });
    }
}
