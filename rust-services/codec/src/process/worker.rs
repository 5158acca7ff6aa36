// SPDX-License-Identifier: Apache-2.0

//! A process with one session: commands in, reports out.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::memory::{PLACES, Places};
use super::message::{Command, Report, Wait, receive, send, tame_error};
use super::nursery::READY;
use super::setup::Setup;
use crate::coder::{Codecs, Coder, HostCodecs, InputNote, Output};
use crate::{CodecError, EncoderSettings, Event, Host, Library};

/// A worker says at least so often that it lives.
pub(super) const BEAT: Duration = Duration::from_millis(500);

/// What waits for room in the codec.
enum Waiting {
    Input {
        place: usize,
        bytes: usize,
        note: InputNote,
    },
    Drain,
    Adjust(EncoderSettings),
}

struct Worker<'a> {
    socket: &'a OwnedFd,
    coder: Box<dyn Coder>,
    input: Places,
    output: Places,
    free: Vec<usize>,
    waiting: VecDeque<Waiting>,
    /// Came out, and waits for a place.
    ready: Option<Box<dyn Output>>,
    /// Flushes that were asked for.
    flushes: u64,
    said: Instant,
}

/// Loads the codecs, says so, and does what it is told until its session hangs up.
pub(super) fn run(setup: &Setup, socket: &OwnedFd) -> io::Result<()> {
    setup.confine_worker();
    let library = match Library::load(&setup.elements) {
        Ok(library) => library,
        Err(error) => return report(socket, &Report::Failed(error)),
    };
    let ready = Report::Ready {
        decoders: library.decoders().collect(),
        encoders: library.encoders().collect(),
    };
    report(socket, &ready)?;
    // The nursery hears it, too. One that does not takes this for a worker that still loads.
    let mut told = std::io::stdout();
    let _ = writeln!(told, "{READY}").and_then(|()| told.flush());
    // A spare one waits here, perhaps for ever.
    let Some((Command::Open { job, output, input }, fds)) = receive(socket, Wait::Yes)? else {
        return Ok(());
    };
    let Ok([inputs, outputs]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let rung = Arc::clone(&bell);
    let mut codecs = HostCodecs {
        library,
        host: Host {
            notify: Arc::new(move || {
                let _ = rustix::io::write(&*rung, &1_u64.to_ne_bytes());
            }),
            prepare: Arc::new(|| ()),
            patience: setup.patience,
        },
    };
    let coder = match codecs.open(&job) {
        Ok(coder) => coder,
        Err(error) => return report(socket, &Report::Failed(error)),
    };
    let worker = Worker {
        socket,
        coder,
        input: Places::of(inputs, input),
        output: Places::of(outputs, output),
        free: (0..PLACES).collect(),
        waiting: VecDeque::new(),
        ready: None,
        flushes: 0,
        said: Instant::now(),
    };
    worker.serve(&bell)
}

fn report(socket: &OwnedFd, report: &Report) -> io::Result<()> {
    send(socket, report, &[], Wait::Yes)
}

impl Worker<'_> {
    fn serve(mut self, bell: &OwnedFd) -> io::Result<()> {
        loop {
            if !self.listen()? {
                return Ok(());
            }
            while self.put_in()? | self.take_out()? {}
            if self.said.elapsed() >= BEAT {
                self.say(&Report::Alive)?;
            }
            let mut list = [
                PollFd::new(self.socket, PollFlags::IN),
                PollFd::new(bell, PollFlags::IN),
            ];
            // Only while something is to be done its owner wants to hear of it.
            let busy = self.coder.look_after().is_some() || !self.waiting.is_empty();
            let timeout = busy.then(|| Timespec::try_from(BEAT).ok()).flatten();
            match poll(&mut list, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }

    fn say(&mut self, what: &Report) -> io::Result<()> {
        self.said = Instant::now();
        report(self.socket, what)
    }

    /// Takes commands. Whether the owner is there.
    fn listen(&mut self) -> io::Result<bool> {
        loop {
            let command = match receive(self.socket, Wait::No) {
                Ok(Some((command, _))) => command,
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            match command {
                Command::Open { .. } => {}
                Command::Input {
                    place,
                    bytes,
                    timestamp,
                    force_key,
                } => self.waiting.push_back(Waiting::Input {
                    place,
                    bytes,
                    note: InputNote {
                        timestamp,
                        force_key,
                    },
                }),
                Command::Drain => self.waiting.push_back(Waiting::Drain),
                Command::Adjust(settings) => self.waiting.push_back(Waiting::Adjust(settings)),
                Command::Flush => self.flush()?,
                Command::Free { place } => self.free.push(place),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes = self.flushes.saturating_add(1);
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Input { place, .. } => self.say(&Report::Taken { place })?,
                Waiting::Drain => {}
                // What comes after a seek is to be encoded so, too.
                Waiting::Adjust(settings) => self.adjust(settings)?,
            }
        }
        self.ready = None;
        self.coder.flush();
        Ok(())
    }

    fn adjust(&mut self, settings: EncoderSettings) -> io::Result<()> {
        self.coder.adjust(settings);
        self.say(&Report::Adjusted)
    }

    /// Hands the next thing to the codec. Whether there was one that could be.
    fn put_in(&mut self) -> io::Result<bool> {
        match self.waiting.front() {
            None => return Ok(false),
            Some(Waiting::Input { .. }) if !self.coder.room() => return Ok(false),
            Some(_) => {}
        }
        match self.waiting.pop_front() {
            None => return Ok(false),
            Some(Waiting::Input { place, bytes, note }) => {
                let read = self.input.read(place, bytes)?;
                self.say(&Report::Taken { place })?;
                self.coder.push(read, note);
            }
            Some(Waiting::Drain) => self.coder.drain(),
            Some(Waiting::Adjust(settings)) => self.adjust(settings)?,
        }
        Ok(true)
    }

    /// Tells what came out. Whether there was something that could be.
    fn take_out(&mut self) -> io::Result<bool> {
        if let Some(output) = &self.ready {
            let Some(place) = self.free.pop() else {
                return Ok(false);
            };
            let stored = match self.output.begin(place) {
                Some(begin) => output.store(self.output.file(), begin, self.output.size()),
                None => return Err(io::ErrorKind::InvalidData.into()),
            };
            let stored = stored.map_err(io::Error::other)?;
            let (timestamp, key) = (output.timestamp(), output.is_key());
            self.ready = None;
            self.say(&Report::Output {
                place,
                timestamp,
                key,
                stored,
                counters: self.coder.counters(),
            })?;
            return Ok(true);
        }
        let Some(event) = self.coder.poll() else {
            return Ok(false);
        };
        match event {
            Event::Output(output) => self.ready = Some(output),
            Event::Size(size) => self.say(&Report::Size(size))?,
            Event::Drained => {
                let counters = self.coder.counters();
                self.say(&Report::Drained { counters })?;
            }
            // The codec forgets all that it was asked to forget until now, at once.
            Event::Flushed => self.say(&Report::Flushed { upto: self.flushes })?,
            Event::Failed(error) => {
                let is_hanging = matches!(error, CodecError::Hangs { .. });
                self.say(&Report::Failed(tame_error(error)))?;
                if is_hanging {
                    // Bringing the pipeline down would hang as well.
                    std::process::exit(0);
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
