// SPDX-License-Identifier: Apache-2.0

//! A session whose codec is in a worker: what its owner sees of it.
//!
//! A worker is a stranger: it decodes what a guest sent and may have been taken over by it. What it
//! says is checked, and what makes no sense ends its session.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::link::{LOADING, Link};
use super::memory::{PLACES, Places};
use super::message::{Command, Report, tame_error};
use super::outputs::Outputs;
use super::setup::Setup;
use crate::coder::{Coder, InputNote, Job, Output};
use crate::silence::Verdict;
use crate::{Codec, CodecError, Counters, EncoderSettings, Event, Size};

/// A piece of a stream has no more bytes.
const MOST_CODED: u64 = 64 << 20;
/// A picture in a decoder's own order may have rows and lines beyond what is seen, and what an encoder
/// gives has headers.
const MARGIN: u64 = 1 << 20;
/// Each place for a picture is mapped by itself: the largest page that a host may have.
const PAGE: u64 = 64 << 10;
/// Pictures that a decoder has in its memory at once, at most: those that later ones refer to (16 in H.264
/// and HEVC), those that wait to be shown, and the one that it draws.
const MOST_FRAMES: u64 = 24;

/// Reports that may come to nothing before it is given something to do again: those that were on their
/// way when it heard of a flush are fewer.
const MOST_VOID: u32 = 64;

/// A session.
pub(super) struct Remote {
    codec: Codec,
    link: Link,
    input: Places,
    outputs: Outputs,
    /// Which places for inputs the worker has.
    given: [bool; PLACES],
    draining: bool,
    /// The worker is to hear of the drain behind the flush that is under way.
    drain_due: bool,
    /// Flushes that were asked for, and those that are done.
    flushes: (u64, u64),
    /// Nothing was given since the last one.
    flushed_all: bool,
    /// The worker has settings that its codec was not told yet.
    adjusting: bool,
    /// Newer ones.
    settings: Option<EncoderSettings>,
    /// Reports since it was given something to do that came to nothing.
    void: u32,
    /// What the worker has said last of its pictures' size.
    announced: Option<Size>,
    /// Told during a flush.
    size: Option<Size>,
    failed: bool,
    patience: Duration,
    /// When it was given something to do last.
    asked: Instant,
    verdict: Verdict,
    counters: Counters,
}

impl Remote {
    /// Gives a worker its job.
    pub(super) fn open(link: Link, job: &Job, setup: &Setup) -> io::Result<Self> {
        let (codec, input, output, frames) = match job {
            // Three bytes for each pixel are twice what a picture has.
            Job::Decode(codec) => {
                let picture = setup.pixels.saturating_mul(3).saturating_add(MARGIN);
                let picture = picture.next_multiple_of(PAGE);
                // What pictures take does not count as memory of the worker's own.
                let frames = setup.memory.checked_div(picture.saturating_mul(2));
                let frames = frames.map_or(0, |most| MOST_FRAMES.min(most));
                (*codec, MOST_CODED, picture, frames)
            }
            // What cannot be coded in less is coded as it is.
            Job::Encode(codec, layout, ..) => {
                let picture = layout.bytes() as u64;
                let coded = picture.saturating_mul(2).saturating_add(MARGIN);
                (*codec, picture, coded.min(MOST_CODED), 0)
            }
        };
        let frames = usize::try_from(frames).unwrap_or(0);
        let places = PLACES.saturating_add(frames);
        let inputs = Places::new("agl-virtio-input", input, PLACES)?;
        let outputs = Places::new("agl-virtio-output", output, places)?;
        let open = Command::Open {
            job: *job,
            output,
            input,
            frames,
        };
        let mouth = link.mouth().clone();
        link.begin(&open, &[inputs.file().as_fd(), outputs.file().as_fd()])?;
        Ok(Self {
            codec,
            link,
            input: inputs,
            outputs: Outputs::new(outputs, mouth),
            given: [false; PLACES],
            draining: false,
            drain_due: false,
            flushes: (0, 0),
            flushed_all: false,
            adjusting: false,
            settings: None,
            void: 0,
            announced: None,
            size: None,
            failed: false,
            patience: setup.patience,
            asked: Instant::now(),
            verdict: Verdict::default(),
            counters: Counters::default(),
        })
    }

    /// Gives it something to do.
    fn ask(&mut self, command: &Command) {
        self.asked = Instant::now();
        self.void = 0;
        self.tell(command);
    }

    fn tell(&self, command: &Command) {
        self.link.mouth().tell(command);
    }

    fn is_flushing(&self) -> bool {
        self.flushes.1 < self.flushes.0
    }

    fn is_busy(&self) -> bool {
        self.draining || self.is_flushing() || self.given.contains(&true)
    }

    /// Since when it has been silent though it has something to do, and how long it may be.
    fn silence(&self) -> (Instant, Duration) {
        let heard = self.link.heard();
        let patience = if heard.is_ready() {
            self.patience
        } else {
            // It loads, and cannot say anything.
            self.patience.max(LOADING)
        };
        (heard.last.max(self.asked), patience)
    }

    fn fail(&mut self, error: CodecError) -> Event<Box<dyn Output>> {
        self.failed = true;
        Event::Failed(error)
    }

    fn died(&mut self, how: &str) -> Event<Box<dyn Output>> {
        let how = match self.process() {
            0 => how.to_owned(),
            process => format!("{how} (process {process})"),
        };
        let codec = self.codec;
        self.fail(CodecError::Died { codec, how })
    }

    /// What is to be told when nothing was reported.
    fn idle(&mut self) -> Option<Event<Box<dyn Output>>> {
        let ended = self.link.heard().ended.clone();
        if let Some(how) = ended {
            return Some(self.died(&how));
        }
        let (since, patience) = self.silence();
        if !self.is_busy() || !self.verdict.falls(since, patience) {
            return None;
        }
        let codec = self.codec;
        Some(self.fail(CodecError::Hangs { codec, patience }))
    }

