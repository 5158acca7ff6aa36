// SPDX-License-Identifier: Apache-2.0

//! The device on D-Bus: what it shows, who looks, and how that is ended.

use std::collections::HashMap;
use std::sync::Arc;

use agl_virtio_service::bus::{Bus, may_change};
use zbus::fdo;
use zbus::message::Header;

use crate::config::{Config, FunctionKind};
use crate::statistics::Statistics;

/// The name of the interface.
pub const INTERFACE: &str = "org.automotivelinux.Virtio1.Media";

/// Shows the device.
///
/// # Errors
/// Never in practice: the path is the device's own.
pub fn show(
    bus: &Bus,
    config: &Config,
    codecs: &[&'static str],
    statistics: &Arc<Statistics>,
) -> Result<(), zbus::zvariant::Error> {
    let (config, statistics) = (config.clone(), Arc::clone(statistics));
    let codecs = codecs.to_vec();
    bus.add("", move || Control {
        config: config.clone(),
        codecs: codecs.clone(),
        statistics: Arc::clone(&statistics),
    })
}

struct Control {
    config: Config,
    codecs: Vec<&'static str>,
    statistics: Arc<Statistics>,
}

/// Number, format or nothing, width, height, pictures per second, process of its codec.
type Consumer = (u32, String, u32, u32, f64, u32);

#[zbus::interface(name = "org.automotivelinux.Virtio1.Media")]
impl Control {
    /// The device's name, as the guest sees it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn card(&self) -> &str {
        self.config.card()
    }

    /// What it does: camera, decoder or encoder.
    #[zbus(property(emits_changed_signal = "const"))]
    fn function(&self) -> &str {
        self.config.function.name()
    }

    /// Where a camera's pictures come from; nothing of others.
    #[zbus(property(emits_changed_signal = "const"))]
    fn source(&self) -> &str {
        match (self.config.function, self.config.pipeline.as_str()) {
            (FunctionKind::Camera, "") => "test-picture",
            (_, pipeline) => pipeline,
        }
    }

    /// What a decoder or an encoder has; nothing of a camera.
    #[zbus(property(emits_changed_signal = "const"))]
    fn codecs(&self) -> &[&'static str] {
        &self.codecs
    }

    /// Streams of codecs that the guest may have at work at a time.
    #[zbus(property(emits_changed_signal = "const"))]
    fn max_streams(&self) -> u32 {
        u32::try_from(self.config.max_streams).unwrap_or(u32::MAX)
    }

    /// Which camera goes first when there is not time for all: the greatest. 0 for none.
    #[zbus(property(emits_changed_signal = "const"))]
    fn priority(&self) -> u8 {
        self.config.priority
    }

    /// Sessions that the guest may have at a time.
    #[zbus(property(emits_changed_signal = "const"))]
    fn max_sessions(&self) -> u32 {
        u32::try_from(self.config.max_sessions).unwrap_or(u32::MAX)
    }

    /// Pixels in a second that the guest may ask for.
    #[zbus(property(emits_changed_signal = "const"))]
    fn max_pixel_rate(&self) -> u64 {
        self.config.max_pixel_rate
    }

    /// Where the codecs run: each stream's in a process, or in a thread of the service; nothing of a
    /// camera.
    #[zbus(property(emits_changed_signal = "const"))]
    fn isolation(&self) -> &str {
        self.config.isolation_name()
    }

    /// The guest's sessions: number, and for those that stream format, width, height, pictures per
    /// second, and the number of the process in which the codec runs, or 0 where that is the service's.
    #[zbus(property(emits_changed_signal = "false"))]
    fn sessions(&self) -> Vec<Consumer> {
        let sessions = self.statistics.snapshot().sessions.into_iter();
        sessions
            .map(|(session, work)| match work {
                Some(work) => (
                    session,
                    work.what.to_string(),
                    work.width,
                    work.height,
                    work.rate,
                    work.process,
                ),
                None => (session, String::new(), 0, 0, 0.0, 0),
            })
            .collect()
    }

    /// Ends a session: its program in the guest gets an error.
    async fn terminate(
        &self,
        session: u32,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        may_change(connection, Some(&header)).await?;
        if self.statistics.condemn(session) {
            log::info!("session {session} is ended from the bus");
            Ok(())
        } else {
            let reason = format!("there is no session {session}");
            Err(fdo::Error::InvalidArgs(reason))
        }
    }

    /// What was counted: sessions, ioctls, frames.
    fn statistics(&self) -> HashMap<String, u64> {
        let counters = self.statistics.counters().into_iter();
        counters
            .map(|(name, count)| (name.to_owned(), count))
            .collect()
    }
}
