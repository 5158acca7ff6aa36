// SPDX-License-Identifier: Apache-2.0

//! What happens by itself: results of asynchronous commands, and sensors that report.

use std::time::Duration;

use crate::backend::Ticket;
use crate::platform::{AgentId, Kind, Platform};
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
    /// The host is at it; `at` is never then.
    pub ticket: Option<Ticket>,
}

impl Platform {
    /// Does all whose time has come.
    pub fn advance(&mut self, now: Duration) {
        while let Some(place) = self
            .later
            .iter()
            .position(|later| later.ticket.is_none() && later.at <= now)
        {
            let later = self.later.remove(place);
            self.finish(later, now);
        }
        self.report_sensors(now);
        self.look_at_power(now);
    }

    /// When [`Platform::advance`] is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let waiting = self.later.iter().filter(|later| later.ticket.is_none());
        let later = waiting.map(|later| later.at).min();
        let report = self.next_report();
        [later, report, self.next_power_look()]
            .into_iter()
            .flatten()
            .min()
    }

    fn finish(&mut self, later: Later, now: Duration) {
        let agent = later.agent;
        let result = match later.what {
            Clocked::Rate { clock, rate, .. } => {
                self.through_host(agent, Kind::Clock, clock, |platform| {
                    platform.vote_rate(agent, clock, rate)
                })
            }
            Clocked::Reading { sensor } => {
                return self.finish_reading(agent, later.header, sensor, now);
            }
            Clocked::Reset { domain, state } => {
                self.through_host(agent, Kind::Reset, domain, |platform| {
                    platform.pulse(agent, domain, state);
                    Ok(())
                })
            }
            Clocked::Voltage { domain, level } => {
                self.through_host(agent, Kind::Voltage, domain, |platform| {
                    platform.vote_voltage(agent, domain, level)
                })
            }
            Clocked::Cap { domain, cap, .. } => self.vote_cap(agent, domain, cap).map(|()| None),
        };
        match result {
            // It stays among what is under way, and is begun anew should the service die.
            Ok(Some(ticket)) => self.later.push(Later {
                at: Duration::MAX,
                ticket: Some(ticket),
                ..later
            }),
            Ok(None) => self.tell_end(later, Ok(())),
            Err(status) => self.tell_end(later, Err(status)),
        }
    }

    /// The host has done its part of an asynchronous command; whether there is one.
    pub(super) fn finish_later(&mut self, ticket: Ticket, result: Result<(), Status>) -> bool {
        let mut all = self.later.iter();
        let Some(place) = all.position(|later| later.ticket == Some(ticket)) else {
            return false;
        };
        let later = self.later.remove(place);
        self.tell_end(later, result);
        true
    }

    /// An asynchronous command that will not be done, because its agent's configuration was reset:
    /// who waits for the delayed response is told.
    pub(super) fn end_early(&mut self, later: Later) {
        if let Clocked::Reading { .. } = later.what {
            let event = Event::delayed(later.header, Err(Status::GenericError));
            self.respond(later.agent, event);
        } else {
            self.tell_end(later, Err(Status::GenericError));
        }
    }

    /// Sends the delayed response to an asynchronous command, where one is wanted.
    fn tell_end(&mut self, later: Later, result: Result<(), Status>) {
        let Later { agent, header, .. } = later;
        match later.what {
            Clocked::Rate { respond: false, .. } | Clocked::Cap { respond: false, .. } => {}
            Clocked::Reading { .. } => {}
            Clocked::Rate { clock, .. } => {
                self.respond_with(agent, header, result, |platform, event| {
                    event.put_number(platform.number(agent, Kind::Clock, clock));
                    event.put(&platform.clock_rate(clock).to_le_bytes());
                });
            }
            Clocked::Reset { domain, .. } => {
                self.respond_with(agent, header, result, |platform, event| {
                    event.put_number(platform.number(agent, Kind::Reset, domain));
                });
            }
            Clocked::Voltage { domain, .. } => {
                self.respond_with(agent, header, result, |platform, event| {
                    event.put_number(platform.number(agent, Kind::Voltage, domain));
                    let level = platform.voltages.get(domain).map_or(0, |of| of.level());
                    event.put(&level.to_le_bytes());
                });
            }
            Clocked::Cap { domain, .. } => {
                self.respond_with(agent, header, result, |platform, event| {
                    event.put_number(platform.number(agent, Kind::Powercap, domain));
                    let cap = platform.powercaps.get(domain).map_or(0, |of| of.cap());
                    event.put(&cap.to_le_bytes());
                });
            }
        }
        // Nothing is under way any more, with or without a response.
        self.changed();
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
