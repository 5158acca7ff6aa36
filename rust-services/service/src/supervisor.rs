// SPDX-License-Identifier: Apache-2.0
//! The thread that hears signals and reassures the watchdog.

use crate::Health;
use crate::notify::{Notifier, State};
use crate::sandbox::{Role, Sandbox};
use crate::shutdown::{Request, Signals, Stop};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const STACK: usize = 256 * 1024;

type Apply<C> = Box<dyn FnMut(C) + Send>;

/// What a device does with a new configuration, once it has said so.
pub(crate) struct ReloadSlot<C> {
    apply: Arc<Mutex<Option<Apply<C>>>>,
}

impl<C> ReloadSlot<C> {
    pub(crate) fn set(&self, apply: Apply<C>) {
        *self.apply.lock().unwrap_or_else(PoisonError::into_inner) = Some(apply);
    }

    /// Whether the device took it.
    pub(crate) fn apply(&self, config: C) -> bool {
        let mut slot = self.apply.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_mut() {
            Some(apply) => {
                apply(config);
                true
            }
            None => false,
        }
    }
}

impl<C> Clone for ReloadSlot<C> {
    fn clone(&self) -> Self {
        Self {
            apply: Arc::clone(&self.apply),
        }
    }
}

impl<C> Default for ReloadSlot<C> {
    fn default() -> Self {
        Self {
            apply: Arc::default(),
        }
    }
}

impl<C> std::fmt::Debug for ReloadSlot<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReloadSlot")
    }
}

/// All that the thread needs.
pub(crate) struct Supervisor {
    pub(crate) signals: Signals,
    pub(crate) stop: Stop,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) health: Health,
}

impl Supervisor {
    /// Starts the thread; it ends with the process.
    pub(crate) fn start(
        self,
        sandbox: Sandbox,
        reload: impl FnMut() + Send + 'static,
    ) -> io::Result<()> {
        std::thread::Builder::new()
            .name("supervisor".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // It reads the configuration again, for which the bus's calls suffice.
                sandbox.enter(Role::Bus);
                self.run(reload);
            })?;
        Ok(())
    }

    fn run(self, mut reload: impl FnMut()) {
        let interval = self.notifier.keep_alive_interval();
        let mut next = interval.and_then(|interval| Instant::now().checked_add(interval));
        loop {
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            match self.signals.wait(&self.stop, left) {
                Some(Request::Stop) => break,
                Some(Request::Reload) => {
                    self.notifier.send(&State::Reloading);
                    reload();
                    self.notifier.send(&State::Ready);
                }
                None => {
                    self.reassure();
                    next = interval.and_then(|interval| Instant::now().checked_add(interval));
                }
            }
        }
        log::info!("drains; a second signal ends it at once");
        self.notifier.send(&State::Stopping);
        self.stop.ask();
        // The watchdog goes on during the drain.
        loop {
            std::thread::park_timeout(interval.unwrap_or(Duration::from_secs(3600)));
            self.reassure();
        }
    }

    fn reassure(&self) {
        let stuck = self.health.stuck();
        if stuck.is_empty() {
            self.notifier.send(&State::Watchdog);
        } else {
            log::error!(
                "no progress in {}: the watchdog will end the service",
                stuck.join(", ")
            );
        }
    }
}
