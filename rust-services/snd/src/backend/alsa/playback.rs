// SPDX-License-Identifier: Apache-2.0

//! The playing side: a PCM that always holds a stock of frames.

use std::time::{Duration, Instant};

use alsa::Direction;
use alsa::pcm::{PCM, State};
use rustix::io::Errno;

use super::super::channels::Maps;
use super::super::{BackendError, Opening, Output};
use super::negotiate::{self, Opened, count, device, said};
use crate::clock::Clock;
use crate::format::Params;

/// How long one call waits for room. Shorter than the shortest driver's buffer.
const ROOM_MS: u32 = 20;
/// A PCM that takes nothing for so long while it runs is taken for lost: what lies in its buffer
/// would be played late and stale.
const PATIENCE: Duration = Duration::from_secs(2);
/// By how much the stock grows each time it was too small, and by how much in all.
const STEP_MS: u32 = 10;
const LARGEST_RESERVE_MS: u32 = 100;
/// The rest of a stream is waited for no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(1500);
/// How soon it is looked at again.
const SHORTEST_NAP: Duration = Duration::from_millis(1);

pub(super) struct Playback {
    name: String,
    stock_ms: u32,
    maps: Maps,
    open: Option<Open>,
    underruns: u64,
    /// How often it was too full.
    skips: u64,
    /// Milliseconds beyond the configured stock: a sound server that takes large bites at once, as
    /// PipeWire does inside a virtual machine, needs more than a card does. Learnt from under-runs,
    /// and kept for as long as the service runs.
    reserve_ms: u32,
}

struct Open {
    opened: Opened,
    params: Params,
    /// Frames of silence that it is started with.
    stock: u64,
    silence: Vec<u8>,
    reordered: Vec<u8>,
    running: bool,
    /// Frames put in since it was started.
    fed: u64,
    /// When it last took something.
    taken: Instant,
}

impl Playback {
    pub(super) fn new(name: String, stock_ms: u32, maps: Maps) -> Self {
        Self {
            name,
            stock_ms,
            maps,
            open: None,
            underruns: 0,
            skips: 0,
            reserve_ms: 0,
        }
    }

    fn lost(&self, reason: impl Into<String>) -> BackendError {
        BackendError::Device {
            device: device(&self.name),
            reason: reason.into(),
        }
    }

    /// Puts the stock of silence into the empty PCM and lets it run.
    fn begin(&mut self) -> Result<(), BackendError> {
        let result = match self.open.as_mut() {
            Some(open) => open.begin(),
            None => return Err(self.lost("is not open")),
        };
        result.map_err(|error| self.lost(said(error)))
    }

    /// Keeps a larger stock from now on.
    fn grow(&mut self) {
        let larger = self.reserve_ms.saturating_add(STEP_MS);
        self.reserve_ms = larger.min(LARGEST_RESERVE_MS);
        if let Some(open) = self.open.as_mut() {
            open.keep(self.stock_ms.saturating_add(self.reserve_ms));
        }
    }

    /// Gets going again after what `error` says, or tells that the PCM is gone.
    fn recover(&mut self, error: alsa::Error) -> Result<(), BackendError> {
        match Errno::from_raw_os_error(error.errno()) {
            // It ran dry, or its server is gone: then it cannot begin anew.
            Errno::PIPE => {
                let former = self.reserve_ms;
                self.grow();
                if let Err(error) = self.begin() {
                    self.reserve_ms = former;
                    return Err(error);
                }
                self.underruns = self.underruns.saturating_add(1);
                // The first, and then ever more rarely: a host that is always late fills no journal.
                if self.underruns.is_power_of_two() {
                    log::warn!("{} ran dry ({} times)", device(&self.name), self.underruns);
                }
                Ok(())
            }
            // The system slept. What the PCM had is stale, so it begins anew rather than go on.
            Errno::STRPIPE => self.begin(),
            _ => Err(self.lost(said(error))),
        }
    }

    /// The PCM plays more slowly than time, or what was late came all at once. Played to its end,
    /// all that follows would stay late; so what waits is lost, and the usual stock is put in anew.
    fn catch_up(&mut self, waiting: usize) -> Result<usize, BackendError> {
        self.skips = self.skips.saturating_add(1);
        if self.skips.is_power_of_two() {
            log::warn!("{} fell behind ({} times)", device(&self.name), self.skips);
        }
        self.begin()?;
        Ok(waiting)
    }

    /// The PCM is full and plays nothing yet.
    fn wait_for_room(&self) -> Result<usize, BackendError> {
        if let Some(open) = &self.open {
            if open.taken.elapsed() > PATIENCE {
                return Err(self.lost("has played nothing for two seconds"));
            }
            // What went wrong meanwhile, the next write says.
            let _ = open.pcm().wait(Some(ROOM_MS));
        }
        Ok(0)
    }
}

impl Open {
    /// Sets the stock.
    fn keep(&mut self, milliseconds: u32) {
        // A PCM that takes large bites needs two of them, whatever is configured.
        self.stock = self
            .params
            .frames_in(milliseconds)
            .max(self.opened.period.saturating_mul(2))
            .min(self.opened.buffer);
    }

