// SPDX-License-Identifier: Apache-2.0

//! Performance domain management protocol 4.0 (SCMI 3.2, 4.5), without FastChannels: they do not
//! exist over virtio.

use crate::platform::{Kind, Performance};
use crate::protocol::{Call, Outcome, Protocol, always, events, flag, long_name, page, small};
use crate::wire::{Reply, Request, Status, is_long};

const DOMAIN_ATTRIBUTES: u8 = 0x3;
const DESCRIBE_LEVELS: u8 = 0x4;
const LIMITS_SET: u8 = 0x5;
const LIMITS_GET: u8 = 0x6;
const LEVEL_SET: u8 = 0x7;
const LEVEL_GET: u8 = 0x8;
const NOTIFY_LIMITS: u8 = 0x9;
const NOTIFY_LEVEL: u8 = 0xa;
const DOMAIN_NAME_GET: u8 = 0xc;

const SETS_LIMITS: u32 = 1 << 31;
const SETS_LEVEL: u32 = 1 << 30;
const NOTIFIES_LIMITS: u32 = 1 << 29;
const NOTIFIES_LEVEL: u32 = 1 << 28;
const EXTENDED_NAME: u32 = 1 << 26;
const LEVEL_INDEXING: u32 = 1 << 25;
const RATE_LIMIT: u32 = 0xf_ffff;
const LEVEL_SIZE: usize = 20;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x13,
    version: 0x4_0000,
    kind: Some(Kind::Performance),
    commands: &[
        always(DOMAIN_ATTRIBUTES),
        always(DESCRIBE_LEVELS),
        always(LIMITS_SET),
        always(LIMITS_GET),
        always(LEVEL_SET),
        always(LEVEL_GET),
        events(NOTIFY_LIMITS),
        events(NOTIFY_LEVEL),
        always(DOMAIN_NAME_GET),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    let microwatts = (0_usize..)
        .zip(&call.platform.performance)
        .any(|(index, of)| of.spec.microwatts && call.sees(Kind::Performance, index));
    let scale = if microwatts { 1 << 1 } else { 1 << 0 };
    reply.u32(call.count(Kind::Performance) | scale << 16);
    // No statistics in shared memory: address and size 0.
    reply.u64(0);
    reply.u32(0);
}

fn domain<'a>(call: &'a mut Call<'_>, number: u32) -> Result<(usize, &'a Performance), Status> {
    let index = call.resource(Kind::Performance, number)?;
    Ok((
        index,
        call.platform
            .performance
            .get(index)
            .ok_or(Status::NotFound)?,
    ))
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        DOMAIN_ATTRIBUTES => describe(call, request, reply)?,
        DESCRIBE_LEVELS => describe_levels(call, request, reply)?,
        LIMITS_SET => {
            let [number, most, least] = request.words()?;
            let (index, of) = domain(call, number)?;
            if (most == 0 && least == 0 && !of.spec.indexed) || most < least {
                return Err(Status::InvalidParameters);
            }
            let (most, least) = (of.inward(most)?, of.inward(least)?);
            call.platform.vote_limits(call.from, index, least, most)?;
        }
        LIMITS_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            let (least, most) = of.limits();
            reply.u32(of.outward(most));
            reply.u32(of.outward(least));
        }
        LEVEL_SET => {
            let [number, level] = request.words()?;
            let (index, of) = domain(call, number)?;
            let level = of.inward(level)?;
            call.platform.vote_level(call.from, index, level)?;
        }
        LEVEL_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            reply.u32(of.outward(of.level()));
        }
        NOTIFY_LIMITS | NOTIFY_LEVEL => {
            let [number, enable] = request.words()?;
            let index = call.resource(Kind::Performance, number)?;
            let vote = flag(enable)?.then_some(());
            let limits = call.header.message() == NOTIFY_LIMITS;
            if let Some(of) = call.platform.performance.get_mut(index) {
                let votes = if limits {
                    &mut of.notify_limits
                } else {
                    &mut of.notify_level
                };
                votes.set(call.from, vote);
            }
            call.platform.settled();
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

fn describe(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number] = request.words()?;
    let index = call.resource(Kind::Performance, number)?;
    let mut flags = 0;
    if call.may_set(Kind::Performance, index) {
        flags |= SETS_LIMITS | SETS_LEVEL;
    }
    if call.has_events() {
        flags |= NOTIFIES_LIMITS | NOTIFIES_LEVEL;
    }
    let spec = &call
        .platform
        .performance
        .get(index)
        .ok_or(Status::NotFound)?
        .spec;
    flags |= if is_long(&spec.name) {
        EXTENDED_NAME
    } else {
        0
    };
    flags |= if spec.indexed { LEVEL_INDEXING } else { 0 };
    let sustained = spec.sustained.and_then(|sustained| {
        let mut levels = spec.levels.iter();
        levels.find(|level| level.level == sustained)
    });
    let sustained = sustained.or(spec.levels.last());
    reply.u32(flags);
    reply.u32(spec.rate_limit_us & RATE_LIMIT);
    reply.u32(sustained.map_or(0, |level| level.freq_khz));
    reply.u32(sustained.map_or(0, |level| level.level));
    reply.short_name(&spec.name);
    Ok(())
}

fn describe_levels(
    call: &mut Call<'_>,
    request: Request<'_>,
    reply: &mut Reply,
) -> Result<(), Status> {
    let [number, skip] = request.words()?;
    let index = call.resource(Kind::Performance, number)?;
    let limits = call.limits(Kind::Performance, index);
    let of = call
        .platform
        .performance
        .get(index)
        .ok_or(Status::NotFound)?;
    let total = of.allowed(limits).count();
    let room = reply.room().saturating_sub(4);
    let (skip, now, remaining) = page(total, skip, room, LEVEL_SIZE)?;
    reply.u32(small(now) | remaining << 16);
    for (index, level) in of.allowed(limits).skip(skip).take(now) {
        reply.u32(level.level);
        reply.u32(level.power);
        reply.u16(level.latency_us);
        reply.u16(0);
        reply.u32(level.freq_khz);
        reply.u32(index);
    }
    Ok(())
}
