// SPDX-License-Identifier: Apache-2.0

//! A stream at work: its buffers, its clock and its back end.
//!
//! Buffers are consumed in pieces of at most 20 ms, so that a change of gain is heard soon however
//! long a driver's periods are. A piece of an output stream is handed to the back end when its first
//! frame is due, one of an input stream is taken when its last frame is due. A buffer is given back
//! when its last frame is due, whatever the back end does: that is the guest's only clock.

use std::collections::VecDeque;
use std::sync::Arc;

use virtio_device::{Chain, Io, Record};
use zerocopy::little_endian::U32;

use crate::backend::{Opening, Pacing};
use crate::clock::Clock;
use crate::format::Params;
use crate::mixer::Fader;
use crate::model::PcmState;
use crate::panel::{Change, Panel};
use crate::wire::{Direction, PcmInfo, PcmStatus, Status, feature, queue};

mod end;
mod pause;
mod pieces;
mod progress;
mod stock;

pub use end::End;
pub use progress::Progress;

/// Longest piece, in milliseconds.
const PIECE_MS: u32 = 20;
/// A buffer that comes this late, in nanoseconds, still follows without a gap: the back end has a
/// stock, or does not mind.
const GRACE: u64 = 5_000_000;
/// How long a source that waits (a file) is waited for, in steps of this many nanoseconds.
const SOURCE_STEP: u64 = 2_000_000;
/// After how many steps silence is recorded instead.
const SOURCE_STEPS: u32 = 500;
/// The header of each buffer: the stream's index.
const HEADER: usize = 4;
/// What the panel shows as the state of a stream that is paused for another one: no number of a
/// [`PcmState`].
const PAUSED: u8 = 6;

/// What the clock does.
#[derive(Clone, Copy, Debug)]
enum Motion {
    /// It stands: the stream is not started.
    Still,
    /// It runs towards the end of a piece of so many bytes.
    Piece { clock: Clock, bytes: usize },
    /// It runs, but there is no buffer since the clock's last frame.
    Dry { clock: Clock, reported: bool },
    /// It was stopped in the middle of a piece, at this time.
    Stopped { clock: Clock, bytes: usize, at: u64 },
    /// It stands although the stream is started: the stream is paused for one of higher priority.
    Paused,
}

/// A stream.
pub struct Stream {
    index: usize,
    direction: Direction,
    offer: PcmInfo,
    pacing: Pacing,
    end: End,
    state: PcmState,
    /// The driver's buffers, oldest first.
    buffers: VecDeque<Chain>,
    /// Bytes of the oldest buffer that were consumed.
    moved: usize,
    motion: Motion,
    /// The queue is frozen: the VM is paused.
    frozen: bool,
    /// The clock is to stand for a stream of higher priority, once nothing of this one is heard.
    pause: bool,
    fader: Fader,
    scratch: Vec<u8>,
    /// The stock of a source that has a clock of its own is not whole.
    filling: bool,
    /// Steps that a source was waited for.
    waited: u32,
    /// The clock of a recovered input stream stands before the present, and is to come there: what a
    /// guest records has no hole, however often its service dies.
    behind: bool,
    /// A source that is behind is looked at again at this time.
    wait_until: u64,
    /// When a polled queue is looked at again.
    poll_at: Option<u64>,
    frames: u64,
    xruns: u64,
    /// An under-run or over-run that the driver is to be told of.
    notify_xrun: bool,
    panel: Arc<Panel>,
    progress: Progress,
}

impl Stream {
    /// A stream that nobody uses yet.
    #[must_use]
    pub fn new(index: usize, offer: PcmInfo, pacing: Pacing, end: End, panel: Arc<Panel>) -> Self {
        let direction = if offer.direction == 0 {
            Direction::Output
        } else {
            Direction::Input
        };
        Self {
            index,
            direction,
            offer,
            pacing,
            end,
            state: PcmState::Idle,
            buffers: VecDeque::with_capacity(64),
            moved: 0,
            motion: Motion::Still,
            frozen: false,
            pause: false,
            fader: Fader::at(1.0),
            scratch: Vec::new(),
            filling: false,
            waited: 0,
            behind: false,
            wait_until: 0,
            poll_at: None,
            frames: 0,
            xruns: 0,
            notify_xrun: false,
            panel,
            progress: Progress::of(index),
        }
    }

