// SPDX-License-Identifier: Apache-2.0

//! Events on their way to the driver (VIRTIO 1.4, 5.22.6.2).
//!
//! A driver that gives no room for events gets them when it does. What waits is bounded: buffers by
//! refusing to take more, V4L2 events by keeping the newest of each kind.

use std::collections::{BTreeMap, VecDeque};

use rustix::io::Errno;
use virtio_device::Io;
use zerocopy::{FromZeros, IntoBytes};

use crate::v4l2::event::{ALL, SEND_INITIAL};
use crate::v4l2::{Buffer, Event, EventSubscription, Plane};
use crate::wire::{BufferEvent, EVENTS, ErrorEvent, EventHeader, V4l2Event};

/// A session's number.
pub type Session = u32;

/// Buffers that may wait to be told of; more are not taken from the driver.
const MAX_BUFFERS: usize = 1024;
/// Wishes for events that a session may have.
const MAX_SUBSCRIPTIONS: usize = 64;

/// What is to be said.
enum Letter {
    Error(Errno),
    Buffer(Box<BufferEvent>),
    Event(Event),
}

impl Letter {
    /// As it travels.
    fn bytes(&self, session: Session) -> Vec<u8> {
        match self {
            Self::Error(errno) => ErrorEvent {
                header: EventHeader { event: 0, session },
                errno: errno.raw_os_error().unsigned_abs(),
                reserved: 0,
            }
            .as_bytes()
            .to_vec(),
            Self::Buffer(event) => event.as_bytes().to_vec(),
            Self::Event(event) => V4l2Event {
                header: EventHeader { event: 2, session },
                event: *event,
            }
            .as_bytes()
            .to_vec(),
        }
    }
}

/// What waits for the driver, and what it wants to hear.
#[derive(Default)]
pub struct Outbox {
    letters: VecDeque<(Session, Letter)>,
    buffers: usize,
    /// By session, type and control: the flags.
    wanted: BTreeMap<(Session, u32, u32), u32>,
}

impl Outbox {
    /// The session is lost.
    pub fn error(&mut self, session: Session, errno: Errno) {
        self.letters.push_back((session, Letter::Error(errno)));
    }

    /// Lost sessions of which the driver has not read yet.
    #[must_use]
    pub fn errors(&self) -> usize {
        let letters = self.letters.iter();
        letters
            .filter(|(_, letter)| matches!(letter, Letter::Error(_)))
            .count()
    }

    /// A buffer comes back.
    pub fn buffer(&mut self, session: Session, buffer: Buffer, planes: &[Plane]) {
        let mut event = BufferEvent::new_zeroed();
        event.header = EventHeader { event: 1, session };
        event.buffer = buffer;
        for (to, from) in event.planes.iter_mut().zip(planes) {
            *to = *from;
        }
        self.buffers = self.buffers.saturating_add(1);
        self.letters
            .push_back((session, Letter::Buffer(Box::new(event))));
    }

