// SPDX-License-Identifier: Apache-2.0
//! What should be on the bus, whether it is there or not.

use super::BusStatus;
use super::told::Told;
use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};
use zbus::object_server::{Interface, SignalEmitter};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, Message, ObjectServer};

/// More signals than this at once are dropped.
const SIGNALS_WAITING: usize = 64;

/// An object's path and the name of one of its interfaces.
pub(super) type Key = (OwnedObjectPath, String);

pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An interface of an object, which can be made for any connection.
pub(super) trait Object: Send + Sync {
    fn register<'a>(
        &'a self,
        server: &'a ObjectServer,
        path: &'a OwnedObjectPath,
    ) -> Later<'a, zbus::Result<bool>>;

    fn unregister<'a>(
        &'a self,
        server: &'a ObjectServer,
        path: &'a OwnedObjectPath,
    ) -> Later<'a, zbus::Result<bool>>;

    /// The value of a property that is to be told; nothing where it was told, or cannot be read.
    fn news<'a>(
        &'a self,
        connection: &'a Connection,
        path: &'a OwnedObjectPath,
        name: &'a str,
    ) -> Later<'a, Option<OwnedValue>>;
}

struct Made<I, F> {
    make: F,
    interface: PhantomData<fn() -> I>,
}

impl<I: Interface, F: Fn() -> I + Send + Sync> Object for Made<I, F> {
    fn register<'a>(
        &'a self,
        server: &'a ObjectServer,
        path: &'a OwnedObjectPath,
    ) -> Later<'a, zbus::Result<bool>> {
        let interface = Told::new((self.make)());
        Box::pin(server.at(path, interface))
    }

    fn unregister<'a>(
        &'a self,
        server: &'a ObjectServer,
        path: &'a OwnedObjectPath,
    ) -> Later<'a, zbus::Result<bool>> {
        Box::pin(server.remove::<Told<I>, _>(path))
    }

    fn news<'a>(
        &'a self,
        connection: &'a Connection,
        path: &'a OwnedObjectPath,
        name: &'a str,
    ) -> Later<'a, Option<OwnedValue>> {
        Box::pin(async move {
            let server = connection.object_server();
            let interface = server.interface::<_, Told<I>>(path).await.ok()?;
            let emitter = SignalEmitter::new(connection, path).ok()?;
            let guard = interface.get().await;
            guard.news(name, connection, &emitter).await
        })
    }
}

/// Says that a property has changed.
#[derive(Debug, Clone)]
pub struct PropertyChange {
    flag: Arc<PropertyFlag>,
    wake: Arc<Notify>,
}

impl PropertyChange {
    /// The property has changed; its newest value will be sent. Many changes in a short time
    /// are sent as one. Never waits: one atomic exchange if nobody has seen the last change yet.
    pub fn changed(&self) {
        if !self.flag.changed.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }
}

#[derive(Debug)]
pub(super) struct PropertyFlag {
    pub(super) key: Key,
    pub(super) name: &'static str,
    changed: AtomicBool,
}

/// What should be on the bus.
pub(super) struct Registry {
    objects: Mutex<HashMap<Key, Arc<dyn Object>>>,
    properties: Mutex<Vec<Arc<PropertyFlag>>>,
    /// Woken when objects or properties changed.
    pub(super) wake: Arc<Notify>,
    signals: mpsc::Sender<Message>,
    signals_out: Mutex<Option<mpsc::Receiver<Message>>>,
    status: AtomicU8,
    /// The name waits for objects that are still to come.
    held: AtomicBool,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("objects", &lock(&self.objects).keys())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Registry {
    pub(super) fn new(status: BusStatus) -> Self {
        let (signals, signals_out) = mpsc::channel(SIGNALS_WAITING);
        let registry = Self {
            objects: Mutex::default(),
            properties: Mutex::default(),
            wake: Arc::new(Notify::new()),
            signals,
            signals_out: Mutex::new(Some(signals_out)),
            status: AtomicU8::new(0),
            held: AtomicBool::new(true),
        };
        registry.set_status(status);
        registry
    }

    pub(super) fn add<I: Interface>(
        &self,
        path: OwnedObjectPath,
        make: impl Fn() -> I + Send + Sync + 'static,
    ) {
        let key = (path, I::name().to_string());
        let object = Arc::new(Made {
            make,
            interface: PhantomData,
        });
        lock(&self.objects).insert(key, object);
        self.wake.notify_one();
    }

    pub(super) fn remove(&self, path: &OwnedObjectPath) {
        lock(&self.objects).retain(|(of, _), _| of != path);
        lock(&self.properties).retain(|flag| flag.key.0 != *path);
        self.wake.notify_one();
    }

    /// All objects are there: the bus name may be taken.
    pub(super) fn release(&self) {
        self.held.store(false, Ordering::Release);
        self.wake.notify_one();
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn objects(&self) -> HashMap<Key, Arc<dyn Object>> {
        lock(&self.objects).clone()
    }

    pub(super) fn property(
        &self,
        path: OwnedObjectPath,
        interface: &str,
        name: &'static str,
    ) -> PropertyChange {
        let key = (path, interface.to_owned());
        let mut properties = lock(&self.properties);
        let known = properties
            .iter()
            .find(|flag| flag.key == key && flag.name == name);
        let flag = match known {
            Some(flag) => Arc::clone(flag),
            None => {
                let flag = Arc::new(PropertyFlag {
                    key,
                    name,
                    changed: AtomicBool::new(false),
                });
                properties.push(Arc::clone(&flag));
                flag
            }
        };
        PropertyChange {
            flag,
            wake: Arc::clone(&self.wake),
        }
    }

    /// The properties that changed since the last call, by interface.
    pub(super) fn take_changes(&self) -> HashMap<Key, Vec<&'static str>> {
        let mut changes: HashMap<Key, Vec<&'static str>> = HashMap::new();
        for flag in lock(&self.properties).iter() {
            if flag.changed.swap(false, Ordering::AcqRel) {
                changes.entry(flag.key.clone()).or_default().push(flag.name);
            }
        }
        changes
    }

    pub(super) fn signal(&self, message: Message) {
        if self.status() == BusStatus::Present && self.signals.try_send(message).is_err() {
            log::debug!("a signal was dropped: the bus does not keep up");
        }
    }

    /// The other end of `signal`, for the bus thread, once.
    pub(super) fn take_signals(&self) -> Option<mpsc::Receiver<Message>> {
        lock(&self.signals_out).take()
    }

    pub(super) fn set_status(&self, status: BusStatus) {
        let number = match status {
            BusStatus::Off => 0,
            BusStatus::Absent => 1,
            BusStatus::Present => 2,
        };
        self.status.store(number, Ordering::Release);
    }

    pub(super) fn status(&self) -> BusStatus {
        match self.status.load(Ordering::Acquire) {
            0 => BusStatus::Off,
            1 => BusStatus::Absent,
            _ => BusStatus::Present,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
