// SPDX-License-Identifier: Apache-2.0

//! `AGL_VIRTIO_KEEPER_KILL_AT=replay:3,forward:7` kills the service right after the third message
//! of replays and after the seventh request of the VMM was sent to it, each once. For tests only.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use agl_virtio_relay::{Relay, Sent};
use rustix::process::{Signal, pidfd_send_signal};

#[derive(Debug, Default)]
struct State {
    /// How many messages of the kind are still to come.
    left: Vec<(Sent, u64)>,
    victim: Option<Arc<OwnedFd>>,
}

/// Counts messages; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashPoints(Arc<Mutex<State>>);

impl CrashPoints {
    pub(crate) fn from_environment() -> Self {
        let text = std::env::var("AGL_VIRTIO_KEEPER_KILL_AT").unwrap_or_default();
        let left = text.split(',').filter_map(parse).collect();
        Self(Arc::new(Mutex::new(State { left, victim: None })))
    }

    pub(crate) fn set_victim(&self, pidfd: Arc<OwnedFd>) {
        if let Ok(mut state) = self.0.lock() {
            state.victim = Some(pidfd);
        }
    }

    pub(crate) fn observe(&self, relay: &mut Relay) {
        let points = self.clone();
        relay.set_observer(Box::new(move |sent| points.count(sent)));
    }

    fn count(&self, sent: Sent) {
        let Ok(mut state) = self.0.lock() else {
            return;
        };
        let mut due = false;
        for (_, left) in state.left.iter_mut().filter(|(kind, _)| *kind == sent) {
            due |= *left == 1;
            *left = left.saturating_sub(1);
        }
        if let Some(victim) = state.victim.as_ref().filter(|_| due) {
            log::warn!("crash point: the service is killed after a message ({sent:?})");
            let _ = pidfd_send_signal(victim, Signal::KILL);
        }
    }
}

fn parse(text: &str) -> Option<(Sent, u64)> {
    let (kind, number) = text.split_once(':')?;
    let kind = match kind {
        "replay" => Sent::Replay,
        "forward" => Sent::Request,
        _ => return None,
    };
    Some((kind, number.parse().ok()?))
}
