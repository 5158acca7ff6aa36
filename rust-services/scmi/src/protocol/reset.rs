// SPDX-License-Identifier: Apache-2.0

//! Reset domain management protocol 3.1 (SCMI 3.2, 4.8).

use std::time::Duration;

use crate::platform::{Clocked, Kind, Later};
use crate::protocol::{Call, Outcome, Protocol, always, events, flag, long_name};
use crate::wire::{Reply, Request, Status, is_long};

const DOMAIN_ATTRIBUTES: u8 = 0x3;
const RESET: u8 = 0x4;
const NOTIFY: u8 = 0x5;
const DOMAIN_NAME_GET: u8 = 0x6;

const ASYNCHRONOUS: u32 = 1 << 31;
const NOTIFIES: u32 = 1 << 30;
const EXTENDED_NAME: u32 = 1 << 29;

const AUTONOMOUS_RESET: u32 = 1 << 0;
const EXPLICIT_ASSERT: u32 = 1 << 1;
const RESET_ASYNC: u32 = 1 << 2;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x16,
    version: 0x3_0001,
    kind: Some(Kind::Reset),
    commands: &[
        always(DOMAIN_ATTRIBUTES),
        always(RESET),
        events(NOTIFY),
        always(DOMAIN_NAME_GET),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    reply.u32(call.count(Kind::Reset));
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        DOMAIN_ATTRIBUTES => {
            let [number] = request.words()?;
            let domain = call.resource(Kind::Reset, number)?;
            let spec = &call
                .platform
                .resets
                .get(domain)
                .ok_or(Status::NotFound)?
                .spec;
            let mut flags = 0;
            if call.has_events() {
                flags |= NOTIFIES;
                flags |= if spec.latency_us > 0 { ASYNCHRONOUS } else { 0 };
            }
            flags |= if is_long(&spec.name) {
                EXTENDED_NAME
            } else {
                0
            };
            reply.u32(flags);
            reply.u32(spec.latency_us);
            reply.short_name(&spec.name);
        }
        RESET => return reset(call, request),
        NOTIFY => {
            let [number, enable] = request.words()?;
            let domain = call.resource(Kind::Reset, number)?;
            let vote = flag(enable)?.then_some(());
            if let Some(of) = call.platform.resets.get_mut(domain) {
                of.notify.set(call.from, vote);
            }
            call.platform.settled();
        }
        DOMAIN_NAME_GET => {
            let [number] = request.words()?;
            let domain = call.resource(Kind::Reset, number)?;
            let name = call.platform.name(Kind::Reset, domain).unwrap_or_default();
            return Ok(long_name(name, reply));
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

fn reset(call: &mut Call<'_>, request: Request<'_>) -> Result<Outcome, Status> {
    let [number, flags, state] = request.words()?;
    let domain = call.resource(Kind::Reset, number)?;
    // Only the architectural cold reset: there is no implementation-defined one.
    if flags & !(AUTONOMOUS_RESET | EXPLICIT_ASSERT | RESET_ASYNC) != 0 || state != 0 {
        return Err(Status::InvalidParameters);
    }
    let autonomous = flags & AUTONOMOUS_RESET != 0;
    let later = flags & RESET_ASYNC != 0;
    if later && !autonomous {
        return Err(Status::InvalidParameters);
    }
    call.platform.may_set(call.from, Kind::Reset, domain)?;
    let from = call.from;
    if !autonomous {
        let asserted = flags & EXPLICIT_ASSERT != 0;
        return call.change(Kind::Reset, domain, |platform| {
            platform.assert_reset(from, domain, asserted)
        });
    }
    if !later {
        return call.change(Kind::Reset, domain, |platform| {
            platform.pulse(from, domain, state);
            Ok(())
        });
    }
    let latency = call
        .platform
        .resets
        .get(domain)
        .map_or(0, |of| of.spec.latency_us);
    // As the domain's attributes say.
    if latency == 0 {
        return Err(Status::NotSupported);
    }
    call.platform.start_later(Later {
        at: (call.now)().saturating_add(Duration::from_micros(latency.into())),
        agent: call.from,
        header: call.header,
        what: Clocked::Reset { domain, state },
        ticket: None,
    })?;
    Ok(Outcome::Begun)
}
