// SPDX-License-Identifier: Apache-2.0

//! An input stream's thread.

use std::sync::Arc;
use std::time::Instant;

use agl_virtio_service::{Brake, limited};
use rtrb::Producer;

use super::super::pipe::{Report, ServerState};
use super::super::{BackendError, Input, Opening};
use super::mailbox::{Found, Mailbox};
use super::pace::Pace;
use super::{Command, LOOK, Retry, lost, monotonic};
use crate::format::Params;

/// How much is read at once, in milliseconds.
const PIECE: u32 = 10;
/// How much of a source that waits is read ahead, in milliseconds.
const AHEAD: u32 = 500;

pub(super) struct Capture {
    input: Box<dyn Input>,
    report: Arc<Report>,
    open: Option<Open>,
    pace: Pace,
}

/// From PREPARE to RELEASE.
struct Open {
    params: Params,
    pipe: Producer<u8>,
    piece: Vec<u8>,
    running: bool,
    /// Set while the server is lost.
    retry: Option<Retry>,
    /// Set while a server that was lost is open again and has not shown yet that it works.
    unproven: Option<Retry>,
}

impl Capture {
    pub(super) fn new(input: Box<dyn Input>, report: Arc<Report>) -> Self {
        Self {
            input,
            report,
            open: None,
            pace: Pace::new(),
        }
    }

    pub(super) fn run(mut self, inbox: &Mailbox<Producer<u8>>, mut brake: Option<Brake>) {
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

    /// Records a piece, or waits.
    fn turn(&mut self) {
        let Some(open) = self.open.as_mut() else {
            return std::thread::park();
        };
        if let Some(retry) = &open.retry {
            if retry.is_due() {
                return self.try_again();
            }
            return std::thread::park_timeout(retry.left().min(LOOK));
        }
        let live = self.input.is_live();
        // What is live is read when it is wanted; what waits is read ahead.
        if live && !open.running {
            return std::thread::park();
        }
        match read_some(&mut *self.input, open, live) {
            Ok(0) => std::thread::park_timeout(LOOK),
            Ok(_) => {
                self.prove();
                self.report.set_delay(self.input.delay(), monotonic());
            }
            Err(error) => self.fail(&error),
        }
    }

    fn obey(&mut self, command: Command<Producer<u8>>) {
        match command {
            Command::Open(params, opening, pipe) => {
                self.close();
                self.report.set_state(ServerState::Opening);
                if self.input.is_live() {
                    // Meanwhile the mailbox forgets what the guest takes back.
                    std::thread::sleep(self.pace.turn(Instant::now()));
                }
                let piece = vec![0; params.bytes(params.frames_in(PIECE))];
                self.open = Some(Open {
                    params,
                    pipe,
                    piece,
                    running: false,
                    retry: None,
                    unproven: None,
                });
                match self.input.open(&params, opening) {
                    Ok(()) => self.report.set_state(ServerState::Live),
                    Err(error) => self.fail(&error),
                }
            }
            Command::Start => self.tell(true, |input| input.start()),
            Command::Stop => self.tell(false, |input| input.stop()),
            Command::Select(source) => self.input.select(source),
            Command::Close => self.close(),
        }
    }

    fn tell(
        &mut self,
        running: bool,
        call: impl FnOnce(&mut dyn Input) -> Result<(), BackendError>,
    ) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        open.running = running;
        if open.retry.is_none() {
            if let Err(error) = call(&mut *self.input) {
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
                lost("the source of its sound", error);
                Retry::soon()
            }
        });
        self.report.set_state(ServerState::Lost);
        self.input.close();
    }

    /// The server works.
    fn prove(&mut self) {
        if let Some(open) = self.open.as_mut() {
            if open.unproven.take().is_some() {
                self.report.set_state(ServerState::Live);
                limited!(log::Level::Info, "the source of its sound is back");
            }
        }
    }

    fn try_again(&mut self) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        let running = open.running;
        let again = self
            .input
            .open(&open.params, Opening::Again)
            .and_then(|()| if running { self.input.start() } else { Ok(()) });
        match again {
            Ok(()) => {
                open.unproven = open.retry.take();
                // Whether it works is known once it has given something.
                if !running {
                    self.report.set_state(ServerState::Live);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            if open.retry.is_none() {
                if open.running {
                    // On the way out nobody can be told.
                    let _ = self.input.stop();
                }
                self.input.close();
            }
        }
        self.report.set_state(ServerState::Closed);
    }
}

/// Records into the pipe as much as it takes. Returns the bytes.
fn read_some(input: &mut dyn Input, open: &mut Open, live: bool) -> Result<usize, BackendError> {
    let capacity = open.pipe.buffer().capacity();
    let filled = capacity.saturating_sub(open.pipe.slots());
    let ahead = open
        .params
        .bytes(open.params.frames_in(AHEAD))
        .min(capacity);
    let room = if live {
        open.pipe.slots()
    } else {
        ahead.saturating_sub(filled)
    };
    let room = open
        .params
        .bytes(open.params.frames(room.min(open.piece.len())));
    let place = if room > 0 {
        open.piece.get_mut(..room).unwrap_or_default()
    } else if live {
        // Nobody takes it: what is recorded now is lost, but the server's own buffer stays fresh.
        &mut open.piece
    } else {
        return Ok(0);
    };
    let read = input.read(place)?.min(place.len());
    if room > 0 {
        let _ = open
            .pipe
            .push_entire_slice(place.get(..read).unwrap_or_default());
    }
    Ok(read)
}
