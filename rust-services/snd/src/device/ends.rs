// SPDX-License-Identifier: Apache-2.0

//! From a stream's configuration to its far end: a back end on a thread of its own, or nothing.

use std::sync::Arc;

use agl_virtio_service::logging::set_subject;

use super::DeviceError;
use crate::backend::channels::Maps;
use crate::backend::file::FileBackend;
use crate::backend::follows_role::{self, FollowsRole};
use crate::backend::runner::{InputRunner, OutputRunner, Prepare};
use crate::backend::{Backend, BackendError, Input, Output, Pacing, StreamIdentity};
use crate::config::{AlsaConfig, BackendConfig, GstreamerConfig, SndConfig, StreamConfig};
use crate::panel::{Panel, StreamPanel};
use crate::stream::End;
use crate::topology::chmap_infos;
use crate::wire::{ChmapInfo, Direction};

/// What the null back end takes: everything.
const EVERY_FORMAT: u64 = u64::MAX;

/// The channel maps that the driver is told of for this stream.
pub(super) fn maps_of(config: &SndConfig, settings: &StreamConfig) -> Maps {
    let maps = chmap_infos(config).into_iter().filter(|map| {
        map.hda_fn_nid.get() == settings.device && map.direction == settings.direction as u8
    });
    let positions = |map: ChmapInfo| {
        let channels = usize::from(map.channels);
        map.positions.into_iter().take(channels).collect()
    };
    Maps::new(maps.map(positions).collect())
}

pub(super) fn end_of(
    settings: &StreamConfig,
    maps: &Maps,
    identity: StreamIdentity,
    panel: &Arc<Panel>,
    prepare: &Prepare,
) -> Result<(u64, Pacing, End), DeviceError> {
    let made = backend(settings, maps).map_err(|source| DeviceError::Backend {
        stream: settings.name.clone(),
        source,
    })?;
    let Some(backend) = made else {
        let pace = matches!(&settings.backend, BackendConfig::Null(null) if null.pace);
        let pacing = if pace { Pacing::Clock } else { Pacing::AtOnce };
        return Ok((EVERY_FORMAT, pacing, End::Null));
    };
    let (formats, pacing) = (backend.formats(), backend.pacing());
    let name = format!("snd-{}", identity.index);
    let subject = format!("stream {} ({})", identity.stream, identity.index);
    let prepare = Arc::clone(prepare);
    let prepare: Prepare = Arc::new(move |thread: &str| {
        set_subject(&subject);
        prepare(thread);
    });
    let end = match settings.direction {
        Direction::Output => {
            let output = output(backend, identity, Arc::clone(panel));
            OutputRunner::spawn(&name, output, pacing, prepare).map(End::Output)
        }
        Direction::Input => {
            let input = input(backend, identity, Arc::clone(panel));
            InputRunner::spawn(&name, input, pacing, prepare).map(End::Input)
        }
    };
    let end = end.map_err(|source| DeviceError::Thread {
        stream: settings.name.clone(),
        source,
    })?;
    Ok((formats, pacing, end))
}

fn output(
    backend: Box<dyn Backend>,
    identity: StreamIdentity,
    panel: Arc<Panel>,
) -> Box<dyn Output> {
    if !backend.passes_role() {
        return backend.output(&identity);
    }
    let now = role_now(&identity, panel);
    let make = move |role| {
        backend.output(&StreamIdentity {
            role,
            ..identity.clone()
        })
    };
    Box::new(FollowsRole::<dyn Output>::new(Box::new(make), now))
}

fn input(backend: Box<dyn Backend>, identity: StreamIdentity, panel: Arc<Panel>) -> Box<dyn Input> {
    if !backend.passes_role() {
        return backend.input(&identity);
    }
    let now = role_now(&identity, panel);
    let make = move |role| {
        backend.input(&StreamIdentity {
            role,
            ..identity.clone()
        })
    };
    Box::new(FollowsRole::<dyn Input>::new(Box::new(make), now))
}

/// The role that the panel has for a stream.
fn role_now(identity: &StreamIdentity, panel: Arc<Panel>) -> follows_role::Now {
    let index = usize::try_from(identity.index).unwrap_or(usize::MAX);
    let first = identity.role;
    Box::new(move || panel.stream(index).map_or(first, StreamPanel::role))
}

/// The configured back end; `None` for the one that is nothing.
///
/// # Errors
/// When it is not built in, or its options cannot work.
pub(crate) fn backend(
    settings: &StreamConfig,
    maps: &Maps,
) -> Result<Option<Box<dyn Backend>>, BackendError> {
    Ok(match &settings.backend {
        BackendConfig::Null(_) => None,
        BackendConfig::File(file) => Some(Box::new(FileBackend {
            config: file.clone(),
            sources: settings.source_list(),
        })),
        BackendConfig::Alsa(alsa) => Some(alsa_backend(alsa, maps)?),
        BackendConfig::Gstreamer(pipes) => {
            Some(gstreamer_backend(pipes, settings.direction, maps)?)
        }
    })
}

#[cfg(feature = "alsa")]
fn alsa_backend(config: &AlsaConfig, maps: &Maps) -> Result<Box<dyn Backend>, BackendError> {
    use crate::backend::alsa::Alsa;
    Ok(Box::new(Alsa::new(
        config.names(),
        config.target_ms,
        maps.clone(),
    )?))
}

#[cfg(not(feature = "alsa"))]
fn alsa_backend(_: &AlsaConfig, _: &Maps) -> Result<Box<dyn Backend>, BackendError> {
    Err(BackendError::NotBuilt("alsa"))
}

#[cfg(feature = "gstreamer")]
fn gstreamer_backend(
    config: &GstreamerConfig,
    direction: Direction,
    maps: &Maps,
) -> Result<Box<dyn Backend>, BackendError> {
    use crate::backend::gstreamer::Gstreamer;
    let texts = config.descriptions();
    Ok(Box::new(Gstreamer::new(
        texts,
        direction,
        config.latency_ms,
        maps.clone(),
    )?))
}

#[cfg(not(feature = "gstreamer"))]
fn gstreamer_backend(
    _: &GstreamerConfig,
    _: Direction,
    _: &Maps,
) -> Result<Box<dyn Backend>, BackendError> {
    Err(BackendError::NotBuilt("gstreamer"))
}

pub(super) fn backend_name(backend: &BackendConfig) -> &'static str {
    match backend {
        BackendConfig::File(_) => "file",
        BackendConfig::Null(_) => "null",
        BackendConfig::Alsa(_) => "alsa",
        BackendConfig::Gstreamer(_) => "gstreamer",
    }
}
