// SPDX-License-Identifier: Apache-2.0
//! What happens, a line for each change.

use crate::error::CtlError;
use crate::{say, table};
use agl_virtio_client::zbus::export::ordered_stream::OrderedStreamExt;
use agl_virtio_client::zbus::fdo::DBusProxy;
use agl_virtio_client::zbus::zvariant::{ObjectPath, OwnedValue, Value};
use agl_virtio_client::zbus::{Connection, MatchRule, Message, MessageStream, message};
use agl_virtio_client::{MANAGER, ROOT};
use agl_virtio_manager::foreign::sentence;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// So much is shown of a value. In characters.
const LONGEST: usize = 2000;

pub(crate) async fn follow(bus: &Connection, json: bool) -> Result<(), CtlError> {
    let below = |interface: &'static str| {
        MatchRule::builder()
            .msg_type(message::Type::Signal)
            .interface(interface)
    };
    let changes = below("org.freedesktop.DBus.Properties")?
        .path_namespace(ROOT)?
        .build();
    let objects = below("org.freedesktop.DBus.ObjectManager")?
        .path(ROOT)?
        .build();
    let names = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender("org.freedesktop.DBus")?
        .member("NameOwnerChanged")?
        .arg0ns(MANAGER)?
        .build();
    let mut names = MessageStream::for_match_rule(names, bus, Some(256)).await?;
    let mut owners = owners(bus).await?;
    let mut changes = MessageStream::for_match_rule(changes, bus, Some(256)).await?;
    let mut objects = MessageStream::for_match_rule(objects, bus, Some(256)).await?;
    loop {
        let message = tokio::select! {
            // Whose a signal is has to be known before it is told.
            biased;
            message = names.next() => message,
            message = changes.next() => message,
            message = objects.next() => message,
        };
        match message {
            Some(Ok(message)) => {
                let sender = message.header().sender().map(ToString::to_string);
                if sender.as_deref() == Some("org.freedesktop.DBus") {
                    type Body = (String, String, String);
                    if let Ok((name, _, new)) = message.body().deserialize::<Body>() {
                        note(&mut owners, name, new);
                    }
                } else if sender.is_some_and(|sender| owners.values().any(|o| *o == sender)) {
                    tell(&message, json)?;
                }
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(CtlError::Bus("the connection is gone".to_owned())),
        }
    }
}

/// Who has the names of the manager and of services. Anybody may send signals that look like
/// theirs.
async fn owners(bus: &Connection) -> Result<HashMap<String, String>, CtlError> {
    let daemon = DBusProxy::new(bus).await?;
    let mut owners = HashMap::new();
    for name in daemon.list_names().await? {
        let ours = name.strip_prefix(MANAGER);
        if ours.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            // One that has just gone is nobody's.
            if let Ok(owner) = daemon.get_name_owner(name.inner().clone()).await {
                owners.insert(name.to_string(), owner.to_string());
            }
        }
    }
    Ok(owners)
}

fn note(owners: &mut HashMap<String, String>, name: String, new: String) {
    if new.is_empty() {
        owners.remove(&name);
    } else {
        owners.insert(name, new);
    }
}

fn tell(message: &Message, json: bool) -> Result<(), CtlError> {
    let header = message.header();
    let member = header
        .member()
        .map(|name| name.to_string())
        .unwrap_or_default();
    let path = header
        .path()
        .map(|path| path.to_string())
        .unwrap_or_default();
    let body = message.body();
    match member.as_str() {
        "PropertiesChanged" => {
            type Body = (String, HashMap<String, OwnedValue>, Vec<String>);
            let Ok((interface, changed, _)) = body.deserialize::<Body>() else {
                return Ok(());
            };
            let mut changed: Vec<(String, OwnedValue)> = changed.into_iter().collect();
            changed.sort_by(|a, b| a.0.cmp(&b.0));
            for (name, value) in changed {
                line(json, &path, &interface, &name, &value)?;
            }
        }
        "InterfacesAdded" => {
            type Body<'a> = (ObjectPath<'a>, HashMap<String, HashMap<String, OwnedValue>>);
            if let Ok((path, interfaces)) = body.deserialize::<Body<'_>>() {
                for interface in ours(interfaces.keys()) {
                    line(json, path.as_str(), interface, "", &Value::from("is there"))?;
                }
            }
        }
        "InterfacesRemoved" => {
            if let Ok((path, interfaces)) = body.deserialize::<(ObjectPath<'_>, Vec<String>)>() {
                for interface in ours(interfaces.iter()) {
                    line(json, path.as_str(), interface, "", &Value::from("is gone"))?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn ours<'a>(interfaces: impl Iterator<Item = &'a String>) -> impl Iterator<Item = &'a String> {
    interfaces.filter(|name| name.starts_with("org.automotivelinux"))
}

fn line(
    json: bool,
    path: &str,
    interface: &str,
    name: &str,
    value: &Value<'_>,
) -> Result<(), CtlError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    if json {
        // A line for each, so that a program can read them as they come.
        let event = serde_json::json!({
            "usec": u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            "path": path,
            "interface": interface,
            "property": name,
            "value": as_json(value),
        });
        return say(&format!("{event}\n"));
    }
    let seconds = now.as_secs().checked_rem(86_400).unwrap_or(0);
    let (hours, rest) = (
        seconds.checked_div(3600),
        seconds.checked_rem(3600).unwrap_or(0),
    );
    let clock = format!(
        "{:02}:{:02}:{:02}.{:03}Z",
        hours.unwrap_or(0),
        rest.checked_div(60).unwrap_or(0),
        rest.checked_rem(60).unwrap_or(0),
        now.subsec_millis()
    );
    let short = path.strip_prefix(ROOT).unwrap_or(path);
    let short = short.strip_prefix("/guests/").unwrap_or(short);
    let short = if short.is_empty() { "manager" } else { short };
    let value = plain(value);
    let tone = table::Tone::of_state(&value);
    let value = table::paint(&value, tone, table::colours());
    let sign = if name.is_empty() { "" } else { " = " };
    say(&format!("{clock}  {short}  {name}{sign}{value}\n"))
}

fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Str(text) => sentence(text, LONGEST),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::U32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        other => sentence(&other.to_string(), LONGEST),
    }
}

/// A value with its type, as far as JSON has one for it.
fn as_json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::U8(number) => (*number).into(),
        Value::I32(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        Value::F64(number) => (*number).into(),
        Value::Value(inner) => as_json(inner),
        Value::Array(items) => items.iter().map(as_json).collect(),
        Value::ObjectPath(path) => path.as_str().into(),
        other => plain(other).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_types_in_json() {
        for (value, json, text) in [
            (Value::from(true), serde_json::json!(true), "yes"),
            (Value::from(7_u32), serde_json::json!(7), "7"),
            (Value::from(0.5), serde_json::json!(0.5), "0.5"),
            (
                Value::from("running"),
                serde_json::json!("running"),
                "running",
            ),
        ] {
            assert_eq!((as_json(&value), plain(&value).as_str()), (json, text));
        }
        let list = Value::from(vec!["a", "b"]);
        assert_eq!(as_json(&list), serde_json::json!(["a", "b"]));
    }
}
