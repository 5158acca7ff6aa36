// SPDX-License-Identifier: Apache-2.0

//! A running stream: piece after piece, at the pace of its clock.

use virtio_device::{Chain, Io, Record};

use super::{GRACE, HEADER, Motion, SOURCE_STEP, SOURCE_STEPS, Stream, complete};
use crate::backend::Pacing;
use crate::clock::Clock;
use crate::format::Params;
use crate::model::PcmState;
use crate::panel::Change;
use crate::wire::{Direction, PcmStatus, Status, feature};

/// Most pieces that one turn of the queue thread moves; more are due only after it stood still for
/// seconds, or where nothing keeps time.
const PIECES_OF_A_TURN: u32 = 1024;

/// What became of a piece that was to be recorded.
enum Recorded {
    /// It is in the driver's buffer.
    Whole,
    /// Its source has not got it yet; the clock waits.
    NotYet,
    /// The driver's buffer is in no memory; it was given back.
    Refused,
}

impl Stream {
    /// When something is to be done next, in nanoseconds.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let motion = match self.motion {
            Motion::Piece { .. } if self.pacing == Pacing::AtOnce => Some(0),
            Motion::Piece { clock, .. } => Some(clock.due().max(self.wait_until)),
            Motion::Dry {
                clock,
                reported: false,
            } if self.pacing != Pacing::AtOnce => Some(clock.due().saturating_add(self.patience())),
            // It may go on.
            Motion::Paused if !self.pause => Some(0),
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
        // A buffer may be of a length that nobody plays in his life: others have their turn meanwhile.
        for _ in 0..PIECES_OF_A_TURN {
            match self.motion {
                Motion::Piece { clock, bytes } => {
                    let due = clock.due().max(self.wait_until);
                    if due > now && self.pacing != Pacing::AtOnce {
                        return;
                    }
                    if !self.finish_piece(io, &params, clock, bytes, now) {
                        return;
                    }
                }
                Motion::Dry { .. } if self.pause => self.stand(),
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
                    let clock = if let Some(since) = self.interrupted(io, &params, now) {
                        self.behind = true;
                        Clock::start(since, params.rate.hertz())
                    } else if late <= GRACE {
                        clock
                    } else {
                        if !reported {
                            self.count_xrun(&params);
                        }
                        self.skip_old(&params);
                        Clock::start(now, params.rate.hertz())
                    };
                    self.begin_piece(io, &params, clock, now);
                }
                Motion::Paused if !self.pause => self.go_on(&params, now),
                Motion::Still | Motion::Stopped { .. } | Motion::Paused => return,
            }
        }
    }

    /// Since when a recording would have gone on, had a former process not died in the middle of the
    /// oldest buffer. Of a long outage only as much as half of the driver's buffer holds: all of it at
    /// once would be an over-run.
    fn interrupted(&self, io: &Io, params: &Params, now: u64) -> Option<u64> {
        let first = self.buffers.front()?;
        let since = self.progress.resume_time(io.record(), first, now)?;
        let buffer = params.frames(usize::try_from(params.buffer_bytes).unwrap_or(0));
        let most = Clock::span(buffer, params.rate.hertz()) / 2;
        Some(since.max(now.saturating_sub(most)))
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
        if self.has_faded(params) {
            return self.stand();
        }
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
        let mut bytes = left.min(self.scratch.len());
        if self.pause {
            // No frame is played in silence: behind the ramp it goes on later.
            bytes = bytes.min(params.bytes(self.fader.left()));
        }
        if self.direction == Direction::Output && bytes > 0 {
            io.work_on(chain);
            let at = HEADER.saturating_add(self.moved);
            let piece = self.scratch.get_mut(..bytes).unwrap_or_default();
            // Said before it is done: a piece may be lost with this process, but never repeated.
            self.progress
                .store(io.record(), chain, self.moved.saturating_add(bytes));
            if chain.read(io.memory(), at, piece).is_err() {
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
        if self.direction == Direction::Input {
            self.note_recorded(io.record(), clock.due());
        }
        clock.advance(params.frames(bytes));
        self.behind &= clock.due() <= now;
        self.motion = Motion::Piece { clock, bytes };
    }

    /// Notes how far the oldest buffer is filled, and that it has been filled further since `since`:
    /// a service that takes over records from there on. One that began each buffer anew would never
    /// fill one, were it killed more often than a buffer is full.
    fn note_recorded(&self, record: &Record, since: u64) {
        if let Some(chain) = self.buffers.front() {
            if self.pacing != Pacing::AtOnce {
                self.progress.store_time(record, since);
            }
            self.progress.store(record, chain, self.moved);
        }
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
        if self.direction == Direction::Input {
            match self.record_piece(io, params, clock, bytes, now) {
                Recorded::Whole => {}
                Recorded::Refused => return true,
                Recorded::NotYet => return false,
            }
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
            if self.end.show(panel) {
                self.panel.tell(Change::Server(self.index));
            }
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

    /// Takes a recorded piece into the oldest buffer.
    fn record_piece(
        &mut self,
        io: &mut Io,
        params: &Params,
        clock: Clock,
        bytes: usize,
        now: u64,
    ) -> Recorded {
        let may_wait = self.end.waits_for_source(bytes) && self.pacing != Pacing::AtOnce;
        if may_wait && self.waited < SOURCE_STEPS {
            self.waited = self.waited.saturating_add(1);
            let mut clock = clock;
            if self.behind {
                // Its time has come already, and shall not be lost.
                self.wait_until = now.saturating_add(SOURCE_STEP);
            } else {
                clock.shift(now.saturating_sub(clock.due()).saturating_add(SOURCE_STEP));
            }
            self.motion = Motion::Piece { clock, bytes };
            return Recorded::NotYet;
        }
        self.waited = 0;
        if let Some(chain) = self.buffers.front() {
            io.work_on(chain);
        }
        let filling = self.is_filling(bytes, params);
        let piece = self.scratch.get_mut(..bytes).unwrap_or_default();
        let pulled = if filling {
            0
        } else {
            self.end.pull(piece, params)
        };
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
            return Recorded::Refused;
        }
        Recorded::Whole
    }
}
