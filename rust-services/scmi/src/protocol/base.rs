// SPDX-License-Identifier: Apache-2.0

//! Base protocol 2.1 (SCMI 3.2, 4.2): who is who, and who may do what.

use crate::platform::{AgentId, Kind};
use crate::protocol::{
    Call, Outcome, PROTOCOLS, Protocol, always, events, flag, page, small, trust,
};
use crate::wire::{Reply, Request, Status};

const DISCOVER_VENDOR: u8 = 0x3;
const DISCOVER_SUB_VENDOR: u8 = 0x4;
const DISCOVER_IMPLEMENTATION_VERSION: u8 = 0x5;
const DISCOVER_LIST_PROTOCOLS: u8 = 0x6;
const DISCOVER_AGENT: u8 = 0x7;
const NOTIFY_ERRORS: u8 = 0x8;
const SET_DEVICE_PERMISSIONS: u8 = 0x9;
const SET_PROTOCOL_PERMISSIONS: u8 = 0xa;
const RESET_AGENT_CONFIGURATION: u8 = 0xb;

/// The agent who asks.
const SELF: u32 = u32::MAX;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x10,
    version: 0x2_0001,
    kind: None,
    commands: &[
        always(DISCOVER_VENDOR),
        always(DISCOVER_SUB_VENDOR),
        always(DISCOVER_IMPLEMENTATION_VERSION),
        always(DISCOVER_LIST_PROTOCOLS),
        always(DISCOVER_AGENT),
        events(NOTIFY_ERRORS),
        trust(SET_DEVICE_PERMISSIONS),
        trust(SET_PROTOCOL_PERMISSIONS),
        trust(RESET_AGENT_CONFIGURATION),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    let protocols = small(offered(call).count());
    reply.u32(protocols | small(call.platform.agents.len()) << 8);
}

/// The protocols that an agent has, the base protocol apart.
fn offered<'a>(call: &'a Call<'_>) -> impl Iterator<Item = u8> + 'a {
    PROTOCOLS
        .iter()
        .filter(|protocol| protocol.id != PROTOCOL.id)
        .filter(|protocol| protocol.is_offered(call.platform, call.from))
        .map(|protocol| protocol.id)
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        DISCOVER_VENDOR => {
            request.words::<0>()?;
            reply.short_name(&call.platform.identity.vendor);
        }
        DISCOVER_SUB_VENDOR => {
            request.words::<0>()?;
            reply.short_name(&call.platform.identity.sub_vendor);
        }
        DISCOVER_IMPLEMENTATION_VERSION => {
            request.words::<0>()?;
            reply.u32(call.platform.identity.version);
        }
        DISCOVER_LIST_PROTOCOLS => list_protocols(call, request, reply)?,
        DISCOVER_AGENT => discover_agent(call, request, reply)?,
        NOTIFY_ERRORS => {
            let [control] = request.words()?;
            let wanted = flag(control)?;
            if let Some(agent) = call.platform.agents.get_mut(call.from.index()) {
                agent.error_notify = wanted;
            }
            call.platform.settled();
        }
        SET_DEVICE_PERMISSIONS => {
            let [agent, device, flags] = request.words()?;
            let agent = other(call, agent)?;
            call.platform
                .policy
                .permit(agent, device, None, flag(flags)?)?;
            call.platform.settled();
        }
        SET_PROTOCOL_PERMISSIONS => {
            let [agent, device, command, flags] = request.words()?;
            let agent = other(call, agent)?;
            let mut kinds = Kind::ALL.into_iter().map(Kind::protocol);
            let protocol = kinds.find(|protocol| u32::from(*protocol) == command);
            let protocol = protocol.ok_or(Status::NotFound)?;
            call.platform
                .policy
                .permit(agent, device, Some(protocol), flag(flags)?)?;
            call.platform.settled();
        }
        RESET_AGENT_CONFIGURATION => {
            let [agent, flags] = request.words()?;
            let agent = other(call, agent)?;
            let permissions_too = flag(flags)?;
            call.platform.reset_agent(agent, (call.now)());
            if permissions_too {
                call.platform.policy.restore(agent);
                call.platform.settled();
            }
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

fn list_protocols(call: &Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [skip] = request.words()?;
    let total = offered(call).count();
    // Four bytes for the number, then whole words of one byte per protocol.
    let room = reply.room().saturating_sub(4) & !3;
    let (skip, now, _) = match page(total, skip, room, 1) {
        // Linux never asks beyond the end; the specification lets an empty list be returned.
        Err(Status::OutOfRange) => return Err(Status::InvalidParameters),
        other => other?,
    };
    reply.u32(small(now));
    let mut word = [0_u8; 4];
    let mut filled = 0_usize;
    for protocol in offered(call).skip(skip).take(now) {
        if let Some(place) = word.get_mut(filled) {
            *place = protocol;
        }
        filled = filled.saturating_add(1);
        if filled == word.len() {
            reply.bytes(&word);
            word = [0; 4];
            filled = 0;
        }
    }
    if filled > 0 {
        reply.bytes(&word);
    }
    Ok(())
}

fn discover_agent(call: &Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number] = request.words()?;
    let number = if number == SELF {
        call.from.number()
    } else {
        number
    };
    let name = match number.checked_sub(1) {
        None => "platform",
        Some(index) => {
            let index = usize::try_from(index).map_err(|_| Status::NotFound)?;
            &call
                .platform
                .agents
                .get(index)
                .ok_or(Status::NotFound)?
                .name
        }
    };
    reply.u32(number);
    reply.short_name(name);
    Ok(())
}

/// The agent of a number; the platform is none.
fn other(call: &Call<'_>, number: u32) -> Result<AgentId, Status> {
    let index = number.checked_sub(1).ok_or(Status::NotFound)?;
    let index = usize::try_from(index).map_err(|_| Status::NotFound)?;
    if index < call.platform.agents.len() {
        Ok(AgentId::new(index))
    } else {
        Err(Status::NotFound)
    }
}
