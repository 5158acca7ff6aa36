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
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::{DBusProxy, ObjectManagerProxy};
use zbus::message::Type;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedValue;
use zbus::{Connection, MatchRule, MessageStream};

const STREAM: &str = "org.automotivelinux.Virtio1.Sound.Stream";
/// A bus that is not there is looked for so often.
const AGAIN: Duration = Duration::from_secs(1);
/// A service that does not answer within this time is left out ...
const ANSWER: Duration = Duration::from_secs(2);
/// ... for so long: others are not to wait for it at each change.
const LEFT_OUT: Duration = Duration::from_secs(30);
/// The least time between two looks. Anybody may send signals that look like those of a service.
const PACE: Duration = Duration::from_millis(20);

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
    // Calls have a connection of their own: on one where nobody takes signals for a moment, no
    // answer would come either.
    let calls = agl_virtio_service::bus::connect(choice, ANSWER).await?;
    let heard = agl_virtio_service::bus::connect(choice, ANSWER).await?;
    let bus = DBusProxy::new(&heard).await?;
    let names = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")?
        .member("NameOwnerChanged")?
        .arg0ns(agl_virtio_client::MANAGER)?
        .build();
    bus.add_match_rule(names).await?;
    let mut signals = MessageStream::from(&heard);
    let mut known = BTreeSet::new();
    let mut silent = BTreeMap::new();
    loop {
        for (place, _) in sound_devices(registry) {
            let name = place.bus_name();
            if known.insert(name.clone()) {
                bus.add_match_rule(changes_of(&name)?).await?;
            }
        }
        mix(&calls, registry, &mut silent).await;
        tokio::time::sleep(PACE).await;
        // What came meanwhile is one change; where nothing did, the next one is waited for.
        let mut changed = false;
        loop {
            let waiting = futures_lite::future::poll_once(signals.next()).await;
            let message = match waiting {
                Some(message) => message,
                None if changed => break,
                None => signals.next().await,
            };
            let Some(message) = message else {
                return Ok(());
            };
            match message?.header().member().map(|name| name.as_str()) {
                Some("PropertiesChanged") => changed = true,
                Some("NameOwnerChanged") => {
                    changed = true;
                    silent.clear();
                }
                _ => {}
            }
        }
    }
}

/// Changes of a service's streams. Of nobody else's: anybody may send what looks like them.
fn changes_of(service: &str) -> zbus::Result<MatchRule<'static>> {
    Ok(MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(service.to_owned())?
        .interface("org.freedesktop.DBus.Properties")?
        .member("PropertiesChanged")?
        .arg(0, STREAM)?
        .build())
}

/// The services that have not answered, and until when they are left out.
type Silent = BTreeMap<String, Instant>;

/// Looks at all streams once and sets what is not as it should be.
async fn mix(connection: &Connection, registry: &Registry, silent: &mut Silent) {
    let now = Instant::now();
    silent.retain(|_, until| *until > now);
    let mut streams = Vec::new();
    for (place, runs) in sound_devices(registry) {
        let service = place.bus_name();
        if !runs || silent.contains_key(&service) {
            continue;
        }
        match streams_of(connection, &place).await {
            Ok(found) => streams.extend(found),
            Err(error) => {
                log::debug!("{service} is left out: {error}");
                if is_silence(&error) {
                    let until = now.checked_add(LEFT_OUT).unwrap_or(now);
                    silent.insert(service, until);
                }
            }
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

fn is_silence(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// All sound devices, and whether their services run.
fn sound_devices(registry: &Registry) -> Vec<(Place, bool)> {
    let overview = registry.overview();
    let guests = overview.borrow().guests.clone();
    let mut found = Vec::new();
    for (name, handle) in guests {
        for (device, status) in &handle.status().devices {
            if status.device_type == "snd" {
                let runs = status.state == ServiceState::Running;
                found.push((Place::new(&name, device), runs));
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
