// SPDX-License-Identifier: Apache-2.0

//! Resources of the host: commands wait for it, and what it cannot do is not wished for any more.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

use std::time::Duration;

use agl_virtio_scmi::backend::{Job, JobResult, Ticket};
use agl_virtio_scmi::config::Config;
use agl_virtio_scmi::platform::{AgentId, HostState, Kind, Platform};
use agl_virtio_scmi::protocol::{self, Call, Outcome};
use agl_virtio_scmi::wire::{Header, Reply, Request, Status};

const CONFIG: &str = r#"
backend = "linux"
agents = [{ name = "a" }, { name = "b", socket = "/b" }]
[[clocks]]
name = "lcd"
rates = [1000, 2000]
host = "pixel"
[[clocks]]
name = "pll"
rates = [5000]
[[power]]
name = "display"
host = "disp"
[[resets]]
name = "codec"
host = "codec"
latency_us = 10
[[voltages]]
name = "io"
levels = [1800000, 3300000]
host = "vdd"
"#;

/// A platform whose host does as the test says.
struct Host {
    platform: Platform,
    jobs: Vec<Job>,
    first: AgentId,
    second: AgentId,
}

impl Host {
    fn new() -> Self {
        let config: Config = toml::from_str(CONFIG).unwrap();
        let mut platform = config.build();
        for agent in &mut platform.agents {
            agent.p2a = true;
        }
        let mut host = Self {
            platform,
            jobs: Vec::new(),
            first: AgentId::new(0),
            second: AgentId::new(1),
        };
        // A service that starts makes sure that everything is as nobody wants it.
        let states = host.told();
        assert_eq!(states.len(), 4);
        host.done_all(Ok(None));
        host
    }

    fn ask(
        &mut self,
        from: AgentId,
        protocol: u32,
        message: u32,
        words: &[u32],
    ) -> Result<Outcome, Status> {
        let header = Header(message | protocol << 10);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut reply = Reply::default();
        reply.begin(header, 136);
        let call = Call {
            platform: &mut self.platform,
            from,
            header,
            now: &|| Duration::ZERO,
        };
        protocol::answer(call, Request(&bytes), &mut reply)
    }

