// SPDX-License-Identifier: Apache-2.0
//! Who is heard when several guests play: a stream steps back while another guest's stream of
//! higher priority runs.
//!
//! Within a guest its sound service does that by itself. Between guests nobody but the manager
//! sees both: it watches all sound services on the bus, and sets `Duck` of the streams that have
//! to step back. Where no manager is, guests do not step back for each other, and nothing else
//! is lost.

use crate::guest::ServiceState;
use crate::registry::Registry;
use agl_virtio_client::StreamProxy;
use agl_virtio_service::bus::Place;
use agl_virtio_service::cli::BusChoice;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::ObjectManagerProxy;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedValue;
use zbus::{Connection, MatchRule, MessageStream};

const STREAM: &str = "org.automotivelinux.Virtio1.Sound.Stream";
/// A bus that is not there is looked for so often.
const AGAIN: Duration = Duration::from_secs(1);
/// A service that does not answer within this time is left out for now.
const ANSWER: Duration = Duration::from_secs(2);

/// A stream as the policy sees it.
#[derive(Debug, Clone, PartialEq)]
struct Stream {
    guest: String,
    service: String,
    path: String,
    priority: u32,
    /// An output that plays.
    is_heard: bool,
    /// How far it steps back for others, in decibels.
    duck_level: f64,
    /// How far it does now.
    duck: f64,
}

/// How far each stream has to step back for other guests, in decibels.
fn policy(streams: &[Stream]) -> Vec<f64> {
    let step = |stream: &Stream| {
        let others = streams
            .iter()
            .filter(|other| other.is_heard && other.guest != stream.guest);
        let highest = others.map(|other| other.priority).max().unwrap_or(0);
        if highest > stream.priority {
            stream.duck_level
        } else {
            0.0
        }
    };
    streams.iter().map(step).collect()
}

/// Watches and sets, for as long as the manager is there.
pub(crate) fn start(choice: &BusChoice, registry: &Arc<Registry>) {
    let (choice, registry) = (choice.clone(), Arc::clone(registry));
    if choice == BusChoice::None {
        return;
    }
    tokio::spawn(async move {
        loop {
            if let Err(error) = watch(&choice, &registry).await {
                log::debug!("guests do not step back for each other: {error}");
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
}

async fn watch(choice: &BusChoice, registry: &Registry) -> zbus::Result<()> {
    let connection = agl_virtio_service::bus::connect(choice, ANSWER).await?;
    let changes = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .interface("org.freedesktop.DBus.Properties")?
        .member("PropertiesChanged")?
        .path_namespace(agl_virtio_client::ROOT)?
        .arg(0, STREAM)?
        .build();
    let names = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")?
        .member("NameOwnerChanged")?
        .arg0ns(agl_virtio_client::MANAGER)?
        .build();
    let mut changes = MessageStream::for_match_rule(changes, &connection, Some(64)).await?;
    let mut names = MessageStream::for_match_rule(names, &connection, Some(64)).await?;
    loop {
        mix(&connection, registry).await;
        let message = tokio::select! {
            message = changes.next() => message,
            message = names.next() => message,
        };
        match message {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

/// Looks at all streams once and sets what is not as it should be.
async fn mix(connection: &Connection, registry: &Registry) {
    let mut streams = Vec::new();
    for (guest, device) in sound_devices(registry) {
        let place = Place::new(&guest, &device);
        match streams_of(connection, &place).await {
            Ok(found) => streams.extend(found),
            Err(error) => log::debug!("{guest}/{device} is left out: {error}"),
        }
    }
    for (stream, level) in streams.iter().zip(policy(&streams)) {
        if (stream.duck - level).abs() < 0.01 {
            continue;
        }
        if let Err(error) = set(connection, stream, level).await {
            log::warn!("{}{}: {error}", stream.service, stream.path);
        }
    }
}

fn sound_devices(registry: &Registry) -> Vec<(String, String)> {
    let overview = registry.overview();
    let guests = overview.borrow().guests.clone();
    let mut found = Vec::new();
    for (name, handle) in guests {
        for (device, status) in &handle.status().devices {
            if status.device_type == "snd" && status.state == ServiceState::Running {
                found.push((name.clone(), device.clone()));
            }
        }
    }
    found
}

async fn streams_of(connection: &Connection, place: &Place) -> zbus::Result<Vec<Stream>> {
    let service = place.bus_name();
    let manager = ObjectManagerProxy::builder(connection)
        .destination(service.clone())?
        .path(agl_virtio_client::ROOT)?
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let mut streams = Vec::new();
    for (path, interfaces) in manager.get_managed_objects().await? {
        for (name, properties) in interfaces {
            if name.as_str() == STREAM {
                let stream = read(place.guest(), &service, path.as_str(), &properties);
                streams.extend(stream);
            }
        }
    }
    Ok(streams)
}

fn read(
    guest: &str,
    service: &str,
    path: &str,
    properties: &HashMap<String, OwnedValue>,
) -> Option<Stream> {
    let text = |name: &str| {
        properties
            .get(name)
            .and_then(|v| v.downcast_ref::<&str>().ok())
    };
    let number = |name: &str| {
        properties
            .get(name)
            .and_then(|v| v.downcast_ref::<f64>().ok())
    };
    Some(Stream {
        guest: guest.to_owned(),
        service: service.to_owned(),
        path: path.to_owned(),
        priority: properties.get("Priority")?.downcast_ref().ok()?,
        is_heard: text("Direction")? == "output" && text("State")? == "running",
        duck_level: number("DuckLevel")?,
        duck: number("Duck")?,
    })
}

async fn set(connection: &Connection, stream: &Stream, level: f64) -> zbus::Result<()> {
    let proxy = StreamProxy::builder(connection)
        .destination(stream.service.clone())?
        .path(stream.path.clone())?
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    proxy.set_duck(level).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(guest: &str, priority: u32, is_heard: bool) -> Stream {
        Stream {
            guest: guest.to_owned(),
            service: String::new(),
            path: String::new(),
            priority,
            is_heard,
            duck_level: -20.0,
            duck: 0.0,
        }
    }

    #[test]
    fn a_stream_steps_back_for_a_higher_one_of_another_guest_and_only_for_that() {
        let table = [
            // Nobody else.
            (vec![stream("ivi", 10, true)], vec![0.0]),
            // Its own guest's business.
            (
                vec![stream("ivi", 10, true), stream("ivi", 40, true)],
                vec![0.0, 0.0],
            ),
            // The other one plays, or does not, or is not more important.
            (
                vec![stream("ivi", 10, true), stream("cluster", 40, true)],
                vec![-20.0, 0.0],
            ),
            (
                vec![stream("ivi", 10, true), stream("cluster", 40, false)],
                vec![0.0, 0.0],
            ),
            (
                vec![stream("ivi", 40, true), stream("cluster", 40, true)],
                vec![0.0, 0.0],
            ),
            // One that does not play yet begins as it has to go on.
            (
                vec![stream("ivi", 10, false), stream("cluster", 20, true)],
                vec![-20.0, 0.0],
            ),
        ];
        for (streams, levels) in table {
            assert_eq!(policy(&streams), levels, "{streams:?}");
        }
    }

    #[test]
    fn a_stream_whose_properties_are_not_what_they_should_be_is_left_out() {
        let properties = HashMap::from([("Priority".to_owned(), OwnedValue::from(7_u32))]);
        assert_eq!(read("ivi", "service", "/path", &properties), None);
    }
}
