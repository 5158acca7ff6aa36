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
use crate::coder::{Codecs, Coder, HostCodecs, InputNote, Job, Output, Stored};
use crate::frames::Frames;
use crate::{CodecError, Decoder, EncoderSettings, Event, Host, Library};

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
    /// Places for outputs that are copied, which nobody has.
    free: Vec<usize>,
    /// Where a decoder draws its pictures.
    frames: Option<Frames>,
    /// Pictures that the owner looks at where they were drawn, and their places.
    lent: Vec<(usize, Box<dyn Output>)>,
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
    let opened = receive(socket, Wait::Yes)?;
    let Some((command, fds)) = opened else {
        return Ok(());
    };
    let Command::Open {
        job,
        output,
        input,
        frames,
    } = command
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let Ok([inputs, outputs]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let rung = Arc::clone(&bell);
    let host = Host {
        notify: Arc::new(move || {
            let _ = rustix::io::write(&*rung, &1_u64.to_ne_bytes());
        }),
        prepare: Arc::new(|| ()),
        patience: setup.patience,
    };
    let output = Places::of(outputs, output, PLACES.saturating_add(frames));
    let frames = output.frames()?;
    let coder = match open(library, host, &job, frames.clone()) {
        Ok(coder) => coder,
        Err(error) => return report(socket, &Report::Failed(error)),
    };
    let worker = Worker {
        socket,
        coder,
        input: Places::of(inputs, input, PLACES),
        output,
        free: (0..PLACES).collect(),
        frames,
        lent: Vec::new(),
        waiting: VecDeque::new(),
        ready: None,
        flushes: 0,
        said: Instant::now(),
    };
    worker.serve(&bell)
}

/// Brings up the codec.
fn open(
    library: Library,
    host: Host,
    job: &Job,
    frames: Option<Frames>,
) -> Result<Box<dyn Coder>, CodecError> {
    match *job {
        Job::Decode(codec) => {
            Decoder::drawing(&library, codec, &host, frames).map(|decoder| Box::new(decoder) as _)
        }
        Job::Encode(..) => HostCodecs { library, host }.open(job),
    }
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
                Command::Free { place } => self.is_free(place),
            }
        }
    }

    fn is_free(&mut self, place: usize) {
        match self.lent.iter().position(|(lent, _)| *lent == place) {
            Some(at) => drop(self.lent.swap_remove(at)),
            None => self.free.push(place),
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

    /// Has an output lie in a place.
    fn show(&mut self, output: Box<dyn Output>) -> io::Result<(usize, Stored)> {
        let frames = self.frames.as_ref();
        if let Some((place, picture)) = frames.and_then(|frames| output.lies_in(frames)) {
            self.lent.push((place, output));
            return Ok((place, Stored::Picture(picture)));
        }
        let place = self.free.pop();
        let begin = place.and_then(|place| self.output.begin(place));
        let (Some(place), Some(begin)) = (place, begin) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let stored = output.store(self.output.file(), begin, self.output.size());
        Ok((place, stored.map_err(io::Error::other)?))
    }

    /// Tells what came out. Whether there was something that could be.
    fn take_out(&mut self) -> io::Result<bool> {
        if let Some(output) = self.ready.take() {
            // Of copied ones and others, no more than these.
            if self.free.len() <= self.lent.len() {
                self.ready = Some(output);
                return Ok(false);
            }
            let (timestamp, key) = (output.timestamp(), output.is_key());
            let (place, stored) = self.show(output)?;
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