    /// What the driver is told of it.
    #[must_use]
    pub fn offer(&self) -> &PcmInfo {
        &self.offer
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> PcmState {
        self.state
    }

    /// Which way its frames go.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The queue that its buffers come by.
    #[must_use]
    pub fn queue(&self) -> usize {
        match self.direction {
            Direction::Output => queue::TX,
            Direction::Input => queue::RX,
        }
    }

    /// Whether it has buffers of the driver.
    #[must_use]
    pub fn has_buffers(&self) -> bool {
        !self.buffers.is_empty()
    }

    /// Whether it is heard: an output that is started, not paused for another one, and not out of
    /// buffers for so long that it is an under-run.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        let silent = matches!(self.motion, Motion::Dry { reported: true, .. }) || self.is_paused();
        self.direction == Direction::Output && self.state.is_running() && !silent
    }

    /// Whether it is started and has no buffer.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        matches!(self.motion, Motion::Dry { .. })
    }

    /// Whether its driver does not kick.
    #[must_use]
    pub fn is_polled(&self) -> bool {
        self.poll_at.is_some()
    }

    /// Under-runs or over-runs so far.
    #[must_use]
    pub fn xruns(&self) -> u64 {
        self.xruns
    }

    /// Whether the driver is to be told of an under-run or over-run since the last time.
    pub fn take_xrun(&mut self) -> bool {
        std::mem::take(&mut self.notify_xrun)
    }

    /// Moves to another state, and shows it.
    pub fn set_state(&mut self, state: PcmState) {
        self.state = state;
        self.show_state();
    }

    fn show_state(&self) {
        if let Some(panel) = self.panel.stream(self.index) {
            panel.set_state(if self.is_paused() {
                PAUSED
            } else {
                self.state.number()
            });
        }
        self.panel.tell(Change::State(self.index));
    }

    /// Sets the loudness: at once while nothing is heard, else by a ramp.
    pub fn set_gain(&mut self, gain: f64, ramp_ms: u32) {
        match self.state {
            PcmState::Running(params) => self.fader.move_to(gain, params.frames_in(ramp_ms)),
            _ => self.fader = Fader::at(gain),
        }
    }

    /// Records from another source.
    pub fn select(&mut self, source: u32) {
        self.end.select(source, self.state.open().as_ref());
    }

    /// Takes a buffer: nobody but this stream completes it from now on.
    ///
    /// # Errors
    /// Gives it back when it cannot be one: the stream takes none now, or it does not hold whole
    /// frames and a status.
    pub fn take(&mut self, chain: Chain) -> Result<(), Chain> {
        let Some(params) = self.state.open() else {
            return Err(chain);
        };
        let status = chain.writable().checked_sub(PcmStatus::SIZE);
        let payload = match self.direction {
            Direction::Output => status.and(chain.readable().checked_sub(HEADER)),
            Direction::Input => status,
        };
        match payload.map(|bytes| bytes.checked_rem(params.frame_bytes())) {
            Some(Some(0)) => self.buffers.push_back(chain),
            _ => return Err(chain),
        }
        Ok(())
    }

    /// Gets the back end ready.
    pub fn open(&mut self, params: &Params, opening: Opening, now: u64) {
        self.end.open(params, opening);
        self.scratch.clear();
        self.scratch
            .resize(params.bytes(params.frames_in(PIECE_MS)), 0);
        self.frames = 0;
        self.poll_at = (params.features & feature::MSG_POLLING != 0).then_some(now);
    }

    /// Lets the clock run.
    pub fn start(&mut self, params: &Params, now: u64) {
        if !matches!(self.motion, Motion::Stopped { .. }) {
            self.listen(params);
        }
        self.end.start();
        self.motion = match self.motion {
            Motion::Stopped { clock, bytes, at } if !self.frozen => {
                let mut clock = clock;
                clock.shift(now.saturating_sub(at));
                Motion::Piece { clock, bytes }
            }
            Motion::Stopped { .. } => self.motion,
            // The first buffer begins now; before it comes nothing can be missing.
            _ => Motion::Dry {
                clock: Clock::start(now, params.rate.hertz()),
                reported: true,
            },
        };
    }

    /// Lets the clock stand.
    pub fn stop(&mut self, record: &Record, now: u64) {
        if !self.is_paused() {
            self.end.stop();
        }
        self.hold(record, now);
    }

    /// The clock stands, in the middle of whatever it measured.
    fn hold(&mut self, record: &Record, now: u64) {
        self.progress.clear_time(record);
        self.behind = false;
        self.motion = match self.motion {
            Motion::Piece { clock, bytes } => Motion::Stopped {
                clock,
                bytes,
                at: now,
            },
            Motion::Dry { .. } | Motion::Paused | Motion::Still => Motion::Still,
            stopped @ Motion::Stopped { .. } => stopped,
        };
    }

    /// The VM is paused: nothing moves until [`Stream::thaw`].
    pub fn freeze(&mut self, record: &Record, now: u64) {
        if !self.frozen {
            self.frozen = true;
            let paused = self.is_paused();
            if self.state.is_running() && !paused {
                self.end.stop();
            }
            self.hold(record, now);
            if paused {
                self.show_state();
            }
        }
    }

    /// The VM goes on.
    pub fn thaw(&mut self, now: u64) {
        if !std::mem::take(&mut self.frozen) {
            return;
        }
        if let PcmState::Running(params) = self.state {
            self.start(&params, now);
        }
    }

    /// Gives every buffer back, consumed or not, and the back end too.
    pub fn release(&mut self, io: &mut Io, status: Status) {
        self.give_back(io, status);
        self.end.close();
        self.motion = Motion::Still;
        self.behind = false;
        self.poll_at = None;
    }

    fn give_back(&mut self, io: &mut Io, status: Status) {
        while let Some(chain) = self.buffers.pop_front() {
            let recorded = match self.direction {
                Direction::Input => std::mem::take(&mut self.moved),
                Direction::Output => 0,
            };
            complete(io, chain, status, recorded, 0);
        }
        self.moved = 0;
        self.progress.clear(io.record());
    }

    /// Back to the state after the service's start. The buffers are void.
    pub fn reset(&mut self, record: &Record) {
        self.buffers.clear();
        self.moved = 0;
        self.end.close();
        self.motion = Motion::Still;
        self.behind = false;
        self.frozen = false;
        self.poll_at = None;
        self.notify_xrun = false;
        self.progress.clear(record);
        self.set_state(PcmState::Idle);
    }

    /// Goes on where a former process of this service was.
    pub fn recover(&mut self, state: PcmState, xruns: u64, now: u64) {
        self.xruns = xruns;
        self.set_state(state);
        if let Some(params) = state.open() {
            self.open(&params, Opening::Recovered, now);
        }
        if let PcmState::Running(params) = state {
            self.start(&params, now);
        }
    }
}

/// Gives a buffer back with its status. `recorded` bytes of it were written before.
pub fn complete(io: &mut Io, chain: Chain, status: Status, recorded: usize, latency: usize) {
    let wire = PcmStatus {
        status: U32::new(status as u32),
        latency_bytes: U32::new(u32::try_from(latency).unwrap_or(u32::MAX)),
    };
    let at = chain.writable().checked_sub(PcmStatus::SIZE);
    let written = at.map(|at| chain.write_value(io.memory(), at, &wire));
    let used = match written {
        Some(Ok(())) => u32::try_from(recorded.saturating_add(PcmStatus::SIZE)).unwrap_or(u32::MAX),
        _ => 0,
    };
    if status == Status::Ok {
        io.complete(chain, used);
    } else {
        io.fail(chain, used);
    }
}
