// SPDX-License-Identifier: Apache-2.0

//! The thread on which jobs are done: sysfs may take as long as a bus transfer takes.

use std::io;
use std::sync::mpsc::{Receiver, Sender, TrySendError, channel, sync_channel};

use crate::backend::{Backend, Job, JobResult};
use crate::wire::Status;

/// Jobs that wait at most. More are refused: a guest cannot fill the host's memory.
const MOST_JOBS: usize = 4096;

/// Hands jobs to the thread.
#[derive(Clone)]
pub struct Worker {
    jobs: std::sync::mpsc::SyncSender<Job>,
    refused: Sender<JobResult>,
}

impl Worker {
    /// Starts the thread. `prepare` runs on it first; `done` is called on it after each job that
    /// was done.
    ///
    /// # Errors
    /// When the host has no threads left.
    pub fn spawn(
        mut backend: Box<dyn Backend>,
        prepare: impl FnOnce() + Send + 'static,
        done: impl Fn(JobResult) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue): (_, Receiver<Job>) = sync_channel(MOST_JOBS);
        let (refused, refusals): (_, Receiver<JobResult>) = channel();
        std::thread::Builder::new()
            .name("backend".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                prepare();
                while let Ok(job) = queue.recv() {
                    done(backend.work(job));
                    while let Ok(refusal) = refusals.try_recv() {
                        done(refusal);
                    }
                }
            })?;
        Ok(Self { jobs, refused })
    }

    /// Has a job done. Never waits: one too many is answered with BUSY.
    pub fn submit(&self, job: Job) {
        let job = match self.jobs.try_send(job) {
            Ok(()) => return,
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
        };
        let refusal = match job {
            Job::Measure { sensor, ticket } => JobResult::Measured {
                sensor,
                values: Err(Status::Busy),
                ticket,
            },
            Job::Power { domain, ticket } => JobResult::Power {
                domain,
                microwatts: Err(Status::Busy),
                ticket,
            },
            Job::Apply {
                kind,
                index,
                ticket,
                ..
            } => JobResult::Applied {
                kind,
                index,
                ticket,
                result: Err(Status::Busy),
            },
            Job::Frequency { .. } | Job::Cap { .. } => JobResult::Set,
        };
        // The thread reads it after the job it is at; it ends only with the process.
        let _ = self.refused.send(refusal);
    }
}
