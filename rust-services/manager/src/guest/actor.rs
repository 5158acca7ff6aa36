// SPDX-License-Identifier: Apache-2.0
//! The task of a guest: takes requests and events one after the other, so that nothing about a
//! guest is ever decided twice.

use super::call::{Answers, Call, Command, GuestError, GuestHandle, Reply};
use super::device::Device;
use super::history::History;
use super::saved::{Saved, SavedDevice};
use super::{GuestState, GuestStatus, Selftest, Surroundings};
use crate::definition::{Cause, Definition, Guest};
use crate::process::{Ending, Process};
use crate::supervision::End;
use crate::vmm::qmp::{MachineEvent, Qmp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Something that happened to a guest.
#[derive(Debug)]
pub(super) enum Event {
    /// The monitor's process ended; the number is that of the process it was.
    VmmEnded(u32, End),
    /// A keeper's process ended.
    KeeperEnded(String, u32, End),
    /// A keeper serves.
    KeeperReady(String),
    /// Something in the machine that this process runs.
    Machine(u32, MachineEvent),
}

/// The monitor as it runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) qmp: Option<Qmp>,
    /// With what it was started.
    pub(super) started_as: Guest,
    pub(super) started_usec: u64,
    /// Why the machine ends, as far as it is known before its process does.
    pub(super) cause: Option<(Cause, String)>,
}

/// What the task is waiting for, and until when.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// All devices are ready, or the monitor can be spoken to.
    pub(super) start: Option<Instant>,
    /// The monitor's socket is tried again.
    pub(super) connect: Option<Instant>,
    /// A guest that was asked to end is ended.
    pub(super) kill: Option<Instant>,
    /// A guest that ended is started again.
    pub(super) restart: Option<Instant>,
    /// The note of what runs is written again, after that failed.
    pub(super) save: Option<Instant>,
}

pub(super) struct Actor {
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) folder: PathBuf,
    /// What the file says.
    pub(super) wanted: Arc<Definition>,
    pub(super) devices: BTreeMap<String, Device>,
    pub(super) vmm: Option<Running>,
    pub(super) state: GuestState,
    pub(super) exit_reason: String,
    pub(super) restarts: u32,
    pub(super) history: History,
    /// What the guest's self-test has found.
    pub(super) selftest: Option<Selftest>,
    /// Who waits for the guest to run.
    pub(super) starting: Vec<Reply>,
    pub(super) answers: Answers,
    pub(super) forget: Option<Reply>,
    pub(super) deadlines: Deadlines,
    pub(super) events: mpsc::Sender<Event>,
    status: watch::Sender<Arc<GuestStatus>>,
}

/// How often logs are looked at, whatever else happens.
const LOOK: Duration = Duration::from_secs(30);
/// A log does not get longer. In bytes.
const LONGEST_LOG: u64 = 1 << 20;

/// Starts the task of a guest: finds what an earlier manager left running, and waits.
///
/// `observe` is called with the old and the new status after each change.
pub fn spawn(
    definition: Arc<Definition>,
    surroundings: Arc<Surroundings>,
    observe: impl Fn(Option<&GuestStatus>, &GuestStatus) + Send + 'static,
) -> GuestHandle {
    let (calls, mut inbox) = mpsc::channel::<Call>(32);
    let (events, mut happened) = mpsc::channel(64);
    let folder = surroundings.folder(&definition.name);
    let mut actor = Actor::new(definition, surroundings, folder, events);
    let status = actor.status.subscribe();
    tokio::spawn(async move {
        actor.find_again().await;
        let mut shown: Option<Arc<GuestStatus>> = None;
        loop {
            let status = Arc::new(actor.current());
            observe(shown.as_deref(), &status);
            actor.status.send_replace(Arc::clone(&status));
            shown = Some(status);
            actor.answers.send();
            if actor.is_forgotten() {
                return;
            }
            let until = actor.next_deadline(Instant::now());
            tokio::select! {
                call = inbox.recv() => match call {
                    Some(call) => actor.take(call).await,
                    None => return,
                },
                event = happened.recv() => {
                    if let Some(event) = event {
                        actor.happen(event).await;
                    }
                }
                () = tokio::time::sleep_until(until.into()) => actor.tick(Instant::now()).await,
            }
        }
    });
    GuestHandle { calls, status }
}

