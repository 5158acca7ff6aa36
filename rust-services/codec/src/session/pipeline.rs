// SPDX-License-Identifier: Apache-2.0

//! A pipeline: what it is made of, and what is looked at in it.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::{AppSink, AppSrc};
use gstreamer_video::{VideoInfo, VideoMeta};

use super::Shared;
use super::thread::{Command, Thread};
use crate::codec::Codec;
use crate::elements::codec_element;
use crate::frames::{FramePool, Frames};
use crate::layout::Size;
use crate::ledger::{number_on, time_of, write_number};
use crate::settings::EncoderSettings;

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
    /// Where a decoder may draw its pictures.
    pub(crate) frames: Option<Frames>,
}

/// Name of the pipeline's beginning.
pub(crate) const SOURCE: &str = "agl_source";
/// Name of its end.
pub(crate) const SINK: &str = "agl_sink";

/// A pipeline that is up.
pub(super) struct Pipeline {
    pub(super) pipeline: gst::Pipeline,
    pub(super) source: AppSrc,
    pub(super) element: gst::Element,
    /// Which life of the pipeline this is.
    pub(super) life: u64,
    /// Something was pushed in this life.
    pub(super) touched: bool,
}

impl Thread {
    pub(super) fn build(&self) -> Result<Pipeline, String> {
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
        match &plan.settings {
            Some(settings) => settings.apply(&element),
            None => offer_memory(&sink, plan.frames.clone()),
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

/// Says to a decoder where its pictures may lie; or, where that is all the same, that they may lie as it
/// likes.
fn offer_memory(sink: &AppSink, frames: Option<Frames>) {
    let Some(pad) = sink.static_pad("sink") else {
        return;
    };
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        let Some(query) = info.query_mut() else {
            return gst::PadProbeReturn::Ok;
        };
        let gst::QueryViewMut::Allocation(query) = query.view_mut() else {
            return gst::PadProbeReturn::Ok;
        };
        let info = query.get_owned().0;
        let info = info.and_then(|caps| VideoInfo::from_caps(&caps).ok());
        let bytes = info.and_then(|info| u32::try_from(info.size()).ok());
        if let (Some(frames), Some(bytes)) = (&frames, bytes) {
            // With rows of any length libav's decoders would draw there, keep pictures that others
            // refer to mapped, and so have them copied into ordinary memory. Without, they copy each
            // picture once, and there.
            let pool = FramePool::new(frames.clone());
            query.add_allocation_pool(Some(&pool), bytes, 0, 0);
        } else {
            query.add_allocation_meta::<VideoMeta>(None);
        }
        gst::PadProbeReturn::Handled
    });
}

/// The size in a description of pictures, if it has one.
pub(super) fn size_in(caps: &gst::CapsRef) -> Option<Size> {
    let structure = caps.structure(0)?;
    let side = |name| u32::try_from(structure.get::<i32>(name).ok()?).ok();
    Some(Size::new(side("width")?, side("height")?)).filter(|size| size.pixels() > 0)
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
