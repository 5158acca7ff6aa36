// SPDX-License-Identifier: Apache-2.0

//! Pin control protocol 1.0 (SCMI 3.2, 4.11).

use crate::platform::{Kind, PinSetup, Pins};
use crate::protocol::{Call, Outcome, Protocol, always, long_name, page, small};
use crate::wire::{Reply, Request, Status, is_long};

const ATTRIBUTES: u8 = 0x3;
const LIST_ASSOCIATIONS: u8 = 0x4;
const SETTINGS_GET: u8 = 0x5;
const SETTINGS_CONFIGURE: u8 = 0x6;
const REQUEST: u8 = 0x7;
const RELEASE: u8 = 0x8;
const NAME_GET: u8 = 0x9;

const EXTENDED_NAME: u32 = 1 << 31;
const NO_FUNCTION: u32 = u32::MAX;
const SETS_FUNCTION: u32 = 1 << 10;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x19,
    version: 0x1_0000,
    kind: Some(Kind::Pin),
    commands: &[
        always(ATTRIBUTES),
        always(LIST_ASSOCIATIONS),
        always(SETTINGS_GET),
        always(SETTINGS_CONFIGURE),
        always(REQUEST),
        always(RELEASE),
        always(NAME_GET),
    ],
    attributes,
    handle,
};

fn attributes(call: &Call<'_>, reply: &mut Reply) {
    reply.u32(call.count(Kind::Pin) | call.count(Kind::PinGroup) << 16);
    reply.u32(call.count(Kind::PinFunction));
}

/// What a selector means.
fn selected(selector: u32) -> Result<Kind, Status> {
    match selector {
        0 => Ok(Kind::Pin),
        1 => Ok(Kind::PinGroup),
        2 => Ok(Kind::PinFunction),
        _ => Err(Status::InvalidParameters),
    }
}

/// The pin or the group that the agent means.
fn pins(call: &mut Call<'_>, selector: u32, number: u32) -> Result<Pins, Status> {
    let kind = selected(selector)?;
    let index = call.resource(kind, number)?;
    match kind {
        Kind::Pin => Ok(Pins::One(index)),
        Kind::PinGroup => Ok(Pins::Group(index)),
        _ => Err(Status::InvalidParameters),
    }
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        ATTRIBUTES => describe(call, request, reply)?,
        LIST_ASSOCIATIONS => list(call, request, reply)?,
        SETTINGS_GET => settings(call, request, reply)?,
        SETTINGS_CONFIGURE => configure(call, request)?,
        REQUEST => {
            let [number, selector] = request.words()?;
            let pins = pins(call, selector, number)?;
            call.platform.request_pins(call.from, pins)?;
        }
        RELEASE => {
            let [number, selector] = request.words()?;
            let pins = pins(call, selector, number)?;
            call.platform.release_pin_request(call.from, pins)?;
        }
        NAME_GET => {
            let [number, selector] = request.words()?;
            let kind = selected(selector)?;
            let index = call.resource(kind, number)?;
            let name = call.platform.name(kind, index).unwrap_or_default();
            return Ok(long_name(name, reply));
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

/// The agent's numbers of what belongs to a group or a function.
fn members(call: &Call<'_>, kind: Kind, index: usize) -> Vec<u16> {
    let (of, places): (_, &[usize]) = match kind {
        Kind::PinGroup => {
            let group = call.platform.pin_groups.get(index);
            (Kind::Pin, group.map_or(&[], |group| &group.pins))
        }
        Kind::PinFunction => {
            let function = call.platform.pin_functions.get(index);
            let groups = function.map_or(&[][..], |function| &function.groups);
            (Kind::PinGroup, groups)
        }
        _ => (Kind::Pin, &[]),
    };
    let numbers = places
        .iter()
        .filter_map(|place| call.platform.number(call.from, of, *place));
    numbers
        .filter_map(|number| u16::try_from(number).ok())
        .collect()
}

fn describe(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number, selector] = request.words()?;
    let kind = selected(selector)?;
    let index = call.resource(kind, number)?;
    let name = call.platform.name(kind, index).unwrap_or_default();
    let long = if is_long(name) { EXTENDED_NAME } else { 0 };
    reply.u32(long | small(members(call, kind, index).len()));
    reply.short_name(name);
    Ok(())
}

fn list(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number, selector, skip] = request.words()?;
    let kind = selected(selector)?;
    let index = call.resource(kind, number)?;
    if kind == Kind::Pin {
        return Err(Status::InvalidParameters);
    }
    let members = members(call, kind, index);
    let room = reply.room().saturating_sub(4);
    let (skip, now, remaining) = page(members.len(), skip, room, 2)?;
    reply.u32(small(now) | remaining << 16);
    for member in members.iter().skip(skip).take(now) {
        reply.u16(*member);
    }
    Ok(())
}

fn settings(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<(), Status> {
    let [number, attributes] = request.words()?;
    let [setting, skip, what, rest] = attributes.to_le_bytes();
    if rest != 0 || what >> 4 != 0 {
        return Err(Status::InvalidParameters);
    }
    let pins = pins(call, u32::from(what & 3), number)?;
    let function = call.platform.common_function(pins)?;
    let function =
        function.and_then(|index| call.platform.number(call.from, Kind::PinFunction, index));
    let common = call.platform.common_settings(pins)?;
    reply.u32(function.unwrap_or(NO_FUNCTION));
    match what >> 2 {
        // One setting.
        0 => {
            let value = common.get(&setting).ok_or(Status::NotSupported)?;
            reply.u32(1);
            reply.u32(setting.into());
            reply.u32(*value);
        }
        // All.
        1 => {
            let room = reply.room().saturating_sub(4);
            let (skip, now, remaining) = page(common.len(), skip.into(), room, 8)?;
            reply.u32(small(now) | remaining << 24);
            for (setting, value) in common.iter().skip(skip).take(now) {
                reply.u32(u32::from(*setting));
                reply.u32(*value);
            }
        }
        // The function alone.
        2 => reply.u32(0),
        _ => return Err(Status::InvalidParameters),
    }
    Ok(())
}

fn configure(call: &mut Call<'_>, request: Request<'_>) -> Result<(), Status> {
    let ([number, function, attributes], rest) = request.head()?;
    if attributes >> 11 != 0 {
        return Err(Status::InvalidParameters);
    }
    let count = usize::try_from(attributes >> 2 & 0xff).unwrap_or(0);
    let settings: Vec<[u32; 2]> = rest.pairs()?.collect();
    if settings.len() != count {
        return Err(Status::ProtocolError);
    }
    let pins = pins(call, attributes & 3, number)?;
    let mut setup = PinSetup::default();
    if attributes & SETS_FUNCTION != 0 {
        let kind = Kind::PinFunction;
        setup.function = Some(call.platform.policy.resolve(call.from, kind, function)?);
    }
    for [setting, value] in settings {
        let setting = u8::try_from(setting).map_err(|_| Status::InvalidParameters)?;
        setup.settings.push((setting, value));
    }
    call.platform.set_up_pins(call.from, pins, &setup)
}
