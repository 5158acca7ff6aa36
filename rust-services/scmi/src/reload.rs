// SPDX-License-Identifier: Apache-2.0

//! A new configuration while guests run (SIGHUP). What agents may do is taken over at once. What
//! there is cannot change under a guest: its driver counted the resources when it started, and SCMI
//! has no word for a new one. That takes a restart of the guest.

use crate::config::{AgentConfig, Config};
use crate::platform::{AgentId, Platform, SystemRight};

/// Why a new configuration is not taken over.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReloadError {
    /// Resources, agents, groups or the back end are other ones.
    #[error("what there is differs from before: restart the service and its guests")]
    Platform,
    /// An agent would see something appear or disappear.
    #[error("{0} would see other resources than before: restart the service and its guests")]
    Visibility(String),
}

impl Config {
    /// The configuration without what may change under a guest.
    fn fixed(&self) -> Self {
        let mut fixed = self.clone();
        for agent in &mut fixed.agents {
            *agent = AgentConfig {
                name: std::mem::take(&mut agent.name),
                socket: agent.socket.take(),
                ..AgentConfig::default()
            };
        }
        fixed
    }

    /// Whether guests that were started with this configuration can go on with another one.
    pub(crate) fn is_same_to_guests(&self, new: &Self) -> bool {
        self.fixed() == new.fixed() && same_to_agents(&self.build(), &new.build()).is_ok()
    }

    /// Lets the agents of a running platform do what another configuration says from now on. What
    /// they want already stays until they want something else.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&mut self, new: Self, platform: &mut Platform) -> Result<(), ReloadError> {
        if self.fixed() != new.fixed() {
            return Err(ReloadError::Platform);
        }
        let next = new.build();
        same_to_agents(platform, &next)?;
        platform.adopt(&next.policy);
        for (old, new) in platform.agents.iter_mut().zip(next.agents) {
            old.trusted = new.trusted;
            old.rate_limit = new.rate_limit;
            old.system = new.system;
        }
        *self = new;
        Ok(())
    }
}

/// Whether agents see the same as before.
fn same_to_agents(platform: &Platform, next: &Platform) -> Result<(), ReloadError> {
    for (place, (old, new)) in platform.agents.iter().zip(&next.agents).enumerate() {
        let appears = (old.system == SystemRight::None) != (new.system == SystemRight::None);
        let same = platform
            .policy
            .sees_as_in(&next.policy, AgentId::new(place));
        if appears || !same {
            return Err(ReloadError::Visibility(old.name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Access, Kind};

    const CLOCKS: &str = "[[clocks]]\nname = \"a\"\nrates = [1]\n\
                          [[clocks]]\nname = \"b\"\nrates = [1]\n";

    fn config(agent: &str) -> Config {
        toml::from_str(&format!("{CLOCKS}[[agents]]\nname = \"x\"\n{agent}")).unwrap()
    }

    #[test]
    fn what_an_agent_may_do_changes_while_it_runs() {
        let mut running = config("");
        let mut platform = running.build();
        let agent = AgentId::new(0);
        platform.switch_clock(agent, 0, true).unwrap();
        let new = config("rate_limit = 7\naccess = { \"clock:a\" = \"read\" }");
        assert!(running.is_same_to_guests(&new));
        running.reload(new.clone(), &mut platform).unwrap();
        assert!(platform.switch_clock(agent, 0, false).is_err());
        assert!(platform.switch_clock(agent, 1, true).is_ok());
        assert!(platform.clock_is_on(0), "what it wanted before stays");
        assert_eq!(platform.agents[0].rate_limit, 7);
        assert_eq!(running, new);
    }

    #[test]
    fn what_a_trusted_agent_took_away_stays_away() {
        let group = "[[groups]]\nname = \"g\"\nmembers = [\"clock:a\"]";
        let mut running = config(group);
        let mut platform = running.build();
        let agent = AgentId::new(0);
        platform.policy.permit(agent, 0, None, false).unwrap();
        let new = config(&format!("default = \"read\"\n{group}"));
        running.reload(new, &mut platform).unwrap();
        let right = platform.policy.right(agent, Kind::Clock, 0).unwrap();
        assert!(right.device_denied && right.access == Access::Read);
    }

    #[test]
    fn what_there_is_does_not_change_under_a_guest() {
        let mut running = config("");
        let mut platform = running.build();
        let other = "[[clocks]]\nname = \"c\"\nrates = [1]";
        let hidden = "access = { \"clock:a\" = \"invisible\" }";
        let visibility = Err(ReloadError::Visibility("x".into()));
        for (new, error) in [
            (config(other), Err(ReloadError::Platform)),
            (config("socket = \"/s\""), Err(ReloadError::Platform)),
            (config(hidden), visibility.clone()),
            (config("system_power = \"none\""), visibility),
        ] {
            assert!(!running.is_same_to_guests(&new), "{error:?}");
            assert_eq!(running.reload(new, &mut platform), error);
            assert_eq!(running, config(""));
        }
    }
}
