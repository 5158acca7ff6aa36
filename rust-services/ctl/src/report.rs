// SPDX-License-Identifier: Apache-2.0
//! All that a person who helps from afar would ask for, in one JSON document.

use crate::error::CtlError;
use crate::{host, say_json, snapshot};
use agl_virtio_client::zbus::Connection;
use agl_virtio_client::zbus::proxy::CacheProperties;
use agl_virtio_client::{GuestProxy, ManagerProxy};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(crate) async fn write(bus: &Connection) -> Result<(), CtlError> {
    let builder = ManagerProxy::builder(bus).cache_properties(CacheProperties::No);
    let manager = builder.build().await?;
    let mut files = Map::new();
    let mut commands = Map::new();
    for path in manager.guests().await? {
        let guest = GuestProxy::new(bus, path).await?;
        let name = guest.name().await?;
        files.insert(name.clone(), told(guest.get_definition().await));
        commands.insert(name, told(guest.get_command().await));
    }
    say_json(&json!({
        "manager": { "version": manager.version().await?, "faults": manager.faults().await? },
        "tool": env!("CARGO_PKG_VERSION"),
        "host": host::findings(),
        "kernel": std::fs::read_to_string("/proc/version").unwrap_or_default().trim(),
        "guests": snapshot::take(bus).await?,
        "files": files,
        "commands": commands,
    }))
}

/// What was answered, or why it was not: what one may not know is no reason to tell nothing.
fn told<T: Serialize>(answer: agl_virtio_client::zbus::Result<T>) -> Value {
    match answer {
        Ok(answer) => json!(answer),
        Err(error) => Value::from(CtlError::from(error).to_string()),
    }
}
