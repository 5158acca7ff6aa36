// SPDX-License-Identifier: Apache-2.0

//! Sensors: simulated ones follow a wave, bound ones are read by the back end. Trip points, update
//! intervals and time stamps belong to the agent that set them.

use std::time::Duration;

use serde::Deserialize;

use crate::backend::{Job, Ticket};
use crate::platform::{AgentId, Kind, Platform, Votes, Waveform, at, at_mut};
use crate::wire::{Event, Header, Status};

/// How often sensors with trip points are looked at.
const TRIP_PERIOD: Duration = Duration::from_millis(50);
/// The shortest time between two reports of a sensor.
const SHORTEST: Duration = Duration::from_millis(1);
/// In the set of agents that wait for the back end: trip points do.
const LOOKING: u64 = 1 << 63;
/// Trip points that are restored at most: all that agents can set.
const MOST_TRIPS: u64 = 256 * 16;
/// Axes of a sensor at most: more readings do not fit a message.
pub const MOST_AXES: usize = 7;

/// One axis of a sensor, as configured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AxisSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// How a simulated value moves.
    pub wave: Waveform,
    /// `linux` back end: the file with the value, below sysfs.
    pub file: Option<String>,
}

/// A sensor, as configured.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SensorSpec {
    /// Name, at most 63 bytes.
    pub name: String,
    /// Its unit, as [`unit_code`] knows it.
    pub unit: String,
    /// Its values are in units of ten to this power.
    pub scale: i8,
    /// Its axes; none for a sensor with one value.
    pub axes: Vec<AxisSpec>,
    /// How the simulated value moves.
    pub wave: Waveform,
    /// `linux` back end: the file with the value, below sysfs.
    pub file: Option<String>,
    /// `linux` back end: what the file says is multiplied by the first and divided by the second.
    pub factor: [i64; 2],
    /// Trip points each agent has.
    pub trip_points: u8,
    /// The intervals at which it can report, in ms.
    pub intervals_ms: Vec<u32>,
    /// Readings carry the time.
    pub timestamps: bool,
    /// The least and the most value it can have.
    pub range: Option<[i64; 2]>,
    /// The smallest difference it can tell, in its unit and scale; needs `range`.
    pub resolution: u32,
    /// How long a reading takes, in µs; from 1 on agents are told to read asynchronously.
    pub read_us: u64,
}

impl Default for SensorSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            unit: "none".into(),
            scale: 0,
            axes: Vec::new(),
            wave: Waveform::default(),
            file: None,
            factor: [1, 1],
            trip_points: 0,
            intervals_ms: Vec::new(),
            timestamps: true,
            range: None,
            resolution: 0,
            read_us: 0,
        }
    }
}

/// The number of a unit (SCMI 3.2, 4.7.1, after DSP0249); `None` for a word that is none.
#[must_use]
pub fn unit_code(word: &str) -> Option<u8> {
    const UNITS: &[(&str, u8)] = &[
        ("none", 0x00),
        ("unspecified", 0x01),
        ("celsius", 0x02),
        ("fahrenheit", 0x03),
        ("kelvin", 0x04),
        ("volt", 0x05),
        ("ampere", 0x06),
        ("watt", 0x07),
        ("joule", 0x08),
        ("coulomb", 0x09),
        ("nit", 0x0b),
        ("lumen", 0x0c),
        ("lux", 0x0d),
        ("kilopascal", 0x0f),
        ("rpm", 0x13),
        ("hertz", 0x14),
        ("second", 0x15),
        ("metre", 0x1f),
        ("radian", 0x24),
        ("gravity", 0x28),
        ("gauss", 0x2d),
        ("ohm", 0x31),
        ("decibel", 0x36),
        ("percent", 0x41),
        ("pascal", 0x42),
        ("count", 0x43),
        ("newton-metre", 0x45),
        ("radian-per-second", 0x57),
        ("beat-per-minute", 0x58),
        ("metre-per-second-squared", 0x59),
        ("metre-per-second", 0x5a),
        ("radian-per-second-squared", 0x5d),
        ("oem", 0xff),
    ];
    UNITS
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, code)| *code)
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Its name; empty for the only value of a scalar sensor.
    pub name: String,
    wave: Waveform,
    /// The file of a bound sensor.
    pub file: Option<String>,
    injected: Option<i64>,
}

