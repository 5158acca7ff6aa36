// SPDX-License-Identifier: Apache-2.0

//! The queue thread's work: four queues, one clock, no locks.

use std::sync::Arc;
use std::time::Duration;

use virtio_device::{Chain, Handler, Io, Start};
use zerocopy::little_endian::U32;

use crate::clock::nanoseconds;
use crate::controls::Control;
use crate::events::{Events, Notice};
use crate::mixer::RAMP_MS;
use crate::panel::Panel;
use crate::policy;
use crate::stream::{Stream, complete};
use crate::topology::jack_info;
use crate::wire::{ChmapInfo, Direction, JackInfo, PcmInfo, Status, queue};

mod pcm;
mod requests;
mod settings;
mod watched;

pub use watched::Watched;

/// The ramp of a stream of which nothing was heard yet.
const AT_ONCE: u32 = 0;
/// Token of the panel's waker.
const PANEL: u32 = 0;
/// How long a service that took over waits for all of a guest's queues before it answers what
/// concerns them, in nanoseconds. A guest waits a second for an answer.
const ALL_QUEUES: u64 = 300_000_000;

/// What the handler is made of.
pub struct Parts {
    /// The streams, as the driver counts them.
    pub streams: Vec<Stream>,
    /// The jacks.
    pub jacks: Vec<crate::config::JackConfig>,
    /// The channel maps.
    pub chmaps: Vec<ChmapInfo>,
    /// The control elements.
    pub controls: Vec<Control>,
    /// The knobs and displays.
    pub panel: Arc<Panel>,
}

/// Serves the sound device's queues.
pub struct SoundHandler {
    streams: Vec<Stream>,
    offers: Vec<PcmInfo>,
    jacks: Vec<crate::config::JackConfig>,
    chmaps: Vec<ChmapInfo>,
    controls: Vec<Control>,
    panel: Arc<Panel>,
    events: Events,
    /// What the driver knows of the elements' values and of the jacks.
    told_values: Vec<u32>,
    told_jacks: Vec<bool>,
    /// An answer that is being made.
    reply: Vec<u8>,
    /// Requests that wait for a queue which does not run yet.
    deferred: Vec<Chain>,
    /// Set while a recovered device waits for its other queues.
    recovering_until: Option<u64>,
    /// The settings of a former process were looked at.
    restored: bool,
    queues_started: [bool; 4],
}

impl SoundHandler {
    /// A handler for a device that no driver uses yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            streams,
            jacks,
            chmaps,
            controls,
            panel,
        } = parts;
        Self {
            offers: streams.iter().map(|stream| *stream.offer()).collect(),
            told_values: controls
                .iter()
                .map(|control| control.read(&panel))
                .collect(),
            told_jacks: (0..jacks.len()).map(|index| panel.jack(index)).collect(),
            streams,
            jacks,
            chmaps,
            controls,
            panel,
            events: Events::default(),
            reply: Vec::with_capacity(4096),
            deferred: Vec::new(),
            recovering_until: None,
            restored: false,
            queues_started: [false; 4],
        }
    }

    fn jack_infos(&self) -> Vec<JackInfo> {
        let jacks = self.jacks.iter().enumerate();
        jacks
            .map(|(index, jack)| jack_info(jack, index, self.panel.jack(index)))
            .collect()
    }

    /// Takes the buffers of a data queue and gives them to their streams. Returns whether a stream
    /// was waiting for one.
    fn take_buffers(&mut self, io: &mut Io, queue: usize) -> bool {
        let mut awaited = false;
        while let Some(chain) = io.pop(queue) {
            let id = chain.read_value::<U32>(io.memory(), 0);
            let index = id.ok().and_then(|id| usize::try_from(id.get()).ok());
            let stream = index
                .and_then(|index| self.streams.get_mut(index))
                .filter(|stream| stream.queue() == queue);
            // One over which the service died twice is not tried a third time.
            let refused = match stream.filter(|_| !chain.is_suspect()) {
                Some(stream) => {
                    awaited |= stream.is_dry();
                    stream.take(chain).err()
                }
                None => Some(chain),
            };
            if let Some(chain) = refused {
                complete(io, chain, Status::IoErr, 0, 0);
            }
        }
        io.rest(queue);
        awaited
    }

    /// Lets every stream do what is due, tells the driver what it should know, and sets the clock
    /// for the next time.
    fn turn(&mut self, io: &mut Io) {
        let now = nanoseconds(io.now());
        let mut changed = false;
        for (index, stream) in (0..).zip(&mut self.streams) {
            let before = stream.is_playing();
            stream.run(io, now);
            changed |= stream.is_playing() != before;
            if stream.take_xrun() {
                self.events.add(Notice::Xrun(index));
            }
        }
        if changed {
            // Nobody steps back for a stream that has nothing to say.
            self.regain(RAMP_MS);
        }
        self.events.send(io, &self.panel);
        let due = self.streams.iter().filter_map(Stream::due);
        let next = due.chain(self.recovering_until).min();
        io.set_deadline(next.map(Duration::from_nanos));
    }

    /// Looks at the queues of streams whose driver does not kick.
    fn poll(&mut self, io: &mut Io) {
        let now = nanoseconds(io.now());
        for queue in [queue::TX, queue::RX] {
            let of_queue = self
                .streams
                .iter_mut()
                .filter(|stream| stream.queue() == queue);
            // All of them, for each keeps its own time.
            let due = of_queue.fold(false, |due, stream| stream.take_poll(now) | due);
            if due {
                self.take_buffers(io, queue);
            }
        }
    }

    /// Works out how loud every stream is now. What plays becomes louder or softer by a ramp.
    fn regain(&mut self, ramp_ms: u32) {
        let panel = Arc::clone(&self.panel);
        let voices = |stream: &Stream, index: usize| {
            panel
                .stream(index)
                .map(|knobs| knobs.voice(stream.is_playing()))
        };
        let all = self.streams.iter().enumerate();
        let highest = policy::highest_playing(all.filter_map(|(index, s)| voices(s, index)));
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let Some(voice) = voices(stream, index) else {
                continue;
            };
            // Nobody speaks over a microphone.
            let highest = match stream.direction() {
                Direction::Output => highest,
                Direction::Input => 0,
            };
            stream.set_gain(policy::gain(&voice, highest), ramp_ms);
            stream.pause(policy::is_paused(&voice, highest));
        }
    }

    /// Compares the panel with what the driver knows, acts on what has changed, and has the driver
    /// told.
    fn look_at_panel(&mut self, io: &mut Io) {
        for (index, (control, told)) in
            (0..).zip(self.controls.iter().zip(self.told_values.iter_mut()))
        {
            let value = control.read(&self.panel);
            if value != *told {
                *told = value;
                self.events.add(Notice::Control(index));
                if control.is_source() {
                    if let Some(stream) = self.streams.get_mut(control.stream()) {
                        stream.select(value);
                    }
                }
            }
        }
        for (index, told) in self.told_jacks.iter_mut().enumerate() {
            let connected = self.panel.jack(index);
            if connected != *told {
                *told = connected;
                self.events
                    .add(Notice::Jack(u16::try_from(index).unwrap_or(u16::MAX)));
            }
        }
        // Without a driver there is nobody to tell: it asks when it comes.
        if io.running(queue::EVENT) {
            self.events.send(io, &self.panel);
        } else if !self.panel.has_driver() {
            self.events.clear();
        }
        self.regain(RAMP_MS);
        self.save(io.record());
    }

    /// Answers what waited for a queue that runs now, or that will not run.
    fn answer_deferred(&mut self, io: &mut Io) {
        for chain in std::mem::take(&mut self.deferred) {
            self.answer(io, chain);
        }
    }
}