    /// What a report comes to; nothing where it is not to be told.
    fn look(&mut self, report: Report) -> Result<Option<Event<Box<dyn Output>>>, &'static str> {
        let is_flushing = self.is_flushing();
        if let Report::Size(size) = report {
            self.announced = Some(size);
        }
        Ok(match report {
            Report::Taken { place } => {
                let given = self.given.get_mut(place).filter(|given| **given);
                *given.ok_or("takes what it was not given")? = false;
                None
            }
            Report::Size(size) if is_flushing => {
                self.size = Some(size);
                self.is_void()?
            }
            Report::Size(size) => Some(Event::Size(size)),
            Report::Output { place, .. } if is_flushing => {
                self.free(place);
                self.is_void()?
            }
            Report::Output {
                place,
                timestamp,
                key,
                stored,
                counters,
            } => {
                self.count(&counters);
                let note = (timestamp, key);
                let output = self.outputs.fetch(place, &stored, self.announced, note);
                Some(Event::Output(output.ok_or("shows what is no picture")?))
            }
            Report::Drained { counters } => {
                self.count(&counters);
                let is_told = self.draining && !is_flushing;
                self.draining &= is_flushing;
                if is_told {
                    Some(Event::Drained)
                } else {
                    self.is_void()?
                }
            }
            Report::Flushed { upto } => self.flushed(upto)?.then_some(Event::Flushed),
            Report::Adjusted => {
                if !std::mem::take(&mut self.adjusting) {
                    return Err("takes what it was not given");
                }
                if let Some(newer) = self.settings.take() {
                    self.adjust(newer);
                }
                None
            }
            Report::Failed(error) => Some(self.fail(tame_error(error))),
            // The link has seen to these.
            Report::Ready { .. }
            | Report::Process { .. }
            | Report::Said { .. }
            | Report::Ended { .. }
            | Report::Alive => self.is_void()?,
        })
    }

    /// Nothing, unless that was said too often.
    fn is_void(&mut self) -> Result<Option<Event<Box<dyn Output>>>, &'static str> {
        self.void = self.void.saturating_add(1);
        if self.void > MOST_VOID {
            return Err("says more than it was asked");
        }
        Ok(None)
    }

    /// So many flushes are done. Whether these are all.
    fn flushed(&mut self, upto: u64) -> Result<bool, &'static str> {
        let (asked, done) = self.flushes;
        if upto <= done || upto > asked {
            return Err("forgets what it was not asked to");
        }
        self.flushes.1 = upto;
        let is_done = !self.is_flushing();
        if is_done && std::mem::take(&mut self.drain_due) {
            self.ask(&Command::Drain);
        }
        Ok(is_done)
    }

    fn free(&mut self, place: usize) {
        self.tell(&Command::Free { place });
    }

    fn count(&mut self, counters: &Counters) {
        self.counters = Counters {
            pushed: self.counters.pushed,
            bytes_in: self.counters.bytes_in,
            ..*counters
        };
    }
}

impl Coder for Remote {
    fn room(&self) -> bool {
        !self.failed && !self.is_flushing() && self.given.contains(&false)
    }

    fn push(&mut self, bytes: Vec<u8>, note: InputNote) {
        let Some(place) = self.given.iter().position(|given| !given) else {
            return;
        };
        self.counters.pushed = self.counters.pushed.saturating_add(1);
        self.counters.bytes_in = self.counters.bytes_in.saturating_add(bytes.len() as u64);
        if let Err(error) = self.input.write(place, &bytes) {
            let how = format!("cannot be given {} bytes: {error}", bytes.len());
            self.link.heard().ended.get_or_insert(how);
            return;
        }
        if let Some(given) = self.given.get_mut(place) {
            *given = true;
        }
        self.flushed_all = false;
        self.ask(&Command::Input {
            place,
            bytes: bytes.len(),
            timestamp: note.timestamp,
            force_key: note.force_key,
        });
    }

    fn drain(&mut self) {
        self.draining = true;
        if self.is_flushing() {
            self.drain_due = true;
        } else {
            self.flushed_all = false;
            self.ask(&Command::Drain);
        }
    }

    fn flush(&mut self) {
        self.draining = false;
        self.drain_due = false;
        if self.is_flushing() && self.flushed_all {
            // The one that is under way forgets all that there is: a guest that seeks without end
            // makes no queue of them.
            return;
        }
        self.flushed_all = true;
        self.flushes.0 = self.flushes.0.saturating_add(1);
        self.ask(&Command::Flush);
    }

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        if self.failed {
            return None;
        }
        if !self.is_flushing() {
            if let Some(size) = self.size.take() {
                return Some(Event::Size(size));
            }
        }
        loop {
            let next = self.link.heard().reports.pop_front();
            let Some(report) = next else {
                return self.idle();
            };
            match self.look(report) {
                Ok(None) => {}
                Ok(event) => return event,
                Err(how) => return Some(self.died(how)),
            }
        }
    }

    fn look_after(&self) -> Option<Duration> {
        if self.failed || !self.is_busy() {
            return None;
        }
        let (since, patience) = self.silence();
        Some(self.verdict.next_look(since, patience))
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn adjust(&mut self, settings: EncoderSettings) {
        if self.adjusting {
            // Only the newest counts: a guest that turns its controls without end fills no queue.
            self.settings = Some(settings);
        } else {
            self.adjusting = true;
            self.tell(&Command::Adjust(settings));
        }
    }

    fn process(&self) -> u32 {
        self.link.heard().process
    }
}

#[cfg(test)]
mod tests;
