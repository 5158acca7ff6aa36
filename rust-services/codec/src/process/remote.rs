// SPDX-License-Identifier: Apache-2.0

//! A session whose codec is in a worker: what its owner sees of it.
//!
//! A worker is a stranger: it decodes what a guest sent and may have been taken over by it. What it
//! says is checked, and what makes no sense ends its session.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::link::Link;
use super::memory::{PLACES, Places};
use super::message::{Command, Report, tame_error};
use super::shelf::Shelf;
use crate::coder::{Coder, InputNote, Job, Output, Stored};
use crate::encoder::AccessUnit;
use crate::picture::Picture;
use crate::{Codec, CodecError, Counters, EncoderSettings, Event, Size};

/// A coded picture has no more bytes, nor has a piece of a stream.
const MOST_CODED: u64 = 64 << 20;
/// A picture in a decoder's own order may have rows and lines beyond what is seen.
const MARGIN: u64 = 1 << 20;

/// A session.
pub(super) struct Remote {
    codec: Codec,
    link: Link,
    input: Places,
    output: Places,
    shelf: Shelf,
    /// Which places for inputs the worker has.
    given: [bool; PLACES],
    draining: bool,
    /// Flushes that are under way.
    flushing: u32,
    /// Told during a flush.
    size: Option<Size>,
    failed: bool,
    patience: Duration,
    /// When it was given something to do last.
    asked: Instant,
    counters: Counters,
}

impl Remote {
    /// Gives a worker its job.
    pub(super) fn open(link: Link, job: &Job, pixels: u64, patience: Duration) -> io::Result<Self> {
        let (codec, input, output) = match job {
            // Three bytes for each pixel are twice what a picture has.
            Job::Decode(codec) => {
                let picture = pixels.saturating_mul(3).saturating_add(MARGIN);
                (*codec, MOST_CODED, picture)
            }
            Job::Encode(codec, layout, ..) => (*codec, layout.bytes() as u64, MOST_CODED),
        };
        let inputs = Places::new("agl-virtio-input", input)?;
        let outputs = Places::new("agl-virtio-output", output)?;
        let job = *job;
        link.tell(
            &Command::Open { job, output, input },
            &[inputs.file().as_fd(), outputs.file().as_fd()],
        )?;
        Ok(Self {
            codec,
            link,
            input: inputs,
            output: outputs,
            shelf: Shelf::default(),
            given: [false; PLACES],
            draining: false,
            flushing: 0,
            size: None,
            failed: false,
            patience,
            asked: Instant::now(),
            counters: Counters::default(),
        })
    }

    fn ask(&mut self, command: &Command) {
        self.asked = Instant::now();
        if let Err(error) = self.link.tell(command, &[]) {
            // One that is gone has left a better reason.
            let how = format!("takes no command: {error}");
            self.link.heard().ended.get_or_insert(how);
        }
    }

    fn is_busy(&self) -> bool {
        self.draining || self.flushing > 0 || self.given.contains(&true)
    }

    /// How long it has been silent though it has something to do.
    fn silent(&self) -> Duration {
        let heard = self.link.heard().last;
        heard.max(self.asked).elapsed()
    }

    fn fail(&mut self, error: CodecError) -> Event<Box<dyn Output>> {
        self.failed = true;
        Event::Failed(error)
    }

    fn died(&mut self, how: &str) -> Event<Box<dyn Output>> {
        let (codec, how) = (self.codec, how.to_owned());
        self.fail(CodecError::Died { codec, how })
    }

    /// What is to be told when nothing was reported.
    fn idle(&mut self) -> Option<Event<Box<dyn Output>>> {
        let ended = self.link.heard().ended.clone();
        if let Some(how) = ended {
            return Some(self.died(&how));
        }
        if !self.is_busy() || self.silent() < self.patience {
            return None;
        }
        let (codec, patience) = (self.codec, self.patience);
        Some(self.fail(CodecError::Hangs { codec, patience }))
    }

