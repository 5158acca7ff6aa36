// SPDX-License-Identifier: Apache-2.0

//! The thread that answers requests: storage may take as long as it likes, the queue's thread waits
//! for none of it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use virtio_device::Waker;

use crate::engine::{Malformed, Request, Responder};
use crate::wire::Frame;

/// A request as it was read from guest memory.
#[derive(Debug)]
pub struct Job {
    /// Which one: its answer has the same number.
    pub ticket: u64,
    /// Its frames.
    pub bytes: Vec<u8>,
    /// Writable bytes for the answer.
    pub room: usize,
    /// In how many deaths of the service it was in flight.
    pub deaths: u8,
    /// The result register as a former process has left it, where that is news.
    pub register: Option<Vec<u8>>,
}

/// What became of a job.
#[derive(Debug)]
pub struct Answer {
    /// The job's number.
    pub ticket: u64,
    /// What to give the driver.
    pub frames: Result<Vec<Frame>, Malformed>,
    /// The result register, to outlive the process.
    pub register: Vec<u8>,
}

/// The answer on its way back.
#[derive(Default)]
struct Mailbox {
    answer: Mutex<Option<Answer>>,
    waker: OnceLock<Waker>,
}

/// Hands requests to the thread, one at a time.
pub struct Worker {
    jobs: SyncSender<Job>,
    mailbox: Arc<Mailbox>,
}

impl Worker {
    /// Starts the thread. `prepare` runs on it first.
    ///
    /// # Errors
    /// When the host has no threads left.
    pub fn spawn(
        responder: Box<dyn Responder>,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let mailbox = Arc::new(Mailbox::default());
        let letters = Arc::clone(&mailbox);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                prepare();
                serve(responder, &queue, &letters);
            })?;
        Ok(Self { jobs, mailbox })
    }

    /// Whom an answer wakes. The first one stays.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn wake_with(&self, waker: impl FnOnce() -> io::Result<Waker>) -> io::Result<()> {
        if self.mailbox.waker.get().is_none() {
            let _ = self.mailbox.waker.set(waker()?);
        }
        Ok(())
    }

    /// Has a request answered. Never waits: the caller has one job at a time.
    ///
    /// # Errors
    /// The job, when the thread is not there any more.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }

    /// The answer, once it is there.
    #[must_use]
    pub fn collect(&self) -> Option<Answer> {
        lock(&self.mailbox.answer).take()
    }
}

fn lock(answer: &Mutex<Option<Answer>>) -> MutexGuard<'_, Option<Answer>> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut responder: Box<dyn Responder>, queue: &Receiver<Job>, mailbox: &Mailbox) {
    while let Ok(job) = queue.recv() {
        if let Some(register) = &job.register {
            responder.restore_register(register);
        }
        let frames = Request::parse(&job.bytes, job.room, job.deaths)
            .map(|request| responder.answer(&request));
        *lock(&mailbox.answer) = Some(Answer {
            ticket: job.ticket,
            frames,
            register: responder.register(),
        });
        if let Some(waker) = mailbox.waker.get() {
            waker.wake();
        }
    }
}