    /// Asks for something that waits for the host.
    fn hold(&mut self, from: AgentId, protocol: u32, message: u32, words: &[u32]) -> Ticket {
        match self.ask(from, protocol, message, words) {
            Ok(Outcome::Held(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// What the host is told now.
    fn told(&mut self) -> Vec<HostState> {
        self.platform.sync_host();
        let before = self.jobs.len();
        self.platform.take_jobs(&mut self.jobs);
        let states = self.jobs[before..].iter().map(|job| match job {
            Job::Apply { state, .. } => *state,
            other => panic!("{other:?}"),
        });
        states.collect()
    }

    /// The host has done all of it, with the same result.
    fn done_all(&mut self, result: Result<Option<u64>, Status>) {
        for job in std::mem::take(&mut self.jobs) {
            let Job::Apply {
                kind,
                index,
                ticket,
                ..
            } = job
            else {
                continue;
            };
            let result = JobResult::Applied {
                kind,
                index,
                ticket,
                result,
            };
            self.platform.job_done(result, Duration::ZERO);
        }
    }

    fn answers(&mut self, of: AgentId) -> Vec<(Ticket, Result<Vec<u8>, Status>)> {
        self.platform.agents[of.index()].answers.drain(..).collect()
    }
}

fn clock(on: bool, rate: Option<u64>) -> HostState {
    HostState::Clock {
        on,
        rate,
        parent: None,
    }
}

#[test]
fn a_command_is_answered_when_the_host_has_followed() {
    let mut host = Host::new();
    let (first, second) = (host.first, host.second);
    let ticket = host.hold(first, 0x14, 7, &[0, 1, 0]);
    assert_eq!(host.told(), [clock(true, None)]);
    // The other wants the same: it waits for the same work.
    let other = host.hold(second, 0x14, 7, &[0, 1, 0]);
    assert_eq!(host.told(), [clock(true, None)]);
    assert!(host.answers(first).is_empty());
    host.done_all(Ok(Some(999)));
    assert_eq!(host.answers(first), [(ticket, Ok(vec![]))]);
    assert_eq!(host.answers(second), [(other, Ok(vec![]))]);
    assert_eq!(
        host.platform.clock_rate(0),
        999,
        "what the host's clock has"
    );
    // The first does not want it any more, the second does: nothing changes.
    assert_eq!(host.ask(first, 0x14, 7, &[0, 0, 0]), Ok(Outcome::Done));
    assert_eq!(host.told(), []);
    host.hold(second, 0x14, 7, &[0, 0, 0]);
    assert_eq!(host.told(), [clock(false, None)]);
}

#[test]
fn what_the_host_cannot_do_is_not_wished_for_any_more() {
    let mut host = Host::new();
    let first = host.first;
    let commands: [(u32, u32, &[u32]); 6] = [
        (0x14, 5, &[0, 0, 2000, 0]),
        (0x14, 7, &[0, 1, 0]),
        (0x11, 4, &[0, 0, 0]),
        (0x16, 4, &[0, 2, 0]),
        (0x17, 5, &[0, 7]),
        (0x17, 7, &[0, 0, 3_300_000]),
    ];
    let kinds = [Kind::Clock, Kind::Power, Kind::Reset, Kind::Voltage];
    for (protocol, message, words) in commands {
        let ticket = host.hold(first, protocol, message, words);
        assert_eq!(host.told().len(), 1);
        host.done_all(Err(Status::HardwareError));
        assert_eq!(host.answers(first), [(ticket, Err(Status::HardwareError))]);
        // The host is brought back to what holds without; whether it can, only the log tells.
        let kind = kinds
            .iter()
            .find(|kind| u32::from(kind.protocol()) == protocol);
        assert_eq!(host.told().len(), 1, "{kind:?}");
        host.done_all(Err(Status::HardwareError));
        assert_eq!(host.told(), [], "and not over and over");
    }
    let clock = &host.platform.clocks[0];
    assert_eq!((clock.wanted_by(), clock.rate_wish(first)), (0, None));
    assert_eq!(host.platform.power[0].wanted_by(), 0);
    assert_eq!(host.platform.resets[0].asserted_by(), 0);
    assert_eq!(
        (
            host.platform.voltages[0].wanted_by(),
            host.platform.voltages[0].level()
        ),
        (0, 1_800_000)
    );
}

#[test]
fn what_an_agent_wanted_ends_on_the_host_too() {
    let mut host = Host::new();
    let first = host.first;
    host.hold(first, 0x14, 5, &[0, 0, 2000, 0]);
    host.hold(first, 0x14, 7, &[0, 1, 0]);
    host.hold(first, 0x11, 4, &[0, 0, 0]);
    host.hold(first, 0x17, 5, &[0, 7]);
    host.told();
    host.platform.release(first, Duration::ZERO);
    let off = HostState::Voltage {
        on: false,
        level: None,
    };
    assert_eq!(
        host.told(),
        [HostState::Power { on: false }, clock(false, None), off]
    );
    // The answers come to nobody.
    host.done_all(Ok(None));
    host.platform.agents[0].answers.clear();
    assert_eq!(host.told(), []);
}

#[test]
fn an_asynchronous_command_is_over_when_the_host_has_followed() {
    let mut host = Host::new();
    let first = host.first;
    assert_eq!(host.ask(first, 0x16, 4, &[0, 5, 0]), Ok(Outcome::Begun));
    assert_eq!(host.told(), []);
    host.platform.advance(Duration::from_micros(10));
    let pulsed = HostState::Reset {
        asserted: false,
        pulses: 1,
    };
    assert_eq!(host.told(), [pulsed]);
    assert_eq!(host.platform.next_deadline(), None);
    assert!(host.platform.take_event(first, |_| false).is_none());
    let mut saved = Vec::new();
    host.platform.save(&mut saved);
    host.done_all(Ok(None));
    let event = host.platform.take_event(first, |_| false).unwrap();
    assert_eq!(event.as_bytes()[4..8], [0; 4]);
    assert!(host.answers(first).is_empty());
    // A service that died meanwhile does it again.
    let mut next = Host::new();
    assert!(next.platform.restore(&saved, Duration::ZERO));
    next.platform.advance(Duration::ZERO);
    assert_eq!(next.told(), [pulsed]);
    next.done_all(Ok(None));
    assert!(next.platform.take_event(first, |_| false).is_some());
}

#[test]
fn simulated_resources_are_answered_at_once() {
    let mut host = Host::new();
    let first = host.first;
    assert_eq!(host.ask(first, 0x14, 7, &[1, 1, 0]), Ok(Outcome::Done));
    assert_eq!(host.told(), []);
}