/// When a trip point speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TripMode {
    /// Never.
    Off,
    /// When the value rises to it or beyond.
    Rising,
    /// When the value falls below it.
    Falling,
    /// Both.
    Both,
}

impl TripMode {
    /// All modes, by their number on the wire.
    pub const ALL: [Self; 4] = [Self::Off, Self::Rising, Self::Falling, Self::Both];
}

/// A trip point of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Trip {
    /// Whose.
    pub agent: AgentId,
    /// Which of the agent's.
    pub id: u8,
    /// When it speaks.
    pub mode: TripMode,
    /// The value.
    pub value: i64,
}

/// A time between two reports, as the wire has it: seconds times ten to the power.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interval {
    /// Mantissa in seconds.
    pub seconds: u16,
    /// Exponent, -16 to 15.
    pub exponent: i8,
}

impl Interval {
    /// An interval of milliseconds; beyond a minute in whole seconds.
    #[must_use]
    pub fn from_millis(millis: u32) -> Self {
        match u16::try_from(millis) {
            Ok(seconds) => Self {
                seconds,
                exponent: -3,
            },
            Err(_) => {
                let seconds = u16::try_from(millis / 1000).unwrap_or(u16::MAX);
                Self {
                    seconds,
                    exponent: 0,
                }
            }
        }
    }

    /// How long it is, between a nanosecond and what a word can say.
    #[must_use]
    pub fn duration(self) -> Duration {
        let power = i32::from(self.exponent).saturating_add(9);
        let nanos = u64::from(self.seconds);
        let ten = |power: u32| 10_u64.checked_pow(power).unwrap_or(u64::MAX);
        Duration::from_nanos(if power >= 0 {
            nanos.saturating_mul(ten(power.unsigned_abs()))
        } else {
            nanos.checked_div(ten(power.unsigned_abs())).unwrap_or(0)
        })
    }

    /// The five bits of the exponent.
    #[must_use]
    pub fn exponent_bits(self) -> u32 {
        u32::from(self.exponent.to_le_bytes()[0] & 0x1f)
    }
}

/// What an agent has configured.
#[derive(Clone, Copy, Debug)]
pub struct SensorConfig {
    /// Whether the sensor reports.
    pub enabled: bool,
    /// Whether readings carry the time.
    pub timestamps: bool,
    /// Place in the list of intervals.
    pub interval: u32,
}

/// A sensor.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// As configured.
    pub spec: SensorSpec,
    /// Its unit's number.
    pub unit: u8,
    /// Its axes, or its only value.
    pub axes: Vec<Axis>,
    /// Its intervals.
    pub intervals: Vec<Interval>,
    /// Who wants to hear of trip points.
    pub notify_trips: Votes<()>,
    /// Who wants each new value, and when next.
    pub(super) reports: Votes<Duration>,
    pub(super) configs: Votes<SensorConfig>,
    trips: Vec<Trip>,
    next_trip_look: Option<Duration>,
    last: Option<i64>,
    fault: bool,
    /// Agents whose report waits for the back end.
    awaiting: u64,
}

