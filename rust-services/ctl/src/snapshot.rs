// SPDX-License-Identifier: Apache-2.0
//! All that is known of guests and devices at one moment.

use agl_virtio_client::zbus::fdo::ObjectManagerProxy;
use agl_virtio_client::zbus::proxy::CacheProperties;
use agl_virtio_client::zbus::zvariant::{OwnedValue, Value};
use agl_virtio_client::zbus::{self, Connection};
use agl_virtio_client::{MANAGER, ROOT};
use agl_virtio_manager::foreign::sentence;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::task::JoinSet;

const GUEST: &str = "org.automotivelinux.Virtio1.Guest";
const MANAGED: &str = "org.automotivelinux.Virtio1.ManagedDevice";
const DEVICE: &str = "org.automotivelinux.Virtio1.Device";
const STREAM: &str = "org.automotivelinux.Virtio1.Sound.Stream";

type Properties = HashMap<String, OwnedValue>;

/// A guest.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) state: String,
    pub(crate) vmm: String,
    pub(crate) pid: u64,
    pub(crate) started_usec: u64,
    pub(crate) exit_reason: String,
    pub(crate) restart_policy: String,
    pub(crate) restarts: u64,
    pub(crate) autostart: bool,
    pub(crate) changes_pending: bool,
    pub(crate) memory: u64,
    pub(crate) cpus: u64,
    pub(crate) devices: Vec<Device>,
}

/// A device: what the manager tells, and what its service does while it runs.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Device {
    pub(crate) guest: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) device_type: String,
    pub(crate) service_state: String,
    pub(crate) attached: bool,
    pub(crate) restarts: u64,
    pub(crate) socket: String,
    pub(crate) pid: u64,
    pub(crate) reason: String,
    pub(crate) conformance: String,
    pub(crate) conformance_report: String,
    pub(crate) path: String,
    pub(crate) bus_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<Service>,
}

/// What a running service tells.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Service {
    pub(crate) version: String,
    pub(crate) state: String,
    pub(crate) features_offered: u64,
    pub(crate) features_acknowledged: u64,
    pub(crate) restarts: u64,
    pub(crate) queues: Vec<BTreeMap<String, u64>>,
    pub(crate) streams: Vec<Stream>,
}

impl Service {
    /// A counter of all queues together.
    pub(crate) fn total(&self, counter: &str) -> u64 {
        let counts = self.queues.iter().filter_map(|queue| queue.get(counter));
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// A counter of the first queue.
    pub(crate) fn first_queue(&self, counter: &str) -> u64 {
        let queue = self.queues.first();
        queue
            .and_then(|queue| queue.get(counter).copied())
            .unwrap_or(0)
    }

    /// Within how many microseconds this share of the first queue's requests was answered: the end
    /// of a range, or nothing where there was no request or that share took more than a second.
    ///
    /// Every type's first queue is the one whose requests are answered at once. In the others
    /// buffers wait for their sound to be heard, or for something to happen.
    pub(crate) fn latency(&self, share: f64) -> Option<u64> {
        let mut ranges: BTreeMap<u64, u64> = BTreeMap::new();
        let counters = self.queues.first().into_iter().flatten();
        for (name, count) in counters {
            if let Some(end) = name.strip_prefix("latency_us_") {
                let range = ranges.entry(end.parse().unwrap_or(u64::MAX)).or_default();
                *range = range.saturating_add(*count);
            }
        }
        let all = ranges
            .values()
            .fold(0_u64, |sum, count| sum.saturating_add(*count));
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
        let is_enough = |sum: u64| sum > 0 && sum as f64 >= all as f64 * share;
        let mut sum = 0_u64;
        let mut sums = ranges.into_iter().map(|(end, count)| {
            sum = sum.saturating_add(count);
            (end, sum)
        });
        let found = sums.find(|(_, sum)| is_enough(*sum));
        found.map(|(end, _)| end).filter(|end| *end != u64::MAX)
    }

    /// Under-runs and over-runs of all streams.
    pub(crate) fn xruns(&self) -> u64 {
        let counts = self.streams.iter().map(|stream| stream.xruns);
        counts.fold(0, u64::saturating_add)
    }
}

/// A stream of a sound device.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Stream {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) direction: String,
    pub(crate) role: String,
    pub(crate) state: String,
    pub(crate) volume: f64,
    pub(crate) mute: bool,
    pub(crate) duck: f64,
    pub(crate) xruns: u64,
    pub(crate) latency_usec: u64,
}

