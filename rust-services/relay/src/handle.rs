// SPDX-License-Identifier: Apache-2.0

//! What other threads may ask of a running relay.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

const CONFIG_CHANGED: u8 = 1;
const SHUT_DOWN: u8 = 2;

/// Wakes a relay up from any thread; never waits. Any number of clones.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Wish>);

#[derive(Debug)]
struct Wish {
    wake: OwnedFd,
    wanted: AtomicU8,
}

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) config_changed: bool,
    pub(crate) shut_down: bool,
}

impl Handle {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self(Arc::new(Wish {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            wanted: AtomicU8::new(0),
        })))
    }

    /// Tells the VMM that the configuration space has changed (`CONFIG_CHANGE_MSG`). Calls that
    /// come faster than the relay sends become one message; without a back-end channel, or when
    /// `CONFIG` was not negotiated, there is nobody to tell.
    pub fn config_changed(&self) {
        self.want(CONFIG_CHANGED);
    }

    /// Ends [`Relay::run`](crate::Relay::run) with [`End::ShutDown`](crate::End::ShutDown), now and
    /// at every later call.
    pub fn shut_down(&self) {
        self.want(SHUT_DOWN);
    }

    fn want(&self, bit: u8) {
        self.0.wanted.fetch_or(bit, Ordering::AcqRel);
        // It fails only when the counter is full, and then the relay is awake.
        let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn take(&self) -> Wanted {
        let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
        let wanted = self.0.wanted.fetch_and(!CONFIG_CHANGED, Ordering::AcqRel);
        Wanted {
            config_changed: wanted & CONFIG_CHANGED != 0,
            shut_down: wanted & SHUT_DOWN != 0,
        }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.0.wanted.load(Ordering::Acquire) & SHUT_DOWN != 0
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}
