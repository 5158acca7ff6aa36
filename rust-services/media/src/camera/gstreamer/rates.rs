// SPDX-License-Identifier: Apache-2.0

//! At which rates a camera of the host says that it gives pictures.
//!
//! `v4l2src` says it of its pad once it has opened its device. `pipewiresrc` says nothing before it
//! runs; what PipeWire knows of its cameras is asked for there.

use gst::prelude::*;
use gstreamer as gst;

use crate::camera::modes::Size;
use crate::rate::{Rate, Rates};

/// Rates of a list that are told to a guest, at most.
const MOST_LISTED: usize = 64;

/// What the source of a pipeline says that it can give. Its pipeline may be opened by this, and does not
/// run.
pub(super) fn said(pipeline: &gst::Pipeline) -> Option<gst::Caps> {
    let mut sources = pipeline
        .iterate_sources()
        .into_iter()
        .filter_map(Result::ok);
    let (source, None) = (sources.next()?, sources.next()) else {
        return None;
    };
    let factory = source.factory()?;
    if factory.name() == "pipewiresrc" {
        return said_by_pipewire(&source);
    }
    pipeline.set_state(gst::State::Ready).ok()?;
    // As far as what comes behind it takes it.
    source.static_pad("src")?.allowed_caps()
}

fn said_by_pipewire(source: &gst::Element) -> Option<gst::Caps> {
    let text = |name: &str| {
        source.find_property(name)?;
        source.property::<Option<String>>(name)
    };
    let (wanted, number) = (text("target-object"), text("path"));
    let is_it = |device: &gst::Device| {
        let told = device.properties();
        let says = |key: &str, value: &String| {
            let told = told.as_ref().and_then(|told| told.value(key).ok());
            let told = told.and_then(|told| told.transform::<String>().ok());
            told.and_then(|told| told.get::<String>().ok()).as_ref() == Some(value)
        };
        let by_name = |name: &String| says("node.name", name) || says("object.serial", name);
        device.has_classes("Video/Source")
            && wanted.as_ref().is_none_or(by_name)
            && number
                .as_ref()
                .is_none_or(|number| says("object.id", number))
    };
    let provider = gst::DeviceProviderFactory::by_name("pipewiredeviceprovider")?;
    let mut found = provider.devices().into_iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(camera), None) => camera.caps(),
        // Which one of several it will be is not known yet.
        _ => None,
    }
}

/// The rates of a size, in what a source has said; those of all its sizes where it does not have this one, as
/// pictures are scaled then. Nothing where it leaves them open.
pub(super) fn of_size(said: &gst::CapsRef, size: Size) -> Option<Rates> {
    let is_exact = |one: &&gst::StructureRef| {
        holds(one, "width", size.width) && holds(one, "height", size.height)
    };
    gather(said.iter().filter(is_exact)).or_else(|| gather(said.iter()))
}

/// Whether a field can have this value.
fn holds(structure: &gst::StructureRef, field: &str, wanted: u32) -> bool {
    let Ok(wanted) = i32::try_from(wanted) else {
        return false;
    };
    if let Ok(fixed) = structure.get::<i32>(field) {
        fixed == wanted
    } else if let Ok(range) = structure.get::<gst::IntRange<i32>>(field) {
        (range.min()..=range.max()).contains(&wanted)
    } else if let Ok(list) = structure.get::<gst::List>(field) {
        list.iter().any(|one| one.get() == Ok(wanted))
    } else {
        false
    }
}

