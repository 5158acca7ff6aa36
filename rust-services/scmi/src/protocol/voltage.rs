// SPDX-License-Identifier: Apache-2.0

//! Voltage domain management protocol 2.1 (SCMI 3.2, 4.9).

use std::time::Duration;

use crate::platform::{Clocked, Kind, Later, Voltage, Volts};
use crate::protocol::{Call, Outcome, Protocol, always, flag, long_name, page, small};
use crate::wire::{Reply, Request, Status, is_long};

const DOMAIN_ATTRIBUTES: u8 = 0x3;
const DESCRIBE_LEVELS: u8 = 0x4;
const CONFIG_SET: u8 = 0x5;
const CONFIG_GET: u8 = 0x6;
const LEVEL_SET: u8 = 0x7;
const LEVEL_GET: u8 = 0x8;
const DOMAIN_NAME_GET: u8 = 0x9;

const ASYNCHRONOUS: u32 = 1 << 31;
const EXTENDED_NAME: u32 = 1 << 30;
const STEPPED: u32 = 1 << 12;

/// Architectural mode: off.
const OFF: u32 = 0;
/// Architectural mode: on.
const ON: u32 = 7;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x17,
    version: 0x2_0001,
    kind: Some(Kind::Voltage),
    commands: &[
        always(DOMAIN_ATTRIBUTES),
        always(DESCRIBE_LEVELS),
        always(CONFIG_SET),
        always(CONFIG_GET),
        always(LEVEL_SET),
        always(LEVEL_GET),
        always(DOMAIN_NAME_GET),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    reply.u32(call.count(Kind::Voltage));
}

fn domain<'a>(call: &'a mut Call<'_>, number: u32) -> Result<(usize, &'a Voltage), Status> {
    let index = call.resource(Kind::Voltage, number)?;
    Ok((
        index,
        call.platform.voltages.get(index).ok_or(Status::NotFound)?,
    ))
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        DOMAIN_ATTRIBUTES => {
            let [number] = request.words()?;
            let events = call.has_events();
            let (_, of) = domain(call, number)?;
            let mut flags = if events && of.spec.settle_us > 0 {
                ASYNCHRONOUS
            } else {
                0
            };
            flags |= if is_long(&of.spec.name) {
                EXTENDED_NAME
            } else {
                0
            };
            reply.u32(flags);
            reply.short_name(&of.spec.name);
        }
        DESCRIBE_LEVELS => describe_levels(call, request, reply)?,
        CONFIG_SET => {
            let [number, mode] = request.words()?;
            let (index, _) = domain(call, number)?;
            let on = match mode {
                OFF => false,
                ON => true,
                _ => return Err(Status::InvalidParameters),
            };
            let from = call.from;
            return call.change(Kind::Voltage, index, |platform| {
                platform.switch_voltage(from, index, on)
            });
        }
        CONFIG_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            reply.u32(if of.is_on() { ON } else { OFF });
        }
        LEVEL_SET => return set_level(call, request),
        LEVEL_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            reply.i32(of.level());
        }
        DOMAIN_NAME_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            return Ok(long_name(&of.spec.name, reply));
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

fn describe_levels(
    call: &mut Call<'_>,
    request: Request<'_>,
    reply: &mut Reply,
) -> Result<(), Status> {
    let [number, skip] = request.words()?;
    let (index, _) = domain(call, number)?;
    let limits = call.limits(Kind::Voltage, index);
    let of = call.platform.voltages.get(index).ok_or(Status::NotFound)?;
    match &of.volts.within(limits) {
        Volts::Stepped(least, most, step) => {
            if skip != 0 {
                return Err(Status::OutOfRange);
            }
            reply.u32(STEPPED | 3);
            for level in [least, most, step] {
                reply.i32(*level);
            }
        }
        Volts::Discrete(levels) => {
            let room = reply.room().saturating_sub(4);
            let (skip, now, remaining) = page(levels.len(), skip, room, 4)?;
            reply.u32(small(now) | remaining << 16);
            for level in levels.iter().skip(skip).take(now) {
                reply.i32(*level);
            }
        }
    }
    Ok(())
}

fn set_level(call: &mut Call<'_>, request: Request<'_>) -> Result<Outcome, Status> {
    let [number, flags, level] = request.words()?;
    let (domain, of) = domain(call, number)?;
    let settle = of.spec.settle_us;
    let later = flag(flags)?;
    let level = i32::from_le_bytes(level.to_le_bytes());
    call.platform.check_voltage(call.from, domain, level)?;
    // As the domain's attributes say.
    if later && settle == 0 {
        return Err(Status::NotSupported);
    }
    if !later {
        let from = call.from;
        return call.change(Kind::Voltage, domain, |platform| {
            platform.vote_voltage(from, domain, level)
        });
    }
    call.platform.start_later(Later {
        at: (call.now)().saturating_add(Duration::from_micros(settle)),
        agent: call.from,
        header: call.header,
        what: Clocked::Voltage { domain, level },
        ticket: None,
    })?;
    Ok(Outcome::Begun)
}
