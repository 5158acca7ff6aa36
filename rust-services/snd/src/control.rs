// SPDX-License-Identifier: Apache-2.0

//! The sound device on D-Bus: an object for each stream and each jack, below the device's own.
//!
//! `…/streams/N` has the interface `org.automotivelinux.Virtio1.Sound.Stream`, `…/jacks/N` has
//! `org.automotivelinux.Virtio1.Sound.Jack`. Reading is free; a change asks polkit. All of it works
//! while sound plays, on the panel's atomics: the data path never waits for the bus.

use std::sync::Arc;

use agl_virtio_service::bus::{Bus, DEVICE_INTERFACE, PropertyChange};

use crate::config::SndConfig;
use crate::panel::{Change, Panel};

mod jack;
mod stream;
mod values;

pub use jack::{JACK_INTERFACE, JackObject};
pub use stream::{STREAM_INTERFACE, StreamObject};

/// The properties of a stream that change by themselves or by the guest.
struct StreamChanges {
    volume: PropertyChange,
    volume_db: PropertyChange,
    mute: PropertyChange,
    source: PropertyChange,
    role: PropertyChange,
    priority: PropertyChange,
    duck_level: PropertyChange,
    state: PropertyChange,
    xruns: PropertyChange,
    server: PropertyChange,
}

/// Puts the device's streams and jacks on the bus, and keeps their properties up to date.
///
/// # Errors
/// When the bus refuses a path; without a bus nothing is refused.
pub fn show(
    bus: &Bus,
    config: &SndConfig,
    panel: &Arc<Panel>,
) -> Result<(), agl_virtio_service::bus::zbus::zvariant::Error> {
    let mut streams = Vec::new();
    for (index, settings) in config.streams.iter().enumerate() {
        let path = format!("streams/{index}");
        let object = StreamObject::new(index, settings, Arc::clone(panel));
        bus.add(&path, move || object.clone())?;
        let property = |name| bus.property(&path, STREAM_INTERFACE, name);
        streams.push(StreamChanges {
            volume: property("Volume")?,
            volume_db: property("VolumeDb")?,
            mute: property("Mute")?,
            source: property("Source")?,
            role: property("Role")?,
            priority: property("Priority")?,
            duck_level: property("DuckLevel")?,
            state: property("State")?,
            xruns: property("Xruns")?,
            server: property("Server")?,
        });
    }
    let mut jacks = Vec::new();
    for (index, settings) in config.jacks.iter().enumerate() {
        let path = format!("jacks/{index}");
        let object = JackObject::new(index, settings, Arc::clone(panel));
        bus.add(&path, move || object.clone())?;
        jacks.push(bus.property(&path, JACK_INTERFACE, "Connected")?);
    }
    let device = [
        bus.property("", DEVICE_INTERFACE, "State")?,
        bus.property("", DEVICE_INTERFACE, "Restarts")?,
    ];
    panel.observe(move |change| announce(change, &streams, &jacks, &device));
    Ok(())
}

fn announce(
    change: Change,
    streams: &[StreamChanges],
    jacks: &[PropertyChange],
    device: &[PropertyChange],
) {
    let (index, property): (usize, fn(&StreamChanges) -> &PropertyChange) = match change {
        Change::Jack(index) => {
            if let Some(jack) = jacks.get(index) {
                jack.changed();
            }
            return;
        }
        Change::Device => return device.iter().for_each(PropertyChange::changed),
        Change::Volume(index) => (index, |stream| &stream.volume),
        Change::Mute(index) => (index, |stream| &stream.mute),
        Change::Source(index) => (index, |stream| &stream.source),
        Change::Role(index) => (index, |stream| &stream.role),
        Change::Priority(index) => (index, |stream| &stream.priority),
        Change::DuckLevel(index) => (index, |stream| &stream.duck_level),
        Change::State(index) => (index, |stream| &stream.state),
        Change::Xruns(index) => (index, |stream| &stream.xruns),
        Change::Server(index) => (index, |stream| &stream.server),
    };
    if let Some(stream) = streams.get(index) {
        property(stream).changed();
        if matches!(change, Change::Volume(_)) {
            stream.volume_db.changed();
        }
    }
}
