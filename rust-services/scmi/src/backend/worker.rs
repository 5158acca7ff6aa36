// SPDX-License-Identifier: Apache-2.0

//! The thread on which jobs are done: sysfs may take as long as a bus transfer takes.
//!
//! All guests share it, so none may fill it. Who reads what somebody reads already shares the
//! reading; of values that are only set, the newest waits; and of changes that an agent waits for,
//! some are taken and more are answered with BUSY. Reading and changing take turns.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::backend::{Backend, Job, JobResult, Ticket};
use crate::platform::AgentId;

/// Changes that an agent waits for at most.
const MOST_CHANGES: usize = 64;
/// Readings that an agent waits for at most: what its queue holds. It is more only where drivers
/// came and went while something slow was read.
const MOST_READS: usize = 1024;
/// Refusals that wait at most: beyond, those who asked are gone.
const MOST_REFUSALS: usize = 16 * MOST_READS;

/// Hands jobs to the thread.
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

/// A job, and everybody who waits for it; nobody is somebody too.
struct Entry {
    job: Job,
    tickets: Vec<Option<Ticket>>,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<Entry>,
    changes: VecDeque<Entry>,
    refused: VecDeque<JobResult>,
    /// Of each agent, the reads (`true`) and the changes that were not done yet.
    waiting: HashMap<(AgentId, bool), usize>,
    /// Whose turn it is.
    read_next: bool,
}

impl Queue {
    fn submit(&mut self, job: Job) {
        let (ticket, reads) = (job.ticket(), job.is_read());
        if let Some(ticket) = ticket {
            let most = if reads { MOST_READS } else { MOST_CHANGES };
            let waiting = self.waiting.entry((ticket.agent, reads)).or_default();
            if *waiting >= most {
                if self.refused.len() < MOST_REFUSALS {
                    self.refused.push_back(job.refused());
                }
                return;
            }
            *waiting = waiting.saturating_add(1);
        }
        let list = if reads {
            &mut self.reads
        } else {
            &mut self.changes
        };
        // What somebody waits for is not joined with another change: it could fail by that one.
        let joins = |of: &&mut Entry| {
            of.job.is_about(&job) && (reads || (ticket.is_none() && of.tickets == [None]))
        };
        if let Some(entry) = list.iter_mut().rfind(joins) {
            if !entry.tickets.contains(&ticket) {
                entry.tickets.push(ticket);
            }
            if !reads {
                entry.job = job;
            }
            return;
        }
        list.push_back(Entry {
            job,
            tickets: vec![ticket],
        });
    }

    fn take(&mut self) -> Option<Entry> {
        let (first, second) = if self.read_next {
            (&mut self.reads, &mut self.changes)
        } else {
            (&mut self.changes, &mut self.reads)
        };
        let entry = first.pop_front().or_else(|| second.pop_front())?;
        self.read_next = !entry.job.is_read();
        Some(entry)
    }

