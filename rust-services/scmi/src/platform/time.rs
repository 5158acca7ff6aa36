// SPDX-License-Identifier: Apache-2.0

//! What happens by itself: results of asynchronous commands, and sensors that report.

use std::time::Duration;

use crate::platform::{AgentId, Platform};
use crate::wire::{Event, Header, Status};

/// What an asynchronous command does when its time has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Clocked {
    /// CLOCK_RATE_SET; the response may be unwanted.
    Rate {
        /// Which clock.
        clock: usize,
        /// In Hz.
        rate: u64,
        /// Whether the agent wants the delayed response.
        respond: bool,
    },
    /// SENSOR_READING_GET.
    Reading {
        /// Which sensor.
        sensor: usize,
    },
    /// RESET.
    Reset {
        /// Which domain.
        domain: usize,
        /// Reset state.
        state: u32,
    },
    /// VOLTAGE_LEVEL_SET.
    Voltage {
        /// Which domain.
        domain: usize,
        /// In µV.
        level: i32,
    },
    /// POWERCAP_CAP_SET; the response may be unwanted.
    Cap {
        /// Which domain.
        domain: usize,
        /// In the domain's unit.
        cap: u32,
        /// Whether the agent wants the delayed response.
        respond: bool,
    },
}

/// An asynchronous command under way.
#[derive(Clone, Copy, Debug)]
pub struct Later {
    /// When it is done.
    pub at: Duration,
    /// Whose.
    pub agent: AgentId,
    /// The command.
    pub header: Header,
    /// What it does.
    pub what: Clocked,
}

impl Platform {
    /// Does all whose time has come.
    pub fn advance(&mut self, now: Duration) {
        while let Some(place) = self.later.iter().position(|later| later.at <= now) {
            let later = self.later.remove(place);
            self.finish(later, now);
        }
        self.report_sensors(now);
        self.look_at_power(now);
    }

    /// When [`Platform::advance`] is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let later = self.later.iter().map(|later| later.at).min();
        let report = self.next_report();
        [later, report, self.next_power_look()]
            .into_iter()
            .flatten()
            .min()
    }

    fn finish(&mut self, later: Later, now: Duration) {
        let Later {
            agent,
            header,
            what,
            ..
        } = later;
        match what {
            Clocked::Rate {
                clock,
                rate,
                respond,
            } => {
                let result = self.vote_rate(agent, clock, rate);
                if respond {
                    self.respond_with(agent, header, result, |platform, event| {
                        event.put_number(platform.number(agent, super::Kind::Clock, clock));
                        event.put(&platform.clock_rate(clock).to_le_bytes());
                    });
                }
            }
            Clocked::Reading { sensor } => self.finish_reading(agent, header, sensor, now),
            Clocked::Reset { domain, state } => {
                self.pulse(agent, domain, state);
                self.respond_with(agent, header, Ok(()), |platform, event| {
                    event.put_number(platform.number(agent, super::Kind::Reset, domain));
                });
            }
            Clocked::Voltage { domain, level } => {
                let result = self.vote_voltage(agent, domain, level);
                self.respond_with(agent, header, result, |platform, event| {
                    event.put_number(platform.number(agent, super::Kind::Voltage, domain));
                    let level = platform.voltages.get(domain).map_or(0, |of| of.level());
                    event.put(&level.to_le_bytes());
                });
            }
            Clocked::Cap {
                domain,
                cap,
                respond,
            } => {
                let result = self.vote_cap(agent, domain, cap);
                if respond {
                    self.respond_with(agent, header, result, |platform, event| {
                        event.put_number(platform.number(agent, super::Kind::Powercap, domain));
                        let cap = platform.powercaps.get(domain).map_or(0, |of| of.cap());
                        event.put(&cap.to_le_bytes());
                    });
                }
            }
        }
    }

    /// Sends the delayed response to a command; `body` follows a success.
    pub(crate) fn respond_with(
        &mut self,
        agent: AgentId,
        header: Header,
        result: Result<(), Status>,
        body: impl FnOnce(&Self, &mut Event),
    ) {
        let mut event = Event::delayed(header, result);
        if result.is_ok() {
            body(self, &mut event);
        }
        self.respond(agent, event);
    }
}

impl Event {
    /// Adds the agent's number of a resource.
    fn put_number(&mut self, number: Option<u32>) {
        self.put(&number.unwrap_or(u32::MAX).to_le_bytes());
    }
}
