// SPDX-License-Identifier: Apache-2.0

//! The workers there are, and those that are asked for.
//!
//! A guest that opens and closes streams without end asks for workers without end, and each takes much
//! of a processor while it loads its plugins. So there are never more than its sessions and two, and
//! they are born no faster than a person could want.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::worker::{Worker, has_hung_up};
use crate::process::allowance::Allowance;
use crate::process::message::{Report, Wait, send};

/// Workers beside those of sessions: the one that is ahead, and one that takes its time to end.
const BESIDE: usize = 2;
/// Workers at once, however many sessions there may be.
const MOST_WORKERS: usize = 160;
/// After how long one more may be born, once all that there may be were.
const NEXT_BIRTH: Duration = Duration::from_millis(500);

/// See above.
pub(super) struct Ward<'a> {
    program: &'a dyn Fn() -> Command,
    /// Workers write where this process does.
    is_loud: bool,
    most: usize,
    births: Allowance,
    /// Their ends of connections.
    unborn: VecDeque<OwnedFd>,
    workers: Vec<Worker>,
}

impl<'a> Ward<'a> {
    /// One for so many sessions, with this program.
    pub(super) fn new(
        program: &'a dyn Fn() -> Command,
        is_loud: bool,
        sessions: u32,
        now: Instant,
    ) -> Self {
        let most = usize::try_from(sessions).unwrap_or(MOST_WORKERS);
        let most = most.saturating_add(BESIDE).min(MOST_WORKERS);
        let burst = u32::try_from(most).unwrap_or(u32::MAX);
        Self {
            program,
            is_loud,
            most,
            births: Allowance::new(burst, NEXT_BIRTH, now),
            unborn: VecDeque::new(),
            workers: Vec::new(),
        }
    }

    /// Somebody wants a worker at the other end of this connection.
    pub(super) fn ask(&mut self, socket: OwnedFd) {
        if self.unborn.len() < self.most {
            self.unborn.push_back(socket);
        } else {
            let how = format!("was not started: {} wait already", self.unborn.len());
            let _ = send(&socket, &Report::Ended { how }, &[], Wait::No);
        }
    }