/// A service that does not answer within this time is shown without what it would tell: the others
/// are not to wait for it, and neither is whoever looks.
const ANSWER: Duration = Duration::from_secs(10);
/// So much is shown of a text. In characters.
const LONGEST: usize = 2000;

/// Asks the manager and all services.
pub(crate) async fn take(connection: &Connection) -> zbus::Result<Vec<Guest>> {
    take_within(connection, ANSWER).await
}

/// As [`take`], for who looks again soon: services have this time to answer.
pub(crate) async fn take_within(
    connection: &Connection,
    patience: Duration,
) -> zbus::Result<Vec<Guest>> {
    let mut guests: BTreeMap<String, Guest> = BTreeMap::new();
    let mut devices = Vec::new();
    let mut asked = JoinSet::new();
    for (path, interfaces) in objects(connection, MANAGER).await? {
        if let Some(properties) = interfaces.get(GUEST) {
            let guest = guest(properties);
            guests.insert(guest.name.clone(), guest);
        }
        if let Some(properties) = interfaces.get(MANAGED) {
            let device = device(path, properties);
            if device.service_state == "running" {
                let (connection, name) = (connection.clone(), device.bus_name.clone());
                let index = devices.len();
                asked.spawn(async move {
                    let answer = tokio::time::timeout(patience, service(&connection, &name));
                    (index, answer.await.ok().flatten())
                });
            }
            devices.push(device);
        }
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok((index, told)) = answer {
            if let Some(device) = devices.get_mut(index) {
                device.service = told;
            }
        }
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    for device in devices {
        if let Some(guest) = guests.get_mut(&device.guest) {
            guest.devices.push(device);
        }
    }
    Ok(guests.into_values().collect())
}

type Objects = Vec<(String, HashMap<String, Properties>)>;

async fn objects(connection: &Connection, name: &str) -> zbus::Result<Objects> {
    let manager = ObjectManagerProxy::builder(connection)
        .destination(name.to_owned())?
        .path(ROOT)?
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let objects = manager.get_managed_objects().await?;
    let mut objects: Objects = objects
        .into_iter()
        .map(|(path, interfaces)| {
            let interfaces = interfaces
                .into_iter()
                .map(|(name, properties)| (name.to_string(), properties));
            (path.to_string(), interfaces.collect())
        })
        .collect();
    objects.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(objects)
}

/// A service that just starts or ends tells nothing, which is no error.
async fn service(connection: &Connection, name: &str) -> Option<Service> {
    let mut service = None;
    let mut streams = Vec::new();
    for (path, interfaces) in objects(connection, name).await.ok()? {
        if let Some(properties) = interfaces.get(DEVICE) {
            service = Some(Service {
                version: text(properties, "Version"),
                state: text(properties, "State"),
                features_offered: number(properties, "FeaturesOffered"),
                features_acknowledged: number(properties, "FeaturesAcknowledged"),
                restarts: number(properties, "Restarts"),
                queues: queues(properties),
                streams: Vec::new(),
            });
        }
        if let Some(properties) = interfaces.get(STREAM) {
            streams.push(stream(path, properties));
        }
    }
    service.map(|service| Service { streams, ..service })
}

fn guest(properties: &Properties) -> Guest {
    Guest {
        name: text(properties, "Name"),
        description: text(properties, "Description"),
        state: text(properties, "State"),
        vmm: text(properties, "Vmm"),
        pid: number(properties, "Pid"),
        started_usec: number(properties, "StartedUsec"),
        exit_reason: text(properties, "ExitReason"),
        restart_policy: text(properties, "RestartPolicy"),
        restarts: number(properties, "Restarts"),
        autostart: flag(properties, "Autostart"),
        changes_pending: flag(properties, "ChangesPending"),
        memory: number(properties, "Memory"),
        cpus: number(properties, "Cpus"),
        devices: Vec::new(),
    }
}

fn device(path: String, properties: &Properties) -> Device {
    Device {
        guest: text(properties, "Guest"),
        name: text(properties, "Name"),
        device_type: text(properties, "Type"),
        service_state: text(properties, "ServiceState"),
        attached: flag(properties, "Attached"),
        restarts: number(properties, "Restarts"),
        socket: text(properties, "Socket"),
        pid: number(properties, "Pid"),
        reason: text(properties, "Reason"),
        conformance: text(properties, "Conformance"),
        conformance_report: text(properties, "ConformanceReport"),
        path,
        bus_name: text(properties, "BusName"),
        service: None,
    }
}

fn stream(path: String, properties: &Properties) -> Stream {
    Stream {
        path,
        name: text(properties, "Name"),
        direction: text(properties, "Direction"),
        role: text(properties, "Role"),
        state: text(properties, "State"),
        volume: real(properties, "Volume"),
        mute: flag(properties, "Mute"),
        duck: real(properties, "Duck"),
        xruns: number(properties, "Xruns"),
        latency_usec: number(properties, "LatencyUsec"),
    }
}

fn queues(properties: &Properties) -> Vec<BTreeMap<String, u64>> {
    let value = properties.get("Statistics").cloned();
    value
        .and_then(|value| Vec::<HashMap<String, u64>>::try_from(value).ok())
        .unwrap_or_default()
        .into_iter()
        .map(|queue| {
            let counters = queue.into_iter();
            let shown = counters.map(|(name, count)| (sentence(&name, LONGEST), count));
            shown.collect()
        })
        .collect()
}

/// Services are as good as their guests: their words are for a terminal, and move no cursor.
fn text(properties: &Properties, name: &str) -> String {
    match properties.get(name).map(|value| &**value) {
        Some(Value::Str(text)) => sentence(text, LONGEST),
        _ => String::new(),
    }
}

fn number(properties: &Properties, name: &str) -> u64 {
    match properties.get(name).map(|value| &**value) {
        Some(Value::U64(number)) => *number,
        Some(Value::U32(number)) => u64::from(*number),
        _ => 0,
    }
}

fn real(properties: &Properties, name: &str) -> f64 {
    match properties.get(name).map(|value| &**value) {
        Some(Value::F64(number)) => *number,
        _ => 0.0,
    }
}

fn flag(properties: &Properties, name: &str) -> bool {
    matches!(
        properties.get(name).map(|value| &**value),
        Some(Value::Bool(true))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_as_the_range_that_holds_a_share_of_the_first_queue_s_requests() {
        let queue = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
            let counts = counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count));
            counts.collect()
        };
        let service = |queues| Service {
            queues,
            ..Service::default()
        };
        let fast = queue(&[
            ("latency_us_4", 60),
            ("latency_us_256", 39),
            ("requests", 1),
        ]);
        let waits = queue(&[("latency_us_1048576", 1000), ("requests", 1000)]);
        let both = service(vec![fast.clone(), waits]);
        assert_eq!(both.latency(0.5), Some(4));
        assert_eq!(both.latency(0.99), Some(256));
        assert_eq!(both.first_queue("requests"), 1);
        assert_eq!(service(Vec::new()).latency(0.5), None);
        let stuck = service(vec![queue(&[("latency_us_4", 1), ("latency_us_more", 50)])]);
        assert_eq!(stuck.latency(0.99), None);
    }
}
