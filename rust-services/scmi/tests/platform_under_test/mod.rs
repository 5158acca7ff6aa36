// SPDX-License-Identifier: Apache-2.0

//! A platform without sockets, asked in the words of the wire.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::fmt::Write;
use std::time::Duration;

use agl_virtio_scmi::config::{AgentConfig, Config};
use agl_virtio_scmi::platform::{AgentId, Platform};
use agl_virtio_scmi::protocol::{self, Call, Outcome};
use agl_virtio_scmi::wire::{Header, Reply, Request};

/// The first agent.
pub(crate) const FIRST: usize = 0;
/// The second.
pub(crate) const SECOND: usize = 1;

/// A platform and its time.
pub(crate) struct PlatformUnderTest {
    pub(crate) platform: Platform,
    pub(crate) now: Duration,
    token: u32,
}

impl PlatformUnderTest {
    fn over(config: &Config) -> Self {
        let mut platform = config.build();
        for agent in &mut platform.agents {
            agent.p2a = true;
        }
        Self {
            platform,
            now: Duration::ZERO,
            token: 0,
        }
    }

    /// The built-in platform with its one agent.
    pub(crate) fn built_in() -> Self {
        Self::over(&Config::default())
    }

    /// The built-in platform with a second agent, "other", who may do everything too.
    pub(crate) fn two_agents() -> Self {
        let mut config = Config::default();
        let other = AgentConfig {
            name: "other".into(),
            ..config.agents[0].clone()
        };
        config.agents.push(other);
        Self::over(&config)
    }

    /// The first agent is limited, the second is trusted and sees no power domains.
    pub(crate) fn with_policy() -> Self {
        Self::over(&Self::policy())
    }

    /// As [`Self::with_policy`], with a configuration that limits nobody's performance.
    pub(crate) fn with_less_policy() -> Self {
        let mut config = Self::policy();
        config.agents[FIRST].access.remove("performance:cpu");
        Self::over(&config)
    }

    fn policy() -> Config {
        let mut config = Config::default();
        let policy = r#"
            [[agents]]
            name = "guest"
            system_power = "notify"
            [agents.access]
            "clock:pixel" = "read"
            "performance:cpu" = { access = "set", max = 1000 }
            [[agents]]
            name = "other"
            socket = "/nowhere"
            trusted = true
            [agents.access]
            "reset:display" = "exclusive"
            "power:always-on" = "invisible"
            "power:media" = "invisible"
            "power:display" = "invisible"
            "power:graphics-and-compositor" = "invisible"
        "#;
        let policy: Config = toml::from_str(policy).unwrap();
        config.agents = policy.agents;
        config
    }

    /// Hundreds of everything.
    pub(crate) fn large() -> Self {
        let mut text = String::new();
        for sensor in 0..300 {
            let range = if sensor % 3 == 0 {
                "range = [0, 9]"
            } else {
                ""
            };
            let steps: Vec<String> = (1..=200).map(|ms: u32| ms.to_string()).collect();
            let intervals = if sensor == 0 {
                format!("intervals_ms = [{}]", steps.join(","))
            } else {
                String::new()
            };
            write!(
                text,
                "[[sensors]]\nname = \"s{sensor}\"\n{range}\n{intervals}\n"
            )
            .unwrap();
        }
        let list = |count: u32, step: u32| {
            let items: Vec<String> = (1..=count).map(|item| (item * step).to_string()).collect();
            items.join(",")
        };
        let levels: Vec<String> = (1..=64).map(|level| format!("{{level={level}}}")).collect();
        let levels = levels.join(",");
        write!(
            text,
            "[[clocks]]\nname = \"c\"\nrates = [{}]\n",
            list(500, 1000)
        )
        .unwrap();
        write!(
            text,
            "[[voltages]]\nname = \"v\"\nlevels = [{}]\n",
            list(400, 1000)
        )
        .unwrap();
        write!(text, "[[performance]]\nname = \"p\"\nlevels = [{levels}]\n").unwrap();
        Self::over(&toml::from_str(&text).unwrap())
    }

    /// Asks as the first agent: status and what follows it.
    pub(crate) fn ask(&mut self, protocol: u8, message: u8, words: &[u32]) -> (i32, Vec<u8>) {
        self.ask_as(FIRST, protocol, message, words)
    }

    /// Asks as any agent.
    pub(crate) fn ask_as(
        &mut self,
        agent: usize,
        protocol: u8,
        message: u8,
        words: &[u32],
    ) -> (i32, Vec<u8>) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.send(agent, protocol, message, &bytes)
    }

    /// Asks with a buffer of `room` bytes for the whole reply.
    pub(crate) fn ask_with_room(
        &mut self,
        protocol: u8,
        message: u8,
        words: &[u32],
        room: usize,
    ) -> (i32, Vec<u8>) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let header = u32::from(message) | u32::from(protocol) << 10;
        self.exchange(FIRST, header, &bytes, room)
    }

    /// Sends any parameters.
    pub(crate) fn send(
        &mut self,
        agent: usize,
        protocol: u8,
        message: u8,
        bytes: &[u8],
    ) -> (i32, Vec<u8>) {
        self.token = (self.token + 1) & 0x3ff;
        let header = u32::from(message) | u32::from(protocol) << 10 | self.token << 18;
        self.raw(agent, header, bytes)
    }

    /// Sends any header and parameters.
    pub(crate) fn raw(&mut self, agent: usize, header: u32, bytes: &[u8]) -> (i32, Vec<u8>) {
        self.exchange(agent, header, bytes, 136)
    }

    /// As [`Self::raw`], for the length of the whole reply and its status.
    pub(crate) fn raw_with_room(
        &mut self,
        agent: usize,
        header: u32,
        bytes: &[u8],
        room: usize,
    ) -> (usize, i32) {
        let (status, body) = self.exchange(agent, header, bytes, room);
        (8 + body.len(), status)
    }

    fn exchange(&mut self, agent: usize, header: u32, bytes: &[u8], room: usize) -> (i32, Vec<u8>) {
        let mut reply = Reply::default();
        reply.begin(Header(header), room);
        let now = self.now;
        let call = Call {
            platform: &mut self.platform,
            from: AgentId::new(agent),
            header: Header(header),
            now: &move || now,
        };
        let outcome = protocol::answer(call, Request(bytes), &mut reply);
        let bytes =
            reply.finish(outcome.map(|outcome| assert!(!matches!(outcome, Outcome::Held(_)))));
        assert_eq!(word(bytes, 0), header);
        (
            i32::from_le_bytes(bytes[4..8].try_into().unwrap()),
            bytes[8..].to_vec(),
        )
    }

    /// The next event of an agent.
    pub(crate) fn event(&mut self, agent: usize) -> Option<Vec<u8>> {
        let event = self.platform.take_event(AgentId::new(agent), |_| false)?;
        Some(event.as_bytes().to_vec())
    }
}

/// The word at a place.
pub(crate) fn word(bytes: &[u8], place: usize) -> u32 {
    u32::from_le_bytes(bytes[place * 4..place * 4 + 4].try_into().unwrap())
}

/// The text up to the first zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8(bytes).unwrap()
}
