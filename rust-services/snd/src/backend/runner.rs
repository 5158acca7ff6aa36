// SPDX-License-Identifier: Apache-2.0

//! The thread of a stream: calls its back end, which may block, and keeps the queue thread from
//! noticing.

use std::io;
use std::sync::Arc;
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use agl_virtio_service::{Brake, limited};
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::time::{ClockId, clock_gettime};

use super::pipe::{Report, capacity};
use super::{BackendError, Input, Opening, Output, Pacing};
use crate::format::Params;

mod capture;
mod mailbox;
mod pace;
mod playback;

use mailbox::Mailbox;

/// How often a thread looks for bytes that nobody announces.
const LOOK: Duration = Duration::from_millis(20);
/// How long a lost server is left alone at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// What the thread of a stream of files may work at most, in hundredths of the time. It is real-time
/// like the queue thread, and a guest can make it work: by other sources, by one file after another.
const FILES_SHARE: u32 = 25;
/// Stack of a stream's thread: sound libraries are not modest.
const STACK: usize = 512 * 1024;

/// What the queue thread asks of a stream's thread.
enum Command<P> {
    /// Get ready; the pipe's other end comes with it.
    Open(Params, Opening, P),
    Start,
    Stop,
    /// Play what is in the pipe, then give everything back.
    Close,
    Select(u32),
}

/// What a thread does before it works: its name, priority and sandbox.
pub type Prepare = Arc<dyn Fn(&str) + Send + Sync>;

/// The queue thread's end of an output stream's thread.
pub struct OutputRunner {
    link: Link<Consumer<u8>>,
    pipe: Option<Producer<u8>>,
}

/// The queue thread's end of an input stream's thread.
pub struct InputRunner {
    link: Link<Producer<u8>>,
    pipe: Option<Consumer<u8>>,
    live: bool,
}

struct Link<P> {
    mailbox: Arc<Mailbox<P>>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
    report: Arc<Report>,
    /// The thread is to hear of bytes at once.
    eager: bool,
}

impl<P: Send + 'static> Link<P> {
    fn spawn(
        name: &str,
        pacing: Pacing,
        prepare: Prepare,
        body: impl FnOnce(&Mailbox<P>, Arc<Report>) + Send + 'static,
    ) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::new());
        let inbox = Arc::clone(&mailbox);
        let report = Arc::new(Report::default());
        let (told, thread_name) = (Arc::clone(&report), name.to_owned());
        let join = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .stack_size(STACK)
            .spawn(move || {
                prepare(&thread_name);
                body(&inbox, told);
            })?;
        Ok(Self {
            mailbox,
            thread: join.thread().clone(),
            join: Some(join),
            report,
            eager: matches!(pacing, Pacing::Device { .. }),
        })
    }

    fn send(&self, command: Command<P>) {
        // A thread that has ended plays nothing any more: its stream goes on against the clock.
        self.mailbox.post(command);
        self.thread.unpark();
    }
}

/// The brake of a stream's thread; none where everything is to go at once.
fn brake(pacing: Pacing) -> Option<Brake> {
    match pacing {
        Pacing::Clock => Some(Brake::at(FILES_SHARE)),
        // It may have to convert rates.
        Pacing::Device { .. } => Some(Brake::default()),
        Pacing::AtOnce => None,
    }
}

impl<P> Drop for Link<P> {
    fn drop(&mut self) {
        self.mailbox.end();
        self.thread.unpark();
        // One that is stuck in a sound server's call ends with the process, not later.
        let patience = Instant::now().checked_add(Duration::from_secs(2));
        if let Some(join) = self.join.take() {
            while !join.is_finished() && patience.is_some_and(|end| Instant::now() < end) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if join.is_finished() && join.join().is_err() {
                log::error!("a stream's thread has panicked");
            }
        }
    }
}

