// SPDX-License-Identifier: Apache-2.0
//! A device's service, as a guest's task keeps it.

use super::call::Reply;
use super::history::History;
use super::{Conformance, DeviceStatus, ServiceState, Surroundings};
use crate::process::Process;
use agl_virtio_service::config::DeviceEntry;
use std::path::PathBuf;
use std::time::Instant;

/// A device of a guest.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) entry: DeviceEntry,
    pub(super) socket: PathBuf,
    pub(super) keeper: Option<Process>,
    /// The keeper said that it serves.
    pub(super) ready: bool,
    /// It was asked to end; `restart_at` says whether it is to come back.
    pub(super) ending: bool,
    pub(super) isolated: bool,
    pub(super) restart_at: Option<Instant>,
    pub(super) restarts: u32,
    pub(super) history: History,
    pub(super) reason: String,
    /// The running guest has it.
    pub(super) attached: bool,
    /// Its keeper ended under the running guest.
    pub(super) cut_off: bool,
    /// The hot plug slot that it is in.
    pub(super) slot: Option<u8>,
    /// Put it into the guest as soon as its service is ready.
    pub(super) attach_when_ready: Vec<Option<Reply>>,
    /// Who waits for the guest to let go of it, until when.
    pub(super) detaching: Option<(Vec<Reply>, Instant)>,
    /// Its table is gone from the file: it goes when the guest has let go.
    pub(super) leaving: bool,
}

impl Device {
    pub(super) fn new(guest: &str, entry: DeviceEntry, surroundings: &Surroundings) -> Self {
        let socket = entry
            .socket
            .clone()
            .unwrap_or_else(|| surroundings.socket(guest, &entry.name));
        Self {
            entry,
            socket,
            keeper: None,
            ready: false,
            ending: false,
            isolated: false,
            restart_at: None,
            restarts: 0,
            history: History::default(),
            reason: String::new(),
            attached: false,
            cut_off: false,
            slot: None,
            attach_when_ready: Vec::new(),
            detaching: None,
            leaving: false,
        }
    }

    pub(super) fn state(&self) -> ServiceState {
        match (&self.keeper, self.ready, self.restart_at) {
            (Some(_), true, _) => ServiceState::Running,
            (Some(_), false, _) => ServiceState::Starting,
            (None, _, Some(_)) => ServiceState::Restarting,
            (None, _, None) if self.isolated => ServiceState::Isolated,
            (None, _, None) => ServiceState::Stopped,
        }
    }

    /// How it is, with what the guest's self-test said of its type.
    pub(super) fn status(&self, said: (Conformance, String)) -> DeviceStatus {
        let (conformance, conformance_report) = said;
        DeviceStatus {
            device_type: self.entry.device_type.clone(),
            state: self.state(),
            attached: self.attached,
            restarts: self.restarts,
            socket: self.socket.clone(),
            pid: self.keeper.as_ref().map_or(0, Process::id),
            reason: self.reason.clone(),
            conformance,
            conformance_report,
        }
    }
}
