// SPDX-License-Identifier: Apache-2.0

//! A lock that goes to who has waited longest.
//!
//! A mutex of the standard library goes to who asks first once it is free. That is nearly always the
//! thread that has just let it go: it runs, and the one that waits has to be woken first. Of guests that
//! share a service, one that sends without end would have what they share for itself as long as it likes.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// A value that one thread has at a time, in the order in which they asked.
#[derive(Debug, Default)]
pub struct Fair<T> {
    line: Line,
    /// Never contended: only who has been called takes it.
    value: Mutex<T>,
}

/// Who waits.
#[derive(Debug, Default)]
struct Line(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    taken: bool,
    places: VecDeque<Arc<Place>>,
}

/// A thread that waits.
#[derive(Debug)]
struct Place {
    thread: Thread,
    called: AtomicBool,
}

/// The value, until it is dropped. Then it is the next one's.
#[derive(Debug)]
pub struct FairGuard<'a, T> {
    // Dropped first: who is called finds the value free.
    value: MutexGuard<'a, T>,
    _end: End<'a>,
}

#[derive(Debug)]
struct End<'a>(&'a Line);

impl<T> Fair<T> {
    /// A value that nobody has.
    pub fn new(value: T) -> Self {
        Self {
            line: Line::default(),
            value: Mutex::new(value),
        }
    }

    /// Waits for the value behind all who wait already. Who panicked with it leaves it as it was
    /// then.
    pub fn lock(&self) -> FairGuard<'_, T> {
        self.line.queue();
        FairGuard {
            value: self.value.lock().unwrap_or_else(PoisonError::into_inner),
            _end: End(&self.line),
        }
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when it is this thread's turn.
    fn queue(&self) {
        let mut waiting = self.waiting();
        if !waiting.taken {
            waiting.taken = true;
            return;
        }
        let place = Arc::new(Place {
            thread: thread::current(),
            called: AtomicBool::new(false),
        });
        waiting.places.push_back(Arc::clone(&place));
        drop(waiting);
        while !place.called.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// Calls the next one, who has it from now on: nobody can come between.
    fn call(&self) {
        let mut waiting = self.waiting();
        let next = waiting.places.pop_front();
        waiting.taken = next.is_some();
        drop(waiting);
        if let Some(next) = next {
            next.called.store(true, Ordering::Release);
            next.thread.unpark();
        }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.call();
    }
}

impl<T> Deref for FairGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for FairGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lets_it_go_and_wants_it_again_comes_after_all_who_waited() {
        let order: Fair<Vec<usize>> = Fair::new(Vec::new());
        for _ in 0..5 {
            thread::scope(|scope| {
                let mut held = order.lock();
                held.clear();
                for number in 0..4 {
                    let order = &order;
                    scope.spawn(move || order.lock().push(number));
                    // Until it stands in the line.
                    while order.line.waiting().places.len() <= number {
                        thread::yield_now();
                    }
                }
                drop(held);
                order.lock().push(9);
            });
            assert_eq!(*order.lock(), [0, 1, 2, 3, 9]);
        }
    }

    #[test]
    fn one_thread_has_it_at_a_time() {
        let count = Fair::new(0_u32);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let mut count = count.lock();
                        let before = *count;
                        thread::yield_now();
                        *count = before + 1;
                    }
                });
            }
        });
        assert_eq!(*count.lock(), 100);
    }
}