impl OutputRunner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the host refuses a thread.
    pub fn spawn(
        name: &str,
        output: Box<dyn Output>,
        pacing: Pacing,
        prepare: Prepare,
    ) -> io::Result<Self> {
        let link = Link::spawn(name, pacing, prepare, move |inbox, report| {
            playback::Playback::new(output, pacing, report).run(inbox, brake(pacing));
        })?;
        Ok(Self { link, pipe: None })
    }

    /// Gets the back end ready, some time soon.
    pub fn open(&mut self, params: &Params, opening: Opening) {
        let (producer, consumer) = RingBuffer::new(capacity(params));
        self.pipe = Some(producer);
        self.link.send(Command::Open(*params, opening, consumer));
    }

    /// Hands frames over. What does not fit, because the thread hangs, is lost.
    pub fn push(&mut self, bytes: &[u8], params: &Params) {
        let pushed = self.pipe.as_mut().map(|pipe| pipe.push_entire_slice(bytes));
        if !matches!(pushed, Some(Ok(()))) {
            self.link.report.add_discarded(params.frames(bytes.len()));
        }
        if self.link.eager {
            self.link.thread.unpark();
        }
    }

    /// Frames handed over that were not heard at `now` (nanoseconds).
    #[must_use]
    pub fn delay(&self, now: u64, params: &Params) -> u64 {
        let waiting = self.pipe.as_ref().map_or(0, |pipe| {
            pipe.buffer().capacity().saturating_sub(pipe.slots())
        });
        params
            .frames(waiting)
            .saturating_add(self.link.report.delay(now, params))
    }

    /// The stream starts.
    pub fn start(&self) {
        self.link.send(Command::Start);
    }

    /// The stream stops, for a while or for good.
    pub fn stop(&self) {
        self.link.send(Command::Stop);
    }

    /// Gives the back end back once everything is played.
    pub fn close(&mut self) {
        self.pipe = None;
        self.link.send(Command::Close);
    }

    /// What the thread reports.
    #[must_use]
    pub fn report(&self) -> &Arc<Report> {
        &self.link.report
    }
}

impl InputRunner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the host refuses a thread.
    pub fn spawn(
        name: &str,
        input: Box<dyn Input>,
        pacing: Pacing,
        prepare: Prepare,
    ) -> io::Result<Self> {
        let live = input.is_live();
        let link = Link::spawn(name, pacing, prepare, move |inbox, report| {
            capture::Capture::new(input, report).run(inbox, brake(pacing));
        })?;
        Ok(Self {
            link,
            pipe: None,
            live,
        })
    }

    /// Gets the back end ready, some time soon.
    pub fn open(&mut self, params: &Params, opening: Opening) {
        let (producer, consumer) = RingBuffer::new(capacity(params));
        self.pipe = Some(consumer);
        self.link.send(Command::Open(*params, opening, producer));
    }

    /// Takes frames: as many whole ones as there are and fit. Returns the bytes.
    pub fn pull(&mut self, bytes: &mut [u8], params: &Params) -> usize {
        let Some(pipe) = self.pipe.as_mut() else {
            return 0;
        };
        let there = pipe.slots().min(bytes.len());
        let whole = params.bytes(params.frames(there));
        let (filled, _) = pipe.pop_partial_slice(bytes.get_mut(..whole).unwrap_or_default());
        let taken = filled.len();
        if self.link.eager || pipe.slots() < taken {
            self.link.thread.unpark();
        }
        taken
    }

    /// Bytes that are there.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pipe.as_ref().map_or(0, Consumer::slots)
    }

    /// Throws away what is older than `keep` bytes.
    pub fn skip(&mut self, keep: usize, params: &Params) {
        if let Some(pipe) = self.pipe.as_mut() {
            let excess = pipe.slots().saturating_sub(keep);
            if let Ok(chunk) = pipe.read_chunk(params.bytes(params.frames(excess))) {
                chunk.commit_all();
            }
        }
    }

    /// Frames recorded that were not taken at `now` (nanoseconds).
    #[must_use]
    pub fn delay(&self, now: u64, params: &Params) -> u64 {
        // What the back end still holds grows with time; what it said last is a lower bound.
        let _ = now;
        params.frames(self.available())
    }

    /// Whether what is not taken in time is gone.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The stream starts.
    pub fn start(&self) {
        self.link.send(Command::Start);
    }

    /// The stream stops.
    pub fn stop(&self) {
        self.link.send(Command::Stop);
    }

    /// Records from another source.
    pub fn select(&mut self, source: u32, params: Option<&Params>) {
        self.link.send(Command::Select(source));
        if let Some(params) = params {
            self.skip(0, params);
        }
    }

    /// Gives the back end back.
    pub fn close(&mut self) {
        self.pipe = None;
        self.link.send(Command::Close);
    }

    /// What the thread reports.
    #[must_use]
    pub fn report(&self) -> &Arc<Report> {
        &self.link.report
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let rest = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// When a lost server is tried again.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    fn soon() -> Self {
        Self::after(RETRY_FIRST)
    }

    fn after(wait: Duration) -> Self {
        let now = Instant::now();
        Self {
            at: now.checked_add(wait).unwrap_or(now),
            wait,
        }
    }

    fn later(&self) -> Self {
        Self::after(self.wait.saturating_mul(2).min(RETRY_MOST))
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.at
    }

    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// Says once that a server is lost, and once that it is back.
fn lost(name: &str, error: &BackendError) {
    limited!(
        log::Level::Warn,
        "{name} is lost, the stream goes on against the clock: {error}"
    );
}

#[cfg(test)]
mod tests;
