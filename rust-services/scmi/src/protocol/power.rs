// SPDX-License-Identifier: Apache-2.0

//! Power domain management protocol 3.1 (SCMI 3.2, 4.3).

use crate::platform::Kind;
use crate::protocol::{Call, Outcome, Protocol, always, events, flag, long_name};
use crate::wire::{Reply, Request, Status, is_long};

const DOMAIN_ATTRIBUTES: u8 = 0x3;
const STATE_SET: u8 = 0x4;
const STATE_GET: u8 = 0x5;
const STATE_NOTIFY: u8 = 0x6;
const DOMAIN_NAME_GET: u8 = 0x8;

const NOTIFIES: u32 = 1 << 31;
const SYNCHRONOUS: u32 = 1 << 29;
const EXTENDED_NAME: u32 = 1 << 27;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x11,
    version: 0x3_0001,
    kind: Some(Kind::Power),
    commands: &[
        always(DOMAIN_ATTRIBUTES),
        always(STATE_SET),
        always(STATE_GET),
        events(STATE_NOTIFY),
        always(DOMAIN_NAME_GET),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    reply.u32(call.count(Kind::Power));
    // No statistics in shared memory: address and size 0.
    reply.u64(0);
    reply.u32(0);
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        DOMAIN_ATTRIBUTES => {
            let [number] = request.words()?;
            let domain = call.resource(Kind::Power, number)?;
            let name = call.platform.name(Kind::Power, domain).unwrap_or_default();
            let mut flags = if call.has_events() { NOTIFIES } else { 0 };
            flags |= if call.may_set(Kind::Power, domain) {
                SYNCHRONOUS
            } else {
                0
            };
            flags |= if is_long(name) { EXTENDED_NAME } else { 0 };
            reply.u32(flags);
            reply.short_name(name);
        }
        STATE_SET => {
            let [flags, number, state] = request.words()?;
            let domain = call.resource(Kind::Power, number)?;
            // Every change is immediate, so none can be asked for asynchronously.
            if flag(flags)? {
                return Err(Status::NotSupported);
            }
            let from = call.from;
            return call.change(Kind::Power, domain, |platform| {
                platform.vote_power(from, domain, state)
            });
        }
        STATE_GET => {
            let [number] = request.words()?;
            let domain = call.resource(Kind::Power, number)?;
            reply.u32(call.platform.power_state(domain));
        }
        STATE_NOTIFY => {
            let [number, enable] = request.words()?;
            let domain = call.resource(Kind::Power, number)?;
            let vote = flag(enable)?.then_some(());
            if let Some(of) = call.platform.power.get_mut(domain) {
                of.notify.set(call.from, vote);
            }
            call.platform.settled();
        }
        DOMAIN_NAME_GET => {
            let [number] = request.words()?;
            let domain = call.resource(Kind::Power, number)?;
            let name = call.platform.name(Kind::Power, domain).unwrap_or_default();
            return Ok(long_name(name, reply));
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}
