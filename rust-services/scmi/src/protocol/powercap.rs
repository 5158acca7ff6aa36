// SPDX-License-Identifier: Apache-2.0

//! Powercap protocol 2.0 (SCMI 3.2, 4.10), without FastChannels: they do not exist over virtio.

use std::time::Duration;

use crate::platform::{Clocked, Kind, Later, Powercap};
use crate::protocol::{Call, Outcome, Protocol, always, events, flag, long_name};
use crate::wire::{Reply, Request, Status, is_long};

const DOMAIN_ATTRIBUTES: u8 = 0x3;
const CAP_GET: u8 = 0x4;
const CAP_SET: u8 = 0x5;
const PAI_GET: u8 = 0x6;
const PAI_SET: u8 = 0x7;
const DOMAIN_NAME_GET: u8 = 0x8;
const MEASUREMENTS_GET: u8 = 0x9;
const CAP_NOTIFY: u8 = 0xa;
const MEASUREMENTS_NOTIFY: u8 = 0xb;

const NOTIFIES_CAP: u32 = 1 << 31;
const NOTIFIES_MEASUREMENTS: u32 = 1 << 30;
const ASYNCHRONOUS: u32 = 1 << 29;
const EXTENDED_NAME: u32 = 1 << 28;
const SETS_CAP: u32 = 1 << 27;
const MEASURES: u32 = 1 << 26;
const SETS_INTERVAL: u32 = 1 << 25;
const MICROWATTS: u32 = 1 << 23;
/// The parent of a domain that has none.
const ROOT: u32 = u32::MAX;

const CAP_NO_RESPONSE: u32 = 1 << 0;
const CAP_ASYNC: u32 = 1 << 1;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x18,
    version: 0x2_0000,
    kind: Some(Kind::Powercap),
    commands: &[
        always(DOMAIN_ATTRIBUTES),
        always(CAP_GET),
        always(CAP_SET),
        always(PAI_GET),
        always(PAI_SET),
        always(DOMAIN_NAME_GET),
        always(MEASUREMENTS_GET),
        events(CAP_NOTIFY),
        events(MEASUREMENTS_NOTIFY),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    reply.u32(call.count(Kind::Powercap));
}

fn domain<'a>(call: &'a mut Call<'_>, number: u32) -> Result<(usize, &'a Powercap), Status> {
    let index = call.resource(Kind::Powercap, number)?;
    Ok((
        index,
        call.platform.powercaps.get(index).ok_or(Status::NotFound)?,
    ))
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        DOMAIN_ATTRIBUTES => describe(call, request, reply)?,
        CAP_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            reply.u32(of.cap());
        }
        CAP_SET => return set_cap(call, request),
        PAI_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            reply.u32(of.interval());
        }
        PAI_SET => {
            let [number, flags, interval] = request.words()?;
            let (index, _) = domain(call, number)?;
            if flags != 0 {
                return Err(Status::InvalidParameters);
            }
            call.platform.vote_interval(call.from, index, interval)?;
        }
        DOMAIN_NAME_GET => {
            let [number] = request.words()?;
            let (_, of) = domain(call, number)?;
            return Ok(long_name(&of.spec.name, reply));
        }
        MEASUREMENTS_GET => {
            let [number] = request.words()?;
            let now = (call.now)();
            let (index, of) = domain(call, number)?;
            if of.is_bound() {
                let ticket = call.platform.measure_power(call.from, index);
                return Ok(Outcome::Held(ticket));
            }
            reply.u32(of.power(now));
            reply.u32(of.interval());
        }
        CAP_NOTIFY => {
            let [number, enable] = request.words()?;
            let (index, _) = domain(call, number)?;
            let vote = flag(enable)?.then_some(());
            if let Some(of) = call.platform.powercaps.get_mut(index) {
                of.notify.set(call.from, vote);
            }
            call.platform.settled();
        }
        MEASUREMENTS_NOTIFY => {
            let [number, enable, low, high] = request.words()?;
            let now = (call.now)();
            let (index, _) = domain(call, number)?;
            let range = flag(enable)?.then_some((low, high));
            call.platform.watch_power(call.from, index, range, now)?;
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

fn describe(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number] = request.words()?;
    let (index, of) = domain(call, number)?;
    let parent = of.parent;
    let may_set = call.may_set(Kind::Powercap, index);
    let parent = parent.and_then(|parent| call.platform.number(call.from, Kind::Powercap, parent));
    let events = call.has_events();
    let limits = call.limits(Kind::Powercap, index);
    let spec = &call
        .platform
        .powercaps
        .get(index)
        .ok_or(Status::NotFound)?
        .spec;
    let mut flags = MICROWATTS | MEASURES;
    if events {
        flags |= NOTIFIES_CAP | NOTIFIES_MEASUREMENTS;
        flags |= if spec.settle_us > 0 { ASYNCHRONOUS } else { 0 };
    }
    flags |= if is_long(&spec.name) {
        EXTENDED_NAME
    } else {
        0
    };
    let bound = |limit: i64, other: u32| u32::try_from(limit).unwrap_or(other);
    let least = spec.min.max(bound(limits.min, 0));
    let most = spec.max.min(bound(limits.max, u32::MAX)).max(least);
    let can_set = may_set && least < most;
    flags |= if can_set { SETS_CAP } else { 0 };
    // Linux refuses what can be set but has one value, and what cannot but has a range.
    let fixed = [spec.interval_us, spec.interval_us, 0];
    let intervals = spec.interval_range.filter(|_| may_set).unwrap_or(fixed);
    flags |= if intervals == fixed { 0 } else { SETS_INTERVAL };
    reply.u32(flags);
    reply.short_name(&spec.name);
    for interval in intervals {
        reply.u32(interval);
    }
    // Linux refuses a domain whose cap cannot be set but has a range.
    reply.u32(if can_set { least } else { most });
    reply.u32(most);
    reply.u32(spec.step);
    reply.u32(spec.sustainable);
    reply.u32(0);
    reply.u32(parent.unwrap_or(ROOT));
    Ok(())
}

fn set_cap(call: &mut Call<'_>, request: Request<'_>) -> Result<Outcome, Status> {
    let [number, flags, cap] = request.words()?;
    let (domain, of) = domain(call, number)?;
    let settle = of.spec.settle_us;
    if flags & !(CAP_ASYNC | CAP_NO_RESPONSE) != 0 {
        return Err(Status::InvalidParameters);
    }
    call.platform.check_cap(call.from, domain, cap)?;
    if flags & CAP_ASYNC == 0 {
        call.platform.vote_cap(call.from, domain, cap)?;
        return Ok(Outcome::Done);
    }
    // As the domain's attributes say.
    if settle == 0 {
        return Err(Status::NotSupported);
    }
    let respond = flags & CAP_NO_RESPONSE == 0;
    call.platform.start_later(Later {
        at: (call.now)().saturating_add(Duration::from_micros(settle)),
        agent: call.from,
        header: call.header,
        what: Clocked::Cap {
            domain,
            cap,
            respond,
        },
        ticket: None,
    })?;
    Ok(Outcome::begun(respond))
}
