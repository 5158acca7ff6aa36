// SPDX-License-Identifier: Apache-2.0

//! Points at which a test kills the service, to see that nothing is lost or repeated.
//!
//! Without the feature `crash-points` all of this compiles to nothing.

/// Where a service may be made to die, by `AGL_VIRTIO_CRASH=POINT:N` (the N-th time it passes).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashPoint {
    /// `popped`: a chain was taken and recorded, nothing else happened.
    Popped,
    /// `before-used`: the used element is written, the used index is not.
    BeforeUsed,
    /// `after-used`: the used index is written, the record still says in flight.
    AfterUsed,
    /// `before-call`: everything is written, the driver is not interrupted.
    BeforeCall,
    /// `ring-start`: a ring is about to start, in a replay too.
    RingStart,
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::CrashPoint;

    static ARMED: LazyLock<Option<(CrashPoint, u64)>> = LazyLock::new(|| {
        let value = std::env::var("AGL_VIRTIO_CRASH").ok()?;
        let (name, count) = value.split_once(':')?;
        let point = match name {
            "popped" => CrashPoint::Popped,
            "before-used" => CrashPoint::BeforeUsed,
            "after-used" => CrashPoint::AfterUsed,
            "before-call" => CrashPoint::BeforeCall,
            "ring-start" => CrashPoint::RingStart,
            _ => return None,
        };
        Some((point, count.parse().ok()?))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    pub(super) fn pass(point: CrashPoint) {
        let Some((armed, count)) = *ARMED else { return };
        if armed == point && PASSED.fetch_add(1, Ordering::SeqCst).wrapping_add(1) == count {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }
}

/// Passes a point; dies there if the environment asks for it.
#[inline]
pub fn pass(point: CrashPoint) {
    #[cfg(feature = "crash-points")]
    armed::pass(point);
    #[cfg(not(feature = "crash-points"))]
    let _ = point;
}
