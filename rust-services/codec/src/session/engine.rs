// SPDX-License-Identifier: Apache-2.0

//! The thread that owns a pipeline, and its owner's end.
//!
//! Everything that may wait for an element happens on this thread: making the elements, changing their
//! state, giving them back. If one hangs there, this thread hangs with it and nobody else does.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};

use super::{Host, Shared};
use crate::codec::Codec;
use crate::elements::codec_element;
use crate::error::CodecError;
use crate::layout::Size;
use crate::ledger::{Unit, number_on, time_of, write_number};
use crate::settings::EncoderSettings;

/// Inputs that may be in front of the parser.
const MOST_WAITING: usize = 4;
/// Outputs that wait to be taken; then the codec waits.
const MOST_OUTPUTS: u32 = 2;

/// What a pipeline is made of.
pub(crate) struct Plan {
    pub(crate) codec: Codec,
    /// From source to sink, whose names are [`SOURCE`] and [`SINK`].
    pub(crate) description: String,
    pub(crate) input: gst::Caps,
    pub(crate) output: gst::Caps,
    /// Of an encoder.
    pub(crate) settings: Option<EncoderSettings>,
}

/// Name of the pipeline's beginning.
pub(crate) const SOURCE: &str = "agl_source";
/// Name of its end.
pub(crate) const SINK: &str = "agl_sink";

enum Command {
    Push(gst::Buffer),
    Drain,
    Flush,
    Adjust(EncoderSettings),
    /// The end of the stream has come out, in this life of the pipeline.
    Ended(u64),
    /// An element has given up; or has only found nothing in the stream.
    Broken {
        reason: String,
        only_empty: bool,
    },
    Close,
}

/// The owner's end of a session.
pub(crate) struct Running {
    codec: Codec,
    pub(crate) shared: Shared,
    commands: Sender<Command>,
    sink: Arc<OnceLock<AppSink>>,
    patience: Duration,
    stash: VecDeque<(gst::Sample, Unit)>,
    size: Option<Size>,
    draining: bool,
    flushes: u64,
    flushing: bool,
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
            stash: VecDeque::new(),
            size: None,
            draining: false,
            flushes: 0,
            flushing: false,
            failed: false,
            _place: place,
        })
    }

    pub(crate) fn room(&self) -> bool {
        !self.failed && !self.flushing && self.shared.lock().waiting < MOST_WAITING
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
        self.send(Command::Push(buffer));
    }

    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.shared.lock().moved = Instant::now();
        self.send(Command::Drain);
    }

    pub(crate) fn flush(&mut self) {
        self.flushes = self.flushes.saturating_add(1);
        self.flushing = true;
        self.draining = false;
        self.stash.clear();
        self.shared.lock().moved = Instant::now();
        self.send(Command::Flush);
    }

    pub(crate) fn adjust(&mut self, settings: EncoderSettings) {
        self.send(Command::Adjust(settings));
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
        let silent = self.shared.lock().moved.elapsed();
        if !self.is_busy() || silent < self.patience {
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
        let silent = self.shared.lock().moved.elapsed();
        Some(self.patience.saturating_sub(silent))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.send(Command::Close);
    }
}

fn size_in(caps: &gst::CapsRef) -> Option<Size> {
    let structure = caps.structure(0)?;
    let side = |name| u32::try_from(structure.get::<i32>(name).ok()?).ok();
    Some(Size::new(side("width")?, side("height")?)).filter(|size| size.pixels() > 0)
}

/// The thread's side.
struct Thread {
    plan: Plan,
    shared: Shared,
    /// For what elements say.
    own: Sender<Command>,
    sink: Arc<OnceLock<AppSink>>,
}

/// A pipeline that is up.
struct Pipeline {
    pipeline: gst::Pipeline,
    source: AppSrc,
    element: gst::Element,
    /// Which life of the pipeline this is.
    life: u64,
    /// Something was pushed in this life.
    touched: bool,
}

