// SPDX-License-Identifier: Apache-2.0
//! An interface as it is on the bus: tells each value once, and says of a property that can only
//! be read that it is so.
//!
//! The D-Bus library tells what was written as soon as it is written, and the device tells what has
//! changed a little later: without this a listener would hear of each write twice, and of writes
//! that change nothing, be it because the value is rounded to the one of before.

use async_trait::async_trait;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use zbus::fdo::Properties;
use zbus::message::{Header, Message};
use zbus::names::{InterfaceName, MemberName};
use zbus::object_server::{DispatchResult, Interface, SignalEmitter};
use zbus::zvariant::{OwnedValue, Value};
use zbus::{Connection, DBusError, ObjectServer, fdo};

/// An interface, and what was told of it on one connection.
pub(super) struct Told<I> {
    interface: I,
    /// The value of each property that was told last.
    values: Mutex<HashMap<String, OwnedValue>>,
}

/// Whether an object with this interface is at this path, for whoever is to wait until it is.
pub async fn is_shown<I: Interface>(
    server: &ObjectServer,
    path: &zbus::zvariant::OwnedObjectPath,
) -> bool {
    server.interface::<_, Told<I>>(path).await.is_ok()
}

impl<I: Interface> Told<I> {
    pub(super) fn new(interface: I) -> Self {
        Self {
            interface,
            values: Mutex::default(),
        }
    }

    /// The value of a property, if nobody was told of it. Who asks tells it.
    pub(super) async fn news(
        &self,
        name: &str,
        connection: &Connection,
        emitter: &SignalEmitter<'_>,
    ) -> Option<OwnedValue> {
        let value = self.value(name, connection, emitter).await?;
        self.note(name, &value).then_some(value)
    }

    async fn value(
        &self,
        name: &str,
        connection: &Connection,
        emitter: &SignalEmitter<'_>,
    ) -> Option<OwnedValue> {
        let server = connection.object_server();
        let value = self.interface.get(name, server, connection, None, emitter);
        value.await?.ok()
    }

    /// Notes a value as told. False where it was told before.
    fn note(&self, name: &str, value: &OwnedValue) -> bool {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if values.get(name) == Some(value) {
            return false;
        }
        if let Ok(value) = value.try_clone() {
            values.insert(name.to_owned(), value);
        }
        true
    }

    /// Writes a property, and tells its value if it is another one than before.
    async fn write(
        &self,
        name: &str,
        value: &Value<'_>,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> zbus::Result<()> {
        // Nothing changes, so nobody needs to be allowed to, and nobody hears of it.
        let before = self.value(name, connection, emitter).await;
        if before.as_ref().is_some_and(|before| **before == *value) {
            return Ok(());
        }
        // The library tells of each write, also of one whose value is rounded to that of before. It
        // tells this process alone.
        let quiet = match connection.unique_name() {
            Some(us) => emitter.to_owned().set_destination(us.clone().into()),
            None => emitter.to_owned(),
        };
        let interface = &self.interface;
        if let DispatchResult::Async(write) =
            interface.set(name, value, server, connection, header, &quiet)
        {
            write.await?;
        }
        let now = self.value(name, connection, emitter).await;
        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
            if self.note(name, &now) {
                let values = HashMap::from([(name, Value::from(now))]);
                let nothing = Cow::Borrowed(&[][..]);
                Properties::properties_changed(emitter, I::name(), values, nothing).await?;
            }
        }
        Ok(())
    }

    /// What is wrong where a property cannot be written.
    async fn refusal(
        &self,
        name: &str,
        connection: &Connection,
        emitter: &SignalEmitter<'_>,
    ) -> fdo::Error {
        match self.value(name, connection, emitter).await {
            Some(_) => fdo::Error::PropertyReadOnly(format!("{name} can only be read")),
            None => fdo::Error::UnknownProperty(format!("there is no property {name}")),
        }
    }
}

/// The library answers a refused write with an error of its own name, which has the name of the one
/// that was meant in its text. An error that looks as if it came from somebody else keeps its name.
fn under_its_name(error: zbus::Error, header: Option<&Header<'_>>) -> zbus::Error {
    let (zbus::Error::FDO(meant), Some(header)) = (&error, header) else {
        return error;
    };
    let text = meant.description().unwrap_or_default().to_owned();
    let message = Message::error(header, meant.name()).and_then(|answer| answer.build(&text));
    match message {
        Ok(message) => {
            zbus::Error::MethodError(meant.name().to_owned().into(), Some(text), message)
        }
        Err(_) => error,
    }
}

#[async_trait]
impl<I: Interface> Interface for Told<I> {
    fn name() -> InterfaceName<'static> {
        I::name()
    }

    fn spawn_tasks_for_methods(&self) -> bool {
        self.interface.spawn_tasks_for_methods()
    }

    async fn get(
        &self,
        name: &str,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> Option<fdo::Result<OwnedValue>> {
        let value = self
            .interface
            .get(name, server, connection, header, emitter);
        value.await
    }

    async fn get_all(
        &self,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> fdo::Result<HashMap<String, OwnedValue>> {
        let values = self.interface.get_all(server, connection, header, emitter);
        values.await
    }

    fn set<'call>(
        &'call self,
        name: &'call str,
        value: &'call Value<'_>,
        server: &'call ObjectServer,
        connection: &'call Connection,
        header: Option<&'call Header<'_>>,
        emitter: &'call SignalEmitter<'_>,
    ) -> DispatchResult<'call> {
        let interface = &self.interface;
        match interface.set(name, value, server, connection, header, emitter) {
            // Not this one: it would tell of the write itself.
            DispatchResult::Async(_) => DispatchResult::Async(Box::pin(async move {
                let written = self.write(name, value, server, connection, header, emitter);
                written.await.map_err(|error| under_its_name(error, header))
            })),
            DispatchResult::NotFound => DispatchResult::Async(Box::pin(async move {
                let refusal = self.refusal(name, connection, emitter).await;
                Err(under_its_name(refusal.into(), header))
            })),
            DispatchResult::RequiresMut => DispatchResult::RequiresMut,
        }
    }

    async fn set_mut(
        &mut self,
        name: &str,
        value: &Value<'_>,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> Option<fdo::Result<()>> {
        let written = self
            .interface
            .set_mut(name, value, server, connection, header, emitter);
        written.await
    }

    fn call<'call>(
        &'call self,
        server: &'call ObjectServer,
        connection: &'call Connection,
        message: &'call Message,
        name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        self.interface.call(server, connection, message, name)
    }

    fn call_mut<'call>(
        &'call mut self,
        server: &'call ObjectServer,
        connection: &'call Connection,
        message: &'call Message,
        name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        self.interface.call_mut(server, connection, message, name)
    }

    fn introspect_to_writer(&self, writer: &mut dyn fmt::Write, level: usize) {
        self.interface.introspect_to_writer(writer, level);
    }
}