impl Sensor {
    /// A sensor as it is after start.
    #[must_use]
    pub fn new(spec: SensorSpec) -> Self {
        let axis = |name: &str, wave: &Waveform, file: &Option<String>| Axis {
            name: name.to_owned(),
            wave: wave.clone(),
            file: file.clone(),
            injected: None,
        };
        let axes = if spec.axes.is_empty() {
            vec![axis("", &spec.wave, &spec.file)]
        } else {
            spec.axes
                .iter()
                .map(|of| axis(&of.name, &of.wave, &of.file))
                .collect()
        };
        Self {
            unit: unit_code(&spec.unit).unwrap_or(0),
            axes,
            intervals: spec
                .intervals_ms
                .iter()
                .copied()
                .map(Interval::from_millis)
                .collect(),
            notify_trips: Votes::default(),
            reports: Votes::default(),
            configs: Votes::default(),
            trips: Vec::new(),
            next_trip_look: None,
            last: None,
            fault: false,
            awaiting: 0,
            spec,
        }
    }

    /// Whether it has one value only.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        self.spec.axes.is_empty()
    }

    /// Whether the back end reads it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.axes.iter().any(|axis| axis.file.is_some())
    }

    /// The time that a reading carries for an agent, in nanoseconds; 0 where the sensor has none
    /// or the agent wants none.
    #[must_use]
    pub fn stamp(&self, agent: AgentId, now: Duration) -> u64 {
        if self.spec.timestamps && self.config(agent).timestamps {
            u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
        } else {
            0
        }
    }

    /// What an agent has configured, or what holds without.
    #[must_use]
    pub fn config(&self, agent: AgentId) -> SensorConfig {
        let timestamps = self.spec.timestamps;
        let default = SensorConfig {
            enabled: true,
            timestamps,
            interval: 0,
        };
        self.configs.of(agent).unwrap_or(default)
    }

    /// The interval an agent has chosen.
    #[must_use]
    pub fn interval(&self, agent: AgentId) -> Option<Interval> {
        let place = usize::try_from(self.config(agent).interval).ok()?;
        self.intervals.get(place).copied()
    }

    fn is_tripping(&self) -> bool {
        let listening = self.notify_trips.bits();
        let mut trips = self.trips.iter();
        trips.any(|trip| trip.mode != TripMode::Off && listening & trip.agent.bit() != 0)
    }

    /// Puts a value in the place of the simulated one, or takes it back.
    pub fn inject(&mut self, axis: usize, value: Option<i64>) -> bool {
        let axis = self.axes.get_mut(axis);
        axis.is_some_and(|axis| {
            axis.injected = value;
            true
        })
    }

    /// Makes every reading fail, or heals it.
    pub fn set_fault(&mut self, fault: bool) {
        self.fault = fault;
    }

    /// Whether readings fail.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.fault
    }

    /// Saves the trip points word by word, or replaces them by what was saved.
    pub(super) fn exchange_trips(
        &mut self,
        mut word: impl FnMut(&mut u64) -> Option<()>,
    ) -> Option<()> {
        let mut count = u64::try_from(self.trips.len()).unwrap_or(0);
        word(&mut count)?;
        let mut trips = std::mem::take(&mut self.trips).into_iter();
        for _ in 0..count.min(MOST_TRIPS) {
            let trip = trips.next();
            let mut place = trip.map_or(0, |trip| {
                let mode = TripMode::ALL.iter().position(|mode| *mode == trip.mode);
                let mode = u64::try_from(mode.unwrap_or(0)).unwrap_or(0);
                u64::from(trip.agent.number()) << 16 | u64::from(trip.id) << 8 | mode
            });
            let mut value = trip.map_or(0, |trip| u64::from_le_bytes(trip.value.to_le_bytes()));
            word(&mut place)?;
            word(&mut value)?;
            let [mode, id, agent, ..] = place.to_le_bytes();
            self.trips.push(Trip {
                agent: AgentId::new(usize::from(agent).checked_sub(1)?),
                id,
                mode: *TripMode::ALL.get(usize::from(mode))?,
                value: i64::from_le_bytes(value.to_le_bytes()),
            });
        }
        Some(())
    }

    /// Values at an instant, as far as they are known without the back end.
    ///
    /// # Errors
    /// [`Status::HardwareError`] for a fault.
    pub fn values(&self, now: Duration) -> Result<impl Iterator<Item = i64> + '_, Status> {
        if self.fault {
            return Err(Status::HardwareError);
        }
        let range = self.spec.range.unwrap_or([i64::MIN, i64::MAX]);
        let value = move |axis: &Axis| {
            let value = axis.injected.unwrap_or_else(|| axis.wave.at(now));
            let [least, most] = range;
            value.max(least).min(most)
        };
        Ok(self.axes.iter().map(value))
    }
}

