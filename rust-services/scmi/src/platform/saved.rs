// SPDX-License-Identifier: Apache-2.0

//! What agents want, as bytes: it outlives the service in the keeper's record, so that a clock does
//! not stop because the service was restarted.
//!
//! One function lists what is saved, and both saves and restores it: the two cannot differ. All
//! words are variable-length; a platform of hundreds of resources takes a few kilobytes.

use std::time::Duration;

use crate::platform::{AgentId, Clocked, Kind, Later, Platform, SensorConfig, Votes};
use crate::wire::{Event, HEADER_SIZE, Header, MAX_PAYLOAD};

/// The layout below. Another one is not restored.
const VERSION: u64 = 4;
/// Asynchronous commands and unsent responses that are restored at most: more than there can be.
const MOST_PENDING: u64 = 1024;

/// Reads or writes words.
enum Codec<'a> {
    Write(&'a mut Vec<u8>),
    Read(&'a [u8]),
}

impl Codec<'_> {
    /// Writes `word`, or replaces it by what was written. `None` at the end of what was written.
    fn word(&mut self, word: &mut u64) -> Option<()> {
        match self {
            Self::Write(bytes) => {
                let mut rest = *word;
                loop {
                    let low = rest.to_le_bytes()[0] & 0x7f;
                    rest >>= 7;
                    if rest == 0 {
                        bytes.push(low);
                        return Some(());
                    }
                    bytes.push(low | 0x80);
                }
            }
            Self::Read(bytes) => {
                let mut value = 0_u64;
                for shift in (0..64_u32).step_by(7) {
                    let (byte, rest) = bytes.split_first()?;
                    *bytes = rest;
                    value |= u64::from(*byte & 0x7f).checked_shl(shift).unwrap_or(0);
                    if byte & 0x80 == 0 {
                        *word = value;
                        return Some(());
                    }
                }
                None
            }
        }
    }

    fn votes<T: Copy>(
        &mut self,
        votes: &mut Votes<T>,
        agents: usize,
        out: impl Fn(T) -> u64,
        back: impl Fn(u64) -> Option<T>,
    ) -> Option<()> {
        // Who wants anything, one bit each, then what.
        let mut present = votes.bits();
        self.word(&mut present)?;
        for (place, slot) in votes.slots().iter_mut().take(agents).enumerate() {
            if present & AgentId::new(place).bit() == 0 {
                *slot = None;
                continue;
            }
            let mut word = slot.map_or(0, &out);
            self.word(&mut word)?;
            // What is only saved in part stays whole where it is.
            if let Self::Read(_) = self {
                *slot = back(word);
            }
        }
        Some(())
    }

    fn set(&mut self, votes: &mut Votes<()>, agents: usize) -> Option<()> {
        let mut present = votes.bits();
        self.word(&mut present)?;
        for (place, slot) in votes.slots().iter_mut().take(agents).enumerate() {
            *slot = (present & AgentId::new(place).bit() != 0).then_some(());
        }
        Some(())
    }

    /// An agent, or nobody.
    fn agent(&mut self, agent: &mut Option<AgentId>, agents: usize) -> Option<()> {
        let mut word = agent.map_or(0, |agent| u64::from(agent.number()));
        self.word(&mut word)?;
        let index = usize::try_from(word).ok()?.checked_sub(1);
        *agent = index.filter(|index| *index < agents).map(AgentId::new);
        Some(())
    }

    /// A place in a list, or none.
    fn place(&mut self, place: &mut Option<usize>) -> Option<()> {
        let mut word = place.map_or(0, |place| {
            u64::try_from(place).unwrap_or(0).saturating_add(1)
        });
        self.word(&mut word)?;
        *place = usize::try_from(word).ok()?.checked_sub(1);
        Some(())
    }

    fn pair(&mut self, votes: &mut Votes<(u32, u32)>, agents: usize) -> Option<()> {
        let both = |(least, most): (u32, u32)| u64::from(least) | u64::from(most) << 32;
        self.votes(votes, agents, both, |word| {
            Some((low(word), low(word >> 32)))
        })
    }

    fn small(&mut self, votes: &mut Votes<u32>, agents: usize) -> Option<()> {
        self.votes(votes, agents, u64::from, |word| u32::try_from(word).ok())
    }
}

impl Platform {
    /// Appends what agents want to `bytes`.
    pub fn save(&mut self, bytes: &mut Vec<u8>) {
        // Writing cannot end early.
        let _ = self.exchange(&mut Codec::Write(bytes));
    }

