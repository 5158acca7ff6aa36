// SPDX-License-Identifier: Apache-2.0

//! Sensor management protocol 3.1 (SCMI 3.2, 4.7).

use std::time::Duration;

use crate::platform::{
    Clocked, Interval, Kind, Later, MAX_ASYNC, Sensor, SensorConfig, Trip, TripMode,
};
use crate::protocol::{Call, Outcome, Protocol, always, events, flag, long_name, page, small};
use crate::wire::{Reply, Request, Status, is_long};

const DESCRIPTION_GET: u8 = 0x3;
const TRIP_POINT_NOTIFY: u8 = 0x4;
const TRIP_POINT_CONFIG: u8 = 0x5;
const READING_GET: u8 = 0x6;
const AXIS_DESCRIPTION_GET: u8 = 0x7;
const LIST_UPDATE_INTERVALS: u8 = 0x8;
const CONFIG_GET: u8 = 0x9;
const CONFIG_SET: u8 = 0xa;
const CONTINUOUS_UPDATE_NOTIFY: u8 = 0xb;
const NAME_GET: u8 = 0xc;
const AXIS_NAME_GET: u8 = 0xd;

// attributes_low of a sensor.
const ASYNCHRONOUS: u32 = 1 << 31;
const NOTIFIES_UPDATES: u32 = 1 << 30;
const EXTENDED_NAME: u32 = 1 << 29;
const TIMESTAMPED: u32 = 1 << 9;
const EXTENDED_ATTRIBUTES: u32 = 1 << 8;
/// Time stamps are in units of 10^-9 s: bits 14:10.
const NANOSECONDS: u32 = 0x17 << 10;
// attributes_high of a sensor.
const HAS_AXES: u32 = 1 << 8;
// attributes_low of an axis.
const AXIS_EXTENDED_NAME: u32 = 1 << 9;

// Configuration.
const ENABLED: u32 = 1 << 0;
const TIMESTAMPS: u32 = 1 << 1;

const DESCRIPTION: usize = 28;
const SCALAR_ATTRIBUTES: usize = 24;
const AXIS_DESCRIPTION: usize = 28;
const AXIS_NAME: usize = 68;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x15,
    version: 0x3_0001,
    kind: Some(Kind::Sensor),
    commands: &[
        always(DESCRIPTION_GET),
        events(TRIP_POINT_NOTIFY),
        always(TRIP_POINT_CONFIG),
        always(READING_GET),
        always(AXIS_DESCRIPTION_GET),
        always(LIST_UPDATE_INTERVALS),
        always(CONFIG_GET),
        always(CONFIG_SET),
        events(CONTINUOUS_UPDATE_NOTIFY),
        always(NAME_GET),
        always(AXIS_NAME_GET),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    // Of those that the agent sees: an invisible one is not told of by what the others cannot do.
    let slow = (0_usize..)
        .zip(&call.platform.sensors)
        .any(|(index, of)| of.spec.read_us > 0 && call.sees(Kind::Sensor, index));
    let most = if slow && call.has_events() {
        MAX_ASYNC
    } else {
        0
    };
    reply.u32(call.count(Kind::Sensor) | u32::from(most) << 16);
    // No readings in shared memory: address and size 0.
    reply.u64(0);
    reply.u32(0);
}

