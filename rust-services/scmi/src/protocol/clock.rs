// SPDX-License-Identifier: Apache-2.0

//! Clock management protocol 3.0 (SCMI 3.2, 4.6).

use std::time::Duration;

use crate::platform::{ClockShape, Clocked, Kind, Later, MAX_ASYNC, Rates, Rounding};
use crate::protocol::{Call, Outcome, Protocol, always, events, flag, long_name, page, small};
use crate::wire::{Reply, Request, Status, is_long};

const CLOCK_ATTRIBUTES: u8 = 0x3;
const DESCRIBE_RATES: u8 = 0x4;
const RATE_SET: u8 = 0x5;
const RATE_GET: u8 = 0x6;
const CONFIG_SET: u8 = 0x7;
const NAME_GET: u8 = 0x8;
const RATE_NOTIFY: u8 = 0x9;
const RATE_CHANGE_REQUESTED_NOTIFY: u8 = 0xa;
const CONFIG_GET: u8 = 0xb;
const POSSIBLE_PARENTS_GET: u8 = 0xc;
const PARENT_SET: u8 = 0xd;
const PARENT_GET: u8 = 0xe;
const GET_PERMISSIONS: u8 = 0xf;

const NOTIFIES_RATE: u32 = 1 << 31;
const NOTIFIES_REQUESTS: u32 = 1 << 30;
const EXTENDED_NAME: u32 = 1 << 29;
const HAS_PARENTS: u32 = 1 << 28;
const EXTENDED_CONFIG: u32 = 1 << 27;
const TELLS_PERMISSIONS: u32 = 1 << 1;
const ENABLED: u32 = 1 << 0;

const RATE_ASYNC: u32 = 1 << 0;
const RATE_NO_RESPONSE: u32 = 1 << 1;
const RATE_ROUND_UP: u32 = 1 << 2;
const RATE_ROUND_NEAREST: u32 = 1 << 3;

