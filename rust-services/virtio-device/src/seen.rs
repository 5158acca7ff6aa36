// SPDX-License-Identifier: Apache-2.0

//! What a driver has seen of what was given back: for devices that speak on two queues and must not
//! be heard on the second before the first.

use crate::io::{Io, Slot};

/// A place in what was given back of a queue: its used index then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark(pub u16);

/// Whether a driver has taken what was given back up to a [`Mark`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// It has.
    Yes,
    /// It has not said so. A driver that polls may never do.
    NotYet,
    /// It does not say: EVENT_IDX was not negotiated, or the queue does not run.
    Untold,
}

impl Io {
    /// Marks what was given back of `queue` until now; `None` where it does not run.
    #[must_use]
    pub fn mark(&self, queue: usize) -> Option<Mark> {
        match self.slots.get(queue) {
            Some(Slot::Running(active)) => Some(Mark(active.ring.next_used())),
            _ => None,
        }
    }

    /// Whether the driver has taken all that was given back of `queue` before it was marked. A driver
    /// tells by the index at which it wants its next interrupt (VIRTIO 1.4, 2.7.7); one that skips
    /// interrupts by an index ahead of what it has taken is believed too early.
    #[must_use]
    pub fn has_seen(&self, queue: usize, mark: Mark) -> Seen {
        match self.slots.get(queue) {
            Some(Slot::Running(active)) => active.ring.has_seen(mark),
            _ => Seen::Untold,
        }
    }
}

/// Judges by the used index `given`, the driver's `used_event` (where there is one), and the ring's
/// size.
pub(crate) fn judge(mark: Mark, given: u16, used_event: Option<u16>, size: u16) -> Seen {
    let since = given.wrapping_sub(mark.0);
    // The last chain before the mark kept a descriptor back: with the others, fewer chains than this
    // can have been made available without taking it first.
    if since >= size {
        return Seen::Yes;
    }
    match used_event {
        None => Seen::Untold,
        Some(event) if event.wrapping_sub(mark.0) <= since => Seen::Yes,
        Some(_) => Seen::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_has_seen_what_lies_before_the_interrupt_that_it_wants() {
        for start in [0_u16, 1000, 0xfffd, 0xffff] {
            let at = |ahead: u16| start.wrapping_add(ahead);
            let mark = Mark(at(3));
            // Three were given back, then five.
            for (given, event, seen) in [
                (3, 0, Seen::NotYet),
                (3, 2, Seen::NotYet),
                (3, 3, Seen::Yes),
                (5, 2, Seen::NotYet),
                (5, 3, Seen::Yes),
                (5, 5, Seen::Yes),
                // Nothing that it can have seen: how Linux and others say "do not interrupt".
                (5, 6, Seen::NotYet),
                (5, 0x8005, Seen::NotYet),
            ] {
                let judged = judge(mark, at(given), Some(at(event)), 256);
                assert_eq!(judged, seen, "{start}: {given}, {event}");
            }
        }
    }

    #[test]
    fn a_driver_that_does_not_tell_has_seen_what_it_must_have_used_again() {
        for start in [0_u16, 0xfffe] {
            let mark = Mark(start);
            let after = |count: u16| judge(mark, start.wrapping_add(count), None, 8);
            assert_eq!(after(0), Seen::Untold);
            assert_eq!(after(7), Seen::Untold);
            assert_eq!(after(8), Seen::Yes);
            let polling = judge(mark, start.wrapping_add(8), Some(0x8000), 8);
            assert_eq!(polling, Seen::Yes);
        }
    }
}