fn sensor<'a>(call: &'a mut Call<'_>, number: u32) -> Result<(usize, &'a Sensor), Status> {
    let index = call.resource(Kind::Sensor, number)?;
    Ok((
        index,
        call.platform.sensors.get(index).ok_or(Status::NotFound)?,
    ))
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        DESCRIPTION_GET => describe(call, request, reply)?,
        TRIP_POINT_NOTIFY => {
            let [number, control] = request.words()?;
            let (index, _) = sensor(call, number)?;
            let now = (call.now)();
            call.platform
                .listen_trips(call.from, index, flag(control)?, now)?;
            call.platform.settled();
        }
        TRIP_POINT_CONFIG => set_trip(call, request)?,
        READING_GET => return read(call, request, reply),
        AXIS_DESCRIPTION_GET => describe_axes(call, request, reply)?,
        LIST_UPDATE_INTERVALS => {
            let [number, skip] = request.words()?;
            let (_, of) = sensor(call, number)?;
            if of.intervals.is_empty() {
                return Err(Status::NotSupported);
            }
            let room = reply.room().saturating_sub(4);
            let (skip, now, remaining) = page(of.intervals.len(), skip, room, 4)?;
            reply.u32(small(now) | remaining << 16);
            for interval in of.intervals.iter().skip(skip).take(now) {
                reply.u32(u32::from(interval.seconds) << 5 | interval.exponent_bits());
            }
        }
        CONFIG_GET => {
            let [number] = request.words()?;
            let from = call.from;
            let (_, of) = sensor(call, number)?;
            let config = of.config(from);
            let mut word = of.interval(from).map_or(0, |interval| {
                u32::from(interval.seconds) << 16 | interval.exponent_bits() << 11
            });
            word |= if config.timestamps { TIMESTAMPS } else { 0 };
            word |= if config.enabled { ENABLED } else { 0 };
            reply.u32(word);
        }
        CONFIG_SET => set_config(call, request)?,
        CONTINUOUS_UPDATE_NOTIFY => {
            let [number, control] = request.words()?;
            let (index, _) = sensor(call, number)?;
            let now = (call.now)();
            call.platform
                .listen_updates(call.from, index, flag(control)?, now)?;
            call.platform.settled();
        }
        NAME_GET => {
            let [number] = request.words()?;
            let (_, of) = sensor(call, number)?;
            return Ok(long_name(&of.spec.name, reply));
        }
        AXIS_NAME_GET => name_axes(call, request, reply)?,
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

fn has_attributes(of: &Sensor) -> bool {
    of.is_scalar() && of.spec.range.is_some()
}

/// Five bits of a power of ten, at bit 11.
fn scale_bits(scale: i8) -> u32 {
    u32::from(scale.to_le_bytes()[0] & 0x1f) << 11
}

fn describe(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [first] = request.words()?;
    let total = call.count(Kind::Sensor);
    if first >= total {
        return Err(Status::OutOfRange);
    }
    // Sensors that a trusted agent has taken away are still described: their numbers stay.
    let visible = |number| {
        let index = call
            .platform
            .policy
            .resolve(call.from, Kind::Sensor, number)
            .ok()?;
        Some((number, call.platform.sensors.get(index)?))
    };
    let mut room = reply.room().saturating_sub(4);
    let mut now = 0_u32;
    for (_, of) in (first..total).map_while(visible) {
        let size = if has_attributes(of) {
            DESCRIPTION + SCALAR_ATTRIBUTES
        } else {
            DESCRIPTION
        };
        match room.checked_sub(size) {
            Some(left) => room = left,
            None => break,
        }
        now = now.saturating_add(1);
    }
    if now == 0 {
        return Err(Status::ProtocolError);
    }
    let remaining = total.saturating_sub(first).saturating_sub(now);
    reply.u32(now | remaining << 16);
    let end = first.saturating_add(now);
    for (number, of) in (first..end).map_while(visible) {
        let (low, high) = description(of, call.has_events());
        reply.u32(number);
        reply.u32(low);
        reply.u32(high);
        reply.short_name(&of.spec.name);
        if has_attributes(of) {
            let [least, most] = of.spec.range.unwrap_or_default();
            reply.u32(0);
            reply.u32(of.spec.resolution & 0x7ff_ffff);
            reply.i64(least);
            reply.i64(most);
        }
    }
    Ok(())
}

fn description(of: &Sensor, events: bool) -> (u32, u32) {
    let mut low = u32::from(of.spec.trip_points);
    if events {
        low |= if of.spec.read_us > 0 { ASYNCHRONOUS } else { 0 };
        low |= if of.intervals.is_empty() {
            0
        } else {
            NOTIFIES_UPDATES
        };
    }
    low |= if is_long(&of.spec.name) {
        EXTENDED_NAME
    } else {
        0
    };
    low |= if of.spec.timestamps {
        TIMESTAMPED | NANOSECONDS
    } else {
        0
    };
    low |= if has_attributes(of) {
        EXTENDED_ATTRIBUTES
    } else {
        0
    };
    let mut high = u32::from(of.unit) | scale_bits(of.spec.scale);
    if !of.is_scalar() {
        high |= HAS_AXES | small(of.axes.len()) << 16;
    }
    (low, high)
}

fn describe_axes(
    call: &mut Call<'_>,
    request: Request<'_>,
    reply: &mut Reply,
) -> Result<(), Status> {
    let [number, skip] = request.words()?;
    let (_, of) = sensor(call, number)?;
    if of.is_scalar() {
        return Err(Status::NotSupported);
    }
    let room = reply.room().saturating_sub(4);
    let (skip, now, remaining) = page(of.axes.len(), skip, room, AXIS_DESCRIPTION)?;
    reply.u32(small(now) | remaining << 26);
    for (id, axis) in (0_u32..).zip(&of.axes).skip(skip).take(now) {
        reply.u32(id);
        reply.u32(if is_long(&axis.name) {
            AXIS_EXTENDED_NAME
        } else {
            0
        });
        reply.u32(u32::from(of.unit) | scale_bits(of.spec.scale));
        reply.short_name(&axis.name);
    }
    Ok(())
}

fn name_axes(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number, skip] = request.words()?;
    let (_, of) = sensor(call, number)?;
    if of.is_scalar() {
        return Err(Status::NotSupported);
    }
    let room = reply.room().saturating_sub(4);
    let (skip, now, remaining) = page(of.axes.len(), skip, room, AXIS_NAME)?;
    reply.u32(small(now) | remaining << 26);
    for (id, axis) in (0_u32..).zip(&of.axes).skip(skip).take(now) {
        reply.u32(id);
        reply.long_name(&axis.name);
    }
    Ok(())
}