impl Platform {
    /// Whether a reading needs the back end.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn needs_backend(&self, sensor: usize) -> Result<bool, Status> {
        Ok(at(&self.sensors, sensor)?.is_bound())
    }

    /// Asks the back end; the answer to the command comes with the ticket.
    pub fn measure(&mut self, agent: AgentId, sensor: usize) -> Ticket {
        self.hold(agent, |ticket| Job::Measure { sensor, ticket })
    }

    /// Sets a trip point of an agent.
    ///
    /// # Errors
    /// [`Status::InvalidParameters`] for a trip point that the sensor has not.
    pub fn set_trip(&mut self, sensor: usize, trip: Trip, now: Duration) -> Result<(), Status> {
        let of = at_mut(&mut self.sensors, sensor)?;
        if trip.id >= of.spec.trip_points {
            return Err(Status::InvalidParameters);
        }
        of.trips
            .retain(|other| (other.agent, other.id) != (trip.agent, trip.id));
        if trip.mode != TripMode::Off {
            of.trips.push(trip);
        }
        self.plan_trips(sensor, now);
        Ok(())
    }

    /// An agent wants to hear of trip points, or not any more.
    ///
    /// # Errors
    /// [`Status::NotSupported`] for a sensor without them.
    pub fn listen_trips(
        &mut self,
        agent: AgentId,
        sensor: usize,
        on: bool,
        now: Duration,
    ) -> Result<(), Status> {
        let of = at_mut(&mut self.sensors, sensor)?;
        if of.spec.trip_points == 0 {
            return Err(Status::NotSupported);
        }
        of.notify_trips.set(agent, on.then_some(()));
        self.plan_trips(sensor, now);
        Ok(())
    }

    pub(super) fn plan_trips(&mut self, sensor: usize, now: Duration) {
        if let Some(of) = self.sensors.get_mut(sensor) {
            let wanted = of.is_tripping();
            of.next_trip_look = match of.next_trip_look {
                Some(at) if wanted => Some(at),
                _ => wanted.then_some(now),
            };
            if !wanted {
                of.last = None;
            }
        }
    }

    /// An agent wants each new value, or not any more.
    ///
    /// # Errors
    /// [`Status::NotSupported`] for a sensor that does not report.
    pub fn listen_updates(
        &mut self,
        agent: AgentId,
        sensor: usize,
        on: bool,
        now: Duration,
    ) -> Result<(), Status> {
        let of = at_mut(&mut self.sensors, sensor)?;
        if of.intervals.is_empty() {
            return Err(Status::NotSupported);
        }
        let first = of
            .interval(agent)
            .map(|interval| now.saturating_add(interval.duration()));
        of.reports.set(agent, first.filter(|_| on));
        Ok(())
    }

    /// An agent configures a sensor.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn configure_sensor(
        &mut self,
        agent: AgentId,
        sensor: usize,
        config: SensorConfig,
        now: Duration,
    ) -> Result<(), Status> {
        let of = at_mut(&mut self.sensors, sensor)?;
        of.configs.set(agent, Some(config));
        if of.reports.of(agent).is_some() {
            let next = of
                .interval(agent)
                .map(|interval| now.saturating_add(interval.duration()));
            of.reports.set(agent, next);
        }
        self.changed();
        Ok(())
    }

    pub(super) fn next_report(&self) -> Option<Duration> {
        let next = |of: &Sensor| {
            let reports = of
                .reports
                .by_agent()
                .filter(|(agent, _)| of.config(*agent).enabled)
                .map(|(_, at)| at)
                .min();
            [reports, of.next_trip_look].into_iter().flatten().min()
        };
        self.sensors.iter().filter_map(next).min()
    }

    pub(super) fn report_sensors(&mut self, now: Duration) {
        for sensor in 0..self.sensors.len() {
            let Some(of) = self.sensors.get_mut(sensor) else {
                continue;
            };
            let mut due = 0;
            for (agent, at) in Votes::clone(&of.reports).by_agent() {
                if at > now || !of.config(agent).enabled {
                    continue;
                }
                due |= agent.bit();
                let step = of
                    .interval(agent)
                    .map_or(SHORTEST, Interval::duration)
                    .max(SHORTEST);
                // In step with the first report, unless it was missed by more than one interval.
                let next = at.saturating_add(step);
                let next = if next > now {
                    next
                } else {
                    now.saturating_add(step)
                };
                of.reports.set(agent, Some(next));
            }
            let look = of.next_trip_look.is_some_and(|at| at <= now);
            if look {
                of.next_trip_look = Some(now.saturating_add(TRIP_PERIOD));
            }
            if due == 0 && !look {
                continue;
            }
            if of.is_bound() {
                let idle = of.awaiting == 0;
                of.awaiting |= due | if look { LOOKING } else { 0 };
                if idle && of.awaiting != 0 {
                    self.jobs.push(Job::Measure {
                        sensor,
                        ticket: None,
                    });
                }
            } else {
                self.tell(sensor, due, None, now);
            }
        }
    }

    /// Sends a new value to agents, and what it trips.
    fn tell(&mut self, sensor: usize, due: u64, values: Option<&[i64]>, now: Duration) {
        let Some(of) = self.sensors.get_mut(sensor) else {
            return;
        };
        let read: Vec<i64> = match (values, of.values(now)) {
            (Some(values), _) => values.to_vec(),
            (None, Ok(values)) => values.collect(),
            // A sensor that fails has nothing to report.
            (None, Err(_)) => return,
        };
        let Some(first) = read.first().copied() else {
            return;
        };
        let before = of.last.replace(first);
        let tripped: Vec<(AgentId, u32)> = of
            .trips
            .iter()
            .filter(|trip| of.notify_trips.of(trip.agent).is_some())
            .filter_map(|trip| {
                let was = before? >= trip.value;
                let is = first >= trip.value;
                let speaks = match trip.mode {
                    TripMode::Off => false,
                    TripMode::Rising => !was && is,
                    TripMode::Falling => was && !is,
                    TripMode::Both => was != is,
                };
                speaks.then_some((trip.agent, u32::from(trip.id) | u32::from(is) << 16))
            })
            .collect();
        for (agent, what) in tripped {
            if let Some(number) = self.number_to_tell(agent, Kind::Sensor, sensor) {
                // Nobody caused it: agent 0, the platform.
                self.post(agent, Event::notification(0x15, 0, &[0, number, what]));
            }
        }
        for agent in (0..self.agents.len()).map(AgentId::new) {
            let told = (due & agent.bit() != 0)
                .then(|| self.number_to_tell(agent, Kind::Sensor, sensor))
                .flatten();
            let (Some(number), Some(of)) = (told, self.sensors.get(sensor)) else {
                continue;
            };
            let nanos = of.stamp(agent, now);
            let mut event = Event::notification(0x15, 1, &[0, number]);
            for value in &read {
                event.put(&value.to_le_bytes());
                event.put(&nanos.to_le_bytes());
            }
            self.post(agent, event);
        }
    }

    /// The back end has read a sensor.
    pub(super) fn measured(
        &mut self,
        sensor: usize,
        values: Result<&[i64], Status>,
        ticket: Option<Ticket>,
        now: Duration,
    ) {
        if let Some(ticket) = ticket {
            let of = self.sensors.get(sensor);
            let nanos = of.map_or(0, |of| of.stamp(ticket.agent, now));
            let mut payload = Vec::new();
            for value in values.unwrap_or_default() {
                payload.extend_from_slice(&value.to_le_bytes());
                payload.extend_from_slice(&nanos.to_le_bytes());
            }
            self.answer(ticket, values.map(|_| ()), payload);
            return;
        }
        let waiting = self
            .sensors
            .get_mut(sensor)
            .map_or(0, |of| std::mem::take(&mut of.awaiting));
        if let Ok(values) = values {
            self.tell(sensor, waiting, Some(values), now);
        }
    }

    pub(super) fn finish_reading(
        &mut self,
        agent: AgentId,
        header: Header,
        sensor: usize,
        now: Duration,
    ) {
        let Some(number) = self.number_to_tell(agent, Kind::Sensor, sensor) else {
            // It was taken away since.
            let status = self.denied(agent);
            self.respond(agent, Event::delayed(header, Err(status)));
            return;
        };
        let Some(of) = self.sensors.get(sensor) else {
            return;
        };
        let event = match of.values(now) {
            Ok(values) => {
                let mut event = Event::delayed(header, Ok(()));
                event.put(&number.to_le_bytes());
                let nanos = of.stamp(agent, now);
                for value in values {
                    event.put(&value.to_le_bytes());
                    event.put(&nanos.to_le_bytes());
                }
                event
            }
            Err(status) => Event::delayed(header, Err(status)),
        };
        self.respond(agent, event);
    }

    pub(super) fn release_sensors(&mut self, agent: AgentId) {
        for of in &mut self.sensors {
            of.notify_trips.set(agent, None);
            of.reports.set(agent, None);
            of.configs.set(agent, None);
            of.trips.retain(|trip| trip.agent != agent);
            of.awaiting &= !agent.bit();
            if !of.is_tripping() {
                of.next_trip_look = None;
                of.last = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_long_as_its_words_say() {
        let table = [
            (
                Interval {
                    seconds: 100,
                    exponent: -3,
                },
                Duration::from_millis(100),
            ),
            (
                Interval {
                    seconds: 7,
                    exponent: 0,
                },
                Duration::from_secs(7),
            ),
            (
                Interval {
                    seconds: 7,
                    exponent: 2,
                },
                Duration::from_secs(700),
            ),
            (
                Interval {
                    seconds: 9,
                    exponent: -16,
                },
                Duration::ZERO,
            ),
        ];
        for (interval, duration) in table {
            assert_eq!(interval.duration(), duration, "{interval:?}");
        }
        assert_eq!(Interval::from_millis(100).exponent_bits(), 0x1d);
        assert_eq!(
            Interval::from_millis(90_000),
            Interval {
                seconds: 90,
                exponent: 0
            }
        );
        let _ = Interval {
            seconds: u16::MAX,
            exponent: 15,
        }
        .duration();
    }

    #[test]
    fn an_injected_value_replaces_the_wave_until_it_is_taken_back() {
        let wave = Waveform {
            mean: 5,
            ..Waveform::default()
        };
        let mut sensor = Sensor::new(SensorSpec {
            wave,
            ..SensorSpec::default()
        });
        let value = |sensor: &Sensor| sensor.values(Duration::ZERO).map(|mut v| v.next().unwrap());
        assert_eq!(value(&sensor), Ok(5));
        assert!(sensor.inject(0, Some(9)));
        assert!(!sensor.inject(1, Some(9)));
        assert_eq!(value(&sensor), Ok(9));
        sensor.set_fault(true);
        assert_eq!(value(&sensor), Err(Status::HardwareError));
        sensor.set_fault(false);
        sensor.inject(0, None);
        assert_eq!(value(&sensor), Ok(5));
    }
}