impl Thread {
    fn run(self, inbox: &Receiver<Command>) {
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
            match command {
                Command::Close => return,
                Command::Push(_) | Command::Drain | Command::Adjust(_) if draining => {
                    held.push_back(command);
                }
                Command::Push(buffer) => {
                    pipeline.touched = true;
                    // The only failure is a pipeline that has failed or ends, and says so itself.
                    let _ = pipeline.source.push_buffer(buffer);
                }
                Command::Adjust(settings) => settings.apply(&pipeline.element),
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
                    self.renew(pipeline, |state| {
                        // Nobody takes pictures meanwhile.
                        state.ledger.flush();
                        state.flushed = state.flushed.saturating_add(1);
                    });
                }
            }
        }
    }

    /// A new life for the pipeline: nothing of the last one is in it.
    fn renew(&self, pipeline: &mut Pipeline, then: impl FnOnce(&mut super::shared::State)) {
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

    fn build(&self) -> Result<Pipeline, String> {
        let plan = &self.plan;
        let pipeline = gst::parse::launch(&plan.description).map_err(|error| error.to_string())?;
        let pipeline = pipeline
            .downcast::<gst::Pipeline>()
            .map_err(|_| "it is no pipeline".to_owned())?;
        let end = |name: &str| pipeline.by_name(name).ok_or("an end is missing");
        let source = end(SOURCE)?.downcast::<AppSrc>().map_err(|_| "no source")?;
        let sink = end(SINK)?.downcast::<AppSink>().map_err(|_| "no sink")?;
        source.set_caps(Some(&plan.input));
        source.set_format(gst::Format::Time);
        // Bounded by how many are pushed.
        source.set_max_bytes(0);
        sink.set_caps(Some(&plan.output));
        sink.set_property("sync", false);
        sink.set_max_buffers(MOST_OUTPUTS);
        sink.set_drop(false);
        let element = codec_element(&pipeline)?;
        if let Some(settings) = &plan.settings {
            settings.apply(&element);
        }
        self.listen(&pipeline);
        self.watch(&source, &element)?;
        let _ = self.sink.set(sink);
        Ok(Pipeline {
            pipeline,
            source,
            element,
            life: 0,
            touched: false,
        })
    }

    /// Errors come as commands.
    fn listen(&self, pipeline: &gst::Pipeline) {
        let Some(bus) = pipeline.bus() else { return };
        let own = self.own.clone();
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                let from = message.src().map(|source| source.name().to_string());
                let cause = error.error();
                let reason = format!("{}: {}", from.unwrap_or_default(), cause.message());
                let only_empty = cause.matches(gst::StreamError::WrongType)
                    || cause.matches(gst::StreamError::Decode);
                let _ = own.send(Command::Broken { reason, only_empty });
            }
            gst::BusSyncReply::Drop
        });
    }

    /// Looks at what passes: inputs that leave the source, units into and out of the codec.
    fn watch(&self, source: &AppSrc, element: &gst::Element) -> Result<(), String> {
        let pad = |of: &gst::Element, name: &str| {
            of.static_pad(name)
                .ok_or_else(|| format!("{} has no pad \"{name}\"", of.name()))
        };
        let shared = self.shared.clone();
        let leaves = pad(source.upcast_ref(), "src")?;
        leaves.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            shared.change(|state| state.waiting = state.waiting.saturating_sub(1));
            gst::PadProbeReturn::Ok
        });
        let decodes = self.plan.settings.is_none();
        self.shared.lock().decodes = decodes;
        let shared = self.shared.clone();
        let enters = pad(element, "sink")?;
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        enters.add_probe(kinds, move |pad, info| {
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) if decodes => number(&shared, buffer),
                Some(gst::PadProbeData::Buffer(buffer)) => force_key(&shared, pad, buffer),
                Some(gst::PadProbeData::Event(event)) if decodes => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        if let Some(size) = size_in(caps.caps()) {
                            shared.change(|state| state.header = Some(size));
                        }
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        let shared = self.shared.clone();
        let comes_out = pad(element, "src")?;
        comes_out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
                shared.lock().came_out(buffer);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(())
    }
}

/// Gives a unit of coded stream its number, on its way into the decoder.
fn number(shared: &Shared, buffer: &mut gst::Buffer) {
    let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    let number = shared.lock().goes_in(buffer.pts(), key);
    let buffer = buffer.make_mut();
    write_number(buffer, number);
    // For decoders that lose metas: distinct times at least.
    buffer.set_pts(time_of(number));
    buffer.set_dts(gst::ClockTime::NONE);
}

/// Has the encoder make a key picture of this one, if that was asked for.
fn force_key(shared: &Shared, pad: &gst::Pad, buffer: &gst::Buffer) {
    let unit = {
        let mut state = shared.lock();
        number_on(buffer).and_then(|number| state.is_encoded(number))
    };
    if unit.is_some_and(|unit| unit.force_key) {
        let event = gstreamer_video::DownstreamForceKeyUnitEvent::builder()
            .all_headers(true)
            .build();
        pad.send_event(event);
    }
}
