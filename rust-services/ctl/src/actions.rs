// SPDX-License-Identifier: Apache-2.0
//! Commands that change something.

use crate::error::CtlError;
use crate::options::Command;
use crate::snapshot;
use crate::{say, say_json};
use agl_virtio_client::zbus::export::ordered_stream::OrderedStreamExt;
use agl_virtio_client::zbus::fdo::PropertiesProxy;
use agl_virtio_client::zbus::message::Type;
use agl_virtio_client::zbus::names::InterfaceName;
use agl_virtio_client::zbus::proxy::CacheProperties;
use agl_virtio_client::zbus::zvariant::Value;
use agl_virtio_client::zbus::{Connection, MatchRule, MessageStream, Proxy};
use agl_virtio_client::{GuestProxy, ManagedDeviceProxy, ManagerProxy};
use std::time::Duration;

pub(crate) async fn act(bus: &Connection, command: &Command, json: bool) -> Result<(), CtlError> {
    let done = match command {
        Command::Start { guest } if is_device(guest) => {
            device_at(bus, guest).await?.start().await?;
            format!("{guest} is started")
        }
        Command::Stop { guest, .. } if is_device(guest) => {
            device_at(bus, guest).await?.stop().await?;
            format!("{guest} is stopped")
        }
        Command::Start { guest } => {
            guest_of(bus, guest).await?.start().await?;
            format!("{guest} runs")
        }
        Command::Stop { guest, timeout } => stop(bus, guest, *timeout).await?,
        Command::Kill { guest } => {
            guest_of(bus, guest).await?.kill().await?;
            format!("{guest} is ended")
        }
        Command::Reboot { guest } => {
            guest_of(bus, guest).await?.reboot().await?;
            format!("{guest} starts anew")
        }
        Command::Pause { guest } => {
            guest_of(bus, guest).await?.pause().await?;
            format!("{guest} is paused")
        }
        Command::Resume { guest } => {
            guest_of(bus, guest).await?.resume().await?;
            format!("{guest} runs on")
        }
        Command::Attach { guest, device } => {
            device_of(bus, guest, device).await?.attach().await?;
            format!("{guest} has {device}")
        }
        Command::Detach { guest, device } => {
            device_of(bus, guest, device).await?.detach().await?;
            format!("{guest} has let go of {device}")
        }
        Command::Set {
            object,
            property,
            value,
        } => set(bus, object, property, value).await?,
        Command::Reload => {
            manager(bus).await?.reload().await?;
            "the guests' files are in force".to_owned()
        }
        Command::Define { file } => define(bus, file).await?,
        Command::Remove { guest } => {
            manager(bus).await?.remove(guest).await?;
            format!("{guest} is gone")
        }
        Command::Conformance { guest, report } => record(bus, guest, report).await?,
        // The others change nothing and are handled before.
        _ => return Ok(()),
    };
    if json {
        return say_json(&serde_json::json!({ "done": done }));
    }
    say(&format!("{done}\n"))
}

async fn manager(bus: &Connection) -> Result<ManagerProxy<'_>, CtlError> {
    let builder = ManagerProxy::builder(bus).cache_properties(CacheProperties::No);
    Ok(builder.build().await?)
}

pub(crate) async fn guest_of<'a>(
    bus: &'a Connection,
    name: &str,
) -> Result<GuestProxy<'a>, CtlError> {
    let path = manager(bus).await?.get_guest(name).await?;
    Ok(GuestProxy::new(bus, path).await?)
}

async fn device_of<'a>(
    bus: &'a Connection,
    guest: &str,
    device: &str,
) -> Result<ManagedDeviceProxy<'a>, CtlError> {
    for path in guest_of(bus, guest).await?.devices().await? {
        let builder = ManagedDeviceProxy::builder(bus).cache_properties(CacheProperties::No);
        let proxy = builder.path(path)?.build().await?;
        if proxy.name().await? == device {
            return Ok(proxy);
        }
    }
    Err(CtlError::Usage(format!("{guest} has no device {device}")))
}

/// Whether GUEST or GUEST/DEVICE was written.
fn is_device(text: &str) -> bool {
    text.contains('/')
}

async fn device_at<'a>(
    bus: &'a Connection,
    text: &str,
) -> Result<ManagedDeviceProxy<'a>, CtlError> {
    let (guest, device) = text.split_once('/').unwrap_or((text, ""));
    device_of(bus, guest, device).await
}

/// Presses the button and waits for the end: the manager ends the guest when the time is over.
async fn stop(bus: &Connection, name: &str, timeout: u32) -> Result<String, CtlError> {
    let path = manager(bus).await?.get_guest(name).await?;
    let builder = GuestProxy::builder(bus).cache_properties(CacheProperties::No);
    let guest = builder.path(path)?.build().await?;
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .interface("org.freedesktop.DBus.Properties")?
        .path(guest.inner().path().to_owned())?
        .build();
    let mut changes = MessageStream::for_match_rule(rule, bus, Some(64)).await?;
    guest.stop(timeout.saturating_mul(1000)).await?;
    // A killed process takes a moment to end.
    let patience = Duration::from_secs(u64::from(timeout).saturating_add(30));
    let ended = tokio::time::timeout(patience, async {
        loop {
            let state = guest.state().await?;
            if !matches!(state.as_str(), "stopping" | "running" | "paused") {
                return Ok::<String, CtlError>(state);
            }
            if changes.next().await.is_none() {
                return Err(CtlError::Bus("the connection is gone".to_owned()));
            }
        }
    });
    let state = ended.await.map_err(|_| CtlError::StillRuns(timeout))??;
    Ok(format!("{name} is {state}"))
}