impl Actor {
    fn new(
        definition: Arc<Definition>,
        surroundings: Arc<Surroundings>,
        folder: PathBuf,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let devices = definition
            .devices
            .iter()
            .map(|entry| {
                let device = Device::new(&definition.name, entry.clone(), &surroundings);
                (entry.name.clone(), device)
            })
            .collect();
        let empty = GuestStatus {
            definition: Arc::clone(&definition),
            state: GuestState::Stopped,
            started_usec: 0,
            exit_reason: String::new(),
            restarts: 0,
            changes_pending: false,
            pid: 0,
            devices: BTreeMap::new(),
            command: Ok(Vec::new()),
        };
        Self {
            surroundings,
            folder,
            wanted: definition,
            devices,
            vmm: None,
            state: GuestState::Stopped,
            exit_reason: String::new(),
            restarts: 0,
            history: History::default(),
            selftest: None,
            starting: Vec::new(),
            answers: Answers::default(),
            forget: None,
            deadlines: Deadlines::default(),
            events,
            status: watch::Sender::new(Arc::new(empty)),
        }
    }

    /// Takes over what an earlier manager left.
    async fn find_again(&mut self) {
        let saved = Saved::read(&self.folder);
        self.restarts = saved.restarts;
        self.exit_reason = saved.exit_reason;
        self.selftest = saved.selftest;
        if saved.isolated {
            self.state = GuestState::Isolated;
        }
        let vmm = saved.vmm.as_ref().and_then(Process::find);
        for (name, note) in saved.devices {
            self.find_device(&name, &note, vmm.is_some()).await;
        }
        if let Some(process) = vmm {
            log::info!(
                "{}: found again, process {}",
                self.wanted.name,
                process.id()
            );
            self.adopt(
                process,
                saved
                    .started_as
                    .unwrap_or_else(|| self.wanted.guest.clone()),
                saved.started_usec,
            )
            .await;
        } else if saved.vmm.is_some() {
            let ending = Ending::Unknown;
            self.conclude(Cause::Crash, format!("the monitor {ending}"));
        }
        let missing: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, device)| self.vmm.is_some() && device.keeper.is_none() && device.attached)
            .map(|(name, _)| name.clone())
            .collect();
        for name in missing {
            let end = End {
                ending: Ending::Unknown,
                words: String::new(),
            };
            self.device_ended(&name, end).await;
        }
        self.save();
    }

    async fn take(&mut self, call: Call) {
        let Call { command, reply } = call;
        // These answer later.
        let result = match command {
            Command::Start => return self.start(reply).await,
            Command::Attach(name) => return self.attach(&name, reply).await,
            Command::Detach(name) => return self.detach(&name, reply).await,
            Command::Forget => return self.leave(reply).await,
            Command::Autostart => {
                if self.state == GuestState::Stopped {
                    self.begin().await;
                }
                Ok(())
            }
            Command::Stop(patience) => self.stop(patience).await,
            Command::Kill => self.kill(),
            Command::Reboot => self.reboot().await,
            Command::Pause => self.pause().await,
            Command::Resume => self.resume().await,
            Command::StartDevice(name) => self.start_device_by_hand(&name).await,
            Command::StopDevice(name) => self.stop_device(&name),
            Command::RecordSelftest(selftest) => self.record(selftest),
            Command::Define(definition) => {
                self.define(definition).await;
                Ok(())
            }
        };
        self.save();
        self.answers.add(reply, result);
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::VmmEnded(pid, end) if self.is_vmm(pid) => self.vmm_ended(end).await,
            Event::Machine(pid, event) if self.is_vmm(pid) => self.in_machine(event).await,
            Event::KeeperEnded(name, pid, end) => {
                let device = self.devices.get(&name);
                let keeper = device.and_then(|device| device.keeper.as_ref());
                if keeper.is_some_and(|keeper| keeper.id() == pid) {
                    self.device_ended(&name, end).await;
                }
            }
            Event::KeeperReady(name) => self.device_ready(&name).await,
            // Of a process that is not the guest's any more.
            Event::VmmEnded(..) | Event::Machine(..) => return,
        }
        self.save();
    }

    fn is_vmm(&self, pid: u32) -> bool {
        self.vmm.as_ref().is_some_and(|vmm| vmm.process.id() == pid)
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let of_devices = self.devices.values().flat_map(|device| {
            let detaching = device.detaching.as_ref().map(|(_, until)| *until);
            let restart = device.restart_at.filter(|_| device.keeper.is_none());
            [restart, detaching]
        });
        let deadlines = &self.deadlines;
        [
            deadlines.start,
            deadlines.connect,
            deadlines.kill,
            deadlines.restart,
            deadlines.save,
        ]
        .into_iter()
        .chain(of_devices)
        .flatten()
        .min()
        .unwrap_or_else(|| after(now, LOOK))
        .min(after(now, LOOK))
    }

    async fn tick(&mut self, now: Instant) {
        let due = |deadline: &mut Option<Instant>| {
            let is_due = deadline.is_some_and(|at| now >= at);
            if is_due {
                *deadline = None;
            }
            is_due
        };
        if due(&mut self.deadlines.save) {
            self.save();
        }
        if due(&mut self.deadlines.kill) {
            log::warn!("{}: did not end in time: it is ended", self.wanted.name);
            let _ = self.kill();
        }
        if due(&mut self.deadlines.start) {
            self.start_took_too_long().await;
        }
        if due(&mut self.deadlines.connect) {
            self.connect().await;
        }
        if due(&mut self.deadlines.restart) {
            self.begin().await;
        }
        self.tick_devices(now).await;
        for log in self.logs() {
            crate::process::trim_log(&log, LONGEST_LOG);
        }
    }

    fn logs(&self) -> Vec<PathBuf> {
        let devices = self.devices.keys().map(|name| self.device_log(name));
        devices.chain([self.vmm_log()]).collect()
    }

    /// Notes what runs. What does not run leaves no note.
    pub(super) fn save(&mut self) {
        let devices = self.devices.iter().filter_map(|(name, device)| {
            let saved = SavedDevice {
                keeper: device.keeper.as_ref()?.identity().clone(),
                attached: device.attached,
                slot: device.slot,
                restarts: device.restarts,
            };
            Some((name.clone(), saved))
        });
        let saved = Saved {
            vmm: self.vmm.as_ref().map(|vmm| vmm.process.identity().clone()),
            started_as: self.vmm.as_ref().map(|vmm| vmm.started_as.clone()),
            started_usec: self.vmm.as_ref().map_or(0, |vmm| vmm.started_usec),
            restarts: self.restarts,
            exit_reason: self.exit_reason.clone(),
            isolated: self.state == GuestState::Isolated,
            devices: devices.collect(),
            selftest: self.selftest.clone(),
        };
        let nothing = saved.vmm.is_none() && saved.devices.is_empty();
        if nothing && !self.folder.exists() {
            return;
        }
        let written = saved.write(&self.folder);
        self.deadlines.save = (!written).then(|| after(Instant::now(), Duration::from_secs(5)));
    }

    fn is_forgotten(&mut self) -> bool {
        let idle = self.vmm.is_none() && self.devices.values().all(|d| d.keeper.is_none());
        if !idle {
            return false;
        }
        let Some(reply) = self.forget.take() else {
            return false;
        };
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            log::debug!("{}: {error}", self.folder.display());
        }
        let _ = reply.send(Ok(()));
        true
    }

    fn current(&self) -> GuestStatus {
        let pending = self.vmm.as_ref().is_some_and(|vmm| {
            // What the manager alone needs is in force at once.
            let manager_only = |guest: &Guest| Guest {
                description: String::new(),
                autostart: false,
                restart: crate::definition::RestartRules::default(),
                attach: BTreeMap::new(),
                ..guest.clone()
            };
            manager_only(&vmm.started_as) != manager_only(&self.wanted.guest)
        });
        let started_usec = self.vmm.as_ref().map_or(0, |vmm| vmm.started_usec);
        let said = |device_type: &str| {
            let selftest = self.selftest.as_ref();
            selftest.map_or_else(Default::default, |selftest| {
                selftest.about(device_type, started_usec)
            })
        };
        GuestStatus {
            definition: Arc::clone(&self.wanted),
            state: self.state,
            started_usec,
            exit_reason: self.exit_reason.clone(),
            restarts: self.restarts,
            changes_pending: pending,
            pid: self.vmm.as_ref().map_or(0, |vmm| vmm.process.id()),
            devices: self
                .devices
                .iter()
                .map(|(name, device)| {
                    let said = said(&device.entry.device_type);
                    (name.clone(), device.status(said))
                })
                .collect(),
            command: self
                .launch()
                .map(|launch| launch.command)
                .map_err(|error| error.to_string()),
        }
    }

    /// Keeps what the guest's self-test has found, for as long as it runs.
    fn record(&mut self, selftest: Selftest) -> Result<(), GuestError> {
        let Some(vmm) = &self.vmm else {
            let reason = "a report is of a guest that runs";
            return Err(GuestError::State(self.state.word(), reason));
        };
        self.selftest = Some(selftest.of(vmm.started_usec));
        Ok(())
    }

    /// A device, or the error that there is none.
    pub(super) fn device(&mut self, name: &str) -> Result<&mut Device, GuestError> {
        let missing = || GuestError::NoDevice(name.to_owned());
        self.devices.get_mut(name).ok_or_else(missing)
    }
}

/// `instant` and so long after it; for all practical purposes that exists.
pub(super) fn after(instant: Instant, time: Duration) -> Instant {
    instant.checked_add(time).unwrap_or(instant)
}
