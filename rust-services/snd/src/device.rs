// SPDX-License-Identifier: Apache-2.0

//! The sound device: what its configuration makes of it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use agl_virtio_service::{Brake, Heartbeat};
use virtio_device::{Device, QueueSpec, ThreadPlan};
use zerocopy::IntoBytes;

use crate::backend::runner::Prepare;
use crate::backend::{BackendError, Pacing, StreamIdentity};
use crate::config::SndConfig;
use crate::controls::{Control, controls};
use crate::handler::{Parts, SoundHandler, Watched};
use crate::panel::{Panel, StreamKnobs};
use crate::stream::Stream;
use crate::topology::{chmap_infos, config_space, pcm_info};
use crate::wire::{F_CTLS, queue};

mod ends;

pub(crate) use ends::backend;
use ends::{backend_name, end_of, maps_of};

/// Virtio device id of a sound device.
const ID: u32 = 25;
const QUEUES: [QueueSpec; 4] = [
    QueueSpec {
        name: queue::NAMES[0],
    },
    QueueSpec {
        name: queue::NAMES[1],
    },
    QueueSpec {
        name: queue::NAMES[2],
    },
    QueueSpec {
        name: queue::NAMES[3],
    },
];

/// Why a sound device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The host refused a thread.
    #[error("cannot start a thread for the stream {stream}: {source}")]
    Thread {
        /// Name of the stream.
        stream: String,
        /// What the host said.
        source: io::Error,
    },
    /// The back end can do none of the formats that are asked for.
    #[error(
        "the stream {stream}: the {backend} back end can do none of its formats; name others in \
         formats, or leave that key out"
    )]
    Formats {
        /// Name of the stream.
        stream: String,
        /// Name of the back end.
        backend: &'static str,
    },
    /// The back end refuses its options.
    #[error("the stream {stream}: {source}")]
    Backend {
        /// Name of the stream.
        stream: String,
        /// What is wrong.
        source: BackendError,
    },
}

/// A sound device.
pub struct SoundDevice {
    config: Vec<u8>,
    features: u64,
    panel: Arc<Panel>,
    /// Sees the turns of the queue thread.
    beat: Arc<Heartbeat>,
    /// Whether the queue thread leaves a part of its processor to others: not in a measurement of
    /// how fast it can be.
    brakes: bool,
    /// Taken by the queue thread.
    handler: Mutex<Option<SoundHandler>>,
}

/// The panel of a device of this configuration.
#[must_use]
pub fn panel(config: &SndConfig) -> Panel {
    let knobs = config.streams.iter().map(|stream| StreamKnobs {
        volume: stream.volume,
        mute: false,
        role: stream.role,
        priority: stream.priority(),
        step_back: stream.step_back,
        duck_level: stream.duck_centibels(),
    });
    let jacks: Vec<bool> = config.jacks.iter().map(|jack| jack.connected).collect();
    Panel::new(&knobs.collect::<Vec<_>>(), &jacks)
}

impl SoundDevice {
    /// Makes the device of `guest`'s configuration and starts its streams' threads, each of which
    /// calls `prepare` first.
    ///
    /// # Errors
    /// When a back end cannot do what is asked of it, or the host refuses a thread.
    pub fn new(
        guest: &str,
        device: &str,
        config: &SndConfig,
        prepare: &Prepare,
    ) -> Result<Self, DeviceError> {
        let panel = Arc::new(panel(config));
        let mut streams = Vec::with_capacity(config.streams.len());
        let mut brakes = true;
        for (index, settings) in config.streams.iter().enumerate() {
            let identity = StreamIdentity {
                guest: guest.to_owned(),
                device: device.to_owned(),
                stream: settings.name.clone(),
                index: u32::try_from(index).unwrap_or(u32::MAX),
                role: settings.role,
            };
            let (possible, pacing, end) = end_of(
                settings,
                &maps_of(config, settings),
                identity,
                &panel,
                prepare,
            )?;
            brakes &= pacing != Pacing::AtOnce;
            let offer = pcm_info(settings, possible, config.polling);
            if offer.formats.get() == 0 {
                return Err(DeviceError::Formats {
                    stream: settings.name.clone(),
                    backend: backend_name(&settings.backend),
                });
            }
            streams.push(Stream::new(index, offer, pacing, end, Arc::clone(&panel)));
        }
        let controls: Vec<Control> = controls(config);
        let chmaps = chmap_infos(config);
        let space = config_space(
            config.jacks.len(),
            streams.len(),
            chmaps.len(),
            controls.len(),
        );
        let features = if controls.is_empty() { 0 } else { F_CTLS };
        let handler = SoundHandler::new(Parts {
            streams,
            jacks: config.jacks.clone(),
            chmaps,
            controls,
            panel: Arc::clone(&panel),
        });
        Ok(Self {
            config: space.as_bytes().to_vec(),
            features,
            panel,
            beat: Arc::default(),
            brakes,
            handler: Mutex::new(Some(handler)),
        })
    }

    /// Shows the queue thread's turns to a watchdog.
    #[must_use]
    pub fn watched(mut self, beat: Arc<Heartbeat>) -> Self {
        self.beat = beat;
        self
    }

    /// The knobs and displays.
    #[must_use]
    pub fn panel(&self) -> &Arc<Panel> {
        &self.panel
    }
}

impl Device for SoundDevice {
    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queues(&self) -> &[QueueSpec] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        self.config.clone()
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        let handler = self
            .handler
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        handler
            .map(|handler| ThreadPlan {
                name: "snd",
                queues: vec![queue::CONTROL, queue::EVENT, queue::TX, queue::RX],
                handler: Box::new(Watched::new(
                    handler,
                    Arc::clone(&self.beat),
                    self.brakes.then(Brake::default),
                )),
            })
            .into_iter()
            .collect()
    }
}
