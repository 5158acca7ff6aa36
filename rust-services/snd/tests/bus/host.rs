// SPDX-License-Identifier: Apache-2.0

//! Somebody on the bus.

use std::time::Duration;

use frontend::MessageBus;
use tokio::runtime::Runtime;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::{PropertiesChanged, PropertiesProxy};
use zbus::message::Type;
use zbus::names::InterfaceName;
use zbus::zvariant::{OwnedValue, Value};
use zbus::{Connection, MatchRule, MessageStream};

const PATIENCE: Duration = Duration::from_secs(60);
/// Changes that are kept until they are asked for.
const CHANGES: usize = 4096;

pub(crate) const STREAM: &str = "org.automotivelinux.Virtio1.Sound.Stream";
pub(crate) const JACK: &str = "org.automotivelinux.Virtio1.Sound.Jack";
pub(crate) const DEVICE: &str = "org.automotivelinux.Virtio1.Device";

pub(crate) struct Host {
    runtime: Runtime,
    connection: Connection,
    /// Taken only when it is dropped.
    changes: Option<MessageStream>,
    pub(crate) name: String,
    pub(crate) path: String,
}

impl Host {
    /// Connects, and waits until the device is on the bus.
    pub(crate) fn of(bus: &MessageBus, guest: &str, device: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let name = format!("org.automotivelinux.Virtio1.Device.{guest}.{device}");
        let (connection, changes) = runtime.block_on(async {
            let address = bus.address();
            let builder = zbus::connection::Builder::address(address.as_str()).unwrap();
            let connection = builder.build().await.unwrap();
            let rule = MatchRule::builder()
                .msg_type(Type::Signal)
                .member("PropertiesChanged")
                .unwrap()
                .build();
            let changes = MessageStream::for_match_rule(rule, &connection, Some(CHANGES));
            let changes = changes.await.unwrap();
            let asked = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
            let end = frontend::Deadline::patient();
            while !asked
                .name_has_owner(name.as_str().try_into().unwrap())
                .await
                .unwrap()
            {
                assert!(!end.passed(), "{name} is not on the bus");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (connection, changes)
        });
        Self {
            runtime,
            connection,
            changes: Some(changes),
            path: format!("/org/automotivelinux/Virtio1/guests/{guest}/{device}"),
            name,
        }
    }

    fn path_of(&self, part: &str) -> String {
        format!(
            "{}{}{part}",
            self.path,
            if part.is_empty() { "" } else { "/" }
        )
    }

    /// A property of a part of the device, such as `streams/0`.
    pub(crate) fn get(&self, part: &str, interface: &str, property: &str) -> Value<'static> {
        let path = self.path_of(part);
        let value = self.runtime.block_on(async {
            let proxy = PropertiesProxy::new(&self.connection, self.name.as_str(), path.as_str());
            let interface = InterfaceName::try_from(interface).unwrap();
            proxy.await.unwrap().get(interface, property).await
        });
        value.unwrap().into()
    }

    /// Sets a property; an error's name and text.
    pub(crate) fn set<'a>(
        &self,
        part: &str,
        interface: &str,
        property: &str,
        value: impl Into<Value<'a>>,
    ) -> Result<(), String> {
        let path = self.path_of(part);
        let set = self.runtime.block_on(async {
            let proxy = PropertiesProxy::new(&self.connection, self.name.as_str(), path.as_str());
            let interface = InterfaceName::try_from(interface).unwrap();
            let proxy = proxy.await.unwrap();
            proxy.set(interface, property, value.into()).await
        });
        set.map_err(|error| error.to_string())
    }

    /// Sets a property of a stream, which must succeed.
    pub(crate) fn turn<'a>(&self, stream: u32, property: &str, value: impl Into<Value<'a>>) {
        let part = format!("streams/{stream}");
        self.set(&part, STREAM, property, value).unwrap();
    }

    /// A property of a stream.
    pub(crate) fn stream(&self, stream: u32, property: &str) -> Value<'static> {
        self.get(&format!("streams/{stream}"), STREAM, property)
    }

    /// Frames that a stream has played.
    pub(crate) fn position(&self, stream: u32) -> u64 {
        self.stream(stream, "Position").try_into().unwrap()
    }

    /// All that is told, of all parts of the device, until this property of this part has a value
    /// that `is` the one: names and values, in their order.
    pub(crate) fn told_until(
        &mut self,
        part: &str,
        property: &str,
        is: impl Fn(&Value<'_>) -> bool,
    ) -> Vec<(String, Value<'static>)> {
        let path = self.path_of(part);
        let changes = self.changes.as_mut().unwrap();
        self.runtime.block_on(async {
            let mut told = Vec::new();
            loop {
                let message = tokio::time::timeout(PATIENCE, changes.next()).await;
                let message =
                    message.unwrap_or_else(|_| panic!("{property} of {path} was not told"));
                let change = PropertiesChanged::from_message(message.unwrap().unwrap()).unwrap();
                let header = change.message().header();
                let here = header.path().is_some_and(|from| from.as_str() == path);
                let arguments = change.args().unwrap();
                let values = arguments.changed_properties();
                told.extend(values.iter().map(|(name, value)| {
                    let value = OwnedValue::try_from(value).unwrap();
                    ((*name).to_owned(), value.into())
                }));
                if here && values.get(property).is_some_and(&is) {
                    return told;
                }
            }
        })
    }

    /// Waits until a change of this property to a value that `is` the one is told.
    pub(crate) fn told(
        &mut self,
        part: &str,
        property: &str,
        is: impl Fn(&Value<'_>) -> bool,
    ) -> Value<'static> {
        let path = self.path_of(part);
        let changes = self.changes.as_mut().unwrap();
        self.runtime.block_on(async {
            loop {
                let message = tokio::time::timeout(PATIENCE, changes.next()).await;
                let message =
                    message.unwrap_or_else(|_| panic!("{property} of {path} was not told"));
                let change = PropertiesChanged::from_message(message.unwrap().unwrap()).unwrap();
                if change
                    .message()
                    .header()
                    .path()
                    .is_none_or(|from| from.as_str() != path)
                {
                    continue;
                }
                let arguments = change.args().unwrap();
                let Some(value) = arguments.changed_properties().get(property) else {
                    continue;
                };
                if is(value) {
                    return OwnedValue::try_from(value).unwrap().into();
                }
            }
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A stream of messages unsubscribes by a task.
        let _inside = self.runtime.enter();
        drop(self.changes.take());
    }
}