fn gather<'a>(structures: impl Iterator<Item = &'a gst::StructureRef>) -> Option<Rates> {
    let mut list: Vec<Rate> = Vec::new();
    let mut range: Option<(Rate, Rate)> = None;
    for structure in structures {
        if let Ok(fixed) = structure.get::<gst::Fraction>("framerate") {
            list.extend(rate(fixed));
        } else if let Ok(listed) = structure.get::<gst::List>("framerate") {
            let fractions = listed.iter().filter_map(|one| one.get().ok());
            list.extend(fractions.filter_map(rate));
        } else if let Ok(between) = structure.get::<gst::FractionRange>("framerate") {
            let Some((least, most)) = limits(&between) else {
                continue;
            };
            let (so_far_least, so_far_most) = range.unwrap_or((least, most));
            range = Some((least.min(so_far_least), most.max(so_far_most)));
        }
    }
    if let Some((least, most)) = range {
        return Some(Rates::Range(least, most));
    }
    list.retain(|rate| (Rate::LEAST..=Rate::MOST).contains(rate));
    list.sort_unstable_by(|one, other| other.cmp(one));
    list.dedup();
    list.truncate(MOST_LISTED);
    if list.is_empty() {
        return None;
    }
    // The usual one at first, if there is such a one.
    let listed = Rates::List(list.clone());
    let first = listed.nearest(Rate::USUAL);
    list.retain(|rate| *rate != first);
    list.insert(0, first);
    Some(Rates::List(list))
}

fn rate(fraction: gst::Fraction) -> Option<Rate> {
    let term = |number: i32| u32::try_from(number).ok();
    Rate::new(term(fraction.numer())?, term(fraction.denom())?)
}

/// The ends of a range, as far as they are offered; nothing of one that has no end.
fn limits(range: &gst::FractionRange) -> Option<(Rate, Rate)> {
    let (least, most) = (range.min(), range.max());
    if most.numer() == i32::MAX {
        return None;
    }
    let least = rate(least).unwrap_or(Rate::LEAST).max(Rate::LEAST);
    let most = rate(most)?.min(Rate::MOST);
    (least <= most).then_some((least, most))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn of(caps: &str, width: u32, height: u32) -> Option<Rates> {
        gst::init().unwrap();
        let caps = gst::Caps::from_str(caps).unwrap();
        of_size(&caps, Size { width, height })
    }

    fn list(rates: &[&str]) -> Option<Rates> {
        let rates = rates.iter().map(|rate| rate.parse().unwrap());
        Some(Rates::List(rates.collect()))
    }

    const CAMERA: &str = "video/x-raw, format=YUY2, width=640, height=480, framerate={ 30/1, 15/2, 60000/1001, 0/1 };
        video/x-raw, format=YUY2, width=1280, height=720, framerate=10/1;
        image/jpeg, width={ 1280, 1920 }, height=[ 2, 4096 ], framerate=30000/1001";

    #[test]
    fn rates_are_those_of_the_size_and_of_all_where_it_is_made_by_scaling() {
        assert_eq!(of(CAMERA, 640, 480), list(&["30", "60000/1001", "15/2"]));
        assert_eq!(of(CAMERA, 1280, 720), list(&["30000/1001", "10"]));
        assert_eq!(of(CAMERA, 1920, 1080), list(&["30000/1001"]));
        let all = list(&["30", "60000/1001", "30000/1001", "10", "15/2"]);
        assert_eq!(of(CAMERA, 320, 240), all);
    }

    #[test]
    fn a_range_is_a_range_and_one_without_end_says_nothing() {
        let between = |range: &str| of(&format!("video/x-raw, framerate={range}"), 640, 480);
        let range = |least: &str, most: &str| {
            Some(Rates::Range(least.parse().unwrap(), most.parse().unwrap()))
        };
        assert_eq!(between("[ 5/1, 60000/1001 ]"), range("5", "60000/1001"));
        assert_eq!(between("[ 0/1, 1000/1 ]"), range("1", "240"));
        assert_eq!(between("[ 0/1, 2147483647/1 ]"), None);
        assert_eq!(between("[ 300/1, 1000/1 ]"), None);
        assert_eq!(between("0/1"), None, "no rate of its own");
        assert_eq!(of("video/x-raw", 640, 480), None);
        assert_eq!(of("ANY", 640, 480), None);
    }
}