const STEPPED: u32 = 1 << 12;
const STATE_ALLOWED: u32 = 1 << 31;
const PARENT_ALLOWED: u32 = 1 << 30;
const RATE_ALLOWED: u32 = 1 << 29;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x14,
    version: 0x3_0000,
    kind: Some(Kind::Clock),
    commands: &[
        always(CLOCK_ATTRIBUTES),
        always(DESCRIBE_RATES),
        always(RATE_SET),
        always(RATE_GET),
        always(CONFIG_SET),
        always(NAME_GET),
        events(RATE_NOTIFY),
        events(RATE_CHANGE_REQUESTED_NOTIFY),
        always(CONFIG_GET),
        always(POSSIBLE_PARENTS_GET),
        always(PARENT_SET),
        always(PARENT_GET),
        always(GET_PERMISSIONS),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    let slow = (0_usize..)
        .zip(&call.platform.clocks)
        .any(|(index, of)| of.spec.settle_us > 0 && call.sees(Kind::Clock, index));
    let most = if slow && call.has_events() {
        MAX_ASYNC
    } else {
        0
    };
    reply.u32(call.count(Kind::Clock) | u32::from(most) << 16);
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        CLOCK_ATTRIBUTES => describe(call, request, reply)?,
        DESCRIBE_RATES => describe_rates(call, request, reply)?,
        RATE_SET => return set_rate(call, request),
        RATE_GET => {
            let [number] = request.words()?;
            let clock = call.resource(Kind::Clock, number)?;
            reply.u64(call.platform.clock_rate(clock));
        }
        CONFIG_SET => return set_config(call, request),
        NAME_GET => {
            let [number] = request.words()?;
            let clock = call.resource(Kind::Clock, number)?;
            let name = call.platform.name(Kind::Clock, clock).unwrap_or_default();
            return Ok(long_name(name, reply));
        }
        RATE_NOTIFY | RATE_CHANGE_REQUESTED_NOTIFY => {
            let [number, enable] = request.words()?;
            let clock = call.resource(Kind::Clock, number)?;
            let vote = flag(enable)?.then_some(());
            let rates = call.header.message() == RATE_NOTIFY;
            if let Some(of) = call.platform.clocks.get_mut(clock) {
                let votes = if rates {
                    &mut of.notify
                } else {
                    &mut of.notify_requests
                };
                votes.set(call.from, vote);
            }
            call.platform.settled();
        }
        CONFIG_GET => get_config(call, request, reply)?,
        POSSIBLE_PARENTS_GET => possible_parents(call, request, reply)?,
        PARENT_SET => {
            let [number, parent] = request.words()?;
            let clock = call.resource(Kind::Clock, number)?;
            let parent = call
                .platform
                .policy
                .resolve(call.from, Kind::Clock, parent)?;
            let from = call.from;
            return call.change(Kind::Clock, clock, |platform| {
                platform.choose_parent(from, clock, parent)
            });
        }
        PARENT_GET => {
            let [number] = request.words()?;
            let clock = call.resource(Kind::Clock, number)?;
            let parent = call
                .platform
                .clocks
                .get(clock)
                .and_then(|clock| clock.parent());
            let parent = parent.ok_or(Status::NotSupported)?;
            let number = call.platform.number(call.from, Kind::Clock, parent);
            reply.u32(number.ok_or(Status::NotFound)?);
        }
        GET_PERMISSIONS => {
            let [number] = request.words()?;
            let clock = call.resource(Kind::Clock, number)?;
            reply.u32(permissions(call, clock));
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

fn permissions(call: &Call<'_>, clock: usize) -> u32 {
    if !call.may_set(Kind::Clock, clock) {
        return 0;
    }
    let of = call.platform.clocks.get(clock);
    let rate = of.is_some_and(|of| of.rates != Rates::Parent);
    let parent = of.is_some_and(|of| of.parents.len() > 1);
    STATE_ALLOWED | if rate { RATE_ALLOWED } else { 0 } | if parent { PARENT_ALLOWED } else { 0 }
}

/// The parents that the agent sees, by its own numbers.
fn parents<'a>(call: &'a Call<'_>, clock: usize) -> impl Iterator<Item = u32> + 'a {
    let parents = call.platform.clocks.get(clock).map(|of| of.parents.iter());
    parents
        .into_iter()
        .flatten()
        .filter_map(|parent| call.platform.number(call.from, Kind::Clock, *parent))
}

fn describe(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number] = request.words()?;
    let clock = call.resource(Kind::Clock, number)?;
    let mut flags = TELLS_PERMISSIONS;
    if call.has_events() {
        flags |= NOTIFIES_RATE | NOTIFIES_REQUESTS;
    }
    if call.platform.clock_is_on(clock) {
        flags |= ENABLED;
    }
    if parents(call, clock).next().is_some() {
        flags |= HAS_PARENTS;
    }
    let spec = &call
        .platform
        .clocks
        .get(clock)
        .ok_or(Status::NotFound)?
        .spec;
    flags |= if is_long(&spec.name) {
        EXTENDED_NAME
    } else {
        0
    };
    flags |= if spec.duty_and_phase {
        EXTENDED_CONFIG
    } else {
        0
    };
    reply.u32(flags);
    reply.short_name(&spec.name);
    reply.u32(spec.enable_latency_us);
    Ok(())
}

fn describe_rates(
    call: &mut Call<'_>,
    request: Request<'_>,
    reply: &mut Reply,
) -> Result<(), Status> {
    let [number, skip] = request.words()?;
    let clock = call.resource(Kind::Clock, number)?;
    let limits = call.limits(Kind::Clock, clock);
    let of = call.platform.clocks.get(clock).ok_or(Status::NotFound)?;
    let current = call.platform.clock_rate(clock);
    let room = reply.room().saturating_sub(4);
    if let Rates::Stepped(..) = of.rates {
        let Rates::Stepped(least, most, step) = of.rates.within(limits) else {
            return Err(Status::GenericError);
        };
        if skip != 0 {
            return Err(Status::OutOfRange);
        }
        reply.u32(STEPPED | 3);
        for rate in [least, most, step] {
            reply.u64(rate);
        }
        return Ok(());
    }
    // A clock that follows its parent has the one rate that it has.
    let only = [current];
    let rates = match &of.rates {
        Rates::Discrete(rates) => rates.as_slice(),
        _ => &only,
    };
    let follows = of.rates == Rates::Parent;
    let allowed = || {
        rates
            .iter()
            .filter(|rate| follows || limits.allow_u64(**rate))
    };
    let (skip, now, remaining) = page(allowed().count(), skip, room, 8)?;
    reply.u32(small(now) | remaining << 16);
    for rate in allowed().skip(skip).take(now) {
        reply.u64(*rate);
    }
    Ok(())
}

fn set_rate(call: &mut Call<'_>, request: Request<'_>) -> Result<Outcome, Status> {
    let [flags, number, low, high] = request.words()?;
    let clock = call.resource(Kind::Clock, number)?;
    let known = RATE_ASYNC | RATE_NO_RESPONSE | RATE_ROUND_UP | RATE_ROUND_NEAREST;
    if flags & !known != 0 {
        return Err(Status::InvalidParameters);
    }
    let rounding = if flags & RATE_ROUND_NEAREST != 0 {
        Rounding::Nearest
    } else if flags & RATE_ROUND_UP != 0 {
        Rounding::Up
    } else {
        Rounding::Down
    };
    let wish = u64::from(low) | u64::from(high) << 32;
    let rate = call
        .platform
        .possible_rate(call.from, clock, wish, rounding)?;
    if flags & RATE_ASYNC == 0 {
        let from = call.from;
        return call.change(Kind::Clock, clock, |platform| {
            platform.vote_rate(from, clock, rate)
        });
    }
    let settle = call
        .platform
        .clocks
        .get(clock)
        .map_or(0, |of| of.spec.settle_us);
    let respond = flags & RATE_NO_RESPONSE == 0;
    call.platform.start_later(Later {
        at: (call.now)().saturating_add(Duration::from_micros(settle)),
        agent: call.from,
        header: call.header,
        what: Clocked::Rate {
            clock,
            rate,
            respond,
        },
        ticket: None,
    })?;
    Ok(Outcome::begun(respond))
}

fn set_config(call: &mut Call<'_>, request: Request<'_>) -> Result<Outcome, Status> {
    let [number, attributes, value] = request.words()?;
    let clock = call.resource(Kind::Clock, number)?;
    let (state, kind) = (attributes & 3, attributes >> 16 & 0xff);
    if attributes & !0x00ff_0003 != 0 {
        return Err(Status::InvalidParameters);
    }
    let shape = match kind {
        0 => None,
        1 => Some(ClockShape::Duty),
        2 => Some(ClockShape::Phase),
        _ => return Err(Status::NotSupported),
    };
    let on = match (state, shape) {
        (0, _) => Some(false),
        (1, _) => Some(true),
        (3, Some(_)) => None,
        _ => return Err(Status::InvalidParameters),
    };
    if let Some(shape) = shape {
        call.platform.shape_clock(call.from, clock, shape, value)?;
    }
    let Some(on) = on else {
        return Ok(Outcome::Done);
    };
    let from = call.from;
    call.change(Kind::Clock, clock, |platform| {
        platform.switch_clock(from, clock, on)
    })
}

fn get_config(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number, flags] = request.words()?;
    let clock = call.resource(Kind::Clock, number)?;
    let of = call.platform.clocks.get(clock).ok_or(Status::NotFound)?;
    let value = match flags {
        0 => 0,
        1 if of.spec.duty_and_phase => of.duty_cycle(),
        2 if of.spec.duty_and_phase => of.phase_angle(),
        1..=0xff => return Err(Status::NotSupported),
        _ => return Err(Status::InvalidParameters),
    };
    reply.u32(0);
    reply.u32(u32::from(call.platform.clock_is_on(clock)));
    reply.u32(value);
    Ok(())
}

fn possible_parents(
    call: &mut Call<'_>,
    request: Request<'_>,
    reply: &mut Reply,
) -> Result<(), Status> {
    let [number, skip] = request.words()?;
    let clock = call.resource(Kind::Clock, number)?;
    let total = parents(call, clock).count();
    if total == 0 {
        return Err(Status::NotSupported);
    }
    let room = reply.room().saturating_sub(4);
    let (skip, now, remaining) = page(total, skip, room, 4)?;
    reply.u32(small(now) | remaining << 24);
    for parent in parents(call, clock).skip(skip).take(now) {
        reply.u32(parent);
    }
    Ok(())
}