    /// Whether the PCM is full although it has played something.
    fn fell_behind(&self) -> bool {
        self.fed > self.opened.buffer
    }

    fn pcm(&self) -> &PCM {
        &self.opened.pcm
    }

    fn begin(&mut self) -> alsa::Result<()> {
        self.running = false;
        let pcm = &self.opened.pcm;
        if pcm.state() == State::Running {
            pcm.drop()?;
        }
        // Prepares also what is prepared already, but the stock must be put in only once.
        pcm.prepare()?;
        self.fill(self.stock)?;
        self.pcm().start()?;
        self.running = true;
        self.fed = self.stock;
        self.taken = Instant::now();
        Ok(())
    }

    /// Puts up to `frames` of silence in, as far as there is room.
    fn fill(&self, frames: u64) -> alsa::Result<()> {
        let bytes = self.params.bytes(frames).min(self.silence.len());
        let silence = self.silence.get(..bytes).unwrap_or_default();
        match self.pcm().io_bytes().writei(silence) {
            Err(error) if error.errno() != Errno::AGAIN.raw_os_error() => Err(error),
            _ => Ok(()),
        }
    }

    fn delay(&self) -> u64 {
        self.pcm().delay().map_or(0, count)
    }

    fn write(&mut self, bytes: &[u8]) -> alsa::Result<usize> {
        let bytes = match &self.opened.reorder {
            None => bytes,
            Some(reorder) => {
                let whole = bytes.len().min(self.params.bytes(self.opened.buffer));
                self.reordered.clear();
                self.reordered
                    .extend_from_slice(bytes.get(..whole).unwrap_or_default());
                let width = self.params.format.container_bits().div_ceil(8);
                reorder.apply(&mut self.reordered, usize::try_from(width).unwrap_or(1));
                &self.reordered
            }
        };
        let frames = self.opened.pcm.io_bytes().writei(bytes)?;
        Ok(self.params.bytes(frames as u64))
    }
}

impl Output for Playback {
    fn open(&mut self, params: &Params, _opening: Opening) -> Result<(), BackendError> {
        self.close();
        let opened = negotiate::open(
            &self.name,
            Direction::Playback,
            params,
            params.frames_in(self.stock_ms),
            &self.maps.of(params.channels),
        )?;
        let mut silence = vec![0; params.bytes(opened.buffer)];
        params.fill_silence(&mut silence);
        let mut open = Open {
            opened,
            params: *params,
            stock: 0,
            silence,
            reordered: Vec::new(),
            running: false,
            fed: 0,
            taken: Instant::now(),
        };
        open.keep(self.stock_ms.saturating_add(self.reserve_ms));
        self.open = Some(open);
        Ok(())
    }

    fn start(&mut self) -> Result<(), BackendError> {
        self.begin()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
        if !self.open.as_ref().is_some_and(|open| open.running) {
            self.begin()?;
        }
        // A second time where it ran dry: the new stock lasts no longer than the runner's nap.
        for _ in 0..2 {
            let Some(open) = self.open.as_mut() else {
                return Ok(0);
            };
            match open.write(bytes) {
                Ok(0) => break,
                Ok(taken) => {
                    open.taken = Instant::now();
                    let frames = open.params.frames(taken);
                    open.fed = open.fed.saturating_add(frames);
                    return Ok(taken);
                }
                Err(error) if error.errno() == Errno::AGAIN.raw_os_error() => break,
                Err(error) => self.recover(error)?,
            }
        }
        if self.open.as_ref().is_some_and(Open::fell_behind) {
            return self.catch_up(bytes.len());
        }
        self.wait_for_room()
    }

    fn delay(&mut self) -> u64 {
        self.open.as_ref().map_or(0, Open::delay)
    }

    fn reserve(&self) -> u64 {
        match &self.open {
            Some(open) if self.reserve_ms > 0 => open.params.frames_in(self.reserve_ms),
            _ => 0,
        }
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        if !open.running {
            return Ok(());
        }
        open.running = false;
        // alsa-lib's own drain waits for ever when a server is stuck. So: silence behind the last
        // frame, wait until that frame is out, and end before the silence does.
        let end = Instant::now().checked_add(LONGEST_REST);
        let before = open.delay();
        if open.fill(open.opened.period.saturating_mul(2)).is_ok() {
            // By what the PCM says, not by time alone: its position may move in leaps.
            let silence = open.delay().saturating_sub(before);
            while end.is_some_and(|end| Instant::now() < end) {
                let Some(left) = open.delay().checked_sub(silence).filter(|left| *left > 0) else {
                    break;
                };
                let nap = Clock::span(left, open.params.rate.hertz());
                std::thread::sleep(Duration::from_nanos(nap).clamp(SHORTEST_NAP, LONGEST_REST));
            }
        }
        let dropped = open.pcm().drop();
        match dropped {
            Err(error) if error.errno() == Errno::NODEV.raw_os_error() => {
                Err(self.lost(said(error)))
            }
            // In any other state the next start begins anew anyway.
            _ => Ok(()),
        }
    }

    fn close(&mut self) {
        self.open = None;
    }
}
