// SPDX-License-Identifier: Apache-2.0

//! The device and its streams on D-Bus.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use agl_virtio_service::bus::{Bus, PropertyChange, may_change};
use zbus::message::Header;

use crate::model::Function;
use crate::statistics::{Session, Statistics};

/// The name of the device's interface.
pub const INTERFACE: &str = "org.automotivelinux.Virtio1.Video";
/// The name of a stream's interface.
pub const SESSION_INTERFACE: &str = "org.automotivelinux.Virtio1.Video.Session";

/// What does not change while the service runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Which way it codes.
    pub function: Function,
    /// The draft.
    pub dialect: &'static str,
    /// Where the codecs run.
    pub isolation: &'static str,
    /// What is offered.
    pub codecs: Vec<&'static str>,
}

/// Shows the device, and its streams as they come and go.
///
/// # Errors
/// Never in practice: the paths are the device's own.
pub fn show(
    bus: &Bus,
    identity: Identity,
    statistics: &Arc<Statistics>,
) -> Result<(), zbus::zvariant::Error> {
    let shown = Arc::clone(statistics);
    bus.add("", move || Control {
        identity: identity.clone(),
        statistics: Arc::clone(&shown),
    })?;
    let count = bus.property("", INTERFACE, "Sessions")?;
    let gallery = Gallery {
        bus: bus.clone(),
        statistics: Arc::downgrade(statistics),
        shown: Mutex::default(),
        count,
    };
    statistics.observe(move || gallery.refresh());
    Ok(())
}

/// The streams that are on the bus.
struct Gallery {
    bus: Bus,
    statistics: std::sync::Weak<Statistics>,
    shown: Mutex<BTreeMap<u32, Arc<Session>>>,
    count: PropertyChange,
}

impl Gallery {
    fn refresh(&self) {
        let Some(statistics) = self.statistics.upgrade() else {
            return;
        };
        let now: BTreeMap<u32, Arc<Session>> = statistics
            .sessions()
            .into_iter()
            .map(|session| (session.id(), session))
            .collect();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |id: &u32, session: &Arc<Session>, list: &BTreeMap<u32, Arc<Session>>| {
            list.get(id)
                .is_some_and(|other| Arc::ptr_eq(other, session))
        };
        for (id, _) in shown.iter().filter(|(id, old)| !is_same(id, old, &now)) {
            let _ = self.bus.remove(&path(*id));
        }
        for (id, session) in now.iter().filter(|(id, new)| !is_same(id, new, &shown)) {
            let session = Arc::clone(session);
            let made = move || SessionControl(Arc::clone(&session));
            if let Err(error) = self.bus.add(&path(*id), made) {
                log::error!("stream {id} stays off the bus: {error}");
            }
        }
        *shown = now;
        self.count.changed();
    }
}

fn path(id: u32) -> String {
    format!("sessions/{id}")
}

struct Control {
    identity: Identity,
    statistics: Arc<Statistics>,
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Video")]
impl Control {
    /// decoder or encoder.
    #[zbus(property(emits_changed_signal = "const"))]
    fn function(&self) -> &str {
        match self.identity.function {
            Function::Decoder => "decoder",
            Function::Encoder => "encoder",
        }
    }

    /// The draft of virtio-video: v5 or v3.
    #[zbus(property(emits_changed_signal = "const"))]
    fn dialect(&self) -> &str {
        self.identity.dialect
    }

    /// Where the codecs run: each stream's in a process, or in a thread of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn isolation(&self) -> &str {
        self.identity.isolation
    }

    /// The codecs that are offered.
    #[zbus(property(emits_changed_signal = "const"))]
    fn codecs(&self) -> Vec<String> {
        let codecs = self.identity.codecs.iter();
        codecs.map(|codec| (*codec).to_owned()).collect()
    }

    /// Streams that the guest may have at once.
    #[zbus(property(emits_changed_signal = "const"))]
    fn max_sessions(&self) -> u32 {
        self.statistics.quota().sessions
    }

    /// Pixels per second that all streams together may have.
    #[zbus(property(emits_changed_signal = "const"))]
    fn max_pixel_rate(&self) -> u64 {
        self.statistics.quota().pixel_rate
    }

    /// Streams that there are; each has an object below `sessions`.
    #[zbus(property)]
    fn sessions(&self) -> u32 {
        u32::try_from(self.statistics.sessions().len()).unwrap_or(u32::MAX)
    }

    /// What was counted.
    fn statistics(&self) -> HashMap<String, u64> {
        self.statistics.counters().into_iter().collect()
    }
}

struct SessionControl(Arc<Session>);

#[zbus::interface(name = "org.automotivelinux.Virtio1.Video.Session")]
impl SessionControl {
    /// The codec.
    #[zbus(property(emits_changed_signal = "const"))]
    fn codec(&self) -> &str {
        self.0.codec().name()
    }

    /// Who opened it, in the guest's words.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner(&self) -> &str {
        self.0.owner()
    }

    /// Pixels in a row.
    #[zbus(property(emits_changed_signal = "false"))]
    fn width(&self) -> u32 {
        self.0.size().width
    }

    /// Rows.
    #[zbus(property(emits_changed_signal = "false"))]
    fn height(&self) -> u32 {
        self.0.size().height
    }

    /// Pictures per second as the guest says; 0 where it does not.
    #[zbus(property(emits_changed_signal = "false"))]
    fn frame_rate(&self) -> u32 {
        self.0.frame_rate()
    }

    /// Outputs given to the guest.
    #[zbus(property(emits_changed_signal = "false"))]
    fn frames(&self) -> u64 {
        self.0.totals().frames
    }

    /// Inputs of which nothing came out.
    #[zbus(property(emits_changed_signal = "false"))]
    fn dropped(&self) -> u64 {
        self.0.totals().dropped
    }

    /// Mean and longest time from a unit's way into the codec to its way out, in microseconds.
    #[zbus(property(emits_changed_signal = "false"))]
    fn latency(&self) -> (u64, u64) {
        self.0.latency()
    }

    /// The number of the process in which its codec runs; 0 where that is the service's or there is none
    /// yet.
    #[zbus(property(emits_changed_signal = "false"))]
    fn process(&self) -> u32 {
        self.0.process()
    }

    /// Whether it has failed and only waits for the guest to notice.
    #[zbus(property(emits_changed_signal = "false"))]
    fn failed(&self) -> bool {
        self.0.has_failed()
    }

    /// Ends it with an error for the guest.
    async fn terminate(
        &self,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> zbus::fdo::Result<()> {
        may_change(connection, Some(&header)).await?;
        log::info!(
            "stream {} is to end, as was asked for on D-Bus",
            self.0.id()
        );
        self.0.terminate();
        Ok(())
    }
}
