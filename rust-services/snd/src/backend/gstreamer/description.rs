// SPDX-License-Identifier: Apache-2.0

//! From a written pipeline to one that can run.

use gst::prelude::*;
use gstreamer as gst;

use super::super::BackendError;
use crate::format::Format;
use crate::wire::Direction;

/// The name of the element where the guest's sound enters or leaves.
const END: &str = "agl-virtio-end";

/// Says what is wrong with a description.
pub(super) fn check(description: &str, direction: Direction) -> Result<(), BackendError> {
    build(description, direction, Format::S16).map(drop)
}

/// Builds the pipeline and finds its element at the guest's end.
pub(super) fn build(
    description: &str,
    direction: Direction,
    format: Format,
) -> Result<(gst::Pipeline, gst::Element), BackendError> {
    let refused = |reason: String| BackendError::Device {
        device: device(description),
        reason,
    };
    if description.trim().is_empty() {
        return Err(refused(
            "a pipeline is needed: write for example \"autoaudiosink\"".to_owned(),
        ));
    }
    // Converters pass on unchanged what the other side takes.
    let convert = "audioconvert ! audioresample";
    let text = match (direction, format) {
        (Direction::Output, Format::MuLaw) => {
            format!("appsrc name={END} ! mulawdec ! {convert} ! {description}")
        }
        (Direction::Output, Format::ALaw) => {
            format!("appsrc name={END} ! alawdec ! {convert} ! {description}")
        }
        (Direction::Output, _) => format!("appsrc name={END} ! {convert} ! {description}"),
        (Direction::Input, Format::MuLaw) => {
            format!("{description} ! {convert} ! mulawenc ! appsink name={END}")
        }
        (Direction::Input, Format::ALaw) => {
            format!("{description} ! {convert} ! alawenc ! appsink name={END}")
        }
        (Direction::Input, _) => format!("{description} ! {convert} ! appsink name={END}"),
    };
    let mut context = gst::ParseContext::new();
    let element = gst::parse::launch_full(&text, Some(&mut context), gst::ParseFlags::FATAL_ERRORS)
        .map_err(|error| {
            // The list also has elements that are there, but without a property.
            if error.matches(gst::ParseError::NoSuchElement) {
                refused(format!(
                    "GStreamer has no element {}: install the plug-in, or correct the name",
                    context.missing_elements().join(", ")
                ))
            } else {
                refused(error.message().to_owned())
            }
        })?;
    let pipeline = element
        .downcast::<gst::Pipeline>()
        .map_err(|_| refused("is not a pipeline of elements joined by \"!\"".to_owned()))?;
    let end = pipeline
        .by_name(END)
        .ok_or_else(|| refused(format!("has an element of its own named {END}: rename it")))?;
    Ok((pipeline, end))
}

/// How a pipeline is named in messages.
pub(super) fn device(description: &str) -> String {
    format!("GStreamer pipeline \"{description}\"")
}
