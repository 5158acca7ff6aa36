// SPDX-License-Identifier: Apache-2.0
//! Devices that come and go while the guest runs.

use super::GuestState;
use super::actor::{Actor, after};
use super::call::{GuestError, Reply};
use crate::vmm;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// What a person is told of a device whose keeper ended under the guest.
pub(super) const CUT_OFF: &str =
    "was cut off from the guest: it is back when the guest starts anew";

/// A guest that has not let go of a device after this time will not.
const LET_GO: Duration = Duration::from_secs(60);

impl Actor {
    pub(super) async fn attach(&mut self, name: &str, reply: Reply) {
        let refused = match (self.must_run(), self.device(name)) {
            (Err(error), _) | (_, Err(error)) => Some(error),
            (Ok(()), Ok(device)) if device.attached => Some(GuestError::Device(
                name.to_owned(),
                "is in the guest already".to_owned(),
            )),
            (Ok(()), Ok(device)) if device.cut_off => {
                Some(GuestError::Device(name.to_owned(), CUT_OFF.to_owned()))
            }
            _ => None,
        };
        match refused {
            Some(error) => self.answers.add(reply, Err(error)),
            None if self.devices.get(name).is_some_and(|device| device.ready) => {
                self.attach_now(name, Some(reply)).await;
                self.save();
            }
            None => self.attach_when_ready(name, Some(reply)).await,
        }
    }

    /// Starts the service, and puts the device into the guest when it is ready.
    pub(super) async fn attach_when_ready(&mut self, name: &str, reply: Option<Reply>) {
        let started = match self.prepare_folder() {
            Ok(()) => self.ensure_device(name).await,
            Err(error) => Err(error),
        };
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        match started {
            Ok(()) => device.attach_when_ready.push(reply),
            Err(error) => {
                device.reason = error.to_string();
                if let Some(reply) = reply {
                    let refused = GuestError::Device(name.to_owned(), error.to_string());
                    self.answers.add(reply, Err(refused));
                }
            }
        }
        self.save();
    }

    pub(super) async fn attach_now(&mut self, name: &str, reply: Option<Reply>) {
        let result = self.plug(name).await;
        if let Err(error) = &result {
            log::error!("{}: {name} cannot be attached: {error}", self.wanted.name);
            if let Some(device) = self.devices.get_mut(name) {
                device.reason = format!("not attached: {error}");
            }
        }
        if let Some(reply) = reply {
            self.answers.add(reply, result);
        }
    }

    async fn plug(&mut self, name: &str) -> Result<(), GuestError> {
        self.must_run()?;
        let planned = self
            .planned(name)
            .ok_or_else(|| GuestError::NoDevice(name.to_owned()))?;
        // A device that was there from the start goes without a slot; it cannot be put in anew.
        let slot = self.free_slot().ok_or_else(|| {
            let reason = "finds no free slot: raise hotplug_slots".to_owned();
            GuestError::Device(name.to_owned(), reason)
        })?;
        let port = vmm::port_id(slot);
        self.monitor()?.add_device(&planned, &port).await?;
        let device = self.device(name)?;
        (device.attached, device.slot) = (true, Some(slot));
        device.reason.clear();
        log::info!("{}: {name} is in slot {slot}", self.wanted.name);
        Ok(())
    }

    fn free_slot(&self) -> Option<u8> {
        // As many as the machine was started with.
        let slots = self.vmm.as_ref()?.started_as.hotplug_slots;
        (0..slots).find(|slot| self.devices.values().all(|d| d.slot != Some(*slot)))
    }

    pub(super) async fn detach(&mut self, name: &str, reply: Reply) {
        match self.begin_detach(name).await {
            Ok(()) => {
                if let Some(device) = self.devices.get_mut(name) {
                    let until = after(Instant::now(), LET_GO);
                    let waiting = device.detaching.get_or_insert_with(|| (Vec::new(), until));
                    waiting.0.push(reply);
                }
            }
            Err(error) => self.answers.add(reply, Err(error)),
        }
    }

