// SPDX-License-Identifier: Apache-2.0
//! Whether the workers of a service still turn.
//!
//! A worker that waits is healthy for ever; one that began a turn and does not end it is stuck.
//! So a worker marks the beginning and the end of each turn, which costs two relaxed additions,
//! and the watchdog looks whether a turn that it saw before is still the same one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The turn counter of one worker: odd while it works, even while it waits.
#[derive(Debug, Default)]
pub struct Heartbeat {
    turns: AtomicU64,
}

impl Heartbeat {
    /// Marks the beginning of a turn; its end is when the guard is dropped.
    pub fn turn(&self) -> Turn<'_> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        Turn { heartbeat: self }
    }
}

/// A turn that is going on.
#[derive(Debug)]
pub struct Turn<'a> {
    heartbeat: &'a Heartbeat,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.heartbeat.turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// All workers of the service.
#[derive(Debug, Clone, Default)]
pub struct Health {
    workers: Arc<Mutex<Workers>>,
}

#[derive(Debug, Default)]
struct Workers {
    beats: HashMap<String, Arc<Heartbeat>>,
    seen: HashMap<String, u64>,
}

impl Health {
    /// A heartbeat for the worker of this name. One of the same name is replaced: the worker
    /// was started anew.
    pub fn worker(&self, name: &str) -> Arc<Heartbeat> {
        let beat = Arc::new(Heartbeat::default());
        let mut workers = self.lock();
        workers.seen.remove(name);
        workers.beats.insert(name.to_owned(), Arc::clone(&beat));
        beat
    }

    /// Forgets a worker that ended in order.
    pub fn remove(&self, name: &str) {
        let mut workers = self.lock();
        workers.seen.remove(name);
        workers.beats.remove(name);
    }

    /// The workers that are in the same turn as at the last look. Call it once per watchdog
    /// interval.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        let mut workers = self.lock();
        let mut stuck = Vec::new();
        let mut now = HashMap::with_capacity(workers.beats.len());
        for (name, beat) in &workers.beats {
            let turn = beat.turns.load(Ordering::Relaxed);
            if turn & 1 == 1 && workers.seen.get(name) == Some(&turn) {
                stuck.push(name.clone());
            }
            now.insert(name.clone(), turn);
        }
        workers.seen = now;
        stuck.sort();
        stuck
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_worker_is_healthy_for_ever() {
        let health = Health::default();
        let beat = health.worker("queue 0");
        drop(beat.turn());
        assert!(health.stuck().is_empty());
        assert!(health.stuck().is_empty());
    }

    #[test]
    fn a_worker_in_one_turn_for_a_whole_interval_is_stuck_until_it_moves() {
        let health = Health::default();
        let beat = health.worker("queue 0");
        let turn = beat.turn();
        assert!(health.stuck().is_empty(), "it may just have begun");
        assert_eq!(health.stuck(), ["queue 0"]);
        drop(turn);
        assert!(health.stuck().is_empty());
    }

    #[test]
    fn a_busy_worker_that_moves_is_healthy() {
        let health = Health::default();
        let beat = health.worker("queue 0");
        for _ in 0..3 {
            let turn = beat.turn();
            assert!(health.stuck().is_empty());
            drop(turn);
        }
    }

    #[test]
    fn a_worker_that_ended_is_not_waited_for() {
        let health = Health::default();
        let beat = health.worker("queue 0");
        let _turn = beat.turn();
        let _ = health.stuck();
        health.remove("queue 0");
        assert!(health.stuck().is_empty());
    }
}
