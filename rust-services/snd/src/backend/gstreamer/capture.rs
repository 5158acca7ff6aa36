// SPDX-License-Identifier: Apache-2.0

//! The recording side.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::AppSink;

use super::super::channels::{Maps, Reorder};
use super::super::{BackendError, Input, Opening};
use super::caps::Layout;
use super::description;
use super::pipeline::{Life, Pipeline, Slot};
use crate::format::Params;
use crate::wire::Direction;

/// Buffers that wait behind the pipeline, at most. Sources make them 5 to 100 ms long.
const MOST_BUFFERS: u32 = 32;
/// How long one call waits for frames.
const FRAMES: gst::ClockTime = gst::ClockTime::from_mseconds(50);

pub(super) struct Capture {
    /// A description for each source.
    descriptions: Vec<String>,
    source: usize,
    maps: Maps,
    slot: Slot,
    open: Option<Open>,
    /// Parameters while the stream is prepared, to open another source with.
    params: Option<Params>,
    running: bool,
}

struct Open {
    sink: AppSink,
    params: Params,
    reorder: Option<Reorder>,
    /// What the last buffer held beyond what was asked for, and how much of it was read.
    rest: Vec<u8>,
    read: usize,
    // Dropped last: it gives the elements back.
    pipeline: Pipeline,
}

impl Capture {
    pub(super) fn new(descriptions: Vec<String>, maps: Maps) -> Self {
        Self {
            descriptions,
            source: 0,
            maps,
            slot: Slot::default(),
            open: None,
            params: None,
            running: false,
        }
    }

    /// The pipeline of the selected source. A stream whose sources are all one has one.
    fn description(&self) -> &str {
        self.descriptions
            .get(self.source)
            .or_else(|| self.descriptions.first())
            .map_or("", String::as_str)
    }

    fn open_source(&self, params: &Params) -> Result<Open, BackendError> {
        let positions = self.maps.of(params.channels);
        let text = self.description();
        let taken = self.slot.take(text)?;
        let (pipeline, end) = description::build(text, Direction::Input, params.format)?;
        let pipeline = Pipeline::new(text, pipeline, taken);
        let (Ok(sink), Some(layout)) = (end.downcast::<AppSink>(), Layout::new(params, &positions))
        else {
            return Err(pipeline.lost(format!("cannot give format {:?}", params.format)));
        };
        sink.set_caps(Some(&layout.caps));
        sink.set_max_buffers(MOST_BUFFERS);
        sink.set_wait_on_eos(false);
        let live = pipeline.set(gst::State::Paused)?;
        // A microphone is read at once, and what is not read in time is gone. Anything else is held
        // back to the pace of time here, for a file would otherwise be over in a moment.
        sink.set_drop(live);
        sink.set_sync(!live);
        Ok(Open {
            sink,
            params: *params,
            reorder: layout.back(&positions),
            rest: Vec::new(),
            read: 0,
            pipeline,
        })
    }
}

impl Open {
    /// Copies what the last buffer still has; returns how many bytes.
    fn take_rest(&mut self, bytes: &mut [u8]) -> usize {
        let rest = self.rest.get(self.read..).unwrap_or_default();
        let taken = self
            .params
            .bytes(self.params.frames(rest.len().min(bytes.len())));
        if let (Some(to), Some(from)) = (bytes.get_mut(..taken), rest.get(..taken)) {
            to.copy_from_slice(from);
        }
        self.read = self.read.saturating_add(taken);
        taken
    }

    /// Waits for the next buffer. False if none came.
    fn next(&mut self) -> Result<bool, BackendError> {
        let sample = self.sink.try_pull_sample(FRAMES);
        let Some(buffer) = sample.as_ref().and_then(|sample| sample.buffer()) else {
            // Its source has ended: there is silence from now on, and no hurry.
            if self.pipeline.look()? == Life::Ended || self.sink.is_eos() {
                std::thread::sleep(FRAMES.into());
            }
            return Ok(false);
        };
        let map = buffer
            .map_readable()
            .map_err(|error| self.pipeline.lost(error.to_string()))?;
        let whole = self.params.bytes(self.params.frames(map.len()));
        self.rest.clear();
        self.rest
            .extend_from_slice(map.get(..whole).unwrap_or_default());
        self.read = 0;
        if let Some(reorder) = &self.reorder {
            let width = self.params.format.container_bits().div_ceil(8);
            reorder.apply(&mut self.rest, usize::try_from(width).unwrap_or(1));
        }
        Ok(true)
    }
}

impl Input for Capture {
    fn open(&mut self, params: &Params, _opening: Opening) -> Result<(), BackendError> {
        self.close();
        self.params = Some(*params);
        self.open = Some(self.open_source(params)?);
        Ok(())
    }

    fn start(&mut self) -> Result<(), BackendError> {
        self.running = true;
        if let Some(open) = self.open.as_mut() {
            // What was recorded before the pause is not wanted after it.
            open.rest.clear();
            open.read = 0;
            open.pipeline.set(gst::State::Playing)?;
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BackendError> {
        // The selected source was changed.
        if let (None, Some(params)) = (&self.open, self.params) {
            self.open = Some(self.open_source(&params)?);
            if self.running {
                self.start()?;
            }
        }
        let Some(open) = self.open.as_mut() else {
            return Ok(0);
        };
        let taken = open.take_rest(bytes);
        if taken > 0 {
            return Ok(taken);
        }
        open.pipeline.look()?;
        if open.next()? {
            return Ok(open.take_rest(bytes));
        }
        Ok(0)
    }

    fn delay(&mut self) -> u64 {
        self.open.as_ref().map_or(0, |open| {
            open.params
                .frames(open.rest.len().saturating_sub(open.read))
        })
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        self.running = false;
        if let Some(open) = self.open.as_mut() {
            open.pipeline.set(gst::State::Paused)?;
        }
        Ok(())
    }

    fn select(&mut self, source: u32) {
        let before = self.description().to_owned();
        self.source = usize::try_from(source).unwrap_or(0);
        // Opened with the next read.
        if self.description() != before {
            self.open = None;
        }
    }

    fn close(&mut self) {
        self.open = None;
        self.params = None;
        self.running = false;
    }
}
