// SPDX-License-Identifier: Apache-2.0

//! The SCMI platform: two agents send any messages, time passes, one goes away, the service dies.
//! Every message is answered within its buffer, a refusal is header and status, and what was saved
//! is what is restored.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use agl_virtio_scmi::config::{AgentConfig, Config};
use agl_virtio_scmi::platform::{AgentId, Platform};
use agl_virtio_scmi::protocol::{self, Call};
use agl_virtio_scmi::wire::{Header, REFUSAL_SIZE, Reply, Request};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Deed {
    /// A message that could be one: parameters are small numbers.
    Plausible { second: bool, protocol: u8, message: u8, words: Vec<u8>, room: u8 },
    /// Any bytes.
    Any { second: bool, header: u32, bytes: Vec<u8>, room: u8 },
    /// Milliseconds.
    Pass(u16),
    /// A driver resets.
    Reset(bool),
    /// The service dies, and another one goes on.
    Die,
    /// A sensor's value is injected.
    Inject(u8, i64),
}

/// The built-in platform for two agents, read once.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let mut config = Config::default();
    config.agents = config.agents();
    config.agents[0].trusted = true;
    let other = AgentConfig { name: "other".into(), ..config.agents[0].clone() };
    config.agents.push(other);
    config
});

fn platform() -> Platform {
    let mut platform = CONFIG.build();
    for agent in &mut platform.agents {
        agent.p2a = true;
    }
    platform
}

fn send(platform: &mut Platform, now: Duration, second: bool, header: u32, bytes: &[u8], room: u8) {
    let room = REFUSAL_SIZE + usize::from(room) % 140;
    let mut reply = Reply::default();
    reply.begin(Header(header), room);
    let call = Call {
        platform,
        from: AgentId::new(second.into()),
        header: Header(header),
        now: &move || now,
    };
    let outcome = protocol::answer(call, Request(bytes), &mut reply);
    let answer = reply.finish(outcome.map(drop));
    assert!((REFUSAL_SIZE..=room).contains(&answer.len()));
    assert_eq!(answer[..4], header.to_le_bytes());
    assert!(answer[4..8] == [0; 4] || answer.len() == REFUSAL_SIZE);
}

fuzz_target!(|deeds: Vec<Deed>| {
    let mut platform = platform();
    let mut now = Duration::from_secs(1);
    for deed in deeds {
        match deed {
            Deed::Plausible { second, protocol, message, words, room } => {
                let header = u32::from(message % 0x12) | u32::from(0x10 + protocol % 10) << 10;
                let words = words.iter().take(6).flat_map(|word| u32::from(*word).to_le_bytes());
                let bytes: Vec<u8> = words.collect();
                send(&mut platform, now, second, header, &bytes, room);
            }
            Deed::Any { second, header, bytes, room } => {
                send(&mut platform, now, second, header, &bytes, room);
            }
            Deed::Pass(millis) => {
                now += Duration::from_millis(millis.into());
                platform.advance(now);
                assert!(platform.next_deadline().is_none_or(|at| at > now));
                for agent in [0, 1].map(AgentId::new) {
                    while let Some(event) = platform.take_event(agent, |_| false) {
                        assert!((4..=132).contains(&event.as_bytes().len()));
                    }
                }
            }
            Deed::Reset(second) => platform.release(AgentId::new(second.into()), now),
            Deed::Die => {
                let mut saved = Vec::new();
                platform.save(&mut saved);
                let mut next = self::platform();
                assert!(next.restore(&saved, now));
                let mut again = Vec::new();
                next.save(&mut again);
                assert_eq!(saved, again);
                platform = next;
            }
            Deed::Inject(sensor, value) => {
                let place = usize::from(sensor) % platform.sensors.len();
                platform.sensors[place].inject(0, Some(value));
            }
        }
    }
});
