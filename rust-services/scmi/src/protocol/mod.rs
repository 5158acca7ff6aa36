// SPDX-License-Identifier: Apache-2.0

//! The protocols, one file each. To add one: write its file, and name it in [`PROTOCOLS`].
//!
//! What all protocols have in common is here: version, attributes, which messages exist, version
//! negotiation, rights to read, and what an agent without an event queue may not ask for.

mod base;
mod clock;
mod performance;
mod pinctrl;
mod power;
mod powercap;
mod reset;
mod sensor;
mod system;
mod voltage;

use std::time::Duration;

use crate::backend::Ticket;
use crate::platform::{AgentId, Kind, Platform};
use crate::wire::{Header, MessageType, Reply, Request, Status};

/// All protocols, by their numbers.
pub static PROTOCOLS: &[Protocol] = &[
    base::PROTOCOL,
    power::PROTOCOL,
    system::PROTOCOL,
    performance::PROTOCOL,
    clock::PROTOCOL,
    sensor::PROTOCOL,
    reset::PROTOCOL,
    voltage::PROTOCOL,
    powercap::PROTOCOL,
    pinctrl::PROTOCOL,
];

/// The number of the first protocol, [`PROTOCOLS`] has them without gaps.
const FIRST: u8 = 0x10;

const VERSION: u8 = 0;
const ATTRIBUTES: u8 = 1;
const MESSAGE_ATTRIBUTES: u8 = 2;
const NEGOTIATE: u8 = 0x10;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The reply is complete.
    Done,
    /// The reply is complete, and a delayed response will follow it.
    Begun,
    /// The back end has to be asked; the reply comes under this ticket.
    Held(Ticket),
}

impl Outcome {
    /// An asynchronous command is under way; `respond` where the agent wants its delayed response.
    fn begun(respond: bool) -> Self {
        if respond { Self::Begun } else { Self::Done }
    }
}

/// What a command needs to exist for an agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// An event queue: it makes notifications.
    Events,
    /// A trusted agent.
    Trust,
}

/// A command of a protocol.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its number.
    pub message: u8,
    /// What it needs to exist.
    pub needs: Needs,
}

const fn always(message: u8) -> Command {
    Command {
        message,
        needs: Needs::Nothing,
    }
}

const fn events(message: u8) -> Command {
    Command {
        message,
        needs: Needs::Events,
    }
}

const fn trust(message: u8) -> Command {
    Command {
        message,
        needs: Needs::Trust,
    }
}

/// A protocol.
pub struct Protocol {
    /// Its number.
    pub id: u8,
    /// The version that is implemented: major 31:16, minor 15:0.
    pub version: u32,
    /// The kind of its resources; without any the protocol is not there for an agent.
    kind: Option<Kind>,
    /// Its own commands.
    commands: &'static [Command],
    /// PROTOCOL_ATTRIBUTES.
    attributes: fn(&Call<'_>, &mut Reply),
    /// Its own commands.
    handle: fn(&mut Call<'_>, Request<'_>, &mut Reply) -> Result<Outcome, Status>,
}

impl Protocol {
    /// Whether it is there for an agent.
    #[must_use]
    pub fn is_offered(&self, platform: &Platform, agent: AgentId) -> bool {
        match self.kind {
            Some(kind) => platform.policy.visible(agent, kind) > 0,
            None => self.id == base::PROTOCOL.id || system::is_offered(platform, agent),
        }
    }

    fn has(&self, call: &Call<'_>, message: u8) -> bool {
        let common = [VERSION, ATTRIBUTES, MESSAGE_ATTRIBUTES, NEGOTIATE];
        common.contains(&message)
            || self.commands.iter().any(|command| {
                command.message == message
                    && match command.needs {
                        Needs::Nothing => true,
                        Needs::Events => call.agent().is_some_and(|agent| agent.p2a),
                        Needs::Trust => call.agent().is_some_and(|agent| agent.trusted),
                    }
            })
    }
}

/// A command with all that answering it takes.
pub struct Call<'a> {
    /// The platform.
    pub platform: &'a mut Platform,
    /// Who asks.
    pub from: AgentId,
    /// What was asked.
    pub header: Header,
    /// The clock: most commands do not look at it.
    pub now: &'a dyn Fn() -> Duration,
}