    /// Waits until something happens here or at `control`.
    pub(super) fn wait(&mut self, control: &OwnedFd) -> std::io::Result<()> {
        let now = Instant::now();
        let birth = (!self.unborn.is_empty() && self.workers.len() < self.most)
            .then(|| self.births.next(now));
        let looks = self.workers.iter().filter_map(Worker::next_look).min();
        let look = looks.map(|at| at.saturating_duration_since(now));
        let timeout = [birth, look].into_iter().flatten().min().map(|left| {
            let left = left.saturating_add(Duration::from_millis(10));
            Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        });
        let mut list = vec![PollFd::new(control, PollFlags::IN)];
        for worker in &self.workers {
            worker.wait_for(&mut list);
        }
        for socket in &self.unborn {
            list.push(PollFd::new(socket, PollFlags::empty()));
        }
        match poll(&mut list, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Does what is to be done now.
    pub(super) fn tend(&mut self, now: Instant) {
        self.workers.retain_mut(|worker| worker.look(now));
        // Nobody waits for these any more.
        self.unborn.retain(|socket| !has_hung_up(socket));
        while self.workers.len() < self.most && !self.unborn.is_empty() && self.births.take(now) {
            let socket = self.unborn.pop_front();
            let born = socket.and_then(|it| Worker::start((self.program)(), self.is_loud, it));
            self.workers.extend(born);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::words::READY;
    use super::super::worker::GRACE;
    use super::*;
    use crate::process::message::{pair, receive};

    fn sleep() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    /// One that says that it is ready.
    fn ready() -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo '{READY}'; exec sleep 600")]);
        command
    }

    /// Asks for a worker.
    fn ask(ward: &mut Ward<'_>) -> OwnedFd {
        let (ours, its) = pair().unwrap();
        ward.ask(its);
        ours
    }

    fn said(end: &OwnedFd) -> Option<Report> {
        receive(end, Wait::No).ok()?.map(|(report, _)| report)
    }

    /// Lets time go by for the workers, but not for the ward, until this is so.
    fn until(ward: &mut Ward<'_>, now: Instant, so: impl Fn(&Ward<'_>) -> bool) {
        let (control, _service) = pair().unwrap();
        let began = Instant::now();
        while !so(ward) {
            assert!(began.elapsed() < Duration::from_secs(60));
            ward.wait(&control).unwrap();
            ward.tend(now);
        }
    }

    #[test]
    fn there_are_no_more_workers_than_sessions_and_two() {
        let now = Instant::now();
        let mut ward = Ward::new(&sleep, false, 2, now);
        let ends: Vec<OwnedFd> = (0..20)
            .map(|_| {
                let end = ask(&mut ward);
                ward.tend(now);
                end
            })
            .collect();
        assert_eq!(ward.workers.len(), 4);
        assert_eq!(ward.unborn.len(), 4);
        let reports = ends.iter().map(said);
        let refused = reports.filter(|report| matches!(report, Some(Report::Ended { .. })));
        assert_eq!(refused.count(), 12);
        // Who waits is born when there is room.
        let later = now + Duration::from_secs(60);
        let mut ends = ends.into_iter();
        drop((ends.next(), ends.next()));
        until(&mut ward, later, |ward| ward.unborn.len() == 2);
        assert_eq!(ward.workers.len(), 4);
        // Or not at all, where nobody is there any more.
        drop(ends);
        until(&mut ward, now, |ward| ward.unborn.is_empty());
    }

    #[test]
    fn streams_that_come_and_go_without_end_have_few_workers_born() {
        let born = Cell::new(0);
        let program = || {
            born.set(born.get() + 1);
            sleep()
        };
        let now = Instant::now();
        let mut ward = Ward::new(&program, false, 6, now);
        let mut come_and_go = |now| {
            for _ in 0..50 {
                let end = ask(&mut ward);
                ward.tend(now);
                drop(end);
                until(&mut ward, now, |ward| ward.workers.is_empty());
            }
            born.get()
        };
        assert_eq!(come_and_go(now), 8);
        assert_eq!(come_and_go(now + 3 * NEXT_BIRTH), 11);
    }

    #[test]
    fn a_worker_that_still_loads_goes_at_once_with_its_stream() {
        let now = Instant::now();
        let mut ward = Ward::new(&sleep, false, 2, now);
        let end = ask(&mut ward);
        ward.tend(now);
        assert!(matches!(said(&end), Some(Report::Process { id }) if id > 0));
        drop(end);
        until(&mut ward, now, |ward| ward.workers.is_empty());
    }

    #[test]
    fn a_worker_with_a_codec_has_time_to_end() {
        let now = Instant::now();
        let mut ward = Ward::new(&ready, false, 2, now);
        let end = ask(&mut ward);
        ward.tend(now);
        until(&mut ward, now, |ward| ward.workers[0].is_ready());
        drop(end);
        let late = now + GRACE;
        // A process that another test is just starting may have a copy of that end for a moment.
        until(&mut ward, now, |ward| ward.workers[0].next_look().is_some());
        assert_eq!(ward.workers[0].next_look(), Some(late));
        ward.tend(late - Duration::from_millis(1));
        assert_eq!(ward.workers.len(), 1);
        until(&mut ward, late, |ward| ward.workers.is_empty());
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let nothing = || Command::new("/no/such/program");
        let now = Instant::now();
        let mut ward = Ward::new(&nothing, false, 2, now);
        let end = ask(&mut ward);
        ward.tend(now);
        let report = said(&end);
        assert!(
            matches!(&report, Some(Report::Ended { how }) if how.contains("was not started")),
            "{report:?}"
        );
    }
}