    /// What a report comes to; nothing where it is not to be told.
    fn look(&mut self, report: Report) -> Result<Option<Event<Box<dyn Output>>>, &'static str> {
        let is_flushing = self.flushing > 0;
        Ok(match report {
            Report::Taken { place } => {
                let given = self.given.get_mut(place).filter(|given| **given);
                *given.ok_or("takes what it was not given")? = false;
                None
            }
            Report::Size(size) if is_flushing => {
                self.size = Some(size);
                None
            }
            Report::Size(size) => Some(Event::Size(size)),
            Report::Output { place, .. } if is_flushing => {
                self.free(place);
                None
            }
            Report::Output {
                place,
                timestamp,
                key,
                stored,
                counters,
            } => {
                self.count(&counters);
                let output = self.fetch(place, &stored, timestamp, key);
                self.free(place);
                Some(Event::Output(output.ok_or("shows what is no picture")?))
            }
            Report::Drained { counters } => {
                self.count(&counters);
                let is_told = self.draining && !is_flushing;
                self.draining &= is_flushing;
                is_told.then_some(Event::Drained)
            }
            Report::Flushed => {
                self.flushing = self.flushing.saturating_sub(1);
                (is_flushing && self.flushing == 0).then_some(Event::Flushed)
            }
            Report::Failed(error) => Some(self.fail(tame_error(error))),
            // The link has seen to these.
            Report::Ready { .. }
            | Report::Process { .. }
            | Report::Ended { .. }
            | Report::Alive => None,
        })
    }

    fn free(&mut self, place: usize) {
        self.ask(&Command::Free { place });
    }

    fn count(&mut self, counters: &Counters) {
        self.counters = Counters {
            pushed: self.counters.pushed,
            bytes_in: self.counters.bytes_in,
            ..*counters
        };
    }

    fn fetch(
        &self,
        place: usize,
        stored: &Stored,
        timestamp: u64,
        key: bool,
    ) -> Option<Box<dyn Output>> {
        let read = |bytes| self.output.read(place, bytes).ok();
        Some(match stored {
            Stored::Unit { bytes } => Box::new(AccessUnit::of_bytes(read(*bytes)?, timestamp, key)),
            Stored::Picture(stored) => {
                let mut piece = self.shelf.take();
                let into = &mut piece.bytes;
                self.output.read_into(place, stored.bytes, into).ok()?;
                Box::new(Picture::of_piece(piece, stored, timestamp, key)?)
            }
        })
    }
}

impl Coder for Remote {
    fn room(&self) -> bool {
        !self.failed && self.flushing == 0 && self.given.contains(&false)
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
        self.ask(&Command::Input {
            place,
            bytes: bytes.len(),
            timestamp: note.timestamp,
            force_key: note.force_key,
        });
    }

    fn drain(&mut self) {
        self.draining = true;
        self.ask(&Command::Drain);
    }

    fn flush(&mut self) {
        self.draining = false;
        self.flushing = self.flushing.saturating_add(1);
        self.ask(&Command::Flush);
    }