impl Handler for SoundHandler {
    fn started(&mut self, io: &mut Io, queue: usize, start: Start) {
        let now = nanoseconds(io.now());
        if !self.restored {
            self.restored = true;
            match io.waker(PANEL) {
                Ok(waker) => self.panel.set_waker(waker),
                Err(error) => log::error!("the host's knobs do not reach the guest: {error}"),
            }
            self.restore(io.record(), start == Start::Recovered, now);
            self.panel.restored();
            if start == Start::Recovered {
                self.recovering_until = Some(now.saturating_add(ALL_QUEUES));
            }
        }
        if let Some(started) = self.queues_started.get_mut(queue) {
            *started = true;
        }
        if self.queues_started.iter().all(|started| *started) {
            self.recovering_until = None;
        }
        self.panel.set_driver(true);
        if start == Start::Resumed {
            for stream in self
                .streams
                .iter_mut()
                .filter(|stream| stream.queue() == queue)
            {
                stream.thaw(now);
            }
            self.turn(io);
        }
    }

    fn kicked(&mut self, io: &mut Io, queue: usize) {
        match queue {
            queue::CONTROL => {
                while let Some(chain) = io.pop(queue::CONTROL) {
                    self.answer(io, chain);
                }
            }
            queue::EVENT => return self.events.send(io, &self.panel),
            _ => {
                let awaited = self.take_buffers(io, queue);
                if self.deferred.is_empty() && !awaited {
                    return;
                }
                self.answer_deferred(io);
            }
        }
        self.turn(io);
    }

    fn stopped(&mut self, io: &mut Io, queue: usize) {
        let now = nanoseconds(io.now());
        for stream in self
            .streams
            .iter_mut()
            .filter(|stream| stream.queue() == queue)
        {
            stream.freeze(io.record(), now);
        }
    }

    fn reset(&mut self, io: &mut Io) {
        for stream in &mut self.streams {
            stream.reset(io.record());
        }
        self.events.clear();
        self.deferred.clear();
        self.recovering_until = None;
        self.queues_started = [false; 4];
        self.panel.set_driver(false);
        self.regain(RAMP_MS);
        if self.restored {
            self.save(io.record());
        }
    }

    fn woken(&mut self, io: &mut Io, _token: u32) {
        self.look_at_panel(io);
        self.turn(io);
    }

    fn deadline(&mut self, io: &mut Io) {
        if self.recovering_until.is_some() {
            let now = nanoseconds(io.now());
            if self.recovering_until.is_some_and(|until| until <= now) {
                self.recovering_until = None;
                self.answer_deferred(io);
            }
        }
        if self.streams.iter().any(Stream::is_polled) {
            self.poll(io);
        }
        self.turn(io);
    }
}