    /// Takes over what [`Platform::save`] wrote for a platform of the same configuration. Reports
    /// of sensors go on from `now`. Whether it was; if not, nobody wants anything.
    pub fn restore(&mut self, bytes: &[u8], now: Duration) -> bool {
        let restored = self.exchange(&mut Codec::Read(bytes)).is_some();
        for agent in (0..self.agents.len()).map(AgentId::new) {
            if !restored {
                self.release(agent, now);
            }
            for of in &mut self.sensors {
                if of.reports.of(agent).is_some() {
                    let next = of.interval(agent).map(|i| now.saturating_add(i.duration()));
                    of.reports.set(agent, next);
                }
            }
        }
        for sensor in 0..self.sensors.len() {
            self.plan_trips(sensor, now);
        }
        self.plan_power(now);
        restored
    }

    /// Names and order of all resources and agents in one number.
    fn fingerprint(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |text: &str| {
            for byte in text.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for kind in Kind::ALL {
            add(kind.word());
            for index in 0..self.count(kind) {
                add(self.name(kind, index).unwrap_or_default());
            }
        }
        for agent in &self.agents {
            add(&agent.name);
        }
        hash
    }

    fn exchange(&mut self, codec: &mut Codec<'_>) -> Option<()> {
        // Nothing is added and nothing is named anew once it is all there.
        let names = self.names.unwrap_or_else(|| self.fingerprint());
        self.names = Some(names);
        for expected in [VERSION, names] {
            let mut word = expected;
            codec.word(&mut word)?;
            if word != expected {
                return None;
            }
        }
        self.exchange_rights(codec)?;
        let agents = self.agents.len();
        for agent in &mut self.agents {
            let mut flags = u64::from(agent.system_notify) | u64::from(agent.error_notify) << 1;
            codec.word(&mut flags)?;
            agent.system_notify = flags & 1 != 0;
            agent.error_notify = flags & 2 != 0;
        }
        self.exchange_later(codec)?;
        for agent in &mut self.agents {
            agent.exchange_responses(|event| exchange_event(codec, event), MOST_PENDING)?;
        }
        for of in &mut self.power {
            codec.set(&mut of.on, agents)?;
            codec.set(&mut of.notify, agents)?;
        }
        for of in &mut self.performance {
            codec.small(&mut of.level_votes, agents)?;
            codec.pair(&mut of.limit_votes, agents)?;
            codec.set(&mut of.notify_limits, agents)?;
            codec.set(&mut of.notify_level, agents)?;
        }
        for of in &mut self.clocks {
            codec.set(&mut of.on, agents)?;
            codec.votes(&mut of.rate_votes, agents, |rate| rate, Some)?;
            codec.small(&mut of.parent_votes, agents)?;
            codec.small(&mut of.duty, agents)?;
            codec.small(&mut of.phase, agents)?;
            codec.set(&mut of.notify, agents)?;
            codec.set(&mut of.notify_requests, agents)?;
        }
        for of in &mut self.sensors {
            codec.votes(&mut of.reports, agents, |_| 0, |_| Some(Duration::ZERO))?;
            codec.votes(
                &mut of.configs,
                agents,
                |config: SensorConfig| {
                    u64::from(config.enabled)
                        | u64::from(config.timestamps) << 1
                        | u64::from(config.interval) << 2
                },
                |word| {
                    Some(SensorConfig {
                        enabled: word & 1 != 0,
                        timestamps: word & 2 != 0,
                        interval: low(word >> 2),
                    })
                },
            )?;
            of.exchange_trips(|word| codec.word(word))?;
            codec.set(&mut of.notify_trips, agents)?;
        }
        for of in &mut self.resets {
            codec.set(&mut of.asserted, agents)?;
            codec.set(&mut of.notify, agents)?;
        }
        for of in &mut self.voltages {
            codec.set(&mut of.on, agents)?;
            codec.votes(
                &mut of.level_votes,
                agents,
                |level| u64::from(u32::from_le_bytes(level.to_le_bytes())),
                |word| Some(i32::from_le_bytes(low(word).to_le_bytes())),
            )?;
        }
        for of in &mut self.powercaps {
            codec.small(&mut of.cap_votes, agents)?;
            codec.small(&mut of.interval_votes, agents)?;
            codec.pair(&mut of.watchers, agents)?;
            codec.set(&mut of.notify, agents)?;
        }
        for of in &mut self.pins {
            codec.agent(&mut of.requested, agents)?;
            codec.agent(&mut of.set_by, agents)?;
            codec.place(&mut of.function)?;
            for value in of.settings.values_mut() {
                let mut word = u64::from(*value);
                codec.word(&mut word)?;
                *value = low(word);
            }
        }
        Some(())
    }
}

impl Platform {
    /// What agents may do now and the configuration does not say: a guest that can end the service
    /// must not get back what was taken away from it. A new configuration's access holds, as after
    /// a reload.
    fn exchange_rights(&mut self, codec: &mut Codec<'_>) -> Option<()> {
        let configured = self.configured;
        let mut word = configured;
        codec.word(&mut word)?;
        let known = self.policy.differences();
        let mut count = u64::try_from(known.len()).ok()?;
        codec.word(&mut count)?;
        let mut known = known.into_iter();
        let mut read = Vec::new();
        for _ in 0..count {
            let (mut place, mut what) = known.next().unwrap_or_default();
            codec.word(&mut place)?;
            codec.word(&mut what)?;
            read.push((place, what));
        }
        if let Codec::Read(_) = codec {
            self.policy.differ(&read, word == configured);
        }
        Some(())
    }

