// SPDX-License-Identifier: Apache-2.0

//! What the queue thread asks of a stream's thread, and that thread has not done yet.
//!
//! A guest decides how often it prepares and releases, a sound server how long each takes: a plain
//! queue would grow as long as the guest likes, by a pipe for each request. So a mailbox that is
//! full forgets what later requests have made void. It is locked for a few instructions, and never
//! while sound is moved.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Command;

/// Requests beyond this many are put together. No honest guest is that far ahead.
const MOST: usize = 16;

/// The requests that wait.
pub(super) struct Mailbox<P>(Mutex<Letters<P>>);

struct Letters<P> {
    waiting: VecDeque<Command<P>>,
    ended: bool,
}

/// What a stream's thread finds.
pub(super) enum Found<P> {
    /// The next request.
    Command(Command<P>),
    Nothing,
    /// Nobody will ask any more.
    End,
}

impl<P> Mailbox<P> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Letters {
            waiting: VecDeque::with_capacity(MOST.saturating_add(1)),
            ended: false,
        }))
    }

    fn letters(&self) -> MutexGuard<'_, Letters<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks. What became void by it is dropped here, after the lock.
    pub(super) fn post(&self, command: Command<P>) {
        let void = {
            let mut letters = self.letters();
            letters.waiting.push_back(command);
            if letters.waiting.len() > MOST {
                put_together(&mut letters.waiting)
            } else {
                VecDeque::new()
            }
        };
        drop(void);
    }

    /// Asks for nothing more: what waits is done, then the thread ends.
    pub(super) fn end(&self) {
        self.letters().ended = true;
    }

    /// The next request.
    pub(super) fn take(&self) -> Found<P> {
        let mut letters = self.letters();
        match letters.waiting.pop_front() {
            Some(command) => Found::Command(command),
            None if letters.ended => Found::End,
            None => Found::Nothing,
        }
    }
}

/// Leaves of the requests those that lead where all of them lead. Returns the others.
fn put_together<P>(waiting: &mut VecDeque<Command<P>>) -> VecDeque<Command<P>> {
    let (mut select, mut life, mut clock) = (None, None, None);
    let mut void = VecDeque::new();
    for command in std::mem::take(waiting) {
        let place = match command {
            Command::Select(_) => &mut select,
            Command::Open(..) | Command::Close => {
                void.extend(clock.take());
                &mut life
            }
            Command::Start | Command::Stop => &mut clock,
        };
        void.extend(place.replace(command));
    }
    waiting.extend(select);
    waiting.extend(life);
    // A stream that was running is stopped before it is started.
    if matches!(clock, Some(Command::Start)) {
        waiting.push_back(Command::Stop);
    }
    waiting.extend(clock);
    void
}