fn set_trip(call: &mut Call<'_>, request: Request<'_>) -> Result<(), Status> {
    let [number, control, low, high] = request.words()?;
    let (index, _) = sensor(call, number)?;
    if control & !0xff3 != 0 {
        return Err(Status::InvalidParameters);
    }
    let mode = match control & 3 {
        0 => TripMode::Off,
        1 => TripMode::Rising,
        2 => TripMode::Falling,
        _ => TripMode::Both,
    };
    let trip = Trip {
        agent: call.from,
        id: (control >> 4).to_le_bytes()[0],
        mode,
        value: i64::from_le_bytes((u64::from(low) | u64::from(high) << 32).to_le_bytes()),
    };
    let now = (call.now)();
    call.platform.set_trip(index, trip, now)?;
    call.platform.settled();
    Ok(())
}

fn read(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    let [number, flags] = request.words()?;
    let later = flag(flags)?;
    let (index, of) = sensor(call, number)?;
    if later {
        let takes = of.spec.read_us;
        if takes == 0 {
            return Err(Status::NotSupported);
        }
        call.platform.start_later(Later {
            at: (call.now)().saturating_add(Duration::from_micros(takes)),
            agent: call.from,
            header: call.header,
            what: Clocked::Reading { sensor: index },
            ticket: None,
        })?;
        return Ok(Outcome::Begun);
    }
    if of.is_bound() && !of.has_fault() {
        return Ok(Outcome::Held(call.platform.measure(call.from, index)));
    }
    let now = (call.now)();
    let of = call.platform.sensors.get(index).ok_or(Status::NotFound)?;
    let nanos = of.stamp(call.from, now);
    for value in of.values(now)? {
        reply.i64(value);
        reply.u64(nanos);
    }
    Ok(Outcome::Done)
}

fn set_config(call: &mut Call<'_>, request: Request<'_>) -> Result<(), Status> {
    let [number, word] = request.words()?;
    let from = call.from;
    let (index, of) = sensor(call, number)?;
    if word & 0x1fc != 0 || word >> 9 & 3 == 3 {
        return Err(Status::InvalidParameters);
    }
    let timestamps = word & TIMESTAMPS != 0;
    if timestamps && !of.spec.timestamps {
        return Err(Status::NotSupported);
    }
    let interval = match word >> 16 {
        0 => of.config(from).interval,
        _ if of.intervals.is_empty() => return Err(Status::InvalidParameters),
        seconds => nearest(of, seconds, word >> 11 & 0x1f),
    };
    let config = SensorConfig {
        enabled: word & ENABLED != 0,
        timestamps,
        interval,
    };
    let now = (call.now)();
    call.platform.configure_sensor(from, index, config, now)
}

/// The place of the sensor's interval that is nearest to what was asked for.
fn nearest(of: &Sensor, seconds: u32, exponent: u32) -> u32 {
    let sign = if exponent & 0x10 != 0 { 0xe0 } else { 0 };
    let [low, ..] = exponent.to_le_bytes();
    let wish = Interval {
        seconds: u16::try_from(seconds).unwrap_or(u16::MAX),
        exponent: i8::from_le_bytes([low | sign]),
    };
    let wish = wish.duration();
    let distance = |interval: &Interval| interval.duration().abs_diff(wish);
    let places = (0_u32..).zip(&of.intervals);
    places
        .min_by_key(|(_, interval)| distance(interval))
        .map_or(0, |(place, _)| place)
}
