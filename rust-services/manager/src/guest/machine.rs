// SPDX-License-Identifier: Apache-2.0
//! The guest's monitor: started when its devices are ready, controlled, and judged when it ends.

use super::actor::{Actor, Event, Running, after};
use super::call::{GuestError, Reply};
use super::history::Verdict;
use super::{GuestState, ServiceState, replace_file};
use crate::definition::{Cause, Guest, RestartPolicy};
use crate::foreign::sentence;
use crate::process::{Ending, Process};
use crate::supervision::{End, Supervised};
use crate::vmm::qmp::{MachineEvent, Qmp};
use crate::vmm::{self, Control, Launch, Plan, PlannedDevice, VmmError, front_end};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A guest that does not come up within this time has not started.
const START: Duration = Duration::from_secs(60);
/// How often the monitor's socket is tried.
const CONNECT: Duration = Duration::from_millis(50);
/// So much is told of why a guest ended. In characters.
const LONGEST_REASON: usize = 1000;

impl Actor {
    /// Start, by hand: what was before is forgotten.
    pub(super) async fn start(&mut self, reply: Reply) {
        let refused = match self.state {
            GuestState::Running | GuestState::Paused => {
                Some(GuestError::State(self.state.word(), "it runs already"))
            }
            GuestState::Stopping => Some(GuestError::State("stopping", "wait until it has ended")),
            _ if self.forget.is_some() => Some(GuestError::Gone),
            _ => None,
        };
        if let Some(refused) = refused {
            return self.answers.add(reply, Err(refused));
        }
        self.starting.push(reply);
        if self.state != GuestState::Starting {
            self.history.forget();
            for device in self.devices.values_mut() {
                device.history.forget();
                device.isolated = false;
            }
            self.begin().await;
        }
    }

    /// Devices first; the monitor follows when they are ready.
    pub(super) async fn begin(&mut self) {
        self.deadlines.restart = None;
        self.state = GuestState::Starting;
        self.deadlines.start = Some(after(Instant::now(), START));
        if let Err(error) = self.prepare_folder() {
            let reason = format!("{}: {error}", self.folder.display());
            return self.did_not_start(&reason);
        }
        self.advance().await;
        self.save();
    }

    /// Starts what the guest needs: sound and cameras first, and the others when those serve.
    async fn start_devices(&mut self) -> Result<(), String> {
        let of = |name: &str| self.devices.get(name);
        let (first, others): (Vec<&str>, Vec<&str>) = self.needed().partition(|name| {
            of(name).is_some_and(|device| front_end::comes_first(&device.entry.device_type))
        });
        let waits = first
            .iter()
            .any(|name| !of(name).is_some_and(|device| device.ready));
        let others = others.into_iter().filter(|_| !waits);
        // One that is to be started again has its time.
        let idle = |name: &&str| {
            of(name).is_some_and(|device| {
                device.restart_at.is_none() && (device.keeper.is_none() || device.ending)
            })
        };
        let due = first.into_iter().chain(others).filter(idle);
        let due: Vec<String> = due.map(str::to_owned).collect();
        for name in due {
            let started = self.ensure_device(&name).await;
            started.map_err(|error| format!("device {name}: {error}"))?;
        }
        Ok(())
    }

    /// The devices that are there from the start.
    fn needed(&self) -> impl Iterator<Item = &str> {
        self.devices
            .iter()
            .filter(|(name, device)| !device.leaving && !self.wanted.attachment(name).manual)
            .map(|(name, _)| name.as_str())
    }

    /// The guest's folder, and in it the file as it is in force.
    pub(super) fn prepare_folder(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        replace_file(&self.accepted_file(), &self.wanted.source)
    }

