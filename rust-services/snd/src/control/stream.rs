// SPDX-License-Identifier: Apache-2.0

//! A stream on D-Bus.

use std::sync::Arc;

use agl_virtio_service::bus::{may_change, typed};
use zbus::fdo::Error;
use zbus::message::Header;
use zbus::zvariant::Value;

use super::values::{centibels, decibels, refuse, volume_decibels, volume_step};
use crate::backend::Role;
use crate::backend::pipe::ServerState;
use crate::config::StreamConfig;
use crate::panel::{Change, Panel, StreamPanel};
use crate::policy::VOLUME_MAX;
use crate::wire::Direction;

/// The name of the interface.
pub const STREAM_INTERFACE: &str = "org.automotivelinux.Virtio1.Sound.Stream";
/// Words for the states, by [`PcmState::number`](crate::model::PcmState::number); behind them, that of
/// a stream whose clock stands for one of higher priority.
const STATES: [&str; 7] = [
    "idle",
    "configured",
    "prepared",
    "running",
    "stopped",
    "released",
    "paused",
];

/// A stream's object.
#[derive(Clone)]
pub struct StreamObject {
    index: usize,
    name: String,
    direction: Direction,
    sources: Vec<String>,
    panel: Arc<Panel>,
}

impl StreamObject {
    /// The object of a stream.
    #[must_use]
    pub fn new(index: usize, settings: &StreamConfig, panel: Arc<Panel>) -> Self {
        Self {
            index,
            name: settings.name.clone(),
            direction: settings.direction,
            sources: settings
                .source_list()
                .into_iter()
                .map(|source| source.name)
                .collect(),
            panel,
        }
    }

    fn knobs(&self) -> Result<&StreamPanel, Error> {
        let gone = || Error::UnknownObject("there is no such stream".to_owned());
        self.panel.stream(self.index).ok_or_else(gone)
    }

