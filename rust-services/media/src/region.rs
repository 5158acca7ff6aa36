// SPDX-License-Identifier: Apache-2.0

//! Shared memory region 0, where the guest sees the buffers that it has mapped (VIRTIO 1.4, 5.22.6.1.5
//! and 5.22.6.1.6).
//!
//! The VMM maps and unmaps, and nobody waits for it: a command is kept until the VMM has answered.
//! Each MMAP is a mapping of its own, at a place of its own, so that a MUNMAP which is done twice over
//! the death of the service does no more than once.
//!
//! What is mapped stays so until MUNMAP or a reset, whatever becomes of the buffer, its session or the
//! service: a successor of this process takes the table over by the record. What it cannot know (a
//! mapping that was asked for, or was to go, when its predecessor died) it has the VMM take back.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::io::Errno;
use virtio_device::{Answer as VmmAnswer, Chain, Io, Place, Refused, Request, Ticket, Unanswered};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::memory::{Budget, PIECE, Part, PlaneMemory, pieces};
use crate::payload::{Answer, Input};

/// The region's id.
pub const REGION: u8 = 0;
/// Mappings at a time: a VMM has a slot of guest memory for each, and QEMU 509 for all devices.
const MAX_MAPPINGS: usize = 256;

/// What is behind a mapping.
enum Backing {
    /// A buffer's memory, or what was one.
    Memory(Arc<PlaneMemory>),
    /// A predecessor's: the VMM has it, and it counts.
    Inherited(#[expect(dead_code, reason = "it counts until it is dropped")] Option<Part>),
}

/// What becomes of a place.
enum State {
    /// The VMM is to be asked to map it, for this command.
    Wanted { chain: Chain, writable: bool },
    /// The VMM was asked. Without a command nobody wants it any more, and it is taken back.
    Mapping {
        ticket: Ticket,
        chain: Option<Chain>,
    },
    /// The guest has it.
    Mapped,
    /// The VMM is to be asked to take it back, for this command or for nobody.
    Unwanted(Option<Chain>),
    /// The VMM was asked.
    Unmapping {
        ticket: Ticket,
        chain: Option<Chain>,
    },
    /// The VMM has not answered in time, so nobody knows what is there until it does. `unmaps`: it was asked
    /// to take the place back.
    Lost { ticket: Ticket, unmaps: bool },
}

struct Mapping {
    /// Pieces.
    count: u64,
    backing: Backing,
    state: State,
}

/// What an answer says of a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// The VMM has done what it was asked for, had nothing to do it with, or is not there any more.
    Done,
    /// The VMM has heard nothing: all is as it was.
    Untouched,
    /// It may have done it, or do it yet.
    Unknown,
}

impl Fate {
    fn of(answer: &VmmAnswer) -> Self {
        match answer {
            Err(Refused::Unanswered(Unanswered::Late)) => Self::Unknown,
            Err(Refused::Unanswered(Unanswered::Crowded)) => Self::Untouched,
            _ => Self::Done,
        }
    }
}

/// The region and what lies in it.
pub struct Region {
    /// Pieces.
    size: u64,
    mappings: BTreeMap<u64, Mapping>,
    /// Where to look for room first: a place is used again as late as can be.
    next: u64,
    /// Commands that can be answered.
    done: Vec<(Chain, Answer)>,
}

/// A mapping in the record.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Saved {
    first: u32,
    count: u32,
    /// Whether the guest has it; else the VMM may have it or not.
    mapped: u32,
}