    /// What services read: the name is the guest's, as they expect it.
    pub(super) fn accepted_file(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.wanted.name))
    }

    pub(super) fn vmm_log(&self) -> PathBuf {
        self.folder.join("monitor.log")
    }

    /// Starts devices, and the monitor when all of them are ready, if the guest is to start.
    pub(super) async fn advance(&mut self) {
        if self.state != GuestState::Starting || self.vmm.is_some() {
            return;
        }
        let isolated = self.needed().find(|name| {
            let device = self.devices.get(*name);
            device.is_some_and(|device| device.state() == ServiceState::Isolated)
        });
        if let Some(name) = isolated.map(str::to_owned) {
            let reason = self.devices.get(&name).map(|device| device.reason.clone());
            let reason = format!("device {name}: {}", reason.unwrap_or_default());
            return self.did_not_start(&reason);
        }
        if let Err(reason) = self.start_devices().await {
            return self.did_not_start(&reason);
        }
        let waits = self
            .needed()
            .any(|name| !self.devices.get(name).is_some_and(|device| device.ready));
        if waits {
            return;
        }
        let launch = match self.launch() {
            Ok(launch) => launch,
            Err(error) => return self.did_not_start(&error.to_string()),
        };
        if launch.command.is_empty() {
            // Nothing to run: the devices are all there is.
            self.runs();
            return;
        }
        if let Err(error) = self.run(&launch).await {
            let program = launch.command.first().cloned().unwrap_or_default();
            return self.did_not_start(&format!("cannot start {program}: {error}"));
        }
        let attached: Vec<String> = self.needed().map(str::to_owned).collect();
        for name in attached {
            if let Some(device) = self.devices.get_mut(&name) {
                (device.attached, device.slot) = (true, None);
            }
        }
        match vmm::of(self.wanted.guest.vmm).control() {
            Control::Qmp => self.deadlines.connect = Some(Instant::now()),
            Control::Commands | Control::None => self.runs(),
        }
    }

    async fn run(&mut self, launch: &Launch) -> std::io::Result<()> {
        for file in &launch.files {
            replace_file(&file.path, &file.content)?;
        }
        // The socket of a monitor that was killed is still there, and nobody behind it.
        let _ = std::fs::remove_file(self.plan().control_socket());
        let around = Arc::clone(&self.surroundings);
        let process = around
            .supervision
            .start_monitor(&self.wanted, &launch.command, &self.folder, &self.vmm_log())
            .await?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let started_usec = since.map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        });
        self.watch_vmm(process, self.wanted.guest.clone(), started_usec);
        Ok(())
    }

    fn watch_vmm(&mut self, process: Process, started_as: Guest, started_usec: u64) {
        let (watched, events) = (process.clone(), self.events.clone());
        let (around, monitor) = (Arc::clone(&self.surroundings), self.supervised());
        tokio::spawn(async move {
            match around.supervision.end(&watched, &monitor).await {
                Ok(end) => drop(events.send(Event::VmmEnded(watched.id(), end)).await),
                Err(error) => log::error!("process {} is not watched: {error}", watched.id()),
            }
        });
        self.vmm = Some(Running {
            process,
            qmp: None,
            started_as,
            started_usec,
            cause: None,
        });
    }

    /// The monitor, as whoever supervises it calls it.
    pub(super) fn supervised(&self) -> Supervised {
        let supervision = &self.surroundings.supervision;
        supervision.monitor(&self.wanted.name, self.vmm_log())
    }

    /// Takes over a monitor that runs.
    pub(super) async fn adopt(&mut self, process: Process, started_as: Guest, since: u64) {
        let around = Arc::clone(&self.surroundings);
        around.supervision.adopt(&self.supervised()).await;
        let control = vmm::of(started_as.vmm).control();
        self.watch_vmm(process, started_as, since);
        // It ran before: that its monitor cannot be spoken to just now is no reason to end it.
        self.runs();
        if control == Control::Qmp {
            self.connect().await;
        }
    }

    pub(super) fn plan(&self) -> Plan<'_> {
        let devices = self.needed().filter_map(|name| self.planned(name));
        Plan {
            definition: &self.wanted,
            devices: devices.collect(),
            folder: self.folder.clone(),
        }
    }

    pub(super) fn planned(&self, name: &str) -> Option<PlannedDevice> {
        let device = self.devices.get(name)?;
        Some(PlannedDevice {
            name: name.to_owned(),
            front_end: front_end::of(&device.entry)?,
            socket: device.socket.clone(),
            attachment: self.wanted.attachment(name),
        })
    }

    pub(super) fn launch(&self) -> Result<Launch, VmmError> {
        vmm::of(self.wanted.guest.vmm).launch(&self.plan())
    }

    /// Connects to the monitor; tries again soon where it does not listen yet.
    pub(super) async fn connect(&mut self) {
        let Some(vmm) = &self.vmm else {
            return;
        };
        let (pid, events) = (vmm.process.id(), self.events.clone());
        let tell = move |event| {
            let events = events.clone();
            async move { drop(events.send(Event::Machine(pid, event)).await) }
        };
        match Qmp::connect(&self.plan().control_socket(), tell).await {
            Ok(mut qmp) => {
                let paused = qmp.is_paused().await.unwrap_or(false);
                self.pin(&mut qmp, pid).await;
                if let Some(vmm) = &mut self.vmm {
                    vmm.qmp = Some(qmp);
                }
                // A monitor that hangs up and listens again changes nothing else: what was asked
                // to end still is.
                match self.state {
                    GuestState::Starting => self.runs(),
                    GuestState::Running | GuestState::Paused => {}
                    _ => return,
                }
                self.state = if paused {
                    GuestState::Paused
                } else {
                    GuestState::Running
                };
            }
            Err(error) => {
                log::debug!("{}: {error}", self.wanted.name);
                self.deadlines.connect = Some(after(Instant::now(), CONNECT));
            }
        }
    }

    /// Ties the guest's processors to the host's.
    async fn pin(&self, qmp: &mut Qmp, monitor: u32) {
        let pinning = &self.wanted.guest.pinning;
        if pinning.is_empty() {
            return;
        }
        let threads = match qmp.processor_threads().await {
            Ok(threads) => threads,
            Err(error) => return log::error!("{}: not pinned: {error}", self.wanted.name),
        };
        for (thread, cpus) in threads.into_iter().zip(pinning) {
            let mut set = rustix::thread::CpuSet::new();
            for cpu in cpus {
                set.set(usize::from(*cpu));
            }
            // A monitor that its guest has taken over may name anybody's.
            if !is_thread_of(monitor, thread) {
                let name = &self.wanted.name;
                log::error!("{name}: not pinned: its monitor has no thread {thread}");
                continue;
            }
            let thread = rustix::process::Pid::from_raw(thread);
            if let Err(error) = rustix::thread::sched_setaffinity(thread, &set) {
                log::error!("{}: not pinned to {cpus:?}: {error}", self.wanted.name);
            }
        }
    }

    fn runs(&mut self) {
        self.state = GuestState::Running;
        self.deadlines.start = None;
        log::info!("{}: runs", self.wanted.name);
        for reply in self.starting.drain(..) {
            self.answers.add(reply, Ok(()));
        }
    }

    pub(super) async fn start_took_too_long(&mut self) {
        if self.state == GuestState::Starting {
            let cause = match self.vmm {
                Some(_) => "the monitor does not answer",
                None => "a device does not come up",
            };
            self.did_not_start(cause);
        }
    }

    /// The guest did not start: judged as every other end.
    fn did_not_start(&mut self, reason: &str) {
        self.deadlines.start = None;
        self.deadlines.connect = None;
        match &mut self.vmm {
            Some(vmm) => {
                // Its end, which follows, is the end of the start.
                vmm.cause = Some((Cause::Start, reason.to_owned()));
                vmm.process.signal(Signal::KILL);
            }
            None => self.conclude(Cause::Start, reason.to_owned()),
        }
    }

    pub(super) async fn vmm_ended(&mut self, end: End) {
        let Some(vmm) = self.vmm.take() else {
            return;
        };
        self.deadlines.kill = None;
        self.deadlines.connect = None;
        self.deadlines.start = None;
        self.release_devices();
        let End { ending, words } = end;
        let around = Arc::clone(&self.surroundings);
        around.supervision.monitor_ended(&self.wanted.name).await;
        let because = |text: String| {
            if words.is_empty() {
                text
            } else {
                format!("{text}: {words}")
            }
        };
        let (cause, reason) = match (vmm.cause, ending) {
            (Some(known), _) => known,
            (None, Ending::Code(0)) => (Cause::PowerOff, "the monitor ended in order".to_owned()),
            (None, ending) if self.state == GuestState::Starting => {
                (Cause::Start, because(format!("the monitor {ending}")))
            }
            (None, ending) => (Cause::Crash, because(format!("the monitor {ending}"))),
        };
        self.conclude(cause, reason);
        if self.state == GuestState::Stopped {
            self.stop_all_devices();
        }
    }

    /// What follows the end of the guest.
    pub(super) fn conclude(&mut self, cause: Cause, reason: String) {
        let asked = self.state == GuestState::Stopping;
        let reason = sentence(&reason, LONGEST_REASON);
        log::info!("{}: {cause}: {reason}", self.wanted.name);
        self.exit_reason = format!("{cause}: {reason}");
        let rules = &self.wanted.guest.restart;
        let again = match rules.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => cause != Cause::PowerOff,
            RestartPolicy::Always => true,
        };
        let by_hand = cause == Cause::Start && !self.starting.is_empty();
        self.state = if asked || (cause == Cause::PowerOff && !again) {
            GuestState::Stopped
        } else if !again || by_hand {
            GuestState::Failed
        } else {
            match self.history.judge(rules, cause, Instant::now()) {
                Verdict::Restart(wait) => {
                    self.restarts = self.restarts.saturating_add(1);
                    self.deadlines.restart = Some(after(Instant::now(), wait));
                    GuestState::Restarting
                }
                Verdict::Isolate => {
                    log::error!("{}: ended too often ({cause}): isolated", self.wanted.name);
                    GuestState::Isolated
                }
            }
        };
        for reply in self.starting.drain(..) {
            let refused = GuestError::Start(self.exit_reason.clone());
            self.answers.add(reply, Err(refused));
        }
    }

    pub(super) async fn in_machine(&mut self, event: MachineEvent) {
        match event {
            MachineEvent::Shutdown(reason) => {
                if let Some(vmm) = &mut self.vmm {
                    let cause = match reason.as_str() {
                        "guest-panic" => Cause::Panic,
                        _ => Cause::PowerOff,
                    };
                    vmm.cause.get_or_insert((cause, reason));
                }
            }
            MachineEvent::Panicked => {
                if let Some(vmm) = &mut self.vmm {
                    vmm.cause = Some((Cause::Panic, "the guest's kernel panicked".to_owned()));
                }
            }
            MachineEvent::Reset => {
                log::info!("{}: boots anew", self.wanted.name);
                // What was found is of the boot before.
                self.selftest = self.selftest.take().map(|selftest| selftest.of(0));
            }
            MachineEvent::Stopped if self.state == GuestState::Running => {
                self.state = GuestState::Paused;
            }
            MachineEvent::Resumed if self.state == GuestState::Paused => {
                self.state = GuestState::Running;
            }
            MachineEvent::Stopped | MachineEvent::Resumed => {}
            MachineEvent::DeviceGone(name) => self.device_gone(&name).await,
            MachineEvent::Closed => {
                if let Some(vmm) = &mut self.vmm {
                    vmm.qmp = None;
                    // Where it still runs, it is spoken to again.
                    self.deadlines.connect = Some(after(Instant::now(), CONNECT));
                }
            }
        }
    }

    pub(super) fn monitor(&mut self) -> Result<&mut Qmp, GuestError> {
        let adapter = vmm::of(self.wanted.guest.vmm);
        let Some(vmm) = self
            .vmm
            .as_mut()
            .filter(|_| adapter.control() == Control::Qmp)
        else {
            return Err(GuestError::Unable(adapter.name()));
        };
        vmm.qmp.as_mut().ok_or_else(|| {
            let reason = "does not answer now: wait, or end the guest by Kill";
            GuestError::Monitor(format!("{} {reason}", adapter.name()))
        })
    }
}

/// Whether a process has this thread.
fn is_thread_of(process: u32, thread: i32) -> bool {
    thread > 0 && Path::new(&format!("/proc/{process}/task/{thread}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_its_own_process_s_alone() {
        let own = std::process::id();
        let first = i32::try_from(own).unwrap();
        assert!(is_thread_of(own, first));
        for other in [1, 0, -1, i32::MAX] {
            assert!(!is_thread_of(own, other), "{other}");
        }
    }
}