    /// Turns knobs, if the caller may.
    async fn turn(
        &self,
        connection: &zbus::Connection,
        header: Option<&Header<'_>>,
        turn: impl FnOnce(&StreamPanel) -> Result<(), Error>,
    ) -> zbus::Result<()> {
        may_change(connection, header).await?;
        turn(self.knobs()?)?;
        self.panel.host_turned();
        Ok(())
    }
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Sound.Stream")]
impl StreamObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        &self.name
    }

    /// `output` or `input`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn direction(&self) -> &str {
        match self.direction {
            Direction::Output => "output",
            Direction::Input => "input",
        }
    }

    /// Place on the guest's fader: 0.0 is silence, 1.0 is unity, and 0.01 is half a decibel.
    #[zbus(property)]
    fn volume(&self) -> Result<f64, Error> {
        Ok(f64::from(self.knobs()?.volume()) / f64::from(VOLUME_MAX))
    }

    #[zbus(property)]
    async fn set_volume(
        &self,
        volume: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let volume: f64 = typed("Volume", volume)?;
        let step = volume_step(volume)?;
        self.turn(connection, header.as_ref(), |knobs| {
            knobs.set_volume(step);
            Ok(())
        })
        .await?;
        self.panel.tell(Change::Volume(self.index));
        Ok(())
    }

    /// The volume in decibels; −1000 for silence.
    #[zbus(property)]
    fn volume_db(&self) -> Result<f64, Error> {
        Ok(volume_decibels(self.knobs()?.volume()))
    }

    #[zbus(property)]
    fn mute(&self) -> Result<bool, Error> {
        Ok(self.knobs()?.mute())
    }

    #[zbus(property)]
    async fn set_mute(
        &self,
        mute: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let mute = typed("Mute", mute)?;
        self.turn(connection, header.as_ref(), |knobs| {
            knobs.set_mute(mute);
            Ok(())
        })
        .await
    }

    /// Names of what an input can choose from.
    #[zbus(property(emits_changed_signal = "const"))]
    fn sources(&self) -> &[String] {
        &self.sources
    }

    /// What an input has chosen; empty where there is no choice.
    #[zbus(property)]
    fn source(&self) -> Result<String, Error> {
        let index = usize::try_from(self.knobs()?.source()).unwrap_or(usize::MAX);
        Ok(self.sources.get(index).cloned().unwrap_or_default())
    }

    #[zbus(property)]
    async fn set_source(
        &self,
        source: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let source: String = typed("Source", source)?;
        let index = self.sources.iter().position(|known| *known == source);
        let index = index.and_then(|index| u32::try_from(index).ok());
        let index = index.ok_or_else(|| match self.direction {
            Direction::Output => refuse("an output has no sources"),
            Direction::Input if self.sources.is_empty() => refuse("this input has one source only"),
            Direction::Input => refuse(&format!("write one of: {}", self.sources.join(", "))),
        })?;
        self.turn(connection, header.as_ref(), |knobs| {
            knobs.set_source(index);
            Ok(())
        })
        .await
    }

    /// `Multimedia`, `Navigation`, `Communication` or `Emergency`.
    #[zbus(property)]
    fn role(&self) -> Result<&str, Error> {
        Ok(self.knobs()?.role().name())
    }

    #[zbus(property)]
    async fn set_role(
        &self,
        role: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let role = Role::from_name(&typed::<String>("Role", role)?)
            .ok_or_else(|| refuse("write Multimedia, Navigation, Communication or Emergency"))?;
        self.turn(connection, header.as_ref(), |knobs| {
            // One that was set by hand, here or in the file, stays.
            if knobs.priority() == knobs.role().priority() {
                knobs.set_priority(role.priority());
            }
            knobs.set_role(role);
            Ok(())
        })
        .await?;
        self.panel.tell(Change::Priority(self.index));
        Ok(())
    }

    /// Which streams it is heard over. It follows the role, unless it is another than the role's own.
    #[zbus(property)]
    fn priority(&self) -> Result<u32, Error> {
        Ok(self.knobs()?.priority())
    }

    #[zbus(property)]
    async fn set_priority(
        &self,
        priority: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let priority: u32 = typed("Priority", priority)?;
        if !(1..=1000).contains(&priority) {
            return Err(refuse("write a priority from 1 to 1000").into());
        }
        self.turn(connection, header.as_ref(), |knobs| {
            knobs.set_priority(priority);
            Ok(())
        })
        .await
    }

    /// By how many decibels it steps back while an output of higher priority plays, −60 to 0.
    #[zbus(property)]
    fn duck_level(&self) -> Result<f64, Error> {
        Ok(decibels(self.knobs()?.duck_level()))
    }

    #[zbus(property)]
    async fn set_duck_level(
        &self,
        level: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let level = centibels(typed("DuckLevel", level)?)?;
        self.turn(connection, header.as_ref(), |knobs| {
            knobs.set_duck_level(level);
            Ok(())
        })
        .await
    }

    /// By how many decibels it steps back now for somebody outside of this guest, −60 to 0: the
    /// manager's, for the streams of other guests.
    #[zbus(property)]
    fn duck(&self) -> Result<f64, Error> {
        Ok(decibels(self.knobs()?.duck()))
    }

    #[zbus(property)]
    async fn set_duck(
        &self,
        level: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let level = centibels(typed("Duck", level)?)?;
        self.turn(connection, header.as_ref(), |knobs| {
            knobs.set_duck(level);
            Ok(())
        })
        .await
    }

    /// `idle`, `configured`, `prepared`, `running`, `stopped` or `released`; `paused` while it is
    /// started and stands for a stream of higher priority.
    #[zbus(property)]
    fn state(&self) -> Result<&str, Error> {
        let number = usize::from(self.knobs()?.state());
        Ok(STATES.get(number).copied().unwrap_or_default())
    }

    /// `closed`, `opening`, `live`, or `lost` while the sound server is away.
    #[zbus(property)]
    fn server(&self) -> Result<&str, Error> {
        Ok(ServerState::from_number(self.knobs()?.server()).word())
    }

    /// Under-runs or over-runs.
    #[zbus(property)]
    fn xruns(&self) -> Result<u64, Error> {
        Ok(self.knobs()?.xruns())
    }

    /// What the host had still to play after the last buffer, in microseconds.
    #[zbus(property(emits_changed_signal = "false"))]
    fn latency_usec(&self) -> Result<u32, Error> {
        Ok(self.knobs()?.latency_us())
    }

    /// Frames played or recorded since the guest prepared the stream.
    #[zbus(property(emits_changed_signal = "false"))]
    fn position(&self) -> Result<u64, Error> {
        Ok(self.knobs()?.frames())
    }

    /// Frames thrown away because the sound server was gone or too slow.
    #[zbus(property(emits_changed_signal = "false"))]
    fn discarded(&self) -> Result<u64, Error> {
        Ok(self.knobs()?.discarded())
    }
}