    fn is_done(&mut self, ticket: Ticket, reads: bool) {
        if let Some(waiting) = self.waiting.get_mut(&(ticket.agent, reads)) {
            *waiting = waiting.saturating_sub(1);
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is next: refusals, and something to do.
    fn next(&self) -> (VecDeque<JobResult>, Option<Entry>) {
        let mut queue = self.queue();
        loop {
            let refused = std::mem::take(&mut queue.refused);
            let entry = queue.take();
            if entry.is_some() || !refused.is_empty() {
                return (refused, entry);
            }
            queue = self
                .more
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Worker {
    /// Starts the thread, which ends with the process. `prepare` runs on it first; `done` is called
    /// on it after each job that was done, for everybody who waited.
    ///
    /// # Errors
    /// When the host has no threads left.
    pub fn spawn(
        mut backend: Box<dyn Backend>,
        prepare: impl FnOnce() + Send + 'static,
        done: impl Fn(JobResult) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("backend".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                prepare();
                loop {
                    let (refused, entry) = of_thread.next();
                    refused.into_iter().for_each(&done);
                    let Some(Entry { job, tickets }) = entry else {
                        continue;
                    };
                    let reads = job.is_read();
                    let result = backend.work(job);
                    for ticket in tickets {
                        if let Some(ticket) = ticket {
                            of_thread.queue().is_done(ticket, reads);
                        }
                        done(result.of(ticket));
                    }
                }
            })?;
        Ok(Self(shared))
    }

    /// Has a job done. Never waits: one too many is answered with BUSY.
    pub fn submit(&self, job: Job) {
        self.0.queue().submit(job);
        self.0.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::platform::{HostState, Kind};
    use crate::wire::Status;

    /// A host that does one job for each word it gets, and tells which.
    struct Slow(Receiver<()>, Sender<Job>);

    impl Backend for Slow {
        fn work(&mut self, job: Job) -> JobResult {
            self.0.recv().unwrap();
            self.1.send(job.clone()).unwrap();
            match job {
                Job::Measure { sensor, ticket } => JobResult::Measured {
                    sensor,
                    values: Ok(vec![7]),
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
                    result: Ok(None),
                },
                _ => JobResult::Set,
            }
        }
    }

    struct Bench {
        worker: Worker,
        go: Sender<()>,
        did: Receiver<Job>,
        done: Receiver<JobResult>,
    }

    impl Bench {
        /// The host is at a job already, so that all others wait.
        fn new() -> Self {
            let (go, gate) = channel();
            let (tell, did) = channel();
            let (finish, done) = channel();
            let slow = Box::new(Slow(gate, tell));
            let worker = Worker::spawn(slow, || (), move |result| finish.send(result).unwrap());
            let worker = worker.unwrap();
            worker.submit(Job::Frequency { domain: 99, khz: 1 });
            while !worker.0.queue().changes.is_empty() {
                std::thread::yield_now();
            }
            Self {
                worker,
                go,
                did,
                done,
            }
        }

        /// What the host does in so many words.
        fn does(&self, jobs: usize) -> Vec<Job> {
            let wait = Duration::from_secs(20);
            let one = |_| {
                self.go.send(()).unwrap();
                self.did.recv_timeout(wait).unwrap()
            };
            (0..jobs).map(one).collect()
        }

        fn next(&self) -> JobResult {
            self.done.recv_timeout(Duration::from_secs(20)).unwrap()
        }
    }

    fn ticket(agent: usize, number: u32) -> Option<Ticket> {
        let agent = AgentId::new(agent);
        Some(Ticket { agent, number })
    }

    fn apply(ticket: Option<Ticket>) -> Job {
        Job::Apply {
            kind: Kind::Power,
            index: 0,
            state: HostState::Power {
                on: ticket.is_none(),
            },
            ticket,
        }
    }

    #[test]
    fn a_guest_that_reads_a_slow_sensor_without_end_delays_others_by_one_reading() {
        let bench = Bench::new();
        for number in 0..1024 {
            let ticket = ticket(0, number);
            bench.worker.submit(Job::Measure { sensor: 0, ticket });
        }
        bench.worker.submit(Job::Measure {
            sensor: 1,
            ticket: ticket(1, 7),
        });
        bench.worker.submit(apply(ticket(1, 8)));
        let did = bench.does(4);
        assert!(matches!(did[1], Job::Measure { sensor: 0, .. }), "{did:?}");
        assert!(matches!(did[2], Job::Apply { .. }), "{did:?}");
        assert!(matches!(did[3], Job::Measure { sensor: 1, .. }), "{did:?}");
        assert!(matches!(bench.next(), JobResult::Set));
        for number in 0..1024 {
            match bench.next() {
                JobResult::Measured {
                    values, ticket: of, ..
                } => {
                    assert_eq!((values, of), (Ok(vec![7]), ticket(0, number)));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn changes_that_a_guest_waits_for_are_so_many_and_no_more() {
        let bench = Bench::new();
        for number in 0..100 {
            bench.worker.submit(apply(ticket(0, number)));
        }
        bench.worker.submit(apply(ticket(1, 7)));
        // What an agent's death ends is never refused.
        bench.worker.submit(apply(None));
        bench.worker.submit(apply(None));
        let did = bench.does(1 + MOST_CHANGES + 2);
        assert!(matches!(did.last(), Some(Job::Apply { ticket: None, .. })));
        let mut counts = (0, 0);
        for _ in 0..=100 + 2 {
            match bench.next() {
                JobResult::Applied { result: Ok(_), .. } => counts.0 += 1,
                JobResult::Applied {
                    result, ticket: of, ..
                } => {
                    assert_eq!(result, Err(Status::Busy));
                    assert_eq!(of.unwrap().agent, AgentId::new(0));
                    counts.1 += 1;
                }
                _ => {}
            }
        }
        assert_eq!(counts, (MOST_CHANGES + 2, 100 - MOST_CHANGES));
        // What was done makes room.
        bench.worker.submit(apply(ticket(0, 500)));
        bench.does(1);
        assert!(matches!(
            bench.next(),
            JobResult::Applied { result: Ok(_), .. }
        ));
    }

    #[test]
    fn of_values_that_are_only_set_the_newest_is_set() {
        let bench = Bench::new();
        for khz in 0..10_000 {
            bench.worker.submit(Job::Frequency { domain: 0, khz });
            let microwatts = khz;
            bench.worker.submit(Job::Cap {
                domain: 0,
                microwatts,
            });
            let ticket = None;
            bench.worker.submit(Job::Power { domain: 0, ticket });
        }
        let did = bench.does(4);
        assert!(matches!(did[1], Job::Power { .. }), "{did:?}");
        assert!(matches!(did[2], Job::Frequency { khz: 9999, .. }));
        let cap = Job::Cap {
            domain: 0,
            microwatts: 9999,
        };
        assert!(did[3].is_about(&cap), "{did:?}");
        assert!(bench.worker.0.queue().take().is_none());
    }
}
