// SPDX-License-Identifier: Apache-2.0
//! What can be asked of a guest's task.

use super::{GuestState, GuestStatus, Selftest};
use crate::definition::Definition;
use crate::vmm::VmmError;
use crate::vmm::qmp::QmpError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// A request.
#[derive(Debug)]
pub enum Command {
    /// Start the guest with all its devices; done when it runs.
    Start,
    /// Start it as its policy says, unless it runs: as after an end, it is tried again where it
    /// does not start. Done when it has begun.
    Autostart,
    /// Press the power button, and end it after this time; done when the button is pressed.
    Stop(Duration),
    /// End it at once.
    Kill,
    /// Press the reset button.
    Reboot,
    /// Stop the processors.
    Pause,
    /// Let them run on.
    Resume,
    /// Start a device's service.
    StartDevice(String),
    /// End a device's service.
    StopDevice(String),
    /// Put a device into the running guest; done when it is in.
    Attach(String),
    /// Take a device out of it; done when the guest has let go.
    Detach(String),
    /// This is what the running guest's self-test has found.
    RecordSelftest(Selftest),
    /// This is what the file says now.
    Define(Arc<Definition>),
    /// The file is gone: so is the guest, once it does not run. Done when it is gone.
    Forget,
}

/// Why a guest did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GuestError {
    /// It cannot in the state it is in.
    #[error("the guest is {0}: {1}")]
    State(&'static str, &'static str),
    /// There is no such device.
    #[error("the guest has no device {0}")]
    NoDevice(String),
    /// A device cannot in the state it is in.
    #[error("the device {0} {1}")]
    Device(String, String),
    /// It did not start.
    #[error("the guest did not start: {0}")]
    Start(String),
    /// The monitor cannot.
    #[error("{0} cannot do that while the guest runs")]
    Unable(&'static str),
    /// The monitor refused.
    #[error("{0}")]
    Monitor(String),
    /// The manager ends, or the guest was forgotten.
    #[error("the guest is not managed any more")]
    Gone,
}

impl From<QmpError> for GuestError {
    fn from(error: QmpError) -> Self {
        Self::Monitor(agl_virtio_service::explain(&error))
    }
}

impl From<VmmError> for GuestError {
    fn from(error: VmmError) -> Self {
        Self::Start(error.to_string())
    }
}

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<(), GuestError>>;

/// Answers that wait until what they say can be found: noted for the next manager, and shown.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<(Reply, Result<(), GuestError>)>);

impl Answers {
    pub(super) fn add(&mut self, reply: Reply, result: Result<(), GuestError>) {
        self.0.push((reply, result));
    }

    pub(super) fn send(&mut self) {
        for (reply, result) in self.0.drain(..) {
            // Whoever asked may have left meanwhile.
            let _ = reply.send(result);
        }
    }
}

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Call {
    pub(super) command: Command,
    pub(super) reply: Reply,
}

/// What comes of a request.
#[derive(Debug)]
pub struct Answer(oneshot::Receiver<Result<(), GuestError>>);

impl Answer {
    /// Waits for it.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn wait(self) -> Result<(), GuestError> {
        self.0.await.map_err(|_| GuestError::Gone)?
    }
}

/// A guest's task, from outside. Clones are the same one.
#[derive(Debug, Clone)]
pub struct GuestHandle {
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) status: watch::Receiver<Arc<GuestStatus>>,
}

impl GuestHandle {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn call(&self, command: Command) -> Result<(), GuestError> {
        self.ask(command).await.wait().await
    }

    /// Asks: whatever is asked after this is done after it. The answer may be waited for.
    pub async fn ask(&self, command: Command) -> Answer {
        let (reply, answer) = oneshot::channel();
        // Where nobody hears it, nobody answers.
        let _ = self.calls.send(Call { command, reply }).await;
        Answer(answer)
    }

    /// Waits until it has been shown for the first time.
    pub async fn is_shown(&self) {
        // An end of its task is one, too.
        let _ = self.status.clone().changed().await;
    }

    /// Waits until it does not start any more, be it that it runs or that it does not.
    pub async fn has_started(&self) {
        let mut status = self.status.clone();
        // An end of its task is one, too.
        let _ = status
            .wait_for(|status| status.state != GuestState::Starting)
            .await;
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> Arc<GuestStatus> {
        Arc::clone(&self.status.borrow())
    }
}
