// SPDX-License-Identifier: Apache-2.0

//! System power management protocol 2.1 (SCMI 3.2, 4.4).

use crate::platform::{AgentId, Platform, SystemRight, SystemState};
use crate::protocol::{Call, Outcome, Protocol, always, events, flag};
use crate::wire::{Reply, Request, Status};

const STATE_SET: u8 = 0x3;
const STATE_GET: u8 = 0x4;
const STATE_NOTIFY: u8 = 0x5;

pub(super) const PROTOCOL: Protocol = Protocol {
    id: 0x12,
    version: 0x2_0001,
    kind: None,
    commands: &[always(STATE_SET), always(STATE_GET), events(STATE_NOTIFY)],
    attributes,
    handle,
};

pub(super) fn is_offered(platform: &Platform, agent: AgentId) -> bool {
    let agent = platform.agents.get(agent.index());
    agent.is_some_and(|agent| agent.system != SystemRight::None)
}

fn attributes(_call: &Call<'_>, reply: &mut Reply) {
    reply.u32(0);
}

fn handle(call: &mut Call<'_>, request: Request<'_>, reply: &mut Reply) -> Result<Outcome, Status> {
    match call.header.message() {
        STATE_SET => {
            let [flags, state] = request.words()?;
            let graceful = flag(flags)?;
            let state = SystemState::of(state)?;
            let right = call.agent().map(|agent| agent.system);
            if right != Some(SystemRight::Set) {
                return Err(call.platform.denied(call.from));
            }
            call.platform.announce_system(call.from, state, graceful);
            call.platform.request_system(call.from, state, graceful);
        }
        STATE_GET => {
            request.words::<0>()?;
            // The agent that asks runs, and so does its system.
            reply.u32(SystemState::PowerUp.code());
        }
        STATE_NOTIFY => {
            let [enable] = request.words()?;
            let wanted = flag(enable)?;
            if let Some(agent) = call.platform.agents.get_mut(call.from.index()) {
                agent.system_notify = wanted;
            }
            call.platform.settled();
        }
        _ => return Err(Status::NotSupported),
    }
    Ok(Outcome::Done)
}
