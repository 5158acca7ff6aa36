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

use crate::backend::pipe::ServerState;
use crate::backend::{Opening, Pacing};
use crate::clock::Clock;
use crate::format::Params;
use crate::mixer::Fader;
use crate::model::PcmState;
use crate::panel::{Change, Panel};
use crate::wire::{Direction, PcmInfo, PcmStatus, Status, feature, queue};

mod end;
mod progress;

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
    Paused { clock: Clock, bytes: usize, at: u64 },
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
    fader: Fader,
    scratch: Vec<u8>,
    /// Steps that a source was waited for.
    waited: u32,
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
            fader: Fader::at(1.0),
            scratch: Vec::new(),
            waited: 0,
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

    /// Whether frames are played now.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        self.direction == Direction::Output && self.state.is_running()
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
        if let Some(panel) = self.panel.stream(self.index) {
            panel.set_state(state.number());
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
        self.end.start();
        self.motion = match self.motion {
            Motion::Paused { clock, bytes, at } if !self.frozen => {
                let mut clock = clock;
                clock.shift(now.saturating_sub(at));
                Motion::Piece { clock, bytes }
            }
            Motion::Paused { .. } => self.motion,
            // The first buffer begins now; before it comes nothing can be missing.
            _ => Motion::Dry {
                clock: Clock::start(now, params.rate.hertz()),
                reported: true,
            },
        };
    }

    /// Lets the clock stand.
    pub fn stop(&mut self, now: u64) {
        self.end.stop();
        self.hold(now);
    }

    /// The clock stands, in the middle of whatever it measured.
    fn hold(&mut self, now: u64) {
        self.motion = match self.motion {
            Motion::Piece { clock, bytes } => Motion::Paused {
                clock,
                bytes,
                at: now,
            },
            Motion::Dry { .. } | Motion::Still => Motion::Still,
            paused @ Motion::Paused { .. } => paused,
        };
    }

    /// The VM is paused: nothing moves until [`Stream::thaw`].
    pub fn freeze(&mut self, now: u64) {
        if !self.frozen {
            self.frozen = true;
            if self.state.is_running() {
                self.end.stop();
            }
            self.hold(now);
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

    /// When something is to be done next, in nanoseconds.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let motion = match self.motion {
            Motion::Piece { clock, .. } => Some(clock.due()),
            Motion::Dry {
                clock,
                reported: false,
            } => Some(clock.due().saturating_add(self.patience())),
            _ => None,
        };
        let poll = self.poll_at.filter(|_| !self.frozen);
        motion.into_iter().chain(poll).min()
    }

    /// Whether the stream's queue is to be looked at, because the driver does not kick.
    pub fn take_poll(&mut self, now: u64) -> bool {
        let (Some(at), Some(params)) = (self.poll_at, self.state.open()) else {
            return false;
        };
        if at > now || self.frozen {
            return false;
        }
        let period = params.frames(usize::try_from(params.period_bytes).unwrap_or(0));
        let quarter = Clock::span(period, params.rate.hertz()) / 4;
        self.poll_at = Some(now.saturating_add(quarter.max(1_000_000)));
        true
    }

    /// How long buffers may be missing before it is an under-run or over-run: a period, because a
    /// driver that has played everything takes a moment to say that this was the end.
    fn patience(&self) -> u64 {
        let Some(params) = self.state.params() else {
            return 0;
        };
        let period = params.frames(usize::try_from(params.period_bytes).unwrap_or(0));
        Clock::span(period, params.rate.hertz()).max(GRACE)
    }

    /// Does all that is due at `now`.
    pub fn run(&mut self, io: &mut Io, now: u64) {
        let PcmState::Running(params) = self.state else {
            return;
        };
        if self.frozen || !io.running(self.queue()) {
            return;
        }
        loop {
            match self.motion {
                Motion::Piece { clock, bytes } => {
                    if clock.due() > now && self.pacing != Pacing::AtOnce {
                        return;
                    }
                    if !self.finish_piece(io, &params, clock, bytes, now) {
                        return;
                    }
                }
                Motion::Dry { clock, reported } => {
                    let late = now.saturating_sub(clock.due());
                    if self.buffers.is_empty() {
                        if !reported && late >= self.patience() {
                            self.motion = Motion::Dry {
                                clock,
                                reported: true,
                            };
                            self.count_xrun(&params);
                        }
                        return;
                    }
                    let clock = if late <= GRACE {
                        clock
                    } else {
                        if !reported {
                            self.count_xrun(&params);
                        }
                        self.end.skip_old(&params);
                        Clock::start(now, params.rate.hertz())
                    };
                    self.begin_piece(io, &params, clock, now);
                }
                Motion::Still | Motion::Paused { .. } => return,
            }
        }
    }

    fn count_xrun(&mut self, params: &Params) {
        self.xruns = self.xruns.saturating_add(1);
        self.notify_xrun |= params.features & feature::EVT_XRUNS != 0;
        if let Some(panel) = self.panel.stream(self.index) {
            panel.set_xruns(self.xruns);
        }
        self.panel.tell(Change::Xruns(self.index));
    }

    /// Begins the next piece of the oldest buffer, or finds that there is none.
    fn begin_piece(&mut self, io: &mut Io, params: &Params, clock: Clock, now: u64) {
        let mut clock = clock;
        let Some(chain) = self.buffers.front() else {
            self.motion = Motion::Dry {
                clock,
                reported: false,
            };
            return;
        };
        if self.moved == 0 {
            self.moved = self.progress.resume(io.record(), chain);
        }
        let left = self.payload(chain).saturating_sub(self.moved);
        let bytes = left.min(self.scratch.len());
        if self.direction == Direction::Output && bytes > 0 {
            let poisoned = chain.deaths() > 1 && self.moved > 0;
            let at = HEADER.saturating_add(self.moved);
            let piece = self.scratch.get_mut(..bytes).unwrap_or_default();
            // Said before it is done: a piece may be lost with this process, but never repeated.
            self.progress
                .store(io.record(), chain, self.moved.saturating_add(bytes));
            if poisoned || chain.read(io.memory(), at, piece).is_err() {
                self.refuse_first(io);
                self.motion = Motion::Dry {
                    clock,
                    reported: true,
                };
                return;
            }
            self.fader.apply(piece, params);
            self.end.push(piece, params);
        }
        self.steer(&mut clock, params, now);
        clock.advance(params.frames(bytes));
        self.motion = Motion::Piece { clock, bytes };
    }

    fn payload(&self, chain: &Chain) -> usize {
        match self.direction {
            Direction::Output => chain.readable().saturating_sub(HEADER),
            Direction::Input => chain.writable().saturating_sub(PcmStatus::SIZE),
        }
    }

    fn refuse_first(&mut self, io: &mut Io) {
        self.moved = 0;
        if let Some(chain) = self.buffers.pop_front() {
            complete(io, chain, Status::IoErr, 0, 0);
        }
        self.progress.clear(io.record());
    }

    /// Ends a piece, and begins the next. Returns whether there may be more to do now.
    fn finish_piece(
        &mut self,
        io: &mut Io,
        params: &Params,
        clock: Clock,
        bytes: usize,
        now: u64,
    ) -> bool {
        if self.direction == Direction::Input && !self.record_piece(io, params, clock, bytes, now) {
            return false;
        }
        self.moved = self.moved.saturating_add(bytes);
        self.frames = self.frames.wrapping_add(params.frames(bytes));
        let whole = self.buffers.front().map(|chain| self.payload(chain));
        if whole.is_none_or(|whole| self.moved >= whole) {
            if let Some(chain) = self.buffers.pop_front() {
                self.complete_first(io, params, chain, now);
            }
            self.moved = 0;
        }
        self.begin_piece(io, params, clock, now);
        true
    }

    fn complete_first(&mut self, io: &mut Io, params: &Params, chain: Chain, now: u64) {
        let delay = self.delay(params, now);
        let recorded = if self.direction == Direction::Input {
            self.moved
        } else {
            0
        };
        complete(io, chain, Status::Ok, recorded, params.bytes(delay));
        if let Some(panel) = self.panel.stream(self.index) {
            panel.set_frames(self.frames);
            let micros = Clock::span(delay, params.rate.hertz()) / 1000;
            panel.set_latency_us(u32::try_from(micros).unwrap_or(u32::MAX));
            self.end.show(panel);
        }
    }

    /// Frames that the host has still to play, or has recorded beyond what the driver got. A file
    /// has no such thing: what was handed to it is played when the clock says so.
    fn delay(&self, params: &Params, now: u64) -> u64 {
        match self.pacing {
            Pacing::Device { .. } => self.end.delay(now, params),
            Pacing::Clock | Pacing::AtOnce => 0,
        }
    }

    /// Takes a recorded piece into the oldest buffer. Returns `false` while its source is waited for.
    fn record_piece(
        &mut self,
        io: &mut Io,
        params: &Params,
        clock: Clock,
        bytes: usize,
        now: u64,
    ) -> bool {
        let may_wait = self.end.waits_for_source(bytes) && self.pacing != Pacing::AtOnce;
        if may_wait && self.waited < SOURCE_STEPS {
            self.waited = self.waited.saturating_add(1);
            let mut clock = clock;
            clock.shift(now.saturating_sub(clock.due()).saturating_add(SOURCE_STEP));
            self.motion = Motion::Piece { clock, bytes };
            return false;
        }
        self.waited = 0;
        let piece = self.scratch.get_mut(..bytes).unwrap_or_default();
        let pulled = self.end.pull(piece, params);
        params.fill_silence(piece.get_mut(pulled..).unwrap_or_default());
        self.fader.apply(piece, params);
        let written = self
            .buffers
            .front()
            .map(|chain| chain.write(io.memory(), self.moved, piece));
        if !matches!(written, Some(Ok(()))) {
            self.refuse_first(io);
            self.motion = Motion::Dry {
                clock,
                reported: true,
            };
            return false;
        }
        true
    }

    /// Keeps the clock in step with a back end that has one of its own.
    fn steer(&self, clock: &mut Clock, params: &Params, now: u64) {
        let Pacing::Device { target_ms } = self.pacing else {
            return;
        };
        if self.end.server() != ServerState::Live {
            return;
        }
        let target = i64::try_from(params.frames_in(target_ms)).unwrap_or(i64::MAX);
        let stock = i64::try_from(self.end.delay(now, params)).unwrap_or(i64::MAX);
        let excess = stock.saturating_sub(target);
        clock.steer(match self.direction {
            // Too much is played from: hand over more slowly.
            Direction::Output => excess,
            // Too much is recorded: take it faster.
            Direction::Input => excess.saturating_neg(),
        });
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