async fn define(bus: &Connection, file: &std::path::Path) -> Result<String, CtlError> {
    let name = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let source = std::fs::read_to_string(file).map_err(|source| CtlError::File {
        what: file.to_owned(),
        source,
    })?;
    manager(bus).await?.define(&name, &source).await?;
    Ok(format!("{name} is defined"))
}

/// Gives a guest's self-test to the manager; what it says of the guest's devices.
async fn record(
    bus: &Connection,
    guest: &str,
    report: &std::path::Path,
) -> Result<String, CtlError> {
    let text = if report.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(report)
    };
    let text = text.map_err(|source| CtlError::File {
        what: report.to_owned(),
        source,
    })?;
    guest_of(bus, guest).await?.record_selftest(&text).await?;
    let guests = snapshot::take(bus).await?;
    let devices = guests.iter().filter(|known| known.name == guest);
    let words = devices
        .flat_map(|known| &known.devices)
        .map(|device| format!("{} {}", device.name, device.conformance));
    let words: Vec<String> = words.collect();
    Ok(format!("{guest}: {}", words.join(", ")))
}

/// Sets a property of a device's service, or of what is below it, whatever interface has it.
async fn set(
    bus: &Connection,
    object: &str,
    property: &str,
    value: &str,
) -> Result<String, CtlError> {
    let mut words = object.splitn(3, '/');
    let (Some(guest), Some(device)) = (words.next(), words.next()) else {
        return Err(CtlError::Usage(format!(
            "{object:?} is no object: write GUEST/DEVICE or GUEST/DEVICE/streams/0"
        )));
    };
    let guests = snapshot::take(bus).await?;
    let found = guests
        .iter()
        .flat_map(|guest| &guest.devices)
        .find(|known| known.guest == guest && known.name == device)
        .ok_or_else(|| CtlError::Usage(format!("there is no device {guest}/{device}")))?;
    if found.service_state != "running" {
        return Err(CtlError::Refused(format!(
            "the service of {guest}/{device} is {}: start it with its guest, or by \
             agl-virtioctl start {guest}/{device}",
            found.service_state
        )));
    }
    let path = match words.next() {
        Some(below) => format!("{}/{below}", found.path),
        None => found.path.clone(),
    };
    let properties = PropertiesProxy::builder(bus)
        .destination(found.bus_name.clone())?
        .path(path.clone())?
        .build()
        .await?;
    let (interface, old) = interface_with(bus, &found.bus_name, &path, property).await?;
    let new = value_like(&old, value).ok_or_else(|| {
        CtlError::Usage(format!("{property} does not take {value:?}: it is {old:?}"))
    })?;
    let interface =
        InterfaceName::try_from(interface).map_err(|error| CtlError::Usage(error.to_string()))?;
    properties.set(interface, property, new).await?;
    Ok(format!("{object}: {property} is {value}"))
}

/// Which interface of an object has a property, and the property's value.
async fn interface_with(
    bus: &Connection,
    service: &str,
    path: &str,
    property: &str,
) -> Result<(String, Value<'static>), CtlError> {
    let root = Proxy::new(
        bus,
        service.to_owned(),
        agl_virtio_client::ROOT,
        "org.freedesktop.DBus.ObjectManager",
    )
    .await?;
    let objects: agl_virtio_client::zbus::fdo::ManagedObjects =
        root.call("GetManagedObjects", &()).await?;
    let mut known = Vec::new();
    for (object, interfaces) in objects {
        if object.as_str() != path {
            continue;
        }
        for (name, properties) in interfaces {
            for (key, value) in properties {
                if key == property {
                    return Ok((name.to_string(), Value::from(value)));
                }
                known.push(key);
            }
        }
    }
    known.sort();
    Err(CtlError::Usage(format!(
        "{path} has no property {property}: write one of {}",
        known.join(", ")
    )))
}

/// The text as a value of the same type.
fn value_like(old: &Value<'_>, text: &str) -> Option<Value<'static>> {
    Some(match old {
        Value::Bool(_) => Value::from(text.parse::<bool>().ok()?),
        Value::F64(_) => Value::from(text.parse::<f64>().ok()?),
        Value::U32(_) => Value::from(text.parse::<u32>().ok()?),
        Value::U64(_) => Value::from(text.parse::<u64>().ok()?),
        Value::I32(_) => Value::from(text.parse::<i32>().ok()?),
        Value::I64(_) => Value::from(text.parse::<i64>().ok()?),
        Value::Str(_) => Value::from(text.to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_a_value_of_the_type_that_the_property_has() {
        assert_eq!(value_like(&Value::from(1.0), "0.5"), Some(Value::from(0.5)));
        assert_eq!(
            value_like(&Value::from(true), "false"),
            Some(Value::from(false))
        );
        assert_eq!(
            value_like(&Value::from(1_u32), "7"),
            Some(Value::from(7_u32))
        );
        assert_eq!(
            value_like(&Value::from("a"), "b"),
            Some(Value::from("b".to_owned()))
        );
        for (old, text) in [
            (Value::from(1.0), "loud"),
            (Value::from(true), "1"),
            (Value::from(1_u32), "-1"),
        ] {
            assert_eq!(value_like(&old, text), None);
        }
    }
}