impl Call<'_> {
    fn agent(&self) -> Option<&crate::platform::Agent> {
        self.platform.agents.get(self.from.index())
    }

    /// The resource that the agent means, which it may read.
    fn resource(&mut self, kind: Kind, number: u32) -> Result<usize, Status> {
        let index = self.platform.policy.resolve(self.from, kind, number)?;
        match self.platform.policy.right(self.from, kind, index) {
            Some(right) if right.may_read() => Ok(index),
            _ => Err(self.platform.denied(self.from)),
        }
    }

    /// Changes a resource. Where it is the host's, the answer is held until the host has followed.
    fn change(
        &mut self,
        kind: Kind,
        index: usize,
        change: impl FnOnce(&mut Platform) -> Result<(), Status>,
    ) -> Result<Outcome, Status> {
        let ticket = self.platform.through_host(self.from, kind, index, change)?;
        Ok(ticket.map_or(Outcome::Done, Outcome::Held))
    }

    fn count(&self, kind: Kind) -> u32 {
        u32::try_from(self.platform.policy.visible(self.from, kind)).unwrap_or(u32::MAX)
    }

    fn sees(&self, kind: Kind, index: usize) -> bool {
        self.platform.number(self.from, kind, index).is_some()
    }

    fn limits(&self, kind: Kind, index: usize) -> crate::platform::Limits {
        let right = self.platform.policy.right(self.from, kind, index);
        right.map_or(crate::platform::Limits::NONE, |right| right.limits)
    }

    fn may_set(&self, kind: Kind, index: usize) -> bool {
        let right = self.platform.policy.right(self.from, kind, index);
        right.is_some_and(|right| right.may_set())
    }

    fn has_events(&self) -> bool {
        self.agent().is_some_and(|agent| agent.p2a)
    }
}

/// Answers a command. A refusal is an error; then what is in `reply` does not count.
///
/// # Errors
/// Why it is refused.
pub fn answer(
    mut call: Call<'_>,
    request: Request<'_>,
    reply: &mut Reply,
) -> Result<Outcome, Status> {
    let header = call.header;
    if header.kind() != MessageType::Command || header.0 >> 28 != 0 {
        return Err(Status::ProtocolError);
    }
    let place = usize::from(header.protocol()).checked_sub(FIRST.into());
    let protocol = place
        .and_then(|place| PROTOCOLS.get(place))
        .ok_or(Status::NotSupported)?;
    if !protocol.is_offered(call.platform, call.from) {
        return Err(Status::NotSupported);
    }
    match header.message() {
        VERSION => {
            request.words::<0>()?;
            reply.u32(protocol.version);
        }
        ATTRIBUTES => {
            request.words::<0>()?;
            (protocol.attributes)(&call, reply);
        }
        MESSAGE_ATTRIBUTES => {
            let [message] = request.words()?;
            let message = u8::try_from(message).map_err(|_| Status::NotFound)?;
            if !protocol.has(&call, message) {
                return Err(Status::NotFound);
            }
            reply.u32(0);
        }
        NEGOTIATE => {
            let [version] = request.words()?;
            if version != protocol.version {
                return Err(Status::NotSupported);
            }
        }
        message if protocol.has(&call, message) => {
            return (protocol.handle)(&mut call, request, reply);
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}

/// A word of which only bit 0 may be set.
fn flag(word: u32) -> Result<bool, Status> {
    match word {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Status::InvalidParameters),
    }
}

/// How many of the items from `skip` on fit into `room` bytes of `size` each, and how many are left
/// after them.
///
/// # Errors
/// [`Status::OutOfRange`] beyond the end of the list, [`Status::ProtocolError`] where not even one
/// fits.
fn page(total: usize, skip: u32, room: usize, size: usize) -> Result<(usize, usize, u32), Status> {
    let skip = usize::try_from(skip).map_err(|_| Status::OutOfRange)?;
    if skip > total || (skip == total && total > 0) {
        return Err(Status::OutOfRange);
    }
    let left = total.saturating_sub(skip);
    let fits = room.checked_div(size).unwrap_or(0);
    let now = left.min(fits);
    if now == 0 && left > 0 {
        return Err(Status::ProtocolError);
    }
    let remaining = u32::try_from(left.saturating_sub(now)).unwrap_or(u32::MAX);
    Ok((skip, now, remaining))
}

/// A count that fits its field, because [`page`] made it.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The reply to the commands for extended names.
fn long_name(name: &str, reply: &mut Reply) -> Outcome {
    reply.u32(0);
    reply.long_name(name);
    Outcome::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_where_their_numbers_say() {
        for (place, protocol) in PROTOCOLS.iter().enumerate() {
            assert_eq!(usize::from(protocol.id), usize::from(FIRST) + place);
        }
    }

    #[test]
    fn a_page_ends_with_what_fits() {
        assert_eq!(page(10, 0, 128, 20), Ok((0, 6, 4)));
        assert_eq!(page(10, 6, 128, 20), Ok((6, 4, 0)));
        assert_eq!(page(10, 10, 128, 20), Err(Status::OutOfRange));
        assert_eq!(page(10, u32::MAX, 128, 20), Err(Status::OutOfRange));
        assert_eq!(page(10, 0, 19, 20), Err(Status::ProtocolError));
        assert_eq!(page(0, 0, 128, 20), Ok((0, 0, 0)));
    }
}
