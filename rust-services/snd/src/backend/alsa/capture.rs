// SPDX-License-Identifier: Apache-2.0

//! The recording side: a PCM that is read as soon as it has something.

use std::time::{Duration, Instant};

use alsa::Direction;
use alsa::pcm::State;
use rustix::io::Errno;

use super::super::channels::Maps;
use super::super::{BackendError, Input, Opening};
use super::negotiate::{self, Opened, count, device, said};
use crate::format::Params;

/// How long one call waits for frames.
const FRAMES_MS: u32 = 50;
/// A PCM that gives nothing for so long while it runs is taken for lost.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Capture {
    /// A PCM for each source.
    names: Vec<String>,
    source: usize,
    target_ms: u32,
    maps: Maps,
    open: Option<Open>,
    /// Parameters while the stream is prepared, to open another source with.
    params: Option<Params>,
    overruns: u64,
}

struct Open {
    opened: Opened,
    running: bool,
    given: Instant,
}

impl Capture {
    pub(super) fn new(names: Vec<String>, target_ms: u32, maps: Maps) -> Self {
        Self {
            names,
            source: 0,
            target_ms,
            maps,
            open: None,
            params: None,
            overruns: 0,
        }
    }

    /// The PCM of the selected source. A stream whose sources are all one PCM has one name.
    fn name(&self) -> &str {
        self.names
            .get(self.source)
            .or_else(|| self.names.first())
            .map_or("default", String::as_str)
    }

    fn lost(&self, reason: impl Into<String>) -> BackendError {
        BackendError::Device {
            device: device(self.name()),
            reason: reason.into(),
        }
    }

    fn begin(&mut self) -> Result<(), BackendError> {
        let result = match self.open.as_mut() {
            Some(open) => open.begin(),
            None => return Err(self.lost("is not open")),
        };
        result.map_err(|error| self.lost(said(error)))
    }

    fn open_source(&mut self, params: &Params) -> Result<(), BackendError> {
        let stock = params.frames_in(self.target_ms);
        let opened = negotiate::open(
            self.name(),
            Direction::Capture,
            params,
            stock,
            &self.maps.of(params.channels),
        )?;
        self.open = Some(Open {
            opened,
            running: false,
            given: Instant::now(),
        });
        Ok(())
    }
}

impl Open {
    fn begin(&mut self) -> alsa::Result<()> {
        self.running = false;
        let pcm = &self.opened.pcm;
        if pcm.state() == State::Running {
            pcm.drop()?;
        }
        pcm.prepare()?;
        pcm.start()?;
        self.running = true;
        self.given = Instant::now();
        Ok(())
    }
}

impl Input for Capture {
    fn open(&mut self, params: &Params, _opening: Opening) -> Result<(), BackendError> {
        self.close();
        self.params = Some(*params);
        self.open_source(params)
    }

    fn start(&mut self) -> Result<(), BackendError> {
        self.begin()
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BackendError> {
        // The selected source was changed.
        if let (None, Some(params)) = (&self.open, self.params) {
            self.open_source(&params)?;
        }
        if !self.open.as_ref().is_some_and(|open| open.running) {
            self.begin()?;
        }
        let (Some(open), Some(params)) = (self.open.as_mut(), self.params) else {
            return Ok(0);
        };
        let read = open.opened.pcm.io_bytes().readi(bytes);
        match read {
            Ok(0) => {}
            Ok(frames) => {
                open.given = Instant::now();
                let given = params.bytes(frames as u64);
                if let Some(reorder) = &open.opened.reorder {
                    let width = params.format.container_bits().div_ceil(8);
                    let frames = bytes.get_mut(..given).unwrap_or_default();
                    reorder.apply(frames, usize::try_from(width).unwrap_or(1));
                }
                return Ok(given);
            }
            Err(error) => match Errno::from_raw_os_error(error.errno()) {
                Errno::AGAIN => {}
                Errno::PIPE | Errno::STRPIPE => {
                    self.overruns = self.overruns.saturating_add(1);
                    if self.overruns.is_power_of_two() {
                        let device = device(self.name());
                        log::warn!("{device} was read too late ({} times)", self.overruns);
                    }
                    self.begin()?;
                    return Ok(0);
                }
                _ => return Err(self.lost(said(error))),
            },
        }
        if open.given.elapsed() > PATIENCE {
            return Err(self.lost("has recorded nothing for two seconds"));
        }
        let _ = open.opened.pcm.wait(Some(FRAMES_MS));
        Ok(0)
    }

    fn delay(&mut self) -> u64 {
        self.open
            .as_ref()
            .and_then(|open| open.opened.pcm.delay().ok())
            .map_or(0, count)
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        if let Some(open) = self.open.as_mut() {
            open.running = false;
            // In any other state the next start begins anew anyway.
            let _ = open.opened.pcm.drop();
        }
        Ok(())
    }

    fn select(&mut self, source: u32) {
        let source = usize::try_from(source).unwrap_or(0);
        let before = self.name().to_owned();
        self.source = source;
        // Opened with the next read.
        if self.name() != before {
            self.open = None;
        }
    }

    fn close(&mut self) {
        self.open = None;
        self.params = None;
    }
}
