// SPDX-License-Identifier: Apache-2.0

//! Programs of the host that are stations of a bus.

use std::collections::VecDeque;
use std::time::Duration;

use super::bus::Wire;
use super::controller::count;
use super::{BusId, Network, Station};
use crate::frame::Frame;

/// Frames that wait for a program of the host at most.
const MOST_UNREAD: usize = 4096;

/// A program of the host on a bus.
#[derive(Debug)]
pub(super) struct HostStation {
    key: u64,
    bus: BusId,
    unread: VecDeque<Frame>,
}

impl Network {
    /// Adds a program of the host, known by `key`.
    pub fn add_host(&mut self, key: u64, bus: BusId, now: Duration) {
        self.attach(bus, Station::Host(key));
        self.hosts.push(HostStation {
            key,
            bus,
            unread: VecDeque::new(),
        });
        if let Some(bus) = self.buses.get_mut(bus.0) {
            bus.set_live(Station::Host(key), true, now);
        }
        self.look_sooner();
    }

    /// A program of the host has gone.
    pub fn remove_host(&mut self, key: u64, now: Duration) {
        for bus in &mut self.buses {
            match &mut bus.wire {
                Wire::Virtual(bus) => bus.detach(Station::Host(key), now),
                Wire::Interface(interface) => {
                    interface.withdraw(Station::Host(key));
                }
            }
        }
        self.hosts.retain(|host| host.key != key);
        self.look_sooner();
    }

    /// The next frame that a program of the host has not read.
    pub fn take_unread(&mut self, key: u64) -> Option<Frame> {
        let host = self.hosts.iter_mut().find(|host| host.key == key)?;
        host.unread.pop_front()
    }

    /// Puts one back.
    pub fn return_unread(&mut self, key: u64, frame: Frame) {
        if let Some(host) = self.hosts.iter_mut().find(|host| host.key == key) {
            host.unread.push_front(frame);
        }
    }

    /// All programs on a bus hear a frame, but the one that sent it.
    pub(super) fn tell_programs(&mut self, bus: BusId, from: Option<Station>, frame: &Frame) {
        for host in &mut self.hosts {
            if host.bus == bus && from != Some(Station::Host(host.key)) {
                self.news.hub = true;
                if host.unread.len() < MOST_UNREAD {
                    host.unread.push_back(*frame);
                } else {
                    count(&mut self.host_lost);
                }
            }
        }
    }
}
