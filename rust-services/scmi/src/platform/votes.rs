// SPDX-License-Identifier: Apache-2.0

//! What each agent wants of one thing.

use crate::platform::agent::{AgentId, MOST_AGENTS};

/// One wish per agent.
#[derive(Clone, Copy, Debug)]
pub struct Votes<T>([Option<T>; MOST_AGENTS]);

impl<T: Copy> Default for Votes<T> {
    fn default() -> Self {
        Self([None; MOST_AGENTS])
    }
}

impl<T: Copy> Votes<T> {
    /// What an agent wants.
    #[must_use]
    pub fn of(&self, agent: AgentId) -> Option<T> {
        self.0.get(agent.index()).copied().flatten()
    }

    /// An agent wants this from now on, or nothing.
    pub fn set(&mut self, agent: AgentId, vote: Option<T>) {
        if let Some(of) = self.0.get_mut(agent.index()) {
            *of = vote;
        }
    }

    /// All wishes.
    pub fn all(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter().copied().flatten()
    }

    /// All wishes with their agents.
    pub fn by_agent(&self) -> impl Iterator<Item = (AgentId, T)> + '_ {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(index, vote)| Some((AgentId::new(index), (*vote)?)))
    }

    /// The agents that want something, one bit each.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.by_agent()
            .fold(0, |bits, (agent, _)| bits | agent.bit())
    }

    /// The places of all agents, to save and restore.
    pub(crate) fn slots(&mut self) -> &mut [Option<T>] {
        &mut self.0
    }
}