    fn poll(&mut self) -> Option<Event<Box<dyn Output>>> {
        if self.failed {
            return None;
        }
        if self.flushing == 0 {
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
        Some(self.patience.saturating_sub(self.silent()))
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn adjust(&mut self, settings: EncoderSettings) {
        self.ask(&Command::Adjust(settings));
    }

    fn process(&self) -> u32 {
        self.link.heard().process
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::super::message::{Wait, pair, receive, send};
    use super::*;
    use crate::PixelFormat;
    use crate::coder::StoredPicture;

    /// A session of VP8, and the end where its worker would be.
    fn session(patience: Duration) -> (Remote, OwnedFd) {
        gstreamer::init().unwrap();
        let (ours, its) = pair().unwrap();
        let link = Link::new(ours, Arc::new(|| ())).unwrap();
        let ready = Report::Ready {
            decoders: vec![Codec::Vp8],
            encoders: Vec::new(),
        };
        send(&its, &ready, &[], Wait::Yes).unwrap();
        let job = Job::Decode(Codec::Vp8);
        let remote = Remote::open(link, &job, 64 * 64, patience).unwrap();
        let (_, fds) = receive::<Command>(&its, Wait::Yes).unwrap().unwrap();
        assert_eq!(fds.len(), 2);
        (remote, its)
    }

    /// The next thing that the session tells.
    fn next(remote: &mut Remote) -> Event<Box<dyn Output>> {
        loop {
            if let Some(event) = remote.poll() {
                return event;
            }
            std::thread::yield_now();
        }
    }

    fn picture(size: Size, planes: Vec<(usize, usize)>, bytes: usize) -> Stored {
        Stored::Picture(StoredPicture {
            size,
            format: PixelFormat::I420,
            planes,
            bytes,
        })
    }

    fn output(place: usize, stored: Stored) -> Report {
        Report::Output {
            place,
            timestamp: 5,
            key: true,
            stored,
            counters: Counters::default(),
        }
    }

    #[test]
    fn a_worker_that_makes_no_sense_loses_its_session() {
        let small = Size::new(4, 4);
        let good = || vec![(0, 4), (16, 2), (20, 2)];
        let cases = [
            Report::Taken { place: 0 },
            Report::Taken { place: usize::MAX },
            output(PLACES, picture(small, good(), 24)),
            output(0, picture(small, good(), 23)),
            output(0, picture(small, good(), usize::MAX)),
            output(0, picture(small, vec![(0, 4), (16, 2)], 24)),
            output(
                0,
                picture(small, vec![(0, 4), (16, 2), (usize::MAX, 2)], 24),
            ),
            output(
                0,
                picture(small, vec![(0, usize::MAX), (16, 2), (20, 2)], 24),
            ),
            output(0, picture(small, vec![(0, 1), (16, 2), (20, 2)], 24)),
            output(0, picture(Size::new(0, 4), good(), 24)),
            output(0, picture(Size::new(u32::MAX, u32::MAX), good(), 24)),
            output(0, Stored::Unit { bytes: usize::MAX }),
        ];
        for case in cases {
            let (mut remote, its) = session(Duration::from_secs(60));
            let text = format!("{case:?}");
            send(&its, &case, &[], Wait::Yes).unwrap();
            let told = next(&mut remote);
            assert!(
                matches!(told, Event::Failed(CodecError::Died { .. })),
                "{text}: {told:?}"
            );
            assert!(remote.poll().is_none(), "nothing follows");
        }
        let (mut remote, its) = session(Duration::from_secs(60));
        send(&its, &output(0, picture(small, good(), 24)), &[], Wait::Yes).unwrap();
        assert!(matches!(next(&mut remote), Event::Output(output) if output.timestamp() == 5));
    }

    #[test]
    fn a_worker_that_talks_without_end_loses_its_session() {
        let (mut remote, its) = session(Duration::from_secs(60));
        // It waits, at last, for somebody to hear it, who does not.
        let size = Report::Size(Size::new(4, 4));
        while send(&its, &size, &[], Wait::No).is_ok() && !remote.link.has_ended() {}
        while !matches!(next(&mut remote), Event::Failed(CodecError::Died { .. })) {}
    }

    #[test]
    fn what_comes_of_what_was_flushed_is_not_told() {
        let (mut remote, its) = session(Duration::from_secs(60));
        remote.drain();
        remote.flush();
        for report in [
            Report::Size(Size::new(4, 4)),
            output(1, picture(Size::new(4, 4), Vec::new(), 0)),
            Report::Drained {
                counters: Counters::default(),
            },
            Report::Flushed,
        ] {
            send(&its, &report, &[], Wait::Yes).unwrap();
        }
        assert!(matches!(next(&mut remote), Event::Flushed));
        assert!(matches!(next(&mut remote), Event::Size(size) if size == Size::new(4, 4)));
        let mut freed = false;
        while let Ok(Some((command, _))) = receive::<Command>(&its, Wait::No) {
            freed |= matches!(command, Command::Free { place: 1 });
        }
        assert!(freed, "its place is free again");
    }

    #[test]
    fn a_worker_that_is_silent_is_given_up_once_it_has_something_to_do() {
        let (mut remote, _its) = session(Duration::from_millis(50));
        assert!(remote.poll().is_none() && remote.look_after().is_none());
        remote.push(vec![0; 10], InputNote::default());
        assert!(remote.look_after().is_some());
        assert!(matches!(
            next(&mut remote),
            Event::Failed(CodecError::Hangs { .. })
        ));
    }
}