    /// Asynchronous commands under way. Restored ones are due at once: how much of their time had
    /// passed, nobody knows.
    fn exchange_later(&mut self, codec: &mut Codec<'_>) -> Option<()> {
        let mut count = u64::try_from(self.later.len()).ok()?;
        codec.word(&mut count)?;
        let mut old = std::mem::take(&mut self.later).into_iter();
        for _ in 0..count.min(MOST_PENDING) {
            let known = old.next();
            let mut words = known.as_ref().map_or([0; 6], later_words);
            for word in &mut words {
                codec.word(word)?;
            }
            let at = known.map_or(Duration::ZERO, |later| later.at);
            let ticket = known.and_then(|later| later.ticket);
            self.later.push(Later {
                at,
                ticket,
                ..later_of(words)?
            });
        }
        Some(())
    }
}

fn later_words(later: &Later) -> [u64; 6] {
    let place = |place: usize| u64::try_from(place).unwrap_or(u64::MAX);
    let (kind, index, value, respond) = match later.what {
        Clocked::Rate {
            clock,
            rate,
            respond,
        } => (0, clock, rate, respond),
        Clocked::Reading { sensor } => (1, sensor, 0, true),
        Clocked::Reset { domain, state } => (2, domain, state.into(), true),
        Clocked::Voltage { domain, level } => (
            3,
            domain,
            u32::from_le_bytes(level.to_le_bytes()).into(),
            true,
        ),
        Clocked::Cap {
            domain,
            cap,
            respond,
        } => (4, domain, cap.into(), respond),
    };
    [
        place(later.agent.index()),
        later.header.0.into(),
        kind,
        place(index),
        value,
        respond.into(),
    ]
}

fn later_of([agent, header, kind, index, value, respond]: [u64; 6]) -> Option<Later> {
    let index = usize::try_from(index).ok()?;
    let respond = respond != 0;
    let what = match kind {
        0 => Clocked::Rate {
            clock: index,
            rate: value,
            respond,
        },
        1 => Clocked::Reading { sensor: index },
        2 => Clocked::Reset {
            domain: index,
            state: low(value),
        },
        3 => {
            let level = i32::from_le_bytes(low(value).to_le_bytes());
            Clocked::Voltage {
                domain: index,
                level,
            }
        }
        4 => Clocked::Cap {
            domain: index,
            cap: low(value),
            respond,
        },
        _ => return None,
    };
    let agent = AgentId::new(usize::try_from(agent).ok()?);
    Some(Later {
        at: Duration::ZERO,
        agent,
        header: Header(low(header)),
        what,
        ticket: None,
    })
}

/// A response that was not sent yet: its length, then its bytes.
fn exchange_event(codec: &mut Codec<'_>, event: Option<Event>) -> Option<Event> {
    let bytes = event.as_ref().map_or(&[][..], Event::as_bytes);
    let mut len = u64::try_from(bytes.len()).ok()?;
    codec.word(&mut len)?;
    let mut restored = Event::of(&[]);
    for place in 0..usize::try_from(len).ok()?.min(HEADER_SIZE + MAX_PAYLOAD) {
        let mut byte = bytes.get(place).copied().unwrap_or(0).into();
        codec.word(&mut byte)?;
        restored.put(&byte.to_le_bytes()[..1]);
    }
    Some(restored)
}

/// The low half of a word.
fn low(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