impl Region {
    /// An empty region of so many bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size: size.checked_div(PIECE).unwrap_or(0),
            mappings: BTreeMap::new(),
            next: 0,
            done: Vec::new(),
        }
    }

    /// Finds room for `count` pieces, or nothing.
    fn room(&self, count: u64) -> Option<u64> {
        let from = |begin: u64, end: u64| {
            let mut at = begin;
            for (&first, mapping) in &self.mappings {
                let after = first.saturating_add(mapping.count);
                if at.saturating_add(count) <= first {
                    break;
                }
                at = at.max(after);
            }
            (at.saturating_add(count) <= end).then_some(at)
        };
        from(self.next, self.size).or_else(|| from(0, self.size))
    }

    /// MMAP: keeps the command until [`Region::ask`] has asked and the VMM has answered.
    ///
    /// # Errors
    /// The command with ENOMEM where there is no room.
    pub fn map(
        &mut self,
        chain: Chain,
        memory: Arc<PlaneMemory>,
        writable: bool,
    ) -> Result<(), (Chain, Errno)> {
        let count = pieces(memory.len().into());
        let room = if self.mappings.len() < MAX_MAPPINGS {
            self.room(count)
        } else {
            None
        };
        let Some(first) = room else {
            return Err((chain, Errno::NOMEM));
        };
        self.next = first.saturating_add(count);
        memory.note_mapped();
        let mapping = Mapping {
            count,
            backing: Backing::Memory(memory),
            state: State::Wanted { chain, writable },
        };
        self.mappings.insert(first, mapping);
        Ok(())
    }

    /// MUNMAP of what begins at `offset` bytes: keeps the command, or answers it.
    ///
    /// # Errors
    /// The command with EINVAL where nothing of the guest's begins there. One that a dead process may
    /// have done is done.
    pub fn unmap(&mut self, chain: Chain, offset: u64) -> Result<(), (Chain, Errno)> {
        let again = chain.deaths() > 0;
        let whole = offset.checked_rem(PIECE) == Some(0);
        let first = offset.checked_div(PIECE).filter(|_| whole);
        let mapping = first.and_then(|first| self.mappings.get_mut(&first));
        match mapping.map(|mapping| &mut mapping.state) {
            Some(state @ State::Mapped) => *state = State::Unwanted(Some(chain)),
            Some(State::Unwanted(waits) | State::Unmapping { chain: waits, .. })
                if again && waits.is_none() =>
            {
                *waits = Some(chain);
            }
            None if again => self.done.push((chain, Answer::done())),
            _ => return Err((chain, Errno::INVAL)),
        }
        Ok(())
    }

    /// Asks the VMM for all that is to be asked. What was noted before is in the record by now.
    pub fn ask(&mut self, io: &mut Io) {
        for (&first, mapping) in &mut self.mappings {
            let place = place(first, mapping.count);
            let state = std::mem::replace(&mut mapping.state, State::Mapped);
            mapping.state = match (state, &mapping.backing) {
                (State::Wanted { chain, writable }, Backing::Memory(memory)) => State::Mapping {
                    ticket: io.ask(Request::Map {
                        place,
                        file: memory.memory().file(),
                        file_offset: 0,
                        writable,
                    }),
                    chain: Some(chain),
                },
                (State::Unwanted(chain), _) => State::Unmapping {
                    ticket: io.ask(Request::Unmap(place)),
                    chain,
                },
                (state, _) => state,
            };
        }
    }

    /// The VMM has answered.
    pub fn answered(&mut self, ticket: Ticket, answer: VmmAnswer) {
        let asked = self.mappings.iter_mut().find(|(_, mapping)| {
            matches!(&mapping.state,
                State::Mapping { ticket: asked, .. }
                | State::Unmapping { ticket: asked, .. }
                | State::Lost { ticket: asked, .. }
                    if *asked == ticket)
        });
        let Some((&first, mapping)) = asked else {
            return;
        };
        let fate = Fate::of(&answer);
        let mut gone = false;
        match std::mem::replace(&mut mapping.state, State::Mapped) {
            State::Mapping { chain, .. } => match (chain, answer) {
                (Some(chain), Ok(_)) => {
                    mapping.state = State::Mapped;
                    let len = match &mapping.backing {
                        Backing::Memory(memory) => u64::from(memory.len()),
                        Backing::Inherited(_) => 0,
                    };
                    let at = first.saturating_mul(PIECE);
                    self.done.push((chain, Answer::with(&[at, len])));
                }
                // Nobody wants it any more.
                (None, Ok(_)) => mapping.state = State::Unwanted(None),
                (chain, Err(refused)) => {
                    gone = fate != Fate::Unknown;
                    let unmaps = false;
                    mapping.state = State::Lost { ticket, unmaps };
                    let errno = if gone { Errno::NOMEM } else { Errno::TIMEDOUT };
                    log::debug!("the VMM maps no buffer: {refused}");
                    let told = chain.map(|chain| (chain, errno.into()));
                    self.done.extend(told);
                }
            },
            State::Unmapping { chain, .. } => {
                // Where the VMM has nothing to take back, there is nothing.
                gone = fate == Fate::Done;
                let unmaps = true;
                mapping.state = match fate {
                    // The guest still has it, so it counts until the VMM has heard of it.
                    Fate::Untouched => State::Unwanted(None),
                    Fate::Done | Fate::Unknown => State::Lost { ticket, unmaps },
                };
                let errno = (!gone).then_some(Errno::TIMEDOUT);
                let told = chain.map(|chain| (chain, Answer::done().but(errno)));
                self.done.extend(told);
            }
            // The VMM has mapped it after all, for nobody.
            State::Lost { unmaps: false, .. } if answer.is_ok() => {
                mapping.state = State::Unwanted(None);
            }
            // Or has not; or has taken it back, or had nothing there.
            State::Lost { .. } => gone = true,
            state => mapping.state = state,
        }
        if gone {
            self.remove(first);
        }
    }

    fn remove(&mut self, first: u64) {
        let removed = self.mappings.remove(&first);
        if let Some(Backing::Memory(memory)) = removed.map(|mapping| mapping.backing) {
            memory.note_unmapped();
        }
    }

    /// The commands that can be answered now.
    pub fn done(&mut self) -> Vec<(Chain, Answer)> {
        std::mem::take(&mut self.done)
    }

    /// The device was reset: the VMM has taken back all that was mapped. What it was asked for and has
    /// not answered may come after, and is taken back then. Without a VMM there is nothing.
    pub fn reset(&mut self, vmm_maps: bool) {
        self.done.clear();
        let firsts: Vec<u64> = self.mappings.keys().copied().collect();
        for first in firsts {
            let Some(mapping) = self.mappings.get_mut(&first) else {
                continue;
            };
            match &mut mapping.state {
                State::Mapping { chain, .. } | State::Unmapping { chain, .. } if vmm_maps => {
                    *chain = None;
                }
                State::Lost { .. } if vmm_maps => {}
                _ => self.remove(first),
            }
        }
    }

    /// How many mappings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// What a successor is to know.
    #[must_use]
    pub fn saved(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (&first, mapping) in &self.mappings {
            let saved = Saved {
                first: u32::try_from(first).unwrap_or(u32::MAX),
                count: u32::try_from(mapping.count).unwrap_or(u32::MAX),
                mapped: u32::from(matches!(mapping.state, State::Mapped)),
            };
            bytes.extend_from_slice(saved.as_bytes());
        }
        bytes
    }

    /// Takes over what a predecessor has saved: `count` mappings. What makes no sense is left out.
    ///
    /// # Errors
    /// EINVAL where they are cut off.
    pub fn restore(
        &mut self,
        input: &mut Input<'_>,
        count: usize,
        budget: Option<&Budget>,
    ) -> Result<(), Errno> {
        for Saved {
            first,
            count,
            mapped,
        } in input.take_all::<Saved>(count)?
        {
            let (first, count) = (u64::from(first), u64::from(count));
            let fits = count > 0 && first.saturating_add(count) <= self.size;
            if !fits || self.mappings.len() >= MAX_MAPPINGS {
                continue;
            }
            let bytes = count.saturating_mul(PIECE);
            let part = budget.and_then(|budget| budget.take(bytes).ok());
            let mapping = Mapping {
                count,
                backing: Backing::Inherited(part),
                state: if mapped == 0 {
                    State::Unwanted(None)
                } else {
                    State::Mapped
                },
            };
            self.mappings.insert(first, mapping);
            self.next = self.next.max(first.saturating_add(count));
        }
        Ok(())
    }
}

fn place(first: u64, count: u64) -> Place {
    Place {
        region: REGION,
        offset: first.saturating_mul(PIECE),
        len: count.saturating_mul(PIECE),
    }
}

#[cfg(test)]
mod tests {
    use virtio_device::Reply;

    use super::*;

    #[test]
    fn what_a_vmm_was_not_asked_to_take_back_the_guest_still_has() {
        let unanswered = |why| Fate::of(&Err(Refused::Unanswered(why)));
        assert_eq!(unanswered(Unanswered::Crowded), Fate::Untouched);
        assert_eq!(unanswered(Unanswered::Late), Fate::Unknown);
        assert_eq!(unanswered(Unanswered::Gone), Fate::Done);
        assert_eq!(unanswered(Unanswered::NotNegotiated), Fate::Done);
        assert_eq!(Fate::of(&Err(Refused::ByVmm(1))), Fate::Done);
        assert_eq!(Fate::of(&Ok(Reply::default())), Fate::Done);
    }
}
