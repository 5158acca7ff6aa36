// SPDX-License-Identifier: Apache-2.0
//! The bus thread: connects, registers, passes changes on, and begins anew.

use super::registry::{Key, Object, Registry};
use super::{BusStatus, Place, ROOT};
use enumflags2::BitFlags;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use zbus::address::Address;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::{ObjectManager, Properties, RequestNameReply};
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::Value;
use zbus::{Connection, MatchRule, Message, MessageStream};

/// How long the bus is waited for after it was not there, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The least time between two reports of changes, so that a slider does not flood the bus.
const PACE: Duration = Duration::from_millis(20);

/// A bus that has not let us in after this time never will: it hangs, or somebody else listens at
/// its address.
const GREETING: Duration = Duration::from_secs(10);

/// A method that has no answer after this time has failed.
const ANSWER: Duration = Duration::from_secs(25);

/// Which bus.
#[derive(Debug)]
pub(super) enum Target {
    System,
    Session,
    Address(Address),
}

impl Target {
    pub(super) async fn connect(&self, answer: Duration) -> zbus::Result<Connection> {
        let builder = match self {
            Self::System => zbus::connection::Builder::system()?,
            Self::Session => zbus::connection::Builder::session()?,
            Self::Address(address) => zbus::connection::Builder::address(address.clone())?,
        };
        builder.method_timeout(answer).build().await
    }

    /// As [`Target::connect`], with an end to it.
    async fn come(&self) -> zbus::Result<Connection> {
        let come = tokio::time::timeout(GREETING, self.connect(ANSWER));
        come.await.unwrap_or_else(|_| {
            let seconds = GREETING.as_secs();
            let silent = format!("it has not answered for {seconds} seconds");
            Err(io::Error::new(io::ErrorKind::TimedOut, silent).into())
        })
    }
}

/// As `--bus` has it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the system bus"),
            Self::Session => match std::env::var("DBUS_SESSION_BUS_ADDRESS") {
                Ok(address) => write!(f, "the session bus at {address}"),
                Err(_) => f.write_str("the session bus (DBUS_SESSION_BUS_ADDRESS is not set)"),
            },
            Self::Address(address) => write!(f, "the bus at {address}"),
        }
    }
}

/// Keeps the service on the bus for ever.
pub(super) fn run(target: &Target, place: &Place, registry: &Registry) {
    let Some(mut signals) = registry.take_signals() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // The library resolves names and reads files on threads; none of it is deep.
        .max_blocking_threads(1)
        .thread_stack_size(super::STACK)
        .thread_keep_alive(Duration::from_secs(1))
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(keep(target, place, registry, &mut signals)),
        Err(error) => log::error!("the service stays off the bus: {error}"),
    }
}

async fn keep(
    target: &Target,
    place: &Place,
    registry: &Registry,
    signals: &mut mpsc::Receiver<Message>,
) {
    let (first, most) = BACK_OFF;
    let mut wait = first;
    let mut said = false;
    loop {
        let result = match target.come().await {
            Ok(connection) => {
                (wait, said) = (first, false);
                serve(&connection, place, registry, signals).await
            }
            Err(error) => Err(error),
        };
        registry.set_status(BusStatus::Absent);
        let reason = match &result {
            Ok(()) => "the bus is gone".to_owned(),
            Err(error) => error.to_string(),
        };
        if said {
            log::debug!("still without {target}: {reason}");
        } else {
            log::warn!("goes on without D-Bus and looks for {target}: {reason}");
            said = true;
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(most);
    }
}

/// Is on the bus until the bus goes.
async fn serve(
    connection: &Connection,
    place: &Place,
    registry: &Registry,
    signals: &mut mpsc::Receiver<Message>,
) -> zbus::Result<()> {
    // A stream ends with its connection; this one carries next to nothing.
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")?
        .member("NameLost")?
        .build();
    let mut end = MessageStream::for_match_rule(rule, connection, Some(4)).await?;

    let mut present = HashMap::new();
    connection.object_server().at(ROOT, ObjectManager).await?;
    reconcile(connection, registry, &mut present).await?;
    while registry.is_held() {
        tokio::select! {
            message = end.next() => match message {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            () = registry.wake.notified() => {
                reconcile(connection, registry, &mut present).await?;
            }
        }
    }
    // What changed before is in the objects already, and old signals mean nothing; from the name on
    // there may be somebody who listens.
    drop(registry.take_changes());
    while signals.try_recv().is_ok() {}
    // Whoever has the shared name, all that wait for it may be spoken to.
    if let Some(shared) = place.shared_name() {
        connection
            .request_name_with_flags(shared, BitFlags::empty())
            .await?;
    }
    // The name comes last: who sees it finds all objects. Without flags nobody can take it, and
    // we wait for it where somebody has it.
    let name = place.bus_name();
    let reply = connection
        .request_name_with_flags(name.as_str(), BitFlags::empty())
        .await?;
    if reply == RequestNameReply::InQueue {
        log::warn!(
            "another process has the name {name} on the bus: is the device served twice? \
             The name comes to us when that one ends"
        );
    }
    registry.set_status(BusStatus::Present);
    log::info!("is on D-Bus as {name}");

    loop {
        tokio::select! {
            message = end.next() => match message {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            signal = signals.recv() => match signal {
                Some(message) => connection.send(&message).await?,
                None => return Ok(()),
            },
            () = registry.wake.notified() => {
                reconcile(connection, registry, &mut present).await?;
                report(connection, &present, registry.take_changes()).await?;
                tokio::time::sleep(PACE).await;
            }
        }
    }
}

/// Makes what is on the bus what should be.
async fn reconcile(
    connection: &Connection,
    registry: &Registry,
    present: &mut HashMap<Key, Arc<dyn Object>>,
) -> zbus::Result<()> {
    let wanted = registry.objects();
    let server = connection.object_server();
    let mut gone: Vec<Key> = present
        .iter()
        .filter(|(key, object)| !wanted.get(key).is_some_and(|new| Arc::ptr_eq(new, object)))
        .map(|(key, _)| key.clone())
        .collect();
    // The library takes with an object all that is below it, and would not find that any more.
    gone.sort_by(|a, b| b.0.cmp(&a.0));
    for key in gone {
        if let Some(object) = present.remove(&key) {
            object.unregister(server, &key.0).await?;
        }
    }
    for (key, object) in wanted {
        if let Entry::Vacant(place) = present.entry(key) {
            object.register(server, &place.key().0).await?;
            place.insert(object);
        }
    }
    Ok(())
}

/// Sends the newest values of what changed.
async fn report(
    connection: &Connection,
    present: &HashMap<Key, Arc<dyn Object>>,
    changes: HashMap<Key, Vec<&'static str>>,
) -> zbus::Result<()> {
    for (key, names) in changes {
        let Some(object) = present.get(&key) else {
            continue;
        };
        let (path, interface) = &key;
        let mut values = HashMap::new();
        for name in names {
            if let Some(value) = object.news(connection, path, name).await {
                values.insert(name, Value::from(value));
            }
        }
        if values.is_empty() {
            continue;
        }
        let emitter = SignalEmitter::new(connection, path)?;
        let interface = InterfaceName::try_from(interface.as_str())?;
        Properties::properties_changed(&emitter, interface, values, Cow::Borrowed(&[])).await?;
    }
    Ok(())
}