    async fn begin_detach(&mut self, name: &str) -> Result<(), GuestError> {
        self.must_run()?;
        let device = self.device(name)?;
        let reason = if device.cut_off {
            CUT_OFF
        } else if !device.attached {
            "is not in the guest"
        } else if device.slot.is_none() {
            "was there from the start and has no slot: it goes when the guest ends"
        } else {
            ""
        };
        if !reason.is_empty() {
            return Err(GuestError::Device(name.to_owned(), reason.to_owned()));
        }
        if device.detaching.is_none() {
            self.monitor()?.ask_for_device(name).await?;
        }
        Ok(())
    }

    /// The guest has let go of a device.
    pub(super) async fn device_gone(&mut self, name: &str) {
        if let Ok(monitor) = self.monitor() {
            monitor.remove_socket(name).await;
        }
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        (device.attached, device.slot) = (false, None);
        for reply in device
            .detaching
            .take()
            .map(|(replies, _)| replies)
            .unwrap_or_default()
        {
            self.answers.add(reply, Ok(()));
        }
        log::info!("{}: {name} is out of the guest", self.wanted.name);
        if device.leaving {
            match &device.keeper {
                Some(keeper) => keeper.signal(Signal::TERM),
                None => drop(self.devices.remove(name)),
            }
        } else if device.ready && !device.attach_when_ready.is_empty() {
            let waiting: Vec<Option<Reply>> = device.attach_when_ready.drain(..).collect();
            for reply in waiting {
                self.attach_now(name, reply).await;
            }
        }
    }

    pub(super) fn tick_detaching(&mut self, now: Instant) {
        for (name, device) in &mut self.devices {
            let late = device
                .detaching
                .as_ref()
                .is_some_and(|(_, until)| now >= *until);
            let Some((replies, _)) = device.detaching.take_if(|_| late) else {
                continue;
            };
            for reply in replies {
                let reason = "is still held by the guest: has it a driver for hot plug?".to_owned();
                let refused = GuestError::Device(name.clone(), reason);
                self.answers.add(reply, Err(refused));
            }
        }
    }

    /// The monitor was hung up on by a device's keeper. No monitor takes such a device up again,
    /// and QEMU 11.1 ends when it is to let go of one: it stays in its place, dead, until the
    /// guest ends.
    pub(super) fn give_up_connection(&mut self, name: &str) {
        if let Some(device) = self.devices.get_mut(name) {
            device.attached = false;
            device.cut_off = true;
        }
    }

    /// A device's table is gone from the file.
    pub(super) async fn remove_device(&mut self, name: &str) {
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        device.leaving = true;
        device.restart_at = None;
        let (attached, slot) = (device.attached, device.slot);
        if attached && slot.is_some() && self.state == GuestState::Running {
            if let Err(error) = self.begin_detach(name).await {
                log::error!("{}: {name}: {error}", self.wanted.name);
            }
        } else if attached {
            device.reason = "not in the file any more: it goes when the guest ends".to_owned();
        } else if let Some(keeper) = &device.keeper {
            keeper.signal(Signal::TERM);
        } else {
            self.devices.remove(name);
        }
    }

    /// The machine is gone, and all devices are out of it.
    pub(super) fn release_devices(&mut self) {
        for device in self.devices.values_mut() {
            (device.attached, device.slot, device.cut_off) = (false, None, false);
            device.reason.clear();
            for reply in device
                .detaching
                .take()
                .map(|(replies, _)| replies)
                .unwrap_or_default()
            {
                self.answers.add(reply, Ok(()));
            }
            for reply in device.attach_when_ready.drain(..).flatten() {
                let refused = GuestError::State("stopped", "it does not run");
                self.answers.add(reply, Err(refused));
            }
            if device.leaving {
                if let Some(keeper) = &device.keeper {
                    keeper.signal(Signal::TERM);
                }
            }
        }
        self.devices
            .retain(|_, device| !device.leaving || device.keeper.is_some());
    }

    /// The guest's file is gone.
    pub(super) async fn leave(&mut self, reply: Reply) {
        self.deadlines.restart = None;
        self.forget = Some(reply);
        if self.vmm.is_none() {
            self.state = GuestState::Stopped;
            self.stop_all_devices();
        } else {
            log::warn!(
                "{}: its file is gone: so is the guest, once it ends",
                self.wanted.name
            );
        }
    }
}
