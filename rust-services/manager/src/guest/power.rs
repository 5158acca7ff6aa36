// SPDX-License-Identifier: Apache-2.0
//! What a running guest is asked for: its buttons, and to stop or go on.

use super::GuestState;
use super::actor::{Actor, after};
use super::call::GuestError;
use crate::definition::Cause;
use crate::process::{Ending, Process, last_words};
use crate::vmm::{self, Control, Request};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// A monitor's command takes no longer ...
const COMMAND: Duration = Duration::from_secs(10);
/// ... and has so long even where a guest is to be ended at once.
const LEAST: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) async fn stop(&mut self, patience: Duration) -> Result<(), GuestError> {
        self.deadlines.restart = None;
        if self.vmm.is_none() {
            // Also a guest that waits for its next start, and one that is its devices alone.
            self.state = GuestState::Stopped;
            self.deadlines.start = None;
            for reply in self.starting.drain(..) {
                let refused = GuestError::State("stopping", "somebody stopped it");
                self.answers.add(reply, Err(refused));
            }
            self.release_devices();
            self.stop_all_devices();
            return Ok(());
        }
        if self.state == GuestState::Paused {
            // A guest that is paused cannot hear the button.
            if let Err(error) = self.resume().await {
                log::warn!("{}: before the power button: {error}", self.wanted.name);
            }
        }
        self.state = GuestState::Stopping;
        self.deadlines.kill = Some(after(Instant::now(), patience));
        // The end comes in either case.
        if let Err(error) = self.request(Request::PowerDown, patience).await {
            log::warn!("{}: the power button: {error}", self.wanted.name);
        }
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<(), GuestError> {
        let Some(vmm) = &mut self.vmm else {
            return Err(GuestError::State(
                self.state.word(),
                "there is nothing to end",
            ));
        };
        vmm.cause = Some((Cause::Crash, "it was ended at once, as asked".to_owned()));
        vmm.process.signal(Signal::KILL);
        self.state = GuestState::Stopping;
        Ok(())
    }

    pub(super) async fn reboot(&mut self) -> Result<(), GuestError> {
        self.must_run()?;
        self.request(Request::Reset, COMMAND).await
    }

    pub(super) async fn pause(&mut self) -> Result<(), GuestError> {
        self.must_run()?;
        self.request(Request::Pause, COMMAND).await?;
        self.state = GuestState::Paused;
        Ok(())
    }

    pub(super) async fn resume(&mut self) -> Result<(), GuestError> {
        if self.state != GuestState::Paused {
            return Err(GuestError::State(self.state.word(), "it is not paused"));
        }
        self.request(Request::Resume, COMMAND).await?;
        self.state = GuestState::Running;
        Ok(())
    }

    pub(super) fn must_run(&self) -> Result<(), GuestError> {
        match self.state {
            GuestState::Running => Ok(()),
            state => Err(GuestError::State(state.word(), "it does not run")),
        }
    }

    async fn request(&mut self, request: Request, patience: Duration) -> Result<(), GuestError> {
        let adapter = vmm::of(self.wanted.guest.vmm);
        match adapter.control() {
            Control::Qmp => {
                let command = match request {
                    Request::PowerDown => "system_powerdown",
                    Request::Reset => "system_reset",
                    Request::Pause => "stop",
                    Request::Resume => "cont",
                };
                self.monitor()?
                    .execute(command, serde_json::json!({}))
                    .await?;
                Ok(())
            }
            Control::Commands => {
                let command = adapter.command(&self.plan(), request);
                let command = command.ok_or(GuestError::Unable(adapter.name()))?;
                self.command(&command, patience)
                    .await
                    .map_err(GuestError::Monitor)
            }
            Control::None => Err(GuestError::Unable(adapter.name())),
        }
    }

    /// Runs a monitor's command. One that hangs is ended: nothing else would happen to the guest.
    async fn command(&self, command: &[String], patience: Duration) -> Result<(), String> {
        let patience = patience.clamp(LEAST, COMMAND);
        let words = command.join(" ");
        let log = self.vmm_log();
        let started = Process::start(command, &[], &self.folder, &log);
        let process = started.map_err(|error| format!("{words}: {error}"))?;
        match tokio::time::timeout(patience, process.ended()).await {
            Ok(Ok(Ending::Code(0))) => Ok(()),
            Ok(Ok(ending)) => Err(format!("{words} {ending}: {}", last_words(&log))),
            Ok(Err(error)) => Err(format!("{words}: {error}")),
            Err(_) => {
                process.signal(Signal::KILL);
                // What is left of it, as soon as it can be had.
                tokio::spawn(async move { drop(process.ended().await) });
                Err(format!("{words} did not end within {patience:?}"))
            }
        }
    }
}
