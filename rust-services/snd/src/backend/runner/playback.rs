// SPDX-License-Identifier: Apache-2.0

//! An output stream's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agl_virtio_service::{Brake, limited};
use rtrb::Consumer;

use super::super::pipe::{Report, ServerState};
use super::super::{BackendError, Opening, Output, Pacing};
use super::mailbox::{Found, Mailbox};
use super::pace::Pace;
use super::{Command, LOOK, Retry, lost, monotonic};
use crate::format::Params;

/// How long a stream that was released may still play what it had.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(super) struct Playback {
    output: Box<dyn Output>,
    pacing: Pacing,
    report: Arc<Report>,
    open: Option<Open>,
    pace: Pace,
}

/// From PREPARE to RELEASE.
struct Open {
    params: Params,
    pipe: Consumer<u8>,
    running: bool,
    /// Set while the server is lost.
    retry: Option<Retry>,
    /// Set while a server that was lost is open again and has not shown yet that it works.
    unproven: Option<Retry>,
}

impl Playback {
    pub(super) fn new(output: Box<dyn Output>, pacing: Pacing, report: Arc<Report>) -> Self {
        Self {
            output,
            pacing,
            report,
            open: None,
            pace: Pace::new(),
        }
    }

    pub(super) fn run(mut self, inbox: &Mailbox<Consumer<u8>>, mut brake: Option<Brake>) {
        loop {
            if let Some(brake) = &mut brake {
                brake.look();
            }
            match inbox.take() {
                Found::Command(command) => self.obey(command),
                Found::Nothing => self.turn(),
                Found::End => return self.close(),
            }
        }
    }

    /// Plays what is there, or waits.
    fn turn(&mut self) {
        let Some(open) = self.open.as_mut() else {
            return std::thread::park();
        };
        if let Some(retry) = &open.retry {
            discard(&mut open.pipe, 0, &open.params, &self.report);
            if retry.is_due() {
                return self.try_again();
            }
            return std::thread::park_timeout(retry.left().min(LOOK));
        }
        match write_some(&mut *self.output, open) {
            Ok(0) if open.running => std::thread::park_timeout(LOOK),
            Ok(0) => std::thread::park(),
            Ok(_) => {
                self.prove();
                self.report.set_delay(self.output.delay(), monotonic());
                self.report.set_reserve(self.output.reserve());
            }
            Err(error) => self.fail(&error),
        }
    }

    fn obey(&mut self, command: Command<Consumer<u8>>) {
        match command {
            Command::Open(params, opening, pipe) => {
                self.close();
                self.report.set_state(ServerState::Opening);
                if matches!(self.pacing, Pacing::Device { .. }) {
                    // Meanwhile the mailbox forgets what the guest takes back.
                    std::thread::sleep(self.pace.turn(Instant::now()));
                }
                self.open = Some(Open {
                    params,
                    pipe,
                    running: false,
                    retry: None,
                    unproven: None,
                });
                match self.output.open(&params, opening) {
                    Ok(()) => self.report.set_state(ServerState::Live),
                    Err(error) => self.fail(&error),
                }
            }
            Command::Start => self.tell(true, |output| output.start()),
            Command::Stop => {
                self.play_rest();
                self.tell(false, |output| output.stop());
            }
            Command::Close => {
                self.play_rest();
                self.close();
            }
            // Only inputs have sources.
            Command::Select(_) => {}
        }
    }

    fn tell(
        &mut self,
        running: bool,
        call: impl FnOnce(&mut dyn Output) -> Result<(), BackendError>,
    ) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        open.running = running;
        if open.retry.is_none() {
            if let Err(error) = call(&mut *self.output) {
                self.fail(&error);
            }
        }
    }

    /// The server is gone: forget it, and try again later.
    fn fail(&mut self, error: &BackendError) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        let former = open.retry.take().or(open.unproven.take());
        open.retry = Some(match former {
            Some(retry) => retry.later(),
            None => {
                lost("the place for its sound", error);
                Retry::soon()
            }
        });
        self.report.set_state(ServerState::Lost);
        self.output.close();
    }

    /// The server works.
    fn prove(&mut self) {
        if let Some(open) = self.open.as_mut() {
            if open.unproven.take().is_some() {
                self.report.set_state(ServerState::Live);
                limited!(log::Level::Info, "the place for its sound is back");
            }
        }
    }

    fn try_again(&mut self) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        let running = open.running;
        let again = self
            .output
            .open(&open.params, Opening::Again)
            .and_then(|()| if running { self.output.start() } else { Ok(()) });
        match again {
            Ok(()) => {
                // Of what has waited meanwhile, no more than the usual stock.
                let keep = match self.pacing {
                    Pacing::Device { target_ms } => open.params.frames_in(target_ms),
                    Pacing::Clock | Pacing::AtOnce => 0,
                };
                discard(
                    &mut open.pipe,
                    open.params.bytes(keep),
                    &open.params,
                    &self.report,
                );
                open.unproven = open.retry.take();
                // Whether it works is known once it has taken something.
                if !running {
                    self.report.set_state(ServerState::Live);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Plays what the queue thread has handed over before it said so.
    fn play_rest(&mut self) {
        let end = Instant::now().checked_add(LAST_WORDS);
        while let Some(open) = self.open.as_mut().filter(|open| open.retry.is_none()) {
            if end.is_none_or(|end| Instant::now() >= end) {
                return;
            }
            match write_some(&mut *self.output, open) {
                Ok(0) if open.pipe.slots() == 0 => return,
                Ok(0) => std::thread::park_timeout(Duration::from_millis(5)),
                Ok(_) => self.prove(),
                Err(error) => self.fail(&error),
            }
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            if open.retry.is_none() {
                if open.running {
                    // On the way out nobody can be told.
                    let _ = self.output.stop();
                }
                self.output.close();
            }
        }
        self.report.set_state(ServerState::Closed);
        self.report.set_delay(0, 0);
    }
}

/// Hands the first piece of the pipe to the back end. Returns the bytes taken.
fn write_some(output: &mut dyn Output, open: &mut Open) -> Result<usize, BackendError> {
    let frame = open.params.frame_bytes();
    let there = open.params.bytes(open.params.frames(open.pipe.slots()));
    if there == 0 {
        return Ok(0);
    }
    let Ok(chunk) = open.pipe.read_chunk(there) else {
        return Ok(0);
    };
    let (first, second) = chunk.as_slices();
    let whole = open.params.bytes(open.params.frames(first.len()));
    let taken = match first.get(..whole) {
        Some(bytes) if !bytes.is_empty() => output.write(bytes)?.min(bytes.len()),
        // The first frame lies across the end of the ring.
        _ => {
            let across: Vec<u8> = first.iter().chain(second).take(frame).copied().collect();
            output.write(&across)?.min(across.len())
        }
    };
    chunk.commit(taken);
    Ok(taken)
}

/// Throws away all but the newest `keep` bytes.
fn discard(pipe: &mut Consumer<u8>, keep: usize, params: &Params, report: &Report) {
    let frames = params.frames(pipe.slots().saturating_sub(keep));
    if frames > 0 {
        if let Ok(chunk) = pipe.read_chunk(params.bytes(frames)) {
            chunk.commit_all();
            report.add_discarded(frames);
        }
    }
}