    /// Whether the driver leaves so many buffers unread that it gets no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.buffers >= MAX_BUFFERS
    }

    /// Something happened that a session may want to hear of. Of the same kind, only the newest
    /// waits.
    pub fn event(&mut self, session: Session, event: &Event) {
        if !self.wants(session, event.type_, event.id) {
            return;
        }
        let (type_, id) = (event.type_, event.id);
        self.letters.retain(|(to, letter)| {
            *to != session
                || !matches!(letter, Letter::Event(old) if (old.type_, old.id) == (type_, id))
        });
        self.letters.push_back((session, Letter::Event(*event)));
    }

    fn wants(&self, session: Session, type_: u32, id: u32) -> bool {
        self.wanted.contains_key(&(session, type_, id))
    }

    /// The sessions that want to hear of it, with the flags of their wish.
    #[must_use]
    pub fn listeners(&self, type_: u32, id: u32) -> Vec<(Session, u32)> {
        let matching = self.wanted.iter();
        matching
            .filter(|((_, of, about), _)| (*of, *about) == (type_, id))
            .map(|((session, _, _), flags)| (*session, *flags))
            .collect()
    }

    /// A session wants to hear of events. True if it wants to hear how things are now.
    ///
    /// # Errors
    /// ENOMEM for too many wishes.
    pub fn subscribe(&mut self, session: Session, wish: &EventSubscription) -> Result<bool, Errno> {
        let key = (session, wish.type_, wish.id);
        let first = (session, 0, 0);
        let last = (session, u32::MAX, u32::MAX);
        let known = self.wanted.contains_key(&key);
        if !known && self.wanted.range(first..=last).count() >= MAX_SUBSCRIPTIONS {
            return Err(Errno::NOMEM);
        }
        self.wanted.insert(key, wish.flags);
        Ok(wish.flags & SEND_INITIAL != 0)
    }

    /// A session does not want to hear of events any more.
    pub fn unsubscribe(&mut self, session: Session, wish: &EventSubscription) {
        let all = wish.type_ == ALL;
        let meant = |of: Session, type_: u32, id: u32| {
            of == session && (all || (type_ == wish.type_ && id == wish.id))
        };
        self.wanted
            .retain(|&(of, type_, id), _| !meant(of, type_, id));
        self.letters.retain(|(of, letter)| {
            !matches!(letter, Letter::Event(event) if meant(*of, event.type_, event.id))
        });
    }

    /// A session has ended: nobody reads what was for it.
    pub fn forget(&mut self, session: Session) {
        self.letters.retain(|(of, _)| *of != session);
        self.wanted.retain(|(of, _, _), _| *of != session);
        self.count();
    }

    /// The buffers of a queue are the driver's again by STREAMOFF: that says it all.
    pub fn forget_buffers(&mut self, session: Session, type_: u32) {
        self.letters.retain(|(of, letter)| {
            let stale = matches!(letter, Letter::Buffer(event) if event.buffer.type_ == type_);
            *of != session || !stale
        });
        self.count();
    }

    fn count(&mut self) {
        let letters = self.letters.iter();
        self.buffers = letters
            .filter(|(_, letter)| matches!(letter, Letter::Buffer(_)))
            .count();
    }

    /// Everything is forgotten.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes all that waits, as it would travel: for who has no driver.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.buffers = 0;
        let letters = self.letters.drain(..);
        letters
            .map(|(session, letter)| letter.bytes(session))
            .collect()
    }

    /// Gives the driver what there is room for.
    pub fn deliver(&mut self, io: &mut Io) {
        while !self.letters.is_empty() && io.running(EVENTS) {
            let Some(chain) = io.pop(EVENTS) else {
                return;
            };
            let Some((session, letter)) = self.letters.pop_front() else {
                return;
            };
            let bytes = letter.bytes(session);
            // A driver may leave no room for planes that it does not have.
            let room = bytes.len().min(chain.writable());
            let told = bytes.get(..room).unwrap_or_default();
            let written = chain.write(io.memory(), 0, told);
            match (written, u32::try_from(room)) {
                (Ok(()), Ok(len)) if room >= size_of::<EventHeader>() => io.complete(chain, len),
                _ => {
                    io.fail(chain, 0);
                    self.letters.push_front((session, letter));
                    continue;
                }
            }
            if matches!(letter, Letter::Buffer(_)) {
                self.buffers = self.buffers.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(type_: u32, id: u32) -> EventSubscription {
        EventSubscription {
            type_,
            id,
            flags: 0,
            reserved: [0; 5],
        }
    }

    #[test]
    fn only_the_newest_event_of_a_kind_waits() {
        let mut outbox = Outbox::default();
        outbox.subscribe(1, &wish(3, 7)).unwrap();
        for value in 0..100_u8 {
            outbox.event(1, &Event::new(3, 7, &[value]));
            outbox.event(2, &Event::new(3, 7, &[value]));
        }
        assert_eq!(outbox.letters.len(), 1);
        outbox.unsubscribe(1, &wish(ALL, 0));
        assert_eq!(outbox.letters.len(), 0);
    }

    #[test]
    fn wishes_are_bounded() {
        let mut outbox = Outbox::default();
        let most = u32::try_from(MAX_SUBSCRIPTIONS).unwrap();
        for id in 0..most {
            outbox.subscribe(1, &wish(3, id)).unwrap();
        }
        assert_eq!(outbox.subscribe(1, &wish(3, most)), Err(Errno::NOMEM));
        outbox.subscribe(1, &wish(3, 0)).unwrap();
        outbox.subscribe(2, &wish(3, 0)).unwrap();
        outbox.forget(1);
        assert_eq!(outbox.listeners(3, 0), [(2, 0)]);
    }

    #[test]
    fn errors_wait_until_their_session_is_closed() {
        let mut outbox = Outbox::default();
        outbox.error(1, Errno::IO);
        outbox.error(2, Errno::IO);
        outbox.buffer(2, Buffer::new_zeroed(), &[]);
        assert_eq!(outbox.errors(), 2);
        outbox.forget(1);
        assert_eq!(outbox.errors(), 1);
        assert_eq!(outbox.take().len(), 2);
        assert_eq!(outbox.errors(), 0);
    }

    #[test]
    fn a_driver_that_reads_nothing_gets_no_more_buffers() {
        let mut outbox = Outbox::default();
        for _ in 0..MAX_BUFFERS {
            assert!(!outbox.is_full());
            outbox.buffer(1, Buffer::new_zeroed(), &[]);
        }
        assert!(outbox.is_full());
        outbox.forget_buffers(1, 0);
        assert!(!outbox.is_full());
    }
}
