// SPDX-License-Identifier: Apache-2.0

//! How codecs' threads wake the one that owns them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes the owner's thread, once there is one. Many wake-ups before it looks are one.
#[derive(Default)]
pub struct Bell {
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    rung: AtomicBool,
}

impl Bell {
    /// Who is to look. The first one stays.
    pub fn attach(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// Whether somebody is to look.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.wake.get().is_some()
    }

    /// Has the owner look.
    pub fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// The owner looks now: what happens from here on rings again.
    pub fn answer(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn it_wakes_once_until_somebody_has_looked() {
        let (bell, woken) = (Bell::default(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&woken);
        bell.attach(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        bell.ring();
        bell.ring();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        bell.answer();
        bell.ring();
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }
}
