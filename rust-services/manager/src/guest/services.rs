// SPDX-License-Identifier: Apache-2.0
//! The guest's device services, each under its keeper.

use super::actor::{Actor, Event, after};
use super::call::{GuestError, Reply};
use super::device::Device;
use super::history::Verdict;
use super::hotplug::CUT_OFF;
use super::saved::SavedDevice;
use super::{GuestState, ServiceState};
use crate::definition::{Cause, Definition};
use crate::process::{Ending, Process};
use crate::supervision::{End, Keeper, Supervised};
use crate::systemd::units::DeviceUnit;
use crate::vmm::front_end;
use rustix::process::Signal;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::AbortHandle;

impl Actor {
    pub(super) fn device_log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// The keeper's command line.
    fn keeper_command(&self, device: &Device) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let service = format!("agl-virtio-{}", device.entry.device_type);
        [
            self.surroundings.program("agl-virtio-keeper"),
            "--socket".to_owned(),
            text(device.socket.clone()),
            "--".to_owned(),
            self.surroundings.program(&service),
            "--config".to_owned(),
            text(self.accepted_file()),
            "--device".to_owned(),
            device.entry.name.clone(),
            "--bus".to_owned(),
            self.surroundings.bus.clone(),
        ]
        .to_vec()
    }

    /// Starts a device's keeper unless it runs.
    pub(super) async fn ensure_device(&mut self, name: &str) -> std::io::Result<()> {
        let Some(device) = self.devices.get_mut(name) else {
            return Ok(());
        };
        if device.keeper.is_some() {
            // One that is ending comes back when it has ended.
            device.restart_at = device.ending.then(Instant::now);
            return Ok(());
        }
        let Some(device) = self.devices.get(name) else {
            return Ok(());
        };
        let command = self.keeper_command(device);
        let keeper = Keeper {
            unit: DeviceUnit {
                guest: &self.wanted.name,
                device: name,
                device_type: &device.entry.device_type,
                command: &command,
                socket_folder: device.socket.parent().unwrap_or(&self.folder),
            },
            folder: &self.folder,
            log: &self.device_log(name),
        };
        // One that is left of a keeper that was killed may be another user's, and in the way.
        let stale = std::fs::symlink_metadata(&device.socket);
        if stale.is_ok_and(|found| found.file_type().is_socket()) {
            let _ = std::fs::remove_file(&device.socket);
        }
        let limits = &self.wanted.guest.limits;
        let supervision = &self.surroundings.supervision;
        let started = supervision.start_keeper(&keeper, limits).await?;
        let (events, of) = (self.events.clone(), name.to_owned());
        let waits = tokio::spawn(async move {
            if started.readiness.wait().await {
                drop(events.send(Event::KeeperReady(of)).await);
            }
        });
        self.watch_keeper(name, started.process, Some(waits.abort_handle()));
        Ok(())
    }

    /// A device's keeper, as whoever supervises it calls it.
    pub(super) fn supervised_device(&self, device: &Device) -> Supervised {
        let name = &device.entry.name;
        let of_type = &device.entry.device_type;
        let supervision = &self.surroundings.supervision;
        supervision.keeper(&self.wanted.name, name, of_type, self.device_log(name))
    }

    /// `waits` is for its readiness, which does not come any more once it has ended.
    fn watch_keeper(&mut self, name: &str, process: Process, waits: Option<AbortHandle>) {
        let Some(device) = self.devices.get(name) else {
            return;
        };
        let keeper = self.supervised_device(device);
        let around = Arc::clone(&self.surroundings);
        let (watched, events, of) = (process.clone(), self.events.clone(), name.to_owned());
        tokio::spawn(async move {
            let end = around.supervision.end(&watched, &keeper).await;
            if let Some(waits) = waits {
                waits.abort();
            }
            match end {
                Ok(end) => {
                    let event = Event::KeeperEnded(of, watched.id(), end);
                    drop(events.send(event).await);
                }
                Err(error) => log::error!("process {} is not watched: {error}", watched.id()),
            }
        });
        if let Some(device) = self.devices.get_mut(name) {
            device.keeper = Some(process);
            device.ready = false;
            device.ending = false;
            device.restart_at = None;
        }
    }

    /// Takes over the keeper of an earlier manager.
    pub(super) async fn find_device(&mut self, name: &str, saved: &SavedDevice, has_vmm: bool) {
        let Some(process) = Process::find(&saved.keeper) else {
            if let Some(device) = self.devices.get_mut(name) {
                device.attached = saved.attached && has_vmm;
                device.slot = saved.slot;
            }
            return;
        };
        if !self.devices.contains_key(name) {
            log::warn!(
                "{}: the device {name} is not in the file any more: it ends",
                self.wanted.name
            );
            process.signal(Signal::TERM);
            return;
        }
        if let Some(device) = self.devices.get(name) {
            let around = Arc::clone(&self.surroundings);
            let keeper = self.supervised_device(device);
            around.supervision.adopt(&keeper).await;
        }
        self.watch_keeper(name, process, None);
        if let Some(device) = self.devices.get_mut(name) {
            device.ready = true;
            device.attached = saved.attached && has_vmm;
            device.slot = saved.slot.filter(|_| device.attached);
            device.restarts = saved.restarts;
        }
    }

    pub(super) async fn device_ready(&mut self, name: &str) {
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        device.ready = true;
        device.reason.clear();
        if device.cut_off {
            device.reason = CUT_OFF.to_owned();
        }
        let waiting: Vec<Option<Reply>> = device.attach_when_ready.drain(..).collect();
        for reply in waiting {
            self.attach_now(name, reply).await;
        }
        self.advance().await;
    }

    /// A keeper ended, and with it the monitor's connection.
    pub(super) async fn device_ended(&mut self, name: &str, end: End) {
        let End { ending, words } = end;
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        device.keeper = None;
        device.ready = false;
        let asked = std::mem::take(&mut device.ending);
        if asked && device.restart_at.is_some() {
            return;
        }
        let wanted =
            self.vmm.is_some() || self.state == GuestState::Starting || device.restart_at.is_some();
        if asked || device.leaving || !wanted || ending == Ending::Code(0) {
            for reply in device.attach_when_ready.drain(..).flatten() {
                let reason = "ended".to_owned();
                let refused = GuestError::Device(name.to_owned(), reason);
                self.answers.add(reply, Err(refused));
            }
            if device.leaving && !device.attached {
                self.devices.remove(name);
            }
            return;
        }
        let attached = device.attached;
        self.device_failed(name, &format!("{ending}: {words}"));
        if attached {
            self.give_up_connection(name);
        }
        self.advance().await;
    }

    /// A keeper ended, or could not be started: again, later, or not any more.
    fn device_failed(&mut self, name: &str, reason: &str) {
        let rules = &self.wanted.guest.restart;
        let guest = &self.wanted.name;
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        log::error!("{guest}: the device {name}: {reason}");
        device.reason = reason.to_owned();
        match device.history.judge(rules, Cause::Device, Instant::now()) {
            Verdict::Restart(wait) => {
                device.restarts = device.restarts.saturating_add(1);
                device.restart_at = Some(after(Instant::now(), wait));
            }
            Verdict::Isolate => {
                log::error!("{guest}: the device {name} failed too often: isolated");
                device.restart_at = None;
                device.isolated = true;
            }
        }
    }

    pub(super) async fn tick_devices(&mut self, now: Instant) {
        let due: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, device)| device.keeper.is_none())
            .filter(|(_, device)| device.restart_at.is_some_and(|at| now >= at))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            if let Err(error) = self.ensure_device(&name).await {
                self.device_failed(&name, &error.to_string());
                self.advance().await;
            }
            self.save();
        }
        self.tick_detaching(now);
    }

    pub(super) async fn start_device_by_hand(&mut self, name: &str) -> Result<(), GuestError> {
        let device = self.device(name)?;
        if device.state() == ServiceState::Running {
            let reason = "runs already".to_owned();
            return Err(GuestError::Device(name.to_owned(), reason));
        }
        device.history.forget();
        device.isolated = false;
        let failed = |error: std::io::Error| GuestError::Device(name.to_owned(), error.to_string());
        self.prepare_folder().map_err(failed)?;
        self.ensure_device(name).await.map_err(failed)
    }

    pub(super) fn stop_device(&mut self, name: &str) -> Result<(), GuestError> {
        let device = self.device(name)?;
        if device.attached {
            let reason = "is in the running guest: detach it first".to_owned();
            return Err(GuestError::Device(name.to_owned(), reason));
        }
        end(device);
        Ok(())
    }

    pub(super) fn stop_all_devices(&mut self) {
        for device in self.devices.values_mut() {
            end(device);
        }
    }

    /// This is what the file says now. The difference is applied, and what did not change is not
    /// touched.
    pub(super) async fn define(&mut self, definition: Arc<Definition>) {
        // Its file may have been gone for a while.
        self.forget = None;
        let old = std::mem::replace(&mut self.wanted, definition);
        let uses_folder = self.vmm.is_some() || self.devices.values().any(|d| d.keeper.is_some());
        if uses_folder {
            if let Err(error) = self.prepare_folder() {
                log::error!("{}: the old file stays: {error}", self.wanted.name);
                self.wanted = old;
                return;
            }
        }
        if uses_folder && old.guest.limits != self.wanted.guest.limits {
            let limits = &self.wanted.guest.limits;
            self.surroundings
                .supervision
                .limit(&self.wanted.name, limits)
                .await;
        }
        let gone: Vec<String> = self
            .devices
            .keys()
            .filter(|name| self.wanted.device(name).is_none())
            .cloned()
            .collect();
        for name in gone {
            self.remove_device(&name).await;
        }
        for entry in self.wanted.devices.clone() {
            self.add_or_change(entry).await;
        }
    }

    async fn add_or_change(&mut self, entry: agl_virtio_service::config::DeviceEntry) {
        let name = entry.name.clone();
        let Some(device) = self.devices.get_mut(&name) else {
            let device = Device::new(&self.wanted.name, entry, &self.surroundings);
            self.devices.insert(name.clone(), device);
            let runs = matches!(self.state, GuestState::Running | GuestState::Paused);
            if runs && !self.wanted.attachment(&name).manual {
                self.attach_when_ready(&name, None).await;
            }
            return;
        };
        let moved = front_end::of(&device.entry) != front_end::of(&entry)
            || device.entry.socket != entry.socket;
        if moved && device.keeper.is_some() {
            device.reason =
                "has another type, function or socket in the file: in force at the next start"
                    .to_owned();
            return;
        }
        if moved {
            *device = Device::new(&self.wanted.name, entry, &self.surroundings);
            return;
        }
        if device.entry.options != entry.options {
            device.entry = entry;
            // The keeper replaces the service, if the new one agrees, and the guest goes on.
            if let Some(keeper) = &device.keeper {
                keeper.signal(Signal::HUP);
            }
        }
    }
}

fn end(device: &mut Device) {
    device.restart_at = None;
    if let Some(keeper) = &device.keeper {
        device.ready = false;
        device.ending = true;
        keeper.signal(Signal::TERM);
    }
}
